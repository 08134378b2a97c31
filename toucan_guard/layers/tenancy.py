"""Tenancy: narrows where the token may be embedded, and in which region. Rules in ``core/tenancy.py``."""

from __future__ import annotations

from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, Step, Trail, deny, trail_of
from toucan_guard.core.decisions import Deny
from toucan_guard.core.errors import GuardMissing
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.tenancy import TenancyPolicy
from toucan_guard.core.token import MOST_DERIVED, VerifiedClaims


class _Judged(NamedTuple):
    """What this layer says of a token at one caller and embedder."""

    steps: tuple[Step, ...]
    refusal: Deny | None
    narrowing: OriginAllowlist | None


class TenancyMiddleware:
    """Holds a verified token to its tenant's origins, its own origins, and the region.

    Args:
        app: The next layer.
        policy: Tenants' origins and the region of this deployment.
        report_only_region: Record a foreign region as ``would_deny`` and let pass.
        report_only_origins: The same for the origins of tenant and token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        policy: TenancyPolicy,
        report_only_region: bool = False,
        report_only_origins: bool = False,
    ) -> None:
        self.app = app
        self._policy = policy
        self._report_only_region = report_only_region
        self._report_only_origins = report_only_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES:
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        claims = trail.claims
        if claims is None:
            raise GuardMissing("TenancyMiddleware needs EmbedTokenMiddleware in front of it")

        # Judged once for each token and what the origin layer found, and kept beside the token's claims.
        judged = claims.derived.get((self, trail.origins))
        if not isinstance(judged, _Judged):
            judged = self._judge(claims, trail)
            if trail.origins is not None and len(claims.derived) < MOST_DERIVED:
                claims.derived[self, trail.origins] = judged
        trail.steps += judged.steps
        if judged.refusal is not None:
            return await deny(scope, receive, send, judged.refusal)
        trail.narrowing = _narrower(trail.narrowing, judged.narrowing)
        await self.app(scope, receive, send)

    def _judge(self, claims: VerifiedClaims, trail: Trail) -> _Judged:
        region = self._policy.decide_region(claims)
        steps = [Step("region", region, not self._report_only_region)]
        if isinstance(region, Deny) and not self._report_only_region:
            return _Judged(tuple(steps), region, None)
        callers = tuple(origin for origin in (trail.caller, trail.embedder) if origin is not None)
        origins = self._policy.decide_origins(claims, callers, opaque_caller=trail.opaque_caller)
        steps.append(Step("tenancy", origins, not self._report_only_origins))
        if isinstance(origins, Deny) and not self._report_only_origins:
            return _Judged(tuple(steps), origins, None)
        return _Judged(tuple(steps), None, self._narrowing_of(claims))

    def _narrowing_of(self, claims: VerifiedClaims) -> OriginAllowlist | None:
        # One object for each token, whoever embeds it: what is narrowed by it is kept as long.
        if self not in claims.derived:
            claims.derived[self] = self._policy.narrowing(claims)
        found = claims.derived[self]
        return found if isinstance(found, OriginAllowlist) else None


def _narrower(outer: OriginAllowlist | None, inner: OriginAllowlist | None) -> OriginAllowlist | None:
    """What both lists allow: a nested guard takes nothing back from the guard in front of it."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    return outer.narrowed(inner)
