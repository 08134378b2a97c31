"""The last look at what ``filter_sql`` gives back, and that it looks at nothing too much."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("sqlglot", reason="the extra [sql] reads the statements")

from sqlglot import Dialect

from toucan_guard.core.errors import QueryRefused
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls import sql_functions, sql_nodes, sql_rewriter
from toucan_guard.rls.sql import filter_sql
from toucan_guard.rls.sql_dialects import DIALECTS
from toucan_guard.rls.sql_rewriter import rewrite
from toucan_guard.rls.sql_written import unseal

POLICY = RlsPolicy.from_toml("""
[attributes]
carrier = "string"

[tables.flights]
all = [{ column = "carrier", op = "eq", attribute = "carrier" }]

[tables.fares]
all = [{ column = "carrier", op = "eq", attribute = "carrier" }]

[tables.airlines]
open = true
""")
FILTER = RowFilter(POLICY, {"carrier": "AA"})
DIALECT_NAMES = tuple(DIALECTS)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("SELECT salaries", id="a name without quotes"),
        pytest.param("SELECT INTERVAL 1 DAY, (SELECT MAX(WHO) FROM SALARIES)", id="a query without quotes"),
        pytest.param('SELECT "who"', id="a name in quotes that nobody has sealed"),
        pytest.param("SELECT 'who'", id="a string that nobody has sealed"),
        pytest.param("SELECT `who`", id="a name in backticks that nobody has sealed"),
        pytest.param("SELECT 1 -- 2", id="a comment"),
        pytest.param("SELECT 1 /* 2 */", id="a comment in brackets"),
        pytest.param("SELECT 1; SELECT 2", id="a second statement"),
        pytest.param("SELECT $1", id="a parameter of the driver"),
        pytest.param("SELECT ?", id="another one"),
        pytest.param("SELECT \x01'x'", id="a seal that is open"),
        pytest.param("SELECT \x01'x'\x01 y \x01'z'\x01", id="a name between two seals"),
        pytest.param("SELECT gr\u00f6\u00dfe", id="letters that no word of SQL has"),
        pytest.param("SELECT [1]", id="a list"),
    ],
)
def test_what_stands_outside_of_quotes_is_known(text: str) -> None:
    with pytest.raises(QueryRefused, match="not known here"):
        unseal(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        pytest.param('SELECT \x01"a -- b"\x01', 'SELECT "a -- b"', id="a name"),
        pytest.param("SELECT \x01'salaries'\x01 || \x01' E''x'\x01", "SELECT 'salaries' || ' E''x'", id="strings"),
        pytest.param("SELECT 1, .5, 1.5e10, 2E-3, 7.", "SELECT 1, .5, 1.5e10, 2E-3, 7.", id="numbers"),
        pytest.param("SELECT \x00tg_0\x00", "SELECT \x00tg_0\x00", id="a parameter"),
        pytest.param("SELECT DATE_TRUNC", "SELECT DATE_TRUNC", id="a word with an underscore"),
    ],
)
def test_what_is_sealed_is_not_looked_at(text: str, written: str) -> None:
    assert unseal(text) == written


@pytest.mark.parametrize("dialect", DIALECT_NAMES)
def test_a_seal_in_the_statement_is_refused(dialect: str) -> None:
    for sql in (
        "SELECT '\x01', who, '\x01' FROM flights",
        'SELECT id AS "\x01" FROM flights',
        "SELECT \x011 FROM flights",
    ):
        with pytest.raises(QueryRefused):
            filter_sql(sql, FILTER, dialect=dialect)


def test_a_hole_in_the_list_of_nodes_is_closed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    sql = "SELECT date_add(DATE '2013-01-01', 1, CAST('DAY, (SELECT max(who) FROM salaries)' AS TEXT)) FROM airlines"
    monkeypatch.setattr(sql_nodes, "_UNITS_OF", {})
    with pytest.raises(QueryRefused, match="words or signs"):
        rewrite(sql, POLICY, DIALECTS["duckdb"])


@pytest.mark.parametrize("dialect", DIALECT_NAMES)
def test_every_type_of_a_cast_is_written_in_known_words(dialect: str) -> None:
    for type_ in sorted(kind.value for kind in sql_nodes._TYPES):
        refusal: Any = None
        try:
            filter_sql(f"SELECT CAST(id AS {type_}) FROM flights", FILTER, dialect=dialect)
        except QueryRefused as error:
            refusal = str(error)
        assert refusal is None or "words or signs" not in refusal, type_


_ODD = "CAST('zqx' AS TEXT)"
ARGUMENTS = [
    *("zqx", "'zqx'", "zqx, 1", "zqx, 'zqx'", "'zqx', zqx", "1, zqx, 'zqx'", "zqx, 1, zqx", "zqx, 1, 'zqx', 'zqx'"),
    *(f"{_ODD}, zqx, zqx", f"zqx, 1, {_ODD}", f"zqx, {_ODD}"),
]


@pytest.mark.parametrize("dialect", DIALECT_NAMES)
def test_no_function_writes_an_argument_as_it_was_written(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(sql_rewriter, "gated", lambda _, text: written.append(text) or "")
    names = {*Dialect.get_or_raise(dialect).parser_class.FUNCTIONS, *sql_functions.NAMED_FUNCTIONS[dialect]}
    for name in sorted(names):
        for arguments in ARGUMENTS:
            with suppress(QueryRefused):
                rewrite(f"SELECT {name}({arguments}) FROM flights", POLICY, DIALECTS[dialect])
    outside = [re.sub("\x01[^\x01]*\x01", " ", text).casefold() for text in written]
    assert len(outside) > 300
    assert [text for text in outside if "zqx" in text] == []


NUMBERS = ["1", "1.5", ".5", "1e5", "2E-3", "1.5e+10"]
WORDS = [
    "SELECT count(*) FROM flights GROUP BY month ORDER BY month ASC NULLS FIRST LIMIT 1 OFFSET 2",
    "SELECT sum(id) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING) FROM flights",
    "SELECT sum(id) OVER w FROM flights WINDOW w AS (ORDER BY id RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)",
    "SELECT f.id FROM flights AS f INNER JOIN airlines AS a ON a.code = f.carrier LEFT OUTER JOIN fares AS x ON 1 = 1",
    "WITH x AS MATERIALIZED (SELECT id FROM flights) SELECT id FROM x WHERE FALSE OR NOT id IN (1)",
    "WITH x AS NOT MATERIALIZED (SELECT id FROM flights) SELECT id FROM x",
    "SELECT trim(BOTH 'x' FROM tail), tail COLLATE nocase FROM flights",
]


@pytest.mark.parametrize("dialect", DIALECT_NAMES)
@pytest.mark.parametrize("sql", [*WORDS, *(f"SELECT {number} FROM flights" for number in NUMBERS)])
def test_ordinary_words_and_numbers_pass(dialect: str, sql: str) -> None:
    filter_sql(sql, FILTER, dialect=dialect)
