"""For tests of apps that the guard protects: sign tokens, hold the clock, capture audit events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from toucan_guard.audit import sinks
from toucan_guard.core.api_key import SECRET_BYTES, format_api_key
from toucan_guard.core.api_key_limits import ApiKeyLimits
from toucan_guard.core.audit_event import Event
from toucan_guard.core.grants import Grant
from toucan_guard.tokens import TokenMinter
from toucan_guard.tokens.api_key_book import ApiKeyEntry
from toucan_guard.tokens.api_key_store import change_book
from toucan_guard.tokens.api_keys import api_key_digest

__all__ = ["TEST_SECRET", "FakeClock", "audit_capture", "make_api_key", "sign_token"]

# Made anew in every process: no secret that is printed in a package can end up in production.
TEST_SECRET: Final = secrets.token_urlsafe(48)


class FakeClock:
    """A clock that stands until it is moved.

    Args:
        now: Seconds since the epoch; the present by default.
    """

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += seconds


def sign_token(
    key: Any = TEST_SECRET,
    *,
    issuer: str = "https://host.example",
    audience: str | Sequence[str] = "charts",
    subject: str = "user-1",
    tenant: str | None = "acme",
    grants: Iterable[Grant] = (),
    rls: Mapping[str, object] | None = None,
    origins: Sequence[str] | None = None,
    lifetime_seconds: int = 300,
    now: float | None = None,
    bootstrap: bool = False,
    **claims: Any,
) -> str:
    """A valid embed token, for tests.

    Args:
        key: A shared secret, a private JWK, or a private key as PEM; ``TEST_SECRET`` by default.
        rls: Attributes; none by default, which a guard with row-level security refuses.
        now: When the token is made, in seconds since the epoch; the present by default.
        bootstrap: Make the token of a frame's first navigation.
        claims: More of what ``TokenMinter.mint`` takes.
    """
    minter = TokenMinter(
        key,
        issuer=issuer,
        audience=audience,
        lifetime_seconds=lifetime_seconds,
        clock=time.time if now is None else FakeClock(now),
    )
    mint = minter.mint_bootstrap if bootstrap else minter.mint
    return mint(subject=subject, tenant=tenant, grants=tuple(grants), rls=rls, origins=origins, **claims)


def make_api_key(file: Path, *, pepper: str, limits: ApiKeyLimits | None = None, label: str = "for tests") -> str:
    """An API key in a file of API keys, which is made where it is not there; ``toucan-guard apikey`` for tests.

    Args:
        file: What ``TOUCAN_GUARD_API_KEYS_FILE`` names.
        pepper: What ``TOUCAN_GUARD_API_KEY_PEPPER`` says.
        limits: What the key may mint; everything by default.
        label: What people call it.
    """
    key = format_api_key("test", secrets.token_hex(6), secrets.token_bytes(SECRET_BYTES))
    digest = api_key_digest(pepper.encode(), key.text)
    entry = ApiKeyEntry(key.key_id, key.environment, digest, label=label, limits=limits or ApiKeyLimits())
    change_book(file, lambda book: book.with_entry(entry), pepper=pepper.encode(), development=True)
    return key.text


@contextmanager
def audit_capture() -> Iterator[list[Event]]:
    """Every audit event of this process while the block runs, in order.

    with audit_capture() as events:
        client.get("/dashboards/delays")
    assert events[0]["outcome"] == "deny"
    """
    events: list[Event] = []
    sinks.observers.append(events.append)
    try:
        yield events
    finally:
        sinks.observers.remove(events.append)
