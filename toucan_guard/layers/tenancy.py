"""Tenancy: narrows where the token may be embedded, and in which region. Rules in ``core/tenancy.py``."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, deny
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny
from toucan_guard.core.errors import GuardMissing
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.tenancy import TenancyPolicy
from toucan_guard.trail import trail_of


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

        decision = self._policy.decide_region(claims)
        trail.add("region", decision, report_only=self._report_only_region)
        if isinstance(decision, Deny) and not self._report_only_region:
            return await deny(scope, receive, send, decision)

        callers = [origin for origin in (trail.caller, trail.embedder) if origin is not None]
        decision = self._policy.decide_origins(claims, callers, opaque_caller=trail.opaque_caller)
        trail.add("tenancy", decision, report_only=self._report_only_origins)
        if isinstance(decision, Deny) and not self._report_only_origins:
            return await deny(scope, receive, send, decision)

        trail.narrowing = _narrower(trail.narrowing, self._narrowing_of(claims))
        await self.app(scope, receive, send)

    def _narrowing_of(self, claims: VerifiedClaims) -> OriginAllowlist | None:
        # One object for each token, whoever embeds it: what is narrowed by it is kept as long.
        found = claims.derived.get(self)
        if isinstance(found, OriginAllowlist):
            return found
        narrowing = self._policy.narrowing(claims)
        if narrowing is not None:
            claims.derived[self] = narrowing
        return narrowing


def _narrower(outer: OriginAllowlist | None, inner: OriginAllowlist | None) -> OriginAllowlist | None:
    """What both lists allow: a nested guard takes nothing back from the guard in front of it."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    return outer.narrowed(inner)
