"""The demo's SQL box on PostgreSQL, which has no limit of its own to how large a row may be."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from toucan_guard import Grant

pytest.importorskip("sqlglot", reason="the extra [sql] reads statements")
DEMO = Path(__file__).resolve().parents[2] / "examples" / "flights"
ROWS = 600
WIDE = "WITH RECURSIVE n(i, s) AS (SELECT 1, 'x' UNION ALL SELECT i + 1, s || s FROM n WHERE i < {}) "


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """The demo's modules, which have plain names and are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(DEMO))
    yield importlib.import_module
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").parent == DEMO:
            del sys.modules[name]


@pytest.fixture
def ask(modules: Callable[[str], Any], make_settings: Any, make_token: Any, make_database: Any) -> Iterator[Any]:
    from sqlalchemy import create_engine, insert
    from starlette.testclient import TestClient

    data = modules("data")
    engine = create_engine(make_database().owner.replace("postgresql://", "postgresql+psycopg://", 1))
    data.Base.metadata.create_all(engine)
    row = dict.fromkeys(("year", "month", "day", "sched_dep_time", "sched_arr_time", "flight", "distance", "hour"), 1)
    row |= {"minute": 0, "carrier": "UA", "origin": "JFK", "dest": "BOS", "time_hour": ""}
    with engine.begin() as connection:
        connection.execute(insert(data.Flight), [{**row, "id": number, "month": number} for number in range(ROWS)])
    settings = make_settings(rls_columns=None, rls_policy=DEMO / "policy.toml")
    client = TestClient(modules("viz").create_app(settings, engine))
    token = make_token(rls={"carrier": "UA", "airports": ["JFK"]}, grants=[Grant("dashboard", "delays", ("view",))])
    yield lambda sql: client.get(
        "/api/dashboards/delays/ask", params={"sql": sql}, headers={"authorization": f"Bearer {token}"}
    )
    engine.dispose()


def test_rows_come_in_their_order_and_are_cut(ask: Any, modules: Any) -> None:
    answer = ask("SELECT month, month AS again, carrier || '%' AS c FROM flights ORDER BY month DESC").json()
    assert answer["rows"] == [[number, number, "UA%"] for number in range(ROWS - 1, ROWS - 1 - 500, -1)]
    assert (answer["columns"], answer["truncated"]) == (["month", "again", "c"], True)


def test_an_answer_is_cut_after_so_many_bytes(ask: Any, modules: Any) -> None:
    answer = ask(WIDE.format(16) + "SELECT s, month FROM n, flights WHERE i = 16")
    assert answer.json()["truncated"] is True
    assert len(answer.content) < modules("raw_sql").MOST_BYTES + (1 << 10)
    assert len(answer.json()["rows"]) > 20


def test_a_row_that_is_larger_than_the_answer_never_leaves_the_database(ask: Any) -> None:
    answer = ask(WIDE.format(23) + "SELECT s FROM n WHERE i = 23")
    assert (answer.status_code, answer.json()["detail"]) == (400, "the database cannot run it")
    assert ask("SELECT count(*) AS n FROM flights").json()["rows"] == [[ROWS]]
