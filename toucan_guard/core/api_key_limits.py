"""What an API key may mint: limits narrow what its holder asks for, and never add to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny
from toucan_guard.core.grants import Grant, reaches
from toucan_guard.core.origins import OriginAllowlist

_NO_ATTRIBUTES: Final[Mapping[str, tuple[object, ...]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ApiKeyLimits:
    """The limits of one API key; None is no limit, and an empty collection is nothing.

    Attributes:
        tenants: The tenants that it may speak for.
        origins: Where its tokens may be embedded.
        grants: What its tokens may open, at most.
        attributes: Attribute to the only values that it may give; other attributes are not limited.
        lifetime_seconds: How long its tokens live at most.
    """

    tenants: tuple[str, ...] | None = None
    origins: OriginAllowlist | None = None
    grants: tuple[Grant, ...] | None = None
    attributes: Mapping[str, tuple[object, ...]] = field(default_factory=lambda: _NO_ATTRIBUTES)
    lifetime_seconds: int | None = None

    def problems(self, claims: VerifiedClaims) -> Iterator[str]:
        """Why the key may not make a token that says this."""
        yield from self.tenant_problems(claims.tenant)
        yield from self.origin_problems(claims.origins)
        for grant in claims.grants:
            yield from self.grant_problems(grant)
        for name, value in (claims.rls or {}).items():
            yield from self.attribute_problems(name, value)

    def tenant_problems(self, tenant: str | None) -> Iterable[str]:
        """Why the key may not speak for this tenant."""
        if self.tenants is not None and tenant not in self.tenants:
            yield "this API key may not speak for this tenant"

    def origin_problems(self, origins: OriginAllowlist | None) -> Iterable[str]:
        """Why the key may not let a token be embedded there; None is everywhere that the guard allows."""
        if self.origins is not None and (origins is None or not self.origins.covers(origins)):
            yield "this API key may not name this origin"

    def grant_problems(self, grant: Grant) -> Iterable[str]:
        """Why the key may not give this grant; every action counts by itself."""
        if self.grants is None:
            return
        if any(isinstance(reaches(self.grants, grant.type, grant.id, action), Deny) for action in grant.actions):
            yield "this API key may not give this grant"

    def attribute_problems(self, name: str, value: object) -> Iterable[str]:
        """Why the key may not give this attribute these values."""
        if name not in self.attributes or value is None:
            return
        given = value if isinstance(value, list | tuple) else [value]
        if not all(_is_among(item, self.attributes[name]) for item in given):
            yield f"this API key may not give the attribute {name} this value"


def _is_among(value: object, allowed: Iterable[object]) -> bool:
    # True equals 1 in Python, and in no policy.
    return any(type(value) is type(other) and value == other for other in allowed)
