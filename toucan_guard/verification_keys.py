"""Which keys verify this deployment's tokens, as the settings say: the one place that puts key sources together."""

from __future__ import annotations

from toucan_guard.core.errors import ConfigError
from toucan_guard.settings import GuardSettings
from toucan_guard.settings_keys import KEY_SOURCES
from toucan_guard.settings_values import variable
from toucan_guard.tokens.jwks import Fetch, shared_jwks
from toucan_guard.tokens.key_source import KeySource, StaticKeys, joined


def verification_keys(settings: GuardSettings, *, fetch_keys: Fetch | None = None) -> KeySource:
    """The source of the keys that a guard with these settings verifies with.

    Args:
        settings: The configuration.
        fetch_keys: The host's own way to fetch ``JWKS_URL``; None is a plain HTTP client.

    Raises:
        ConfigError: Sources do not go together.
    """
    sources: list[KeySource] = []
    if settings.keys_configured:
        sources.append(StaticKeys(settings.key_ring))
    if settings.api_keys is not None:
        sources.append(settings.api_keys)
    if settings.jwks_url is not None:
        sources.append(
            shared_jwks(settings.jwks_url, fetch=fetch_keys, max_stale_seconds=settings.jwks_max_stale_seconds)
        )
    try:
        return joined(sources)
    except ConfigError as error:
        given = [name for name in (*KEY_SOURCES, "api_keys_file") if name in settings.model_fields_set]
        names = " and ".join(variable(name) for name in given if settings.__dict__[name])
        raise ConfigError(f"{names} do not go together: {problem}" for problem in error.problems) from None
