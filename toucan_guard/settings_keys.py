"""What the settings say of the keys: where they are fetched, and which sources do not go together."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from toucan_guard.settings_values import read_text, variable
from toucan_guard.tokens.jwks_fetch import require_http
from toucan_guard.tokens.jwks_url import jwks_url_problem

KEY_SOURCES: Final = ("keys", "keys_file", "secret", "secret_file", "jwks_url")
_OTHER_SOURCES: Final = ("keys", "secret", "secret_file", "jwks_url", "api_keys_file")


def read_jwks_url(value: object) -> str:
    """Read the address of a key set, and find out now whether it could be fetched."""
    url = read_text(value)
    problem = jwks_url_problem(url)
    if problem:
        raise ValueError(problem)
    try:
        require_http()
    except ModuleNotFoundError:
        raise ValueError("needs httpx2: pip install 'toucan-guard[jwks]'") from None
    return url


def key_contradictions(given: Collection[str]) -> Iterator[str]:
    """Find sources of keys that do not go together, and that there is none. What failed already counts as given."""
    sources = [variable(name) for name in KEY_SOURCES if name in given]
    if len(sources) > 1:
        yield (f"{' and '.join(sources)} are given together: keep one source of keys (several keys go into one JWKS)")
    elif not sources and "api_keys_file" not in given:
        yield (
            f"TOUCAN_GUARD_KEYS_FILE (or {', '.join(map(variable, _OTHER_SOURCES))}) is required: "
            "give the keys that verify tokens"
        )
    if "jwks_max_stale_seconds" in given and "jwks_url" not in given:
        yield (
            "TOUCAN_GUARD_JWKS_MAX_STALE_SECONDS is set, but no keys are fetched: set TOUCAN_GUARD_JWKS_URL or "
            "remove it"
        )
