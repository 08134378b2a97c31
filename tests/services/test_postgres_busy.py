"""Policies are written while the database is at work: nobody waits for the other in a circle.

PostgreSQL ends a circle by ending one of those who wait: a vacuum, somebody's query, or our script.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg")

from toucan_guard.core.rls_policy import RlsPolicy  # noqa: E402
from toucan_guard.core.row_filter import RowFilter  # noqa: E402
from toucan_guard.core.row_rules import TableRule  # noqa: E402
from toucan_guard.rls.postgres import DatabaseContext, bind, configure  # noqa: E402
from toucan_guard.rls.postgres_policies import policy_statements  # noqa: E402

KEY = "a-context-key-for-tests-of-postgres-0123456789"
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
# What an earlier policy may have named: partitions by themselves.
PARTS = RlsPolicy.from_toml(
    """
    [attributes]
    carrier = "string"

    [tables.events_dl]
    all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]

    [tables.events_ua]
    all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]
    """
)
# A partition that is older than its table, as those that were attached are.
TABLES = """
    CREATE TABLE events_ua (carrier text NOT NULL);
    CREATE TABLE flights (carrier text NOT NULL);
    CREATE TABLE notes (id serial PRIMARY KEY, carrier text NOT NULL);
    CREATE TABLE events (carrier text NOT NULL) PARTITION BY LIST (carrier);
    ALTER TABLE events ATTACH PARTITION events_ua FOR VALUES IN ('UA');
    CREATE TABLE events_dl PARTITION OF events FOR VALUES IN ('DL');
"""
TIDIED = ("flights", "notes", "events", "events_ua", "events_dl", "toucan_guard.context_key")
SEEN = ("flights", "toucan_guard.flights", "notes", "events")
READ = ("flights", "notes", "events", "events_ua", "events_dl")
# Each round brings rows, so that there is something new to note down about every table.
ROWS = """
    INSERT INTO flights SELECT 'UA' FROM generate_series(1, 50);
    INSERT INTO notes (carrier) SELECT 'UA' FROM generate_series(1, 50);
    INSERT INTO events SELECT 'UA' FROM generate_series(1, 50);
    INSERT INTO toucan_guard.context_key (id, inner_pad, outer_pad)
      SELECT gen_random_uuid()::text, '', '' FROM generate_series(1, 50);
"""
STATEMENTS = policy_statements(POLICY, full_access_roles=["postgres"])


@pytest.fixture(
    scope="module",
    params=[RlsPolicy([], []), POLICY, PARTS],
    ids=["the first time", "again", "after partitions by themselves"],
)
def database(request: pytest.FixtureRequest, make_database: Callable[[], Any]) -> Any:
    made = make_database()
    made.run(TABLES)
    made.protect(request.param)
    made.seen = SEEN if request.param is POLICY else ()
    return made


@pytest.fixture(autouse=True)
def _configured() -> None:
    configure(DatabaseContext(KEY))


class AtWork:
    """Others that use the database at the same time, each with a connection of its own."""

    def __init__(self, database: Any, threads: ThreadPoolExecutor) -> None:
        self._database = database
        self._threads = threads
        self._begun: list[Future[None]] = []
        self._pids: list[int] = []

    def begin(self, connect: Callable[[], Any], work: Callable[[Any], object]) -> None:
        def run() -> None:
            with connect() as connection:
                self._pids.append(connection.info.backend_pid)
                work(connection)

        self._begun.append(self._threads.submit(run))

    def tidy(self) -> None:
        for table in TIDIED:
            self.begin(
                self._database.admin, lambda connection, table=table: connection.execute(f"VACUUM (ANALYZE) {table}")
            )

    def look(self) -> None:
        """As viewers of what they may see by now, and as the tables' owner."""
        row_filter = POLICY.row_filter({"carrier": "UA"})
        assert isinstance(row_filter, RowFilter)

        def see(connection: Any, table: str) -> None:
            with connection.transaction():
                bind(connection, row_filter)
                connection.execute(f"SELECT count(*) FROM {table}")

        for table in self._database.seen:
            self.begin(self._database.connect, lambda connection, table=table: see(connection, table))
        for table in dict.fromkeys((*self._database.seen, *READ)):
            self.begin(self._database.admin, lambda connection, table=table: connection.execute(f"TABLE {table}"))

    def wait_until_held_up(self) -> None:
        """Until each of them has ended or waits for a lock."""
        deadline = time.monotonic() + 60
        with self._database.admin() as admin:
            while time.monotonic() < deadline:
                going = [future for future in self._begun if not future.done()]
                held = admin.execute(
                    "SELECT count(*) FROM unnest(%s::int[]) AS pid WHERE pg_blocking_pids(pid) <> '{}'", (self._pids,)
                ).fetchone()[0]
                if len(self._pids) == len(self._begun) and held >= len(going):
                    return
                time.sleep(0.005)
        raise AssertionError("somebody neither ended nor waited")

    def end(self) -> None:
        for future in self._begun:
            future.result(timeout=60)


@pytest.fixture
def at_work(database: Any) -> Iterator[AtWork]:
    with ThreadPoolExecutor(32) as threads:
        yield AtWork(database, threads)


def write(connection: Any, statements: tuple[str, ...]) -> None:
    for statement in statements:
        connection.execute(statement.encode())


@pytest.mark.parametrize("done", range(1, len(STATEMENTS)))
def test_others_come_at_any_moment_of_it(database: Any, at_work: AtWork, done: int) -> None:
    database.run(ROWS)
    with psycopg.connect(database.owner) as writer:
        write(writer, STATEMENTS[:done])
        at_work.tidy()
        at_work.look()
        at_work.wait_until_held_up()
        write(writer, STATEMENTS[done:])
        writer.rollback()
    at_work.end()


@pytest.mark.parametrize("table", ["flights", "notes", "events", "events_ua", "events_dl"])
def test_others_come_while_it_waits_for_a_long_query(database: Any, at_work: AtWork, table: str) -> None:
    database.run(ROWS)

    def write_all(connection: Any) -> None:
        write(connection, STATEMENTS)
        connection.rollback()

    with psycopg.connect(database.owner) as reader:
        reader.execute(f"SELECT count(*) FROM {table}")
        at_work.begin(lambda: psycopg.connect(database.owner), write_all)
        at_work.wait_until_held_up()
        at_work.tidy()
        at_work.look()
        at_work.wait_until_held_up()
    at_work.end()


@pytest.mark.parametrize("names", [("events_dl", "events"), ("events", "events_dl")], ids=" before ".join)
def test_a_partition_and_its_table_are_not_both_named(make_database: Callable[[], Any], names: tuple[str, str]) -> None:
    database = make_database()
    database.run(TABLES)
    with pytest.raises(psycopg.errors.RaiseException, match="names events_dl and a table that it is a part of"):
        database.protect(RlsPolicy(PARTS.attributes.values(), [_rule(name) for name in names]))


def _rule(name: str) -> TableRule:
    return next(iter(RlsPolicy.from_columns({f"{name}.carrier": "carrier"}).tables.values()))


def test_the_table_of_keys_is_left_alone_where_nothing_has_changed(database: Any) -> None:
    with psycopg.connect(database.owner) as reader, psycopg.connect(database.owner) as writer:
        reader.execute("SELECT count(*) FROM toucan_guard.context_key")
        writer.execute("SET lock_timeout = '10s'")
        write(writer, STATEMENTS)
        writer.rollback()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE toucan_guard.context_key OWNER TO postgres",
        "ALTER TABLE toucan_guard.context_key NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE toucan_guard.context_key DISABLE ROW LEVEL SECURITY",
        "ALTER POLICY toucan_guard_owner ON toucan_guard.context_key TO PUBLIC",
        "ALTER POLICY toucan_guard_owner ON toucan_guard.context_key USING (true)",
        "ALTER POLICY toucan_guard_owner ON toucan_guard.context_key WITH CHECK (true)",
        "DROP POLICY toucan_guard_owner ON toucan_guard.context_key",
    ],
)
def test_the_table_of_keys_is_mended_where_something_has(database: Any, change: str) -> None:
    found = """
        SELECT relowner::regrole::text, relrowsecurity, relforcerowsecurity, polname, polcmd, polroles::regrole[]::text,
          pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
        FROM pg_class LEFT JOIN pg_policy ON polrelid = pg_class.oid
        WHERE pg_class.oid = 'toucan_guard.context_key'::regclass
    """
    with psycopg.connect(database.owner) as writer:
        before = writer.execute(found).fetchall()
        writer.execute(change.encode())
        assert writer.execute(found).fetchall() != before
        write(writer, STATEMENTS)
        assert writer.execute(found).fetchall() == before
        writer.rollback()
