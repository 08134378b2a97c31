"""Attempts to get round PostgreSQL's policies with SQL of one's own, on the app's connection.

Each attempt is a list of statements that one viewer brings into its transaction: whatever comes back, rows and
errors alike, must not hold anything of the other viewer. Afterwards nobody's transaction on the same
connection sees nothing of the other, and the other viewer's sees its own rows, all of them and only them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg")

from toucan_guard.core.decisions import Deny  # noqa: E402
from toucan_guard.core.errors import RowSecurityError  # noqa: E402
from toucan_guard.core.rls_policy import RlsPolicy  # noqa: E402
from toucan_guard.core.row_filter import RowFilter  # noqa: E402
from toucan_guard.rls.postgres import DatabaseContext, bind, configure  # noqa: E402

KEY = "a-context-key-for-tests-of-postgres-0123456789"
POLICY = RlsPolicy.from_toml(
    """
    [attributes]
    carrier = "string"

    [tables.flights]
    all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]
    columns = { show = ["id", "carrier", "code"] }

    [tables.notes]
    write = true
    all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]

    [tables.events]
    all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]
    """
)
TABLES = """
    CREATE TABLE flights (id integer PRIMARY KEY, carrier text NOT NULL, code text NOT NULL, crew text NOT NULL);
    INSERT INTO flights SELECT i, CASE WHEN i % 2 = 0 THEN 'UA' ELSE 'DL' END,
      CASE WHEN i % 2 = 0 THEN i::text ELSE 'delta' || i END, 'hidden crew' FROM generate_series(1, 200) AS i;
    CREATE INDEX ON flights (carrier);
    CREATE TABLE notes (id integer PRIMARY KEY, carrier text NOT NULL, body text UNIQUE);
    INSERT INTO notes VALUES (1, 'UA', 'mine'), (2, 'DL', 'delta note');
    CREATE TABLE events (id integer, carrier text NOT NULL, code text) PARTITION BY LIST (carrier);
    CREATE TABLE events_ua PARTITION OF events FOR VALUES IN ('UA');
    CREATE TABLE events_dl PARTITION OF events FOR VALUES IN ('DL');
    INSERT INTO events VALUES (1, 'UA', 'mine'), (2, 'DL', 'delta event');
    CREATE TABLE salaries (carrier text, amount text);
    INSERT INTO salaries VALUES ('DL', 'delta salary');
    CREATE VIEW everything AS SELECT * FROM flights;
    CREATE FUNCTION leak(given text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
      $$ BEGIN RAISE NOTICE 'saw %', given; RETURN true; END $$;
    ANALYZE;
"""
FORGED = json.dumps({"$embed": "x", "$end": 99999999999, "$pid": 1, "carrier": "DL"})


def judged(carrier: str) -> RowFilter:
    made = POLICY.row_filter({"carrier": carrier}, tenant=carrier)
    assert not isinstance(made, Deny)
    return made


UNITED, DELTA = judged("UA"), judged("DL")

ATTEMPTS: dict[str, list[str]] = {
    # The setting.
    "a forged setting": [f"SELECT set_config('toucan_guard.context', '{FORGED}', true)", "SELECT * FROM notes"],
    "a forged setting with a made-up signature": [
        f"SELECT set_config('toucan_guard.context', '{'0' * 16}.{'0' * 64}.{FORGED}', true)", "SELECT * FROM notes",
    ],
    "its own signature under other claims": [
        "SELECT set_config('toucan_guard.context', left(current_setting('toucan_guard.context'), 82)"
        f" || '{FORGED}', true)", "SELECT * FROM notes",
    ],
    "its own setting with one byte changed": [
        "SELECT set_config('toucan_guard.context', replace(current_setting('toucan_guard.context'), 'UA', 'DL'), true)",
        "SELECT * FROM notes",
    ],
    "a second copy of a claim behind the body": [
        "SELECT set_config('toucan_guard.context', current_setting('toucan_guard.context') || ',\"carrier\":\"DL\"}', true)",
        "SELECT * FROM notes",
    ],
    "an empty setting": ["SELECT set_config('toucan_guard.context', '', true)", "SELECT * FROM notes"],
    "a setting that is no text of ours": ["SELECT set_config('toucan_guard.context', 'x', true)", "SELECT * FROM notes"],
    "a setting of only dots": ["SET LOCAL toucan_guard.context = '................'", "SELECT * FROM notes"],
    "a setting of a megabyte": [
        "SELECT length(set_config('toucan_guard.context', repeat('a', 1000000), true))", "SELECT * FROM notes",
    ],
    "RESET of the setting": ["RESET toucan_guard.context", "SELECT * FROM notes"],
    "RESET ALL": ["RESET ALL", "SELECT * FROM notes"],
    "DISCARD ALL": ["DISCARD ALL", "SELECT * FROM notes"],
    "the setting kept for the session": [
        "SELECT length(set_config('toucan_guard.context', current_setting('toucan_guard.context'), false))",
        "SELECT * FROM notes",
    ],
    "ALTER ROLE with the setting": [f"ALTER ROLE app SET toucan_guard.context = '{FORGED}'"],
    "ALTER DATABASE with the setting": [f"ALTER DATABASE CURRENT_CATALOG SET toucan_guard.context = '{FORGED}'"],
    # Roles.
    "SET ROLE to the owner of the keys": ["SET ROLE toucan_guard_owner", "SELECT * FROM toucan_guard.context_key"],
    "SET ROLE to the superuser": ["SET ROLE postgres", "SELECT * FROM notes"],
    "SET ROLE NONE": ["SET ROLE NONE", "SELECT * FROM notes"],
    "SET ROLE to the app's own group": ["SET LOCAL ROLE toucan_guard_app", "SELECT * FROM notes"],
    "SET SESSION AUTHORIZATION": ["SET SESSION AUTHORIZATION postgres", "SELECT * FROM notes"],
    "membership granted to oneself": ["GRANT toucan_guard_owner TO app", "SELECT * FROM toucan_guard.context_key"],
    "a role of one's own": ["CREATE ROLE friend BYPASSRLS"],
    "the key table": ["SELECT * FROM toucan_guard.context_key"],
    "the key table in the catalogue": ["SELECT reltuples FROM pg_class WHERE relname = 'context_key'",
                                       "SELECT * FROM pg_stats WHERE tablename = 'context_key'"],
    "row_security off": ["SET LOCAL row_security = off", "SELECT * FROM notes"],
    "the replication role": ["SET LOCAL session_replication_role = replica", "SELECT * FROM notes"],
    # Changes of the protection.
    "row-level security switched off": ["ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "SELECT * FROM notes"],
    "a policy of one's own": ["CREATE POLICY mine ON notes USING (true)", "SELECT * FROM notes"],
    "the policy dropped": ["DROP POLICY toucan_guard_select ON notes", "SELECT * FROM notes"],
    "the function replaced": [
        "CREATE OR REPLACE FUNCTION toucan_guard.context() RETURNS jsonb LANGUAGE sql AS $$SELECT '{\"carrier\": \"DL\"}'::jsonb$$",
        "SELECT * FROM notes",
    ],
    "an operator of one's own": [
        "CREATE FUNCTION public.always(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.always)", "SELECT * FROM notes",
    ],
    "a function of one's own in pg_temp": [
        "CREATE FUNCTION pg_temp.peek() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT body FROM notes'",
        "SELECT pg_temp.peek()",
    ],
    "a trigger of one's own": [
        "CREATE TRIGGER t AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ],
    "a rule of one's own": ["CREATE RULE r AS ON SELECT TO notes DO INSTEAD SELECT 1"],
    # Other ways to the rows.
    "COPY to the client": ["COPY notes TO STDOUT"],
    "COPY of a query": ["COPY (SELECT * FROM flights) TO STDOUT"],
    "COPY to a file": ["COPY notes TO '/tmp/toucan_guard_copy'"],
    "COPY to a program": ["COPY notes TO PROGRAM 'cat'"],
    "COPY from a file": ["COPY notes FROM '/etc/passwd'"],
    "pg_read_file": ["SELECT pg_read_file('postgresql.conf')"],
    "pg_ls_dir": ["SELECT pg_ls_dir('base')"],
    "a large object of a file": ["SELECT lo_import('/etc/passwd')"],
    "LOAD": ["LOAD 'auto_explain'"],
    "an extension": ["CREATE EXTENSION dblink"],
    "query_to_xml": ["SELECT query_to_xml('SELECT * FROM notes', true, false, '')"],
    "table_to_xml": ["SELECT table_to_xml('notes', true, false, '')"],
    "database_to_xml": ["SELECT database_to_xml(true, false, '')"],
    "a cursor": ["DECLARE c CURSOR WITH HOLD FOR SELECT * FROM notes", "FETCH ALL FROM c"],
    "a prepared statement": ["PREPARE p AS SELECT * FROM notes", "EXECUTE p"],
    "a DO block": ["DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM notes LOOP RAISE NOTICE '%', r; END LOOP; END $$"],
    "a DO block that forges": [
        f"DO $$ BEGIN PERFORM set_config('toucan_guard.context', '{FORGED}', false); END $$", "SELECT * FROM notes",
    ],
    "EXPLAIN ANALYZE": ["EXPLAIN (ANALYZE, VERBOSE, BUFFERS, SETTINGS) SELECT * FROM notes WHERE body LIKE 'd%'"],
    "a partition by its own name": ["SELECT * FROM events_dl"],
    "a partition through ONLY": ["SELECT * FROM ONLY events", "SELECT * FROM ONLY events_dl"],
    "the parent of partitions": ["SELECT * FROM events"],
    "the row by its place": ["SELECT * FROM notes WHERE ctid = '(0,2)'", "SELECT xmin, ctid, tableoid FROM notes"],
    "TABLESAMPLE": ["SELECT * FROM notes TABLESAMPLE BERNOULLI (100)"],
    "FOR UPDATE": ["SELECT * FROM notes FOR UPDATE"],
    "UNION": ["SELECT body FROM notes UNION ALL SELECT code FROM events UNION ALL SELECT code FROM flights"],
    "a recursive CTE": [
        "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 9)"
        " SELECT body FROM r JOIN notes ON notes.id = r.i",
    ],
    "a writing CTE": ["WITH gone AS (DELETE FROM notes RETURNING *) SELECT * FROM gone"],
    "UPDATE with RETURNING": ["UPDATE notes SET body = body || '!' RETURNING *"],
    "UPDATE FROM": ["UPDATE notes SET body = other.body FROM notes AS other WHERE other.carrier = 'DL' RETURNING *"],
    "MERGE": [
        "MERGE INTO notes USING (VALUES (2)) AS v (id) ON notes.id = v.id WHEN MATCHED THEN UPDATE SET body = 'x'"
        " WHEN NOT MATCHED THEN DO NOTHING RETURNING notes.*",
    ],
    "TRUNCATE": ["TRUNCATE notes"],
    "moving a row to the other": ["UPDATE notes SET carrier = 'DL' RETURNING *"],
    "planting a row at the other's": ["INSERT INTO notes VALUES (9, 'DL', 'planted')"],
    "a view that runs as its owner": ["SELECT * FROM everything"],
    "the guard's own view": ["SELECT * FROM toucan_guard.flights"],
    "a table that the policy does not name": ["SELECT * FROM salaries"],
    "a column that is not shown": ["SELECT crew FROM flights", "SELECT flights::text FROM flights", "SELECT to_json(flights) FROM flights"],
    "a column that is not shown, in a condition": ["SELECT id FROM flights WHERE crew LIKE 'h%'"],
    # What a hidden row could say by the way.
    "a leaky function in the condition": ["SELECT id FROM flights WHERE leak(code)"],
    "a leaky function on the view": ["SELECT id FROM toucan_guard.flights WHERE leak(code)"],
    "a cast that fails on a hidden row": ["SELECT id FROM flights WHERE code::integer >= 0"],
    "a division by what is hidden": ["SELECT id FROM flights WHERE 1 / (id % 2) = 1"],
    "an aggregate over everything": ["SELECT count(*), max(code), string_agg(code, ',') FROM flights"],
    "the planner's statistics": [
        "SELECT most_common_vals::text, histogram_bounds::text FROM pg_stats WHERE schemaname = 'public'",
        "SELECT * FROM pg_statistic", "SELECT * FROM pg_stats_ext",
    ],
    "another session's statements": ["SELECT query FROM pg_stat_activity"],
    "the setting in pg_settings": ["SELECT name, setting FROM pg_settings WHERE name LIKE 'toucan%' AND setting LIKE '%DL%'"],
    "the source of the function": ["SELECT prosrc FROM pg_proc WHERE proname = 'context'"],
    "prepared statements of the session": ["SELECT statement FROM pg_prepared_statements"],
    "LISTEN and NOTIFY": ["LISTEN rows", "NOTIFY rows, 'x'"],
    "an advisory lock": ["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock_all()"],
    # What is left behind for the next.
    "a temporary table of the same name": ["CREATE TEMP TABLE notes AS SELECT 9 AS id, 'DL' AS carrier, 'planted' AS body"],
    "a temporary view of the same name": ["CREATE TEMP VIEW notes AS SELECT 9 AS id, 'DL' AS carrier, 'planted' AS body"],
    "another search_path": ["CREATE SCHEMA evil", "SET search_path = evil, public"],
    "pg_temp in the search_path": ["SET search_path = pg_temp, public", "SELECT * FROM notes"],
    "a type of one's own": ["CREATE TYPE jsonb AS (a int)"],
    "ROLLBACK TO before the binding": ["ROLLBACK TO SAVEPOINT before", "SELECT * FROM notes"],
    "a savepoint and back": [
        "SAVEPOINT a", f"SELECT set_config('toucan_guard.context', '{FORGED}', true)", "ROLLBACK TO SAVEPOINT a",
        "SELECT * FROM notes",
    ],
    "COMMIT inside": ["COMMIT", "SELECT * FROM notes"],
    "quoted and Unicode names": ['SELECT * FROM "notes"', 'SELECT * FROM U&"\\006eotes"', 'SELECT * FROM "public"."notes"'],
    "comments": ["SELECT * FROM notes -- WHERE\n", "SELECT /* */ * FROM /* */ notes WHERE true OR true"],
    "a condition that is always true": ["SELECT * FROM notes WHERE carrier = 'UA' OR 1 = 1 OR carrier = 'DL'"],
    "a function in FROM": ["SELECT * FROM pg_get_keywords() LIMIT 1", "SELECT * FROM notes, LATERAL (SELECT body) AS b"],
    "a foreign key's answer": ["SELECT confrelid FROM pg_constraint LIMIT 1"],
    "the event of another database": ["SELECT datname FROM pg_database", "ALTER SYSTEM SET row_security = off"],
    "pg_dump's way": ["SET LOCAL row_security = off", "COPY public.notes (id, carrier, body) TO STDOUT"],
}  # fmt: skip


@pytest.fixture(scope="module")
def database(make_database: Callable[[], Any]) -> Any:
    made = make_database()
    made.run(TABLES)
    made.protect(POLICY)
    made.run("GRANT EXECUTE ON FUNCTION leak TO PUBLIC")
    return made


@pytest.fixture(autouse=True)
def _configured() -> None:
    configure(DatabaseContext(KEY))


@pytest.fixture
def connection(database: Any) -> Iterator[Any]:
    with database.connect() as made:
        yield made


def _play(connection: Any, statements: list[str]) -> list[str]:
    """Run statements one by one, each in a savepoint; what comes back, as text."""
    heard: list[str] = []
    connection.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
    for statement in statements:
        plain = statement.startswith(("SAVEPOINT", "ROLLBACK", "COMMIT"))
        try:
            if plain:
                connection.execute(statement.encode())
                continue
            connection.execute("SAVEPOINT step")
            if statement.startswith("COPY"):
                with connection.cursor().copy(statement.encode()) as copy:
                    heard += [str(bytes(piece)) for piece in copy]
            else:
                cursor = connection.execute(statement.encode())
                heard += [str(row) for row in cursor.fetchall()] if cursor.description else []
        except psycopg.Error as error:
            heard.append(f"ERROR {error} {error.diag.message_detail}")
            if not plain:
                connection.execute("ROLLBACK TO SAVEPOINT step")
    return heard


def test_the_list_is_long() -> None:
    assert len(ATTEMPTS) >= 80


@pytest.mark.parametrize("name", ATTEMPTS)
def test_it_shows_nothing_of_the_other_and_leaves_nothing_behind(name: str, connection: Any, database: Any) -> None:
    connection.execute("SAVEPOINT before")
    bind(connection, UNITED)
    heard = _play(connection, ATTEMPTS[name])
    # The claims of an attempt may come back in its own words; the other's rows are told by theirs.
    assert not [line for line in heard if "delta" in line or "hidden crew" in line]
    connection.rollback()

    # Nobody's transaction on the same connection.
    assert "delta" not in str(_play(connection, ["SELECT * FROM public.notes", "SELECT * FROM public.events"]))
    connection.rollback()

    # The other's transaction on the same connection.
    bind(connection, DELTA)
    mine = _play(connection, ["SELECT * FROM notes", "SELECT code FROM events", "SELECT count(*) FROM flights"])
    assert mine == ["(2, 'DL', 'delta note')", "('delta event',)", "(100,)"]
    connection.rollback()

    with database.admin() as admin:
        assert admin.execute("SELECT string_agg(body, ',' ORDER BY id) FROM notes").fetchone() == ("mine,delta note",)


def test_a_value_signed_for_one_backend_is_worth_nothing_in_another(database: Any) -> None:
    with database.connect() as one, database.connect() as other:
        bind(one, DELTA)
        (value,) = one.execute("SELECT current_setting('toucan_guard.context')").fetchone()
        other.execute("SELECT set_config('toucan_guard.context', %s, true)", (value,))
        assert _play(other, ["SELECT * FROM notes"]) == []
        assert len(_play(one, ["SELECT * FROM notes"])) == 1


def test_a_value_that_has_ended_is_worth_nothing(database: Any, connection: Any) -> None:
    for age, seen in ((30, 1), (61, 0)):
        value = DatabaseContext(KEY).sign(UNITED, now=time.time() - age, backend_pid=connection.info.backend_pid)
        connection.execute("SELECT set_config('toucan_guard.context', %s, true)", (value,))
        assert len(_play(connection, ["SELECT * FROM notes"])) == seen


def test_a_value_without_a_backend_is_worth_nothing_where_no_pooler_was_named(connection: Any) -> None:
    value = DatabaseContext(KEY, pooler="transaction").sign(UNITED, now=time.time(), backend_pid=0)
    connection.execute("SELECT set_config('toucan_guard.context', %s, true)", (value,))
    assert _play(connection, ["SELECT * FROM notes"]) == []
    connection.rollback()
    with pytest.raises(RowSecurityError, match="kind of pooler"):
        bind(connection, UNITED, context=DatabaseContext(KEY, pooler="transaction"))


def test_a_value_that_was_left_in_the_session_does_not_survive_the_next_binding(connection: Any) -> None:
    bind(connection, UNITED)
    connection.execute("SELECT set_config('toucan_guard.context', current_setting('toucan_guard.context'), false)")
    connection.commit()
    bind(connection, DELTA)
    assert _play(connection, ["SELECT * FROM notes"]) == ["(2, 'DL', 'delta note')"]


HOLD = "DECLARE kept CURSOR WITH HOLD FOR SELECT * FROM notes"


@pytest.mark.parametrize("explicit", [False, True], ids=["first statement", "within BEGIN"])
def test_a_cursor_that_an_earlier_transaction_holds_open_is_nobody_s(explicit: bool, connection: Any) -> None:
    bind(connection, UNITED)
    connection.execute(HOLD)
    connection.commit()
    # The trick works where nobody binds, or this test would show nothing.
    assert len(_play(connection, ["FETCH ALL FROM kept"])) == 1
    connection.commit()
    for row_filter in (DELTA, UNITED):
        if explicit:
            connection.execute("BEGIN")
        with pytest.raises(RowSecurityError, match="left a cursor WITH HOLD open"):
            bind(connection, row_filter)
        connection.rollback()
    connection.execute("CLOSE ALL")
    connection.commit()
    bind(connection, DELTA)
    assert _play(connection, ["SELECT * FROM notes"]) == ["(2, 'DL', 'delta note')"]


def test_a_transaction_s_own_cursors_are_its_own(connection: Any) -> None:
    bind(connection, UNITED)
    connection.execute("DECLARE plain CURSOR FOR SELECT * FROM notes")
    connection.execute(HOLD)
    bind(connection, UNITED)
    assert len(_play(connection, ["FETCH ALL FROM kept"])) == 1
    connection.rollback()  # and it is gone
    bind(connection, DELTA)


def test_a_pool_that_resets_its_connections_has_none(database: Any) -> None:
    with database.connect(autocommit=True) as connection:
        with connection.transaction():
            bind(connection, UNITED)
            connection.execute(HOLD)
        connection.execute("DISCARD ALL")
        with connection.transaction():
            bind(connection, DELTA)


PLANT = """
    DO $$ BEGIN
      FOR number IN 0..40 LOOP
        BEGIN
          EXECUTE format('DEALLOCATE "_pg3_%s"', number);
        EXCEPTION WHEN OTHERS THEN
          CONTINUE;
        END;
        EXECUTE format('PREPARE "_pg3_%s" (text) AS SELECT set_config(''stolen.it'', $1, false)', number);
      END LOOP;
    END $$
"""


def test_a_statement_planted_under_the_driver_s_names_keeps_nobody_s_claims(database: Any) -> None:
    with database.connect(prepare_threshold=0) as connection:
        bind(connection, UNITED)
        connection.execute("SELECT %s::text", ("an ordinary query",))
        connection.execute(PLANT, prepare=False)
        connection.commit()
        # The trick works on what the driver has prepared, or this test would show nothing.
        connection.execute("SELECT %s::text", ("an ordinary query",))
        (stolen,) = connection.execute("SELECT current_setting('stolen.it', true)", prepare=False).fetchone()
        assert stolen == "an ordinary query"
        connection.commit()  # not a rollback, after which the driver prepares anew

        bind(connection, DELTA)
        assert connection.execute("SELECT count(*) FROM notes", prepare=False).fetchone() == (1,)
        (stolen,) = connection.execute("SELECT current_setting('stolen.it', true)", prepare=False).fetchone()
        assert DELTA.fingerprint not in (stolen or "")


def test_rolling_back_does_not_bring_an_earlier_embed_back(connection: Any) -> None:
    bind(connection, UNITED)
    connection.execute("SAVEPOINT one")
    with pytest.raises(RowSecurityError, match="another embed"):
        bind(connection, DELTA)
    connection.execute("ROLLBACK TO SAVEPOINT one")
    assert _play(connection, ["SELECT * FROM notes"]) == ["(1, 'UA', 'mine')"]
    connection.rollback()
    connection.execute("SAVEPOINT two")
    bind(connection, DELTA)
    connection.execute("ROLLBACK TO SAVEPOINT two")
    assert _play(connection, ["SELECT * FROM notes"]) == []


def test_the_claims_are_not_in_the_statement_that_others_can_read(database: Any) -> None:
    with database.connect(cursor_factory=psycopg.ClientCursor) as one, database.admin() as admin:
        bind(one, DELTA)
        (query,) = admin.execute(
            "SELECT query FROM pg_stat_activity WHERE pid = %s", (one.info.backend_pid,)
        ).fetchone()
        assert "set_config" in query
        assert DELTA.fingerprint not in query
        assert "carrier" not in query


def test_error_texts_quote_no_hidden_row(connection: Any) -> None:
    bind(connection, UNITED)
    for statement in (
        "INSERT INTO notes VALUES (2, 'UA', 'x')",
        "INSERT INTO notes VALUES (9, 'UA', 'delta note')",
        "UPDATE notes SET id = 2",
    ):
        with pytest.raises(psycopg.Error) as refused, connection.transaction():
            connection.execute(statement)
        # That the key is taken is told by every unique index; what else is in the row is not.
        assert "DL" not in str(refused.value)
