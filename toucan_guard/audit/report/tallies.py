"""Counters whose memory is bounded, and which say honestly what they could not keep.

``Tally`` counts by name. When there are too many names it lets go of the half with the smallest counts (the
*space-saving* method of Metwally, Agrawal and El Abbadi, 2005, in batches): whatever is counted often is certainly
kept, and of a name that comes in late it is known how many of its earlier ones may be missing. ``Top`` keeps the
highest ranks, exactly.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, Final, Generic, TypeVar

NEVER: Final = "~"  # behind every time as text
_MOST_NOTES: Final = 8
_MOST_TABLES: Final = 16

K = TypeVar("K", bound=Hashable)


class Seen:
    """What is known of one name.

    Attributes:
        count: How often it was certainly seen in the period.
        let_in: How many of these were let in.
        refused: How many of these were refusals.
        missing: How many more there may have been, before it was kept.
        first: When it was first seen, in the period or before; RFC 3339 in UTC.
        last: When it was last seen.
        notes: What it was seen with, and how often; the first few of them only.
        unnoted: How often it was seen with something that ``notes`` has no room for.
    """

    __slots__ = ("count", "first", "last", "let_in", "missing", "notes", "refused", "unnoted")

    def __init__(self, missing: int = 0) -> None:
        self.count = 0
        self.let_in = 0
        self.refused = 0
        self.missing = missing
        self.first = NEVER
        self.last = ""
        self.notes: dict[str, int] = {}
        self.unnoted = 0

    @property
    def failed(self) -> int:
        """How many were neither let in nor refused."""
        return self.count - self.let_in - self.refused

    def at(self, time: str) -> None:
        """It was there at this time."""
        # Not min() and max(), which take three times as long, a few times for every line.
        if time < self.first:  # noqa: PLR1730
            self.first = time
        if time > self.last:  # noqa: PLR1730
            self.last = time

    def note(self, name: str) -> None:
        """It was seen with this."""
        if name in self.notes:
            self.notes[name] += 1
        elif len(self.notes) < _MOST_NOTES:
            self.notes[name] = 1
        else:
            self.unnoted += 1


class Tally(Generic[K]):
    """Counts by name, of which at most ``capacity`` are kept at a time.

    Attributes:
        total: Everything that was counted, kept or not.
        overflowed: There were more names than could be kept.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = max(2, capacity)
        self._kept: dict[K, Seen] = {}
        self._missing = 0
        self.total = 0
        self.overflowed = False

    def __len__(self) -> int:
        return len(self._kept)

    def count(self, name: K, time: str, *, let_in: bool = False, refused: bool = False) -> Seen:
        """Count one."""
        seen = self._kept.get(name)
        if seen is None:
            seen = self.known(name, time)
        elif time > seen.last:
            seen.last = time  # nearly always: lines stand in their order
        elif time < seen.first:
            seen.first = time
        self.total += 1
        seen.count += 1
        if refused:
            seen.refused += 1
        elif let_in:
            seen.let_in += 1
        return seen

    def known(self, name: K, time: str) -> Seen:
        """Remember that a name was there at a time, without counting it: before the period."""
        seen = self._kept.get(name)
        if seen is None:
            if len(self._kept) >= self._capacity:
                self._let_go()
            seen = self._kept[name] = Seen(self._missing)
        seen.at(time)
        return seen

    def ranked(self) -> Iterator[tuple[K, Seen]]:
        """Every kept name, the most frequent first."""
        return iter(sorted(self._kept.items(), key=lambda item: (-item[1].count, str(item[0]))))

    def _let_go(self) -> None:
        """Keep the half with the most; a name that comes (back) later may have been let go here."""
        self.overflowed = True
        by_count = sorted(self._kept.items(), key=lambda item: item[1].count + item[1].missing, reverse=True)
        half = self._capacity // 2
        self._missing = max(self._missing, *(seen.count + seen.missing for _, seen in by_count[half:]))
        self._kept = dict(by_count[:half])


class Told:
    """Which tables the last few thousand requests have told of: a completion tells again what its decision told."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._young: dict[int, tuple[int, ...]] = {}
        self._old: dict[int, tuple[int, ...]] = {}

    def is_new(self, request: str, table: str) -> bool:
        """Whether this table was not told of yet; remembers it."""
        name, table_name = hash(request), hash(table)
        tables = self._young.get(name) or self._old.get(name, ())
        if table_name in tables:
            return False
        if len(self._young) >= self._capacity:
            self._young, self._old = {}, self._young
        self._young[name] = (*tables, table_name)[:_MOST_TABLES]
        return True


class Top(Generic[K]):
    """The names of the highest rank, each with its highest; exact, in whatever order they come."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[K, tuple[Any, Any]] = {}
        self._floor: Any = None

    def wants(self, rank: Any) -> bool:
        """Whether a name of this rank could be among the highest."""
        return self._floor is None or bool(rank > self._floor)

    def offer(self, name: K, rank: Any, value: Any) -> None:
        """Take a name into account; ``value`` belongs to the highest rank of the name."""
        if not self.wants(rank):
            return
        kept = self._kept.get(name)
        if kept is not None and kept[0] >= rank:
            return
        self._kept[name] = (rank, value)
        if len(self._kept) >= 2 * self._size:
            self._kept = dict(self._best())
            self._floor = min(rank for rank, _ in self._kept.values())

    def held(self, name: K) -> Any:
        """The value that is kept for a name, or None."""
        kept = self._kept.get(name)
        return None if kept is None else kept[1]

    def ranked(self) -> list[tuple[K, Any, Any]]:
        """Name, rank and value, the highest rank first."""
        return [(name, rank, value) for name, (rank, value) in self._best()]

    def _best(self) -> list[tuple[K, tuple[Any, Any]]]:
        return sorted(self._kept.items(), key=lambda item: item[1][0], reverse=True)[: self._size]
