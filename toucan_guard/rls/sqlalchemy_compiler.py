"""The compiler that puts the row filter into every statement, whoever wrote it.

SQLAlchemy turns every statement into text in one place, the dialect's ``statement_compiler``. Here a
table in FROM becomes ``(SELECT its columns FROM table WHERE rule) AS table``, an UPDATE or DELETE gets
the rule put in front of its WHERE, and whatever brings text of its own is refused
(``sqlalchemy_refusals.py``), because text can name a table that nobody sees here.

Everything is refused unless it is understood. Where private names of SQLAlchemy are read, a missing
name refuses as well.
"""

# SQLAlchemy's compiler carries few annotations, so what it takes and returns is not checked here.
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
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnClause, ColumnElement
from sqlalchemy.sql.expression import Alias, TableClause

from toucan_guard.core.errors import NoEmbedContext, QueryRefused
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import Leaf, TableRule
from toucan_guard.rls.context import RowAccess, require_row_access
from toucan_guard.rls.sqlalchemy_fence import FENCES, can_fail, column_can_fail, source_can_fail, split
from toucan_guard.rls.sqlalchemy_refusals import LITERAL, GuardedPreparer, RefusedQuery, RefusingCompiler
from toucan_guard.rls.sqlalchemy_rules import SLOTS, Asked, RuleExpressions, TooManyValues, UnfitColumn

_ROW: Final = "tg_row"


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
            raise RefusedQuery(
                f"the policy does not name the table {name!r}: add its rules, or open = true if every embed may read it"
            )
        return rules


def table_name(table: TableClause) -> str:
    """A table's name as the policy writes it."""
    schema = getattr(table, "schema", None)
    return f"{schema}.{table.name}" if schema else str(table.name)


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
                    f"{self.table}.{column} must be written as its column keeps it: with an offset or without"
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


class GuardedCompiler(RefusingCompiler):
    """Mixed in front of a dialect's own compiler; see the module's docstring.

    Attributes:
        tg_guard: The policy.
        tg_tables: Tables that this statement filters, for the receipts.
        tg_checks: Rows that it writes.
        tg_bare: It reads and writes nothing (a savepoint).
    """

    tg_guard: ClassVar[Guard]

    def __init__(self, dialect: Any, statement: Any, *args: Any, **kw: Any) -> None:
        self._tg_begin(fence="")
        if statement is not None:
            self._tg_check_elements(statement)
        super().__init__(dialect, statement, *args, **kw)
        if self._tg_fails and self.tg_tables:
            # Whether a condition can fail is known only now, when the ORM has brought all of them along.
            self.__dict__.clear()
            self._tg_begin(fence=FENCES[dialect.name])
            super().__init__(dialect, statement, *args, **kw)

    def _tg_begin(self, *, fence: str) -> None:
        self.tg_tables: set[str] = set()
        self.tg_checks: list[RowCheck] = []
        self.tg_bare = False
        self._tg_text: Any = None
        self._tg_writes: list[_Write] = []
        self._tg_own = 0
        self._tg_parameters: frozenset[str] | None = None
        self._tg_fence = fence
        self._tg_fails = False

    def _compose_select_body(  # noqa: PLR0917 - SQLAlchemy's own signature
        self,
        text: str,
        select_stmt: Any,
        compile_state: Any,
        inner_columns: Any,
        froms: Any,
        byfrom: Any,
        toplevel: bool,  # noqa: FBT001
        *args: Any,
        **kw: Any,
    ) -> str:
        # What the ORM has made of the statement: its mappings may have brought more along.
        self._tg_check_elements(select_stmt)
        self._tg_fails = (
            self._tg_fails
            or any(map(can_fail, (*select_stmt._where_criteria, *select_stmt._having_criteria)))  # noqa: SLF001
            or any(map(source_can_fail, froms))
            # What the outermost query computes is computed of the rows that it has found.
            or (not toplevel and any(column_can_fail(entry[3]) for entry in compile_state.columns_plus_names))
        )
        return super()._compose_select_body(
            text, select_stmt, compile_state, inner_columns, froms, byfrom, toplevel, *args, **kw
        )

    # What is read

    def visit_table(self, table: Any, **kw: Any) -> str:
        """A table in FROM becomes its filtered rows."""
        in_from, written = kw.get("asfrom", False), kw.get("iscrud", False)
        if self.schema_translate_map:
            self._tg_refuse("schema_translate_map puts other tables behind the policy's names")
        if self._tg_own or not (in_from or kw.get("ashint") or kw.get("within_tstring")):
            return super().visit_table(table, **kw)
        rules = self.tg_guard.rules(table)
        if written:
            if not self._tg_writes or self._tg_writes[-1].table is not table:
                self._tg_refuse("it writes to a table in a way that is not known here")
            return super().visit_table(table, **kw)
        if rules.rule is None and rules.show is None:
            return super().visit_table(table, **kw)
        if not in_from:
            return self.preparer.quote(self._tg_alias(table))
        return self._tg_filtered(table, rules, **kw)

    def _tg_filtered(
        self,
        table: Any,
        rules: TableRule,
        *,
        enclosing_alias: Any = None,
        ambiguous_table_name_map: Any = None,
        from_linter: Any = None,
        **kw: Any,
    ) -> str:
        if any(write.table is not None and table_name(write.table) == rules.name for write in self._tg_writes) and (
            getattr(table, "schema", None) and (enclosing_alias is None or enclosing_alias.element is not table)
        ):
            self._tg_refuse(f"{rules.name} is written and read in one statement: read it through an alias")
        base = super().visit_table(table, asfrom=True, from_linter=from_linter)
        names = [str(known.name) for known in table.c if rules.show is None or known.name in rules.show]
        columns = ", ".join(f"{_ROW}.{self.preparer.quote(name)}" for name in names) or "1"
        rule = self._tg_rule(rules, table, table_clause(_ROW))
        where = f" WHERE {rule}" if rule else ""
        source = f"{base}{self.get_render_as_alias_suffix(_ROW)}{where}"
        fence = self._tg_fence if rule else ""
        text = f"(SELECT {columns} FROM {source}{fence})"  # noqa: S608 - names that the preparer has quoted
        if enclosing_alias is not None and enclosing_alias.element is table:
            return text
        alias = self._tg_alias(table)
        if not getattr(table, "schema", None) and ambiguous_table_name_map and alias in ambiguous_table_name_map:
            alias = self._truncated_identifier("alias", ambiguous_table_name_map[alias])
        return text + self.get_render_as_alias_suffix(self.preparer.quote(alias))

    def _tg_alias(self, table: Any) -> str:
        schema = getattr(table, "schema", None)
        return f"{schema}_{table.name}" if schema else str(table.name)

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

    def visit_column(self, column: Any, include_table: bool = True, **kw: Any) -> str:  # noqa: FBT001, FBT002
        """A column: of those that may be read, and not a piece of text."""
        if self._tg_own:
            return super().visit_column(column, include_table=include_table, **kw)
        write = self._tg_writes[-1] if self._tg_writes else None
        name, table = str(column.name), column.table
        if column.is_literal and not LITERAL.fullmatch(name):
            self._tg_refuse("literal_column() is text")
        if write is not None and not include_table:
            write.columns.setdefault(name, str(column.key))
        self._tg_check_shown(name, table)
        text = super().visit_column(column, include_table=include_table, **kw)
        if isinstance(table, TableClause) and include_table and getattr(table, "schema", None):
            written = any(write.table is table for write in self._tg_writes)
            rules = self.tg_guard.rules(table)
            if not written and not (rules.rule is None and rules.show is None):
                plain = self.preparer.quote_schema(str(table.schema)) + "." + self.preparer.quote(table.name) + "."
                text = self.preparer.quote(self._tg_alias(table)) + "." + text.removeprefix(plain)
        return text

    def _tg_check_shown(self, name: str, table: Any) -> None:
        inner = table
        while isinstance(inner, Alias):
            inner = inner.element
        if isinstance(inner, TableClause):
            rules = self.tg_guard.rules(inner)  # a name in other case would be the same table to some databases
            if rules.show is not None and name not in rules.show:
                raise RefusedQuery(f"the column {rules.name}.{name} is not among those that the policy shows")
        # A statement that writes has the bare table in its scope, so a bare name could be a hidden column,
        # and so could the column of something else that has the table's name.
        for write in self._tg_writes:
            shown = None if write.rules is None else write.rules.show
            if shown is None or name in shown or _is_number(name):
                continue
            if table is not None and _same_name(table, write.table):
                self._tg_refuse(f"{table.name} is also the name of the table that is written")
            if table is None:
                raise RefusedQuery(
                    f"the column {name} has no table, and the policy hides columns of the one that is written"
                )

    def visit_table_valued_column(self, element: Any, **kw: Any) -> str:
        """A whole row as one value."""
        if any(write.rules is None or write.rules.show is not None for write in self._tg_writes):
            self._tg_refuse("a whole row of a table with hidden columns is read while it is written")
        return str(super().visit_table_valued_column(element, **kw))

    def visit_textclause(self, textclause: Any, *args: Any, **kw: Any) -> str:
        """``text()`` that is the whole statement; SQLAlchemy hands it on inside ``text().columns()``."""
        if textclause is not self._tg_text and not self._tg_is_whole(textclause):
            return str(super().visit_textclause(textclause, *args, **kw))
        try:
            from toucan_guard.rls.sqlalchemy_text import rewrite_text, text_parameters, write_text
        except ModuleNotFoundError:
            self._tg_refuse("text() needs the package sqlglot: install toucan-guard[sql]")
        if self.for_executemany:
            self._tg_refuse("text() runs for one set of parameters at a time")
        try:
            rewritten = rewrite_text(textclause.text, self.tg_guard.policy, self.dialect.name)
        except QueryRefused as error:
            raise RefusedQuery(str(error)) from None
        if not self.stack:
            self.isplaintext = True
        self.tg_tables.update(rewritten.tables)
        hosts: Mapping[str, Any] = textclause._bindparams  # noqa: SLF001 - bindparams() gives a copy of the whole
        if not rewritten.names <= hosts.keys():
            self._tg_refuse("a parameter is written in a way that text() does not know")
        own = text_parameters(rewritten, self.tg_guard.row_filter)
        return write_text(
            rewritten,
            lambda piece: str(self.post_process_text(piece)),
            lambda name: str(self.process((own if name in own else hosts)[name], **kw)),
        )

    def visit_textual_select(self, taf: Any, *args: Any, **kw: Any) -> str:
        """``text().columns()`` that is the whole statement, also behind ``from_statement()``."""
        if not self._tg_is_whole(taf):
            return str(super().visit_textual_select(taf, *args, **kw))
        self._tg_text = taf.element
        return str(SQLCompiler.visit_textual_select(self, taf, *args, **kw))

    def _tg_is_whole(self, part: Any) -> bool:
        # The ORM wraps what from_statement() is given.
        return not self.stack and (part is self.statement or part is getattr(self.statement, "element", None))

    def visit_cte(self, cte: Any, *args: Any, **kw: Any) -> str | None:
        """A WITH query must not stand before a table of the policy."""
        if str(cte.name).casefold() in self.tg_guard.reserved_names:
            self._tg_refuse(f"a WITH query is named like the table {str(cte.name)!r}")
        return super().visit_cte(cte, *args, **kw)

    # What is written

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
            if failing:
                self._tg_fails = True
                # Once more in front, for the index; only CASE is promised to go in order.
                clauses = (rule, *certain, case((rule, and_(*failing)), else_=false()))
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

    def _tg_finish(self, write: _Write, *, nested: bool) -> None:
        rules = write.rules
        if rules is None:
            self._tg_refuse(f"{write.kind} goes to a table in a way that is not known here")
        if rules.rule is None or write.kind == "DELETE":
            return
        folded = {column.casefold() for column in rules.columns}
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
        made, find = self._tg_expressions(rules, write.table)
        for leaf in rules.rule.leaves():
            find(leaf.column, leaf)  # what is stored must be the value that was checked
        types = {name: self.binds[key].type for name, key in set_here.items()}
        self.tg_tables.add(rules.name)
        self.tg_checks.append(
            RowCheck(rules.name, write.kind, set_here, lambda name, value: made.keeps(value, types[name]))
        )

    # Who sets the parameters

    def construct_params(self, params: Any = None, *args: Any, **kw: Any) -> Any:
        """The values of one execution: the filter's own come from the embed and from nowhere else."""
        if params:
            if self._tg_parameters is None:
                # Known by their function and not by their identity: SQLAlchemy works with copies of them.
                own = [(bind.key, name) for bind, name in self.bind_names.items() if isinstance(bind.callable, Asked)]
                self._tg_parameters = frozenset(str(name) for names in own for name in names)
            if not self._tg_parameters.isdisjoint(params):
                raise RefusedQuery("the query's parameters name one of the row filter's")
        try:
            return super().construct_params(params, *args, **kw)
        except TooManyValues:
            raise RefusedQuery(
                f"a statement for many rows takes at most {SLOTS} values of an attribute: write the rows one by one"
            ) from None

    # What reads and writes nothing: it also runs where an embed has ended, so that a session can close

    def visit_savepoint(self, savepoint_stmt: Any, **kw: Any) -> str:
        """SAVEPOINT."""
        self.tg_bare = self.statement is savepoint_stmt
        return super().visit_savepoint(savepoint_stmt, **kw)

    def visit_rollback_to_savepoint(self, savepoint_stmt: Any, **kw: Any) -> str:
        """ROLLBACK TO SAVEPOINT."""
        self.tg_bare = self.statement is savepoint_stmt
        return super().visit_rollback_to_savepoint(savepoint_stmt, **kw)

    def visit_release_savepoint(self, savepoint_stmt: Any, **kw: Any) -> str:
        """RELEASE SAVEPOINT."""
        self.tg_bare = self.statement is savepoint_stmt
        return super().visit_release_savepoint(savepoint_stmt, **kw)


def _same_name(table: Any, written: TableClause | None) -> bool:
    names = [str(getattr(known, "name", "")).casefold() for known in (table, written)]
    return names[0] == names[1]


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
