"""The keys that the configured guard would verify with, for commands that judge a token without it."""

from __future__ import annotations

import anyio

from toucan_guard.core.errors import KeysUnavailable
from toucan_guard.settings import GuardSettings
from toucan_guard.tokens.jwks import JwksKeys, shared_jwks
from toucan_guard.tokens.keys import KeyRing
from toucan_guard.verification_keys import verification_keys


def keys_now(settings: GuardSettings) -> KeyRing:
    """The keys of this moment, fetched where they are fetched.

    Raises:
        KeysUnavailable: There are none.
    """
    source = verification_keys(settings)
    anyio.run(source.start)
    ring = source.ring
    if ring is None:
        raise KeysUnavailable(why_not(fetched(settings)) if settings.jwks_url else "there is no key at all")
    return ring


def fetched(settings: GuardSettings) -> JwksKeys:
    """The fetched keys, and what there is to say of them. Only where ``JWKS_URL`` is set."""
    keys = shared_jwks(str(settings.jwks_url), fetch=None, max_stale_seconds=settings.jwks_max_stale_seconds)
    if not keys.complete:
        anyio.run(keys.start)
    return keys


def why_not(keys: JwksKeys) -> str:
    """Why there are no keys."""
    return f"TOUCAN_GUARD_JWKS_URL: {keys.problem or 'the endpoint does not answer in time'}"
