"""What ``filter_sql`` costs: a statement that is known, and one that is new.

The known statement is the promise: at most 5 microseconds of processor time, the values of the filter included.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls import sql as adapter
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sql import filter_sql

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
ROUNDS, CALLS = 30, 5_000


def microseconds(call: Callable[[], object], calls: int) -> float:
    """The time of one call."""
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls * 1e6


def main() -> None:
    row_filter = POLICY.row_filter({"carrier": "UA", "airports": ["EWR", "JFK", "LGA"]})
    assert isinstance(row_filter, RowFilter)
    known: dict[str, list[float]] = {dialect: [] for dialect in PLACES}
    new: dict[str, list[float]] = {dialect: [] for dialect in PLACES}
    current_row_access.set(RowAccess(row_filter))
    # In turns, so that a busy machine disturbs all of them alike.
    for _ in range(ROUNDS):
        for dialect, place in PLACES.items():
            statement, params = STATEMENT.format(place), {"month": 7}

            def call(statement: str = statement, dialect: str = dialect, params: dict[str, int] = params) -> object:
                return filter_sql(statement, row_filter, dialect=dialect, params=params)

            call()
            known[dialect].append(microseconds(call, CALLS))
            adapter._cache.clear()
            new[dialect].append(microseconds(call, 1))
    for dialect in PLACES:
        print(
            f"{dialect:9} known {statistics.median(known[dialect]):6.2f} µs (best {min(known[dialect]):.2f})"
            f"   new {statistics.median(new[dialect]) / 1000:6.2f} ms"
        )


if __name__ == "__main__":
    main()
