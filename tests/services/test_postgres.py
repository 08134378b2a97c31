"""PostgreSQL's policies and ``bind`` against a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg")

from toucan_guard.core.decisions import Deny  # noqa: E402
from toucan_guard.core.errors import ConfigError, NoEmbedContext, RowSecurityError  # noqa: E402
from toucan_guard.core.rls_policy import RlsPolicy  # noqa: E402
from toucan_guard.core.row_filter import RowFilter  # noqa: E402
from toucan_guard.rls.cache import EmbedCache  # noqa: E402
from toucan_guard.rls.context import RowAccess, current_row_access  # noqa: E402
from toucan_guard.rls.postgres import DatabaseContext, bind, bind_each_transaction, configure  # noqa: E402

KEY = "a-context-key-for-tests-of-postgres-0123456789"

POLICY = RlsPolicy.from_toml(
    """
    [attributes]
    carrier = "string"
    airports = { type = "string", list = true, required = false }

    [tables.flights]
    all = [
      { column = "carrier", op = "eq", attribute = "carrier" },
      { any = [ { column = "origin", op = "in", attribute = "airports" },
                { column = "dest", op = "in", attribute = "airports" } ] },
    ]
    columns = { show = ["id", "carrier", "origin", "dest"] }

    [tables.notes]
    write = true
    all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]

    [tables.events]
    all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]

    [tables.airlines]
    open = true
    """
)
POLICY_OF_NOTHING = RlsPolicy([], [])
TABLES = """
    CREATE TABLE flights (
      id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      carrier text NOT NULL, origin text NOT NULL, dest text NOT NULL, secret text NOT NULL
    );
    INSERT INTO flights (carrier, origin, dest, secret)
      SELECT (ARRAY['UA', 'DL', 'AA'])[1 + i % 3], (ARRAY['JFK', 'EWR', 'LGA'])[1 + (i / 3) % 3], 'LAX', 'secret ' || i
      FROM generate_series(1, 9000) AS i;
    CREATE INDEX ON flights (carrier);
    CREATE INDEX ON flights (origin);
    CREATE INDEX ON flights (dest);
    CREATE TABLE notes (id serial PRIMARY KEY, carrier varchar(2) NOT NULL, body text);
    CREATE INDEX ON notes (carrier);
    INSERT INTO notes (carrier, body) VALUES ('UA', 'one'), ('DL', 'two');
    CREATE TABLE events (id integer, carrier text NOT NULL) PARTITION BY LIST (carrier);
    CREATE TABLE events_ua PARTITION OF events FOR VALUES IN ('UA');
    CREATE TABLE events_rest PARTITION OF events DEFAULT;
    CREATE INDEX ON events (carrier);
    INSERT INTO events SELECT i, (ARRAY['UA', 'DL', 'AA'])[1 + i % 3] FROM generate_series(1, 30) AS i;
    CREATE TABLE airlines (carrier text PRIMARY KEY, name text);
    INSERT INTO airlines VALUES ('UA', 'United'), ('DL', 'Delta');
    CREATE TABLE salaries (carrier text, amount integer);
    INSERT INTO salaries VALUES ('UA', 1);
    ANALYZE;
"""


def embed(carrier: str = "UA", airports: Any = ("JFK", "EWR", "LGA"), **more: Any) -> RowFilter:
    judged = POLICY.row_filter({"carrier": carrier, "airports": list(airports)}, issuer="i", tenant=carrier, **more)
    assert not isinstance(judged, Deny)
    return judged


UNITED, DELTA = embed("UA"), embed("DL")


@pytest.fixture(scope="module")
def database(make_database: Callable[[], Any]) -> Any:
    made = make_database()
    made.run(TABLES)
    made.protect(POLICY)
    return made


@pytest.fixture(autouse=True)
def _configured() -> None:
    configure(DatabaseContext(KEY))


@pytest.fixture
def connection(database: Any) -> Iterator[Any]:
    with database.connect() as made:
        yield made


def count(connection: Any, table: str = "flights") -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def carriers(connection: Any, table: str = "flights") -> set[str]:
    return {row[0] for row in connection.execute(f"SELECT DISTINCT carrier FROM {table}")}


@pytest.mark.parametrize("table", ["flights", "notes", "events", "airlines", "toucan_guard.flights"])
def test_without_an_embed_there_are_no_rows(connection: Any, table: str) -> None:
    assert count(connection, table) == 0


def test_an_embed_sees_its_rows_and_no_others(connection: Any) -> None:
    bind(connection, UNITED)

    assert (count(connection), carriers(connection)) == (3000, {"UA"})
    assert (count(connection, "notes"), count(connection, "events"), count(connection, "airlines")) == (1, 10, 2)
    assert count(connection, "toucan_guard.flights") == 3000


def test_an_embed_is_over_with_its_transaction(connection: Any) -> None:
    for row_filter, end in ((UNITED, connection.commit), (DELTA, connection.rollback), (UNITED, connection.commit)):
        bind(connection, row_filter)
        assert carriers(connection) == {row_filter.attributes["carrier"]}
        end()
        assert count(connection) == 0
        connection.rollback()


def test_an_optional_list_that_is_absent_or_empty_opens_nothing(connection: Any) -> None:
    for airports in ((), None):
        given = {"carrier": "UA"} if airports is None else {"carrier": "UA", "airports": []}
        judged = POLICY.row_filter(given)
        assert isinstance(judged, RowFilter)
        bind(connection, judged)
        assert count(connection) == 0
        connection.rollback()


def test_async_connections_are_bound_with_await(database: Any) -> None:
    async def play() -> list[int]:
        found = []
        async with await psycopg.AsyncConnection.connect(database.app) as connection:
            for row_filter in (UNITED, DELTA):
                await bind(connection, row_filter)
                cursor = await connection.execute("SELECT count(*) FROM flights WHERE carrier = 'UA'")
                found.append((await cursor.fetchone())[0])
                await connection.rollback()
        return found

    assert asyncio.run(play()) == [3000, 0]


def test_a_second_embed_in_one_transaction_is_refused(connection: Any) -> None:
    bind(connection, UNITED)
    bind(connection, embed("UA"))
    with pytest.raises(RowSecurityError, match="another embed is bound"):
        bind(connection, DELTA)
    assert carriers(connection) == {"UA"}


def test_autocommit_is_refused_outside_a_transaction(database: Any) -> None:
    with database.connect(autocommit=True) as connection:
        with pytest.raises(RowSecurityError, match="autocommit"):
            bind(connection, UNITED)
        with connection.transaction():
            bind(connection, UNITED)
            assert count(connection) == 3000
        assert count(connection) == 0


def test_a_role_that_could_go_round_the_policies_is_refused(database: Any) -> None:
    database.run("DROP ROLE IF EXISTS boss; CREATE ROLE boss LOGIN BYPASSRLS")
    for url in (database.owner, database.owner.replace("//postgres:@", "//boss@").replace("//postgres@", "//boss@")):
        with psycopg.connect(url) as connection, pytest.raises(RowSecurityError, match="superuser or can go round"):
            bind(connection, UNITED)
    database.run("DROP ROLE boss")
    with psycopg.connect(database.owner) as connection:
        connection.execute("SET SESSION AUTHORIZATION app")
        with pytest.raises(RowSecurityError, match="superuser or can go round"):
            bind(connection, UNITED)


def test_the_caller_s_own_embed_is_the_only_one_that_can_be_bound(connection: Any) -> None:
    access = RowAccess(UNITED)
    token = current_row_access.set(access)
    try:
        with pytest.raises(RowSecurityError, match="another embed than the one"):
            bind(connection, DELTA)
        bind(connection, UNITED)
        assert sorted(access.receipts) == ["airlines", "events", "flights", "notes"]
        access.closed = True
        with pytest.raises(NoEmbedContext):
            bind(connection, UNITED)
    finally:
        current_row_access.reset(token)


def test_a_token_that_has_ended_is_not_bound(connection: Any) -> None:
    with pytest.raises(NoEmbedContext, match="has ended"):
        bind(connection, embed(expires_at=time.time() - 1))
    bind(connection, embed(expires_at=time.time() + 30))
    assert count(connection) == 3000


def test_the_wrong_key_is_told_and_shows_nothing(connection: Any) -> None:
    with pytest.raises(RowSecurityError, match="does not accept"):
        bind(connection, UNITED, context=DatabaseContext(KEY + "?"))
    assert count(connection) == 0


def test_a_database_that_was_not_prepared_is_told(make_database: Callable[[], Any]) -> None:
    made = make_database()
    with made.connect() as connection, pytest.raises(RowSecurityError, match="no toucan_guard schema"):
        bind(connection, UNITED)
    made.protect(POLICY_OF_NOTHING)
    made.run("DROP ROLE IF EXISTS passer_by; CREATE ROLE passer_by LOGIN")
    with (
        psycopg.connect(made.app.replace("//app@", "//passer_by@")) as connection,
        pytest.raises(RowSecurityError, match="member of the app's role"),
    ):
        bind(connection, UNITED)


def test_a_table_without_policy_is_told(make_database: Callable[[], Any]) -> None:
    made = make_database()
    made.run(TABLES)
    made.protect(POLICY)
    for damage in (
        "ALTER TABLE events NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE events DISABLE ROW LEVEL SECURITY",
        "DROP POLICY toucan_guard_select ON events",
    ):
        made.protect(POLICY)
        with made.connect() as connection:
            bind(connection, UNITED)
        made.run(damage)
        with made.connect() as connection, pytest.raises(RowSecurityError, match="has no policy"):
            bind(connection, UNITED)


def test_a_policy_that_opens_more_is_told(make_database: Callable[[], Any]) -> None:
    made = make_database()
    made.run(TABLES)
    made.protect(POLICY)
    made.run("DROP ROLE IF EXISTS jobs; CREATE ROLE jobs")
    made.protect(POLICY, full_access_roles=["jobs"])
    with made.connect() as connection:
        bind(connection, UNITED)
    made.run("CREATE POLICY friend ON notes AS RESTRICTIVE USING (id > 0)")
    with made.connect() as connection:
        bind(connection, UNITED)
    for opening, closing in (
        ("CREATE POLICY more ON notes USING (true)", "DROP POLICY more ON notes"),
        ("GRANT jobs TO app", "REVOKE jobs FROM app"),
    ):
        made.run(opening)
        with made.connect() as connection, pytest.raises(RowSecurityError, match="another policy opens"):
            bind(connection, UNITED)
        made.run(closing)
    made.run("GRANT jobs TO toucan_guard_app")
    with pytest.raises(psycopg.errors.RaiseException, match="which sees every row"):
        made.protect(POLICY, full_access_roles=["jobs"])
    made.run("DROP OWNED BY jobs; DROP ROLE jobs")


def test_writing_needs_write_and_a_row_that_passes_before_and_after(connection: Any) -> None:
    bind(connection, UNITED)
    connection.execute("INSERT INTO notes (carrier, body) VALUES ('UA', 'three')")
    assert connection.execute("UPDATE notes SET body = 'x'").rowcount == 2
    assert connection.execute("DELETE FROM notes WHERE carrier = 'DL'").rowcount == 0
    for statement in (
        "INSERT INTO notes (carrier, body) VALUES ('DL', 'four')",
        "UPDATE notes SET carrier = 'DL'",
        "INSERT INTO notes (id, carrier) VALUES (1, 'UA') ON CONFLICT (id) DO UPDATE SET carrier = 'DL'",
        "INSERT INTO flights (carrier, origin, dest, secret) VALUES ('UA', 'JFK', 'LAX', '')",
        "UPDATE flights SET dest = 'SFO'",
        "DELETE FROM flights",
        "TRUNCATE notes",
    ):
        with pytest.raises(psycopg.Error), connection.transaction():
            connection.execute(statement)
    connection.rollback()


def test_columns_that_are_not_shown_cannot_be_read(connection: Any) -> None:
    bind(connection, UNITED)
    for statement in ("SELECT secret FROM flights", "SELECT * FROM flights", "SELECT flights FROM flights"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(statement)
    cursor = connection.execute("SELECT * FROM toucan_guard.flights LIMIT 1")
    assert [column.name for column in cursor.description] == ["carrier", "dest", "id", "origin"]


def test_values_are_read_once_for_a_statement_and_indexes_are_used(connection: Any) -> None:
    bind(connection, embed("UA", ["JFK"]))
    plan = "\n".join(row[0] for row in connection.execute("EXPLAIN (ANALYZE, COSTS OFF) SELECT count(*) FROM flights"))
    assert plan.count("InitPlan") >= 3
    assert "Index Scan" in plan
    assert "Index Cond: (carrier = (InitPlan 1).col1)" in plan


def test_sqlalchemy_binds_at_the_beginning_of_each_transaction(database: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(database.sqlalchemy_url, pool_size=1, max_overflow=0)
    bind_each_transaction(engine)
    bind_each_transaction(engine.execution_options(stream_results=True))
    counted = sqlalchemy.text("SELECT count(*), min(carrier) FROM flights")

    for row_filter in (UNITED, DELTA, UNITED):
        token = current_row_access.set(RowAccess(row_filter))
        try:
            with engine.connect() as connection:
                for end in (connection.rollback, connection.commit, connection.rollback):
                    assert tuple(connection.execute(counted).one()) == (3000, row_filter.attributes["carrier"])
                    with connection.begin_nested():
                        assert connection.execute(counted).scalar() == 3000
                    end()
        finally:
            current_row_access.reset(token)
    with pytest.raises(NoEmbedContext), engine.connect() as connection:
        connection.execute(counted)
    token = current_row_access.set(RowAccess(UNITED))
    try:
        with (
            pytest.raises(RowSecurityError, match="autocommit"),
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            connection.execute(counted)
    finally:
        current_row_access.reset(token)
    engine.dispose()


@contextmanager
def on_behalf_of(row_filter: RowFilter | None) -> Iterator[RowAccess | None]:
    access = None if row_filter is None else RowAccess(row_filter)
    token = current_row_access.set(access)
    try:
        yield access
    finally:
        current_row_access.reset(token)


def test_a_transaction_that_was_left_open_is_no_other_embeds(database: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(database.sqlalchemy_url, pool_size=1, max_overflow=0)
    bind_each_transaction(engine)
    seen = sqlalchemy.text("SELECT DISTINCT carrier FROM flights")
    with engine.connect() as shared:
        with on_behalf_of(UNITED) as access:
            assert access is not None
            assert shared.scalars(seen).all() == ["UA"]
            savepoint = shared.begin_nested()
            with on_behalf_of(DELTA), pytest.raises(RowSecurityError, match="another embed"):
                shared.execute(seen)
            with on_behalf_of(DELTA), pytest.raises(RowSecurityError, match="another embed"):
                shared.exec_driver_sql("SELECT DISTINCT carrier FROM flights")
            with on_behalf_of(None), pytest.raises(NoEmbedContext):
                shared.execute(seen)
            assert shared.scalars(seen).all() == ["UA"]
            access.closed = True
            with pytest.raises(NoEmbedContext):
                shared.execute(seen)
            savepoint.rollback()
            shared.rollback()
        with on_behalf_of(DELTA):
            assert shared.scalars(seen).all() == ["DL"]
    engine.dispose()


def test_the_driver_s_own_cursors_are_no_other_embed_s_either(database: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(database.sqlalchemy_url, pool_size=1, max_overflow=0)
    bind_each_transaction(engine)
    seen = "SELECT DISTINCT carrier FROM flights"
    with engine.connect() as shared:
        for turn in range(3):  # the same connection of the pool each time
            mine, other = (UNITED, DELTA) if turn % 2 else (DELTA, UNITED)
            with on_behalf_of(mine):
                shared.execute(sqlalchemy.text(seen))
                raw = shared.connection.cursor()
                assert raw.execute(seen).fetchall() == [(mine.attributes["carrier"],)]
                with shared.connection.cursor("named") as named:
                    assert named.execute(seen).fetchall() == [(mine.attributes["carrier"],)]
                for take in (
                    shared.connection.cursor,
                    lambda: shared.connection.cursor("named"),
                    lambda: shared.connection.driver_connection.execute(seen),
                ):
                    with on_behalf_of(other), pytest.raises(RowSecurityError, match="another embed"):
                        take()
                with shared.begin_nested():
                    shared.execute(sqlalchemy.text(seen))
                shared.rollback()
            # Where nothing is bound, there are no rows.
            with on_behalf_of(other):
                assert shared.connection.driver_connection.execute(seen).fetchall() == []
                shared.connection.driver_connection.rollback()
        driver = shared.connection.driver_connection
        assert driver.cursor_factory._make is psycopg.Cursor
        assert driver.server_cursor_factory._make is psycopg.ServerCursor
    engine.dispose()


def test_a_savepoint_that_was_left_open_is_left_by_nobody_s_code_too(database: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(database.sqlalchemy_url, pool_size=1, max_overflow=0)
    bind_each_transaction(engine)
    with on_behalf_of(UNITED):
        shared = engine.connect()
        savepoint = shared.begin_nested()
    with on_behalf_of(None):
        savepoint.rollback()
        shared.close()
    engine.dispose()


def next_receipts(cache: EmbedCache[str]) -> set[str]:
    with on_behalf_of(UNITED) as access:
        assert access is not None
        assert cache["chart"] == "rows"
        return set(access.receipts)


EVERY_TABLE = {"airlines", "events", "flights", "notes"}


def test_a_cache_is_filled_in_a_transaction_that_began_before(database: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(database.sqlalchemy_url, pool_size=1, max_overflow=0)
    bind_each_transaction(engine)
    counted = sqlalchemy.text("SELECT count(*) FROM flights")
    filled: EmbedCache[str] = EmbedCache({})
    empty: EmbedCache[str] = EmbedCache({})
    with on_behalf_of(UNITED), engine.connect() as connection:
        connection.execute(counted)
        for cache in (empty, filled):
            assert cache.get("chart") is None
        empty["chart"] = "rows"  # in a bound transaction, and yet of no query
        connection.execute(counted)
        filled["chart"] = "rows"
    assert next_receipts(empty) == set()
    assert next_receipts(filled) == EVERY_TABLE
    engine.dispose()


def test_an_async_engine_fills_a_cache_as_well(database: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from sqlalchemy.ext.asyncio import create_async_engine

    cache: EmbedCache[str] = EmbedCache({})

    async def play() -> None:
        engine = create_async_engine(database.sqlalchemy_url)
        bind_each_transaction(engine)
        with on_behalf_of(UNITED):
            async with engine.connect() as connection:
                await connection.execute(sqlalchemy.text("SELECT 1"))
                assert cache.get("chart") is None
                await connection.execute(sqlalchemy.text("SELECT count(*) FROM flights"))
                cache["chart"] = "rows"
        await engine.dispose()

    asyncio.run(play())
    assert next_receipts(cache) == EVERY_TABLE


def test_the_app_s_own_bind_counts_when_it_is_called(connection: Any) -> None:
    bound_before: EmbedCache[str] = EmbedCache({})
    bound_again: EmbedCache[str] = EmbedCache({})
    with on_behalf_of(UNITED):
        bind(connection, UNITED)
        for cache in (bound_before, bound_again):
            assert cache.get("chart") is None
        assert count(connection) == 3000
        bound_before["chart"] = "rows"
        bind(connection, UNITED)
        bound_again["chart"] = "rows"
    assert next_receipts(bound_before) == set()
    assert next_receipts(bound_again) == EVERY_TABLE


def test_a_two_phase_transaction_is_refused_and_not_empty(database: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(database.sqlalchemy_url, pool_size=1, max_overflow=0)
    bind_each_transaction(engine)
    with on_behalf_of(UNITED):
        with engine.connect() as connection, pytest.raises(RowSecurityError, match="two-phase"):
            connection.begin_twophase()
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("SELECT count(*) FROM flights")) == 3000
    engine.dispose()


def test_async_sqlalchemy_is_bound_as_well(database: Any) -> None:
    pytest.importorskip("sqlalchemy")
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    async def play() -> list[int]:
        engine = create_async_engine(database.sqlalchemy_url, pool_size=1, max_overflow=0)
        bind_each_transaction(engine)
        found = []
        for row_filter in (UNITED, DELTA):
            token = current_row_access.set(RowAccess(row_filter))
            async with engine.connect() as connection:
                found.append(
                    (await connection.execute(text("SELECT count(*) FROM flights WHERE carrier = 'UA'"))).scalar()
                )
                driver = (await connection.get_raw_connection()).driver_connection
                with on_behalf_of(embed("AA")), pytest.raises(RowSecurityError, match="another embed"):
                    driver.cursor()
            current_row_access.reset(token)
        await engine.dispose()
        return found

    assert asyncio.run(play()) == [3000, 0]


def test_other_engines_are_refused() -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    with pytest.raises(ConfigError, match="psycopg 3"):
        bind_each_transaction(sqlalchemy.create_engine("sqlite://"))
    with pytest.raises(ConfigError, match="takes an Engine"):
        bind_each_transaction("postgresql://")
