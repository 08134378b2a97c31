"""The contract of ``filter_sql``: parameters, errors, the cache, receipts."""

from __future__ import annotations

import pickle
import re
import sqlite3
import threading
from typing import Any

import pytest

pytest.importorskip("sqlglot", reason="the extra [sql] reads the statements")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toucan_guard.core.errors import ConfigError, NoEmbedContext, QueryRefused
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls import sql as adapter
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sql import FilteredSQL, filter_sql

DIALECTS = ["sqlite", "duckdb", "postgres"]
PLACES = {"sqlite": ":{}", "duckdb": "${}", "postgres": "%({})s"}
POLICY = RlsPolicy.from_toml("""
[attributes]
carrier = "string"
airports = { type = "string", list = true }

[tables."sales.flights"]
all = [ { column = "carrier", op = "eq", attribute = "carrier" },
        { column = "origin", op = "in", attribute = "airports" } ]

[tables.flights]
all = [ { column = "carrier", op = "eq", attribute = "carrier" },
        { column = "origin", op = "in", attribute = "airports" } ]

[tables.airlines]
open = true
""")


def tenant(carrier: str = "AA", *airports: str, policy: RlsPolicy = POLICY) -> RowFilter:
    made = policy.row_filter({"carrier": carrier, "airports": list(airports) or ["JFK"]})
    assert isinstance(made, RowFilter)
    return made


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_result_is_a_statement_and_its_parameters(dialect: str) -> None:
    place = PLACES[dialect].format("month")
    given_ = {"month": 7}
    filtered = filter_sql(
        f"SELECT count(*) FROM flights WHERE month = {place}", tenant(), dialect=dialect, params=given_
    )
    assert isinstance(filtered, FilteredSQL)
    text, params = filtered
    assert (text, params) == (filtered.sql, filtered.params)
    assert given_ == {"month": 7}
    assert params["month"] == 7
    assert place in text
    assert {name[:3] for name in params if name != "month"} == {"tg_"}
    for name in params:
        assert PLACES[dialect].format(name) in text
    assert "AA" not in text
    assert "JFK" not in text


@pytest.mark.parametrize("dialect", ["mysql", "postgresql", "SQLite", "", "snowflake", None, 3])
def test_another_dialect_is_a_mistake_of_the_developer(dialect: Any) -> None:
    with pytest.raises(ConfigError, match=r"sqlite, duckdb, postgres|plain text"):
        filter_sql("SELECT 1", tenant(), dialect=dialect)


@pytest.mark.parametrize(
    ("sql", "row_filter", "params"),
    [
        pytest.param(b"SELECT 1", tenant(), None, id="a statement of bytes"),
        pytest.param(None, tenant(), None, id="no statement"),
        pytest.param("SELECT 1", None, None, id="no row filter: row-level security is off"),
        pytest.param("SELECT 1", {"carrier": "AA"}, None, id="claims where the filter belongs"),
        pytest.param("SELECT 1", tenant(), [1], id="parameters without names"),
        pytest.param("SELECT 1", tenant(), (1,), id="a tuple of parameters"),
    ],
)
def test_wrong_arguments(sql: Any, row_filter: Any, params: Any) -> None:
    with pytest.raises(ConfigError):
        filter_sql(sql, row_filter, dialect="sqlite", params=params)


@pytest.mark.parametrize("name", ["tg_0", "TG_0", "tg_", "tg_anything", "tg_1_0"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_names_of_the_filter_are_reserved(dialect: str, name: str) -> None:
    with pytest.raises(QueryRefused, match="tg_"):
        filter_sql("SELECT * FROM flights", tenant(), dialect=dialect, params={name: "UA"})


def test_a_percent_sign_is_doubled_for_psycopg_alone() -> None:
    sql = "SELECT id % 2 FROM flights WHERE origin LIKE 'J%'"
    assert filter_sql(sql, tenant(), dialect="postgres").sql.count("%%") == 2
    for dialect in ("sqlite", "duckdb"):
        assert "%%" not in filter_sql(sql, tenant(), dialect=dialect).sql


def test_a_list_of_any_length_has_its_places() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE flights (id integer, carrier text, origin text)")
    connection.executemany("INSERT INTO flights VALUES (?, 'AA', ?)", [(n, f"A{n}") for n in range(300)])
    texts = set()
    for length in (1, 2, 3, 4, 5, 7, 8, 9, 100, 255, 256, 257):
        filtered = filter_sql(
            "SELECT count(*) FROM flights", tenant("AA", *(f"A{n}" for n in range(length))), dialect="sqlite"
        )
        assert connection.execute(*filtered).fetchone() == (length,)
        texts.add(filtered.sql)
    assert len(texts) == 8
    connection.close()


def test_too_many_values_are_refused() -> None:
    policy = RlsPolicy.from_columns("flights.origin=airports")
    row_filter = RowFilter(policy, {"airports": [str(n) for n in range(40_000)]})
    with pytest.raises(QueryRefused, match="values"):
        filter_sql("SELECT * FROM flights", row_filter, dialect="sqlite")
    assert len(filter_sql("SELECT * FROM flights", row_filter, dialect="duckdb").params["tg_0"]) == 40_000


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_filter_made_past_the_door_opens_nothing(dialect: str) -> None:
    for attributes in ({}, {"carrier": "AA"}, {"carrier": 3, "airports": "JFK"}, {"carrier": "AA", "airports": []}):
        params = filter_sql("SELECT * FROM flights", RowFilter(POLICY, attributes), dialect=dialect).params
        assert None in params.values()


def test_one_text_for_all_tenants() -> None:
    sql = "SELECT * FROM flights /* one text */"
    first, second = (filter_sql(sql, tenant(carrier), dialect="sqlite") for carrier in ("AA", "UA"))
    assert first.sql is second.sql
    assert first.params != second.params


def test_another_policy_has_another_text() -> None:
    other = RlsPolicy.from_toml('[attributes]\ncarrier = "string"\n[tables.flights]\nopen = true\n')
    sql = "SELECT * FROM flights /* two policies */"
    opened = other.row_filter({"carrier": "AA"})
    assert isinstance(opened, RowFilter)
    assert filter_sql(sql, opened, dialect="sqlite").params == {}
    assert filter_sql(sql, tenant(), dialect="sqlite").params
    assert filter_sql(sql, opened, dialect="sqlite").params == {}


def test_the_cache_is_bounded_and_a_refusal_is_not_kept() -> None:
    for number in range(adapter.CACHE_SIZE + 40):
        filter_sql(f"SELECT {number} FROM airlines", tenant(), dialect="sqlite")
        assert len(adapter._cache) <= adapter.CACHE_SIZE
    size = len(adapter._cache)
    with pytest.raises(QueryRefused):
        filter_sql("SELECT * FROM salaries", tenant(), dialect="sqlite")
    assert len(adapter._cache) == size


def test_threads_share_the_cache() -> None:
    wrong: list[object] = []

    def work(carrier: str) -> None:
        for number in range(200):
            found = filter_sql(f"SELECT {number % 7} FROM flights", tenant(carrier), dialect="duckdb")
            if found.params["tg_0"] != carrier.encode():
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(carrier,)) for carrier in ("AA", "UA", "DL", "B6")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_receipts_for_what_was_filtered() -> None:
    access = RowAccess(tenant())
    token = current_row_access.set(access)
    try:
        filter_sql("SELECT * FROM airlines", access.row_filter, dialect="sqlite")
        assert access.receipts == {}
        filter_sql("SELECT * FROM flights, airlines", tenant("UA"), dialect="sqlite")
        assert access.receipts == {}  # on another's behalf
        filter_sql("SELECT * FROM sales.flights", tenant(), dialect="sqlite")
        assert access.receipts == {"sales.flights": POLICY.version}
        access.closed = True
        with pytest.raises(NoEmbedContext):
            filter_sql("SELECT * FROM flights", access.row_filter, dialect="sqlite")
    finally:
        current_row_access.reset(token)
    assert filter_sql("SELECT * FROM flights", access.row_filter, dialect="sqlite").params["tg_0"] == "AA"


def test_a_table_that_the_policy_does_not_name_is_never_answered_with_another_that_it_names() -> None:
    with pytest.raises(QueryRefused) as raised:
        filter_sql("SELECT * FROM flihgts", tenant(), dialect="sqlite")
    assert str(raised.value) == "the query cannot be filtered: the policy does not name the table 'flihgts'"
    assert raised.value.__notes__[0].startswith("Did you mean flights?")
    for name in ("sqlite_master", "pg_catalog.pg_class", "information_schema.tables", "duckdb_settings"):
        for dialect in ("sqlite", "postgres", "duckdb"):
            with pytest.raises(QueryRefused, match="the database's own, which are not open to embeds"):
                filter_sql(f"SELECT * FROM {name}", tenant(), dialect=dialect)


def test_a_schema_is_written_as_the_policy_has_it() -> None:
    assert '"sales"."flights"' in filter_sql("SELECT * FROM SALES.Flights", tenant(), dialect="postgres").sql
    assert "`sales`.`flights`" in filter_sql('SELECT * FROM "sales".flights', tenant(), dialect="sqlite").sql
    with pytest.raises(QueryRefused, match=r"write it as sales\.flights"):
        filter_sql("SELECT * FROM SALES.flights", tenant(), dialect="duckdb")


def test_numbers_that_do_not_compare_with_every_value_put_up_the_fence() -> None:
    sql = "SELECT id FROM flights WHERE cost = %(cost)s"
    plain = filter_sql(sql, tenant(), dialect="postgres", params={"cost": 1}).sql
    wary = filter_sql(sql, tenant(), dialect="postgres", params={"cost": 1.0}).sql
    assert "OFFSET 0" not in plain
    assert "OFFSET 0" in wary
    assert filter_sql(sql, tenant(), dialect="postgres", params={"cost": 1}).sql is plain


@pytest.mark.parametrize(
    ("sql", "fenced"),
    [
        ("SELECT * FROM flights", False),
        ("SELECT 1 / (id - 1) FROM flights ORDER BY 1 / id", False),
        ("SELECT * FROM flights WHERE id = 3 AND NOT origin IN ('JFK') OR origin IS NULL", False),
        ("SELECT origin, sum(1 / id) FROM flights GROUP BY origin HAVING sum(1 / id) > 3", False),
        ("SELECT * FROM flights a JOIN flights b ON a.id = b.id WHERE EXISTS (SELECT 1 FROM airlines)", False),
        ("SELECT * FROM (SELECT count(*) AS n FROM flights) x WHERE n > 3", False),
        ("SELECT * FROM flights WHERE id + 1 = 3", True),
        ("SELECT * FROM flights WHERE lower(origin) = 'jfk'", True),
        ("SELECT * FROM flights WHERE origin LIKE 'J%'", True),
        ("SELECT * FROM flights a JOIN airlines b ON a.id + 1 = b.id", True),
        ("SELECT origin FROM flights GROUP BY origin HAVING length(origin) = 3", True),
        ("SELECT 1 / id AS x FROM flights WHERE x = 3", True),
        ("SELECT 1 / id AS x FROM flights ORDER BY x", False),
        ("SELECT * FROM (SELECT 1 / id AS x FROM flights) q", True),
        ("WITH q AS (SELECT 1 / id AS x FROM flights) SELECT * FROM q", True),
        ("SELECT * FROM flights WHERE EXISTS (SELECT 1 FROM airlines WHERE 1 / flights.id = 3)", True),
        ("SELECT count(*) FILTER (WHERE 1 / id > 0) FROM flights", False),
    ],
)
def test_a_fence_where_a_condition_could_fail(sql: str, fenced: bool) -> None:
    assert ("LIMIT -1" in filter_sql(sql, tenant(), dialect="sqlite").sql) == fenced
    assert "LIMIT 9223372036854775807" in filter_sql(sql, tenant(), dialect="duckdb").sql


def test_a_statement_is_never_quoted_in_its_refusal() -> None:
    for sql in ("SELECT 'S3CRET' FROM (", "SELECT * FROM flights WHERE x = 'S3CRET' FOR UPDATE", "S3CRET"):
        with pytest.raises(QueryRefused) as refusal:
            filter_sql(sql, tenant(), dialect="postgres")
        assert "S3CRET" not in str(refusal.value)
        assert refusal.value.__cause__ is None
        assert refusal.value.__suppress_context__


WORDS = st.sampled_from(
    [
        *("SELECT", "FROM", "WHERE", "flights", "airlines", "salaries", "AS", "(", ")", ",", "*", ".", ";", "=", "<>"),
        *("IN", "NOT", "AND", "UNION", "ALL", "WITH", "JOIN", "LEFT", "ON", "USING", "a", "b", "'x'", '"y"', "`z`"),
        *("1", "2.5", "count", "sum", "OVER", "PARTITION", "BY", "ORDER", "GROUP", "HAVING", "LIMIT", "OFFSET"),
        *("CASE", "WHEN", "THEN", "END", "NULL", "IS", "LIKE", ":p", "$p", "%(p)s", "?", "[", "]", "{", "}", "::"),
        *("CAST", "DISTINCT", "VALUES", "INTERVAL", "EXISTS", "--", "/*", "*/", "\n", "RECURSIVE", "LATERAL"),
        *("TABLE", "DELETE", "INTO", "FOR", "UPDATE", "PRAGMA", "EXPLAIN", "ROW", "E'\\''", "$$x$$", "@v", "#"),
        *("\\", "tg_0", "tg_row", "\u00e4", "\u2028", "\x00", "\ufeff"),
    ]
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(words=st.lists(WORDS, max_size=14), start=st.booleans(), dialect=st.sampled_from(DIALECTS))
def test_any_text_is_filtered_or_refused(words: list[str], start: bool, dialect: str) -> None:
    sql = ("SELECT " if start else "") + " ".join(words)
    try:
        filtered = filter_sql(sql, tenant(), dialect=dialect, params={"p": 1})
    except QueryRefused:
        return
    # Nothing is read but what the policy names, and what the statement itself has made.
    for read in re.findall(r"(?:FROM|JOIN) ([`\"]\w+[`\"])", filtered.sql):
        assert read.strip('`"') in ("flights", "airlines") or read.strip('`"').startswith("tg_with_")


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("'\"\\%;-$`\n:"), max_size=12))
def test_a_string_and_a_name_arrive_as_they_are(request: pytest.FixtureRequest, dialect: str, text: str) -> None:
    database: Any = request.getfixturevalue(f"{dialect}_database")
    quoted = text.replace("'", "''")
    found = database.filtered(f"SELECT '{quoted}' FROM airlines WHERE code = 'AA'")
    assert found.rows == [repr((text,))], found.error
    # SQLite itself does not find a column that is called FALSE.
    called = "n" + "".join(character for character in text if character.isprintable())[:10].replace('"', '""')
    found = database.filtered(f'SELECT x."{called}" FROM (SELECT 1 AS "{called}") AS x')
    assert found.rows == [repr((1,))], found.error


def test_what_it_gives_can_be_sent_elsewhere() -> None:
    filtered = filter_sql("SELECT * FROM flights", tenant(), dialect="sqlite")
    assert pickle.loads(pickle.dumps(filtered)) == filtered
