"""What a statement writes: INSERT, UPDATE and DELETE, the half of the compiler that changes rows.

An UPDATE or DELETE gets the rule put in front of its WHERE. What is inserted, or set in a column that the policy
compares, must pass the rule too, and only where the policy says ``write = true``.
"""

# As in ``sqlalchemy_compiler.py``.
# mypy: disable-error-code="no-untyped-call, no-any-return, override, misc, assignment"

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar

from sqlalchemy import and_, case, false
from sqlalchemy import column as column_clause
from sqlalchemy import table as table_clause
from sqlalchemy import types as sqltypes
from sqlalchemy.sql.elements import ColumnClause, ColumnElement
from sqlalchemy.sql.expression import TableClause

from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import Leaf, TableRule
from toucan_guard.rls.sqlalchemy_fence import source_can_fail, split
from toucan_guard.rls.sqlalchemy_guard import Guard
from toucan_guard.rls.sqlalchemy_kept import keeps
from toucan_guard.rls.sqlalchemy_refusals import GuardedPreparer, RefusedQuery, RefusingCompiler
from toucan_guard.rls.sqlalchemy_rules import RuleExpressions, UnfitColumn

# What SQLite calls an INTEGER PRIMARY KEY too, and what such a column can be compared with.
_ROW_NUMBERS: Final = frozenset({"rowid", "oid", "_rowid_"})
_WHOLE_NUMBERS: Final = frozenset({"integer", "number", "boolean"})


@dataclass(slots=True)
class _Write:
    """One INSERT, UPDATE or DELETE while it is compiled."""

    kind: str
    table: TableClause | None = None
    rules: TableRule | None = None
    columns: dict[str, str] = field(default_factory=dict)  # name to key, of what is set


@dataclass(frozen=True, slots=True)
class RowCheck:
    """A row that is written must pass; the parameters' names by column."""

    table: str
    kind: str
    parameters: Mapping[str, str]
    keeps: Callable[[str, object], bool]

    def passes(self, row_filter: RowFilter, parameters: Mapping[str, Any]) -> bool:
        """Whether the row of these parameters may be written."""
        row = {column: parameters.get(name) for column, name in self.parameters.items()}
        for column, value in row.items():
            if not self.keeps(column, value):
                raise RefusedQuery(
                    f"{self.table}.{column} must be written as its column keeps it: neither rounded nor cut off, "
                    "and with an offset or without"
                )
        if self.kind == "INSERT":
            return row_filter.matches(self.table, row)
        return row_filter.still_matches(self.table, row)


class _RowRule(ColumnElement[bool]):
    """Stands in the WHERE of an UPDATE or DELETE until it is known which table that is."""

    __visit_name__ = "toucan_guard_rule"
    inherit_cache = False
    type = sqltypes.Boolean()
    _traverse_internals = ()

    def self_group(self, against: Any = None) -> ColumnElement[bool]:
        """As it is: written as ``(…) = 1`` on SQLite it would hide the columns from every index."""
        return self


def _rule_first(statement: Any) -> Any:
    # In front, because a condition that fails on a hidden row would tell what is in it.
    guarded = statement.where(_RowRule())
    *conditions, rule = guarded._where_criteria  # noqa: SLF001 - where() alone appends
    guarded._where_criteria = (rule, *conditions)  # noqa: SLF001
    return guarded


class _WritePreparer(GuardedPreparer):
    """Notes what an INSERT or UPDATE writes to, while it is compiled."""

    on_table: Callable[[Any], None]
    on_column: Callable[[Any], None]

    def format_table(self, table: Any, *args: Any, **kw: Any) -> str:
        """The target of an INSERT."""
        self.on_table(table)
        return super().format_table(table, *args, **kw)

    def format_column(self, column: Any, *args: Any, **kw: Any) -> str:
        """A column that is set."""
        self.on_column(column)
        return super().format_column(column, *args, **kw)


_P = TypeVar("_P")


def derived(part: _P, mixin: type[_P]) -> _P:
    """A part of the dialect, with the mixin's methods in front."""
    made = copy.copy(part)
    made.__class__ = type(mixin.__name__, (mixin, type(part)), {})
    return made


class WritingCompiler(RefusingCompiler):
    """The rules of the tables, and what is written; ``GuardedCompiler`` adds what is read.

    Attributes:
        tg_guard: The policy.
        tg_tables: Tables that this statement filters, for the receipts.
        tg_checks: Rows that it writes.
    """

    tg_guard: ClassVar[Guard]

    def _tg_begin(self, *, fence: str) -> None:
        self.tg_tables: set[str] = set()
        self.tg_checks: list[RowCheck] = []
        self._tg_writes: list[_Write] = []
        self._tg_own = 0
        self._tg_fence = fence
        self._tg_fails = False

    def _tg_rule(self, rules: TableRule, table: Any, target: TableClause) -> str:
        """The rule's text about a row of ``target``; empty where there is none."""
        if rules.rule is None:
            return ""
        self.tg_tables.add(rules.name)
        made, find = self._tg_expressions(rules, table, target)
        expression = made.expression(rules.rule, find)
        self._tg_own += 1
        try:
            return str(self.process(expression.self_group()))
        finally:
            self._tg_own -= 1

    def _tg_expressions(
        self, rules: TableRule, table: Any, target: TableClause | None = None
    ) -> tuple[RuleExpressions, Callable[[str, Leaf], ColumnClause[Any]]]:
        types = {str(known.name): known.type for known in table.c}
        made = RuleExpressions(self.dialect, self.tg_guard.row_filter, many=self.for_executemany)

        def find(name: str, leaf: Leaf) -> ColumnClause[Any]:
            try:
                type_ = made.column_type(leaf, types.get(name))
            except UnfitColumn as error:
                self._tg_refuse(f"the policy compares {rules.name}.{name}, but {error}")
            found: ColumnClause[Any] = column_clause(name, type_)
            found.table = target
            return found

        return made, find

    def visit_update(self, update_stmt: Any, *args: Any, **kw: Any) -> str:
        """UPDATE: only rows that pass, and columns of the rules only where the row still passes."""
        with self._tg_writing("UPDATE") as write:
            text = super().visit_update(_rule_first(update_stmt), *args, **kw)
            self._tg_finish(write, nested=kw.get("visiting_cte") is not None)
        return text

    def visit_delete(self, delete_stmt: Any, *args: Any, **kw: Any) -> str:
        """DELETE: only rows that pass."""
        with self._tg_writing("DELETE") as write:
            text = str(super().visit_delete(_rule_first(delete_stmt), *args, **kw))
            self._tg_finish(write, nested=kw.get("visiting_cte") is not None)
        return text

    def visit_insert(self, insert_stmt: Any, *args: Any, **kw: Any) -> str:
        """INSERT: only where the policy says so, and the row passes."""
        with self._tg_writing("INSERT") as write:
            text = super().visit_insert(insert_stmt, *args, **kw)
            self._tg_finish(write, nested=kw.get("visiting_cte") is not None)
        return text

    def _generate_delimited_and_list(self, clauses: Any, *args: Any, **kw: Any) -> str:
        """The conditions of a statement; one that can fail is not tried where the rule of a written row is false."""
        rule = next((clause for clause in clauses if isinstance(clause, _RowRule)), None)
        if rule is not None and not self._tg_own:
            certain, failing = split(clause for clause in clauses if clause is not rule)
            clauses = (rule, *certain)
            if failing:
                self._tg_fails = True
                # Once more in front, for the index; only CASE is promised to go in order.
                clauses += (case((rule, and_(*failing)), else_=false()),)
        return str(super()._generate_delimited_and_list(clauses, *args, **kw))

    def update_from_clause(self, update_stmt: Any, from_table: Any, extra_froms: Any, *args: Any, **kw: Any) -> str:
        """What else an UPDATE reads."""
        self._tg_fails = self._tg_fails or any(map(source_can_fail, extra_froms))
        return str(super().update_from_clause(update_stmt, from_table, extra_froms, *args, **kw))

    def delete_extra_from_clause(
        self, delete_stmt: Any, from_table: Any, extra_froms: Any, *args: Any, **kw: Any
    ) -> str:
        """What else a DELETE reads."""
        self._tg_fails = self._tg_fails or any(map(source_can_fail, extra_froms))
        return str(super().delete_extra_from_clause(delete_stmt, from_table, extra_froms, *args, **kw))

    def update_tables_clause(self, update_stmt: Any, from_table: Any, *args: Any, **kw: Any) -> str:
        """Learn what an UPDATE writes to."""
        self._tg_target(from_table)
        return str(super().update_tables_clause(update_stmt, from_table, *args, **kw))

    def delete_table_clause(self, delete_stmt: Any, from_table: Any, *args: Any, **kw: Any) -> str:
        """Learn what a DELETE writes to."""
        self._tg_target(from_table)
        return str(super().delete_table_clause(delete_stmt, from_table, *args, **kw))

    def visit_toucan_guard_rule(self, element: Any, **kw: Any) -> str:
        """The rule of the table that is written."""
        write = self._tg_writes[-1]
        if write.table is None or write.rules is None:
            self._tg_refuse("it writes to a table in a way that is not known here")
        target = table_clause(str(write.table.name), schema=getattr(write.table, "schema", None))
        return self._tg_rule(write.rules, write.table, target) or "1 = 1"

    @contextmanager
    def _tg_writing(self, kind: str) -> Iterator[_Write]:
        write = _Write(kind)
        previous = self.preparer
        noting = derived(previous, _WritePreparer)
        assert isinstance(noting, _WritePreparer)  # noqa: S101 - for the type checker
        noting.on_table = self._tg_target
        noting.on_column = lambda column: write.columns.setdefault(str(column.name), str(column.key))
        self._tg_writes.append(write)
        self.preparer = noting
        try:
            yield write
        finally:
            self.preparer = previous
            self._tg_writes.pop()

    def _tg_target(self, table: Any) -> None:
        write = self._tg_writes[-1]
        if not isinstance(table, TableClause):
            self._tg_refuse(f"{write.kind} goes to an alias or a join: name the table itself")
        if write.table is not None and write.table is not table:
            self._tg_refuse(f"{write.kind} goes to more than one table")
        if self.schema_translate_map:
            self._tg_refuse("schema_translate_map puts other tables behind the policy's names")
        write.table, write.rules = table, self.tg_guard.rules(table)
        if not write.rules.write and (write.kind == "INSERT" or write.rules.rule is None):
            raise RefusedQuery(
                f"{write.kind} into {write.rules.name} is refused: the policy does not say write = true for it"
            )

    def _tg_check_row_numbers(self, rules: TableRule, names: set[str]) -> None:
        numbers = sorted(name for name in names if name.casefold() in _ROW_NUMBERS)
        compared = {leaf.attribute.type for leaf in rules.rule.leaves() if leaf.attribute} if rules.rule else set()
        if numbers and self.dialect.name == "sqlite" and compared & _WHOLE_NUMBERS:
            raise RefusedQuery(
                f"writing {rules.name}.{numbers[0]} is refused: it may be the same as a column that the policy compares"
            )

    def _tg_finish(self, write: _Write, *, nested: bool) -> None:
        rules = write.rules
        if rules is None:
            self._tg_refuse(f"{write.kind} goes to a table in a way that is not known here")
        if rules.rule is None or write.kind == "DELETE":
            return
        folded = {column.casefold() for column in rules.columns}
        self._tg_check_row_numbers(rules, {name for name in write.columns if name.casefold() not in folded})
        set_here = {name: key for name, key in write.columns.items() if name.casefold() in folded}
        if write.kind == "INSERT":
            missing = sorted(rules.columns - set_here.keys())
            if missing:
                raise RefusedQuery(
                    f"INSERT into {rules.name} must give {', '.join(missing)}, which the policy compares"
                )
        if not set_here:
            return
        if not rules.write:
            columns = ", ".join(sorted(set_here))
            raise RefusedQuery(
                f"changing {rules.name}.{columns} is refused: the policy compares it and does not say write = true"
            )
        for name, key in set_here.items():
            given = self.binds.get(key)
            if nested or name not in rules.columns or not getattr(given, "_is_crud", False):
                self._tg_refuse(f"{rules.name}.{name} must be written as a plain value: the policy compares it")
        _, find = self._tg_expressions(rules, write.table)
        for leaf in rules.rule.leaves():
            find(leaf.column, leaf)  # what is stored must be the value that was checked
        types = {name: self.binds[key].type for name, key in set_here.items()}
        self.tg_tables.add(rules.name)
        self.tg_checks.append(
            RowCheck(rules.name, write.kind, set_here, lambda name, value: keeps(value, types[name], self.dialect.name))
        )
