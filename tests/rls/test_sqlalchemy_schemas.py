"""Tables in schemas, and the words that PostgreSQL uses for the same rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    table,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, registry
from sqlalchemy.pool import NullPool

from toucan_guard.core.errors import QueryRefused
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sqlalchemy import protect

POLICY = RlsPolicy.from_toml(
    '[attributes]\ncarrier = "string"\nports = { type = "string", list = true, required = false }\n'
    '[tables.flights]\nall = [{ column = "carrier", op = "eq", attribute = "carrier" }]\n'
    '[tables."sales.flights"]\nall = [{ column = "owner", op = "eq", attribute = "carrier" }]\n'
    'columns = { show = ["id", "owner"] }\n'
    '[tables."sales.names"]\nopen = true\n'
    '[tables.ports]\nall = [{ column = "port", op = "in", attribute = "ports" },'
    ' { column = "port", op = "starts_with", attribute = "carrier" },'
    ' { column = "port", op = "contains", attribute = "carrier" },'
    ' { column = "port", op = "not_in", attribute = "ports" }]\n'
)
METADATA = MetaData()
FLIGHTS = Table("flights", METADATA, Column("id", Integer, primary_key=True), Column("carrier", String))
SALES = Table(
    "flights",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("owner", String),
    Column("price", Integer),
    schema="sales",
)
NAMES = Table("names", METADATA, Column("id", Integer, primary_key=True), Column("name", String), schema="sales")
PORTS = Table("ports", METADATA, Column("id", Integer, primary_key=True), Column("port", String))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{tmp_path / 'main.sqlite'}")
    event.listen(made, "connect", lambda c, _: c.execute(f"ATTACH '{tmp_path / 'sales.sqlite'}' AS sales"))
    METADATA.create_all(made)
    with made.begin() as connection:
        connection.execute(insert(FLIGHTS), [{"id": n, "carrier": ("AA", "UA")[n % 2]} for n in range(8)])
        connection.execute(insert(SALES), [{"id": n, "owner": ("UA", "AA")[n % 2], "price": n} for n in range(8)])
        connection.execute(insert(NAMES), [{"id": n, "name": str(n)} for n in range(8)])
    yield protect(made, POLICY)
    made.dispose()


@pytest.fixture(autouse=True)
def access() -> Iterator[RowAccess]:
    row_filter = POLICY.row_filter({"carrier": "AA"})
    assert isinstance(row_filter, RowFilter)
    made = RowAccess(row_filter)
    token = current_row_access.set(made)
    yield made
    current_row_access.reset(token)


EVEN, ODD = [0, 2, 4, 6], [1, 3, 5, 7]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param(select(SALES.c.id), ODD, id="columns"),
        pytest.param(select(SALES.c.id).where(SALES.c.owner > ""), ODD, id="condition"),
        pytest.param(select(SALES.c.id).order_by(SALES.c.owner, SALES.c.id), ODD, id="order"),
        pytest.param(select(SALES.alias("x").c.id), ODD, id="alias"),
        pytest.param(select(table("flights", SALES.c.id._copy(), schema="sales").c.id), ODD, id="lightweight table"),
        pytest.param(select(select(SALES.c.id).subquery().c.id), ODD, id="sub-query"),
        pytest.param(
            select(SALES.c.id).join(FLIGHTS, FLIGHTS.c.id == SALES.c.id + 1), [1, 3, 5], id="join of two schemas"
        ),
        pytest.param(select(FLIGHTS.c.id).join(SALES, FLIGHTS.c.id == SALES.c.id - 1), EVEN, id="the other way round"),
        pytest.param(select(FLIGHTS.c.id).join(SALES, FLIGHTS.c.id == SALES.c.id), [], id="rows of nobody"),
        pytest.param(select(SALES.c.id).join(NAMES, NAMES.c.id == SALES.c.id), ODD, id="join with an open table"),
        pytest.param(select(NAMES.c.id).where(NAMES.c.name > "0"), [1, 2, 3, 4, 5, 6, 7], id="open table"),
        pytest.param(
            select(SALES.c.id).where(select(FLIGHTS.c.id).where(FLIGHTS.c.id == SALES.c.id - 1).exists()),
            ODD,
            id="correlated sub-query",
        ),
    ],
)
def test_a_table_in_a_schema_has_its_own_rules(engine: Engine, query: Any, found: list[int]) -> None:
    with engine.connect() as connection:
        assert sorted(connection.scalars(query)) == found


def test_a_mapped_table_in_a_schema(engine: Engine, access: RowAccess) -> None:
    class Sale(registry().generate_base()):  # type: ignore[misc]
        __table__ = Table(
            "flights", MetaData(), Column("id", Integer, primary_key=True), Column("owner", String), schema="sales"
        )

    with Session(engine) as session:
        assert sorted(sale.id for sale in session.scalars(select(Sale).where(Sale.owner == "AA"))) == ODD
        assert session.get(Sale, 2) is None
        assert session.get(Sale, 3).owner == "AA"
    assert access.receipts == {"sales.flights": POLICY.version}


def test_a_hidden_column_in_a_schema_is_refused(engine: Engine) -> None:
    for query in (select(SALES.c.price), select(SALES.c.id).order_by(SALES.c.price), select(SALES.alias().c.price)):
        with engine.connect() as connection, pytest.raises(QueryRefused, match=r"sales\.flights\.price"):
            connection.execute(query)


def test_writing_in_a_schema(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(update(SALES).values(id=SALES.c.id + 100).where(SALES.c.id > 3))
        connection.execute(delete(SALES).where(SALES.c.id == 3))
        assert sorted(connection.scalars(select(SALES.c.id))) == [1, 105, 107]
        raw: Any = connection.connection.cursor()
        assert [n for (n,) in raw.execute("SELECT id FROM sales.flights ORDER BY id")] == [0, 1, 2, 4, 6, 105, 107]
        inner = SALES.alias("inner")
        connection.execute(delete(SALES).where(SALES.c.id.in_(select(func.max(inner.c.id)))))
        assert sorted(connection.scalars(select(SALES.c.id))) == [1, 105]
        with pytest.raises(QueryRefused, match="through an alias"):
            connection.execute(delete(SALES).where(SALES.c.id.in_(select(func.max(SALES.c.id)).correlate(None))))


@pytest.fixture
def postgres() -> Engine:
    # What it writes is looked at; no server answers here.
    pool = NullPool(lambda: pytest.fail("nothing connects"))
    return protect(Engine(pool, postgresql.dialect(), make_url("postgresql://")), POLICY)


def test_postgresql_compares_text_byte_by_byte_and_still_finds_its_index(postgres: Engine) -> None:
    text = " ".join(str(select(FLIGHTS.c.id).compile(postgres)).split())
    assert text.replace("::VARCHAR", "") == (
        "SELECT flights.id FROM (SELECT tg_row.id, tg_row.carrier FROM flights AS tg_row WHERE "
        "(%(tg_usable_1)s AND tg_row.carrier = %(tg_value_1)s AND "
        '(tg_row.carrier COLLATE "C") = %(tg_value_2)s)) AS flights'
    )


def test_postgresql_has_words_of_its_own(postgres: Engine) -> None:
    text = str(select(PORTS.c.id).compile(postgres))
    assert "(substr(tg_row.port, " in text
    assert "strpos(" in text
    assert 'COLLATE "C") NOT IN' in text
    assert "LIKE" not in text


def test_locks_name_the_filtered_rows(postgres: Engine) -> None:
    assert str(select(FLIGHTS.c.id).with_for_update(of=FLIGHTS).compile(postgres)).endswith("FOR UPDATE OF flights")
    text = str(select(SALES.c.id).with_for_update(of=SALES).compile(postgres))
    assert text.startswith("SELECT sales_flights.id")
    assert text.endswith("FOR UPDATE OF sales_flights")
    assert str(select(NAMES.c.id).with_for_update(of=NAMES).compile(postgres)).endswith("FOR UPDATE OF names")


def test_a_lateral_query_is_filtered(postgres: Engine) -> None:
    inner = select(FLIGHTS.c.id).where(FLIGHTS.c.id > NAMES.c.id).lateral("inner")
    text = " ".join(str(select(inner.c.id).join_from(NAMES, inner, inner.c.id == NAMES.c.id).compile(postgres)).split())
    assert (
        "LATERAL (SELECT flights.id AS id FROM (SELECT tg_row.id, tg_row.carrier FROM flights AS tg_row WHERE" in text
    )


def test_a_delete_that_uses_other_tables_filters_them(postgres: Engine) -> None:
    text = " ".join(str(delete(FLIGHTS).where(FLIGHTS.c.id == SALES.c.id).compile(postgres)).split())
    assert "USING (SELECT tg_row.id, tg_row.owner FROM sales.flights AS tg_row WHERE" in text
    assert 'flights.carrier COLLATE "C"' in text
