"""What is refused: text, which can name a table that nobody sees here, and what reaches round the tables.

SQLAlchemy takes text in many places: ``text()`` and hints, but also operators, types, names and the
fields of ``extract()``. Where the text is one of the few harmless kinds it passes.
"""

# SQLAlchemy's compiler carries few annotations, so what it takes and returns is not checked here.
# mypy: disable-error-code="no-untyped-call, no-any-return, override, misc"

from __future__ import annotations

import re
from typing import Any, Final, NoReturn

from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import IdentifierPreparer, SQLCompiler, TypeCompiler

from toucan_guard.core.errors import QueryRefused

LITERAL: Final = re.compile(
    r"\*|-?[0-9]+(?:\.[0-9]+)?|'[^'\\]*'|NULL|TRUE|FALSE|CURRENT_(?:DATE|TIME|TIMESTAMP)", re.IGNORECASE
)
_SYMBOLS: Final = re.compile(r"(?!.*(?:--|/\*|\*/))[-+*/<>=~!@#%^&|?]{1,6}")
_WORDS: Final = frozenset(
    (
        *("LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE", "GLOB", "NOT GLOB", "REGEXP", "NOT REGEXP", "MATCH", "SIMILAR TO"),
        *("IS", "IS NOT", "AND", "OR", "XOR", "DIV", "MOD", "OVERLAPS", "AT TIME ZONE"),
    )
)
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
# Behind a parameter (``:value::TYPE``) nothing ends a type, so that more words would be more of the statement.
_MORE: Final = "(?: (?:PRECISION|VARYING|WITH|WITHOUT|TIME|ZONE|YEAR|MONTH|DAY|HOUR|MINUTE|SECOND|TO|LARGE|OBJECT))*"
_TYPE: Final = re.compile(
    rf"[A-Za-z_][A-Za-z0-9_]*{_MORE}(?: ?\([0-9A-Za-z, ]*(?:, ?-?[0-9]+)?\))?{_MORE}(?:\[[0-9]*\])*"
    r'(?: COLLATE "[A-Za-z0-9_@.-]+")?|"[^"]+"|(?:[A-Za-z0-9_]+|"[^"]+")\.(?:[A-Za-z0-9_]+|"[^"]+")',
    re.IGNORECASE,
)
_FIELD: Final = re.compile(r"[A-Za-z_]+")
# A value that is written into the text (``literal_execute``): nothing in it names a table or joins conditions.
_VALUE: Final = re.compile(
    r"(?>'(?:[^']|'')*+'|[-+]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:E[-+]?[0-9]++)?|ARRAY|TRUE|FALSE|NULL"
    r"|make_interval\(secs=>[-+.0-9E]++\)|::[A-Z][A-Z0-9_]*+|[\[\], ])++",
    re.IGNORECASE,
)
# Functions that run SQL given as text, that read files, settings, statistics and large objects, or that
# administer the server.
_REACHING_FUNCTION: Final = re.compile(
    r"(?:query|table|cursor|schema|database)_to_xml.*|dblink.*|ts_stat|ts_rewrite|xpath_table|connectby|crosstab.*"
    r"|pg_(?!typeof$|column_size$).*|lo_.*|loread|lowrite|set_config|current_setting|plpgsql_.*"
    r"|load_extension|readfile|writefile|edit|eval|fts3_tokenizer|sqlite_dbpage|dbstat"
    r"|lastval|currval|setval|last_insert_rowid|changes|total_changes"  # what the connection did for the embed before
    r"|currtid2?"  # where a row lies, and how large the table is
)
# In FROM a function of the database's own may read any table, so only those that read none are known here.
_ROW_FUNCTIONS: Final = re.compile(
    r"generate_series|generate_subscripts|unnest|jsonb?_(?:each|each_text|tree|array_elements|array_elements_text"
    r"|object_keys|to_record|to_recordset|path_query)|regexp_matches|regexp_split_to_table|string_to_table"
)


class RefusedQuery(DontWrapMixin, QueryRefused):
    """``QueryRefused``, and SQLAlchemy lets it through as it is."""


class GuardedPreparer(IdentifierPreparer):
    """Quotes names; a name that asks not to be quoted has to be plain, or it could be any text."""

    # SQLAlchemy's own lets a line end pass behind a name, which then is another name for us than for the database.
    legal_characters = re.compile(r"[A-Z0-9_$]+\Z", re.IGNORECASE | re.ASCII)

    def quote(self, ident: str, *args: Any, **kw: Any) -> str:
        """Quote a name where it needs it."""
        if getattr(ident, "quote", None) is False and not _PLAIN_NAME.fullmatch(ident):
            raise RefusedQuery("a name that is not to be quoted contains more than letters, digits and underscores")
        return super().quote(ident, *args, **kw)

    def quote_schema(self, schema: str, *args: Any, **kw: Any) -> str:
        """Quote a schema's name where it needs it."""
        if getattr(schema, "quote", None) is False and not _PLAIN_NAME.fullmatch(schema):
            raise RefusedQuery("a schema that is not to be quoted contains more than letters, digits and underscores")
        return super().quote_schema(schema, *args, **kw)


class GuardedTypes(TypeCompiler):
    """Writes types, in CAST and elsewhere; a length or a collation that is given as text goes in as it is."""

    def process(self, type_: Any, **kw: Any) -> str:
        """Write a type."""
        written = str(super().process(type_, **kw))
        if not _TYPE.fullmatch(written):
            raise RefusedQuery("the query cannot be filtered: a type is text")
        return written


class RefusingCompiler(SQLCompiler):
    """The part of the guarded compiler that says no."""

    def _tg_refuse(self, why: str) -> NoReturn:
        raise RefusedQuery(f"the query cannot be filtered: {why}")

    def _tg_check_elements(self, statement: Any) -> None:
        for element in visitors.iterate(statement):
            if hasattr(type(element), "_compiler_dispatcher"):
                self._tg_refuse(f"{type(element).__name__} writes its own SQL (@compiles), and text cannot be filtered")

    def visit_textclause(self, textclause: Any, *args: Any, **kw: Any) -> str:
        """``text()``, where it is not the whole statement."""
        self._tg_refuse("text() is not understood inside another statement: write the whole SELECT as text")

    def visit_textual_select(self, taf: Any, *args: Any, **kw: Any) -> str:
        """``text().columns()``, where it is not the whole statement."""
        self._tg_refuse("text() is not understood inside another statement: write the whole SELECT as text")

    def visit_tstring(self, tstring: Any, *args: Any, **kw: Any) -> str:
        """A template string."""
        self._tg_refuse("a template string is not understood: write the whole SELECT as text()")

    def visit_tstring_text(self, element: Any, **kw: Any) -> str:
        """A template string's text."""
        self._tg_refuse("a template string is not understood: write the whole SELECT as text()")

    def visit_fromclause(self, fromclause: Any, **kw: Any) -> str:
        """A construct of somebody's own in FROM."""
        self._tg_refuse(f"{type(fromclause).__name__} in FROM is not known")

    def visit_tablesample(self, tablesample: Any, *args: Any, **kw: Any) -> str:
        """TABLESAMPLE works on whole tables only."""
        self._tg_refuse("TABLESAMPLE takes its sample from all rows")

    def visit_on_conflict_do_update(self, on_conflict: Any, **kw: Any) -> str:
        """ON CONFLICT DO UPDATE changes a row that nobody has looked at."""
        self._tg_refuse("ON CONFLICT DO UPDATE may change a hidden row")

    def visit_extract(self, extract: Any, **kwargs: Any) -> str:
        """EXTRACT, whose field goes into the text as it is."""
        if not _FIELD.fullmatch(str(extract.field)):
            self._tg_refuse("the field of extract() is text")
        return super().visit_extract(extract, **kwargs)

    def visit_function(self, func: Any, *args: Any, **kwargs: Any) -> str:
        """A function: none that runs SQL or reads files, and in FROM none that may read tables."""
        name = str(func.name).casefold()
        if _REACHING_FUNCTION.fullmatch(name):
            self._tg_refuse(f"the function {name} may read what is hidden")
        if kwargs.pop("asfrom", False) and (func.packagenames or not _ROW_FUNCTIONS.fullmatch(name)):
            self._tg_refuse(f"the function {name} in FROM may read what is hidden")
        return super().visit_function(func, *args, **kwargs)

    def visit_sequence(self, sequence: Any, **kw: Any) -> str:
        """``nextval('…')``: earlier versions of SQLAlchemy write the name into a string as it is."""
        if "'" in f"{sequence.schema}{sequence.name}":
            self._tg_refuse("the name of a sequence contains an apostrophe")
        return super().visit_sequence(sequence, **kw)

    def visit_custom_op_binary(self, element: Any, operator: Any, **kw: Any) -> str:
        """``.op()``."""
        self._tg_check_operator(operator)
        return super().visit_custom_op_binary(element, operator, **kw)

    def visit_custom_op_unary_operator(self, element: Any, operator: Any, **kw: Any) -> str:
        """``.op()`` in front of one operand."""
        self._tg_check_operator(operator)
        return super().visit_custom_op_unary_operator(element, operator, **kw)

    def visit_custom_op_unary_modifier(self, element: Any, operator: Any, **kw: Any) -> str:
        """``.op()`` behind one operand."""
        self._tg_check_operator(operator)
        return super().visit_custom_op_unary_modifier(element, operator, **kw)

    def _tg_check_operator(self, operator: Any) -> None:
        written = str(operator.opstring).strip()
        if not _SYMBOLS.fullmatch(written) and written.upper() not in _WORDS:
            self._tg_refuse("the operator of op() is text")

    def render_literal_value(self, value: Any, type_: Any, *args: Any, **kw: Any) -> str:
        """A value that is written into the text, by the type that the host gives it."""
        written = str(super().render_literal_value(value, type_, *args, **kw))
        if not _VALUE.fullmatch(written):
            self._tg_refuse("a value that is written into it is text")
        return written

    def get_select_hint_text(self, byfroms: Any) -> str | None:
        """Hints."""
        self._tg_refuse("hints are text")

    def get_from_hint_text(self, table: Any, text: Any) -> str | None:
        """Hints."""
        self._tg_refuse("hints are text")

    def get_crud_hint_text(self, table: Any, text: Any) -> str | None:
        """Hints."""
        self._tg_refuse("hints are text")

    def get_statement_hint_text(self, hint_texts: Any) -> str:
        """Hints."""
        self._tg_refuse("hints are text")
