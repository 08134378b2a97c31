"""Where a verifier's keys come from: configured once, fetched, or several such sources of one issuer together.

A source is asked for its ring by every request, so the answer is an attribute and never a wait. Only a token whose key
nobody knows may wait, for a refetch that it shares with all others like it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Protocol

import anyio

from toucan_guard.core.errors import ConfigError
from toucan_guard.tokens.keys import KeyRing, VerificationKey


class KeySource(Protocol):
    """The keys of one issuer, which may change while we run. One per event loop, like the token cache."""

    @property
    def ring(self) -> KeyRing | None:
        """The keys of this moment, or None where there is no key. The same object as long as nothing has changed.

        Never waits and never raises; it may begin a refresh in the background, where one is due.
        """
        ...

    @property
    def complete(self) -> bool:
        """Whether ``ring`` is all there should be.

        False where keys could not be fetched, or too long ago: a token whose key is not found may still be a good one,
        so the answer to it is "not now" (503) and not "never" (401).
        """
        ...

    async def start(self) -> None:
        """Get the first keys where there are none yet: called once as the app starts, where the server says so.

        Waits a few seconds at most. Never raises; a source that failed stays incomplete and tries again.
        """
        ...

    async def look_again(self, kid: str | None) -> None:
        """Called after a token named a key that ``ring`` does not have.

        Returns when a shared refetch has ended, or at once where none is allowed now. Never raises.
        """
        ...


class StaticKeys:
    """Keys that were configured. A host that rotates them itself assigns another ring.

    Attributes:
        ring: The keys.
    """

    complete: Final = True

    def __init__(self, ring: KeyRing | None) -> None:
        self.ring = ring

    async def start(self) -> None:
        """See ``KeySource``."""

    async def look_again(self, kid: str | None) -> None:
        """See ``KeySource``."""


class KeyUnion:
    """Several sources of one issuer, as one.

    Where two sources give one name to different keys, nobody can say whose a token is, so neither key counts. Where
    one source has secrets and another public keys, no key counts (RFC 8725 §2.1).

    Args:
        sources: Two or more; their order is of no meaning.

    Raises:
        ConfigError: The keys that the sources have already do not go together.
    """

    def __init__(self, *sources: KeySource) -> None:
        self._sources: Final = sources
        self._parts: tuple[KeyRing | None, ...] = tuple(source.ring for source in sources)
        keys = _keys_of(self._parts)
        self._ring = KeyRing(keys) if keys else None
        self._mixed = False

    @property
    def ring(self) -> KeyRing | None:
        """See ``KeySource``."""
        for source, part in zip(self._sources, self._parts, strict=True):
            if source.ring is not part:
                self._join()
                break
        return self._ring

    @property
    def complete(self) -> bool:
        """See ``KeySource``."""
        return not self._mixed and all(source.complete for source in self._sources)

    async def start(self) -> None:
        """See ``KeySource``."""
        async with anyio.create_task_group() as group:
            for source in self._sources:
                group.start_soon(source.start)

    async def look_again(self, kid: str | None) -> None:
        """See ``KeySource``."""
        async with anyio.create_task_group() as group:
            for source in self._sources:
                group.start_soon(source.look_again, kid)

    def _join(self) -> None:
        self._parts = tuple(source.ring for source in self._sources)
        keys = _keys_of(self._parts)
        self._mixed = len({key.symmetric for key in keys}) > 1
        # A key that two sources agree on is one key. What is left under one name, or without a name, is ambiguous.
        names = Counter(_name_of(key) for key in keys)
        keys = [key for key in keys if names[_name_of(key)] == 1]
        self._ring = KeyRing(keys) if keys and not self._mixed else None


def joined(sources: Iterable[KeySource]) -> KeySource:
    """One source out of one or more.

    Raises:
        ConfigError: There is none, or their keys do not go together.
    """
    several = tuple(sources)
    if not several:
        raise ConfigError("there is no source of keys")
    return several[0] if len(several) == 1 else KeyUnion(*several)


def _keys_of(rings: Iterable[KeyRing | None]) -> list[VerificationKey]:
    """Every key once; whether two are equal is judged by name, algorithm and material."""
    keys: list[VerificationKey] = []
    for ring in rings:
        for key in () if ring is None else ring.keys:
            if key not in keys:
                keys.append(key)
    return keys


def _name_of(key: VerificationKey) -> tuple[str | None, str]:
    # Without a name, a key is the candidate for every token of its algorithm.
    return (key.kid, "") if key.kid is not None else (None, key.algorithm)
