"""Policies are written while PostgreSQL tidies the same tables, as autovacuum does just after many rows came."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg")

from toucan_guard.core.rls_policy import RlsPolicy  # noqa: E402
from toucan_guard.rls.postgres_policies import policy_statements  # noqa: E402

POLICY = RlsPolicy.from_toml(
    """
    [attributes]
    carrier = "string"

    [tables.flights]
    all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]
    columns = { show = ["carrier"] }

    [tables.notes]
    write = true
    all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]

    [tables.events]
    all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]
    """
)
TABLES = """
    CREATE TABLE flights (carrier text NOT NULL);
    CREATE TABLE notes (id serial PRIMARY KEY, carrier text NOT NULL);
    CREATE TABLE events (carrier text NOT NULL) PARTITION BY LIST (carrier);
    CREATE TABLE events_ua PARTITION OF events FOR VALUES IN ('UA');
"""
TIDIED = ("flights", "notes", "events", "events_ua", "toucan_guard.context_key")
# Each round brings rows, so that there is something new to note down about every table.
ROWS = """
    INSERT INTO flights SELECT 'UA' FROM generate_series(1, 50);
    INSERT INTO notes (carrier) SELECT 'UA' FROM generate_series(1, 50);
    INSERT INTO events SELECT 'UA' FROM generate_series(1, 50);
    INSERT INTO toucan_guard.context_key (id, inner_pad, outer_pad)
      SELECT gen_random_uuid()::text, '', '' FROM generate_series(1, 50);
"""
STATEMENTS = policy_statements(POLICY, full_access_roles=["postgres"])


@pytest.fixture(scope="module", params=[RlsPolicy([], []), POLICY], ids=["the first time", "again"])
def database(request: pytest.FixtureRequest, make_database: Callable[[], Any]) -> Any:
    made = make_database()
    made.run(TABLES)
    made.protect(request.param)
    return made


def tidy(database: Any, table: str, pids: list[int]) -> None:
    with database.admin() as connection:
        pids.append(connection.info.backend_pid)
        connection.execute(f"VACUUM (ANALYZE) {table}")


def wait_until_held_up(database: Any, tidying: list[Future[None]], pids: list[int]) -> None:
    """Until each of them has ended or waits for a lock."""
    deadline = time.monotonic() + 60
    with database.admin() as connection:
        while time.monotonic() < deadline:
            going = [future for future in tidying if not future.done()]
            held = connection.execute(
                "SELECT count(*) FROM unnest(%s::int[]) AS pid WHERE pg_blocking_pids(pid) <> '{}'", (pids,)
            ).fetchone()[0]
            if len(pids) == len(tidying) and held >= len(going):
                return
            time.sleep(0.005)
    raise AssertionError("the tidying neither ended nor waited")


@pytest.mark.parametrize("done", range(1, len(STATEMENTS)))
def test_the_tables_are_tidied_at_any_moment_of_it(database: Any, done: int) -> None:
    database.run(ROWS)
    pids: list[int] = []
    with ThreadPoolExecutor(len(TIDIED)) as threads:
        with psycopg.connect(database.owner) as writer:
            for statement in STATEMENTS[:done]:
                writer.execute(statement.encode())
            tidying = [threads.submit(tidy, database, table, pids) for table in TIDIED]
            wait_until_held_up(database, tidying, pids)
            for statement in STATEMENTS[done:]:
                writer.execute(statement.encode())
            writer.rollback()
        for future in tidying:
            future.result(timeout=60)
