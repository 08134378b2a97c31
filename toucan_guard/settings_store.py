"""What the settings say of the store: where it is, and what may not be kept in the memory of one process of several."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from toucan_guard.core.credentials import SESSION
from toucan_guard.tokens.redis_driver import require_driver
from toucan_guard.tokens.store_url import StoreAddress, parse_store_url

if TYPE_CHECKING:
    from toucan_guard.settings_fields import SettingsFields

MEMORY: Final = "memory://"


def store_address(url: str, source: str) -> StoreAddress | None:
    """Read a store's URL, which the variable ``source`` gave; None is the memory of this process.

    Raises:
        ConfigError: With every mistake, none quoting the URL; or the driver is not installed.
    """
    if url == MEMORY:
        return None
    address = parse_store_url(url, source)
    require_driver()
    return address


def memory_contradictions(settings: SettingsFields, given: Collection[str]) -> Iterator[str]:
    """Find what several workers cannot keep each in a memory of its own."""
    url: SecretStr | None = settings.__dict__["store_url"]
    if settings.workers == 1 or not (url is None or url.get_secret_value() == MEMORY):
        return
    kept = []
    if SESSION in settings.token_carriers:
        kept.append(("sessions are", "leave session out of TOUCAN_GUARD_TOKEN_CARRIERS"))
    if "revocation_staleness_seconds" in given:
        kept.append(("revocations are", "remove TOUCAN_GUARD_REVOCATION_STALENESS_SECONDS"))
    for what, mend in kept:
        yield (
            f"TOUCAN_GUARD_WORKERS (or WEB_CONCURRENCY) is {settings.workers}, but {what} kept in the memory of one "
            f"process: give a Redis or Valkey server in TOUCAN_GUARD_STORE_URL, run one worker, or {mend}"
        )
