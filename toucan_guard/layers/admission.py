"""Admission: a request that says what one said that all layers have let in, with a token of its kind, is let in.

``AdmissionMiddleware`` stands in front of all layers, and ``ArrivalMiddleware`` behind them, in front of the app, where
what they have found is kept. What that is, and why it is the same decision, is ``admission.py``'s. A request that is
not known goes through the layers, and so does whatever may be refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.admission import Admissions, Sought, keep
from toucan_guard.admitted import AdmittedConnection
from toucan_guard.asgi import GUARDED_SCOPES
from toucan_guard.core.credentials import COOKIE_PREFIX
from toucan_guard.core.decisions import Deny
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.token import VerifiedClaims
from toucan_guard.headers import strip_bearer, strip_credentials
from toucan_guard.live import Standing
from toucan_guard.proxies import Networks, own_origin
from toucan_guard.query import carries_bootstrap_token
from toucan_guard.recorder import Recorder
from toucan_guard.rls.context import current_row_access
from toucan_guard.tokens.cache import CachedVerifier
from toucan_guard.tokens.revocation import Revocations
from toucan_guard.trail import TRAIL, RefusedToken, existing_trail, repeats, said_of, trail_of

_SCHEME: Final = b"Bearer "
_SESSION: Final = COOKIE_PREFIX.encode()
_CARRIERS: Final = frozenset({b"x-embed-token", b"x-api-key", b"sec-websocket-protocol"})
_MAY_CARRY: Final = _CARRIERS | {b"cookie"}


class AdmissionMiddleware:
    """Lets in what the layers have let in before, and valid tokens of the same kind.

    Every connection begins here with nobody's rows, whatever context the server has reused for it.

    Args:
        app: The layers, ``AuditLogMiddleware`` among them.
        bare: The app behind them.
        recorder: Of that layer.
        verifier: Knows the tokens that were seen before, and looks at the time and the keys again.
        is_exempt: Which methods and paths the layers do not protect.
        policy: The row-level policy; None where there is none.
        tenants_listed: Whether tenants have lists of origins of their own.
        remembers: Whether anything is kept at all; else all layers are asked each time.
        revocations: What was withdrawn before its end, where the host keeps such a list.
        insecure_store_fail_open: See ``EmbedTokenMiddleware``.
        trusted_proxies: Whose X-Forwarded-Proto and X-Forwarded-Host name our own origin.
        clock: Seconds since the epoch.

    Nothing is admitted behind another layer: a guard inside another one continues what that one has found.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        bare: ASGIApp,
        recorder: Recorder,
        verifier: CachedVerifier,
        is_exempt: Callable[[str, str], bool],
        policy: RlsPolicy | None,
        tenants_listed: bool,
        remembers: bool = True,
        revocations: Revocations | None = None,
        insecure_store_fail_open: bool = False,
        trusted_proxies: Networks = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self._bare = bare
        self._recorder = recorder
        self._verifier = verifier
        self._is_exempt = is_exempt
        self._remembers = remembers
        self._admissions = Admissions(
            policy=policy, tenants_listed=tenants_listed, identity_of=recorder.identity_of
        )
        self._standing = Standing(verifier, revocations, insecure_store_fail_open=insecure_store_fail_open, clock=clock)
        self._trusted_proxies = tuple(trusted_proxies)
        self._longest = len(_SCHEME) + verifier.policy.max_token_bytes
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES or TRAIL in scope:
            return await self.app(scope, receive, send)
        if self._remembers and scope["type"] == "http":
            connection = self._admitted(scope, receive, send)
            if connection is not None:
                return await connection.run(self._bare)
        trail = trail_of(scope)
        previous = current_row_access.set(None)
        try:
            await self.app(scope, receive, send)
        finally:
            current_row_access.reset(previous)
            trail.release()

    def _admitted(self, scope: Scope, receive: Receive, send: Send) -> AdmittedConnection | None:
        """The connection of a request that is known, where what is known of it still holds."""
        began = time.perf_counter()
        headers = scope["headers"]
        raw = dict(headers)
        credentials = raw.get(b"authorization")
        if (
            credentials is None
            or (not raw.keys().isdisjoint(_MAY_CARRY) and _carries_another(raw))
            or (scope.get("query_string") and carries_bootstrap_token(scope))
            or (len(raw) != len(headers) and repeats(headers, raw))  # somebody has to look
            or self._is_exempt(scope["method"], scope["path"])
        ):
            return None
        forwarded = own_origin(scope, self._trusted_proxies) if self._trusted_proxies else None
        said = (scope["method"], said_of(raw), forwarded)
        now = self._clock()
        claims = self._verifier.remembered(credentials, scheme=_SCHEME, now=now)
        again = claims is not None
        if claims is None and self._admissions.knows(said):
            claims = self._verified(credentials, scope, began, now)
        admission = None if claims is None else self._admissions.admission(claims, said, again=again)
        if claims is None or admission is None:
            trail_of(scope).sought = Sought(self._admissions, said)
            return None
        if not self._standing.holds(claims, now):
            return None
        if len(raw) != len(headers) or not strip_bearer(scope, raw):
            strip_credentials(scope)
        return AdmittedConnection(
            self._recorder, scope, receive, send, admission, claims, headers, began, self._standing
        )

    def _verified(self, credentials: bytes, scope: Scope, began: float, now: float) -> VerifiedClaims | None:
        """What a new token says, where it is valid."""
        if len(credentials) > self._longest or not credentials.startswith(_SCHEME):
            return None
        token = credentials[len(_SCHEME) :].decode("latin-1")
        verified = self._verifier.verify(token, now=now)
        if isinstance(verified, Deny):
            # The layer that refuses need not verify it again, and the record tells how long this took.
            trail = trail_of(scope)
            trail.began_at = began
            trail.refused_token = RefusedToken(self._verifier, token, verified)
            return None
        return verified


def _carries_another(raw: Mapping[bytes, bytes]) -> bool:
    """Whether another credential may be in play, or has to be taken out."""
    cookie = raw.get(b"cookie")
    return (cookie is not None and _SESSION in cookie) or not raw.keys().isdisjoint(_CARRIERS)


class ArrivalMiddleware:
    """Keeps what the layers in front have found, for ``AdmissionMiddleware``.

    Args:
        app: The app.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trail = existing_trail(scope)
        if trail is not None:
            keep(scope, trail)
        await self.app(scope, receive, send)
