"""Each type, operator, claim and cell: the database lets through exactly what ``RowFilter.matches`` does.

The cells are read back through the driver and given to ``matches`` as they come, so that a cell is judged
by what the application would see of it.
"""

from __future__ import annotations

import datetime
import itertools
import json
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("sqlglot", reason="the extra [sql] reads the statements")

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import BARE_OPERATORS, LIST_OPERATORS, OPERATORS_OF
from toucan_guard.rls.sql import filter_sql

TEXTS = [
    "",
    "A",
    "a",
    "AA",
    "aa",
    "A%",
    "A_",
    "%",
    "_",
    "ä",
    "Ä",
    "a ",
    " a",
    "A\nB",
    "'",
    '"',
    "\\",
    "\U0001f985",
    "1",
]
INTEGERS = [0, 1, -1, 2, 2**31, 2**53, 2**53 - 1, -(2**53), 2**63 - 1, -(2**63)]
NUMBERS = [0, 1, -1, 2, 2**53, 0.5, 0.1, -0.5, 1e-15, 1.5e-16, 1e22, 1e300, -1e300, 0.1 + 0.2]
FLOATS = [0.0, -0.0, 1.0, 0.5, 0.1, 0.1 + 0.2, 1e300, float(2**53), 1e-15, 1.5e-16, -0.5]
DECIMALS = [Decimal(x) for x in ("0", "1", "0.5", "0.1", "0.3", "-0.5", "0.000000000000001", "2", "123456789.125")]
DAYS = ["2013-01-31", "2013-02-01", "1999-12-31", "0001-01-01", "9999-12-31"]
MOMENTS = [
    *("2013-01-31T12:00:00Z", "2013-01-31T12:00:00.000001", "2013-01-31T14:00:00+02:00", "2013-01-31 12:00"),
    *("2013-01-31T23:59:59.999999Z", "2013-02-01T00:00:00Z", "1969-12-31T23:59:59.999999Z"),
]
ODD_DAYS = ["2013-02-30", "2013-1-31", "now", "", "2013-01-31 ", "2013-01-31 00:00:00", "0000-01-01", "2456324.5"]
ODD_MOMENTS = [
    *("2013-01-31T12:00:00.0000001Z", "2013-02-30T12:00:00Z", "2013-01-31T24:00:00Z", "2013-01-31T12:60:00Z"),
    *("2013-01-31", "now", "", "2013-01-31T12:00:00+0200", "2013-01-31T12:00:00z", "2013-01-31T12:00:00.9999"),
    *("2013-01-31 12:00:00.5", "2013-01-31T12:00:00-01:30", "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-01:00"),
    *("2013-01-31T12:00:00 +02:00", "2013-01-31T12:00+02:00", "2013-01-31T12:00Z", "2013-01-31T12:00:00.", "T12:00"),
    *("2013-01-31T12:00:00.123456789", "2013-01-31  12:00:00", "2013-01-31T12:00:99Z", "2013-01-31T12:00:59.9999999Z"),
]
CODES = ["12345678-1234-5678-1234-56781234abcd", "00000000-0000-0000-0000-000000000000"]
ODD_CODES = [CODES[0].upper(), CODES[0].replace("-", ""), f"{{{CODES[0]}}}", "x", ""]

CLAIMS: dict[str, list[Any]] = {
    "string": TEXTS,
    "integer": INTEGERS,
    "number": NUMBERS,
    "boolean": [True, False],
    "date": DAYS,
    "datetime": MOMENTS,
    "uuid": [*CODES, CODES[0].upper()],
}


def day(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


NAIVE = [moment(text).replace(tzinfo=None) for text in MOMENTS]
ZONED = [moment(text).replace(tzinfo=moment(text).tzinfo or datetime.UTC) for text in MOMENTS]
ANYTHING = [*TEXTS, *ODD_DAYS, *MOMENTS, *ODD_MOMENTS, *CODES, *ODD_CODES, 0, 1, 2, -1, 0.5, 1.0, b"A", b"1", *DAYS]

# Of each database the columns: name, type as the database writes it, cells, and with which attributes it is compared.
EVERY_TYPE = list(CLAIMS)
TABLES: dict[str, list[tuple[str, str, list[Any], list[str]]]] = {
    "sqlite": [
        ("bare", "", [*ANYTHING, *INTEGERS, *FLOATS], EVERY_TYPE),
        ("txt", "TEXT", ANYTHING, EVERY_TYPE),
        ("nocase", "TEXT COLLATE NOCASE", ANYTHING, ["string", "uuid", "date", "datetime"]),
        ("rtrim", "VARCHAR(9) COLLATE RTRIM", ANYTHING, ["string", "uuid", "date", "datetime"]),
        ("whole", "INTEGER", [*ANYTHING, *INTEGERS], EVERY_TYPE),
        ("num", "NUMERIC", [*ANYTHING, *FLOATS], EVERY_TYPE),
        ("day", "DATE", [*DAYS, *ODD_DAYS], ["date", "string", "integer"]),
        ("at", "DATETIME", [*MOMENTS, *ODD_MOMENTS], ["datetime", "string"]),
        ("flag", "BOOLEAN", [0, 1, 2, 1.0, "1", "true"], ["boolean", "integer"]),
        ("real_", "REAL", FLOATS, ["number", "boolean", "string"]),
    ],
    "duckdb": [
        ("txt", "VARCHAR", [*TEXTS, *DAYS, *ODD_DAYS, *CODES, *ODD_CODES],
         ["string", "uuid", "date", "integer", "boolean"]),
        ("nocase", "VARCHAR COLLATE NOCASE", TEXTS, ["string"]),
        ("kind", "ENUM ('A', 'a', 'AA')", ["A", "a", "AA"], ["string"]),
        ("small", "SMALLINT", [0, 1, -1, 2], ["integer", "number", "boolean", "string"]),
        ("whole", "BIGINT", INTEGERS, ["integer", "number", "boolean", "string", "date"]),
        ("huge", "HUGEINT", [*INTEGERS, 2**100], ["integer", "number"]),
        ("double_", "DOUBLE", [*FLOATS, float("nan"), float("inf")], ["integer", "number", "boolean", "string"]),
        ("dec", "DECIMAL(38, 15)", DECIMALS, ["integer", "number", "string"]),
        ("price", "DECIMAL(18, 3)", [Decimal("0.5"), Decimal("0.1"), Decimal(1), Decimal(2)], ["integer", "number"]),
        ("flag", "BOOLEAN", [True, False], ["boolean", "integer", "string"]),
        ("day", "DATE", [day(text) for text in DAYS], ["date", "datetime", "string", "integer"]),
        ("naive", "TIMESTAMP", NAIVE, ["datetime", "date", "string"]),
        ("zoned", "TIMESTAMPTZ", ZONED, ["datetime", "date"]),
        ("code", "UUID", CODES, ["uuid", "string"]),
    ],
    "postgres": [
        ("txt", "text", [*TEXTS, *CODES, *ODD_CODES], ["string", "uuid"]),
        ("var", "varchar(50) COLLATE \"C\"", TEXTS, ["string"]),
        ("small", "smallint", [0, 1, -1, 2], ["integer", "number"]),
        ("whole", "bigint", INTEGERS, ["integer", "number"]),
        ("double_", "double precision", [*FLOATS, float("nan")], ["number"]),
        ("dec", "numeric", [*DECIMALS, Decimal("0.1000000000000000055511151231257827")], ["integer", "number"]),
        ("flag", "boolean", [True, False], ["boolean"]),
        ("day", "date", [day(text) for text in DAYS], ["date", "datetime"]),
        ("naive", "timestamp", NAIVE, ["datetime", "date"]),
        ("zoned", "timestamptz", ZONED, ["datetime", "date"]),
        ("code", "uuid", CODES, ["uuid"]),
    ],
}  # fmt: skip


def _connect(dialect: str, request: pytest.FixtureRequest) -> tuple[Any, str]:
    if dialect == "sqlite":
        return sqlite3.connect(":memory:"), "?"
    if dialect == "duckdb":
        duckdb = pytest.importorskip("duckdb", reason="the wheel is the database")
        pytest.importorskip("pytz", reason="DuckDB reads time zones with it")
        return duckdb.connect(config={"threads": 1}), "?"
    psycopg = pytest.importorskip("psycopg", reason="the extra [postgres] has the driver")
    connection = psycopg.connect(request.getfixturevalue("postgres_uri"), autocommit=True)
    connection.execute("SET TIME ZONE 'Asia/Tokyo'")
    return connection, "%s"


@pytest.fixture(params=list(TABLES), scope="module")
def cells(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """A connection with a table for each column."""
    dialect = str(request.param)
    connection, mark = _connect(dialect, request)
    for name, type_, values, _ in TABLES[dialect]:
        connection.execute(f"DROP TABLE IF EXISTS of_{name}")
        connection.execute(f"CREATE TABLE of_{name} (id integer, {name} {type_})")
        for number, value in enumerate([*values, None]):
            connection.execute(f"INSERT INTO of_{name} VALUES ({mark}, {mark})", (number, value))
    yield dialect, connection
    connection.close()


def _policy(table: str, column: str, op: str, type_: str) -> RlsPolicy:
    leaf = {"column": column, "op": op, **({} if op in BARE_OPERATORS else {"attribute": "x"})}
    attribute = {"type": type_, "list": op in LIST_OPERATORS, "required": False}
    return RlsPolicy.from_json(json.dumps({"attributes": {"x": attribute}, "tables": {table: {"all": [leaf]}}}))


def _claims(op: str, type_: str) -> Iterator[Any]:
    known = CLAIMS[type_]
    yield None
    if op in LIST_OPERATORS:
        yield []
        yield known
        yield from map(list, itertools.pairwise(known[:6]))
    elif op not in BARE_OPERATORS:
        yield from known


def test_every_cell(cells: tuple[str, Any]) -> None:
    dialect, connection = cells
    asked, wrong = 0, []
    for column, _, _, types in TABLES[dialect]:
        table = f"of_{column}"
        rows = [
            dict(zip(("id", column), row, strict=True))
            for row in connection.execute(f"SELECT * FROM {table}").fetchall()
        ]
        for type_ in types:
            for op in sorted(OPERATORS_OF[type_] | BARE_OPERATORS):  # type: ignore[index]
                policy = _policy(table, column, op, type_)
                for claim in _claims(op, type_):
                    row_filter = RowFilter(policy, {} if claim is None else {"x": claim})
                    statement = filter_sql(f"SELECT id FROM {table} ORDER BY id", row_filter, dialect=dialect)
                    found = [number for (number,) in connection.execute(*statement).fetchall()]
                    meant = [row["id"] for row in rows if row_filter.matches(table, row)]
                    asked += 1
                    if found != meant:
                        odd = {row["id"]: row[column] for row in rows}
                        more = [odd[number] for number in found if number not in meant]
                        less = [odd[number] for number in meant if number not in found]
                        wrong.append((column, type_, op, claim, "more", more[:4], "less", less[:4]))
    assert asked > 1000
    assert not wrong, "\n".join(map(str, wrong[:40])) + f"\n{len(wrong)} of {asked}"
