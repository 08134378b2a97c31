"""Exempt: the paths that are not protected go straight to the app, without an embed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import publish_embed, trail_of
from toucan_guard.core.decisions import Allow
from toucan_guard.core.errors import ConfigError
from toucan_guard.headers import strip_lookalikes
from toucan_guard.rls.context import current_row_access

_SAFE_METHODS: Final = ("GET", "HEAD")


class ExemptMiddleware:
    """Sends exempt paths to the app, everything else through the guard.

    Paths are compared on ``scope["path"]``, whole or by whole segments; never on a URL that a Host header
    could bend.

    Args:
        app: The next layer, which protects.
        bare: The app itself.
        paths: Exact paths.
        prefixes: Whole-segment prefixes, for GET and HEAD only.
    """

    def __init__(self, app: ASGIApp, *, bare: ASGIApp, paths: Iterable[str] = (), prefixes: Iterable[str] = ()) -> None:
        self.app = app
        if isinstance(paths, str) or isinstance(prefixes, str):
            raise ConfigError('exempt paths and prefixes are lists: write ["/health"] instead of one text')
        self.bare = bare
        self._paths = frozenset(paths)
        self._prefixes = tuple(prefix.rstrip("/") + "/" for prefix in prefixes)
        if "/" in self._prefixes:
            raise ConfigError("the exempt prefix '/' would exempt everything: name the folders, such as /static")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A WebSocket is never exempt: nothing but its Origin stands between it and a stranger's page.
        if scope["type"] != "http" or not self.is_exempt(scope["method"], scope["path"]):
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        trail.exempt = True
        trail.add("exempt", Allow({"exempt": "true"}))
        publish_embed(scope, trail, None)
        strip_lookalikes(scope)
        previous = current_row_access.set(None)
        try:
            await self.bare(scope, receive, send)
        finally:
            current_row_access.reset(previous)

    def is_exempt(self, method: str, path: str) -> bool:
        """Whether a request goes past the guard."""
        if path in self._paths:
            return True
        if not self._prefixes or method not in _SAFE_METHODS:
            return False
        # A path that could be normalised to another one is not judged by its beginning.
        if "\\" in path or any(segment in ("", ".", "..") for segment in path.split("/")[1:-1]) or path.endswith("/.."):
            return False
        return path.startswith(self._prefixes)
