"""``text()`` on a guarded engine: read by the same rules as ``filter_sql``, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlglot", reason="the extra [sql] reads the statements")

from sqlalchemy import Column, Engine, Integer, String, Table, bindparam, create_engine, event, insert, select, text
from sqlalchemy import column as column_clause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from toucan_guard.core.errors import NoEmbedContext, QueryRefused
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sqlalchemy import protect

POLICY = RlsPolicy.from_toml("""
[attributes]
carrier = "string"
airports = { type = "string", list = true }

[tables.planned]
all = [ { column = "carrier", op = "eq", attribute = "carrier" },
        { column = "origin", op = "in", attribute = "airports" } ]
""")
AIRPORTS = ["JFK", "LGA", "EWR", "BOS", "LAX"]


class Base(DeclarativeBase):
    pass


class Planned(Base):
    __tablename__ = "planned"
    id: Mapped[int] = mapped_column(primary_key=True)
    carrier: Mapped[str]
    origin: Mapped[str]
    tail: Mapped[str]


Table("untold", Base.metadata, Column("id", Integer, primary_key=True), Column("who", String))


def _rows() -> list[dict[str, Any]]:
    return [
        {"id": n, "carrier": "AAUA"[n % 2 * 2 :][:2], "origin": AIRPORTS[n % 5], "tail": "SECRET" if n % 2 else "7"}
        for n in range(1, 41)
    ]


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A guarded engine with forty rows."""
    url = f"sqlite:///{tmp_path / 'planned.sqlite'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_uri").replace("postgresql:", "postgresql+psycopg:")
    bare = create_engine(url)
    Base.metadata.drop_all(bare)
    Base.metadata.create_all(bare)
    with bare.begin() as connection:
        connection.execute(insert(Planned), _rows())
    bare.dispose()
    made = protect(create_engine(url), POLICY)
    yield made
    made.dispose()


@contextmanager
def embed(carrier: str, *airports: str) -> Iterator[RowAccess]:
    row_filter = POLICY.row_filter({"carrier": carrier, "airports": list(airports or AIRPORTS)})
    assert isinstance(row_filter, RowFilter)
    access = RowAccess(row_filter)
    token = current_row_access.set(access)
    try:
        yield access
    finally:
        access.closed = True
        current_row_access.reset(token)


def seen(access: RowAccess) -> list[int]:
    return [row["id"] for row in _rows() if access.row_filter.matches("planned", row)]


def test_each_tenant_gets_its_own_by_one_cached_statement(engine: Engine) -> None:
    statement = "SELECT id FROM planned WHERE id <> :one AND tail NOT LIKE '%x' ORDER BY id"
    compiled: list[object] = []
    event.listen(engine, "before_cursor_execute", lambda *event_: compiled.append(event_[4].compiled))
    for carrier in ("AA", "UA", "AA"):
        for airports in (["JFK"], ["JFK", "LGA"], AIRPORTS, ["nowhere"], []):
            with embed(carrier, *airports) as access, Session(engine) as session:
                assert list(session.scalars(text(statement), {"one": 99})) == seen(access)
                assert access.receipts == {"planned": POLICY.version}
    assert len({id(known) for known in compiled}) == 1


READS: list[tuple[str, Callable[[Session], list[int]]]] = [
    ("a session", lambda s: list(s.scalars(text("SELECT id FROM planned")))),
    ("a connection", lambda s: list(s.connection().scalars(text("SELECT id FROM planned")))),
    ("columns", lambda s: list(s.scalars(text("SELECT id FROM planned").columns(column_clause("id", Integer))))),
    ("columns of the table", lambda s: list(s.scalars(text("SELECT id FROM planned").columns(Planned.id)))),
    ("entities", lambda s: [p.id for p in s.scalars(select(Planned).from_statement(text("SELECT * FROM planned")))]),
    ("streaming", lambda s: list(s.scalars(text("SELECT id FROM planned"), execution_options={"yield_per": 2}))),
    ("a parameter with a type", lambda s: list(
        s.scalars(text("SELECT id FROM planned WHERE id < :x").bindparams(bindparam("x", type_=Integer)), {"x": 99}))),
    ("a parameter with a value", lambda s: list(
        s.scalars(text("SELECT id FROM planned WHERE id < :x").bindparams(x=99)))),
    ("the same parameter twice", lambda s: list(
        s.scalars(text("SELECT id FROM planned WHERE id < :x AND :x > 0"), {"x": 99}))),
    ("a WITH query", lambda s: list(s.scalars(text("WITH p AS (SELECT * FROM planned) SELECT p.id FROM p")))),
    ("joined with itself", lambda s: list(s.scalars(text("SELECT a.id FROM planned a JOIN planned b USING (id)")))),
]  # fmt: skip


def test_a_colon_behind_a_backslash_begins_no_parameter(engine: Engine) -> None:
    statement = text(r"SELECT '12\:30' AS at, '\:x' AS x, CAST(:x AS INTEGER) AS one FROM planned WHERE tail <> '\:id'")
    with embed("AA", "JFK") as access, Session(engine) as session:
        assert session.execute(statement, {"x": 1}).all() == [("12:30", ":x", 1)] * len(seen(access))


@pytest.mark.parametrize("read", [pytest.param(read, id=name) for name, read in READS])
def test_read(engine: Engine, read: Callable[[Session], list[int]]) -> None:
    for carrier in ("AA", "UA"):
        with embed(carrier, "JFK", "BOS", "LAX") as access, Session(engine) as session:
            assert sorted(read(session)) == seen(access)
            assert access.receipts


REFUSED: list[tuple[str, str]] = [
    ("a table that the policy does not name", "SELECT * FROM untold"),
    ("an UPDATE", "UPDATE planned SET carrier = 'AA'"),
    ("a DELETE", "DELETE FROM planned"),
    ("an INSERT", "INSERT INTO planned VALUES (99, 'AA', 'JFK', '')"),
    ("two statements", "SELECT 1; SELECT 2"),
    ("a PRAGMA", "PRAGMA table_info(planned)"),
    ("a parameter of the filter", "SELECT * FROM planned WHERE carrier = :tg_0"),
    ("a parameter without a name", "SELECT * FROM planned WHERE carrier = ?"),
    ("an escaped colon", r"SELECT '\:x' FROM planned WHERE \:x = 1"),
]


@pytest.mark.parametrize("sql", [pytest.param(sql, id=name) for name, sql in REFUSED])
def test_refused(engine: Engine, sql: str) -> None:
    with embed("AA"), Session(engine) as session:
        with pytest.raises(QueryRefused):
            session.execute(text(sql))
        with pytest.raises(QueryRefused):
            session.connection().exec_driver_sql("SELECT id FROM planned")


def test_the_filters_parameters_cannot_be_given_from_outside(engine: Engine) -> None:
    for name in ("tg_0", "tg_0_1", "tg_1", "tg_1_1"):
        with embed("AA") as access, Session(engine) as session:
            try:
                found = list(session.scalars(text("SELECT id FROM planned ORDER BY id"), {name: "UA"}))
            except QueryRefused:
                continue
            assert found == seen(access)


def test_many_at_once_are_refused(engine: Engine) -> None:
    with embed("AA"), engine.connect() as connection, pytest.raises(QueryRefused, match="one set of parameters"):
        connection.execute(text("SELECT id FROM planned WHERE id = :x"), [{"x": 1}, {"x": 2}])


def test_without_an_embed_nothing_runs(engine: Engine) -> None:
    with embed("AA") as access:
        pass
    with Session(engine) as session, pytest.raises(NoEmbedContext):
        session.execute(text("SELECT id FROM planned"))
    token = current_row_access.set(access)
    with Session(engine) as session, pytest.raises(NoEmbedContext):
        session.execute(text("SELECT id FROM planned"))
    current_row_access.reset(token)


def test_an_error_says_nothing_of_a_hidden_row(engine: Engine) -> None:
    with embed("AA") as access, Session(engine) as session:
        for condition in ("CAST(tail AS INTEGER) = :seven", "1 / (length(tail) - 6) < :seven"):
            found = session.scalars(text(f"SELECT id FROM planned WHERE {condition} ORDER BY id"), {"seven": 7})
            assert list(found) == seen(access)
    with embed("UA"), Session(engine) as session:
        if engine.dialect.name == "postgresql":
            with pytest.raises(DBAPIError, match="SECRET"):
                session.execute(text("SELECT id FROM planned WHERE CAST(tail AS INTEGER) = 7"))


def test_async_sessions(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'planned.sqlite'}"

    async def run() -> None:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(insert(Planned), _rows())
        sessions = protect(async_sessionmaker(engine), POLICY)
        with embed("UA", "JFK", "LGA") as access:
            async with sessions() as session:
                assert list(await session.scalars(text("SELECT id FROM planned ORDER BY id"))) == seen(access)
                with pytest.raises(QueryRefused):
                    await session.execute(text("SELECT * FROM untold"))
        await engine.dispose()

    asyncio.run(run())
