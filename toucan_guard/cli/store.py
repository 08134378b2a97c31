"""The store, for commands that look and change nothing: what is revoked is read, and nothing is spent."""

from __future__ import annotations

import time

import anyio

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.revocation import in_force
from toucan_guard.settings import GuardSettings
from toucan_guard.tokens.revocation import Revocation
from toucan_guard.tokens.revoked import Revocations


def revoked_now(settings: GuardSettings, claims: VerifiedClaims) -> Deny | None:
    """What the configured guard would say of these claims' revocation. The memory of a server's process is its own."""
    return None if settings.store_address is None else anyio.run(_judged, settings, claims)


async def _judged(settings: GuardSettings, claims: VerifiedClaims) -> Deny | None:
    revocations = Revocations(settings.store, issuer=settings.issuer, staleness_seconds=60)
    try:
        await revocations.refresh()
    except StoreUnavailable as error:
        return Deny(Reason.STORE_UNAVAILABLE, str(error))
    finally:
        await settings.store.aclose()
    return revocations.judge(claims, time.time())


async def read_revocations(settings: GuardSettings) -> tuple[Revocation, ...]:
    """What is in force in the configured store; nothing where that is the memory of a server's process.

    Raises:
        StoreUnavailable: The store does not answer.
    """
    if settings.store_address is None:
        return ()
    try:
        return await in_force(settings)
    finally:
        await settings.store.aclose()
