"""The compiler that puts the row filter into every statement, whoever wrote it.

SQLAlchemy turns every statement into text in one place, the dialect's ``statement_compiler``. Here a
table in FROM becomes ``(SELECT its columns FROM table WHERE rule) AS table``; what writes is in
``sqlalchemy_writes.py``; and whatever brings text of its own is refused (``sqlalchemy_refusals.py``),
because text can name a table that nobody sees here.

Everything is refused unless it is understood. Where private names of SQLAlchemy are read, a missing
name refuses as well.
"""

# SQLAlchemy's compiler carries few annotations, so what it takes and returns is not checked here.
# mypy: disable-error-code="no-untyped-call, no-any-return, override, misc, assignment"

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import table as table_clause
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import Alias, TableClause

from toucan_guard.core.errors import QueryRefused
from toucan_guard.core.row_rules import TableRule
from toucan_guard.rls.sqlalchemy_fence import FENCES, can_fail, column_can_fail, limit_can_fail, source_can_fail
from toucan_guard.rls.sqlalchemy_guard import table_name
from toucan_guard.rls.sqlalchemy_refusals import LITERAL, RefusedQuery
from toucan_guard.rls.sqlalchemy_rules import SLOTS, Asked, TooManyValues
from toucan_guard.rls.sqlalchemy_writes import WritingCompiler

_ROW: Final = "tg_row"


class GuardedCompiler(WritingCompiler):
    """Mixed in front of a dialect's own compiler; see the module's docstring.

    Attributes:
        tg_bare: It reads and writes nothing (a savepoint).
    """

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
        super()._tg_begin(fence=fence)
        self.tg_bare = False
        self._tg_text: Any = None
        self._tg_parameters: frozenset[str] | None = None

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
            or (not toplevel and limit_can_fail(select_stmt))
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
            if table is not None and self._tg_same_name(table, write.table):
                self._tg_refuse(f"{table.name} is also the name of the table that is written")
            if table is None:
                raise RefusedQuery(
                    f"the column {name} has no table, and the policy hides columns of the one that is written"
                )

    def _tg_same_name(self, table: Any, written: TableClause | None) -> bool:
        names = {str(getattr(table, "name", "")).casefold()}
        if isinstance(table, TableClause):
            names.add(self._tg_alias(table).casefold())
        return str(getattr(written, "name", "")).casefold() in names

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


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
