"""Revoke from the host's own code: a log-out, a customer who left, a key that leaked.

.. code-block:: python

    from toucan_guard.revocation import revoke

    await revoke(settings, token="…")        # one token, by its jti
    await revoke(settings, subject="user-17")
    await revoke(settings, tenant="AA")
    await revoke(settings, key="2026-10")    # whatever was signed with this kid
    await revoke(settings, issued_before=time.time())

Every worker refuses what was revoked within ``TOUCAN_GUARD_REVOCATION_STALENESS_SECONDS``: tokens, the embed sessions
that they opened, open WebSockets and streams. The command ``toucan-guard revoke`` does the same from outside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Final

from toucan_guard.core.errors import ConfigError, StoreUnavailable
from toucan_guard.settings import GuardSettings
from toucan_guard.tokens.revocation import Revocation, RevocationKind, end_of_life
from toucan_guard.tokens.revocation import revoke as add

# A key that leaked signs new tokens for as long as it is in the ring, so its revocation does not end with the old ones.
_KEY_SECONDS: Final = 10 * 365 * 86_400

_Named = Mapping[RevocationKind, str | float | None]
_TOKEN, _SUBJECT, _TENANT, _KEY, _ISSUED_BEFORE = RevocationKind


async def revoke(
    settings: GuardSettings,
    *,
    token: str | None = None,
    subject: str | None = None,
    tenant: str | None = None,
    key: str | None = None,
    issued_before: float | None = None,
    until: float | None = None,
    now: float | None = None,
) -> tuple[Revocation, ...]:
    """Revoke what is named; several names are several revocations.

    Args:
        settings: The guard's. They say whose tokens, and where the store is.
        token: A ``jti``.
        subject: A ``sub``, whatever its tokens say besides.
        tenant: A tenant, compared exactly.
        key: A ``kid``. Take the key out of the ring as well.
        issued_before: Seconds since the epoch; tokens whose ``iat`` lies before it. Counted in whole seconds, upwards.
        until: Seconds since the epoch after which the revocation is dropped. By default when everything that was
            issued up to now has ended; for a key after ten years. Until then new tokens of a subject or tenant are
            refused too.
        now: Seconds since the epoch; the clock's by default.

    Returns:
        What was added.

    Raises:
        ValueError: Nothing is named, something has no right shape, or too many revocations are in force.
        ConfigError: There is no store that reaches every worker.
        StoreUnavailable: The store does not answer. Whether it has the revocation is not known; revoke again.
    """
    now = time.time() if now is None else now
    named: _Named = {_TOKEN: token, _SUBJECT: subject, _TENANT: tenant, _KEY: key, _ISSUED_BEFORE: issued_before}
    revocations = _revocations(settings, named, until, now)
    _reaching_everybody(settings)
    for revocation in revocations:
        await add(settings.store, settings.issuer, revocation, now=now)
    return revocations


async def lift(
    settings: GuardSettings,
    *,
    token: str | None = None,
    subject: str | None = None,
    tenant: str | None = None,
    key: str | None = None,
    issued_before: float | None = None,
) -> tuple[Revocation, ...]:
    """Take back what was revoked by mistake: every revocation of exactly these names, however long it would last.

    Returns:
        What was taken back; empty where nothing of it was in force.

    Raises:
        ValueError: Nothing is named, or something has no right shape.
        ConfigError: There is no store that reaches every worker.
        StoreUnavailable: The store does not answer.
    """
    named: _Named = {_TOKEN: token, _SUBJECT: subject, _TENANT: tenant, _KEY: key, _ISSUED_BEFORE: issued_before}
    meant = {(it.kind, it.value) for it in _revocations(settings, named, None, 0.0)}
    lifted = tuple(it for it in await in_force(settings, now=-math.inf) if (it.kind, it.value) in meant)
    if lifted:
        await settings.store.forget(settings.issuer, [revocation.to_entry() for revocation in lifted])
    return lifted


async def in_force(settings: GuardSettings, *, now: float | None = None) -> tuple[Revocation, ...]:
    """Every revocation that has not ended, sorted by kind and name.

    Raises:
        ConfigError: There is no store that reaches every worker.
        StoreUnavailable: The store does not answer, or holds what this version cannot read.
    """
    _reaching_everybody(settings)
    now = time.time() if now is None else now
    answer = await settings.store.revoked(settings.issuer)
    revocations = [Revocation.from_entry(entry) for entry in (answer[1] if answer else ())]
    read = [revocation for revocation in revocations if revocation is not None]
    if answer is None or len(read) != len(revocations):
        raise StoreUnavailable("the store holds a revocation that this version cannot read")
    return tuple(sorted((it for it in read if it.until > now), key=lambda it: (it.kind.value, it.value, it.until)))


def _revocations(settings: GuardSettings, named: _Named, until: float | None, now: float) -> tuple[Revocation, ...]:
    revocations = []
    for kind, given in named.items():
        if given is None:
            continue
        value, begins = given, now
        if kind is RevocationKind.ISSUED_BEFORE:
            if isinstance(given, str) or not 0 <= given < 2**53:
                raise ValueError("the time before which tokens are revoked is a number of seconds since the epoch")
            begins = max(now, given)
            # A token of the second in which somebody revokes may be older than that; the next second's are new.
            value = str(math.ceil(given))
        usual = end_of_life(
            begins,
            lifetime_seconds=settings.token_lifetime_seconds,
            leeway_seconds=settings.leeway_seconds,
            staleness_seconds=settings.revocation_staleness_seconds,
        )
        end = now + _KEY_SECONDS if kind is RevocationKind.KEY else usual
        revocations.append(Revocation(kind, value, end if until is None else until))  # type: ignore[arg-type]
    if not revocations:
        raise ValueError("name a token, a subject, a tenant, a key, or a time")
    return tuple(revocations)


def _reaching_everybody(settings: GuardSettings) -> None:
    if not settings.revocable:
        raise ConfigError(
            "TOUCAN_GUARD_STORE_URL is memory://, of which every worker has its own: name a Redis or Valkey server"
        )
