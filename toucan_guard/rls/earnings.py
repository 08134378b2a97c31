"""What an entry of a cache has earned: the tables that were filtered while it was made.

Making it begins with the look-up for it and ends when it is put there. Both are seen (``cache.py``), and so is every
filtering in between (``context.py``); which of them served this entry is a matter of who did it. What runs in the task
that looked, or in whatever that task has started since, counts; what other tasks of the connection do meanwhile does
not. A look-up in a thread, such as a dependency of the endpoint's, or in a task that is over says nothing of who fills:
then everything counts that this connection filters in between. So it does on trio.

Most look-ups that find an entry are the end of the matter, and some begin a new entry in its place. So they count for
less: from the last one on, for one entry, and not for those who run in another task than the one that looked and still
lives. What the entry that was found had earned is not the new one's.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from contextvars import ContextVar
from itertools import count
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
# The order of what happens in a process.
_moments: Final = count(1)
# A socket may live for days. Of what it has looked for, the oldest is forgotten first.
_MOST_KEYS: Final = 4096


class _Lane:
    """One task that has looked for something, and when which table was filtered in it or below it."""

    __slots__ = ("noted", "owner", "task")

    def __init__(self, owner: object, task: asyncio.Task[Any]) -> None:
        self.owner = owner
        self.task = weakref.ref(task)
        self.noted: dict[str, int] = {}

    @property
    def over(self) -> bool:
        task = self.task()
        return task is None or task.done()


class _Miss:
    """A key that was looked for and not found.

    Attributes:
        since: When the first look-up was that no entry has followed.
        made: The last that happened is that an entry was put there; the next look-up begins anew.
        lanes: The tasks that looked; None stands for a thread.
        looking: Those of them that no entry has followed.
        threads: How many look-ups of threads no entry has followed.
    """

    __slots__ = ("lanes", "looking", "made", "since", "threads")

    def __init__(self) -> None:
        self.since = 0
        self.made = True
        self.lanes: set[_Lane | None] = set()
        self.looking: set[_Lane] = set()
        self.threads = 0

    @property
    def answered(self) -> bool:
        return not self.looking and self.threads < 1


def _after(since: int, noted: dict[str, int]) -> set[str]:
    return {table for table, moment in noted.copy().items() if moment > since}


def _room_for(kept: dict[Hashable, _T], key: Hashable, make: Callable[[], _T]) -> _T:
    found = kept.get(key)
    if found is None:
        found = kept[key] = make()
        if len(kept) > _MOST_KEYS:
            del kept[next(iter(kept))]
    return found


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


# The lanes that the caller runs in: its own task's, and those of the tasks that have started it.
_lanes: Final[ContextVar[tuple[_Lane, ...]]] = ContextVar("toucan_guard_lanes", default=())


class Earnings:
    """The look-ups of one connection, and what was filtered since. Any thread may call."""

    __slots__ = ("_hits", "_lock", "_misses", "_noted", "_owner")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._misses: dict[Hashable, _Miss] = {}
        # Who has found an entry, and when last. A number is a thread's.
        self._hits: dict[Hashable, dict[_Lane | int, int]] = {}
        self._noted: dict[str, int] = {}
        # Contexts outlive connections: what another one has left there does not count, and must not keep us alive.
        self._owner = object()

    def note(self, tables: Iterable[str]) -> None:
        """Say that these tables are filtered now."""
        noted = dict.fromkeys(tables, next(_moments))
        self._noted.update(noted)
        for lane in _lanes.get():
            if lane.owner is self._owner:
                lane.noted.update(noted)

    def missed(self, key: Hashable) -> None:
        """Say that a cache was asked for this key and has no entry: somebody may be about to make it.

        Where several look for one key before any has made its entry, the first look-up counts for all of them.
        """
        lane = self._lane()
        with self._lock:
            if key in self._hits:
                self._hits[key].pop(lane or threading.get_ident(), None)
            miss = _room_for(self._misses, key, _Miss)
            if miss.made:
                miss.made, miss.since, miss.lanes = False, next(_moments), set()
            miss.lanes.add(lane)
            if lane is None:
                miss.threads += 1
            else:
                miss.looking.add(lane)

    def found(self, key: Hashable) -> None:
        """Say that a cache was asked for this key and has an entry: somebody may be about to put a new one there."""
        lane = self._lane()
        with self._lock:
            miss = self._misses.get(key)
            if miss is not None:
                if lane is None and not miss.made and None in miss.lanes:
                    return  # this may be the very thread that is making it
                if lane is not None:  # somebody else has made it
                    miss.lanes.discard(lane)
                    miss.looking.discard(lane)
                    if miss.answered:
                        del self._misses[key]
            hits = _room_for(self._hits, key, dict)
            for other in [other for other in hits if isinstance(other, _Lane) and other.over]:
                del hits[other]
            hits[lane or threading.get_ident()] = next(_moments)

    def of(self, key: Hashable) -> tuple[str, ...]:
        """The tables that the entry of this key has earned; none where nobody has looked for it."""
        with self._lock:
            if finders := self._finders(key):
                since = max(self._hits[key][who] for who in finders)
                noted = next((lane.noted for lane in _lanes.get() if lane in finders), self._noted)
                return tuple(sorted(_after(since, noted)))
            miss = self._misses.get(key)
            if miss is None:
                return ()
            since, lanes = miss.since, tuple(miss.lanes)
        living = [lane for lane in lanes if lane is not None and not lane.over]
        tables = {table for lane in living for table in _after(since, lane.noted)}
        if not tables and len(living) < len(lanes):
            tables = _after(since, self._noted)  # whoever looked has left the rest to others
        return tuple(sorted(tables))

    def made(self, key: Hashable) -> None:
        """Say that the entry of this key was put there: who looked for it is answered, and nobody else who did."""
        with self._lock:
            if finders := self._finders(key):
                hits = self._hits[key]
                for who in finders:
                    del hits[who]
                if not hits:
                    del self._hits[key]
                return
            miss = self._misses.get(key)
            if miss is None:
                return
            miss.made = True
            own = _lanes.get()
            mine = {lane for lane in miss.looking if lane in own or lane.over}
            if mine:
                miss.looking -= mine
            elif miss.threads:
                miss.threads -= 1
            elif miss.looking:
                miss.looking.pop()  # for one of them, which lives and has left it to somebody else
            if miss.answered:
                del self._misses[key]

    def _finders(self, key: Hashable) -> list[_Lane | int]:
        """Whose look-ups that found this key the caller answers for: its own, or else those of whoever is unknown."""
        hits = self._hits.get(key)
        if not hits:
            return []
        miss = self._misses.get(key)
        missed = frozenset() if miss is None else miss.lanes
        thread = () if _task() else (threading.get_ident(),)
        for who in (*thread, *_lanes.get()):
            if who in hits:
                return [who]
            if (who if isinstance(who, _Lane) else None) in missed:
                return []
        return [] if missed else [who for who in hits if isinstance(who, int) or who.over]

    def _lane(self) -> _Lane | None:
        """The lane of the task that calls, made at its first look-up; None in a thread."""
        task = _task()
        if task is None:
            return None
        lanes = _lanes.get()
        for lane in lanes:
            if lane.owner is self._owner and lane.task() is task:
                return lane
        lane = _Lane(self._owner, task)
        # Tasks that are over have nobody left whom a filtering could serve.
        _lanes.set((lane, *(other for other in lanes if other.owner is self._owner and not other.over)))
        return lane
