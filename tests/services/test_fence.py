"""On PostgreSQL and SQLite: no condition of the host's own is tried on a hidden row, or its error would tell of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    and_,
    case,
    cast,
    create_engine,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, aliased, column_property, registry, relationship, with_loader_criteria

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sqlalchemy import protect

# Dear to look at, so that a database which takes the cheapest condition first takes the host's.
POLICY = RlsPolicy.from_toml("""
[attributes]
carrier = "string"
airports = { type = "string", list = true }

[tables.flights]
any = [
  { all = [ { column = "carrier", op = "eq", attribute = "carrier" },
            { column = "origin", op = "in", attribute = "airports" } ] },
  { all = [ { column = "carrier", op = "eq", attribute = "carrier" },
            { column = "dest", op = "in", attribute = "airports" } ] },
  { column = "origin", op = "starts_with", attribute = "carrier" },
]
write = true

[tables.planes]
open = true
""")
META = MetaData()
FLIGHTS = Table(
    "flights",
    META,
    Column("id", Integer, primary_key=True),
    Column("carrier", String),
    Column("origin", String),
    Column("dest", String),
    Column("delay", Integer),
    Column("note", String),
    Column("plane", ForeignKey("planes.id")),
    Column("cost", Numeric),
)
PLANES = Table("planes", META, Column("id", Integer, primary_key=True), Column("seats", Integer))
OWN = [1, 2, 3]


class Flight:
    id: Any
    delay: Any
    plane: Any


class Plane:
    flights: Any
    late: Any


mapped = registry()
mapped.map_imperatively(
    Flight,
    FLIGHTS,
    properties={
        "owner": relationship(Plane, primaryjoin=lambda: and_(PLANES.c.id == FLIGHTS.c.plane, NUMBER > 0)),
        "ratio": column_property(100 / (FLIGHTS.c.delay - 17)),
    },
)
mapped.map_imperatively(
    Plane,
    PLANES,
    properties={
        "flights": relationship(
            Flight, primaryjoin=lambda: and_(PLANES.c.id == FLIGHTS.c.plane, NUMBER > 0), viewonly=True
        )
    },
)


def _fill(engine: Engine) -> None:
    META.create_all(engine)
    own = {"carrier": "AA", "origin": "JFK", "dest": "BOS", "delay": 5, "note": "12", "plane": 1, "cost": 5}
    hidden = {**own, "carrier": "UA", "delay": 17, "note": "the secret of UA", "cost": 5}
    with engine.begin() as connection:
        connection.execute(insert(PLANES), [{"id": 1, "seats": 100}])
        connection.execute(insert(FLIGHTS), [{"id": n, **(own if n in OWN else hidden)} for n in range(9)])
        if engine.dialect.name == "postgresql":
            # More than a binary number can be.
            connection.execute(text("UPDATE flights SET cost = 10::numeric ^ 400 WHERE carrier = 'UA'"))


@pytest.fixture(scope="module")
def postgres(make_database: Callable[[], Any]) -> Iterator[Engine]:
    """Without protection."""
    engine = create_engine(make_database().owner.replace("postgresql://", "postgresql+psycopg://", 1))
    _fill(engine)
    yield engine
    engine.dispose()


@pytest.fixture(params=["postgresql", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Protected, on rows of which each hidden one makes a condition below fail."""
    if request.param == "postgresql":
        engine = create_engine(request.getfixturevalue("postgres").url)
    else:
        engine = create_engine(f"sqlite:///{tmp_path / 'rows.sqlite'}")
        _fill(engine)
    yield protect(engine, POLICY)
    engine.dispose()


@pytest.fixture(autouse=True)
def _embed() -> Iterator[None]:
    row_filter = POLICY.row_filter({"carrier": "AA", "airports": ["JFK", "LGA", "EWR"]})
    assert isinstance(row_filter, RowFilter)
    token = current_row_access.set(RowAccess(row_filter))
    yield
    current_row_access.reset(token)


# SQLite divides by zero without a word; that text is no JSON it says.
NUMBER = cast(FLIGHTS.c.note, Integer)
RATIO = 100 / (FLIGHTS.c.delay - 17)
ON_SQLITE = func.json_extract(FLIGHTS.c.note, "$") > 0


def _failing(dialect: str) -> list[Any]:
    if dialect == "sqlite":
        return [ON_SQLITE, not_(func.json_extract(FLIGHTS.c.note, "$") < 0)]
    return [NUMBER > 0, RATIO < 0, case((NUMBER > 0, literal(1)), else_=0) == 1, FLIGHTS.c.cost < cast(9.5, Float)]


def _computed(condition: Any) -> Any:
    return select(FLIGHTS.c.id, condition.label("x"))


def _outside(inner: Any) -> Any:
    return select(inner.c.id).where(inner.c.x)


Q = Callable[[Any], Any]
QUERIES: list[tuple[str, Q]] = [
    ("where", lambda c: select(FLIGHTS.c.id).where(c)),
    ("where, negated", lambda c: select(FLIGHTS.c.id).where(~(~c))),
    ("where, beside an or", lambda c: select(FLIGHTS.c.id).where(or_(c, FLIGHTS.c.delay == 5))),
    ("having", lambda c: select(FLIGHTS.c.id).group_by(FLIGHTS.c.id, FLIGHTS).having(c)),
    ("on", lambda c: select(FLIGHTS.c.id).join(PLANES, and_(PLANES.c.id == FLIGHTS.c.plane, c))),
    ("on, of an outer join", lambda c: select(FLIGHTS.c.id).outerjoin(PLANES, c)),
    ("column of a sub-query", lambda c: _outside(_computed(c).subquery())),
    ("column of a WITH query", lambda c: _outside(_computed(c).cte())),
    ("column of a union", lambda c: _outside(union_all(_computed(c), _computed(c).where(FLIGHTS.c.id < 0)).subquery())),
    ("exists", lambda c: select(PLANES.c.id + 0).where(exists().where(FLIGHTS.c.plane == PLANES.c.id, c))),
    ("in", lambda c: select(FLIGHTS.c.id).where(FLIGHTS.c.id.in_(select(FLIGHTS.c.id).where(c)))),
    ("aggregate", lambda c: select(func.count()).select_from(FLIGHTS).where(c)),
    ("scalar", lambda c: select(select(func.count()).select_from(FLIGHTS).where(c).scalar_subquery())),
    ("lock", lambda c: select(FLIGHTS.c.id).where(c).with_for_update(of=FLIGHTS)),
]  # fmt: skip


@pytest.mark.parametrize("query", [pytest.param(query, id=name) for name, query in QUERIES])
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
def test_a_condition_that_fails_on_hidden_rows_does_not_fail(engine: Engine, query: Q) -> None:
    for condition in _failing(engine.dialect.name):
        with engine.connect() as connection:
            found = list(connection.scalars(query(condition)))
        assert set(found) <= {*OWN, len(OWN)}, condition


@pytest.mark.parametrize("write", [update(FLIGHTS).values(delay=5), delete(FLIGHTS)], ids=["update", "delete"])
def test_neither_does_one_of_a_write(engine: Engine, write: Any) -> None:
    for condition in _failing(engine.dialect.name):
        with engine.connect() as connection:
            inner = exists(select(PLANES.c.id).where(condition).correlate(FLIGHTS))
            for statement in (write.where(condition), write.where(FLIGHTS.c.delay < 99, condition), write.where(inner)):
                assert connection.execute(statement).rowcount <= len(OWN)
                connection.rollback()
            if write.is_update or engine.dialect.name == "postgresql":  # SQLite has no DELETE … USING
                connection.execute(write.where(FLIGHTS.c.plane == PLANES.c.id, condition, PLANES.c.seats > 0))
                connection.rollback()


def test_nor_one_that_a_mapping_brings_along(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        criterion = with_loader_criteria(Flight, ON_SQLITE)
    else:
        criterion = with_loader_criteria(Flight, NUMBER > 0)
    with Session(engine) as session:
        late = aliased(Flight)
        assert {f.id for f in session.scalars(select(Flight).options(criterion))} == set(OWN)
        session.expunge_all()
        if engine.dialect.name == "postgresql":
            assert {f.id for f in session.scalars(select(late).where(late.ratio < 0))} == set(OWN)  # type: ignore[attr-defined]
            assert {f.id for f in session.scalars(select(Plane)).one().flights} == set(OWN)
            assert {f for (f,) in session.execute(select(Flight.id).join(Plane.flights))} == set(OWN)
        assert session.execute(update(Flight).values(delay=5).options(criterion)).rowcount == len(OWN)  # type: ignore[attr-defined]
        session.rollback()


@pytest.mark.parametrize("condition", _failing("postgresql"), ids=["cast", "division", "case", "rounding"])
def test_filtered_by_hand_each_of_them_would_have_failed(postgres: Engine, condition: Any) -> None:
    rule = or_(
        and_(FLIGHTS.c.carrier == "AA", FLIGHTS.c.origin.in_(["JFK", "LGA", "EWR"])),
        and_(FLIGHTS.c.carrier == "AA", FLIGHTS.c.dest.in_(["JFK", "LGA", "EWR"])),
        func.substr(FLIGHTS.c.origin, 1, 2) == "AA",
    )
    with postgres.connect() as connection:
        for statement in (select(FLIGHTS.c.id).where(rule, condition), delete(FLIGHTS).where(rule, condition)):
            with pytest.raises(DBAPIError):
                connection.execute(statement)
            connection.rollback()
