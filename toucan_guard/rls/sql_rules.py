"""Rules as SQL text about one row.

Each database compares in its own way: by collation, by affinity, by silent casts. The text here is
written so that what it lets through is what ``RowFilter.matches`` lets through. No table is declared to
``filter_sql``, so the text itself looks at the type of a cell wherever the database would convert it.

The values that are bound when it runs are ``sql_parameters.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from toucan_guard.core.row_rules import Group, Leaf, Rule
from toucan_guard.rls.sql_dialects import Dialect
from toucan_guard.rls.sql_duckdb import duckdb_comparison
from toucan_guard.rls.sql_parameters import Parameters
from toucan_guard.rls.sql_postgres import postgres_comparison
from toucan_guard.rls.sql_sqlite import sqlite_comparison

ROW: Final = "tg_row"

_COMPARISONS: Final[dict[str, Callable[[Parameters, Leaf, str], str]]] = {
    "sqlite": sqlite_comparison,
    "duckdb": duckdb_comparison,
    "postgres": postgres_comparison,
}


class RuleWriter:
    """Writes the rules of the tables of one statement, and keeps their parameters.

    Attributes:
        parameters: Of all rules so far.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._comparison = _COMPARISONS[dialect.name]
        self.parameters = Parameters(dialect)

    def condition(self, rule: Rule) -> str:
        """The rule about a row called ``tg_row``."""
        if isinstance(rule, Group):
            parts = [self.condition(part) for part in rule.rules]
            return "(" + (" AND " if rule.kind == "all" else " OR ").join(parts) + ")" if parts else "1 = 0"
        cell = f"{ROW}.{self._dialect.quote(rule.column)}"
        if rule.attribute is None:
            return f"{cell} IS {'NOT ' if rule.op == 'is_set' else ''}NULL"
        return f"({self._comparison(self.parameters, rule, cell)})"
