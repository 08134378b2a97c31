"""Row-level security for SQL text: ``filter_sql(sql, row_filter, dialect=…)``.

One SELECT goes in, the same SELECT over filtered rows comes out, for SQLite, DuckDB or PostgreSQL. What
is not understood whole is refused. The rewritten text is the same for every tenant, and kept; the values
are bound parameters, read at each call.

Parameters have names, written as the driver wants them: ``:name`` for sqlite3, ``$name`` for DuckDB,
``%(name)s`` for psycopg. In the statement that comes in, a percent sign stands for itself.

The connection has to be the host's own affair: DuckDB needs ``enable_external_access = false``,
and every database an account that reads no more than it must.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain, repeat
from typing import Any, Final, NamedTuple
from uuid import UUID

from toucan_guard.core.errors import ConfigError, NoEmbedContext, QueryRefused
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.context import current_row_access
from toucan_guard.rls.sql_dialects import DIALECTS, Dialect
from toucan_guard.rls.sql_rewriter import Rewritten, rewrite

CACHE_SIZE: Final = 512
# SQLite takes 32,766 parameters.
_MAX_VALUES: Final = 30_000


class FilteredSQL(NamedTuple):
    """What to give to the driver.

    Attributes:
        sql: The statement.
        params: Its parameters by name: the host's and the filter's.
    """

    sql: str
    params: dict[str, Any]


class _Statement:
    """A rewritten statement, and its text for each number of values that came up."""

    __slots__ = ("_dialect", "_lists", "_singles", "_texts", "rewritten", "wary")

    def __init__(self, rewritten: Rewritten, dialect: Dialect) -> None:
        self.rewritten = rewritten
        self.wary = dialect.comparing == "columns" and not rewritten.fenced
        self._dialect = dialect
        found = [(known.name, known.attribute, known.leaf.usable, known.convert) for known in rewritten.parameters]
        many = [known.many for known in rewritten.parameters]
        self._singles = tuple(one for one, is_many in zip(found, many, strict=True) if not is_many)
        self._lists = tuple(one for one, is_many in zip(found, many, strict=True) if is_many)
        self._texts: dict[tuple[int, ...], tuple[str, tuple[tuple[str, ...], ...]]] = {}

    def bind(self, attributes: Mapping[str, object], params: dict[str, Any]) -> str:
        """Add the filter's values to ``params``, and give the text that fits them."""
        for name, attribute, usable, convert in self._singles:
            value = attributes.get(attribute)
            params[name] = convert(value) if usable(value) else None
        values = []
        for _, attribute, usable, convert in self._lists:
            value = attributes.get(attribute)
            values.append(convert(value) if usable(value) else [None])
        # The number of places is a power of two, so that few texts are needed; the rest repeats a value.
        sizes = tuple([(len(listed) - 1).bit_length() for listed in values]) if values else ()
        made = self._texts.get(sizes)
        if made is None:
            made = self._texts[sizes] = self._write(sizes)
        text, places = made
        for listed, names in zip(values, places, strict=True):
            params.update(zip(names, chain(listed, repeat(listed[0])), strict=False))
        return text

    def _write(self, sizes: tuple[int, ...]) -> tuple[str, tuple[tuple[str, ...], ...]]:
        if sum(1 << size for size in sizes) > _MAX_VALUES:
            raise QueryRefused(f"the attributes have more than {_MAX_VALUES:,} values")
        dialect = self._dialect
        places = tuple(
            tuple(f"{name}_{index}" for index in range(1 << size))
            for (name, *_), size in zip(self._lists, sizes, strict=True)
        )
        of = {name: names for (name, *_), names in zip(self._lists, places, strict=True)}
        written = [
            ", ".join(dialect.placeholder.format(name) for name in of.get(piece, (piece,)))
            if index % 2
            else piece.replace("%", dialect.percent)
            for index, piece in enumerate(self.rewritten.pieces)
        ]
        return "".join(written), places


# The values of which every comparison with a column is safe, as drivers send them.
_PLAIN: Final = frozenset({str, int, bool, type(None), Decimal, date, datetime, time, UUID})
_cache: Final[dict[tuple[str, str, str, bool], _Statement]] = {}
_cache_lock: Final = threading.Lock()


def filter_sql(
    sql: str, row_filter: RowFilter, *, dialect: str, params: Mapping[str, Any] | None = None
) -> FilteredSQL:
    """Let a SELECT see only the rows and columns that a row filter opens.

    Args:
        sql: One SELECT, with named parameters.
        row_filter: Whose rows; ``request.state.embed.rls``.
        dialect: ``sqlite``, ``duckdb`` or ``postgres``.
        params: The values of the statement's own parameters. Names that begin with ``tg_`` are the filter's.

    Returns:
        The statement and all its parameters, for ``connection.execute(*filtered)``.

    Raises:
        QueryRefused: The statement is not understood whole, or asks for what the policy does not open.
        NoEmbedContext: The connection on whose behalf this runs has ended.
        ConfigError: The dialect is not known, or there is no row filter.
    """
    if not isinstance(row_filter, RowFilter):
        raise ConfigError("filter_sql() takes a RowFilter, such as request.state.embed.rls")
    if type(sql) is not str or not isinstance(dialect, str):
        raise ConfigError("filter_sql() takes the statement and the name of its dialect as plain text")
    if params is not None and not isinstance(params, Mapping):
        raise ConfigError("filter_sql() takes the parameters by name, in a mapping")
    statement = _cache.get((sql, dialect, row_filter.policy.version, False)) or _prepare(sql, row_filter, dialect)
    merged: dict[str, Any] = {}
    if params:
        merged.update(params)
        for name in merged:
            if str(name)[:3].casefold() == "tg_":
                raise QueryRefused("names of parameters that begin with tg_ are the filter's own")
        if statement.wary:
            for value in merged.values():
                if type(value) not in _PLAIN:
                    statement = _prepare(sql, row_filter, dialect, fenced=True)
                    break
    text = statement.bind(row_filter.attributes, merged)
    access = current_row_access.get()
    if access is not None:
        if access.closed:
            raise NoEmbedContext("a query runs after the end of its connection; wait for it before the response ends")
        if access.row_filter is row_filter or access.row_filter == row_filter:
            access.note(statement.rewritten.tables, row_filter.policy.version)
    return FilteredSQL(text, merged)


def _prepare(sql: str, row_filter: RowFilter, name: str, *, fenced: bool = False) -> _Statement:
    dialect = DIALECTS.get(name)
    if dialect is None:
        raise ConfigError(f"filter_sql() does not speak {name!r}: it speaks {', '.join(DIALECTS)}")
    key = (sql, name, row_filter.policy.version, fenced)
    made = _cache.get(key)
    if made is None:
        made = _Statement(rewrite(sql, row_filter.policy, dialect, fenced=fenced), dialect)
        with _cache_lock:
            while len(_cache) >= CACHE_SIZE:
                del _cache[next(iter(_cache))]
            _cache[key] = made
    return made
