"""Every operator, type and kind of column in PostgreSQL means what ``RowFilter.matches`` says."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

pytest.importorskip("psycopg")

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import (
    BARE_OPERATORS,
    LIST_OPERATORS,
    OPERATORS_OF,
    Attribute,
    Group,
    Leaf,
    Rule,
    TableRule,
    Type,
)
from toucan_guard.rls.postgres import DatabaseContext
from toucan_guard.rls.postgres_policies import rule_sql

KEY = "a-context-key-for-tests-of-postgres-0123456789"
TEXTS = (
    "UA",
    "ua",
    "",
    " UA",
    "UA ",
    "Ü",
    "U\u0308",
    "ß",
    "ss",
    "'",
    '"',
    "\\",
    "{}",
    "NULL",
    "null",
    "a,b",
    "%",
    "_",
    "日本",
    "UAx",
)
MOMENTS = (
    datetime(2013, 1, 31, 12, tzinfo=UTC),
    datetime(2013, 1, 31, 12, 0, 0, 1, tzinfo=UTC),
    datetime(2013, 1, 31, 13, tzinfo=timezone(timedelta(hours=1))),
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(9999, 12, 30, tzinfo=UTC),
)
ONE, TWO = UUID("6f1c1b1e-0000-4000-8000-0000000000aa"), UUID("6f1c1b1e-0000-4000-8000-0000000000ab")
NUMBERS = (0, 1, -1, 3, 2**31, 2**53, -(2**53))
INTEGERS = (*NUMBERS, 2**53 + 1, 2**63 - 1, -(2**63))
DECIMALS = (Decimal("0.1"), Decimal("0.10000000000000001"), Decimal("1.0"), Decimal(2**53 + 1), Decimal("NaN"))

# Attribute's type, column's type, cells, values.
CASES: list[tuple[Type, str, tuple[Any, ...], tuple[Any, ...]]] = [
    ("string", "text", TEXTS, TEXTS),
    ("string", "varchar(10)", TEXTS, TEXTS),
    ("string", "word", TEXTS, TEXTS),
    ("integer", "smallint", (0, 1, -1, 32767), INTEGERS),
    ("integer", "integer", (0, 1, -1, 2**31 - 1), INTEGERS),
    ("integer", "bigint", INTEGERS, INTEGERS),
    ("integer", "numeric", (*map(Decimal, INTEGERS), *DECIMALS), INTEGERS),
    ("number", "bigint", INTEGERS, (*NUMBERS, 0.5, 1.0, float(2**53), 1e300, -1e300)),
    ("number", "integer", (0, 1, -1, 3), (*NUMBERS, 0.5, 1.0, 1e300)),
    ("number", "numeric", DECIMALS, (*NUMBERS, 0.1, 1.0, 1e-300)),
    ("number", "double precision", (0.0, -0.0, 0.1, 1.0, math.nan, math.inf, -math.inf, 1e300, 5e-324, float(2**53)),
     (*NUMBERS, 0.1, -0.0, 1e300, 5e-324, 0.30000000000000004)),
    ("boolean", "boolean", (True, False), (True, False)),
    ("date", "date", (date(2013, 1, 31), date(1, 1, 1), date(9999, 12, 31)), (date(2013, 1, 31), date(1, 1, 1), date(2013, 2, 1))),
    ("datetime", "timestamptz", MOMENTS, MOMENTS),
    ("datetime", "timestamp", tuple(m.astimezone(UTC).replace(tzinfo=None) for m in MOMENTS), MOMENTS),
    ("uuid", "uuid", (ONE, TWO), (ONE, TWO)),
    ("uuid", "text", (str(ONE), ONE.hex, str(ONE).upper(), str(TWO), "no uuid", ""), (ONE, TWO)),
    ("uuid", "varchar", (str(ONE), str(TWO).upper()), (ONE, TWO)),
]  # fmt: skip
STORED = {
    "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone",
    "varchar": "character varying",
}


@pytest.fixture(scope="module")
def connection(make_database: Callable[[], Any]) -> Iterator[Any]:
    database = make_database()
    database.protect(RlsPolicy([], []))
    with database.admin() as made:
        made.execute("CREATE DOMAIN word AS text CHECK (length(VALUE) < 100)")
        # Whatever the session is set to, a date means the same.
        made.execute("SET TimeZone = 'Pacific/Kiritimati'; SET DateStyle = 'German, DMY'; SET extra_float_digits = 0")
        yield made


def _table(connection: Any, column_type: str, cells: tuple[Any, ...]) -> list[dict[str, Any]]:
    connection.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (id integer, cell {column_type})")
    rows = [{"id": number, "cell": cell} for number, cell in enumerate((*cells, None))]
    for row in rows:
        connection.execute("INSERT INTO t VALUES (%(id)s, %(cell)s)", row)
    return rows


def _seen(
    connection: Any, policy: RlsPolicy, attributes: dict[str, Any], column_type: str
) -> tuple[RowFilter, set[int]]:
    row_filter = RowFilter(policy, attributes)
    value = DatabaseContext(KEY).sign(row_filter, now=time.time(), backend_pid=connection.info.backend_pid)
    connection.execute("SELECT set_config('toucan_guard.context', %s, false)", (value,))
    condition = rule_sql(policy.tables["t"], {"id": "integer", "cell": STORED.get(column_type, column_type)})
    return row_filter, {row[0] for row in connection.execute(f"SELECT id FROM t WHERE {condition}")}


@pytest.mark.parametrize(("type_", "column_type", "cells", "values"), CASES, ids=[f"{c[0]} in {c[1]}" for c in CASES])
def test_each_operator_finds_the_rows_that_match(
    type_: Type, column_type: str, cells: tuple[Any, ...], values: tuple[Any, ...], connection: Any
) -> None:
    rows = _table(connection, column_type, cells)
    compared = 0
    for op in sorted(OPERATORS_OF[type_]):
        many = op in LIST_OPERATORS
        attribute = Attribute("a", type_, "list" if many else "one", required=False)
        leaf = Leaf("cell", op, attribute)  # type: ignore[arg-type]
        policy = RlsPolicy([attribute], [TableRule("t", leaf)])
        given: list[Any] = [
            None,
            *([[value] for value in values] + [[], list(values), list(values[:2])] if many else values),
        ]
        for value in given:
            row_filter, seen = _seen(connection, policy, {"a": value}, column_type)
            assert seen == {row["id"] for row in rows if row_filter.matches("t", row)}, (op, value)
            compared += bool(seen)
    assert compared


@pytest.mark.parametrize("op", sorted(BARE_OPERATORS))
def test_presence(op: str, connection: Any) -> None:
    rows = _table(connection, "text", ("", "a"))
    policy = RlsPolicy([], [TableRule("t", Leaf("cell", op))])  # type: ignore[arg-type]
    row_filter, seen = _seen(connection, policy, {}, "text")
    assert seen == {row["id"] for row in rows if row_filter.matches("t", row)} != set()


def test_groups_are_as_they_are_written(connection: Any) -> None:
    rows = _table(connection, "text", ("x", "y", "z"))
    one, other = Attribute("a", "string", required=False), Attribute("b", "string", required=False)
    same, differs, left = Leaf("cell", "eq", one), Leaf("cell", "ne", other), Leaf("cell", "is_not_set")
    rules: list[Rule] = [
        Group("any", (same, differs)),
        Group("all", (same, differs)),
        Group("any", (Group("all", (same, differs)), left)),
        Group("all", (Group("any", (same, left)), Group("any", (differs, left)))),
        Group("all", ()),
        Group("any", ()),
    ]
    for rule in rules:
        policy = RlsPolicy([one, other], [TableRule("t", rule)])
        for attributes in ({}, {"a": "x"}, {"b": "x"}, {"a": "x", "b": "y"}, {"a": "x", "b": "x"}):
            row_filter, seen = _seen(connection, policy, attributes, "text")
            assert seen == {row["id"] for row in rows if row_filter.matches("t", row)}


def test_a_list_where_one_value_is_compared_opens_nothing(connection: Any) -> None:
    _table(connection, "text", ("x", "{x}", '{"x"}'))
    for op, shape in (("eq", "list"), ("in", "one"), ("ne", "list"), ("not_in", "one")):
        attribute = Attribute("a", "string", shape)  # type: ignore[arg-type]
        policy = RlsPolicy([attribute], [TableRule("t", Leaf("cell", op, attribute))])  # type: ignore[arg-type]
        assert _seen(connection, policy, {"a": ["x"] if shape == "list" else "x"}, "text")[1] == set()
