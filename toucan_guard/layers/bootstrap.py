"""BootstrapExchange: a frame's first navigation trades its bootstrap token for an embed session.

Stands behind every other layer, so that a token is spent only after all other checks,
and in front of the app, which never sees a bootstrap token. Rules in DESIGN section 5.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, deny
from toucan_guard.core.credentials import COOKIE_PREFIX, session_cookies
from toucan_guard.core.decisions import ALLOW, Deny, Reason
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.core.origins import is_frame_navigation
from toucan_guard.core.token_policy import BOOTSTRAP
from toucan_guard.query import with_handle
from toucan_guard.tokens.sessions import EmbedSessions, OpenedSession
from toucan_guard.trail import Trail, header_values, trail_of

_LAYER: Final = "bootstrap"
_OTHER_REQUEST: Final = Deny(
    Reason.BOOTSTRAP_NOT_NAVIGATION, "a bootstrap token is accepted on a frame's navigation only"
)
_UNTOLD: Final = Deny(
    Reason.BOOTSTRAP_NOT_NAVIGATION,
    "the browser sent no Sec-Fetch headers, which it sends to https and to localhost only, so nothing says that this "
    "is a frame's navigation: serve over https, or on localhost",
)


class BootstrapExchangeMiddleware:
    """Answers a verified bootstrap token with a cookie and a 303 to the clean URL.

    Args:
        app: The app.
        sessions: Opens the session.
        clock: Seconds since the epoch.
    """

    def __init__(self, app: ASGIApp, *, sessions: EmbedSessions, clock: Callable[[], float] = time.time) -> None:
        self.app = app
        self._sessions = sessions
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES:
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        claims = trail.claims
        if claims is None or claims.token_type != BOOTSTRAP:
            return await self.app(scope, receive, send)
        opened = await self._exchange(scope, trail)
        trail.add(_LAYER, opened if isinstance(opened, Deny) else ALLOW)
        if isinstance(opened, Deny):
            return await deny(scope, receive, send, opened)
        await _redirect(scope, opened, self._clock())(scope, receive, send)

    async def _exchange(self, scope: Scope, trail: Trail) -> OpenedSession | Deny:
        assert trail.claims is not None  # noqa: S101 - looked at by the caller
        fetch_dest = header_values(scope, b"sec-fetch-dest")
        navigation = is_frame_navigation(fetch_dest)
        if scope["type"] != "http" or scope["method"] != "GET" or not navigation:
            return _OTHER_REQUEST if fetch_dest else _UNTOLD
        if trail.embedder is None:
            # Without this a hostile frame inside an allowed page could plant a session of its own.
            return Deny(Reason.EMBEDDER_UNKNOWN, "a bootstrap token needs a Referer that is on the list")
        cookies = session_cookies(trail.session_cookies)
        if isinstance(cookies, Deny):
            return cookies
        try:
            return await self._sessions.exchange(trail.claims, cookies, now=self._clock())
        except StoreUnavailable:
            return Deny(Reason.STORE_UNAVAILABLE, "the store of spent tokens and embed sessions does not answer")


def _redirect(scope: Scope, opened: OpenedSession, now: float) -> Response:
    clean = with_handle(scope["query_string"], opened.handle)
    # Relative to the URL that was asked for: neither a path like //elsewhere.example nor a proxy that
    # strips a prefix can lead the redirect astray.
    headers = {
        "location": f"?{clean}",
        "cache-control": "no-store",
        # The embedder's own origin stays the Referer of the redirected request.
        "referrer-policy": "strict-origin",
    }
    if opened.secret is not None:
        headers["set-cookie"] = (
            f"{COOKIE_PREFIX}{opened.handle}={opened.secret}; Max-Age={max(1, int(opened.expires_at - now))}; Path=/; "
            "Secure; HttpOnly; SameSite=None; Partitioned"
        )
    return Response(status_code=303, headers=headers)
