"""Exempt: the paths that are not protected go straight to the app, without an embed."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.core.decisions import Allow
from toucan_guard.core.exempt_paths import exempt_paths
from toucan_guard.headers import strip_lookalikes
from toucan_guard.rls.context import current_row_access
from toucan_guard.trail import publish_embed, trail_of


class ExemptMiddleware:
    """Sends exempt paths to the app, everything else through the guard.

    Which paths those are, ``core/exempt_paths.py`` says of ``scope["path"]``; never of a URL that a Host header could
    bend.

    Args:
        app: The next layer, which protects.
        bare: The app itself.
        paths: Exact paths.
        prefixes: Whole-segment prefixes, for GET and HEAD only.

    Raises:
        ConfigError: See ``exempt_paths``.
    """

    def __init__(self, app: ASGIApp, *, bare: ASGIApp, paths: Iterable[str] = (), prefixes: Iterable[str] = ()) -> None:
        self.app = app
        self.bare = bare
        self.is_exempt = exempt_paths(paths, prefixes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A WebSocket is never exempt: nothing but its Origin stands between it and a stranger's page.
        if scope["type"] != "http" or not self.is_exempt(scope["method"], scope["path"]):
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        trail.exempt = True
        trail.sought = None  # what a guard behind this one finds is not ours to keep
        trail.add("exempt", Allow({"exempt": "true"}))
        publish_embed(scope, trail, None)
        strip_lookalikes(scope)
        previous = current_row_access.set(None)
        try:
            await self.bare(scope, receive, send)
        finally:
            current_row_access.reset(previous)
