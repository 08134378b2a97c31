"""The two parameters of the guard in a query string: ``embed_token`` and ``embed``.

A bootstrap token stands in a URL, so it is taken out before anybody else reads
the URL: the app, the server's access log (which reads the scope when the
response starts), the current OpenTelemetry span.
"""

from __future__ import annotations

import sys
from typing import Final
from urllib.parse import quote, unquote_plus

from starlette.types import Scope

from toucan_guard.core.token_policy import MAX_TOKEN_BYTES

BOOTSTRAP_PARAMETER: Final = "embed_token"
HANDLE_PARAMETER: Final = "embed"
_QUERY_CHARACTERS: Final = "%!$&'()*+,;=:@/?[]|^`{}\\\""  # what browsers leave in a query, and what is encoded already
_LONGEST_TOKEN: Final = 3 * MAX_TOKEN_BYTES  # every character percent-encoded
_LONGEST_HANDLE: Final = 128
_SPAN_ATTRIBUTES: Final = ("url.query", "http.target", "http.url", "url.full")


def take_bootstrap_tokens(scope: Scope) -> tuple[str, ...]:
    """Remove every ``embed_token`` from the query string, in place, and return their values."""
    query: bytes = scope["query_string"]
    # The name may be percent-encoded, in whole or in part.
    if b"embed" not in query and b"%" not in query:
        return ()
    taken: list[str] = []
    kept: list[bytes] = []
    for field in query.split(b"&"):
        name, _, value = field.partition(b"=")
        if _is_named(name, BOOTSTRAP_PARAMETER):
            # A second one is refused as such, and an endless one as too large: neither is worth decoding.
            readable = not taken and len(value) <= _LONGEST_TOKEN
            taken.append(_decoded(value) if readable else value.decode("latin-1"))
        else:
            kept.append(field)
    if taken:
        scope["query_string"] = b"&".join(kept)
        _hide_from_span(scope)
    return tuple(taken)


def carries_bootstrap_token(scope: Scope) -> bool:
    """Whether a connection's query string has an ``embed_token``, in any spelling.

    For whatever looks at a URL before the guard has cleaned it, a sampler or a span processor:
    ``FastAPI(telemetry={"exclude": carries_bootstrap_token})``.
    """
    query: bytes = scope.get("query_string") or b""
    if b"embed" not in query and b"%" not in query:
        return False
    return any(_is_named(field.partition(b"=")[0], BOOTSTRAP_PARAMETER) for field in query.split(b"&"))


def handle_values(query: bytes | str) -> list[str]:
    """Every value of ``embed`` in a query string."""
    raw = query if isinstance(query, bytes) else query.encode("latin-1")
    if HANDLE_PARAMETER.encode() not in raw and b"%" not in raw:
        return []
    fields = (field.partition(b"=") for field in raw.split(b"&"))
    # What is longer than an encoded handle is none, and is not worth decoding.
    return [
        _decoded(value) if len(value) <= _LONGEST_HANDLE else ""
        for name, _, value in fields
        if _is_named(name, HANDLE_PARAMETER)
    ]


def with_handle(query: bytes, handle: str) -> str:
    """A query string that names this embed session and no other, fit for a Location header."""
    kept = [field for field in query.split(b"&") if field and not _is_named(field.partition(b"=")[0], HANDLE_PARAMETER)]
    # Whatever bytes a server let through, nothing ends the header or the URL early.
    return "&".join(quote(field, safe=_QUERY_CHARACTERS) for field in [*kept, f"{HANDLE_PARAMETER}={handle}".encode()])


def _is_named(name: bytes, parameter: str) -> bool:
    # One byte stands for a character, or three of which the first is a "%": what has another length in characters is
    # another name. Decoding whatever anybody sends would cost microseconds for each field.
    escapes = name.count(b"%")
    if len(name) - 2 * escapes != len(parameter):
        return False
    return (_decoded(name) if escapes else name.decode("latin-1")) == parameter


def _decoded(text: bytes) -> str:
    return unquote_plus(text.decode("latin-1"))


def _hide_from_span(scope: Scope) -> None:
    """Overwrite the URL in the current span, if the process traces at all.

    OpenTelemetry is looked up, not imported: a process that has not imported it has no span.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return
    span = trace.get_current_span()
    if not span.is_recording():
        return
    attributes = getattr(span, "attributes", None) or {}
    query = scope["query_string"].decode("latin-1")
    for name in _SPAN_ATTRIBUTES:
        seen = attributes.get(name)
        if name == "url.query":
            span.set_attribute(name, query)
        elif isinstance(seen, str) and "?" in seen:
            span.set_attribute(name, seen.partition("?")[0] + (f"?{query}" if query else ""))
