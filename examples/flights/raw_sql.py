"""SQL as text: a query that somebody wrote by hand, and whatever an analyst wants to ask.

`filter_sql` reads the statement and gives it back over the rows and columns that the pass opens. It runs on the
driver's own cursor, which nothing else guards. Whose rows it sees is settled by that; how long it may take and how
much it may bring is the app's own affair, and settled here.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from toucan_guard import Embed
from toucan_guard.rls.sql import filter_sql

BUSIEST_ROUTES = """
SELECT origin, dest, count(*) AS flights, round(avg(dep_delay), 1) AS mean_delay
FROM flights GROUP BY origin, dest ORDER BY flights DESC, origin, dest
"""
MOST_ROWS = 500
MOST_BYTES = 1 << 20
MOST_SECONDS = 5.0
# SQLite refuses to make a longer text, or more columns: a row that is read has a bounded size.
_SQLITE_LIMITS = {sqlite3.SQLITE_LIMIT_LENGTH: 1 << 16, sqlite3.SQLITE_LIMIT_COLUMN: 100}
# PostgreSQL has no such limit. So a row that would be larger than the whole answer fails there: its text, which begins
# with a bracket, is no boolean.
_BOUNDED = """SELECT * FROM ({}) AS asked WHERE CASE
WHEN octet_length(CAST(asked AS text)) > {} THEN CAST(left(CAST(asked AS text), 1) AS boolean) ELSE TRUE END"""
_DIALECTS = {"sqlite": "sqlite", "postgresql": "postgres"}
_STEPS_BETWEEN_LOOKS = 10_000  # of SQLite's virtual machine: some tenths of a millisecond
_NO_LIMIT = 2**31 - 1  # SQLite has its own above it
_QUERY_CANCELED = "57014"


class TookTooLong(Exception):
    """A query was stopped, because it had run for longer than a query may."""


class Answer(NamedTuple):
    """What a query has found, as JSON has it; truncated where there is more than is given out."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    truncated: bool


def ask(session: Session, embed: Embed, sql: str, params: Mapping[str, Any] | None = None) -> Answer:
    """The columns and the first rows of one SELECT, as many as there is room for.

    Raises:
        QueryRefused: The statement is not understood whole, or asks for what the pass does not open.
        TookTooLong: It was stopped.
    """
    if embed.rls is None:
        raise ValueError("the flights belong to different customers: without a row filter nobody may see any")
    connection = session.connection()
    statement, values = filter_sql(sql, embed.rls, dialect=_DIALECTS[connection.dialect.name], params=params)
    if connection.dialect.name == "postgresql":
        statement = _BOUNDED.format(statement, MOST_BYTES)
    with _limited(connection) as cursor:
        cursor.execute(statement, values)
        columns = [str(column[0]) for column in cursor.description or ()]
        rows: list[Sequence[Any]] = []
        size = 0
        while (found := cursor.fetchone()) is not None:
            row = [_plain(value) for value in found]
            size += len(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
            if len(rows) == MOST_ROWS or size > MOST_BYTES:
                return Answer(columns, rows, truncated=True)
            rows.append(row)
    return Answer(columns, rows, truncated=False)


def _plain(value: object) -> object:
    """A cell as JSON has it."""
    if value is None or isinstance(value, int | str) or (isinstance(value, float) and isfinite(value)):
        return value
    return str(value)


@contextmanager
def _limited(connection: Connection) -> Iterator[Any]:
    """A cursor that reads no further than it is asked to, of a database that stops in time."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {MOST_SECONDS * 1000:.0f}")
        # A cursor without a name would fetch every row at once, however many are asked for.
        cursor: Any = connection.connection.cursor("asked")
    else:
        cursor = connection.connection.cursor()
        until = time.monotonic() + MOST_SECONDS
        _watch(connection, lambda: time.monotonic() > until, _SQLITE_LIMITS)
    try:
        yield cursor
    except connection.dialect.loaded_dbapi.Error as error:
        stopped = getattr(error, "sqlstate", None) == _QUERY_CANCELED
        if stopped or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise TookTooLong from None
        raise
    finally:
        cursor.close()
        _watch(connection, None, dict.fromkeys(_SQLITE_LIMITS, _NO_LIMIT))


def _watch(connection: Connection, stops: Any, limits: Mapping[int, int]) -> None:
    """Let SQLite ask now and then whether it should stop, and make nothing that is larger than the limits."""
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        driver.set_progress_handler(stops, _STEPS_BETWEEN_LOOKS)
        for kind, limit in limits.items():
            driver.setlimit(kind, limit)
