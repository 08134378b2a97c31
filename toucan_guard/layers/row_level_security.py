"""RowLevelSecurity: turns a token's attributes into the row filter that queries obey.

The rules are in ``core/rls_policy.py``; the adapters in ``rls/`` enforce the filter
when a query runs. They find it in a context variable, which this layer sets for
exactly the life of the connection: servers reuse contexts from one request of a
connection to the next.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, deny
from toucan_guard.core.decisions import ALLOW, Deny
from toucan_guard.core.errors import GuardMissing
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.receipts import HeldResponse
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.trail import publish_embed, trail_of


class RowLevelSecurityMiddleware:
    """Requires attributes that the policy accepts, and binds the row filter to the connection.

    Args:
        app: The next layer.
        policy: Which attributes there are, and which rows of which table they open.
    """

    def __init__(self, app: ASGIApp, *, policy: RlsPolicy) -> None:
        self.app = app
        self.policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES:
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        claims = trail.claims
        if claims is None:
            raise GuardMissing("RowLevelSecurityMiddleware needs EmbedTokenMiddleware in front of it")

        # Judged once for each token, and kept beside its claims.
        judged = claims.derived.get(self)
        if not isinstance(judged, (RowFilter, Deny)):
            judged = self.policy.row_filter(
                claims.rls, issuer=claims.issuer, tenant=claims.tenant, expires_at=claims.expires_at
            )
            claims.derived[self] = judged
        trail.add("row_level_security", judged if isinstance(judged, Deny) else ALLOW)
        if isinstance(judged, Deny):
            return await deny(scope, receive, send, judged)

        if trail.embed is not None:
            publish_embed(scope, trail, trail.embed.with_rows(judged))
        access = trail.access = RowAccess(judged, trail.access)
        previous = current_row_access.set(access)
        try:
            await self.app(scope, receive, HeldResponse(scope, receive, send, trail).send)
        finally:
            # A task that outlives the connection still holds this object, and finds it closed.
            access.closed = True
            current_row_access.reset(previous)
