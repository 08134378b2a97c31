"""On whose behalf a query runs: the context variable that every adapter reads.

The guard sets it for exactly the life of a connection. A task that outlives the connection still
holds its ``RowAccess``, and finds it closed. A process that is forked meanwhile begins on nobody's behalf: it never
hears of the end, and a worker of a pool, which goes on with other people's work, would read their rows as its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Final

from toucan_guard.core.errors import NoEmbedContext
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.earnings import Earnings

_first_look: Final = threading.Lock()


class RowAccess:
    """What one connection may read, and what it has read.

    Args:
        row_filter: Which rows are open.
        outer: Of the guard in front of this one, where there is one.

    Attributes:
        row_filter: Which rows are open.
        receipts: Table to policy version, for each table that an adapter has filtered in this connection.
            Written by ``note`` alone.
        closed: The connection has ended; no further query runs.
    """

    __slots__ = ("_earnings", "_outer", "closed", "receipts", "row_filter")

    def __init__(self, row_filter: RowFilter, outer: RowAccess | None = None) -> None:
        self.row_filter = row_filter
        self._outer = outer
        self.receipts: dict[str, str] = {}
        self.closed = False
        self._earnings: Earnings | None = None

    @property
    def tables(self) -> Mapping[str, str]:
        """What the record says was filtered: the receipts, and those of the guard in front of this one."""
        return self.receipts if self._outer is None else {**self._outer.tables, **self.receipts}

    def note(self, tables: Collection[str], version: str) -> None:
        """Write the receipts of tables that are filtered now, by this version of the policy."""
        for table in tables:
            self.receipts[table] = version
        if self._earnings is not None:
            self._earnings.note(tables)

    @property
    def earnings(self) -> Earnings:
        """What the entries of caches earn in this connection; nothing is kept of it before the first look-up."""
        made = self._earnings
        if made is None:
            with _first_look:
                made = self._earnings = self._earnings or Earnings()
        return made

    @property
    def embed_key(self) -> str:
        """Whose rows these are: the filter's fingerprint."""
        return self.row_filter.fingerprint

    def __repr__(self) -> str:
        return f"RowAccess({self.row_filter!r}, tables={tuple(sorted(self.receipts))!r}, closed={self.closed})"


current_row_access: Final[ContextVar[RowAccess | None]] = ContextVar("toucan_guard_row_access", default=None)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=partial(current_row_access.set, None))


def require_row_access() -> RowAccess:
    """On whose behalf the caller runs.

    Raises:
        NoEmbedContext: On nobody's: outside a guarded connection, in a thread that did not take over
            its context, in a process that was forked, or after the connection's end.
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
