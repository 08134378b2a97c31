"""Data residency: the regions that the endpoints of a deployment declare, held against the deployment's own.

A declaration is the operator's word, and it is compared exactly. It finds the one mistake that happens: a deployment
whose settings were copied from another region, so that claims or records leave theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from toucan_guard.settings_values import quoted, variable

if TYPE_CHECKING:
    from toucan_guard.settings_fields import SettingsFields

# What declares the region of what, and the words for it.
DECLARED: Final[Mapping[str, str]] = {
    "store_region": "the store of sessions, spent tokens and revocations",
    "jwks_region": "the endpoint that keys are fetched from",
    "audit_region": "the place that audit records go to",
}


def region_contradictions(settings: SettingsFields, mistakes: Mapping[str, str]) -> Iterator[str]:
    """Find declared regions that differ from the deployment's, and declarations of nothing."""
    used = endpoints_in_use(settings)
    for name, what in DECLARED.items():
        declared = settings.__dict__[name]
        if declared is None or "region" in mistakes:
            continue
        if settings.region is None:
            yield f"{variable(name)} is set, but the deployment names no region: set TOUCAN_GUARD_REGION or remove it"
        elif not used[name] and mistakes.keys().isdisjoint(_ENDPOINTS[name]):
            yield f"{variable(name)} is set, but {what} is not used: remove it"
        elif declared != settings.region:
            yield (
                f"{variable(name)} is {quoted(declared)}, but TOUCAN_GUARD_REGION is {quoted(settings.region)}: "
                f"{what} would be in another region; use one in this region"
            )


def undeclared(settings: SettingsFields) -> Iterator[str]:
    """What leaves the machine and declares no region, while the deployment names one; for ``check``."""
    if settings.region is None:
        return
    used = endpoints_in_use(settings)
    for name, what in DECLARED.items():
        if used[name] and settings.__dict__[name] is None:
            yield f"TOUCAN_GUARD_REGION is set, and nothing says where {what} is: declare it in {variable(name)}."


_ENDPOINTS: Final[Mapping[str, frozenset[str]]] = {
    "store_region": frozenset({"store_url", "store_url_file"}),
    "jwks_region": frozenset({"jwks_url"}),
    "audit_region": frozenset({"audit"}),
}


def endpoints_in_use(settings: SettingsFields) -> Mapping[str, bool]:
    """Which of the endpoints that may declare a region this deployment has."""
    url = settings.store_url
    return {
        "store_region": url is not None and url.get_secret_value() != "memory://",
        "jwks_region": settings.jwks_url is not None,
        "audit_region": not settings.insecure_no_audit,
    }
