"""Every adapter agrees with ``RowFilter.matches``, on policies, claims, rows and queries that nobody has thought of.

One case is one rule for a table, one embed's attributes and one query. Each is asked of SQLAlchemy on SQLite
and on PostgreSQL, of rewritten SQL on SQLite, DuckDB and PostgreSQL, and of PostgreSQL's own policies; the answer
has to be what the query gives over the rows that match. ``TOUCAN_DIFFERENTIAL_EXAMPLES=440`` runs ten times as many.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    case,
    create_engine,
    exists,
    func,
    insert,
    literal,
    select,
    union_all,
)
from sqlalchemy.pool import StaticPool

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import BARE_OPERATORS, LIST_OPERATORS, OPERATORS_OF
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sqlalchemy import protect

duckdb = pytest.importorskip("duckdb", reason="the duckdb wheel has the database")
pytest.importorskip("sqlglot", reason="the extra [sql] has the parser")
psycopg = pytest.importorskip("psycopg", reason="the extra [postgres] has the driver")

from toucan_guard.rls.postgres import DatabaseContext, bind  # noqa: E402
from toucan_guard.rls.sql import filter_sql  # noqa: E402

EXAMPLES = int(os.environ.get("TOUCAN_DIFFERENTIAL_EXAMPLES", "44"))
CASES_IN_EXAMPLE = 4 * 10 * 6
KEY = "a-context-key-for-tests-of-postgres-0123456789"

# Few and awkward values, so that cells and attributes meet.

TEXTS = [
    "",
    "A",
    "a",
    "AA",
    "A%",
    "A_",
    "%",
    "ä",
    "Ä",
    "a\u0308",
    "a ",
    "A\nB",
    "'",
    "' OR 1=1 --",
    "\\",
    "{",
    "$1",
    "🦅",
    "NULL",
]
WHOLE = [0, 1, -1, 2, 7, 2**53, 2**53 + 1, -(2**53), 2**63 - 1, -(2**63)]
REAL = [0.0, -0.0, 1.0, 0.5, 0.1, 0.30000000000000004, 7.0, 2.0**53, 1e300, -1e300, 5e-324, float("inf")]
DAYS = [date(2013, 1, 1), date(2013, 1, 2), date(1, 1, 1), date(9999, 12, 31), date(2000, 2, 29)]
MOMENTS = [
    datetime(2013, 1, 1),
    datetime(2013, 1, 1, 12, 0, 0, 1),
    datetime(2012, 12, 31, 22),
    datetime(1, 1, 3),
    datetime(9999, 12, 30, 23, 59, 59, 999999),
]
CODES = ["12345678-1234-5678-1234-56781234abcd", "00000000-0000-0000-0000-000000000000"]
CELLS: dict[str, list[Any]] = {
    "text": [*TEXTS, None],
    "loose": [*TEXTS, None],
    "whole": [*WHOLE, None],
    "real": [*REAL, None],
    "flag": [True, False, None],
    "day": [*DAYS, None],
    "moment": [*MOMENTS, None],
    "zoned": [*(moment.replace(tzinfo=UTC) for moment in MOMENTS), None],
    "code": [*CODES, None],
    "written": [*CODES, CODES[0].replace("-", ""), CODES[0].upper(), "x", None],
}
COLUMNS: dict[str, list[str]] = {
    "string": ["text", "loose"],
    "integer": ["whole"],
    "number": ["whole", "real"],
    "boolean": ["flag"],
    "date": ["day"],
    "datetime": ["moment", "zoned"],
    "uuid": ["code", "written"],
}
# What a token may carry: of the right type, and whatever else a hostile or hapless host writes.
CLAIMS: dict[str, list[Any]] = {
    "string": TEXTS,
    "integer": WHOLE,
    "number": [*WHOLE[:-3], *REAL[:-1]],
    "boolean": [True, False],
    "date": [day.isoformat() for day in DAYS],
    "datetime": [
        *(f"{moment.isoformat()}{end}" for moment in MOMENTS for end in ("", "Z", "+02:00", "-11:30")),
        datetime(2013, 1, 1, 5, 30, tzinfo=UTC) + timedelta(hours=1),
    ],
    "uuid": [*CODES, CODES[0].upper()],
}
WRONG: list[Any] = [
    None,
    "",
    [],
    {},
    0,
    True,
    1.5,
    "2013-02-30",
    "x" * 40,
    float("nan"),
    float("inf"),
    [None],
    [[]],
    "\x00",
    2**64,
]

ROW_BYTES = len(CELLS)
TABLES = ("t0", "t1", "t2", "t3")


def picked(pool: list[Any], byte: int) -> Any:
    return pool[byte % len(pool)]


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
    return {"column": column, "op": op, "attribute": type_ + ("_list" if op in LIST_OPERATORS else "")}


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {draw(st.sampled_from(["all", "any"])): draw(st.lists(rules(), min_size=1, max_size=3))}
    if draw(st.booleans()):
        made["columns"] = {"show": ["id", *draw(st.sets(st.sampled_from(sorted(CELLS)), max_size=3))]}
    return made


ATTRIBUTES = {
    f"{type_}{suffix}": {"type": type_, "list": bool(suffix), "required": False}
    for type_ in CLAIMS
    for suffix in ("", "_list")
}


@st.composite
def policies(draw: st.DrawFn) -> RlsPolicy:
    named = {name: draw(tables()) for name in TABLES}
    return RlsPolicy.from_json(json.dumps({"attributes": ATTRIBUTES, "tables": {**named, "u": {"open": True}}}))


@st.composite
def claims(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for type_, known in CLAIMS.items():
        one, kind = draw(st.binary(min_size=2, max_size=2))
        if kind % 8:  # else it is absent
            made[type_] = picked(WRONG, one) if kind % 8 == 1 else picked(known, one)
        kind, *many = draw(st.binary(min_size=1, max_size=4))
        if kind % 8:
            made[f"{type_}_list"] = picked(WRONG, kind) if kind % 8 == 1 else [picked(known, byte) for byte in many]
    return made


def rows_of(seed: list[bytes]) -> list[dict[str, Any]]:
    columns = list(CELLS)
    return [
        {"id": number, **{name: picked(CELLS[name], byte) for name, byte in zip(columns, raw, strict=True)}}
        for number, raw in enumerate(seed)
    ]


# Queries: as text, as SQLAlchemy writes them, and what they give over the ids that match.


class Query(NamedTuple):
    name: str
    text: str
    build: Callable[[Table, Table, int], Any]
    truth: Callable[[list[int], int, int], list[Any]]


def _grouped(s: Any) -> Any:
    return select(s.c.part, func.count()).group_by(s.c.part).having(func.count() > 1)


def _joined(a: Any, b: Any, n: int) -> Any:
    return select(a.c.id, b.c.id).join(b, b.c.id == a.c.id + n)


def _pairs(ids: list[int], n: int, _: int) -> list[Any]:
    return [(one, one + n) for one in ids if one + n in ids]


def _outer(ids: list[int], _: int, size: int) -> list[Any]:
    return [(number, number if number in ids else None) for number in range(size)]


QUERIES = [
    Query("ids", "SELECT id FROM {t}", lambda t, u, n: select(t.c.id), lambda ids, n, size: [(i,) for i in ids]),
    Query(
        "where",
        "SELECT id FROM {t} WHERE id > :n",
        lambda t, u, n: select(t.c.id).where(t.c.id > n),
        lambda ids, n, size: [(i,) for i in ids if i > n],
    ),
    Query(
        "a condition that is fenced",
        "SELECT id FROM {t} WHERE id * 2 - :n > 5",
        lambda t, u, n: select(t.c.id).where(t.c.id * 2 - n > 5),
        lambda ids, n, size: [(i,) for i in ids if i * 2 - n > 5],
    ),
    Query(
        "count",
        "SELECT count(*) FROM {t}",
        lambda t, u, n: select(func.count()).select_from(t),
        lambda ids, n, size: [(len(ids),)],
    ),
    Query(
        "extremes",
        "SELECT max(id), min(id), sum(CASE WHEN id > :n THEN 1 ELSE 0 END) FROM {t}",
        lambda t, u, n: select(func.max(t.c.id), func.min(t.c.id), func.sum(case((t.c.id > n, 1), else_=0))),
        lambda ids, n, size: [(max(ids), min(ids), sum(i > n for i in ids))] if ids else [(None, None, None)],
    ),
    Query(
        "group",
        "SELECT part, count(*) FROM (SELECT id - id % 4 AS part FROM {t}) AS s GROUP BY part HAVING count(*) > 1",
        lambda t, u, n: _grouped(select((t.c.id - t.c.id % 4).label("part")).subquery("s")),
        lambda ids, n, size: [(part, n) for part in range(0, 99, 4) if (n := sum(i - i % 4 == part for i in ids)) > 1],
    ),
    Query(
        "self join",
        "SELECT a.id, b.id FROM {t} AS a JOIN {t} AS b ON b.id = a.id + :n",
        lambda t, u, n: _joined(t.alias("a"), t.alias("b"), n),
        _pairs,
    ),
    Query(
        "outer join",
        "SELECT u.id, {t}.id FROM u LEFT JOIN {t} ON {t}.id = u.id",
        lambda t, u, n: select(u.c.id, t.c.id).select_from(u.outerjoin(t, t.c.id == u.c.id)),
        _outer,
    ),
    Query(
        "exists",
        "SELECT u.id FROM u WHERE EXISTS (SELECT 1 FROM {t} WHERE {t}.id = u.id)",
        lambda t, u, n: select(u.c.id).where(exists().where(t.c.id == u.c.id)),
        lambda ids, n, size: [(i,) for i in ids],
    ),
    Query(
        "not in",
        "SELECT u.id FROM u WHERE u.id NOT IN (SELECT id FROM {t})",
        lambda t, u, n: select(u.c.id).where(u.c.id.not_in(select(t.c.id))),
        lambda ids, n, size: [(i,) for i in range(size) if i not in ids],
    ),
    Query(
        "with",
        "WITH c AS (SELECT id FROM {t} WHERE id <> :n) SELECT count(*) FROM c",
        lambda t, u, n: select(func.count()).select_from(select(t.c.id).where(t.c.id != n).cte("c")),
        lambda ids, n, size: [(len([i for i in ids if i != n]),)],
    ),
    Query(
        "union",
        "SELECT id FROM {t} WHERE id < :n UNION ALL SELECT id FROM {t} WHERE id >= :n",
        lambda t, u, n: union_all(select(t.c.id).where(t.c.id < n), select(t.c.id).where(t.c.id >= n)),
        lambda ids, n, size: [(i,) for i in ids],
    ),
    Query(
        "scalar",
        "SELECT (SELECT count(*) FROM {t}), :n FROM u WHERE id = 0",
        lambda t, u, n: select(
            select(func.count()).select_from(t).scalar_subquery(), literal(n)
        ).select_from(u).where(u.c.id == 0),
        lambda ids, n, size: [(len(ids), n)] if size else [],
    ),
    Query(
        "first rows",
        "SELECT id FROM {t} ORDER BY id DESC LIMIT 3",
        lambda t, u, n: select(t.c.id).order_by(t.c.id.desc()).limit(3),
        lambda ids, n, size: [(i,) for i in sorted(ids)[-3:]],
    ),
]  # fmt: skip


# The databases


def _described(loose: str | None) -> dict[str, Table]:
    meta = MetaData()
    for name in TABLES:
        Table(
            name,
            meta,
            Column("id", Integer, primary_key=True),
            Column("text", String),
            Column("loose", String(collation=loose)),
            Column("whole", BigInteger),
            Column("real", Double),
            Column("flag", Boolean),
            Column("day", Date),
            Column("moment", DateTime),
            Column("zoned", DateTime(timezone=True)),
            Column("code", Uuid(as_uuid=False)),
            Column("written", String),
        )
    Table("u", meta, Column("id", Integer, primary_key=True))
    return dict(meta.tables)


SQLITE, POSTGRES = _described("NOCASE"), _described(None)


class Backends:
    """The same rows in every database. Every table holds all rows of an example; what differs is its rules."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.plain = sqlite3.connect(":memory:")
        self.duck = duckdb.connect(":memory:")
        self.owner = psycopg.connect(database.owner, autocommit=True)
        self.app = psycopg.connect(database.app)
        for name in TABLES:
            for connection, types in (
                (self.plain, "TEXT; TEXT COLLATE NOCASE; INTEGER; REAL; INTEGER; TEXT; TEXT; TEXT; TEXT; TEXT"),
                (
                    self.duck,
                    (
                        "VARCHAR; VARCHAR COLLATE NOCASE; BIGINT; DOUBLE; BOOLEAN; DATE; TIMESTAMP; TIMESTAMPTZ; UUID; "
                        "VARCHAR"
                    ),
                ),
                (self.owner, "text; text; bigint; double precision; boolean; date; timestamp; timestamptz; uuid; text"),
            ):
                columns = ", ".join(map(" ".join, zip(CELLS, types.split("; "), strict=True)))
                connection.execute(f"CREATE TABLE {name} (id integer PRIMARY KEY, {columns})")
        for connection in (self.plain, self.duck, self.owner):
            connection.execute("CREATE TABLE u (id integer)")
        self.duck.execute("SET threads = 1; SET TimeZone = 'Asia/Tokyo'")
        self.pg_url = database.owner.replace("postgresql://", "postgresql+psycopg://", 1)

    def fill(self, rows: list[dict[str, Any]]) -> None:
        ids = [(row["id"],) for row in rows]
        marks = ", ".join("?" * (ROW_BYTES + 1))
        for name in TABLES:
            self.plain.execute(f"DELETE FROM {name}")
            self.plain.executemany(f"INSERT INTO {name} VALUES ({marks})", [_as_text(row) for row in rows])
        self.plain.execute("DELETE FROM u")
        self.plain.executemany("INSERT INTO u VALUES (?)", ids)
        values = [cell for row in rows for cell in row.values()]
        for name in (*TABLES, "u"):
            self.duck.execute(f"DELETE FROM {name}")
        self.duck.execute(f"INSERT INTO t0 VALUES {', '.join([f'({marks})'] * len(rows))}", values)
        with self.owner.cursor() as cursor:
            cursor.execute(f"TRUNCATE u, {', '.join(TABLES)}".encode())
            cursor.executemany(
                f"INSERT INTO t0 VALUES ({', '.join(['%s'] * (ROW_BYTES + 1))})", [list(row.values()) for row in rows]
            )
        for connection in (self.duck, self.owner):
            for name in TABLES[1:]:
                connection.execute(f"INSERT INTO {name} SELECT * FROM t0")
            connection.execute("INSERT INTO u SELECT id FROM t0")
        self.plain.commit()

    def close(self) -> None:
        for connection in (self.plain, self.duck, self.owner, self.app):
            connection.close()


def _as_text(row: dict[str, Any]) -> list[Any]:
    """A row as people keep it in SQLite."""
    kept: list[Any] = []
    for name, cell in row.items():
        if cell is None:
            kept.append(None)
        elif name == "day":
            kept.append(cell.isoformat())
        elif name == "code" and row["id"] % 2:
            kept.append(cell.replace("-", ""))  # as SQLAlchemy keeps it
        elif name in ("moment", "zoned"):
            kept.append(cell.replace(tzinfo=None).isoformat(" ", "microseconds"))
        else:
            kept.append(int(cell) if name == "flag" else cell)
    return kept


@pytest.fixture(scope="module")
def backends(make_database: Any) -> Iterator[Backends]:
    made = Backends(make_database())
    yield made
    made.close()


@contextmanager
def _embed(row_filter: RowFilter) -> Iterator[None]:
    token = current_row_access.set(RowAccess(row_filter))
    try:
        yield
    finally:
        current_row_access.reset(token)


def _sorted(rows: Any) -> list[Any]:
    return sorted((tuple(row) for row in rows), key=lambda row: [(cell is None, cell or 0) for cell in row])


class Tally:
    cases = 0
    rows_open = 0
    rows_hidden = 0


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # The message says everything; to find a smaller case would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(
    policy=policies(),
    tenants=st.lists(claims(), min_size=10, max_size=10),
    seed=st.lists(st.binary(min_size=ROW_BYTES, max_size=ROW_BYTES), min_size=4, max_size=24),
    queries=st.lists(st.sampled_from(QUERIES), min_size=5, max_size=5, unique=True),
    n=st.integers(-1, 9),
)
def test_all_adapters_agree(
    backends: Backends,
    policy: RlsPolicy,
    tenants: list[dict[str, Any]],
    seed: list[bytes],
    queries: list[Query],
    n: int,
) -> None:
    _compare(backends, policy, [RowFilter(policy, attributes) for attributes in tenants], rows_of(seed), queries, n)


def _compare(
    backends: Backends,
    policy: RlsPolicy,
    filters: list[RowFilter],
    rows: list[dict[str, Any]],
    queries: list[Query],
    n: int,
) -> None:
    backends.fill(rows)
    backends.database.protect(policy)
    engines = _engines(backends, rows)
    for engine in engines.values():
        protect(engine, policy)
    try:
        with engines["sqlite"].connect() as on_sqlite, engines["postgres"].connect() as on_postgres:
            for row_filter in filters:
                bind(backends.app, row_filter, context=DatabaseContext(KEY))
                for table in TABLES:
                    matching = [row["id"] for row in rows if row_filter.matches(table, row)]
                    Tally.rows_open += len(matching)
                    Tally.rows_hidden += len(rows) - len(matching)
                    for query in (QUERIES[0], *queries):
                        Tally.cases += 1
                        answers = _answers(backends, on_sqlite, on_postgres, row_filter, table, query, n)
                        expected = _sorted(query.truth(matching, n, len(rows)))
                        wrong = {name: answer for name, answer in answers if _sorted(answer) != expected}
                        assert not wrong, (
                            f"{query.name} of {policy.tables[table].to_plain()} for {dict(row_filter.attributes)}: "
                            f"expected {expected}, {wrong}"
                        )
                backends.app.rollback()
    finally:
        backends.app.rollback()
        for engine in engines.values():
            engine.dispose()


def _engines(backends: Backends, rows: list[dict[str, Any]]) -> dict[str, Engine]:
    """Two engines, before they are protected: an engine has one policy."""
    made = create_engine("sqlite://", poolclass=StaticPool)
    SQLITE["t0"].metadata.create_all(made)
    with made.begin() as connection:
        for name in TABLES:
            connection.execute(insert(SQLITE[name]), rows)
        connection.execute(insert(SQLITE["u"]), [{"id": row["id"]} for row in rows])
    return {"sqlite": made, "postgres": create_engine(backends.pg_url)}


def _answers(
    backends: Backends, on_sqlite: Any, on_postgres: Any, row_filter: RowFilter, table: str, query: Query, n: int
) -> Iterator[tuple[str, Any]]:
    text = query.text.format(t=table)
    params = {"n": n} if ":n" in text else {}
    with _embed(row_filter):
        yield "SQLAlchemy, SQLite", on_sqlite.execute(query.build(SQLITE[table], SQLITE["u"], n)).all()
        yield "SQLAlchemy, PostgreSQL", on_postgres.execute(query.build(POSTGRES[table], POSTGRES["u"], n)).all()
    for name, connection, dialect, mark in (
        ("SQL, SQLite", backends.plain, "sqlite", ":n"),
        ("SQL, DuckDB", backends.duck, "duckdb", "$n"),
        ("SQL, PostgreSQL", backends.owner, "postgres", ":n"),
    ):
        filtered = filter_sql(text.replace(":n", mark), row_filter, dialect=dialect, params=params)
        yield name, connection.execute(*filtered).fetchall()
    bare = text.replace("%", "%%").replace(":n", "%(n)s")
    yield "policies of PostgreSQL", backends.app.execute(bare, params).fetchall()


def test_there_were_enough_cases(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        shown = Tally.rows_open / max(1, Tally.rows_open + Tally.rows_hidden)
        print(f"\ndifferential: {Tally.cases:,} cases on 6 adapters, {shown:.0%} of the rows open")  # noqa: T201
    assert Tally.cases >= min(10_000, EXAMPLES * CASES_IN_EXAMPLE)
    assert 0.05 < shown < 0.95


# Absent, null, empty, of another type, of another shape: for one attribute of one value, and one that is a list.
UNUSABLE: list[tuple[str, Any, Any]] = [
    ("absent", ..., ...),
    ("null", None, None),
    ("empty", [], []),
    ("of the other shape", ["AA"], "AA"),
    ("of another type", {"not": "a value"}, [{"not": "a value"}]),
    ("a list with a hole", [None], [None]),
    ("a number that is none", float("nan"), [float("nan")]),
]


@pytest.mark.parametrize("types", [sorted(CLAIMS)[:4], sorted(CLAIMS)[3:]], ids=["some types", "the others"])
def test_what_is_not_usable_opens_no_row_for_any_operator(backends: Backends, types: list[str]) -> None:
    rules: dict[str, Any] = {}
    for table, type_ in zip(TABLES, types, strict=True):
        rules[table] = {"any": [
            {"column": column, "op": op, "attribute": type_ + ("_list" if op in LIST_OPERATORS else "")}
            for column in COLUMNS[type_] for op in sorted(OPERATORS_OF[type_])  # type: ignore[index]
        ]}  # fmt: skip
    policy = RlsPolicy.from_json(json.dumps({"attributes": ATTRIBUTES, "tables": {**rules, "u": {"open": True}}}))
    filters = []
    for _, one, many in UNUSABLE:
        given = {f"{type_}{suffix}": value for type_ in types for suffix, value in (("", one), ("_list", many))}
        filters.append(RowFilter(policy, {name: value for name, value in given.items() if value is not ...}))
    rows = rows_of([bytes([number] * ROW_BYTES) for number in range(20)])
    assert not any(row_filter.matches(table, row) for row_filter in filters for table in TABLES for row in rows)
    _compare(backends, policy, filters, rows, QUERIES[1:], 3)
