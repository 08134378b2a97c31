"""A protected engine beside the same query with a WHERE that somebody wrote by hand, on all flights of 2013."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measure import Contest
from rows import Row, microseconds
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sqlalchemy import protect

sys.path.append(str(Path(__file__).parents[2] / "examples" / "flights"))

POLICY = RlsPolicy.from_toml("""
[attributes]
carrier = "string"
[tables.flights]
all = [{ column = "carrier", op = "eq", attribute = "carrier" }]
""")


def by_hand() -> Iterator[Row]:
    import data

    url = data.database_url()
    bare = data.prepare(url)
    guarded = protect(create_engine(bare.url), POLICY)
    row_filter = POLICY.row_filter({"carrier": "AA"}, tenant="AA")
    if not isinstance(row_filter, RowFilter):
        raise TypeError("the filter was refused")
    token = current_row_access.set(RowAccess(row_filter))
    try:
        for name, query, reach in _queries(data.Flight):
            yield _row(name, query, reach, bare, guarded, data.Flight)
    finally:
        current_row_access.reset(token)
        bare.dispose()
        guarded.dispose()


def _queries(flight: Any) -> Iterator[tuple[str, Callable[[], Any], float]]:
    yield (
        "an aggregate, delay by month",
        lambda: select(flight.month, func.avg(flight.dep_delay)).group_by(flight.month),
        1.05,
    )
    yield (
        "an aggregate, flights by destination",
        lambda: select(flight.dest, func.count()).group_by(flight.dest).order_by(func.count().desc()).limit(10),
        1.05,
    )
    yield (
        "an aggregate, one airport",
        lambda: select(func.count(), func.avg(flight.arr_delay)).where(flight.origin == "JFK"),
        1.05,
    )
    # American's first flight of the year.
    first = 3
    yield "a point look-up", lambda: select(flight).where(flight.id == first), 1.10
    yield "1,000 entities", lambda: select(flight).limit(1000), 1.10


def _row(name: str, query: Callable[[], Any], reach: float, bare: Any, guarded: Any, flight: Any) -> Row:
    def rows(engine: Any, statement: Callable[[], Any]) -> int:
        with Session(engine) as session:
            return len(session.execute(statement()).all())

    def hand() -> int:
        return rows(bare, lambda: query().where(flight.carrier == "AA"))

    def guard() -> int:
        return rows(guarded, query)

    if not hand() == guard() > 0:
        raise RuntimeError(f"{name}: the two find different rows")
    contest = Contest({"hand-written WHERE": hand, "guard": guard})
    return Row(
        "sqlalchemy",
        f"{name} : the same with a hand-written WHERE, SQLite, 336,776 rows",
        contest.ratio("guard", "hand-written WHERE"),
        reach,
        beside={one: microseconds(contest.time(one)) for one in contest.seconds},
    )
