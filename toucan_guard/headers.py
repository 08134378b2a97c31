"""Headers that are taken out of a request before the app sees it: credentials, and imitations of the guard's result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from operator import itemgetter
from typing import Final

from starlette.types import Scope

from toucan_guard.core.api_key import HEADER, parse_api_key
from toucan_guard.core.credentials import COOKIE_PREFIX, SUBPROTOCOL_TOKEN, bearer_token, without_session_cookies

Header = tuple[bytes, bytes]
HeaderList = list[Header]
name_of: Final = itemgetter(0)
"""The name of a header."""

_API_KEY: Final = HEADER.encode()
USUAL: Final = frozenset(
    {
        b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control", b"connection",
        b"content-length", b"content-type", b"dnt", b"forwarded", b"host", b"if-modified-since",
        b"if-none-match", b"origin", b"pragma", b"priority", b"referer", b"save-data", b"sec-ch-ua",
        b"sec-ch-ua-mobile", b"sec-ch-ua-platform", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site",
        b"sec-fetch-storage-access", b"sec-fetch-user", b"sec-gpc", b"te", b"traceparent", b"tracestate",
        b"transfer-encoding", b"upgrade-insecure-requests", b"user-agent", b"via", b"x-forwarded-for",
        b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"x-real-ip", b"x-request-id",
        b"x-requested-with",
    }
)  # fmt: skip
"""What browsers and proxies send. None of these looks like ours, or carries a credential of ours but one."""

_PAIR: Final = frozenset({2})
_BYTES: Final = frozenset({bytes})
_TELLING: Final = frozenset({b"cookie", b"sec-websocket-protocol", _API_KEY})


def are_headers(headers: Iterable[object]) -> bool:
    """Whether these are pairs of bytes, as ASGI has it.

    Args:
        headers: What can be gone through more than once.
    """
    try:
        return _PAIR.issuperset(map(len, headers)) and _BYTES.issuperset(map(type, chain.from_iterable(headers)))  # type: ignore[arg-type]
    except TypeError:  # something has no length, or cannot be gone through
        return False


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
    credentials = once.get(b"authorization")
    if credentials is None or not credentials.startswith(b"Bearer ") or scope["type"] == "websocket":
        return False
    left = without_bearer(scope["headers"], once, usual=USUAL.issuperset(once))
    if left is not None:
        scope["headers"] = left
    return left is not None


def without_bearer(headers: Iterable[Header], once: Mapping[bytes, bytes], *, usual: bool) -> HeaderList | None:
    """Headers without their bearer token; None where others look like ours, and have to go as well.

    Args:
        headers: As they arrived.
        once: The same, with one ``Authorization`` among them; see ``strip_bearer``.
        usual: All of them are ``USUAL`` ones.
    """
    # To look for bytes with ``in`` costs an exception first, inside of Python: it asks whether they are a number.
    if not usual and b"\n".join(once).find(b"embed") >= 0 and any(map(_looks_like_ours, once)):
        return None
    left = [*headers]
    del left[[*once].index(b"authorization")]  # none is repeated, so both are in one order
    return left


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
