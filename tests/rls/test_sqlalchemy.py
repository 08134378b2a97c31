"""Every way to ask for flights gives the rows that ``RowFilter.matches`` says, for each tenant, and no other."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import (
    Integer,
    String,
    and_,
    bindparam,
    case,
    cast,
    column,
    create_engine,
    delete,
    exists,
    func,
    insert,
    lambda_stmt,
    literal,
    literal_column,
    null,
    or_,
    select,
    table,
    true,
    tuple_,
    union,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    Bundle,
    Session,
    aliased,
    contains_eager,
    defer,
    immediateload,
    joinedload,
    load_only,
    scoped_session,
    selectin_polymorphic,
    selectinload,
    sessionmaker,
    subqueryload,
    with_polymorphic,
)

from toucan_guard.core.errors import ConfigError, GuardError, NoEmbedContext, QueryRefused
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sqlalchemy import protect

Rows = list[dict[str, Any]]
World = Any


def ids(rows: Rows) -> list[int]:
    return sorted(row["id"] for row in rows)


def _cte_recursive(w: World, s: Session) -> list[int]:
    f = w.Flight
    walk = select(f.id, f.next_id).where(f.month == 1).cte("walk", recursive=True)
    walk = walk.union(select(f.id, f.next_id).join(walk, walk.c.next_id == f.id))
    return sorted(set(s.scalars(select(walk.c.id))))


def _walk(rows: Rows) -> list[int]:
    by_id = {row["id"]: row for row in rows}
    found = {row["id"] for row in rows if row["month"] == 1}
    while more := {by_id[i]["next_id"] for i in found} & by_id.keys() - found:
        found |= more
    return sorted(found)


def _refreshed(w: World, s: Session) -> list[int]:
    found = list(s.scalars(select(w.Flight)))
    s.expire_all()
    for flight in found:
        s.refresh(flight)
    return sorted(flight.id for flight in found)


def _expired(w: World, s: Session) -> list[int]:
    found = list(s.scalars(select(w.Flight)))
    s.expire_all()
    return sorted(flight.month and flight.id for flight in found)


def _deferred(w: World, s: Session) -> list[int]:
    found = list(s.scalars(select(w.Flight).options(defer(w.Flight.delay))))
    return sorted((flight.delay or 0) * 0 + flight.id for flight in found)


def _lazy(w: World, s: Session) -> list[int]:
    return sorted(flight.id for airline in s.scalars(select(w.Airline)) for flight in airline.flights)


def _eager(strategy: Callable[..., Any]) -> Callable[[World, Session], list[int]]:
    def run(w: World, s: Session) -> list[int]:
        airlines = s.scalars(select(w.Airline).options(strategy(w.Airline.flights))).unique()
        return sorted(flight.id for airline in airlines for flight in airline.flights)

    return run


def _contains_eager(w: World, s: Session) -> list[int]:
    query = select(w.Airline).join(w.Airline.flights).options(contains_eager(w.Airline.flights))
    return sorted(flight.id for airline in s.scalars(query).unique() for flight in airline.flights)


def _ids_of(make: Callable[[World], Any]) -> Callable[[World, Session], list[int]]:
    return lambda w, s: sorted(s.scalars(make(w)))


def _objects(make: Callable[[World], Any]) -> Callable[[World, Session], list[int]]:
    return lambda w, s: sorted(flight.id for flight in s.scalars(make(w)))


def _lightweight(w: World, s: Session) -> list[int]:
    flights = table("flights", column("id"))
    return sorted(s.scalars(select(flights.c.id)))


def _cte_twice(w: World, s: Session) -> Any:
    c = select(w.Flight.id).cte("c")
    return s.scalar(select(func.count()).select_from(c.alias("a")).join(c.alias("b"), true()))


def _lambda(w: World, s: Session) -> list[int]:
    flight = w.Flight
    return sorted(s.scalars(lambda_stmt(lambda: select(flight.id))))


def _join_values(w: World) -> Any:
    months = union_all(*(select(literal(n).label("n")) for n in range(1, 13))).cte()
    return select(w.Flight.id).join(months, months.c.n == w.Flight.month)


def _table_valued(w: World) -> Any:
    months = func.json_each(func.json_array(*range(1, 13))).table_valued("value")
    return select(w.Flight.id).join(months, months.c.value == w.Flight.month)


def _other_half(w: World) -> Any:
    """Pairs of flights of one month: the alias must be filtered as well."""
    a, b = aliased(w.Flight), aliased(w.Flight, name="flights_again")
    return select(b.id).distinct().join(a, a.month == b.month)


def _same_month(rows: Rows) -> list[int]:
    return ids(rows)


def _of_airlines(rows: Rows) -> list[int]:
    return ids([row for row in rows if row["carrier"] in ("AA", "UA")])


FLIGHTS: list[Any] = [
    ("orm select", _objects(lambda w: select(w.Flight)), ids),
    ("orm columns", _ids_of(lambda w: select(w.Flight.id)), ids),
    ("legacy query", lambda w, s: sorted(f.id for f in s.query(w.Flight).all()), ids),
    ("legacy query count", lambda w, s: s.query(w.Flight).count(), len),
    (
        "legacy query get",
        lambda w, s: sorted(i for i in range(1, 41) if s.query(w.Flight).filter_by(id=i).first()),
        ids,
    ),
    ("session get", lambda w, s: sorted(i for i in range(1, 41) if s.get(w.Flight, i)), ids),
    (
        "session get twice, from the identity map",
        lambda w, s: (
            [s.get(w.Flight, i) for i in range(41)] and sorted(f.id for i in range(41) if (f := s.get(w.Flight, i)))
        ),
        ids,
    ),
    ("session get many in one go", _objects(lambda w: select(w.Flight).where(w.Flight.id.in_(range(99)))), ids),
    ("core table", _ids_of(lambda w: select(w.Flight.__table__.c.id)), ids),
    ("core alias", _ids_of(lambda w: select(w.Flight.__table__.alias("x").c.id)), ids),
    ("alias of an alias", _ids_of(lambda w: select(w.Flight.__table__.alias("x").alias("y").c.id)), ids),
    ("alias that is named like an open table", _ids_of(lambda w: select(aliased(w.Flight, name="airlines").id)), ids),
    ("alias that is named like the table itself", _ids_of(lambda w: select(aliased(w.Flight, name="flights").id)), ids),
    ("lightweight table", _lightweight, ids),
    ("where that is always true", _ids_of(lambda w: select(w.Flight.id).where(or_(true(), w.Flight.id > 0))), ids),
    (
        "where that asks for the other tenant",
        _ids_of(lambda w: select(w.Flight.id).where(or_(w.Flight.carrier != "AA", w.Flight.carrier == "AA"))),
        ids,
    ),
    ("inner join", _ids_of(lambda w: select(w.Flight.id).join(w.Airline)), _of_airlines),
    (
        "outer join from an open table",
        _ids_of(
            lambda w: select(w.Flight.id).select_from(w.Airline).outerjoin(w.Flight).where(w.Flight.id.is_not(None))
        ),
        _of_airlines,
    ),
    (
        "outer join onto nothing keeps the left side",
        lambda w, s: len(
            s.execute(select(w.Airline.code, w.Flight.id).outerjoin(w.Flight, and_(w.Flight.id == -1))).all()
        ),
        lambda rows: 2,
    ),
    ("self join", lambda w, s: sorted(s.scalars(_other_half(w))), _same_month),
    (
        "cross join",
        lambda w, s: s.scalar(select(func.count()).select_from(w.Flight).join(aliased(w.Flight), true())),
        lambda rows: len(rows) ** 2,
    ),
    ("aliased flat", _ids_of(lambda w: select(aliased(w.Flight, flat=True).id)), ids),
    ("lazy relationship", _lazy, _of_airlines),
    ("joined eager load", _eager(joinedload), _of_airlines),
    ("inner joined eager load", _eager(lambda r: joinedload(r, innerjoin=True)), _of_airlines),
    ("selectin eager load", _eager(selectinload), _of_airlines),
    ("subquery eager load", _eager(subqueryload), _of_airlines),
    ("immediate load", _eager(immediateload), _of_airlines),
    ("contains eager", _contains_eager, _of_airlines),
    (
        "many to one that leads to a hidden row is empty",
        lambda w, s: sorted(
            f.id for f in s.scalars(select(w.Flight)) if f.plane is not None and f.plane.carrier != f.carrier
        ),
        lambda rows: [],
    ),
    (
        "relationship any",
        _ids_of(lambda w: select(func.count()).where(w.Airline.flights.any(w.Flight.id > 0)).select_from(w.Airline)),
        lambda rows: [len({row["carrier"] for row in rows} & {"AA", "UA"})],
    ),
    ("relationship has", _ids_of(lambda w: select(w.Flight.id).where(w.Flight.airline.has())), _of_airlines),
    ("sub-query in from", _ids_of(lambda w: select(select(w.Flight).subquery().c.id)), ids),
    ("sub-query in in", _ids_of(lambda w: select(w.Flight.id).where(w.Flight.id.in_(select(w.Flight.id)))), ids),
    (
        "scalar sub-query among the columns",
        lambda w, s: s.scalar(select(select(func.count(w.Flight.id)).scalar_subquery())),
        len,
    ),
    (
        "correlated scalar sub-query",
        lambda w, s: sum(
            s.scalars(
                select(
                    select(func.count())
                    .where(w.Flight.carrier == w.Airline.code)
                    .correlate(w.Airline)
                    .scalar_subquery()
                )
            )
        ),
        lambda rows: len(_of_airlines(rows)),
    ),
    ("exists", lambda w, s: s.scalar(select(exists().where(w.Flight.id > 0))), bool),
    ("exists of a query", lambda w, s: s.scalar(select(select(w.Flight.id).exists())), bool),
    (
        "order by a sub-query",
        _ids_of(
            lambda w: select(w.Flight.id).order_by(
                select(func.max(w.Plane.seats)).where(w.Plane.id == w.Flight.plane_id).scalar_subquery()
            )
        ),
        ids,
    ),
    ("cte", _ids_of(lambda w: select(select(w.Flight).cte("c").c.id)), ids),
    ("cte twice under aliases", _cte_twice, lambda rows: len(rows) ** 2),
    (
        "nested cte",
        _ids_of(lambda w: select(select(select(w.Flight.id).cte("a", nesting=True).c.id).cte("b").c.id)),
        ids,
    ),
    ("recursive cte", _cte_recursive, _walk),
    ("union", _ids_of(lambda w: union(select(w.Flight.id), select(w.Flight.id))), ids),
    (
        "union all",
        lambda w, s: len(s.scalars(union_all(select(w.Flight.id), select(w.Flight.id))).all()),
        lambda rows: 2 * len(rows),
    ),
    (
        "except of nothing",
        _ids_of(lambda w: select(w.Flight.id).except_(select(w.Flight.id).where(w.Flight.id < 0))),
        ids,
    ),
    ("intersect", _ids_of(lambda w: select(w.Flight.id).intersect(select(w.Flight.id))), ids),
    (
        "union as entities",
        _objects(
            lambda w: select(w.Flight).from_statement(
                union_all(select(w.Flight).where(w.Flight.id < 20), select(w.Flight).where(w.Flight.id >= 20))
            )
        ),
        ids,
    ),
    ("from statement", _objects(lambda w: select(w.Flight).from_statement(select(w.Flight.__table__))), ids),
    (
        "entity from a sub-query",
        lambda w, s: sorted(f.id for f in s.scalars(select(aliased(w.Flight, select(w.Flight).subquery())))),
        ids,
    ),
    ("count star", lambda w, s: s.scalar(select(func.count()).select_from(w.Flight)), len),
    ("count of a literal", lambda w, s: s.scalar(select(func.count(literal_column("*"))).select_from(w.Flight)), len),
    (
        "sum",
        lambda w, s: s.scalar(select(func.sum(w.Flight.month))),
        lambda rows: sum(r["month"] for r in rows) or None,
    ),
    (
        "max of hidden values",
        lambda w, s: s.scalar(select(func.max(w.Flight.id))),
        lambda rows: max(ids(rows), default=None),
    ),
    (
        "group by",
        lambda w, s: sorted(map(tuple, s.execute(select(w.Flight.month, func.count()).group_by(w.Flight.month)))),
        lambda rows: sorted({(m, sum(r["month"] == m for r in rows)) for m in (r["month"] for r in rows)}),
    ),
    (
        "having",
        lambda w, s: sorted(s.scalars(select(w.Flight.month).group_by(w.Flight.month).having(func.count() > 0))),
        lambda rows: sorted({r["month"] for r in rows}),
    ),
    (
        "distinct",
        lambda w, s: sorted(s.scalars(select(w.Flight.origin).distinct())),
        lambda rows: sorted({r["origin"] for r in rows}),
    ),
    ("aggregate filter", lambda w, s: s.scalar(select(func.count(w.Flight.id).filter(w.Flight.id > 0))), len),
    (
        "window function",
        lambda w, s: max(s.scalars(select(func.row_number().over(order_by=w.Flight.id))), default=0),
        len,
    ),
    (
        "window total",
        lambda w, s: set(s.scalars(select(func.count().over()).select_from(w.Flight))),
        lambda rows: {len(rows)} - {0},
    ),
    (
        "limit and offset",
        lambda w, s: sorted(s.scalars(select(w.Flight.id).order_by(w.Flight.id).limit(99).offset(1))),
        lambda rows: ids(rows)[1:],
    ),
    (
        "case",
        lambda w, s: sum(s.scalars(select(case((w.Flight.carrier == "AA", 0), else_=1)))),
        lambda rows: sum(r["carrier"] != "AA" for r in rows),
    ),
    (
        "tuple in",
        _ids_of(
            lambda w: select(w.Flight.id).where(
                tuple_(w.Flight.id, w.Flight.month).in_(select(w.Flight.id, w.Flight.month))
            )
        ),
        ids,
    ),
    ("cast and label", _ids_of(lambda w: select(cast(w.Flight.id, Integer).label("flights"))), ids),
    ("label that looks like SQL", _ids_of(lambda w: select(w.Flight.id.label('x" FROM flights --'))), ids),
    ("bundle", lambda w, s: sorted(row.b.id for row in s.execute(select(Bundle("b", w.Flight.id)))), ids),
    ("load only", _objects(lambda w: select(w.Flight).options(load_only(w.Flight.id))), ids),
    ("deferred column", _deferred, ids),
    ("refresh", _refreshed, ids),
    ("expired attributes", _expired, ids),
    ("with only columns", _ids_of(lambda w: select(w.Flight).with_only_columns(w.Flight.id)), ids),
    ("with for update", _ids_of(lambda w: select(w.Flight.id).with_for_update()), ids),
    (
        "bound parameters of one's own",
        lambda w, s: sorted(s.scalars(select(w.Flight.id).where(w.Flight.id > bindparam("least")), {"least": 0})),
        ids,
    ),
    ("lambda statement", _lambda, ids),
    (
        "without the compiled cache",
        lambda w, s: sorted(s.scalars(select(w.Flight.id), execution_options={"compiled_cache": None})),
        ids,
    ),
    (
        "with a cache of one's own",
        lambda w, s: sorted(s.scalars(select(w.Flight.id), execution_options={"compiled_cache": {}})),
        ids,
    ),
    ("join to literals", _ids_of(_join_values), ids),
    ("table-valued function", _ids_of(_table_valued), ids),
    ("session connection", lambda w, s: sorted(s.connection().scalars(select(w.Flight.__table__.c.id))), ids),
    (
        "stream in chunks",
        lambda w, s: sorted(
            f.id for part in s.scalars(select(w.Flight).execution_options(yield_per=3)).partitions() for f in part
        ),
        ids,
    ),
    (
        "stream of a connection",
        lambda w, s: sorted(
            s.connection().execution_options(stream_results=True, max_row_buffer=2).scalars(select(w.Flight.id))
        ),
        ids,
    ),
    ("savepoint", lambda w, s: (s.begin_nested(), sorted(s.scalars(select(w.Flight.id))), s.rollback())[1], ids),
    (
        "select star",
        lambda w, s: sorted(row[0] for row in s.execute(select(literal_column("*")).select_from(w.Flight))),
        ids,
    ),
    ("literal beside it", lambda w, s: len(s.execute(select(literal("x"), null(), w.Flight.id)).all()), len),
    ("core statement in two engines' words", lambda w, s: len(s.execute(w.Flight.__table__.select()).all()), len),
]


@pytest.mark.parametrize("tenant", ["AA", "UA"])
@pytest.mark.parametrize(("query", "truth"), [pytest.param(q, t, id=name) for name, q, t in FLIGHTS])
def test_every_kind_of_query_sees_exactly_the_matching_rows(
    world: World, query: Callable[[World, Session], Any], truth: Callable[[Rows], Any], tenant: str
) -> None:
    with world.embed(tenant) as access, world.sessions() as session:
        seen = world.seen(access.row_filter)
        assert 0 < len(seen) < len([row for row in world.rows("flights") if row["carrier"] == tenant])
        assert query(world, session) == truth(seen)
        assert access.receipts["flights"] == world.policy.version


def test_every_kind_of_query_through_async_sessions_too(world: World) -> None:
    async def run() -> None:
        engine = create_async_engine(world.url.replace("sqlite:", "sqlite+aiosqlite:"))
        sessions = protect(async_sessionmaker(engine), world.policy)
        try:
            for name, query, truth in FLIGHTS:
                with world.embed("AA") as access:
                    async with sessions() as session:
                        found = await session.run_sync(lambda sync, query=query: query(world, sync))  # type: ignore[misc]
                    assert found == truth(world.seen(access.row_filter)), name
                    assert access.receipts["flights"] == world.policy.version, name
        finally:
            await engine.dispose()

    asyncio.run(run())


@pytest.mark.parametrize(("query", "truth"), [pytest.param(q, t, id=name) for name, q, t in FLIGHTS])
def test_without_an_embed_no_query_runs(world: World, query: Callable[..., Any], truth: Callable[..., Any]) -> None:
    with world.sessions() as session, pytest.raises(NoEmbedContext) as raised:
        query(world, session)
    assert isinstance(raised.value, GuardError)


@pytest.mark.parametrize(("query", "truth"), [pytest.param(q, t, id=name) for name, q, t in FLIGHTS])
def test_an_empty_list_opens_no_row(world: World, query: Callable[..., Any], truth: Callable[..., Any]) -> None:
    with world.embed("AA", airports=()), world.sessions() as session:
        assert query(world, session) == truth([])


def test_one_cached_statement_serves_all_tenants(world: World) -> None:
    compiled = []
    real = world.engine.dialect.statement_compiler.visit_select

    class Counting(world.engine.dialect.statement_compiler):  # type: ignore[misc]
        def visit_select(self, *args: Any, **kw: Any) -> Any:
            compiled.append(1)
            return real(self, *args, **kw)

    world.engine.dialect.statement_compiler = Counting
    for carrier, airports in [("AA", ["JFK"]), ("UA", ["JFK", "BOS", "LGA"]), ("AA", []), ("UA", ["EWR"])]:
        with world.embed(carrier, airports=airports) as access, world.sessions() as session:
            assert sorted(session.scalars(select(world.Flight.id))) == ids(world.seen(access.row_filter))
    assert len(compiled) == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_tenants_side_by_side_never_mix(world: World, kind: str) -> None:
    def run(number: int) -> tuple[list[int], list[int]]:
        airports = ["JFK", "BOS"][: number % 3]
        with world.embed(("AA", "UA")[number % 2], airports=airports) as access, world.sessions() as session:
            return sorted(session.scalars(select(world.Flight.id))), ids(world.seen(access.row_filter))

    async def run_async(sessions: async_sessionmaker[AsyncSession], number: int) -> tuple[list[int], list[int]]:
        with world.embed(("AA", "UA")[number % 2], airports=["JFK", "BOS"][: number % 3]) as access:
            async with sessions() as session:
                found = sorted(await session.scalars(select(world.Flight.id)))
                await asyncio.sleep(0)
                again = [f.id async for f in await session.stream_scalars(select(world.Flight))]
                assert sorted(again) == found
                return found, ids(world.seen(access.row_filter))

    async def run_all() -> list[Any]:
        engine = create_async_engine(world.url.replace("sqlite:", "sqlite+aiosqlite:"))
        sessions = protect(async_sessionmaker(engine), world.policy)
        try:
            return await asyncio.gather(*(run_async(sessions, number) for number in range(12)))
        finally:
            await engine.dispose()

    if kind == "async":
        results = asyncio.run(run_all())
    else:
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(run, range(12)))
    assert len({tuple(found) for found, _ in results}) > 3
    for found, truth in results:
        assert found == truth


def test_a_thread_without_the_context_sees_nothing(world: World) -> None:
    def run() -> list[int]:
        with world.sessions() as session:
            return sorted(session.scalars(select(world.Flight.id)))

    with world.embed("AA") as access, ThreadPoolExecutor(1) as pool:
        with pytest.raises(NoEmbedContext):
            pool.submit(run).result()
        copied = contextvars.copy_context()
        assert pool.submit(copied.run, run).result() == ids(world.seen(access.row_filter))


def test_a_task_that_outlives_its_connection_is_refused(world: World) -> None:
    with world.embed("AA"):
        session = world.sessions()
        flight = session.scalars(select(world.Flight)).first()
        late = contextvars.copy_context()
    with pytest.raises(NoEmbedContext, match="after the end"):
        late.run(session.scalars, select(world.Flight))
    with pytest.raises(NoEmbedContext):
        late.run(session.get, world.Flight, flight.id)
    late.run(session.close)


@pytest.mark.parametrize(
    "touch",
    [
        pytest.param(lambda w, s, f: s.get(w.Flight, f.id), id="get from the identity map"),
        pytest.param(lambda w, s, f: s.get_one(w.Flight, f.id), id="get_one from the identity map"),
        pytest.param(lambda w, s, f: s.query(w.Flight).get(f.id), id="Query.get from the identity map"),
        pytest.param(lambda w, s, f: list(s), id="iteration over the session"),
        pytest.param(lambda w, s, f: s.merge(f), id="merge"),
        pytest.param(lambda w, s, f: s.merge(f, load=False), id="merge without loading"),
        pytest.param(lambda w, s, f: s.refresh(f), id="refresh"),
        pytest.param(lambda w, s, f: s.scalars(select(w.Flight)).all(), id="query"),
        pytest.param(lambda w, s, f: s.scalar(select(1)), id="query without a table"),
        pytest.param(lambda w, s, f: s.connection(), id="connection"),
        pytest.param(lambda w, s, f: f.airline, id="lazy load of an object that is in the identity map"),
        pytest.param(lambda w, s, f: (setattr(f, "month", 5), s.flush()), id="flush"),
        pytest.param(lambda w, s, f: (s.expire(f), f.month), id="expired attribute"),
        pytest.param(lambda w, s, f: s.bulk_update_mappings(w.Flight, [{"id": f.id, "month": 1}]), id="bulk update"),
    ],
)
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.LegacyAPIWarning")
def test_a_session_serves_one_embed(world: World, touch: Callable[..., Any]) -> None:
    with world.sessions() as session:
        with world.embed("AA"):
            list(session.scalars(select(world.Airline)))
            flight = session.scalars(select(world.Flight).where(world.Flight.carrier == "AA")).first()
        for carrier in ("UA", "AA"):
            with world.embed(carrier), pytest.raises(QueryRefused, match="another embed"):
                touch(world, session, flight)
            session.rollback()
        with pytest.raises(NoEmbedContext):
            touch(world, session, flight)


def test_a_closed_session_may_serve_another_embed(world: World) -> None:
    session = world.sessions()
    for carrier in ("AA", "UA"):
        with world.embed(carrier) as access:
            assert sorted(session.scalars(select(world.Flight.id))) == ids(world.seen(access.row_filter))
            session.reset() if carrier == "AA" else session.close()


# Writing


def test_update_and_delete_reach_only_matching_rows(world: World) -> None:
    flight = world.Flight
    with world.embed("AA") as access, world.sessions.begin() as session:
        seen = ids(world.seen(access.row_filter))
        session.execute(update(flight).values(month=99), execution_options={"synchronize_session": False})
    assert sorted(row["id"] for row in world.rows("flights") if row["month"] == 99) == seen
    with world.embed("AA"), world.sessions.begin() as session:
        session.execute(delete(flight))
    assert not [row for row in world.rows("flights") if row["id"] in seen]
    assert len(world.rows("flights")) == 40 - len(seen)


WRITES: list[Any] = [
    ("core update", lambda w, s: s.execute(update(w.Flight.__table__).values(month=99))),
    (
        "core update with returning",
        lambda w, s: s.execute(update(w.Flight.__table__).values(month=99).returning(w.Flight.id)).all(),
    ),
    (
        "update, evaluated",
        lambda w, s: (
            s.scalars(select(w.Flight)).all(),
            s.execute(
                update(w.Flight).where(w.Flight.id > 0).values(month=99),
                execution_options={"synchronize_session": "evaluate"},
            ),
        ),
    ),
    (
        "update, fetched",
        lambda w, s: s.execute(update(w.Flight).values(month=99), execution_options={"synchronize_session": "fetch"}),
    ),
    (
        "update with a sub-query",
        lambda w, s: s.execute(
            update(w.Flight.__table__).values(month=select(func.count(w.Airline.code)).scalar_subquery() + 97)
        ),
    ),
    (
        "update from another table",
        lambda w, s: s.execute(
            update(w.Flight.__table__).values(month=99).where(w.Plane.id > 0, w.Plane.carrier == w.Flight.carrier)
        ),
    ),
    (
        "update of a lightweight table",
        lambda w, s: s.execute(update(table("flights", column("month"))).values(month=99)),
    ),
    ("legacy query update", lambda w, s: s.query(w.Flight).update({"month": 99}, synchronize_session=False)),
    ("flush of changed objects", lambda w, s: [setattr(f, "month", 99) for f in s.scalars(select(w.Flight))]),
    (
        "one after the other",
        lambda w, s: [(setattr(f, "month", 99), s.flush()) for f in s.scalars(select(w.Flight)).all()],
    ),
    (
        "executemany",
        lambda w, s: s.connection().execute(
            update(w.Flight.__table__).where(w.Flight.__table__.c.id == bindparam("key")).values(month=bindparam("m")),
            [{"key": n, "m": 99} for n in range(1, 41)],
        ),
    ),
]


@pytest.mark.parametrize("write", [pytest.param(run, id=name) for name, run in WRITES])
def test_every_kind_of_update_changes_exactly_the_matching_rows(world: World, write: Callable[..., Any]) -> None:
    with world.embed("AA") as access:
        seen = ids(world.seen(access.row_filter))
        with world.sessions.begin() as session:
            write(world, session)
        assert access.receipts["flights"]
    assert sorted(row["id"] for row in world.rows("flights") if row["month"] == 99) == seen


DELETES: list[Any] = [
    ("core delete", lambda w, s: s.execute(delete(w.Flight.__table__))),
    ("orm delete", lambda w, s: s.execute(delete(w.Flight).where(w.Flight.id > 0))),
    ("delete with returning", lambda w, s: s.scalars(delete(w.Flight).returning(w.Flight.id)).all()),
    ("delete of objects", lambda w, s: [s.delete(f) for f in s.scalars(select(w.Flight))]),
    (
        "delete where exists",
        lambda w, s: s.execute(delete(w.Flight.__table__).where(exists().where(w.Airline.code > ""))),
    ),
    ("delete of a lightweight table", lambda w, s: s.execute(delete(table("flights")))),
    (
        "executemany",
        lambda w, s: s.connection().execute(
            delete(w.Flight.__table__).where(w.Flight.__table__.c.id == bindparam("key")),
            [{"key": n} for n in range(1, 41)],
        ),
    ),
]


@pytest.mark.parametrize("write", [pytest.param(run, id=name) for name, run in DELETES])
def test_every_kind_of_delete_removes_exactly_the_matching_rows(world: World, write: Callable[..., Any]) -> None:
    with world.embed("AA") as access:
        seen = ids(world.seen(access.row_filter))
        with world.sessions.begin() as session:
            write(world, session)
    assert ids(world.rows("flights")) == [number for number in range(1, 41) if number not in seen]


def test_a_long_list_is_refused_for_many_rows_at_once_and_not_cut(world: World) -> None:
    with world.embed("AA", airports=[f"A{n}" for n in range(65)]), world.engine.begin() as connection:
        statement = (
            update(world.Flight.__table__).where(world.Flight.__table__.c.id == bindparam("key")).values(month=1)
        )
        with pytest.raises(QueryRefused, match="at most 64"):
            connection.execute(statement, [{"key": 1}, {"key": 2}])
        connection.execute(statement, {"key": 1})


# Configuration


def test_protect_returns_what_it_was_given(world: World) -> None:
    sessions = sessionmaker(world.engine)
    assert protect(sessions, world.policy) is sessions
    assert protect(sessions, world.policy) is sessions
    assert protect(world.engine, world.policy) is world.engine


def test_an_engine_alone_can_be_protected(world: World) -> None:
    engine = protect(create_engine(world.url), world.policy)
    with world.embed("UA") as access, engine.connect() as connection:
        assert sorted(connection.scalars(select(world.Flight.id))) == ids(world.seen(access.row_filter))
    with engine.connect() as connection, pytest.raises(NoEmbedContext):
        connection.execute(select(world.Airline.code))
    engine.dispose()


def test_a_scoped_session_can_be_protected(world: World) -> None:
    engine = create_engine(world.url)
    sessions = protect(scoped_session(sessionmaker(engine)), world.policy)
    with world.embed("UA") as access:
        assert sorted(sessions.scalars(select(world.Flight.id))) == ids(world.seen(access.row_filter))
    with world.embed("AA"), pytest.raises(QueryRefused):
        sessions.scalars(select(world.Flight.id))
    sessions.remove()
    engine.dispose()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        pytest.param(lambda w: sessionmaker(), "no engine", id="a sessionmaker without an engine"),
        pytest.param(lambda w: Session, "takes a sessionmaker", id="a class"),
        pytest.param(lambda w: "flights", "takes a sessionmaker", id="text"),
        pytest.param(
            lambda w: sessionmaker(w.open.connect()), "needs an engine", id="a sessionmaker of one connection"
        ),
        pytest.param(
            lambda w: create_engine(
                "mysql+mysqldb://", module=SimpleNamespace(paramstyle="format", version_info=(2, 0, 0), __version__="2")
            ),
            "does not speak",
            id="a database that is not known",
        ),
    ],
)
def test_what_cannot_be_protected_is_an_error_at_once(world: World, target: Callable[..., Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        protect(target(world), world.policy)


def test_the_policy_has_to_be_one(world: World) -> None:
    with pytest.raises(ConfigError, match="RlsPolicy"):
        protect(world.sessions, {"flights.carrier": "carrier"})


def test_an_engine_has_one_policy(world: World) -> None:
    with pytest.raises(ConfigError, match="another policy"):
        protect(world.engine, RlsPolicy.from_columns("flights.carrier=carrier"))


def test_an_embed_of_another_policy_is_refused(world: World) -> None:
    other = RlsPolicy.from_columns("flights.carrier=carrier").row_filter({"carrier": "AA"})
    token = current_row_access.set(RowAccess(other))
    try:
        with world.sessions() as session, pytest.raises(QueryRefused, match="another policy"):
            session.scalars(select(world.Flight))
    finally:
        current_row_access.reset(token)


def test_statements_from_before_are_not_found_in_any_cache(world: World) -> None:
    """Each mapper keeps compiled statements of its own, under keys that contain the dialect."""
    engine, cached = create_engine(world.url), {"compiled_cache": {}}
    statement = select(world.Flight.id)
    with Session(engine) as session, session.begin():
        session.get(world.Flight, 1).month = 3
        session.flush()
        assert len(session.scalars(statement, execution_options=cached).all()) == 40
    protect(engine, world.policy)
    with world.embed("AA") as access, Session(engine) as session, session.begin():
        hidden = next(row["id"] for row in world.rows("flights") if row["carrier"] == "UA")
        assert sorted(session.scalars(statement, execution_options=cached)) == ids(world.seen(access.row_filter))
        assert session.get(world.Flight, hidden) is None
    engine.dispose()


def test_inheritance_is_filtered_in_each_of_its_tables(world: World) -> None:
    for carrier in ("AA", "UA"):
        with world.embed(carrier) as access, world.sessions() as session:
            staff = ids(world.seen(access.row_filter, "staff"))
            pilots = ids(world.seen(access.row_filter, "pilots"))
            assert sorted(s.id for s in session.scalars(select(world.Staff))) == staff
            assert sorted(s.id for s in session.scalars(select(world.Pilot))) == pilots
            assert sorted(s.id for s in session.scalars(select(world.Steward))) == sorted(set(staff) - set(pilots))
            everybody = with_polymorphic(world.Staff, "*", flat=True)
            assert sorted(s.id for s in session.scalars(select(everybody))) == staff
            loaded = select(world.Staff).options(selectin_polymorphic(world.Staff, [world.Pilot]))
            session.expunge_all()
            assert sorted(s.id for s in session.scalars(loaded)) == staff
            assert access.receipts.keys() == {"staff", "pilots"}


def test_an_optional_attribute_that_is_absent_opens_no_row(world: World) -> None:
    for more in ({}, {"max_delay": 5}):
        with world.embed("AA", **more) as access, world.sessions() as session:
            seen = ids(world.seen(access.row_filter, "delays"))
            assert sorted(session.scalars(select(world.Delay.id))) == seen == ([2, 4] if more else [])


def test_collations_of_a_column_do_not_widen_the_rule(world: World) -> None:
    from sqlalchemy import Column, MetaData, Table

    tables = Table(
        "flights",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("carrier", String(2, collation="NOCASE")),
        Column("origin", String),
        Column("dest", String),
    )
    with world.open.begin() as connection:
        connection.exec_driver_sql("DROP TABLE flights")
        tables.create(connection)
        connection.execute(
            insert(tables),
            [{"id": n, "carrier": c, "origin": "JFK", "dest": "JFK"} for n, c in enumerate(["AA", "aa", "Aa"])],
        )
    with world.embed("AA"), world.engine.connect() as connection:
        assert connection.scalars(select(tables.c.id)).all() == [0]


def test_an_index_is_used(world: World) -> None:
    with world.open.begin() as connection:
        connection.exec_driver_sql("CREATE INDEX by_carrier ON planes (carrier)")
    with world.embed("AA"):
        compiled = select(world.Plane.seats).compile(world.engine)
        with world.open.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", (True, "AA")).all()
    assert "USING INDEX by_carrier" in str(plan)
