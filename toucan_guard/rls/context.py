"""What an adapter may see: the row filter of the connection that this code runs for.

The layer sets the variable for exactly the life of a connection and closes the object
at its end: a task that outlives the connection keeps the object and finds it closed.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from toucan_guard.core.errors import NoEmbedContext
from toucan_guard.core.row_filter import RowFilter


class RowAccess:
    """The row filter of one connection, and what was filtered with it.

    Attributes:
        row_filter: The rows that may be seen.
        receipts: Table to the version of the policy whose rule was applied; adapters write it.
        closed: The connection has ended: nothing may be queried any more.
    """

    __slots__ = ("closed", "receipts", "row_filter")

    def __init__(self, row_filter: RowFilter) -> None:
        self.row_filter = row_filter
        self.receipts: dict[str, str] = {}
        self.closed = False

    def filtered(self, table: str) -> None:
        """Write the receipt that a table was filtered."""
        self.receipts[table] = self.row_filter.policy.version

    def __repr__(self) -> str:
        return f"<RowAccess {'closed' if self.closed else 'open'} {self.row_filter!r}>"


current_row_access: Final[ContextVar[RowAccess | None]] = ContextVar("toucan_guard_row_access", default=None)


def require_row_access() -> RowAccess:
    """The row access of the connection that this code runs for.

    Raises:
        NoEmbedContext: This code runs for no connection, or for one that has ended.
    """
    access = current_row_access.get()
    if access is None:
        raise NoEmbedContext(
            "a guarded query runs on nobody's behalf: outside a guarded request, on an exempt path, or in a task "
            "with a context of its own; a job that needs every row uses an engine that is not protected"
        )
    if access.closed:
        raise NoEmbedContext("a guarded query runs after the end of the request that it belongs to")
    return access
