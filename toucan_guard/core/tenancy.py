"""Where a token may be embedded, and in which region: narrowing only.

The configured allowlist was held already by the origin layer. The tenant's list and
the token's own ``origins`` can take origins away from it, never add one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import ALLOW, Allow, Decision, Deny, Reason
from toucan_guard.core.origins import Origin, OriginAllowlist


@dataclass(frozen=True)
class TenancyPolicy:
    """The rules of this deployment.

    Attributes:
        tenant_origins: Tenant to the origins that may embed its charts; a tenant that is absent is not narrowed.
        region: Where this deployment keeps its data, or None where it does not say.
        require_token_origins: Refuse a token without ``origins`` whose tenant has no list.
    """

    tenant_origins: Mapping[str, OriginAllowlist] = field(default_factory=dict, repr=False)
    region: str | None = None
    require_token_origins: bool = False

    def narrowing(self, claims: VerifiedClaims) -> OriginAllowlist | None:
        """The origins that token and tenant agree on; None where neither names any."""
        tenant = self.tenant_origins.get(claims.tenant) if claims.tenant is not None else None
        if tenant is None:
            return claims.origins
        return tenant if claims.origins is None else tenant.narrowed(claims.origins)

    def decide_region(self, claims: VerifiedClaims) -> Decision:
        """A token's region and the deployment's must be equal where either names one."""
        if claims.region == self.region:
            return ALLOW if self.region is None else Allow({"region": self.region})
        return Deny(Reason.REGION_MISMATCH, "the token's region is not the region of this deployment")

    def decide_origins(
        self, claims: VerifiedClaims, callers: Collection[Origin], *, opaque_caller: bool = False
    ) -> Decision:
        """Whether each foreign origin of this request (caller, embedder) is on the tenant's and the token's lists.

        Args:
            claims: The verified token or embed session.
            callers: The origins that the configured list let in.
            opaque_caller: ``Origin: null`` was let in by its switch. It is on nobody's list.
        """
        tenant = self.tenant_origins.get(claims.tenant) if claims.tenant is not None else None
        if self.require_token_origins and tenant is None and claims.origins is None:
            return Deny(Reason.ORIGINS_MISSING, "the token names no origins and its tenant has no list")
        if tenant is not None and (opaque_caller or not all(map(tenant.allows, callers))):
            return Deny(Reason.TENANT_ORIGIN_NOT_ALLOWED, "the origin is not on the tenant's list")
        if claims.origins is not None and (opaque_caller or not all(map(claims.origins.allows, callers))):
            return Deny(Reason.TOKEN_ORIGIN_NOT_ALLOWED, "the origin is not among the token's origins")
        return ALLOW
