"""Attempts to get around the filter: each is refused, or sees the matching rows only."""

from __future__ import annotations

import asyncio
import operator
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Date,
    Enum,
    Float,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    bindparam,
    cast,
    column,
    create_engine,
    delete,
    event,
    extract,
    func,
    insert,
    inspect,
    lambda_stmt,
    literal_column,
    or_,
    quoted_name,
    select,
    table,
    tablesample,
    text,
    true,
    type_coerce,
    union_all,
    update,
    values,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ObjectNotExecutableError, OperationalError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, aliased, column_property, joinedload, registry, sessionmaker
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.expression import ColumnElement, FromClause, UnaryExpression
from sqlalchemy.sql.operators import custom_op

from toucan_guard.core.errors import NoEmbedContext, QueryRefused
from toucan_guard.rls.sqlalchemy import protect

World = Any


def ids(rows: Any) -> list[int]:
    return sorted(row["id"] for row in rows)


class OwnText(ColumnElement[int]):
    inherit_cache = True
    type = Integer()


class OwnFrom(FromClause):
    inherit_cache = True
    name = "flights"
    named_with_column = True


def _write_own(element: Any, compiler: Any, **kw: Any) -> str:
    return "(SELECT max(id) FROM flights)"


compiles(OwnText)(_write_own)


def _flights(w: World, name: str = "flights", **kw: Any) -> Table:
    return Table(name, MetaData(), Column("id", Integer, primary_key=True), Column("carrier", String), **kw)


def _recursive(cte: Any) -> Any:
    return cte.union_all(select(cte.c.code))


def _core(make: Callable[[World], Any]) -> Callable[[World, Session], Any]:
    return lambda w, s: s.execute(make(w)).all()


REFUSED: list[Any] = [
    # names
    ("schema-qualified name", _core(lambda w: select(_flights(w, schema="main").c.id))),
    ("lightweight schema-qualified name", _core(lambda w: select(table("flights", column("id"), schema="main").c.id))),
    ("other case", _core(lambda w: select(_flights(w, "FLIGHTS").c.id))),
    ("schema inside the name", _core(lambda w: select(_flights(w, "main.flights").c.id))),
    (
        "schema inside a name that is not quoted",
        _core(lambda w: select(_flights(w, quoted_name("main.flights", quote=False)).c.id)),
    ),
    (
        "sub-query inside a name that is not quoted",
        _core(lambda w: select(_flights(w, quoted_name("(select * from flights)", quote=False)).c.id)),
    ),
    (
        "alias that is not quoted",
        _core(lambda w: select(aliased(w.Airline, name=quoted_name("a, flights", quote=False)).code)),
    ),
    (
        "label that is not quoted",
        _core(lambda w: select(w.Airline.code.label(quoted_name("x, (select max(id) from flights)", quote=False)))),
    ),
    ("column that is not quoted", _core(lambda w: select(column(quoted_name("1 from flights --", quote=False))))),
    (
        "schema that is not quoted",
        _core(lambda w: select(table("flights", column("id"), schema=quoted_name("main.x", quote=False)).c.id)),
    ),
    ("table that the policy does not name", _core(lambda w: select(w.Salary))),
    ("count of a table that it does not name", _core(lambda w: select(func.count()).select_from(w.Salary))),
    (
        "table that it does not name, in a sub-query",
        _core(lambda w: select(w.Airline.code).where(select(w.Salary.id).exists())),
    ),
    (
        "table that it does not name, beside the columns",
        _core(lambda w: select(w.Airline.code, select(func.max(w.Salary.amount)).scalar_subquery())),
    ),
    (
        "table that it does not name, in order by",
        _core(lambda w: select(w.Airline.code).order_by(select(func.max(w.Salary.amount)).scalar_subquery())),
    ),
    (
        "table that it does not name, in a union",
        _core(lambda w: union_all(select(w.Airline.code), select(w.Salary.id))),
    ),
    ("table that it does not name, in a cte", _core(lambda w: select(select(w.Salary).cte().c.id))),
    ("table that it does not name, in a lateral", _core(lambda w: select(select(w.Salary).lateral().c.id))),
    (
        "table that it does not name, in a window",
        _core(lambda w: select(func.count().over(order_by=select(w.Salary.id).scalar_subquery()))),
    ),
    ("catalogue of the database", _core(lambda w: select(table("sqlite_master", column("sql")).c.sql))),
    ("cte that is named like the table", _core(lambda w: select(select(w.Airline.code).cte("flights").c.code))),
    (
        "cte that is named like the table in other case",
        _core(lambda w: select(select(w.Airline.code).cte("Flights").c.code)),
    ),
    (
        "recursive cte that is named like an open table",
        _core(lambda w: select(_recursive(select(w.Airline.code).cte("airlines", recursive=True)).c.code)),
    ),
    # text
    ("text that is no SELECT", _core(lambda w: text("delete from flights"))),
    ("text in where", _core(lambda w: select(w.Flight.id).where(text("1=1")))),
    ("text in order by", _core(lambda w: select(w.Flight.id).order_by(text("1")))),
    ("text among the columns", _core(lambda w: select(text("(select max(id) from flights)")))),
    ("text in from", _core(lambda w: select(column("id")).select_from(text("flights")))),
    ("text in group by", _core(lambda w: select(func.count()).select_from(w.Flight).group_by(text("1")))),
    ("text in having", _core(lambda w: select(w.Flight.id).group_by(w.Flight.id).having(text("1=1")))),
    ("text with columns that is no SELECT", _core(lambda w: text("delete from flights").columns(column("id")))),
    (
        "text with columns as a sub-query",
        _core(lambda w: select(text("select id from flights").columns(column("id")).subquery().c.id)),
    ),
    (
        "text with columns as a cte",
        _core(lambda w: select(text("select id from flights").columns(column("id")).cte("x").c.id)),
    ),
    ("entities from text of a closed table", _core(lambda w: select(w.Flight).from_statement(text("table salaries")))),
    ("text in a join condition", _core(lambda w: select(w.Flight.id).join(w.Airline, text("1=1")))),
    ("text in a case", _core(lambda w: select(func.coalesce(text("(select 1)"), 1)))),
    ("text as a prefix", _core(lambda w: select(w.Airline.code).prefix_with("(select max(id) from flights),"))),
    ("text as a suffix", _core(lambda w: select(w.Airline.code).suffix_with("union all select id from flights"))),
    ("prefix of a cte", _core(lambda w: select(select(w.Airline.code).cte("x").prefix_with("materialized").c.code))),
    ("statement hint", _core(lambda w: select(w.Airline.code).with_statement_hint("union all select id from flights"))),
    ("table hint", _core(lambda w: select(w.Airline.code).with_hint(w.Airline, "indexed by x"))),
    ("literal column", _core(lambda w: select(literal_column("(select max(id) from flights)")))),
    (
        "literal column in where",
        _core(lambda w: select(w.Airline.code).where(literal_column("exists (select 1 from flights)"))),
    ),
    ("literal column of a table", _core(lambda w: select(literal_column("flights.id")))),
    ("column that is a literal", _core(lambda w: select(column("(select 1)", is_literal=True)))),
    (
        "literal that ends its quotes",
        _core(lambda w: select(literal_column("'a' || (select max(id) from flights) || 'b'"))),
    ),
    (
        "operator that is text",
        _core(lambda w: select(w.Airline.code).where(w.Airline.code.op("in (select carrier from flights) or 1 =")(1))),
    ),
    ("operator that is a comment", _core(lambda w: select(w.Airline.code).where(w.Airline.code.op("--")(1)))),
    ("operator of a boolean", _core(lambda w: select(w.Airline.code.bool_op("union select")(1)))),
    (
        "unary operator that is text",
        _core(lambda w: select(UnaryExpression(w.Airline.code, operator=custom_op("(select 1) +")))),
    ),
    (
        "unary modifier that is text",
        _core(lambda w: select(UnaryExpression(w.Airline.code, modifier=custom_op("+ (select 1)")))),
    ),
    ("field of extract", _core(lambda w: select(func.max(extract("year from x) --", w.Airline.name))))),
    ("construct that writes its own text", _core(lambda w: select(OwnText()))),
    ("construct that writes its own text, in where", _core(lambda w: select(w.Airline.code).where(OwnText() > 1))),
    ("from clause of one's own", _core(lambda w: select(literal_column("1")).select_from(OwnFrom()))),
    ("sample of a table", _core(lambda w: select(tablesample(w.Flight.__table__, 50).c.id))),
    ("function in from", _core(lambda w: select(func.flights().table_valued("id").c.id))),
    ("function in from, as an alias", _core(lambda w: select(func.flights("x").alias("y").column))),
    ("function in from, directly", _core(lambda w: select(literal_column("*")).select_from(func.flights()))),
    ("function of a package in from", _core(lambda w: select(func.x.json_each("1").table_valued("id").c.id))),
    ("function that runs SQL", _core(lambda w: select(func.query_to_xml("select * from flights", True, True, "")))),
    ("function that reads files", _core(lambda w: select(func.readfile("/etc/passwd")))),
    ("function that loads code", _core(lambda w: select(func.LOAD_EXTENSION("x")))),
    ("function that tells what the connection did before", _core(lambda w: select(func.last_insert_rowid()))),
    ("function that tells how much it changed", _core(lambda w: select(func.changes()))),
    ("function that tells how much it changed in all", _core(lambda w: select(func.total_changes()))),
    ("lambda with text", lambda w, s: s.execute(lambda_stmt(lambda: select(text("1")))).all()),
    # past the compiler
    ("driver's SQL", lambda w, s: s.connection().exec_driver_sql("select * from flights").all()),
    ("driver's SQL of an open table", lambda w, s: s.connection().exec_driver_sql("select 1").all()),
    ("change of tables", lambda w, s: s.connection().execute(CreateTable(_flights(w, "x")))),
    ("drop of tables", lambda w, s: w.Base.metadata.drop_all(s.connection())),
    ("reflection", lambda w, s: inspect(s.connection()).get_table_names()),
    (
        "map of schemas",
        lambda w, s: (
            s.connection().execution_options(schema_translate_map={None: "main"}).execute(select(w.Flight.id)).all()
        ),
    ),
    (
        "map of schemas that hides a name",
        lambda w, s: (
            s.connection()
            .execution_options(schema_translate_map={"x": None})
            .execute(select(_flights(w, "airlines", schema="x").c.id))
            .all()
        ),
    ),
    (
        "map of schemas for an open table",
        lambda w, s: (
            s.connection().execution_options(schema_translate_map={None: "main"}).execute(select(w.Airline.code)).all()
        ),
    ),
    (
        "map of schemas while writing",
        lambda w, s: (
            s.connection().execution_options(schema_translate_map={None: "main"}).execute(delete(w.Flight.__table__))
        ),
    ),
    # other engines
    (
        "mapper that is bound elsewhere",
        lambda w, s: (s.bind_mapper(w.Flight, w.open), s.scalars(select(w.Flight)).all()),
    ),
    (
        "table that is bound elsewhere",
        lambda w, s: (s.bind_table(w.Flight.__table__, w.open), s.scalars(select(w.Flight)).all()),
    ),
    ("bind of one query", lambda w, s: s.scalars(select(w.Flight), bind_arguments={"bind": w.open}).all()),
    ("bind that is exchanged", lambda w, s: (setattr(s, "bind", w.open), s.scalars(select(w.Flight)).all())),
    ("bind of one session", lambda w, s: w.sessions(bind=w.open).scalars(select(w.Flight)).all()),
    (
        "bind of one connection",
        lambda w, s: s.connection(bind_arguments={"bind": w.open}).execute(select(w.Flight.id)).all(),
    ),
    (
        "sessionmaker that is configured anew",
        lambda w, s: (w.sessions.configure(bind=w.open), w.sessions().scalars(select(w.Flight)).all()),
    ),
    # parameters
    (
        "parameter that replaces a value",
        lambda w, s: s.execute(select(w.Flight.id), {"tg_value_1": "UA", "tg_usable_1": True}).all(),
    ),
    (
        "parameter that replaces a list",
        lambda w, s: s.execute(select(w.Flight.id), {"tg_values_1": ["JFK", "LGA"]}).all(),
    ),
    (
        "parameter that replaces a condition",
        lambda w, s: s.execute(
            update(w.Flight.__table__).where(w.Flight.__table__.c.id > bindparam("n")).values(month=1),
            {"n": 0, "tg_usable_1": True},
        ),
    ),
    # columns
    ("hidden column", _core(lambda w: select(w.Fare.margin))),
    ("entity with a hidden column", _core(lambda w: select(w.Fare))),
    ("hidden column in where", _core(lambda w: select(w.Fare.id).where(w.Fare.margin > 3))),
    ("hidden column in order by", _core(lambda w: select(w.Fare.id).order_by(w.Fare.margin))),
    ("hidden column in a function", _core(lambda w: select(func.max(w.Fare.margin)))),
    ("hidden column of an alias", _core(lambda w: select(aliased(w.Fare).margin))),
    ("hidden column of a core alias", _core(lambda w: select(w.Fare.__table__.alias("x").alias("y").c.margin))),
    ("hidden column of a sub-query", _core(lambda w: select(select(w.Fare).subquery().c.margin))),
    ("hidden column in other case", _core(lambda w: select(table("fares", column("MARGIN")).c.MARGIN))),
    (
        "hidden column under another key",
        _core(lambda w: select(Table("fares", MetaData(), Column("margin", Integer, key="price")).c.price)),
    ),
    (
        "hidden column in a condition of an update",
        _core(lambda w: update(w.Fare.__table__).where(w.Fare.__table__.c.margin > 3).values(price=1)),
    ),
    (
        "hidden column that an update returns",
        _core(lambda w: update(w.Fare.__table__).values(price=1).returning(w.Fare.__table__.c.margin)),
    ),
    (
        "hidden bare column that an update returns",
        _core(lambda w: update(w.Fare.__table__).values(price=1).returning(column("margin"))),
    ),
    ("every column that a delete returns", _core(lambda w: delete(w.Fare.__table__).returning(literal_column("*")))),
    (
        "whole row that a delete returns",
        _core(lambda w: delete(w.Fare.__table__).returning(w.Fare.__table__.table_valued())),
    ),
    (
        "hidden bare column in a sub-query of a delete",
        _core(
            lambda w: delete(w.Fare.__table__).where(
                select(func.count()).select_from(w.Airline).where(column("margin") > 3).scalar_subquery() > 0
            )
        ),
    ),
    (
        "hidden column that is set to itself",
        _core(lambda w: update(w.Fare.__table__).values(price=w.Fare.__table__.c.margin)),
    ),
    # writes
    (
        "insert",
        _core(lambda w: insert(w.Flight.__table__).values(id=99, carrier="AA", origin="JFK", dest="JFK", month=1)),
    ),
    ("insert of an object", lambda w, s: (s.add(w.Plane(id=99, carrier="AA", seats=1)), s.flush())),
    ("insert into an open table", _core(lambda w: insert(w.Airline.__table__).values(code="XX", name="X"))),
    ("update of an open table", _core(lambda w: update(w.Airline.__table__).values(name="mine"))),
    ("delete from an open table", _core(lambda w: delete(w.Airline.__table__))),
    ("update of a table that the policy does not name", _core(lambda w: update(w.Salary.__table__).values(amount=1))),
    ("delete from a table that it does not name", _core(lambda w: delete(w.Salary.__table__))),
    ("insert into a table that it does not name", _core(lambda w: insert(w.Salary.__table__).values(id=9, amount=1))),
    ("change of the owner", _core(lambda w: update(w.Flight.__table__).values(carrier="UA"))),
    ("change of the owner to oneself", _core(lambda w: update(w.Flight.__table__).values(carrier="AA"))),
    (
        "change of the owner in other case",
        _core(lambda w: update(table("flights", column("Carrier"))).values({"Carrier": "UA"})),
    ),
    (
        "change of a number that may be the one that is compared",
        _core(lambda w: update(table("delays", column("rowid"))).values({"rowid": 99})),
    ),
    (
        "change of that number under another name",
        _core(lambda w: update(table("delays", column("OID"))).values({"OID": 99})),
    ),
    (
        "change of the owner by an expression",
        _core(lambda w: update(w.Flight.__table__).values(carrier=func.lower(w.Flight.__table__.c.carrier))),
    ),
    (
        "change of the owner through an expression",
        _core(lambda w: update(w.Flight.__table__).values({type_coerce(w.Flight.__table__.c.carrier, Text): "UA"})),
    ),
    (
        "change of the owner through an ordered update",
        _core(lambda w: update(w.Flight.__table__).ordered_values((w.Flight.__table__.c.carrier, "UA"))),
    ),
    (
        "change of the owner by a parameter",
        lambda w, s: s.connection().execute(update(w.Flight.__table__), {"carrier": "UA"}),
    ),
    (
        "change of the owner by an update from another table",
        _core(
            lambda w: update(w.Flight.__table__).values(carrier=w.Plane.carrier).where(w.Plane.id == w.Flight.plane_id)
        ),
    ),
    (
        "change of the owner in a flush",
        lambda w, s: (setattr(s.scalars(select(w.Flight)).first(), "carrier", "UA"), s.flush()),
    ),
    ("change of the owner in a bulk update", lambda w, s: s.execute(update(w.Flight), [{"id": 3, "carrier": "UA"}])),
    (
        "change of the owner by a default",
        _core(
            lambda w: update(
                Table(
                    "flights",
                    MetaData(),
                    Column("id", Integer),
                    Column("month", Integer),
                    Column("carrier", String, onupdate="UA"),
                )
            ).values(month=1)
        ),
    ),
    ("update of an alias", _core(lambda w: update(w.Flight.__table__.alias("x")).values(month=1))),
    ("delete from an alias", _core(lambda w: delete(w.Flight.__table__.alias("x")))),
    ("merge of a new object", lambda w, s: (s.merge(w.Plane(id=99, carrier="AA", seats=1)), s.flush())),
]


@pytest.mark.parametrize("attempt", [pytest.param(run, id=name) for name, run in REFUSED])
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
def test_what_cannot_be_filtered_is_refused(world: World, attempt: Callable[[World, Session], Any]) -> None:
    before = {name: world.rows(name) for name in world.Base.metadata.tables}
    with world.embed("AA"), world.sessions() as session:
        assert session.scalar(select(func.count()).select_from(world.Flight)) > 0
        session.rollback()
        with pytest.raises(QueryRefused) as raised:
            attempt(world, session)
        assert not isinstance(raised.value, SQLAlchemyError)
        for value in ("UA", "JFK"):
            assert value not in str(raised.value)
    assert {name: world.rows(name) for name in before} == before


SEEN: list[Any] = [
    ("table object that is made anew", lambda w, s: s.scalars(select(_flights(w).c.id))),
    ("lightweight table", lambda w, s: s.scalars(select(table("flights", column("id")).c.id))),
    (
        "lightweight table without columns",
        lambda w, s: s.execute(select(literal_column("1"), column("id")).select_from(w.Flight.__table__)).scalars(1),
    ),
    ("bare column", lambda w, s: s.scalars(select(column("id")).select_from(w.Flight))),
    (
        "table with only the key",
        lambda w, s: s.scalars(select(Table("flights", MetaData(), Column("id", Integer)).c.id)),
    ),
    (
        "column under another key",
        lambda w, s: s.scalars(
            select(Table("flights", MetaData(), Column("id", Integer, key="x"), Column("carrier", String, key="y")).c.x)
        ),
    ),
    (
        "alias that takes the place of an open table",
        lambda w, s: s.scalars(select(aliased(w.Flight, name="airlines").id)),
    ),
    (
        "open table under the name of a closed one",
        lambda w, s: list(s.scalars(select(w.Flight.id).join(aliased(w.Airline, name="flights_1"), true()).distinct())),
    ),
    ("alias named like the inner one", lambda w, s: s.scalars(select(aliased(w.Flight, name="tg_row").id))),
    ("label named like a table", lambda w, s: s.scalars(select(w.Flight.id.label("flights")).order_by("flights"))),
    (
        "correlated sub-query under an outer alias of the same name",
        lambda w, s: s.scalars(select(w.Flight.id).where(select(w.Plane.id).where(w.Plane.id > 0).exists())),
    ),
    (
        "condition with a parameter of a similar name",
        lambda w, s: s.scalars(select(w.Flight.id).where(w.Flight.id > bindparam("tg_x")), {"tg_x": 0}),
    ),
    ("with only columns", lambda w, s: s.scalars(select(w.Flight).with_only_columns(w.Flight.id))),
    (
        "engine options",
        lambda w, s: w.engine.execution_options(isolation_level="AUTOCOMMIT").connect().scalars(select(w.Flight.id)),
    ),
    ("symbolic operator", lambda w, s: s.scalars(select(w.Flight.id).where(w.Flight.id.op("+")(0) > 0))),
    ("word operator", lambda w, s: s.scalars(select(w.Flight.id).where(w.Flight.origin.op("GLOB")("*")))),
    ("harmless literal columns", lambda w, s: s.scalars(select(w.Flight.id).where(literal_column("1") == 1))),
    (
        "name that is not quoted but plain",
        lambda w, s: s.scalars(select(_flights(w, quoted_name("flights", quote=False)).c.id)),
    ),
    (
        "startswith, which SQLAlchemy writes with a literal",
        lambda w, s: s.scalars(select(w.Flight.id).where(w.Flight.origin.startswith("", autoescape=True))),
    ),
    ("plain session on the protected engine", lambda w, s: Session(w.engine).scalars(select(w.Flight.id))),
    ("plain sessionmaker on the protected engine", lambda w, s: sessionmaker(w.engine)().scalars(select(w.Flight.id))),
    ("session of the protected connection", lambda w, s: Session(bind=s.connection()).scalars(select(w.Flight.id))),
]


@pytest.mark.parametrize("attempt", [pytest.param(run, id=name) for name, run in SEEN])
def test_what_is_understood_sees_matching_rows_only(world: World, attempt: Callable[[World, Session], Any]) -> None:
    for carrier in ("AA", "UA"):
        with world.embed(carrier) as access, world.sessions() as session:
            assert sorted(attempt(world, session)) == ids(world.seen(access.row_filter))
        world.engine.dispose()


def test_a_view_is_a_table_that_the_policy_has_to_name(world: World) -> None:
    with world.open.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW everything AS SELECT * FROM flights")
        connection.exec_driver_sql("CREATE TEMP VIEW airlines2 AS SELECT * FROM flights")
        view = Table("everything", MetaData(), autoload_with=connection)
    with world.embed("AA"), world.sessions() as session, pytest.raises(QueryRefused, match="'everything'"):
        session.execute(select(view))


def test_the_shown_columns_can_be_read(world: World) -> None:
    with world.embed("AA") as access, world.sessions() as session:
        seen = world.seen(access.row_filter, "fares")
        assert sorted(session.execute(select(world.Fare.id, world.Fare.price))) == [(r["id"], r["price"]) for r in seen]
        star = session.execute(select(literal_column("*")).select_from(world.Fare)).mappings().first()
        assert set(star) == {"id", "carrier", "price"}
        kept = (
            session.execute(select(select(literal_column("*")).select_from(world.Fare).subquery())).mappings().first()
        )
        assert set(kept) <= {"id", "carrier", "price"}
        session.execute(update(world.Fare.__table__).values(price=1).returning(world.Fare.__table__.c.price)).all()
        session.commit()
    assert ids(row for row in world.rows("fares") if row["price"] == 1) == ids(seen)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda w: select(getattr(func, "total_changes\n")()), id="of a function"),
        pytest.param(
            lambda w: update(table("notes", column("carrier\n"))).values({"carrier\n": "UA"}), id="of a column"
        ),
        pytest.param(
            lambda w: insert(table("notes", *map(column, ("id", *OWN, "carrier\n")))).values(
                {"id": 50, **OWN, "carrier\n": "UA"}
            ),
            id="of a column that is inserted",
        ),
        pytest.param(lambda w: select(select(w.Airline.code).cte("notes\n").c.code), id="of a WITH query"),
    ],
)
def test_a_line_end_behind_a_name_makes_it_another_name(world: World, make: Callable[[World], Any]) -> None:
    """SQLAlchemy leaves such a name without quotes, and the database then reads it without the line end."""
    before = world.rows("notes")
    written: list[str] = []
    event.listen(world.engine, "before_cursor_execute", lambda *arguments: written.append(arguments[2]))
    with world.embed(), world.engine.connect() as connection, suppress(OperationalError):
        connection.execute(make(world))
        connection.commit()
    assert len(written) == 1
    assert '\n"' in written[0]
    assert world.rows("notes") == before


def test_a_bare_name_of_a_hidden_column_finds_no_column(world: World) -> None:
    with world.embed("AA"), world.sessions() as session, pytest.raises(SQLAlchemyError, match="no such column"):
        session.execute(select(column("margin")).select_from(table("fares", column("id"))))


@pytest.mark.parametrize(
    "compiled",
    [
        pytest.param(lambda w, s: s.compile(w.open), id="for another engine"),
        pytest.param(lambda w, s: s.compile(dialect=sqlite.dialect()), id="for a dialect"),
        pytest.param(lambda w, s: s.compile(w.engine), id="for this engine"),
        pytest.param(
            lambda w, s: s.compile(w.engine, compile_kwargs={"literal_binds": True}),
            id="with one tenant's values in it",
        ),
    ],
)
def test_a_statement_that_was_compiled_before_does_not_run(world: World, compiled: Callable[..., Any]) -> None:
    with world.embed("AA"):
        made = compiled(world, select(world.Flight.id))
    # Since 2.1 SQLAlchemy itself runs no compiled statements.
    refusal = pytest.raises((QueryRefused, ObjectNotExecutableError))
    with world.embed("UA"), world.engine.connect() as connection, refusal:
        connection.execute(made)


def test_a_mapping_that_writes_its_own_text_is_refused(world: World) -> None:
    class Own(registry().generate_base()):  # type: ignore[misc]
        __table__ = Table("planes", MetaData(), Column("id", Integer, primary_key=True), Column("carrier", String))
        most = column_property(OwnText().label("most"))

    with world.embed("AA"), world.sessions() as session, pytest.raises(QueryRefused, match="@compiles"):
        session.scalars(select(Own)).all()


def test_values_that_are_written_into_the_text_do_not_take_ours_along(world: World) -> None:
    count = select(func.count()).select_from(world.Flight).scalar_subquery()
    statement = select(values(column("n", Integer), name="v", literal_binds=True).data([(count,)]))
    with world.embed("AA"):
        assert "'AA'" not in str(statement.compile(world.engine))


@pytest.mark.parametrize(
    "type_",
    [
        pytest.param(String("1) FROM flights --"), id="length"),  # type: ignore[arg-type]
        pytest.param(Numeric(5, "2) FROM flights --"), id="scale"),  # type: ignore[arg-type]
    ],
)
def test_the_type_of_a_cast_is_not_text(world: World, type_: Any) -> None:
    with world.embed("AA"), world.sessions() as session, pytest.raises(QueryRefused):
        session.execute(select(cast(world.Airline.code, type_)))


class AsItIs(String):
    """Writes its value into the text as it is; so did the numbers of earlier versions of SQLAlchemy."""

    cache_ok = True

    def literal_processor(self, dialect: Any) -> Callable[[Any], str]:
        return str


def _written(value: Any, type_: Any, **kw: Any) -> Any:
    return bindparam("given", value, type_, literal_execute=True, **kw)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda w: select(w.Flight.month).where(
                w.Flight.id == _written("1 UNION ALL SELECT id FROM flights", AsItIs())
            ),
            id="select",
        ),
        pytest.param(lambda w: select(_written("(SELECT max(id) FROM flights)", AsItIs())), id="sub-query"),
        pytest.param(
            lambda w: select(w.Airline.code).where(
                w.Airline.name.in_(_written(["(SELECT max(id) FROM flights)"], AsItIs(), expanding=True))
            ),
            id="one of a list",
        ),
        pytest.param(
            lambda w: update(w.Flight.__table__).values(month=99).where(w.Flight.id == _written("1 OR 1=1", AsItIs())),
            id="update",
        ),
        pytest.param(
            lambda w: delete(w.Flight.__table__).where(w.Flight.id == _written("1 OR 1=1 --", AsItIs())), id="delete"
        ),
    ],
)
def test_a_value_that_is_written_into_the_text_is_no_text(world: World, make: Callable[[World], Any]) -> None:
    before = world.rows("flights")
    with world.embed("AA"), world.engine.begin() as connection, pytest.raises(QueryRefused, match="is text"):
        connection.execute(make(world)).all()
    assert world.rows("flights") == before


@pytest.mark.parametrize(
    "type_", [pytest.param(Numeric(), id="decimal"), pytest.param(Float(), id="float"), pytest.param(Date(), id="date")]
)
def test_text_is_no_number_and_no_date_either(world: World, type_: Any) -> None:
    """SQLAlchemy refuses most of them by itself, and has not always."""
    with world.embed("AA"), world.engine.connect() as connection, pytest.raises((QueryRefused, SQLAlchemyError)):
        connection.execute(select(_written("(SELECT max(id) FROM flights)", type_))).all()


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        pytest.param(Integer(), -5, id="a number"),
        pytest.param(Numeric(), Decimal("-1.50"), id="a decimal number"),
        pytest.param(Float(), 1e-300, id="a very small number"),
        pytest.param(String(), "it's -- 'one' OR 1=1", id="text with quotes"),
        pytest.param(Boolean(), True, id="a boolean"),
        pytest.param(Date(), date(2013, 1, 31), id="a date"),
        pytest.param(String(), None, id="nothing"),
    ],
)
def test_ordinary_values_may_be_written_into_the_text(world: World, type_: Any, value: Any) -> None:
    with world.embed("AA"), world.engine.connect() as connection:
        assert connection.scalar(select(type_coerce(_written(value, type_), type_))) == value


# Where the policy says write = true

OWN = {"carrier": "AA", "origin": "JFK", "dest": "EWR", "text": "x"}
FOREIGN = [
    pytest.param({**OWN, "carrier": "UA"}, id="of another tenant"),
    pytest.param({**OWN, "origin": "EWR"}, id="of another airport"),
    pytest.param({**OWN, "carrier": "aa"}, id="in other case"),
    pytest.param({**OWN, "carrier": None}, id="of nobody"),
    pytest.param({**OWN, "carrier": 5}, id="of another type"),
]


def _inserting() -> list[Any]:
    return [
        pytest.param(lambda w, s, row: s.execute(insert(w.Note.__table__).values(id=50, **row)), id="core values"),
        pytest.param(lambda w, s, row: s.execute(insert(w.Note.__table__), {"id": 50, **row}), id="core parameters"),
        pytest.param(
            lambda w, s, row: s.execute(insert(w.Note.__table__), [{"id": 51, **OWN}, {"id": 50, **row}]),
            id="core many",
        ),
        pytest.param(lambda w, s, row: (s.add(w.Note(id=50, **row)), s.flush()), id="object"),
        pytest.param(
            lambda w, s, row: (s.add_all([w.Note(id=51, **OWN), w.Note(id=50, **row)]), s.flush()), id="several objects"
        ),
        pytest.param(lambda w, s, row: s.execute(insert(w.Note), [{"id": 50, **row}]), id="orm"),
        pytest.param(
            lambda w, s, row: s.scalars(insert(w.Note).returning(w.Note), [{"id": 51, **OWN}, {"id": 50, **row}]).all(),
            id="orm many, returning",
        ),
        pytest.param(lambda w, s, row: s.bulk_insert_mappings(w.Note, [{"id": 50, **row}]), id="bulk"),
        pytest.param(
            lambda w, s, row: s.execute(sqlite.insert(w.Note.__table__).values(id=50, **row).on_conflict_do_nothing()),
            id="on conflict do nothing",
        ),
    ]


@pytest.mark.parametrize("write", _inserting())
def test_a_matching_row_may_be_inserted(world: World, write: Callable[..., Any]) -> None:
    with world.embed("AA") as access, world.sessions.begin() as session:
        write(world, session, OWN)
        assert access.receipts["notes"]
    assert {"id": 50, **OWN} in world.rows("notes")


@pytest.mark.parametrize("row", FOREIGN)
@pytest.mark.parametrize("write", _inserting())
def test_any_other_row_is_not_inserted(world: World, write: Callable[..., Any], row: dict[str, Any]) -> None:
    before = world.rows("notes")
    with world.embed("AA"), world.sessions() as session:
        with pytest.raises(QueryRefused, match=r"not written|must give carrier|plain value"):
            write(world, session, row)
        session.rollback()
    assert world.rows("notes") == before


def test_without_an_embed_nothing_is_written(world: World) -> None:
    for session in (world.sessions(), Session(world.engine)):
        for statement in (
            insert(world.Note).values(id=50, **OWN),
            update(world.Note).values(text="x"),
            delete(world.Note),
        ):
            with pytest.raises(NoEmbedContext):
                session.execute(statement)
            session.rollback()


WRITE_REFUSED: list[Any] = [
    (
        "insert from select",
        lambda w, s: s.execute(
            insert(w.Note.__table__).from_select(
                ["id", "carrier", "origin", "dest"],
                select(w.Flight.id + 100, w.Flight.carrier, w.Flight.origin, w.Flight.dest),
            )
        ),
    ),
    (
        "insert without the owner",
        lambda w, s: s.execute(insert(w.Note.__table__).values(id=50, origin="JFK", dest="JFK")),
    ),
    ("insert of nothing", lambda w, s: s.execute(insert(Table("notes", MetaData(), Column("id", Integer))))),
    (
        "insert with an expression",
        lambda w, s: s.execute(insert(w.Note.__table__).values(id=50, **{**OWN, "carrier": func.upper("ua")})),
    ),
    (
        "insert with a sub-query",
        lambda w, s: s.execute(
            insert(w.Note.__table__).values(
                id=50, **{**OWN, "carrier": select(func.max(w.Airline.code)).scalar_subquery()}
            )
        ),
    ),
    (
        "insert with a parameter of another name",
        lambda w, s: s.execute(
            insert(w.Note.__table__).values(id=50, **{**OWN, "carrier": bindparam("c")}), {"c": "UA"}
        ),
    ),
    (
        "insert of several rows in one statement",
        lambda w, s: s.execute(
            insert(w.Note.__table__).values([{"id": 50, **OWN}, {"id": 51, **OWN, "carrier": "UA"}])
        ),
    ),
    (
        "insert with a default of the database",
        lambda w, s: s.execute(
            insert(
                Table(
                    "notes",
                    MetaData(),
                    Column("id", Integer),
                    Column("carrier", String, server_default="UA"),
                    Column("origin", String),
                    Column("dest", String),
                )
            ).values(id=50, origin="JFK", dest="JFK")
        ),
    ),
    (
        "insert with a default of Python",
        lambda w, s: s.execute(
            insert(
                Table(
                    "notes",
                    MetaData(),
                    Column("id", Integer),
                    Column("carrier", String, default="UA"),
                    Column("origin", String),
                    Column("dest", String),
                )
            ).values(id=50, origin="JFK", dest="JFK")
        ),
    ),
    (
        "insert with a default that is SQL",
        lambda w, s: s.execute(
            insert(
                Table(
                    "notes",
                    MetaData(),
                    Column("id", Integer),
                    Column("carrier", String, default=func.upper("ua")),
                    Column("origin", String),
                    Column("dest", String),
                )
            ).values(id=50, origin="JFK", dest="JFK")
        ),
    ),
    (
        "insert or replace",
        lambda w, s: s.execute(insert(w.Note.__table__).prefix_with("OR REPLACE").values(id=1, **OWN)),
    ),
    (
        "upsert",
        lambda w, s: s.execute(
            sqlite.insert(w.Note.__table__)
            .values(id=1, **OWN)
            .on_conflict_do_update(index_elements=["id"], set_={"text": "mine"})
        ),
    ),
    (
        "owner in other case",
        lambda w, s: s.execute(
            insert(
                Table(
                    "notes",
                    MetaData(),
                    Column("id", Integer),
                    Column("CARRIER", String),
                    Column("origin", String),
                    Column("dest", String),
                )
            ).values(id=50, CARRIER="AA", origin="JFK", dest="JFK")
        ),
    ),
    ("gift to another tenant", lambda w, s: s.execute(update(w.Note.__table__).values(carrier="UA"))),
    ("gift in a flush", lambda w, s: (setattr(s.scalars(select(w.Note)).first(), "carrier", "UA"), s.flush())),
    (
        "gift in an executemany",
        lambda w, s: s.connection().execute(
            update(w.Note.__table__).where(w.Note.__table__.c.id == bindparam("key")),
            [{"key": 2, "carrier": "AA"}, {"key": 4, "carrier": "UA"}],
        ),
    ),
    ("gift by an expression", lambda w, s: s.execute(update(w.Note.__table__).values(carrier=func.upper("ua")))),
    (
        "gift by an expression, with a parameter that looks right",
        lambda w, s: s.execute(
            update(w.Note.__table__).values(carrier=func.upper("ua")).where(bindparam("carrier", "AA") == "AA")
        ),
    ),
    (
        "gift by an expression around a parameter that looks right",
        lambda w, s: s.execute(
            update(w.Note.__table__).values(carrier=func.replace(bindparam("carrier", "AA"), "AA", "UA"))
        ),
    ),
    (
        "gift through an expression",
        lambda w, s: s.execute(update(w.Note.__table__).values({type_coerce(w.Note.__table__.c.carrier, Text): "UA"})),
    ),
    (
        "gift by a parameter of another name",
        lambda w, s: s.execute(update(w.Note.__table__).values(carrier=bindparam("c")), {"c": "UA"}),
    ),
    (
        "gift of a copied column",
        lambda w, s: s.execute(update(w.Note.__table__).values(carrier=w.Note.__table__.c.dest)),
    ),
    (
        "move to an airport that nobody can vouch for",
        lambda w, s: s.execute(update(w.Note.__table__).values(origin="EWR")),
    ),
    (
        "owner in other case in an update",
        lambda w, s: s.execute(update(table("notes", column("CARRIER"))).values(CARRIER="AA")),
    ),
]


@pytest.mark.parametrize("attempt", [pytest.param(run, id=name) for name, run in WRITE_REFUSED])
def test_writing_is_refused_where_the_row_cannot_be_judged(world: World, attempt: Callable[..., Any]) -> None:
    before = world.rows("notes")
    with world.embed("AA"), world.sessions() as session:
        with pytest.raises(QueryRefused):
            attempt(world, session)
        with suppress(PendingRollbackError):
            session.commit()
    assert world.rows("notes") == before


def test_a_row_may_be_moved_where_it_still_matches(world: World) -> None:
    with world.embed("AA") as access:
        seen = ids(world.seen(access.row_filter, "notes"))
        with world.sessions.begin() as session:
            session.execute(update(world.Note.__table__).values(carrier="AA", origin="BOS"))
            note = session.scalars(select(world.Note)).first()
            note.dest, note.text = "JFK", "moved"
        assert ids(row for row in world.rows("notes") if row["origin"] == "BOS" and row["carrier"] == "AA") == seen


def test_a_string_that_lies_about_itself_is_not_believed(world: World) -> None:
    class Liar(str):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return hash("AA")

    with world.embed("AA"), world.sessions() as session, pytest.raises(QueryRefused):
        session.execute(insert(world.Note.__table__).values(id=50, **{**OWN, "carrier": Liar("UA")}))


# Columns whose type the policy cannot compare


class Lower(TypeDecorator[str]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value and value.lower()


class AnyCase(String):
    """Compares as people like it."""

    cache_ok = True

    class comparator_factory(String.Comparator):  # noqa: N801 - SQLAlchemy's name for it
        def operate(self, op: Any, *other: Any, **kw: Any) -> Any:
            return op(func.lower(self.expr), func.lower(*other)) if op is operator.eq else super().operate(op, *other)


@pytest.mark.parametrize(
    "type_",
    [
        pytest.param(Integer(), id="an integer"),
        pytest.param(Date(), id="a date"),
        pytest.param(Boolean(), id="a boolean"),
        pytest.param(Uuid(), id="a UUID"),
        pytest.param(Lower(), id="a type that converts its values"),
        pytest.param(String().with_variant(Lower(), "sqlite"), id="a variant that converts its values"),
        pytest.param(String().with_variant(Integer(), "sqlite"), id="a variant of another type"),
        pytest.param(AnyCase(), id="a type that compares in its own way"),
        pytest.param(Enum("AA", "UA"), id="an enumeration"),
        pytest.param(postgresql.CITEXT(), id="text that ignores case"),
    ],
)
def test_a_column_of_another_type_than_its_attribute_is_refused(world: World, type_: Any) -> None:
    planes = Table("planes", MetaData(), Column("id", Integer), Column("carrier", type_))
    for statement in (select(planes.c.id), update(planes).values(id=1), delete(planes)):
        with (
            world.embed("AA"),
            world.engine.connect() as connection,
            pytest.raises(QueryRefused, match=r"planes\.carrier"),
        ):
            connection.execute(statement)


@pytest.mark.parametrize("type_", [Lower(), AnyCase(), Integer()], ids=["converts", "compares", "another type"])
def test_a_row_is_not_written_where_the_stored_value_may_be_another(world: World, type_: Any) -> None:
    notes = table("notes", column("id"), column("carrier", type_), column("origin", String), column("dest", String))
    with world.embed("AA"), world.engine.connect() as connection, pytest.raises(QueryRefused, match=r"notes\.carrier"):
        connection.execute(insert(notes).values(id=50, **{name: OWN[name] for name in ("carrier", "origin", "dest")}))


def _lambda_of(model: Any) -> Any:
    return update(model).values(text="x").where(lambda: or_(model.id == 1, model.id > 0))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda w, of: delete(of).where(lambda: or_(of.c.id == 1, of.c.id > 0)), id="in a delete"),
        pytest.param(
            lambda w, of: delete(of).where(of.c.id > 0).where(lambda: or_(of.c.id == 1, of.c.id > 0)),
            id="behind another condition",
        ),
        pytest.param(
            lambda w, of: update(of).values(text="x").where(lambda: or_(of.c.id == 1, of.c.id > 0)), id="in an update"
        ),
        pytest.param(
            lambda w, of: update(of).values(text="x").where(lambda: or_(of.c.id == 1, 1 / of.c.id >= 0)),
            id="that can fail",
        ),
        pytest.param(lambda w, of: _lambda_of(w.Note), id="in the ORM"),
    ],
)
def test_an_or_in_a_lambda_opens_no_hidden_row_of_an_update_or_delete(world: World, make: Callable[..., Any]) -> None:
    hidden = [row for row in world.rows("notes") if row not in world.seen(world.filter(), "notes")]
    mine = world.seen(world.filter(), "notes")
    with world.embed(), world.sessions() as session:
        assert session.execute(make(world, world.Note.__table__)).rowcount == len(mine)
        session.commit()
    after = world.rows("notes")
    assert [row for row in after if row in hidden] == hidden
    assert not [row for row in after if row in mine]


def test_a_condition_never_meets_a_hidden_row_of_an_update_or_delete(world: World) -> None:
    """SQLite takes conditions in their order, and an error would tell what is in the row."""
    notes = world.Note.__table__
    with world.open.begin() as connection:
        connection.execute(update(notes).values(text="{}"))
        connection.execute(update(notes).where(notes.c.carrier == "UA").values(text="not JSON"))
    condition = func.json_extract(notes.c.text, "$.x").is_(None)
    with world.embed("AA") as access, world.engine.connect() as connection:
        seen = len(world.seen(access.row_filter, "notes"))
        assert connection.execute(update(notes).where(condition).values(text="{}")).rowcount == seen > 0
        assert connection.execute(delete(notes).where(condition)).rowcount == seen


# The engine


@pytest.mark.parametrize("first", ["copy", "engine"])
def test_copies_of_an_engine_are_protected_with_it(world: World, first: str) -> None:
    engine = create_engine(world.url)
    copy = engine.execution_options(logging_token="copy").execution_options(isolation_level="SERIALIZABLE")
    protect(sessionmaker(copy if first == "copy" else engine), world.policy)
    protect(engine, world.policy)
    before = world.rows("notes")
    with world.embed("AA"):
        for each in (engine, copy, engine.execution_options(logging_token="later")):
            with each.connect() as connection:
                with pytest.raises(QueryRefused):
                    connection.exec_driver_sql("SELECT * FROM notes")
                with pytest.raises(QueryRefused):
                    connection.execute(insert(world.Note.__table__).values(id=50, **{**OWN, "carrier": "UA"}))
    assert world.rows("notes") == before
    engine.dispose()


def test_an_async_scoped_session_from_before_is_forgotten(world: World) -> None:
    async def run() -> None:
        engine = create_async_engine(world.url.replace("sqlite:", "sqlite+aiosqlite:"))
        sessions = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)
        sessions()
        protect(sessions, world.policy)
        with world.embed("AA") as access:
            number = world.seen(access.row_filter)[0]["id"]
            held = await sessions.get(world.Flight, number)
            assert held is not None
        with world.embed("UA"), pytest.raises(QueryRefused, match="another embed"):
            await sessions.get(world.Flight, number)
        await sessions.remove()
        await engine.dispose()

    asyncio.run(run())


def test_the_first_connection_needs_no_embed_to_open(world: World) -> None:
    engine = create_engine(world.url, pool_pre_ping=True)
    protect(engine, world.policy)
    for _ in range(2):
        with engine.connect() as connection, connection.begin():
            pass
    engine.dispose()


def test_a_savepoint_ends_even_after_its_embed(world: World) -> None:
    with world.sessions() as session:
        with world.embed("AA"):
            nested = session.begin_nested()
            session.scalars(select(world.Flight.id)).all()
        nested.rollback()
        session.rollback()


def test_listeners_of_the_host_still_run(world: World) -> None:
    seen: list[str] = []
    event.listen(world.engine, "before_cursor_execute", lambda *a: seen.append(a[2]))
    with world.embed("AA"), world.engine.connect() as connection:
        connection.execute(select(world.Flight.id))
    assert len(seen) == 1


def test_values_stay_out_of_the_statement(world: World) -> None:
    with world.embed("AA", airports=["JFK"]):
        compiled = select(world.Flight.id).compile(world.engine)
        assert "AA" not in str(compiled)
        assert "JFK" not in str(compiled)
    assert str(select(world.Flight.id).compile(world.engine)) == str(compiled)


def test_an_open_engine_stays_open(world: World) -> None:
    with Session(world.open) as session:
        assert len(session.scalars(select(world.Flight)).all()) == 40
        session.connection().exec_driver_sql("select 1")


def test_eager_loading_of_a_hidden_row_leaves_it_out(world: World) -> None:
    with world.embed("AA") as access, world.sessions() as session:
        query = select(world.Flight).options(joinedload(world.Flight.plane))
        planes = {row["id"] for row in world.seen(access.row_filter, "planes")}
        flights = list(session.scalars(query))
        assert {flight.plane_id for flight in flights} - planes
        assert {flight.plane.id for flight in flights if flight.plane} <= planes


def test_text_is_refused_where_nothing_can_read_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "toucan_guard.rls.sqlalchemy_text", None)
    with world.embed("AA"), world.sessions() as session:
        for statement in (text("select 1"), text("select 1").columns(column("x"))):
            with pytest.raises(QueryRefused, match=r"toucan-guard\[sql\]"):
                session.execute(statement)


def test_async_sessions_refuse_and_bind_like_others(world: World) -> None:
    async def run() -> None:
        engine = create_async_engine(world.url.replace("sqlite:", "sqlite+aiosqlite:"))
        sessions = protect(async_sessionmaker(engine), world.policy)
        protect(engine, world.policy)
        async with sessions() as session:
            with world.embed("AA"):
                flight = (await session.scalars(select(world.Flight))).first()
                with pytest.raises(QueryRefused):
                    await session.execute(text("select * from salaries"))
            with world.embed("UA"), pytest.raises(QueryRefused, match="another embed"):
                await session.get(world.Flight, flight.id)
            with pytest.raises(NoEmbedContext):
                await session.get(world.Flight, flight.id)
        async with sessions() as session:
            with world.embed("UA"):
                assert await session.get(world.Flight, flight.id) is None
        async with engine.connect() as connection:
            with world.embed("UA") as access:
                result = await connection.stream(select(world.Flight.id))
                assert sorted([row.id async for row in result]) == ids(world.seen(access.row_filter))
            with pytest.raises(NoEmbedContext):
                await connection.execute(select(world.Airline.code))
        await engine.dispose()

    asyncio.run(run())


def test_a_core_connection_asks_anew_for_each_statement(world: World) -> None:
    connection: Connection
    with world.engine.connect() as connection:
        for carrier in ("AA", "UA", "AA"):
            with world.embed(carrier) as access:
                found = sorted(connection.scalars(select(world.Flight.id)))
                assert found == ids(world.seen(access.row_filter))
        with pytest.raises(NoEmbedContext):
            connection.scalars(select(world.Flight.id))
