"""``toucan-guard rls-sql``: what it writes can be run again, by whom, and where a database differs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("typer")

from typer.testing import CliRunner  # noqa: E402

from toucan_guard.cli import app as command_line  # noqa: E402
from toucan_guard.core.errors import RowSecurityError  # noqa: E402
from toucan_guard.core.rls_policy import RlsPolicy  # noqa: E402
from toucan_guard.core.row_filter import RowFilter  # noqa: E402
from toucan_guard.rls.postgres import DatabaseContext, bind, policy_sql  # noqa: E402
from toucan_guard.rls.postgres_check import differences, set_key  # noqa: E402

KEY = "a-context-key-for-tests-of-postgres-0123456789"
NEXT_KEY = "the-next-context-key-of-these-tests-9876543210"
TOML = """
[attributes]
carrier = "string"
since = { type = "datetime", required = false }

[tables.flights]
all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]
columns = { show = ["id", "carrier"] }

[tables.notes]
write = true
all = [ { column = "carrier", op = "eq", attribute = "carrier" },
        { any = [ { column = "at", op = "ge", attribute = "since" }, { column = "at", op = "is_not_set" } ] } ]

[tables.events]
all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]

[tables.airlines]
open = true

[tables."sales.orders"]
all = [ { column = "carrier", op = "eq", attribute = "carrier" } ]
"""
POLICY = RlsPolicy.from_toml(TOML)
TABLES = """
    CREATE TABLE flights (id integer PRIMARY KEY, carrier text NOT NULL, crew text);
    CREATE TABLE notes (id serial PRIMARY KEY, carrier varchar(2) NOT NULL, at timestamp);
    CREATE TABLE events (id integer, carrier text NOT NULL) PARTITION BY LIST (carrier);
    CREATE TABLE events_ua PARTITION OF events FOR VALUES IN ('UA');
    CREATE TABLE airlines (carrier text PRIMARY KEY, name text);
    CREATE SCHEMA sales;
    CREATE TABLE sales.orders (id integer PRIMARY KEY, carrier text NOT NULL);
    CREATE INDEX ON flights (carrier);
    CREATE INDEX ON notes (carrier);
    CREATE INDEX ON notes (at);
    CREATE INDEX ON events (carrier);
    CREATE INDEX ON sales.orders (carrier);
"""


def united() -> RowFilter:
    judged = POLICY.row_filter({"carrier": "UA"})
    assert isinstance(judged, RowFilter)
    return judged


@pytest.fixture(scope="module")
def database(make_database: Callable[[], Any]) -> Any:
    made = make_database()
    made.run(TABLES)
    made.protect(POLICY)
    return made


def found(database: Any, policy: RlsPolicy = POLICY, **options: Any) -> list[str]:
    with database.admin() as connection:
        return [f"{place}: {problem}" for place, problem in differences(connection, policy, **options)]


def test_what_was_written_differs_in_nothing_and_can_be_written_again(database: Any) -> None:
    assert found(database, context=DatabaseContext(KEY)) == []
    database.protect(POLICY)
    database.protect(POLICY)
    assert found(database, context=DatabaseContext(KEY)) == []


DAMAGE: list[tuple[str, str, str, str]] = [
    ("row-level security is off", "ALTER TABLE flights DISABLE ROW LEVEL SECURITY", "table flights", "is off"),
    ("it is not forced", "ALTER TABLE flights NO FORCE ROW LEVEL SECURITY", "table flights", "not forced"),
    ("a policy is missing", "DROP POLICY toucan_guard_update ON notes", "table notes", "toucan_guard_update is missing"),
    ("a policy was changed", "ALTER POLICY toucan_guard_select ON flights USING (true)", "table flights", "was changed"),
    ("a policy's check was changed", "ALTER POLICY toucan_guard_insert ON notes WITH CHECK (true)", "table notes", "was changed"),
    ("a policy is for another role", "ALTER POLICY toucan_guard_select ON flights TO PUBLIC", "table flights", "was changed"),
    ("a policy is extra", "CREATE POLICY friend ON flights USING (true)", "table flights", "friend is extra, and opens more"),
    ("a partition is open", "ALTER TABLE events_ua DISABLE ROW LEVEL SECURITY", "table events, partition events_ua", "is off"),
    ("a partition is new", "CREATE TABLE events_dl PARTITION OF events FOR VALUES IN ('DL')", "table events, partition events_dl", "is off"),
    ("the app's role owns a table", "ALTER TABLE flights OWNER TO toucan_guard_app", "table flights", "belongs to toucan_guard_app"),
    ("a hidden column is open", "GRANT SELECT ON flights TO toucan_guard_app", "table flights", "can read the column crew"),
    ("a column is closed", "REVOKE SELECT ON notes FROM toucan_guard_app", "table notes", "cannot read"),
    ("TRUNCATE is allowed", "GRANT TRUNCATE ON notes TO toucan_guard_app", "table notes", "TRUNCATE"),
    ("writing is allowed", "GRANT INSERT ON flights TO PUBLIC", "table flights", "INSERT"),
    ("a table is gone", "DROP TABLE airlines", "table airlines", "is not there"),
    ("a table is a view", "DROP TABLE airlines; CREATE VIEW airlines AS SELECT 1", "table airlines", "is no table"),
    ("a column is gone", "DROP TABLE airlines; CREATE TABLE airlines (); ALTER TABLE notes RENAME at TO moment", "table notes", "no column at"),
    ("a column has another type", "DROP TABLE sales.orders; CREATE TABLE sales.orders (carrier char(2))", "table sales.orders", "carrier is character"),
    ("a schema is closed", "REVOKE USAGE ON SCHEMA sales FROM toucan_guard_app", "table sales.orders", "schema is closed"),
    ("the keys are gone", "DELETE FROM toucan_guard.context_key", "toucan_guard.context_key", "has no key"),
    ("the keys are others", "UPDATE toucan_guard.context_key SET id = 'x'", "toucan_guard.context_key", "has other keys"),
    ("the keys are open", "GRANT SELECT ON toucan_guard.context_key TO toucan_guard_app", "toucan_guard.context_key", "is open"),
    ("the keys are not forced", "ALTER TABLE toucan_guard.context_key NO FORCE ROW LEVEL SECURITY", "toucan_guard.context_key", "no forced"),
    ("the keys have another owner", "ALTER TABLE toucan_guard.context_key OWNER TO postgres", "toucan_guard.context_key", "belongs to postgres"),
    ("the key table is gone", "DROP TABLE toucan_guard.context_key", "toucan_guard.context_key", "is not there"),
    ("the function was altered", "CREATE OR REPLACE FUNCTION toucan_guard.context() RETURNS jsonb LANGUAGE sql AS $$SELECT '{}'::jsonb$$", "toucan_guard.context()", "was changed"),
    ("the function's path is open", "ALTER FUNCTION toucan_guard.context() RESET search_path", "toucan_guard.context()", "was changed"),
    ("the function has another owner", "ALTER FUNCTION toucan_guard.context() OWNER TO postgres", "toucan_guard.context()", "belongs to postgres"),
    ("the function is closed", "REVOKE EXECUTE ON FUNCTION toucan_guard.context() FROM toucan_guard_app", "toucan_guard.context()", "cannot be called"),
    ("the function is gone", "DROP FUNCTION toucan_guard.context() CASCADE", "toucan_guard.context()", "is not there"),
    ("another table is readable", "CREATE TABLE salaries (i int); GRANT SELECT ON salaries TO PUBLIC", "public.salaries", "does not name"),
    ("a view runs as its owner", "CREATE VIEW all_flights AS SELECT * FROM flights; GRANT SELECT ON all_flights TO app, toucan_guard_app", "public.all_flights", "without security_invoker"),
    ("the guard's view is gone", "DROP VIEW toucan_guard.flights", 'view toucan_guard."flights"', "is not there"),
    ("a function runs as its owner", "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM flights'", "peek()", "SECURITY DEFINER"),
    ("temporary tables are allowed", "GRANT TEMPORARY ON DATABASE CURRENT TO PUBLIC", "role toucan_guard_app", "temporary"),
    ("tables may be made", "GRANT CREATE ON SCHEMA public TO toucan_guard_app", "role toucan_guard_app", "in the schema public"),
    ("the role may read files", "GRANT pg_read_server_files TO toucan_guard_app", "role toucan_guard_app", "pg_read_server_files"),
    ("the role may become the owner", "GRANT toucan_guard_owner TO toucan_guard_app", "role toucan_guard_app", "toucan_guard_owner"),
    ("the role goes round", "ALTER ROLE toucan_guard_app BYPASSRLS", "role toucan_guard_app", "go round"),
    ("the owner can log in", "ALTER ROLE toucan_guard_owner LOGIN", "role toucan_guard_owner", "can log in"),
    ("the schema is gone", "DROP SCHEMA toucan_guard CASCADE", "schema toucan_guard", "is not there"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "place", "problem"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_a_difference_is_told_with_its_place(damage: str, place: str, problem: str, database: Any) -> None:
    with psycopg.connect(database.owner) as connection:
        name = connection.info.dbname
        connection.execute(damage.replace("DATABASE CURRENT", f"DATABASE {name}").encode())
        told = list(differences(connection, POLICY, context=DatabaseContext(KEY)))
        connection.rollback()
    assert [each for each in told if each.place == place and problem in each.problem], told
    assert found(database) == []


def test_another_policy_file_or_pooler_is_a_difference(database: Any) -> None:
    other = RlsPolicy.from_toml(TOML.replace('"is_not_set"', '"is_set"'))
    assert found(database, other) == [
        f"table notes: the policy toucan_guard_{name} was changed, or written for another policy file"
        for name in ("delete", "insert", "select", "update")
    ]
    assert found(database, pooler="transaction") == [
        "toucan_guard.context(): was changed, or made for another --pooler"
    ]
    assert found(database, app_role="nobody_at_all") == ["role nobody_at_all: is not there"]
    assert any("is not there" in line for line in found(database, RlsPolicy.from_columns("gone.a=b")))


def test_a_table_that_leaves_the_policy_is_closed(make_database: Callable[[], Any]) -> None:
    made = make_database()
    made.run(TABLES + "INSERT INTO flights VALUES (1, 'UA', ''); INSERT INTO airlines VALUES ('UA', 'United')")
    made.protect(POLICY)
    made.protect(RlsPolicy.from_columns("airlines.carrier=carrier"))
    judged = RlsPolicy.from_columns("airlines.carrier=carrier").row_filter({"carrier": "UA"})
    assert isinstance(judged, RowFilter)
    with made.connect() as connection:
        bind(connection, judged, context=DatabaseContext(KEY))
        assert connection.execute("SELECT count(*) FROM airlines").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT count(id) FROM flights")


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        pytest.param("id integer", "has no column carrier", id="a column that is not there"),
        pytest.param("carrier char(2)", "is character", id="text that is padded"),
        pytest.param("carrier integer", "is integer", id="a number"),
        pytest.param("carrier text COLLATE folded", "different texts are equal", id="a collation that folds case"),
        pytest.param("carrier text[]", "is text", id="an array"),
    ],
)
def test_columns_that_cannot_be_compared_stop_the_writing(
    table: str, problem: str, make_database: Callable[[], Any]
) -> None:
    made = make_database()
    made.run(
        # This build has no ICU to make such a collation with, so one is made to look like it.
        'SET allow_system_table_mods = on; CREATE COLLATION folded FROM "C";'
        "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'folded';"
        f"CREATE TABLE flights ({table})"
    )
    with pytest.raises(psycopg.errors.RaiseException, match=problem):
        made.run(policy_sql(RlsPolicy.from_columns("flights.carrier=carrier")))


def test_the_type_of_a_column_in_a_policy_stays(database: Any) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="policy"):
        database.run("ALTER TABLE flights ALTER COLUMN carrier TYPE char(2)")


def test_odd_names_are_quoted(make_database: Callable[[], Any]) -> None:
    made = make_database()
    odd = "a \"b\" 'c' %s @app@ -- é"
    policy = RlsPolicy.from_json(
        json.dumps(
            {
                "attributes": {"x.y-z": "string", "at": {"type": "datetime", "required": False}},
                "tables": {
                    odd: {
                        "write": True,
                        "any": [
                            {"column": odd, "op": "eq", "attribute": "x.y-z"},
                            {"column": "at @app@", "op": "ge", "attribute": "at"},
                        ],
                        "columns": {"show": [odd]},
                    }
                },
            }
        )
    )
    quoted = '"' + odd.replace('"', '""') + '"'
    made.run(
        f"CREATE TABLE {quoted} ({quoted} text, \"at @app@\" timestamptz); INSERT INTO {quoted} VALUES ('1'), ('2')"
    )
    made.protect(policy)
    assert found(made, policy) == []
    judged = policy.row_filter({"x.y-z": "1"})
    assert isinstance(judged, RowFilter)
    with made.connect() as connection:
        bind(connection, judged, context=DatabaseContext(KEY))
        assert connection.execute(f"SELECT {quoted} FROM {quoted}".replace("%", "%%").encode(), ()).fetchall() == [
            ("1",)
        ]


def test_the_owner_of_the_tables_can_write_it_without_being_superuser(make_database: Callable[[], Any]) -> None:
    made = make_database()
    with made.admin() as connection:
        connection.execute("DROP ROLE IF EXISTS migrator")
        connection.execute("CREATE ROLE migrator LOGIN CREATEROLE")
        connection.execute(
            "GRANT toucan_guard_owner, toucan_guard_app TO migrator WITH ADMIN OPTION, INHERIT FALSE, SET FALSE"
        )
        connection.execute(f"ALTER DATABASE {connection.info.dbname} OWNER TO migrator".encode())
    url = made.owner.replace("//postgres:@", "//migrator@").replace("//postgres@", "//migrator@")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES + "INSERT INTO flights VALUES (1, 'UA', ''), (2, 'DL', '')")
        for _ in range(2):
            connection.execute(policy_sql(POLICY, full_access_roles=["migrator"]))
        # Writing it made the migrator a member of the owner, and took that away again.
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM toucan_guard.context_key")
        assert connection.execute("SELECT count(*) FROM flights").fetchone() == (2,)
        assert [d for d in differences(connection, POLICY) if "migrator" not in d.problem] == []
    with made.admin() as connection:
        assert set_key(connection, DatabaseContext(KEY)) == 1
        connection.execute("GRANT toucan_guard_app TO app")
    with made.connect() as connection:
        bind(connection, united(), context=DatabaseContext(KEY))
        assert connection.execute("SELECT count(id) FROM flights").fetchone() == (1,)
    made.run("REASSIGN OWNED BY migrator TO postgres; DROP OWNED BY migrator; REVOKE migrator FROM postgres")


def test_keys_overlap_while_they_are_changed(database: Any) -> None:
    old, new = DatabaseContext(KEY), DatabaseContext(NEXT_KEY)
    with database.admin() as admin, database.connect() as connection:
        assert (set_key(admin, old), set_key(admin, new)) == (1, 2)
        for context in (old, new):
            bind(connection, united(), context=context)
            connection.rollback()
        assert set_key(admin, new, retire_others=True) == 1
        bind(connection, united(), context=new)
        connection.rollback()
        with pytest.raises(RowSecurityError, match="another key"):
            bind(connection, united(), context=old)
        assert set_key(admin, old, retire_others=True) == 1


def test_the_linter_finds_nothing_above_information(database: Any) -> None:
    pytest.importorskip("pgrls")
    configuration = files("toucan_guard.rls") / "pgrls.toml"
    assert [line for line in configuration.read_text().splitlines() if line.startswith("[")] == ["[lint.rules.SEC014]"]
    done = subprocess.run(
        [sys.executable, "-m", "pgrls", "lint", "--config", str(configuration), "--database-url", database.owner,
         "--schemas", "public,toucan_guard,sales", "--format", "json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    told = json.loads(done.stdout)["violations"]
    assert {each["severity"] for each in told} == {"info"}, done.stdout
    assert done.returncode == 0, done.stderr


class TestTheCommand:
    @pytest.fixture
    def policy(self, tmp_path: Path) -> str:
        (tmp_path / "policy.toml").write_text(TOML)
        (tmp_path / "key").write_text(KEY + "\n")
        return str(tmp_path / "policy.toml")

    def test_it_prints_sql_without_any_secret_and_needs_no_settings(self, policy: str, database: Any) -> None:
        done = CliRunner().invoke(command_line, ["rls-sql", "--policy", policy])
        assert done.exit_code == 0, done.output
        assert done.stdout == policy_sql(POLICY)
        database.run(done.stdout)

    def test_it_gives_the_key_and_never_shows_it(self, policy: str, database: Any, tmp_path: Path) -> None:
        done = CliRunner().invoke(
            command_line, ["rls-sql", "--set-key", database.owner, "--key-file", str(tmp_path / "key")]
        )
        assert done.exit_code == 0, done.output
        assert KEY not in done.output

    def test_it_tells_differences_in_words_and_in_json(self, policy: str, database: Any, tmp_path: Path) -> None:
        asked = ["rls-sql", "--policy", policy, "--check", database.owner, "--key-file", str(tmp_path / "key")]
        good = CliRunner().invoke(command_line, asked)
        assert (good.exit_code, "✓" in good.output) == (0, True), good.output
        database.run("ALTER TABLE flights NO FORCE ROW LEVEL SECURITY")
        bad = CliRunner().invoke(command_line, asked)
        assert (bad.exit_code, "not forced" in bad.output) == (1, True)
        told = CliRunner().invoke(command_line, [*asked, "--json"])
        assert told.exit_code == 1
        assert [each["place"] for each in json.loads(told.stdout)["differences"]] == ["table flights"]
        database.protect(POLICY)

    @pytest.mark.parametrize("command", ["--check", "--set-key"])
    def test_a_database_that_does_not_answer_is_no_finding(self, command: str, policy: str, tmp_path: Path) -> None:
        for url in ("postgresql://nobody:hunter2hunter2@127.0.0.1:1/nowhere", "postgresql://a:hunter2hunter2@:x:y"):
            asked = ["rls-sql", "--policy", policy, command, url, "--key-file", str(tmp_path / "key")]
            done = CliRunner().invoke(command_line, asked)
            assert (done.exit_code, done.stdout) == (2, "")
            assert "the database says" in done.stderr
            assert "hunter2" not in done.output

    def test_a_database_that_does_not_let_itself_be_looked_at_is_none_either(self, policy: str, database: Any) -> None:
        done = CliRunner().invoke(command_line, ["rls-sql", "--policy", policy, "--check", database.app, "--json"])
        assert (done.exit_code, done.stdout) == (2, ""), done.output
        assert "permission denied" in done.stderr


class TestAlembic:
    SCRIPT = """
from alembic import op
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.rls.alembic import apply_policy

revision, down_revision = "1", None


def upgrade() -> None:
    op.execute("CREATE TABLE flights (id integer PRIMARY KEY, carrier text NOT NULL)")
    op.execute("INSERT INTO flights VALUES (1, 'UA'), (2, 'DL')")
    apply_policy(op, RlsPolicy.from_columns("flights.carrier=carrier"))
"""

    @pytest.fixture
    def config(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        pytest.importorskip("alembic")
        # The environment that Alembic writes switches off the loggers of all other tests.
        monkeypatch.setattr("logging.config.fileConfig", lambda *_, **__: None)
        from alembic import command
        from alembic.config import Config

        made = Config(str(tmp_path / "alembic.ini"))
        made.set_main_option("script_location", str(tmp_path / "migrations"))
        made.set_main_option("path_separator", "os")
        command.init(made, str(tmp_path / "migrations"))
        (tmp_path / "migrations" / "versions" / "1_rows.py").write_text(self.SCRIPT)
        return made

    def test_a_migration_writes_the_policies(self, config: Any, make_database: Callable[[], Any]) -> None:
        from alembic import command

        made = make_database()
        config.set_main_option("sqlalchemy.url", made.owner.replace("postgresql://", "postgresql+psycopg://", 1))
        command.upgrade(config, "head")
        assert [
            line for line in found(made, RlsPolicy.from_columns("flights.carrier=carrier")) if "key" not in line
        ] == []

    def test_the_plain_file_of_a_migration_is_as_good(
        self, config: Any, make_database: Callable[[], Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        from alembic import command

        made = make_database()
        config.set_main_option("sqlalchemy.url", "postgresql+psycopg://nowhere/")
        command.upgrade(config, "head", sql=True)
        made.run(capsys.readouterr().out)
        assert [
            line for line in found(made, RlsPolicy.from_columns("flights.carrier=carrier")) if "key" not in line
        ] == []
