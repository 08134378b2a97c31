"""The demo's SQL box: how long an analyst's query may take, how much it may bring, and how it is told."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "flights"
NEEDED = ("fastapi", "sqlalchemy", "httpx2", "sqlglot")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"the demo needs {', '.join(MISSING)}")

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i % 7) AS m FROM n"
ROWS = 1_200


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """The demo's modules, which have plain names and are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(DEMO))
    yield importlib.import_module
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").parent == DEMO:
            del sys.modules[name]


@pytest.fixture
def ask(modules: Callable[[str], Any], make_settings: Any, make_token: Any, tmp_path: Path) -> Iterator[Any]:
    from sqlalchemy import create_engine, insert
    from starlette.testclient import TestClient

    from toucan_guard import Grant

    data = modules("data")
    engine = create_engine(f"sqlite:///{tmp_path / 'flights.sqlite'}")
    data.Base.metadata.create_all(engine)
    row = dict.fromkeys(("year", "month", "day", "sched_dep_time", "sched_arr_time", "flight", "distance", "hour"), 1)
    row |= {"minute": 0, "carrier": "UA", "origin": "JFK", "dest": "BOS", "time_hour": ""}
    with engine.begin() as connection:
        connection.execute(insert(data.Flight), [{**row, "id": number, "month": number} for number in range(ROWS)])
    settings = make_settings(rls_columns=None, rls_policy=DEMO / "policy.toml")
    client = TestClient(modules("viz").create_app(settings, engine))
    token = make_token(rls={"carrier": "UA", "airports": ["JFK"]}, grants=[Grant("dashboard", "delays", ("view",))])

    def send(sql: str, path: str = "ask") -> Any:
        headers = {"authorization": f"Bearer {token}"}
        return client.get(f"/api/dashboards/delays/{path}", params={"sql": sql}, headers=headers)

    yield send
    engine.dispose()


def test_a_query_that_brings_more_rows_than_anybody_reads_is_cut_and_says_so(ask: Any, modules: Any) -> None:
    most = modules("raw_sql").MOST_ROWS
    for wanted, given, truncated in ((ROWS, most, True), (most + 1, most, True), (most, most, False), (3, 3, False)):
        answer = ask(f"SELECT month FROM flights ORDER BY month LIMIT {wanted}").json()
        assert answer["rows"] == [[number] for number in range(given)]
        assert (answer["columns"], answer["truncated"]) == (["month"], truncated)
    assert ask("", "busiest").json()["truncated"] is False


WIDE = "WITH RECURSIVE n(i, s) AS (SELECT 1, 'x' UNION ALL SELECT i + 1, s || s FROM n WHERE i < {}) "


@pytest.mark.parametrize(
    ("columns", "given", "truncated"),
    [
        pytest.param("s", 15, False, id="cells that fit"),
        pytest.param(
            "s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s", 15, False, id="one wide row"
        ),
    ],
)
def test_wide_rows_that_fit_are_given(columns: str, given: int, truncated: bool, ask: Any) -> None:
    answer = ask(f"{WIDE.format(15)} SELECT {columns} FROM n").json()
    assert (len(answer["rows"]), answer["truncated"]) == (given, truncated)


def test_an_answer_is_cut_after_so_many_bytes_and_says_so(ask: Any, modules: Any) -> None:
    most = modules("raw_sql").MOST_BYTES
    made = WIDE.format(16) + "SELECT s, {} FROM n, flights WHERE i = 16"
    answer = ask(made.format("month"))
    assert most - (1 << 16) < len(answer.content) < most + (1 << 10)
    assert answer.json()["truncated"] is True
    answer = ask(made.format(", ".join(["s"] * 40)))
    assert (answer.json()["rows"], answer.json()["truncated"]) == ([], True)


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param(WIDE.format(25) + "SELECT s FROM n WHERE i = 25", id="one huge cell"),
        pytest.param(WIDE.format(25) + "SELECT length(s) AS l FROM n", id="a huge text that nobody sees"),
        pytest.param(f"SELECT {', '.join(['month'] * 101)} FROM flights", id="columns without end"),
    ],
)
def test_what_is_too_large_to_read_is_not_made_and_the_next_query_is_answered(sql: str, ask: Any) -> None:
    answer = ask(sql)
    assert (answer.status_code, answer.json()["detail"]) == (400, "the database cannot run it")
    assert ask("SELECT count(*) AS n FROM flights").json()["rows"] == [[ROWS]]


def test_a_cell_that_json_does_not_have_is_text(ask: Any) -> None:
    answer = ask("SELECT 9e999 AS a, -9e999 AS b, 1.5 AS c, NULL AS d")
    assert answer.json()["rows"] == [["inf", "-inf", 1.5, None]]


@pytest.mark.parametrize("first_rows", ["", "SELECT i FROM n WHERE i < 3 OR i > 9e15"], ids=["none", "some"])
def test_a_query_without_end_is_stopped_and_the_next_one_is_not(
    first_rows: str, ask: Any, modules: Any, monkeypatch: pytest.MonkeyPatch, audit_lines: Any
) -> None:
    sql = ENDLESS if not first_rows else ENDLESS.rpartition("SELECT max")[0] + first_rows
    with monkeypatch.context() as patch:
        patch.setattr(modules("raw_sql"), "MOST_SECONDS", 0.2)
        answer = ask(sql)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "This query takes too long",
        "status": 422,
        "detail": "it was stopped after 0.2 seconds: ask for less",
    }
    assert ask("SELECT count(*) AS n FROM flights").json()["rows"] == [[ROWS]]
    assert [line["status"] for line in audit_lines()] == [422, 200]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        pytest.param("SELECT tailnum FROM flights", "tailnum", id="a column that is not shown"),
        pytest.param("SELECT abs(-9223372036854775807 - 1) AS n FROM flights", "cannot run", id="a query that fails"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_what_is_not_answered_is_a_problem(sql: str, told: str, ask: Any) -> None:
    answer = ask(sql)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert told in answer.json()["detail"]
    assert "overflow" not in answer.text
