"""On whose behalf a query runs: the context variable that every adapter reads.

The guard sets it for exactly the life of a connection. A task that outlives the connection still
holds its ``RowAccess``, and finds it closed.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from toucan_guard.core.errors import NoEmbedContext
from toucan_guard.core.row_filter import RowFilter


class RowAccess:
    """What one connection may read, and what it has read.

    Attributes:
        row_filter: Which rows are open.
        receipts: Table to policy version, for each table that an adapter has filtered in this connection.
        closed: The connection has ended; no further query runs.
    """

    __slots__ = ("closed", "receipts", "row_filter")

    def __init__(self, row_filter: RowFilter) -> None:
        self.row_filter = row_filter
        self.receipts: dict[str, str] = {}
        self.closed = False

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
