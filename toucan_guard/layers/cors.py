"""Cors: answers preflights itself, and lets listed callers read what comes back, refusals too.

Starlette's ``CORSMiddleware`` writes the answers to preflights; who is allowed is the
guard's own decision, so that it is audited. Never ``Access-Control-Allow-Credentials``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import ALL_METHODS, CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import deny
from toucan_guard.core.decisions import Allow, Deny, Reason
from toucan_guard.core.origins import OriginAllowlist, OriginPolicy, parse_origin
from toucan_guard.headers import Header, HeaderList
from toucan_guard.trail import HeaderEdit, Trail, header_values, trail_of

_MAX_AGE_SECONDS: Final = 600
_REMEMBERED: Final = 1024
_LONGEST_REMEMBERED: Final = 512
_SHARING: Final = frozenset({b"access-control-allow-origin", b"access-control-allow-credentials"})


class CorsMiddleware:
    """CORS for the origins of the allowlist.

    Args:
        app: The next layer.
        policy: Decides who may ask.
        allowlist: Decides who may read.
        report_only: Record an unlisted origin as ``would_deny``, and let it ask and read.
    """

    def __init__(
        self, app: ASGIApp, *, policy: OriginPolicy, allowlist: OriginAllowlist, report_only: bool = False
    ) -> None:
        self.app = app
        self._policy = policy
        self._allowlist = allowlist
        self._report_only = report_only
        self._unreadable = _Readable(None)
        # By the one Origin header that a request has. Strangers do not fill the room of our own callers.
        self._readers: dict[bytes, HeaderEdit] = {}
        self._strangers: dict[bytes, HeaderEdit] = {}
        # The origin was judged before it answers. Every header may be asked for: no ambient credential goes with it.
        self._preflights = CORSMiddleware(
            app, allow_origin_regex=".*", allow_methods=ALL_METHODS, allow_headers=("*",), max_age=_MAX_AGE_SECONDS
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        send = trail.wrap(send)
        trail.read(scope)
        origin = trail.raw.get(b"origin")
        if origin is None or (trail.said is None and len(trail.values_of(b"origin")) != 1):
            edit: HeaderEdit = self._unreadable
        else:
            edit = self._readers.get(origin) or self._strangers.get(origin) or self._edit_for(origin)
        trail.edits += (edit,)

        if scope["method"] != "OPTIONS" or b"access-control-request-method" not in trail.raw:
            return await self.app(scope, receive, send)
        origins = header_values(scope, b"origin")
        if not origins:
            return await self.app(scope, receive, send)
        decision = self._policy.preflight(origins)
        answer = self._preflights.preflight_response(Headers(scope=scope))
        report_only = self._report_only
        if answer.status_code != 200 and (report_only or isinstance(decision, Allow)):
            report_only = False
            decision = Deny(Reason.PREFLIGHT_NOT_ALLOWED, "the method, or a private network, is not allowed")
        trail.add("cors", decision, report_only=report_only)
        if isinstance(decision, Deny) and not report_only:
            return await deny(scope, receive, send, decision)
        # Nobody frames this answer, and no token has narrowed the list: it names none of the customers.
        trail.narrowing = OriginAllowlist()
        await answer(scope, receive, send)

    def _edit_for(self, origin: bytes) -> HeaderEdit:
        text = origin.decode("latin-1")
        readable = self._may_read(text)
        edit = _Readable(text) if readable else self._unreadable
        if len(origin) <= _LONGEST_REMEMBERED:
            kept = self._readers if readable else self._strangers
            if len(kept) > _REMEMBERED:
                kept.clear()
            kept[origin] = edit
        return edit

    def _may_read(self, origin: str) -> bool:
        if origin == "null":
            return self._policy.insecure_allow_null or self._report_only
        reader = parse_origin(origin)
        return reader is not None and (self._report_only or self._allowlist.allows(reader))


class _Readable(HeaderEdit):
    """The CORS headers of one response (Fetch §3.3.3). What the app says about sharing does not widen them."""

    names = "\naccess-control-allow-origin\nvary"

    def __init__(self, origin: str | None) -> None:
        allowed = [] if origin is None else [(b"access-control-allow-origin", origin.encode("latin-1"))]
        self._ours: HeaderList = [*allowed, (b"vary", b"Origin")]

    def additions(self, names: str, trail: Trail) -> Sequence[Header] | None:
        """See ``HeaderEdit``."""
        del trail
        return None if "access-control-allow-" in names else self._ours

    def __call__(self, headers: HeaderList, trail: Trail) -> HeaderList:
        """See ``HeaderEdit``."""
        del trail
        return [header for header in headers if header[0].lower() not in _SHARING] + self._ours
