"""SQLite behind SQLAlchemy agrees with ``RowFilter.matches`` row by row, whatever the policy and the values."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    bindparam,
    create_engine,
    delete,
    insert,
    select,
)
from sqlalchemy.pool import StaticPool

from toucan_guard.core.decisions import Deny
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import BARE_OPERATORS, LIST_OPERATORS, OPERATORS_OF
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sqlalchemy import protect

# Few and awkward values, so that rows and attributes meet.
TEXTS = ["", "A", "a", "AA", "A%", "A_", "%", "ä", "Ä", "a ", "A\nB", "'", "\U0001f985"]
NUMBERS = [0, 1, -1, 2, 2**53, -(2**53), 7]
STARTS = [
    datetime.datetime(2013, 1, 1),
    datetime.datetime(2013, 1, 1, 12, 0, 0, 1),
    datetime.datetime(1999, 12, 31, 23),
]
CODES = ["12345678-1234-5678-1234-56781234abcd", "00000000-0000-0000-0000-000000000000"]

CELLS: dict[str, list[Any]] = {
    "text": TEXTS,
    "loose": TEXTS,
    "whole": [*NUMBERS, 2**63 - 1],
    "real": [*map(float, NUMBERS), 0.5, 0.1, -0.0, 1e300],
    "flag": [True, False],
    "day": [start.date() for start in STARTS],
    "moment": STARTS,
    "zoned": STARTS,
    "code": CODES,
}
COLUMNS: dict[str, list[str]] = {
    "string": ["text", "loose"],
    "integer": ["whole", "real"],
    "number": ["whole", "real"],
    "boolean": ["flag"],
    "date": ["day"],
    "datetime": ["moment", "zoned"],
    "uuid": ["code", "code_text"],
}
CLAIMS: dict[str, list[Any]] = {
    "string": TEXTS,
    "integer": NUMBERS,
    "number": [*NUMBERS, 0.5, 0.1],
    "boolean": [True, False],
    "date": [start.date().isoformat() for start in STARTS],
    "datetime": [start.isoformat() + end for start in STARTS for end in ("", "Z", "+02:00")],
    "uuid": [*CODES, CODES[0].upper()],
}

TABLE = Table(
    "t",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("text", String),
    Column("loose", String(collation="NOCASE")),
    Column("whole", BigInteger),
    Column("real", Float),
    Column("flag", Boolean),
    Column("day", Date),
    Column("moment", DateTime),
    Column("zoned", DateTime(timezone=True)),
    Column("code", Uuid(as_uuid=False)),
    Column("code_text", String),
)


@st.composite
def rules(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    if depth and draw(st.integers(0, 2)) == 0:
        kind = draw(st.sampled_from(["all", "any"]))
        return {kind: draw(st.lists(rules(depth - 1), min_size=1, max_size=3))}
    type_ = draw(st.sampled_from(sorted(COLUMNS)))
    column = draw(st.sampled_from(COLUMNS[type_]))
    op = draw(st.sampled_from(sorted(OPERATORS_OF[type_] | BARE_OPERATORS)))  # type: ignore[index]
    if op in BARE_OPERATORS:
        return {"column": column, "op": op}
    suffix = "_list" if op in LIST_OPERATORS else draw(st.sampled_from(["", "_more"]))
    return {"column": column, "op": op, "attribute": type_ + suffix}


def _attributes() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for type_ in CLAIMS:
        made[type_] = {"type": type_, "required": False}
        made[f"{type_}_more"] = {"type": type_, "required": False}
        made[f"{type_}_list"] = {"type": type_, "list": True, "required": False}
    return made


@st.composite
def policies(draw: st.DrawFn) -> RlsPolicy:
    import json

    kind = draw(st.sampled_from(["all", "any"]))
    table = {kind: draw(st.lists(rules(), min_size=1, max_size=3)), "write": True}
    return RlsPolicy.from_json(json.dumps({"attributes": _attributes(), "tables": {"t": table}}))


@st.composite
def claims(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for type_, known in CLAIMS.items():
        for name in (type_, f"{type_}_more"):
            value = draw(st.sampled_from([*known, None]))
            if value is not None:
                made[name] = value
        if draw(st.booleans()):
            made[f"{type_}_list"] = draw(st.lists(st.sampled_from(known), max_size=3))
    return made


def row() -> st.SearchStrategy[dict[str, Any]]:
    cells = {name: st.sampled_from([*known, None]) for name, known in CELLS.items()}
    return st.fixed_dictionaries({**cells, "code_text": st.sampled_from([*CODES, CODES[0].upper(), None])})


def fresh() -> Engine:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    TABLE.create(engine)
    return engine


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    policy=policies(), tenants=st.lists(claims(), min_size=1, max_size=3), rows=st.lists(row(), min_size=1, max_size=12)
)
def test_the_database_agrees_row_by_row(
    policy: RlsPolicy, tenants: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> None:
    engine = fresh()
    with engine.begin() as connection:
        connection.execute(insert(TABLE), [{"id": number, **cells} for number, cells in enumerate(rows)])
        stored = [dict(found) for found in connection.execute(select(TABLE).order_by(TABLE.c.id)).mappings()]
    protect(engine, policy)
    for attributes in tenants:
        row_filter = policy.row_filter(attributes)
        assert isinstance(row_filter, RowFilter), row_filter
        truth = [cells["id"] for cells in stored if row_filter.matches("t", cells)]
        token = current_row_access.set(RowAccess(row_filter))
        try:
            with engine.connect() as connection:
                assert list(connection.scalars(select(TABLE.c.id).order_by(TABLE.c.id))) == truth
                # Of many rows at once the lists are written in another way.
                many = delete(TABLE).where(TABLE.c.id == bindparam("key"))
                connection.execute(many, [{"key": number} for number in range(-1, len(rows))])
                assert not list(connection.scalars(select(TABLE.c.id)))
                kept = connection.connection.cursor().execute("SELECT id FROM t ORDER BY id").fetchall()
                assert [number for (number,) in kept] == [c["id"] for c in stored if c["id"] not in truth]
                connection.rollback()
        finally:
            current_row_access.reset(token)
    engine.dispose()


JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=3),
        st.characters(categories=["Cs"]),
        st.binary(max_size=2),
        st.sampled_from(list(itertools.chain.from_iterable(CLAIMS.values()))),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from([*_attributes(), "unknown", "String", ""])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policy=policies(), attributes=st.dictionaries(NAMES, JUNK, max_size=6) | JUNK, cells=st.lists(row(), max_size=3))
def test_any_claims_give_a_filter_or_a_refusal_and_the_filter_alone_is_never_wider(
    policy: RlsPolicy, attributes: Any, cells: list[dict[str, Any]]
) -> None:
    decided = policy.row_filter(attributes)
    alone = RowFilter(policy, attributes)
    problems = policy.problems(attributes)
    assert isinstance(decided, Deny) == bool(problems)
    for known in cells:
        assert isinstance(alone.matches("t", known), bool)
        if isinstance(decided, RowFilter):
            assert decided == alone
        if not alone.attribute_names:
            # Nothing that compares with an attribute is left: only rules about empty cells may hold.
            assert alone.matches("t", known) == RowFilter(policy, {}).matches("t", known)


@settings(max_examples=100, deadline=None)
@given(
    policy=policies(), attributes=claims(), before=row(), changed=row(), columns=st.sets(st.sampled_from(sorted(CELLS)))
)
def test_a_change_that_is_certain_leaves_the_row_matching(
    policy: RlsPolicy, attributes: dict[str, Any], before: dict[str, Any], changed: dict[str, Any], columns: set[str]
) -> None:
    row_filter = RowFilter(policy, attributes)
    change = {name: changed[name] for name in columns}
    if row_filter.matches("t", before) and row_filter.still_matches("t", change):
        assert row_filter.matches("t", {**before, **change})
