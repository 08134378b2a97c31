"""The two parameters of the guard in a query string: ``embed_token`` and ``embed``.

A bootstrap token stands in a URL, so it is taken out before anybody else reads
the URL: the app, the server's access log (which reads the scope when the
response starts), the current OpenTelemetry span.
"""

from __future__ import annotations

import sys
from typing import Final
from urllib.parse import parse_qsl, quote, unquote_plus

from starlette.types import Scope

BOOTSTRAP_PARAMETER: Final = "embed_token"
HANDLE_PARAMETER: Final = "embed"
_QUERY_CHARACTERS: Final = "%!$&'()*+,;=:@/?[]|^`{}\\\""  # what browsers leave in a query, and what is encoded already
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
        if _decoded(name) == BOOTSTRAP_PARAMETER:
            taken.append(_decoded(value))
        else:
            kept.append(field)
    if taken:
        scope["query_string"] = b"&".join(kept)
        _hide_from_span(scope)
    return tuple(taken)


def handle_values(query: bytes | str) -> list[str]:
    """Every value of ``embed`` in a query string."""
    text = query.decode("latin-1") if isinstance(query, bytes) else query
    if HANDLE_PARAMETER not in text and "%" not in text:
        return []
    return [value for name, value in parse_qsl(text, keep_blank_values=True) if name == HANDLE_PARAMETER]


def with_handle(query: bytes, handle: str) -> str:
    """A query string that names this embed session and no other, fit for a Location header."""
    kept = [field for field in query.split(b"&") if field and _decoded(field.partition(b"=")[0]) != HANDLE_PARAMETER]
    # Whatever bytes a server let through, nothing ends the header or the URL early.
    return "&".join(quote(field, safe=_QUERY_CHARACTERS) for field in [*kept, f"{HANDLE_PARAMETER}={handle}".encode()])


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
