"""Headers, on the way in and out.

Taken out of a request before the app sees it: credentials, and imitations of the guard's result.
Put on a response: that it is one viewer's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from starlette.types import Scope

from toucan_guard.core.api_key import HEADER, parse_api_key
from toucan_guard.core.credentials import COOKIE_PREFIX, SUBPROTOCOL_TOKEN, bearer_token, without_session_cookies

Header = tuple[bytes, bytes]
HeaderList = list[Header]

_API_KEY: Final = HEADER.encode()
_TELLING: Final = frozenset({b"cookie", b"sec-websocket-protocol", _API_KEY})
_PRIVATE: Final[HeaderList] = [
    (b"cache-control", b"private, no-store"),
    (b"referrer-policy", b"same-origin"),
    (b"vary", b"Authorization, Cookie, X-Embed-Token"),
]
_CACHE_RULES: Final = frozenset({b"cache-control", b"surrogate-control", b"edge-control", b"x-accel-expires"})


class HeaderEdit(ABC):
    """What a layer does to the headers of every response that leaves."""

    names = b""
    """In lower case, one on each line: the headers that ``additions`` may add."""

    def additions(self, names: bytes) -> Sequence[Header] | None:
        """What to add to a response that says nothing about this edit's subject.

        Args:
            names: The response's header names, in lower case, one on each line.

        Returns:
            Headers, or None where the response's own must be looked at.
        """
        del names
        return None

    @abstractmethod
    def __call__(self, headers: HeaderList) -> HeaderList:
        """The headers of a response, whatever they say, as they leave."""


def strip_lookalikes(scope: Scope) -> None:
    """Remove headers that look like the guard's own result: ``X-Embed-…``, with dashes or underscores.

    And the cookies of embed sessions, which are the guard's own too. A bearer token stays: where nothing is
    verified it may be the host's.
    """
    scope["headers"] = list(_without_ours(scope["headers"]))


def strip_credentials(scope: Scope, once: Mapping[bytes, bytes] | None = None) -> None:
    """Remove what the guard has verified, so that no token reaches the app or its logs.

    The bearer token, ``X-Embed-…``, the cookies of embed sessions, the WebSocket subprotocol that carries a token; and
    an API key of ours, which has no business here. An ``x-api-key`` of the host's own stays.

    Args:
        scope: The connection.
        once: The last value of each of its headers, where somebody has read them already.
    """
    headers = scope["headers"]
    if once is None:
        once = dict(headers)
    if len(once) == len(headers) and once.keys().isdisjoint(_TELLING) and strip_bearer(scope, once):
        return
    scope["headers"] = [kept for header in headers for kept in _without_credentials(header)]
    if scope["type"] == "websocket":
        scope["subprotocols"] = _harmless(scope.get("subprotocols") or ())


def strip_bearer(scope: Scope, once: Mapping[bytes, bytes]) -> bool:
    """Remove the bearer token, where that is all that has to go; say whether it is.

    Args:
        scope: The connection.
        once: Its headers, of which none is repeated, and none that carries another credential is there.
    """
    if not once.get(b"authorization", b"").startswith(b"Bearer ") or scope["type"] == "websocket":
        return False
    names = b"\n".join(once)
    # To look for bytes with ``in`` costs an exception first, inside of Python: it asks whether they are a number.
    if names.find(b"embed") >= 0 and b"x-embed-" in names.replace(b"_", b"-"):
        return False
    scope["headers"] = [header for header in scope["headers"] if header[0] != b"authorization"]
    return True


class KeepPrivate(HeaderEdit):
    """The headers of a response that was made for one viewer.

    No shared cache keeps it (RFC 9111 §5.2.2), and the Referer of our pages stays with us.
    """

    names = b"\ncache-control\nreferrer-policy\nvary"

    def additions(self, names: bytes) -> Sequence[Header] | None:
        """See ``HeaderEdit``."""
        if (
            b"cache-control" in names  # and every header whose name ends like it
            or b"referrer-policy" in names
            or b"surrogate-control" in names
            or b"edge-control" in names
            or b"x-accel-expires" in names
        ):
            return None
        return _PRIVATE

    def __call__(self, headers: HeaderList) -> HeaderList:
        """See ``HeaderEdit``."""
        kept: HeaderList = []
        cached = referred = False
        for header in headers:
            name = header[0].lower()
            if name == b"referrer-policy":
                referred = True
            elif name in _CACHE_RULES or name.endswith(b"cdn-cache-control"):
                # What caches in front of us obey before Cache-Control: RFC 9213 and what vendors made of it.
                if not _is_private(header[1]):
                    continue
                cached = cached or name == b"cache-control"
            kept.append(header)
        if not cached:
            kept.append(_PRIVATE[0])
        if not referred:
            kept.append(_PRIVATE[1])
        kept.append(_PRIVATE[2])
        return kept


keep_private: Final = KeepPrivate()


def _is_private(cache_control: bytes) -> bool:
    # With quotes it may be `private="name"`, which keeps one header private and shares the rest.
    directives = [directive.strip().lower() for directive in cache_control.split(b",")]
    return b'"' not in cache_control and (b"private" in directives or b"no-store" in directives)


def _without_credentials(header: tuple[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in _without_ours((header,)):
        if name == _API_KEY and parse_api_key(value.decode("latin-1")) is not None:
            continue
        if name == b"authorization" and bearer_token(value.decode("latin-1")) is not None:
            continue
        if name == b"sec-websocket-protocol":
            offers = ", ".join(_harmless(value.decode("latin-1").split(","))).encode("latin-1")
            if offers:
                yield name, offers
            continue
        yield name, value


def _without_ours(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers:
        if _looks_like_ours(name):
            continue
        if name == b"cookie" and COOKIE_PREFIX.encode() in value:
            others = without_session_cookies(value.decode("latin-1")).encode("latin-1")
            if others:
                yield name, others
            continue
        yield name, value


def _looks_like_ours(name: bytes) -> bool:
    return name.replace(b"_", b"-").startswith(b"x-embed-")


def _harmless(offers: list[str] | tuple[str, ...]) -> list[str]:
    return [offer.strip() for offer in offers if not offer.strip().startswith(SUBPROTOCOL_TOKEN)]
