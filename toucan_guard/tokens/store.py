"""The store: one small protocol for single use, embed sessions and revocations, and the store of one process.

``RedisStore`` is the store of many processes and machines. Whoever needs another one writes these methods.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Protocol
from weakref import WeakValueDictionary

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.errors import StoreUnavailable


class Store(Protocol):
    """What the guard needs of a store. Every method but ``aclose`` may raise ``StoreUnavailable``, and nothing else."""

    async def spend(self, key: str, *, expires_at: float) -> bool:
        """Take a key that nobody took before; False where somebody did. Forgotten after ``expires_at``."""
        ...

    async def put(self, key: str, claims: VerifiedClaims, *, expires_at: float) -> None:
        """Keep claims under a key until ``expires_at`` (seconds since the epoch)."""
        ...

    async def get(self, key: str) -> VerifiedClaims | None:
        """The claims under a key, or None where they ended or never were."""
        ...

    async def revoked(self, issuer: str, *, since: str = "") -> tuple[str, Collection[str]] | None:
        """Every entry of an issuer and the version of the whole; None where that is still the version ``since``.

        A store that may lose its memory says versions of ``history.py``, so that it is noticed.
        """
        ...

    async def revoke(self, issuer: str, *entries: str) -> None:
        """Add entries; adding one twice is adding it once."""
        ...

    async def forget(self, issuer: str, entries: Collection[str]) -> None:
        """Remove entries, those that are there."""
        ...

    async def warnings(self) -> tuple[str, ...]:
        """What is wrong with the store although it answers, in sentences."""
        ...

    async def aclose(self) -> None:
        """Give back what is held open on this event loop; a store that is used again opens it anew."""
        ...


class MemoryStore:
    """The store of one process. Forgets nothing early: when it is full it refuses new entries.

    An LRU would reopen replay: whoever floods it would make it forget a spent token.

    Args:
        max_entries: Sessions and spent tokens, together. Revocations are bounded by whoever adds them.
        clock: Seconds since the epoch.
    """

    def __init__(self, *, max_entries: int = 100_000, clock: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self._clock = clock
        self._spent: dict[str, float] = {}
        self._sessions: dict[str, tuple[float, VerifiedClaims]] = {}
        self._revoked: dict[str, set[str]] = {}
        self._version = 0

    async def spend(self, key: str, *, expires_at: float) -> bool:
        """See ``Store``."""
        if self._spent.get(key, 0.0) > self._clock():
            return False
        self._make_room()
        self._spent[key] = expires_at
        return True

    async def put(self, key: str, claims: VerifiedClaims, *, expires_at: float) -> None:
        """See ``Store``."""
        self._make_room()
        self._sessions[key] = (expires_at, claims)

    async def get(self, key: str) -> VerifiedClaims | None:
        """See ``Store``."""
        expires_at, claims = self._sessions.get(key, (0.0, None))
        return claims if expires_at > self._clock() else None

    async def revoked(self, issuer: str, *, since: str = "") -> tuple[str, Collection[str]] | None:
        """See ``Store``."""
        version = str(self._version)
        return None if since == version else (version, frozenset(self._revoked.get(issuer, ())))

    async def revoke(self, issuer: str, *entries: str) -> None:
        """See ``Store``."""
        self._revoked.setdefault(issuer, set()).update(entries)
        self._version += 1

    async def forget(self, issuer: str, entries: Collection[str]) -> None:
        """See ``Store``."""
        self._revoked.get(issuer, set()).difference_update(entries)
        self._version += 1

    async def warnings(self) -> tuple[str, ...]:
        """See ``Store``."""
        return ()

    async def aclose(self) -> None:
        """See ``Store``; what is kept in memory stays."""

    def _make_room(self) -> None:
        if len(self._spent) + len(self._sessions) < self._max_entries:
            return
        now = self._clock()
        self._spent = {key: end for key, end in self._spent.items() if end > now}
        self._sessions = {key: entry for key, entry in self._sessions.items() if entry[0] > now}
        if len(self._spent) + len(self._sessions) >= self._max_entries:
            raise StoreUnavailable("the memory store of sessions and spent tokens is full")


_shared_stores: Final[WeakValueDictionary[tuple[object, ...], MemoryStore]] = WeakValueDictionary()


def shared_memory_store(*tokens: object, clock: Callable[[], float]) -> MemoryStore:
    """The store that all guards of this process share which take the same tokens.

    Two mounts of one app are two guards: with a store for each, a bootstrap token would be spent once at each of them,
    and what is revoked for one would be welcome at the other.

    Args:
        tokens: What decides which tokens are taken: issuer, audiences, keys.
        clock: Seconds since the epoch, where the store is new.
    """
    store = _shared_stores.get(tokens)
    if store is None:
        store = _shared_stores[tokens] = MemoryStore(clock=clock)
    return store
