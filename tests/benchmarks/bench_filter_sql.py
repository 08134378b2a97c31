"""What ``filter_sql`` costs: a statement that is known, values included, and one that is new."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from measure import Contest, Figure
from rows import Row

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.context import RowAccess, current_row_access

POLICY = RlsPolicy.from_toml("""
[attributes]
carrier = "string"
airports = { type = "string", list = true }

[tables.flights]
all = [
  { column = "carrier", op = "eq", attribute = "carrier" },
  { column = "origin", op = "in", attribute = "airports" },
]
""")
STATEMENT = """
SELECT origin, dest, count(*) AS flights, avg(dep_delay) AS mean_delay
FROM flights WHERE month = {} GROUP BY origin, dest ORDER BY flights DESC, origin, dest LIMIT 12
"""
PLACES = {"sqlite": ":month", "duckdb": "$month", "postgres": "%(month)s"}


def statements() -> Iterator[Row]:
    """One statement for each dialect, with one parameter of the host's and two attributes."""
    from toucan_guard.rls import sql as adapter

    row_filter = POLICY.row_filter({"carrier": "UA", "airports": ["EWR", "JFK", "LGA"]})
    if not isinstance(row_filter, RowFilter):
        raise TypeError("the filter was refused")

    def known(dialect: str) -> Callable[[], object]:
        statement = STATEMENT.format(PLACES[dialect])
        return lambda: adapter.filter_sql(statement, row_filter, dialect=dialect, params={"month": 7})

    def new(dialect: str) -> Callable[[], object]:
        again = known(dialect)

        def call() -> object:
            adapter._cache.clear()
            return again()

        return call

    token = current_row_access.set(RowAccess(row_filter))
    try:
        contest = Contest({f"{dialect}, known": known(dialect) for dialect in PLACES})
        first = Contest({f"{dialect}, new": new(dialect) for dialect in PLACES}, rounds=11)
    finally:
        current_row_access.reset(token)
    for name in contest.seconds:
        yield Row("sql", f"filter_sql: {name}", _in(contest.time(name), 1e6), 5, unit="us")
    for name in first.seconds:
        yield Row("sql", f"filter_sql: {name}", _in(first.time(name), 1e3), unit="ms")


def _in(figure: Figure, units: float) -> Figure:
    return Figure(figure.median * units, figure.low * units, figure.high * units)
