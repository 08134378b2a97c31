"""One policy for one engine: on whose behalf a statement runs, and what the policy says of a table."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.sql.expression import TableClause

from toucan_guard.core.errors import NoEmbedContext
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import TableRule
from toucan_guard.rls.context import RowAccess, require_row_access
from toucan_guard.rls.sqlalchemy_refusals import RefusedQuery
from toucan_guard.rls.unnamed_table import unnamed_table


class NoEmbed(DontWrapMixin, NoEmbedContext):
    """``NoEmbedContext``, and SQLAlchemy lets it through as it is."""


class Guard:
    """One policy for one engine: on whose behalf a statement runs, and what the policy says of a table."""

    def __init__(self, policy: RlsPolicy) -> None:
        self.policy: Final = policy
        names = {part.casefold() for name in policy.tables for part in (name, name.rpartition(".")[2])}
        self.reserved_names: Final = frozenset(names)

    def access(self) -> RowAccess:
        """The current embed.

        Raises:
            NoEmbed: There is none.
            RefusedQuery: It was judged by another policy.
        """
        try:
            access = require_row_access()
        except NoEmbedContext as error:
            raise NoEmbed(str(error)) from None
        if access.row_filter.policy != self.policy:
            raise RefusedQuery("the embed was judged by another policy than the one that protects this engine")
        return access

    def row_filter(self) -> RowFilter:
        """The current embed's filter."""
        return self.access().row_filter

    def rules(self, table: TableClause) -> TableRule:
        """What the policy says of a table.

        Raises:
            RefusedQuery: Nothing.
        """
        name = table_name(table)
        rules = None if "." in str(table.name) else self.policy.tables.get(name)
        if rules is None or (rules.rule is None and not rules.open):
            raise unnamed_table(RefusedQuery, name, self.policy.tables)
        return rules


def table_name(table: TableClause) -> str:
    """A table's name as the policy writes it."""
    schema = getattr(table, "schema", None)
    return f"{schema}.{table.name}" if schema else str(table.name)
