"""On whose behalf a query runs: the context variable that every adapter reads.

The guard sets it for exactly the life of a connection. A task that outlives the connection still
holds its ``RowAccess``, and finds it closed.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable
from contextvars import ContextVar
from itertools import count
from typing import Final

from toucan_guard.core.errors import NoEmbedContext
from toucan_guard.core.row_filter import RowFilter

# The order of what happens in a process: what an adapter filtered, and what a cache did not find.
_moments: Final = count(1)
_misses_lock: Final = threading.Lock()
# A socket may live for days. Of what it did not find, the oldest is forgotten first.
_MOST_MISSES: Final = 4096


class RowAccess:
    """What one connection may read, and what it has read.

    Attributes:
        row_filter: Which rows are open.
        receipts: Table to policy version, for each table that an adapter has filtered in this connection.
            Written by ``note`` alone.
        closed: The connection has ended; no further query runs.
    """

    __slots__ = ("_misses", "_noted", "closed", "receipts", "row_filter")

    def __init__(self, row_filter: RowFilter) -> None:
        self.row_filter = row_filter
        self.receipts: dict[str, str] = {}
        self.closed = False
        self._noted: dict[str, int] = {}
        # Key to when it was first looked for, how many look-ups have not led to an entry, and whether one has.
        self._misses: dict[Hashable, tuple[int, int, bool]] = {}

    def note(self, tables: Iterable[str], version: str) -> None:
        """Write the receipts of tables that are filtered now, by this version of the policy."""
        moment = next(_moments)
        for table in tables:
            self.receipts[table] = version
            self._noted[table] = moment

    def missed(self, key: Hashable) -> None:
        """Remember that a cache was asked for this key and had no entry: somebody may be about to make it.

        Kept here and not in a context variable, because a thread may look and another one fill. Where several
        tasks look for one key before any has made its entry, the first look-up counts for all of them.
        """
        with _misses_lock:
            since, waiting, made = self._misses.get(key, (0, 0, True))
            if made:
                since = next(_moments)
            self._misses[key] = since, waiting + 1, False
            if len(self._misses) > _MOST_MISSES:
                del self._misses[next(iter(self._misses))]

    def earned(self, key: Hashable) -> tuple[str, ...]:
        """The tables that were filtered since a cache was asked for this key in vain; none where it was not asked."""
        known = self._misses.get(key)
        if known is None:
            return ()
        return tuple(sorted(table for table, moment in self._noted.copy().items() if moment > known[0]))

    def made(self, key: Hashable) -> None:
        """Say that the entry of this key was made: one look-up has been answered for."""
        with _misses_lock:
            since, waiting, _ = self._misses.pop(key, (0, 0, True))
            if waiting > 1:
                self._misses[key] = since, waiting - 1, True

    @property
    def embed_key(self) -> str:
        """Whose rows these are: the filter's fingerprint."""
        return self.row_filter.fingerprint

    def __repr__(self) -> str:
        return f"RowAccess({self.row_filter!r}, tables={tuple(sorted(self.receipts))!r}, closed={self.closed})"


current_row_access: Final[ContextVar[RowAccess | None]] = ContextVar("toucan_guard_row_access", default=None)


def require_row_access() -> RowAccess:
    """On whose behalf the caller runs.

    Raises:
        NoEmbedContext: On nobody's: outside a guarded connection, in a thread that did not take over
            its context, or after the connection's end.
    """
    access = current_row_access.get()
    if access is None:
        raise NoEmbedContext(
            "a query runs outside a guarded connection, so nobody knows whose rows it may see; "
            "a job that needs every row uses an engine of its own that is not protected"
        )
    if access.closed:
        raise NoEmbedContext("a query runs after the end of its connection; wait for it before the response ends")
    return access
