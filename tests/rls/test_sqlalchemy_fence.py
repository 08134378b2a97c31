"""The fence: which statements have one, as text; that it holds is tried on PostgreSQL in ``tests/services``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    all_,
    and_,
    case,
    cast,
    create_engine,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.rls.sqlalchemy import protect

POLICY = RlsPolicy.from_toml("""
[attributes]
carrier = "string"
[tables.flights]
all = [{ column = "carrier", op = "eq", attribute = "carrier" }]
[tables.planes]
open = true
write = true
""")
META = MetaData()
FLIGHTS = Table(
    "flights",
    META,
    Column("id", Integer, primary_key=True),
    Column("carrier", String),
    Column("origin", String),
    Column("delay", Integer),
    Column("note", String),
    Column("plane", Integer),
    Column("cost", Numeric),
    Column("price", Float),
)
PLANES = Table("planes", META, Column("id", Integer, primary_key=True), Column("seats", Integer))
NUMBER = cast(FLIGHTS.c.note, Integer)
RATIO = 100 / (FLIGHTS.c.delay - 17)
RATIOS = select(FLIGHTS.c.id, RATIO.label("x")).subquery()


def _inside(column: Any, more: Callable[[Any], Any] = lambda query: query) -> Any:
    """A query in a condition on flights, whose rows it can name."""
    return more(select(column).select_from(PLANES).correlate(FLIGHTS)).scalar_subquery()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """A protected engine that never connects."""
    if request.param == "sqlite":
        return protect(create_engine("sqlite://"), POLICY)
    pool = NullPool(lambda: pytest.fail("nothing connects"))
    return protect(Engine(pool, postgresql.dialect(), make_url("postgresql://")), POLICY)


CERTAIN: list[tuple[str, Any]] = [
    ("nothing", select(FLIGHTS)),
    ("a comparison", select(FLIGHTS.c.id).where(FLIGHTS.c.delay > 5, FLIGHTS.c.note == "x")),
    ("a list", select(FLIGHTS.c.id).where(FLIGHTS.c.id.in_([1, 2]), FLIGHTS.c.id.not_in([7]))),
    ("between, or, not", select(FLIGHTS.c.id).where(or_(FLIGHTS.c.id.between(1, 2), ~(FLIGHTS.c.delay == 5)))),
    ("null", select(FLIGHTS.c.id).where(FLIGHTS.c.note.is_(None) | FLIGHTS.c.note.is_not(None))),
    ("a join", select(FLIGHTS.c.id).join(PLANES, PLANES.c.id == FLIGHTS.c.plane)),
    ("an outer join of aliases", select(FLIGHTS.c.id).outerjoin((p := PLANES.alias()), p.c.id == FLIGHTS.c.plane)),
    ("exists", select(PLANES.c.id).where(exists().where(FLIGHTS.c.plane == PLANES.c.id))),
    ("in a query", select(FLIGHTS.c.id).where(FLIGHTS.c.id.in_(select(FLIGHTS.c.id).where(FLIGHTS.c.delay > 5)))),
    ("an aggregate", select(FLIGHTS.c.origin, func.avg(RATIO)).group_by(FLIGHTS.c.origin)),
    ("a computed column", select(RATIO, func.coalesce(FLIGHTS.c.note, "")).order_by(NUMBER)),
    ("an aggregate of aggregates", select(select(func.count().label("n")).select_from(FLIGHTS).subquery().c.n)),
    ("the largest of a query", select(FLIGHTS.c.id).where(FLIGHTS.c.delay == _inside(func.max(PLANES.c.seats)))),
    ("the order of a query that is calm", select(FLIGHTS.c.id).where(
        FLIGHTS.c.plane.in_(select(PLANES.c.id).group_by(PLANES.c.id).order_by(PLANES.c.id.desc())))),
    ("update", update(FLIGHTS).where(FLIGHTS.c.delay > 5).values(delay=1)),
    ("delete", delete(FLIGHTS).where(FLIGHTS.c.delay > 5, FLIGHTS.c.id.in_([1]))),
]  # fmt: skip


@pytest.mark.parametrize("statement", [pytest.param(statement, id=name) for name, statement in CERTAIN])
def test_what_cannot_fail_is_not_fenced_and_keeps_its_index(engine: Engine, statement: Any) -> None:
    written = str(statement.compile(engine))
    assert "OFFSET" not in written
    assert "LIMIT" not in written
    assert "CASE" not in written


FAILING: list[tuple[str, Any]] = [
    ("arithmetic", select(FLIGHTS.c.id).where(RATIO > 0)),
    ("a function", select(FLIGHTS.c.id).where(func.lower(FLIGHTS.c.note) == "x")),
    ("a pattern", select(FLIGHTS.c.id).where(FLIGHTS.c.note.like("x%"))),
    ("an operator of one's own", select(FLIGHTS.c.id).where(FLIGHTS.c.note.op("~")("x"))),
    ("case", select(FLIGHTS.c.id).where(case((FLIGHTS.c.id == 1, literal(1)), else_=0) == 1)),
    ("in the middle of others", select(FLIGHTS.c.id).where(or_(FLIGHTS.c.id == 1, and_(FLIGHTS.c.id == 2, NUMBER)))),
    ("negated", select(FLIGHTS.c.id).where(~((NUMBER > 1) & (FLIGHTS.c.id == 1)))),
    ("in a list", select(FLIGHTS.c.id).where(FLIGHTS.c.id.in_([NUMBER]))),
    ("in a tuple", select(FLIGHTS.c.id).where(tuple_(FLIGHTS.c.id, NUMBER).in_([(1, 2)]))),
    ("decimal beside binary", select(FLIGHTS.c.id).where(FLIGHTS.c.cost > FLIGHTS.c.price)),
    ("all of a query", select(FLIGHTS.c.id).where(FLIGHTS.c.id > all_(select(PLANES.c.id).scalar_subquery()))),
    ("having", select(FLIGHTS.c.note).group_by(FLIGHTS.c.note).having(NUMBER > 1)),
    ("on", select(FLIGHTS.c.id).join(PLANES, PLANES.c.id == NUMBER)),
    ("on, inside a join", select(FLIGHTS.c.id).join(FLIGHTS.alias("x").join(PLANES, NUMBER > 1), PLANES.c.id == 1)),
    ("column of a sub-query", select(RATIOS.c.id).where(RATIOS.c.x > 1)),
    ("a query inside", select(PLANES.c.id).where(exists().where(FLIGHTS.c.id == PLANES.c.id, NUMBER > 1))),
    ("a union", union_all(select(FLIGHTS.c.id).where(NUMBER > 1), select(PLANES.c.id))),
    ("a function in FROM", select(FLIGHTS.c.id, func.json_each(FLIGHTS.c.note).table_valued("value").c.value)),
    ("the order of a query", select(FLIGHTS.c.id).where(_inside(literal(1), lambda q: q.order_by(NUMBER)) == 1)),
    ("the limit of a query", select(FLIGHTS.c.id).where(_inside(literal(1), lambda q: q.limit(NUMBER)) == 1)),
    ("a limit that may be negative",
     select(FLIGHTS.c.id).where(_inside(literal(1), lambda q: q.limit(FLIGHTS.c.delay)) == 1)),
    ("the groups of a query", select(FLIGHTS.c.id).where(_inside(literal(1), lambda q: q.group_by(NUMBER)) == 1)),
    ("an aggregate of a query", select(FLIGHTS.c.id).where(_inside(func.max(NUMBER + PLANES.c.id)) > 1)),
    ("a window of a query", select(FLIGHTS.c.id).where(_inside(func.sum(NUMBER).over()) > 1)),
    ("a query in a list", select((q := select(
        FLIGHTS.c.id, _inside(literal(1), lambda q: q.order_by(NUMBER)).label("x")
    ).subquery()).c.id).where(q.c.x == 1)),
    ("update that reads", update(PLANES).where(PLANES.c.id.in_(select(NUMBER).where(FLIGHTS.c.id == 1)))),
]  # fmt: skip


@pytest.mark.parametrize("statement", [pytest.param(statement, id=name) for name, statement in FAILING])
def test_what_can_fail_is_fenced(engine: Engine, statement: Any) -> None:
    fence = {"sqlite": "LIMIT -1) AS flights", "postgresql": "OFFSET 0) AS flights"}[engine.dialect.name]
    assert fence in str(statement.compile(engine))


def test_an_open_table_needs_none(engine: Engine) -> None:
    assert "SELECT planes.id \nFROM planes \nWHERE " in str(
        select(PLANES.c.id).where(1 / PLANES.c.id > 1).compile(engine)
    )


@pytest.mark.parametrize("write", [update(FLIGHTS).values(delay=1), delete(FLIGHTS)], ids=["update", "delete"])
@pytest.mark.parametrize(
    "condition",
    [NUMBER > 1, exists(select(PLANES.c.id).where(NUMBER > 1).correlate(FLIGHTS))],
    ids=["of its own", "of a query in it"],
)
def test_a_write_asks_its_rule_first(engine: Engine, write: Any, condition: Any) -> None:
    written = str(write.where(FLIGHTS.c.id > 1, condition).compile(engine))
    _, where = written.split("WHERE ", 1)
    before, inside = where.split("CASE WHEN (", 1)
    assert "flights.carrier" in before
    assert "flights.id >" in before
    assert "flights.carrier" in inside.split(" THEN ")[0]
    assert "CAST(flights.note" in inside.split(" THEN ")[1]
