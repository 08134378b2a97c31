"""How each database writes names, values and parameters, and what keeps its optimizer off hidden rows.

The generator of sqlglot writes the statement, but every name and every value goes out through the
few lines here: nothing of what a user wrote reaches the database as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from sqlglot import ErrorLevel, exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.dialects.postgres import Postgres
from sqlglot.dialects.sqlite import SQLite
from sqlglot.generator import Generator

from toucan_guard.rls.sql_nodes import refuse
from toucan_guard.rls.sql_written import SEAL, names_behind_dots, unseal

# Stands around the name of a parameter until the text is finished. A statement with NUL is refused first.
MARK: Final = "\x00"
_LOWER: Final = str.maketrans({chr(code): chr(code).lower() for code in range(ord("A"), ord("Z") + 1)})


class _Writer(Generator):
    """Writes names, literals and parameters; the rest is the dialect's own generator."""

    tg_quote = '"'

    def identifier_sql(self, expression: exp.Identifier) -> str:
        """A name, always in quotes, so that no name is a keyword or a function."""
        return SEAL + self.tg_name(str(expression.this), quoted=bool(expression.args.get("quoted"))) + SEAL

    def tg_name(self, name: str, *, quoted: bool = True) -> str:
        """A name in this database's quotes."""
        return self.tg_quote + name.replace(self.tg_quote, self.tg_quote * 2) + self.tg_quote

    def literal_sql(self, expression: exp.Literal) -> str:
        """A string or a number."""
        text = str(expression.this)
        return SEAL + self.tg_string(text) + SEAL if expression.is_string else text

    def tg_string(self, text: str) -> str:
        """A string in quotes."""
        return "'" + text.replace("'", "''") + "'"

    def placeholder_sql(self, expression: exp.Placeholder) -> str:
        """A parameter of the host."""
        return f"{MARK}{expression.name}{MARK}"

    def parameter_sql(self, expression: exp.Parameter) -> str:
        """A parameter of the host, written in another way."""
        return f"{MARK}{expression.name}{MARK}"

    def format_time(self, expression: exp.Expr, *args: Any, **kw: Any) -> str | None:
        """A date's format, in the letters of this database: only of a string, or a name would be changed with it."""
        given = expression.args.get("format")
        if isinstance(given, exp.Literal):
            written: str | None = super().format_time(expression, *args, **kw)
            return written
        return self.sql(given) or None


class _SqliteWriter(_Writer, SQLite.Generator):  # type: ignore[misc, valid-type]
    # In double quotes SQLite takes a name that is no column for a string.
    tg_quote = "`"
    # The type's affinity keeps whole numbers whole.
    TYPE_MAPPING: ClassVar[dict[Any, str]] = {**SQLite.Generator.TYPE_MAPPING, exp.DType.DECIMAL: "NUMERIC"}


class _DuckdbWriter(_Writer, DuckDB.Generator):  # type: ignore[misc, valid-type]
    pass


class _PostgresWriter(_Writer, Postgres.Generator):  # type: ignore[misc, valid-type]
    def tg_name(self, name: str, *, quoted: bool = True) -> str:
        """PostgreSQL folds what is not quoted, and only ASCII."""
        return super().tg_name(name if quoted else name.translate(_LOWER))

    def tg_string(self, text: str) -> str:
        """A string that means the same whatever ``standard_conforming_strings`` says."""
        quoted = super().tg_string(text)
        return " E" + quoted.replace("\\", "\\\\") if "\\" in quoted else quoted


@dataclass(frozen=True, slots=True)
class Dialect:
    """One database.

    Attributes:
        name: As ``filter_sql`` takes it, and as sqlglot does.
        fence: At the end of a filtered sub-query it keeps the optimizer from running anything else on its rows first.
        comparing: Which comparisons may fail, with a value in the error's text: none, those of two columns and of
            binary floating-point numbers, or any.
        placeholder: How the driver wants a named parameter.
        percent: How the driver wants a percent sign.
        arrays: A list is one parameter; without, each of its values is.
        folds: Names that differ in case only are one, quoted or not.
        calls_by_dots: ``t.f`` calls the function f with a row of t, where t has no such column.
        hidden_columns: Names that a table answers to without having such a column.
    """

    name: str
    writer: type[Any]
    fence: str
    comparing: Literal["safe", "columns", "any"]
    placeholder: str
    percent: str = "%"
    arrays: bool = True
    folds: bool = True
    calls_by_dots: bool = False
    hidden_columns: frozenset[str] = frozenset()

    def write(self, statement: exp.Expr) -> str:
        """The statement's text, parameters between marks, names and strings between seals.

        Raises:
            UnsupportedError: The database has no words for it.
        """
        text: str = self.writer(
            dialect=self.name, comments=False, unsupported_level=ErrorLevel.RAISE, normalize_functions=False
        ).generate(statement, copy=False)
        return text

    def quote(self, name: str) -> str:
        """A name as it is, in quotes."""
        text: str = self.writer(dialect=self.name).tg_name(name)
        return text

    def string(self, value: str) -> str:
        """A string as the database reads it."""
        text: str = self.writer(dialect=self.name).tg_string(value)
        return text

    def normalise(self, name: exp.Identifier) -> str:
        """What a name stands for; where the database does not see case, the name is taken as it is written."""
        text = str(name.this)
        return text if self.folds or name.args.get("quoted") else text.translate(_LOWER)


DIALECTS: Final[Mapping[str, Dialect]] = {
    "sqlite": Dialect(
        "sqlite", _SqliteWriter, " LIMIT -1", comparing="safe", placeholder=":{}", arrays=False,
        hidden_columns=frozenset({"rowid", "oid", "_rowid_"}),
    ),
    # DuckDB casts text to compare it with a number, so that even ``=`` fails and tells.
    "duckdb": Dialect(
        "duckdb", _DuckdbWriter, " LIMIT 9223372036854775807", comparing="any", placeholder="${}"
    ),
    # numeric takes values that double precision does not, and the two are compared as the latter.
    "postgres": Dialect(
        "postgres", _PostgresWriter, " OFFSET 0", comparing="columns", placeholder="%({})s", percent="%%",
        folds=False, calls_by_dots=True,
    ),
}  # fmt: skip

_SPLIT: Final = re.compile(MARK)


def split_marks(text: str) -> list[str]:
    """The text in pieces; every second one is the name of a parameter."""
    pieces = _SPLIT.split(text)
    if len(pieces) % 2 == 0:
        refuse("it has a character that no statement has")
    return pieces


def gated(dialect: Dialect, text: str) -> str:
    """The finished text, without its seals; where one of its names could be a call it gives nothing.

    Around the whole: VALUES, outer joins and totals have rows where no table gives any.

    Raises:
        QueryRefused: It contains something that is not understood.
    """
    names = sorted(names_behind_dots(text)) if dialect.calls_by_dots else ()
    finished = unseal(text, lists=dialect.arrays)
    if not names:
        return finished
    condition = _guard_against_calls(dialect, names)
    return f"SELECT * FROM ({finished}) AS tg_all WHERE {condition}"  # noqa: S608 - all of it was written here


def _guard_against_calls(dialect: Dialect, names: Iterable[str]) -> str:
    """A condition that is false where one of these names, written ``t.name``, could be a call.

    Functions of the database's own, and those written in C, look at no more than the row that they get. Others may
    read any table; so may an aggregate, in whose entry no language stands. Looked up once in a statement.
    """
    listed = ", ".join(dialect.string(name) for name in names)
    return (
        "NOT EXISTS (SELECT 1 FROM pg_catalog.pg_proc AS tg_f JOIN pg_catalog.pg_type AS tg_t "  # noqa: S608
        # A function of any number of rows takes a list of them.
        "ON tg_t.oid = tg_f.proargtypes[0] LEFT JOIN pg_catalog.pg_type AS tg_e ON tg_e.oid = tg_t.typelem "
        f"WHERE tg_f.proname IN ({listed}) AND tg_f.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace "
        "AND (tg_t.typtype IN ('c', 'd') OR tg_e.typtype IN ('c', 'd') "
        "OR (tg_t.typtype = 'p' AND (tg_f.prolang NOT IN (12, 13) OR tg_f.prokind = 'a'))))"
    )
