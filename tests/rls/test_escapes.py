"""Ways round the filter that only the compiled text shows, on SQLite and on PostgreSQL's dialect without a server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    REAL,
    Column,
    DateTime,
    Engine,
    Integer,
    MetaData,
    Numeric,
    Sequence,
    String,
    Table,
    bindparam,
    cast,
    column,
    create_engine,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    table,
    true,
    update,
    values,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import StaticPool

from toucan_guard.core.errors import QueryRefused
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import Attribute, Group, Leaf, TableRule
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sqlalchemy import protect
from toucan_guard.rls.sqlalchemy_kept import keeps
from toucan_guard.rls.sqlalchemy_rules import RuleExpressions, UnfitColumn

CARRIER = {"column": "carrier", "op": "eq", "attribute": "carrier"}
ORIGIN = {"column": "origin", "op": "in", "attribute": "airports"}
POLICY = {
    "attributes": {"carrier": "string", "airports": {"type": "string", "list": True}},
    "tables": {
        "flights": {"any": [CARRIER, ORIGIN]},
        "planes": {"all": [CARRIER]},
        "fares": {"all": [CARRIER], "columns": {"show": ["id", "carrier", "price"]}},
        "notes": {"all": [CARRIER], "write": True},
        "airlines": {"open": True},
        "sales.flights": {"all": [CARRIER]},
        "sales.fares": {"all": [CARRIER]},
        "sales_fares": {"all": [CARRIER], "columns": {"show": ["id", "carrier", "price"]}},
    },
}
META = MetaData()
NOON = datetime(2013, 5, 1, 12)
EAST = timezone(timedelta(hours=14))


def _table(name: str, *columns: Column[Any], schema: str | None = None) -> Table:
    return Table(
        name, META, Column("id", Integer, primary_key=True), Column("carrier", String), *columns, schema=schema
    )


FLIGHTS = _table("flights", Column("origin", String), Column("month", Integer))
SALES = _table("flights", Column("month", Integer), schema="sales")
PLANES = _table("planes", Column("seats", Integer))
FARES = _table("fares", Column("price", Integer), Column("margin", Integer))
NOTES = _table("notes", Column("text", String))
AIRLINES = _table("airlines")
SALARIES = _table("salaries")


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """A protected engine that never connects."""
    if request.param == "postgresql":
        pytest.importorskip("psycopg", reason="the driver is not installed")
        return protect(create_engine("postgresql+psycopg://nobody@localhost/nothing"), _policy())
    return protect(create_engine("sqlite://"), _policy())


@pytest.fixture(autouse=True)
def _embed() -> Iterator[None]:
    row_filter = _policy().row_filter({"carrier": "AA", "airports": ["JFK"]})
    assert isinstance(row_filter, RowFilter)
    token = current_row_access.set(RowAccess(row_filter))
    yield
    current_row_access.reset(token)


def _policy() -> RlsPolicy:
    return RlsPolicy.from_json(json.dumps(POLICY))


def compiled(statement: Any, engine: Engine) -> str:
    """The text that the driver would get, on one line."""
    return " ".join(str(statement.compile(engine)).split())


# Each table that is read stands inside its own filtered sub-query, and nowhere else.

BARE = re.compile(r"\b(?:FROM|JOIN|USING|,) (?:sales\.)?(?:flights|planes|fares|notes)\b(?! AS tg_row WHERE )")

READS: list[Any] = [
    ("select", select(FLIGHTS.c.id), 1),
    ("join", select(FLIGHTS.c.id).join(PLANES, PLANES.c.id == FLIGHTS.c.id), 2),
    ("outer join", select(AIRLINES.c.id).outerjoin(PLANES, PLANES.c.id == AIRLINES.c.id), 1),
    ("full join", select(FLIGHTS.c.id).join(PLANES, PLANES.c.id == FLIGHTS.c.id, full=True), 2),
    ("two schemas", select(FLIGHTS.c.id, SALES.c.id).join(SALES, SALES.c.id == FLIGHTS.c.id), 2),
    ("schema, aliased", select(SALES.alias("s").c.id), 1),
    ("lateral", select(select(FLIGHTS.c.id).where(FLIGHTS.c.id == AIRLINES.c.id).lateral("x").c.id, AIRLINES.c.id), 1),
    ("lateral of a table", select(AIRLINES.c.id).join(FLIGHTS.lateral("x"), true()), 1),
    ("delete that reads another table", delete(FLIGHTS).where(exists().where(PLANES.c.id == FLIGHTS.c.id)), 1),
    ("update from a sub-query", update(FLIGHTS).values(month=select(func.max(PLANES.c.seats)).scalar_subquery()), 1),
    (
        "update from itself",
        update(FLIGHTS).values(month=select(func.max(FLIGHTS.c.month)).correlate(None).scalar_subquery()),
        1,
    ),
    ("update from an alias of itself", update(FLIGHTS).values(month=FLIGHTS.alias("z").c.month), 1),
    ("insert from a query", insert(NOTES).values(id=1, carrier="AA", text=select(PLANES.c.id).scalar_subquery()), 1),
]


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # a cartesian product is what some of these are about
@pytest.mark.parametrize(("statement", "filtered"), [pytest.param(s, n, id=name) for name, s, n in READS])
def test_a_table_is_read_only_inside_its_filter(engine: Engine, statement: Any, filtered: int) -> None:
    text = compiled(statement, engine)
    assert len(re.findall(r" AS tg_row WHERE ", text)) == filtered
    # A DELETE names its own table, and is bound by the rule in its WHERE.
    assert BARE.findall(text.removeprefix("DELETE FROM flights WHERE ")) == []


# The rule of what is written is one operand, whatever stands beside it


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(update(FLIGHTS).values(month=1).where(FLIGHTS.c.id == 5), id="update"),
        pytest.param(delete(FLIGHTS).where(FLIGHTS.c.id == 5), id="delete"),
        pytest.param(update(FLIGHTS).values(month=1).where((FLIGHTS.c.id == 5) | (FLIGHTS.c.id == 6)), id="with or"),
    ],
)
def test_a_rule_with_any_does_not_swallow_the_condition_beside_it(engine: Engine, statement: Any) -> None:
    where = compiled(statement, engine).partition(" WHERE ")[2]
    depth, outside = 0, ""
    for character in where:
        depth += {"(": 1, ")": -1}.get(character, 0)
        outside += character if depth == 0 else ""
    assert " OR " not in outside
    assert " AND " in outside
    assert not where.endswith("= 1"), "an index cannot be used for a comparison of a comparison"


# PostgreSQL


@pytest.fixture
def postgres() -> Engine:
    pytest.importorskip("psycopg", reason="the driver is not installed")
    return protect(create_engine("postgresql+psycopg://nobody@localhost/nothing"), _policy())


def test_a_write_in_a_with_query_is_filtered(postgres: Engine) -> None:
    changed = update(FLIGHTS).values(month=9).returning(FLIGHTS.c.id).cte("changed")
    text = compiled(select(changed.c.id), postgres)
    assert re.search(r"UPDATE flights SET month=\S+ WHERE \(%\(tg_usable_1\)s", text)
    removed = delete(FLIGHTS).returning(FLIGHTS.c.id).cte("removed")
    text = compiled(select(removed.c.id, FLIGHTS.c.month).join(FLIGHTS, FLIGHTS.c.id == removed.c.id), postgres)
    assert re.search(r"DELETE FROM flights WHERE \(%\(tg_usable_1\)s", text)
    assert text.count(" AS tg_row WHERE ") == 1


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(insert(NOTES).values(id=1, carrier="AA").returning(NOTES.c.id), id="insert"),
        pytest.param(update(NOTES).values(carrier="AA").returning(NOTES.c.id), id="change of the owner"),
    ],
)
def test_a_row_that_must_be_checked_is_not_written_in_a_with_query(postgres: Engine, attempt: Any) -> None:
    # The checks look at the parameters of one statement, and a WITH query's may be there more than once.
    with pytest.raises(QueryRefused, match="must be written as a plain value"):
        compiled(select(attempt.cte("x").c.id), postgres)


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(select(FLIGHTS.c.id).with_for_update(of=FLIGHTS), id="a table"),
        pytest.param(select(FLIGHTS.alias("z").c.id).with_for_update(), id="an alias"),
    ],
)
def test_rows_are_locked_behind_the_filter(postgres: Engine, statement: Any) -> None:
    text = compiled(statement, postgres)
    assert text.endswith(("FOR UPDATE OF flights", "FOR UPDATE"))
    assert text.count(" AS tg_row WHERE ") == 1


def test_delete_using_reads_the_other_table_through_its_filter(postgres: Engine) -> None:
    text = compiled(delete(FLIGHTS).where(FLIGHTS.c.id == PLANES.c.id), postgres)
    assert re.search(r"USING \(SELECT .* FROM planes AS tg_row WHERE ", text)


def test_a_whole_row_has_only_the_columns_that_are_shown(postgres: Engine) -> None:
    text = compiled(select(func.row_to_json(FARES.table_valued())), postgres)
    assert "margin" not in text
    with pytest.raises(QueryRefused, match="whole row"):
        compiled(delete(FARES).returning(func.row_to_json(FARES.table_valued())), postgres)
    other = FARES.alias("z")
    changed = update(FARES).values(price=1).where(FARES.c.id == other.c.id).returning(other.c.margin)
    with pytest.raises(QueryRefused, match=r"fares\.margin"):
        compiled(changed, postgres)


@pytest.mark.parametrize("name", [
    "query_to_xml", "Table_To_Xml", "dblink", "pg_read_file", "pg_stat_get_live_tuples", "pg_relation_size",
    "pg_reload_conf", "pg_notify", "currtid2", "lastval", "setval", "lo_get", "set_config", "current_setting",
    "pg_get_viewdef",
])  # fmt: skip
def test_a_function_that_reaches_past_the_tables_is_refused(postgres: Engine, name: str) -> None:
    for made in (getattr(func, name)("flights"), getattr(func.pg_catalog, name)("flights")):
        with pytest.raises(QueryRefused, match="may read what is hidden"):
            compiled(select(made), postgres)


@pytest.mark.parametrize("name", ["pg_typeof", "coalesce", "array_agg", "date_trunc", "percentile_cont", "my_own"])
def test_other_functions_are_not(postgres: Engine, name: str) -> None:
    assert compiled(select(getattr(func, name)(FLIGHTS.c.month)), postgres).count(" AS tg_row WHERE ") == 1


# Types

ODD = "1)) FROM salaries --"
INJECTED: list[Any] = [
    ("length", lambda: cast(FLIGHTS.c.id, String(ODD))),  # type: ignore[arg-type]
    ("precision", lambda: cast(FLIGHTS.c.id, Numeric(ODD))),  # type: ignore[arg-type]
    ("collation", lambda: cast(FLIGHTS.c.id, String(collation='C") FROM salaries --'))),
    ("sub-query", lambda: cast(FLIGHTS.c.id, String("1) || (SELECT id FROM salaries)"))),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in INJECTED])
def test_text_in_a_type_is_refused(engine: Engine, make: Callable[[], Any]) -> None:
    with pytest.raises(QueryRefused, match="a type is text"):
        compiled(select(make()), engine)


def test_text_in_a_type_of_a_function_s_columns_is_refused(postgres: Engine) -> None:
    def rows(type_: Any) -> Any:
        made = func.jsonb_to_recordset(literal("[]")).table_valued(column("a", type_))
        return select(made.render_derived(with_types=True))

    assert "AS anon_1(a INTEGER)" in compiled(rows(Integer()), postgres)
    with pytest.raises(QueryRefused, match="a type is text"):
        compiled(rows(String("1)), salaries --")), postgres)  # type: ignore[arg-type]
    with pytest.raises(QueryRefused, match="a type is text"):
        compiled(select(cast("1", postgresql.INTERVAL(fields="year) FROM salaries --"))), postgres)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda given: update(FLIGHTS).values(month=1).where(given.is_not(None)), id="update"),
        pytest.param(lambda given: delete(FLIGHTS).where(given.is_not(None)), id="delete"),
        pytest.param(select, id="select"),
    ],
)
@pytest.mark.parametrize("words", ["DAY OR TRUE", "DAY UNION ALL SELECT id FROM flights", "DAY FROM salaries"])
def test_words_in_a_type_are_not_more_of_the_statement(
    postgres: Engine, make: Callable[[Any], Any], words: str
) -> None:
    """Behind a parameter the type stands without brackets."""
    given = literal(timedelta(1), postgresql.INTERVAL(fields=words))
    with pytest.raises(QueryRefused, match="a type is text"):
        compiled(make(given), postgres)


@pytest.mark.parametrize(
    "type_",
    [
        pytest.param(String(5), id="with a length"),
        pytest.param(String(5, collation="en_US.utf8"), id="with a collation"),
        pytest.param(Numeric(10, 2), id="with precision and scale"),
        pytest.param(REAL(), id="without anything"),
        pytest.param(postgresql.TIMESTAMP(timezone=True, precision=3), id="with a time zone"),
        pytest.param(postgresql.ARRAY(String(3), dimensions=2), id="an array"),
        pytest.param(postgresql.DOUBLE_PRECISION(), id="of two words"),
        pytest.param(postgresql.INTERVAL(fields="YEAR TO MONTH"), id="an interval"),
        pytest.param(postgresql.ENUM("a", name="an odd name", schema="sales"), id="an enumeration"),
        pytest.param(postgresql.BIT(3, varying=True), id="bits"),
    ],
)
def test_ordinary_types_are_not_refused(postgres: Engine, type_: Any) -> None:
    assert "CAST(" in compiled(select(cast(FLIGHTS.c.id, type_)), postgres)
    assert compiled(select(bindparam("x", None, type_)), postgres)


# Sequences


def test_the_name_of_a_sequence_is_not_text(postgres: Engine) -> None:
    name = "a' || (SELECT max(id) FROM flights) || 'b"
    for sequence in (Sequence(name), Sequence("a", schema=name)):
        with pytest.raises(QueryRefused, match="apostrophe"):
            compiled(select(sequence.next_value()), postgres)
    assert "nextval('notes_id_seq')" in compiled(select(Sequence("notes_id_seq").next_value()), postgres)


# Names that are the filter's own


def test_an_alias_with_the_inner_name_does_not_reach_into_the_filter(engine: Engine) -> None:
    outer = AIRLINES.alias("tg_row")
    inner = select(func.count()).select_from(FLIGHTS).where(outer.c.id > 0).correlate(outer).scalar_subquery()
    text = compiled(select(inner).select_from(outer), engine)
    # The innermost tg_row is the table itself, and it has the rule's columns.
    assert "FROM flights AS tg_row WHERE" in text


@pytest.mark.parametrize("name", ["tg_value_1", "tg_usable_1", "tg_values_1"])
def test_the_filter_s_parameters_cannot_be_set(engine: Engine, name: str) -> None:
    made = select(FLIGHTS.c.id).compile(engine)
    with pytest.raises(QueryRefused, match="row filter's"):
        made.construct_params({name: "UA"})


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(select(literal(1).label("margin")).subquery("fares"), id="sub-query"),
        pytest.param(select(literal(1).label("margin")).subquery("FARES"), id="sub-query in other case"),
        pytest.param(values(column("margin", Integer), name="fares").data([(1,)]), id="values"),
        pytest.param(func.json_each("{}").table_valued("margin", name="fares"), id="function"),
        pytest.param(Table("airlines", MetaData(), Column("margin", Integer)).alias("fares"), id="alias"),
        pytest.param(table("FARES", column("margin")), id="table in other case"),
    ],
)
def test_another_source_named_like_the_written_table_does_not_show_its_columns(engine: Engine, source: Any) -> None:
    """Columns that are returned bring no FROM along, so the name alone says whose they are."""
    for write in (update(FARES).values(price=1), delete(FARES)):
        with pytest.raises(QueryRefused):
            compiled(write.returning(source.c.margin), engine)


def test_a_table_that_is_renamed_with_its_schema_does_not_show_the_written_one_s_columns(engine: Engine) -> None:
    written = table("sales_fares", column("id"), column("carrier", String), column("price"), column("margin"))
    other = table("fares", column("carrier", String), column("margin"), schema="sales")
    condition = select(AIRLINES.c.id).where(other.c.margin > 5).correlate(other).exists()
    for write in (update(written).values(price=1), delete(written)):
        for statement in (write.returning(other.c.margin), write.where(condition)):
            with pytest.raises(QueryRefused):
                compiled(statement, engine)


@pytest.mark.parametrize(
    ("type_", "given", "kept"),
    [
        pytest.param(DateTime(), NOON, {"sqlite", "postgresql"}, id="neither has an offset"),
        pytest.param(DateTime(), NOON.replace(tzinfo=UTC), {"sqlite"}, id="UTC, in a column without"),
        pytest.param(DateTime(), NOON.replace(tzinfo=EAST), set(), id="an offset, in a column without"),
        pytest.param(DateTime(timezone=True), NOON, {"sqlite"}, id="no offset, in a column with"),
        pytest.param(DateTime(timezone=True), NOON.replace(tzinfo=UTC), {"sqlite", "postgresql"}, id="UTC"),
        pytest.param(DateTime(timezone=True), NOON.replace(tzinfo=EAST), {"postgresql"}, id="an offset"),
    ],
)
def test_a_moment_that_the_column_would_shift_is_not_written(
    engine: Engine, type_: Any, given: datetime, kept: set[str]
) -> None:
    assert keeps(given, type_, engine.dialect.name) == (engine.dialect.name in kept)


def test_such_a_row_is_refused() -> None:
    policy = RlsPolicy.from_json(
        '{"attributes": {"until": "datetime"}, "tables": {"events": {"write": true,'
        ' "all": [{"column": "at", "op": "le", "attribute": "until"}]}}}'
    )
    events = Table("events", MetaData(), Column("id", Integer), Column("at", DateTime))
    unprotected = create_engine("sqlite://", poolclass=StaticPool)
    events.create(unprotected)
    engine = protect(unprotected, policy)
    token = current_row_access.set(RowAccess(RowFilter(policy, {"until": "2020-06-01T00:00:00Z"})))
    try:
        with engine.connect() as connection:
            early = datetime(2020, 6, 1, 1, tzinfo=EAST)  # in UTC on the day before
            with pytest.raises(QueryRefused, match="an offset"):
                connection.execute(insert(events).values(id=1, at=early))
            assert connection.execute(select(events.c.id)).all() == []
            connection.execute(insert(events).values(id=1, at=early.astimezone(UTC)))
            assert connection.scalars(select(events.c.id)).all() == [1]
    finally:
        current_row_access.reset(token)
        engine.dispose()


def test_dates_that_are_stored_in_a_format_of_their_own_are_refused() -> None:
    """Text in that format has another order."""
    day_first = sqlite.DATETIME(storage_format="%(day)02d/%(month)02d/%(year)04d", regexp=r"(\d+)/(\d+)/(\d+)")
    leaf = Leaf("at", "le", Attribute("until", "datetime"))
    made = RuleExpressions(create_engine("sqlite://").dialect, pytest.fail, many=False)
    for type_ in (day_first, DateTime().with_variant(day_first, "sqlite"), sqlite.DATETIME(truncate_microseconds=True)):
        with pytest.raises(UnfitColumn):
            made.column_type(leaf, type_)
    made.column_type(leaf, sqlite.DATETIME())


def test_postgresql_does_not_round_large_integers(postgres: Engine) -> None:
    """Beside a float it would, and 10000000000000001 would be equal to 1e16."""
    policy = RlsPolicy.from_json(
        '{"attributes": {"n": "number"}, "tables":'
        ' {"planes": {"all": [{"column": "id", "op": "eq", "attribute": "n"}]}}}'
    )
    engine = protect(create_engine("postgresql+psycopg://nobody@localhost/nothing"), policy)
    token = current_row_access.set(RowAccess(RowFilter(policy, {"n": 1e16})))
    try:
        sent = select(PLANES.c.seats).compile(engine).params["tg_value_1"]
    finally:
        current_row_access.reset(token)
    assert (sent, type(sent)) == (Decimal("1E+16"), Decimal)


@pytest.mark.parametrize(
    "rule", [TableRule("planes"), TableRule("planes", write=True), TableRule("planes", Group("any", ()))]
)
def test_a_table_without_rules_is_closed_however_the_policy_was_made(rule: TableRule) -> None:
    policy = RlsPolicy([], [rule])
    unprotected = create_engine("sqlite://", poolclass=StaticPool)
    PLANES.create(unprotected)
    with unprotected.begin() as connection:
        connection.execute(insert(PLANES).values(id=1))
    engine = protect(unprotected, policy)
    token = current_row_access.set(RowAccess(RowFilter(policy, {})))
    try:
        with engine.connect() as connection, suppress(QueryRefused):
            assert connection.execute(select(PLANES.c.id)).all() == []
        with engine.connect() as connection, suppress(QueryRefused):
            assert connection.execute(update(PLANES).values(seats=1)).rowcount == 0
    finally:
        current_row_access.reset(token)
        engine.dispose()


def test_upserts_are_refused(engine: Engine) -> None:
    dialect = postgresql if engine.dialect.name == "postgresql" else sqlite
    row = dialect.insert(NOTES).values(id=1, carrier="AA", text="x")
    upsert = row.on_conflict_do_update(index_elements=["id"], set_={"text": "y"})
    with pytest.raises(QueryRefused, match="ON CONFLICT DO UPDATE"):
        compiled(upsert, engine)
    assert "DO NOTHING" in compiled(row.on_conflict_do_nothing(), engine)


def test_a_table_that_the_policy_does_not_name_is_found_wherever_it_stands(engine: Engine) -> None:
    for statement in (
        select(FLIGHTS.c.id).where(exists().where(SALARIES.c.id == FLIGHTS.c.id)),
        update(FLIGHTS).values(month=SALARIES.c.id),
        delete(FLIGHTS).where(FLIGHTS.c.id.in_(select(SALARIES.c.id))),
        select(func.coalesce(select(SALARIES.c.id).scalar_subquery(), 1)),
        select(FLIGHTS.c.id).order_by(select(SALARIES.c.id).scalar_subquery()),
        insert(NOTES).values(id=1, carrier="AA", text=select(SALARIES.c.carrier).scalar_subquery()),
    ):
        with pytest.raises(QueryRefused, match="does not name the table 'salaries'"):
            compiled(statement, engine)


def test_a_near_miss_is_noted_for_the_developer_and_kept_out_of_the_refusals_text(engine: Engine) -> None:
    with pytest.raises(QueryRefused) as raised:
        compiled(select(Table("flihgts", MetaData(), Column("id", Integer)).c.id), engine)
    assert "'flights'" not in str(raised.value)
    assert raised.value.__notes__[0].startswith("Did you mean flights?")


# Columns that the query's table does not declare


@pytest.mark.parametrize("type_", ["uuid", "date", "datetime"])
@pytest.mark.parametrize("columns", [[], ["when"]], ids=["absent", "without a type"])
def test_a_column_of_unknown_type_is_not_guessed_at(type_: str, columns: list[str]) -> None:
    # Sent as the wrong kind of text, a value is equal to no cell, and `ne` would open every row.
    policy = RlsPolicy.from_json(
        json.dumps(
            {
                "attributes": {"when": {"type": type_, "required": False}},
                "tables": {"events": {"all": [{"column": "when", "op": "ne", "attribute": "when"}]}},
            }
        )
    )
    engine = protect(create_engine("sqlite://"), policy)
    events = table("events", column("id"), *map(column, columns))
    with pytest.raises(QueryRefused, match="the query's table does not declare its type"):
        compiled(select(events.c.id), engine)
