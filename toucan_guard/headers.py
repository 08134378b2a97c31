"""What is taken out of a request before the app sees it: credentials, and imitations of the guard's result."""

from __future__ import annotations

from starlette.types import Scope

from toucan_guard.core.credentials import COOKIE_PREFIX, SUBPROTOCOL_TOKEN, without_session_cookies


def strip_lookalikes(scope: Scope) -> None:
    """Remove headers that look like the guard's own result: ``X-Embed-…``, with dashes or underscores."""
    scope["headers"] = [(name, value) for name, value in scope["headers"] if not _looks_like_ours(name)]


def strip_credentials(scope: Scope) -> None:
    """Remove what the guard has verified, so that no token reaches the app or its logs.

    The bearer token, ``X-Embed-…``, the cookies of embed sessions, the WebSocket subprotocol that carries a token.
    """
    kept: list[tuple[bytes, bytes]] = []
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            continue
        if _looks_like_ours(name):
            continue
        if name == b"cookie" and COOKIE_PREFIX.encode() in value:
            value = without_session_cookies(value.decode("latin-1")).encode("latin-1")  # noqa: PLW2901
            if not value:
                continue
        elif name == b"sec-websocket-protocol":
            value = ", ".join(_harmless(value.decode("latin-1").split(","))).encode("latin-1")  # noqa: PLW2901
        kept.append((name, value))
    scope["headers"] = kept
    if scope["type"] == "websocket":
        scope["subprotocols"] = _harmless(scope.get("subprotocols") or ())


def _looks_like_ours(name: bytes) -> bool:
    return name.replace(b"_", b"-").startswith(b"x-embed-")


def _harmless(offers: list[str] | tuple[str, ...]) -> list[str]:
    return [offer.strip() for offer in offers if not offer.strip().startswith(SUBPROTOCOL_TOKEN)]
