"""Admission: a request that says what one said that all layers have let in, with a token of its kind, is let in.

``AdmissionMiddleware`` stands in front of all layers, and ``ArrivalMiddleware`` behind them, in front of the app, where
what they have found is kept. What that is, and why it is the same decision, is ``admission.py``'s; which refusals are
given again is ``turned_away.py``'s. A request that is not known goes through the layers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.admission import Admissions, Kinds, Sought, keep
from toucan_guard.admitted import AdmittedConnection
from toucan_guard.asgi import GUARDED_SCOPES
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.credentials import COOKIE_PREFIX
from toucan_guard.core.decisions import Deny
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.headers import USUAL, strip_credentials, without_bearer
from toucan_guard.live import Standing
from toucan_guard.proxies import Networks, own_origin
from toucan_guard.query import carries_bootstrap_token
from toucan_guard.recorder import Recorder
from toucan_guard.request_headers import list_headers, repeats, said_of
from toucan_guard.rls.context import current_row_access
from toucan_guard.tokens.cache import CachedVerifier
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.trail import (
    TRAIL,
    RefusedToken,
    arrived_trail,
    existing_trail,
    trail_of,
)
from toucan_guard.turned_away import NO_TOKEN, Refusal, Refusals, Verdict, verdict_of

_SCHEME: Final = b"Bearer "
_SESSION: Final = COOKIE_PREFIX.encode()
_CARRIERS: Final = frozenset({b"x-embed-token", b"x-api-key", b"sec-websocket-protocol"})


class AdmissionMiddleware:
    """Lets in what the layers have let in before, and valid tokens of the same kind; refuses again what they refused.

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
        self._admissions = Admissions(policy=policy, tenants_listed=tenants_listed, identity_of=recorder.identity_of)
        self._refusals = Refusals()
        self._standing = Standing(verifier, revocations, insecure_store_fail_open=insecure_store_fail_open, clock=clock)
        self._trusted_proxies = tuple(trusted_proxies)
        self._longest = len(_SCHEME) + verifier.policy.max_token_bytes
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES or TRAIL in scope:
            return await self.app(scope, receive, send)
        if scope.get("headers").__class__ is not list:
            list_headers(scope)
        if self._remembers and scope["type"] == "http":
            began = time.perf_counter()
            try:
                known = self._known(scope, receive, send, began)
            except (AttributeError, TypeError, ValueError):
                known = None  # no pairs of bytes
            if isinstance(known, AdmittedConnection):
                previous = current_row_access.set(known.access)
                try:
                    await self._bare(scope, known.receive, known.send)
                    if not known.complete:
                        await known.returned()
                except BaseException as error:
                    if not await known.settled(error):
                        raise
                finally:
                    try:
                        # First: in a context that is not ours any more, the reset fails.
                        known.finish()
                    finally:
                        current_row_access.reset(previous)
                return
            if known is not None and await known.answer(self._recorder, scope, receive, send, began=began):
                return
        trail = arrived_trail(scope)
        previous = current_row_access.set(None)
        try:
            await self.app(scope, receive, send)
            if trail.sought is not None and trail.refusal is not None:
                trail.sought.refused(scope, trail)
        finally:
            current_row_access.reset(previous)
            trail.release()

    def _known(self, scope: Scope, receive: Receive, send: Send, began: float) -> AdmittedConnection | Refusal | None:
        """The connection of a request that is let in, where what is known of it still holds; or how it is refused."""
        headers = scope["headers"]
        raw = dict(headers)
        credentials = raw.get(b"authorization")
        usual = USUAL.issuperset(raw)
        if (
            (not usual and _carries_another(raw))
            or (scope.get("query_string") and _asks_for_another(scope, credentials))
            or (len(raw) != len(headers) and repeats(headers, raw))  # somebody has to look
            or self._is_exempt(scope["method"], scope["path"])
        ):
            return None
        forwarded = own_origin(scope, self._trusted_proxies) if self._trusted_proxies else None
        said = (scope["method"], said_of(raw), forwarded)
        verdict: Verdict = NO_TOKEN
        refused: RefusedToken | None = None
        if credentials is not None:
            now = self._clock()
            claims: VerifiedClaims | Deny | None = self._verifier.remembered(credentials, scheme=_SCHEME, now=now)
            kinds: Kinds | None = None
            again = claims is not None
            if claims is None:
                if not credentials.startswith(_SCHEME):
                    return None
                kinds = self._admissions.kinds(said)
                if kinds is not None:
                    # Enough of it to see that it is too large.
                    token = credentials[len(_SCHEME) : self._longest + 1]
                    # White space around it is the layer's to take away.
                    if token[:1] > b" " and token[-1:] > b" " and token.isascii():
                        claims = self._verifier.verify(token, now=now)
            if isinstance(claims, VerifiedClaims):
                admission = self._admissions.admission(claims, said, kinds, again=again)
                if admission is not None:
                    if not self._standing.holds(claims, now):
                        return None
                    left = without_bearer(headers, raw, usual=usual) if len(raw) == len(headers) else None
                    if left is None:
                        strip_credentials(scope)
                    else:
                        scope["headers"] = left
                    return AdmittedConnection(
                        self._recorder,
                        scope,
                        receive,
                        send,
                        admission=admission,
                        claims=claims,
                        headers=headers,
                        began=began,
                        standing=self._standing,
                    )
            verdict = None
            if isinstance(claims, Deny):
                # The layer that refuses need not verify it again.
                refused = RefusedToken(self._verifier, token.decode("latin-1"), claims)
                verdict = None if self._verifier.lacks_key(claims) else verdict_of(claims)
        accept = raw.get(b"accept")
        refusal: Refusal | None = None
        if len(raw) == len(headers) and self._recorder.takes_lines:
            refusal = self._refusals.of(said, accept, verdict)
        if refusal is None:
            trail = trail_of(scope)
            trail.began_at, trail.refused_token = began, refused
            trail.sought = Sought(self._admissions, self._refusals, said, accept, verdict)
        return refusal


def _asks_for_another(scope: Scope, credentials: bytes | None) -> bool:
    """Whether a query string may carry another credential, or name an embed session where nothing else is brought."""
    if credentials is None:
        return b"embed" in scope["query_string"] or b"%" in scope["query_string"]
    return carries_bootstrap_token(scope)


def _carries_another(raw: Mapping[bytes, bytes]) -> bool:
    """Whether another credential may be in play, or has to be taken out."""
    cookie = raw.get(b"cookie")
    return (cookie is not None and (b"authorization" not in raw or _SESSION in cookie)) or not raw.keys().isdisjoint(
        _CARRIERS
    )


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
