"""Admission: a token that the layers behind have let in, with a request that says the same, is let in again.

``AdmissionMiddleware`` stands in front of the layers that decide, and ``ArrivalMiddleware`` behind them, in front of
the app, where what they have found is kept. What that is, and why it is the same decision, is ``admission.py``'s. A
request that is not known goes through the layers, and so does whatever may be refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.admission import Admission, Said, admission_of, said_by
from toucan_guard.asgi import Trail, existing_trail, publish_embed, trail_of
from toucan_guard.headers import strip_credentials
from toucan_guard.live import Standing
from toucan_guard.proxies import Networks, own_origin
from toucan_guard.receipts import HeldResponse
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.tokens.cache import CachedVerifier
from toucan_guard.tokens.revocation import Revocations

_MOST: Final = 8  # kinds of requests that are kept for one token


class AdmissionMiddleware:
    """Lets in what the layers behind it have let in before.

    Args:
        app: The layers that decide.
        bare: The app behind them.
        verifier: Knows the tokens that were seen before, and looks at the time and the keys again.
        revocations: What was withdrawn before its end, where the host keeps such a list.
        insecure_store_fail_open: See ``EmbedTokenMiddleware``.
        trusted_proxies: Whose X-Forwarded-Proto and X-Forwarded-Host name our own origin.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        bare: ASGIApp,
        verifier: CachedVerifier,
        revocations: Revocations | None = None,
        insecure_store_fail_open: bool = False,
        trusted_proxies: Networks = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self._bare = bare
        self._verifier = verifier
        self._standing = Standing(verifier, revocations, insecure_store_fail_open=insecure_store_fail_open, clock=clock)
        self._trusted_proxies = tuple(trusted_proxies)
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        said = said_by(scope, trail, own_origin(scope, self._trusted_proxies) if self._trusted_proxies else None)
        if said is None:
            return await self.app(scope, receive, send)
        now = self._clock()
        claims = self._verifier.remembered(trail.raw.get(b"authorization", b"").removeprefix(b"Bearer "), now=now)
        if claims is not None:
            kept = claims.derived.get(self)
            admission = kept.get(said) if isinstance(kept, dict) else None
            if admission is not None and self._standing.holds(claims, now):
                return await self._admit(scope, receive, send, trail, admission)
            # From a token's second request on: what comes once is not worth keeping.
            trail.sought = (self, said, len(trail.edits))
        await self.app(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send, trail: Trail, admission: Admission) -> None:
        trail.__dict__.update(admission.noted)
        trail.ring = self._verifier.ring
        trail.admission = admission
        trail.steps += admission.steps
        trail.edits += admission.edits
        publish_embed(scope, trail, admission.embed)
        strip_credentials(scope)
        send = self._standing.cutting(trail.wrap(send), admission.claims, trail)
        if admission.row_filter is None:
            return await self._bare(scope, receive, send)
        access = trail.access = RowAccess(admission.row_filter)
        previous = current_row_access.set(access)
        try:
            await self._bare(scope, receive, HeldResponse(scope, receive, send, trail).send)
        finally:
            # A task that outlives the connection still holds this object, and finds it closed.
            access.closed = True
            current_row_access.reset(previous)


class ArrivalMiddleware:
    """Keeps what the layers in front have found, for ``AdmissionMiddleware``.

    Args:
        app: The app.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trail = existing_trail(scope)
        if trail is not None and trail.sought is not None:
            (owner, said, edits), trail.sought = trail.sought, None
            _keep(owner, said, admission_of(scope, trail, edits), trail)
        await self.app(scope, receive, send)


def _keep(owner: object, said: Said, admission: Admission | None, trail: Trail) -> None:
    if admission is None or trail.claims is None:
        return
    kept = trail.claims.derived.setdefault(owner, {})
    if isinstance(kept, dict):
        if len(kept) >= _MOST:
            kept.clear()
        kept[said] = admission
