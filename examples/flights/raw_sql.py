"""SQL as text: a query that somebody wrote by hand, and whatever an analyst wants to ask.

`filter_sql` reads the statement and gives it back over the rows and columns that the pass opens. It runs on the
driver's own cursor, which nothing else guards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from toucan_guard import Embed
from toucan_guard.rls.sql import filter_sql

BUSIEST_ROUTES = """
SELECT origin, dest, count(*) AS flights, round(avg(dep_delay), 1) AS mean_delay
FROM flights GROUP BY origin, dest ORDER BY flights DESC, origin, dest
"""
_MOST_ROWS = 500
_DIALECTS = {"sqlite": "sqlite", "postgresql": "postgres"}


def ask(
    session: Session, embed: Embed, sql: str, params: Mapping[str, Any] | None = None
) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """The columns and the first rows of one SELECT.

    Raises:
        QueryRefused: The statement is not understood whole, or asks for what the pass does not open.
    """
    if embed.rls is None:
        raise ValueError("the flights belong to different customers: without a row filter nobody may see any")
    connection = session.connection()
    filtered = filter_sql(sql, embed.rls, dialect=_DIALECTS[connection.dialect.name], params=params)
    cursor = connection.connection.cursor()
    try:
        cursor.execute(*filtered)
        return [str(column[0]) for column in cursor.description or ()], cursor.fetchmany(_MOST_ROWS)
    finally:
        cursor.close()
