"""SQLite, DuckDB and PostgreSQL for real: each once with every row, and once with nothing but one tenant's.

The second database is the judge. Whatever a filtered statement gives on the first, the same statement as
it was written has to give on the second: there, nothing is hidden, because nothing else is there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlglot", reason="the extra [sql] reads the statements")

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.sql import filter_sql

POLICY = RlsPolicy.from_toml("""
[attributes]
carrier = "string"
airports = { type = "string", list = true }

[tables.flights]
all = [
  { column = "carrier", op = "eq", attribute = "carrier" },
  { any = [ { column = "origin", op = "in", attribute = "airports" },
            { column = "dest", op = "in", attribute = "airports" } ] },
]

[tables.fares]
all = [{ column = "carrier", op = "eq", attribute = "carrier" }]
columns = { show = ["carrier", "price"] }

[tables.airlines]
open = true
""")

COLUMNS = "id integer primary key, carrier text, origin text, dest text, month integer, delay integer, tail text"
FLIGHTS = [
    (1, "AA", "JFK", "BOS", 1, 5, "1"),
    (2, "AA", "JFK", "LAX", 2, 6, "2"),
    (3, "AA", "LAX", "BOS", 2, 8, "3"),
    (4, "AA", "LAX", "ORD", 3, 7, "SECRET-4"),
    (5, "UA", "JFK", "BOS", 77, 7, "SECRET-5"),
    (6, "UA", "JFK", "LAX", 77, 7, "SECRET-6"),
    (7, "aa", "JFK", "BOS", 77, 7, "SECRET-7"),
    (8, None, "JFK", "BOS", 77, 7, "SECRET-8"),
]
FARES = [(1, "AA", 100, 9001), (2, "AA", 200, 9002), (3, "UA", 7777, 9003)]
AIRLINES = [("AA", "American"), ("UA", "United"), ("DL", "Delta")]
SALARIES = [(1, "SECRET-boss", 7777)]
# What no answer and no error may contain.
SECRETS = ("SECRET", "7777", "9001", "9002", "9003")


def row_filter(**attributes: Any) -> RowFilter:
    made = POLICY.row_filter({"carrier": "AA", "airports": ["JFK", "BOS"], **attributes})
    assert isinstance(made, RowFilter), made
    return made


@dataclass(frozen=True)
class Outcome:
    """Rows in the order of their text, or the text of an error."""

    rows: list[str] | None
    error: str = ""

    @property
    def secrets(self) -> list[str]:
        """What of the hidden rows and columns it tells."""
        text = self.error + " ".join(self.rows or ())
        return [secret for secret in SECRETS if secret in text]


class Database:
    """One kind of database, with all rows and with one tenant's.

    Attributes:
        dialect: As ``filter_sql`` takes it.
        everything: A connection to all rows.
        own: A connection to a database that has only what the tenant may see.
    """

    def __init__(self, dialect: str, everything: Any, own: Any, errors: type[Exception], mark: str) -> None:
        self.dialect, self.everything, self.own, self._errors, self._mark = dialect, everything, own, errors, mark
        self._fill(everything, FLIGHTS, "id, carrier, price, margin", FARES)
        mine = [row for row in FLIGHTS if row_filter().matches("flights", dict(zip(_names(COLUMNS), row, strict=True)))]
        assert [row[0] for row in mine] == [1, 2, 3]
        self._fill(own, mine, "carrier, price", [row[1:3] for row in FARES if row[1] == "AA"])
        everything.execute("CREATE TABLE salaries (id integer, who text, amount integer)")
        self._insert(everything, "salaries", SALARIES)

    def run(self, connection: Any, sql: str, params: Any = None) -> Outcome:
        """What the database says."""
        try:
            found = connection.execute(sql) if params is None else connection.execute(sql, params)
            return Outcome(sorted(repr(tuple(row)) for row in found.fetchall()))
        except self._errors as error:
            return Outcome(None, f"{type(error).__name__}: {error}")

    def filtered(self, sql: str, params: Any = None, **attributes: Any) -> Outcome:
        """What a statement gives on all rows, through the filter."""
        text, values = filter_sql(sql, row_filter(**attributes), dialect=self.dialect, params=params)
        return self.run(self.everything, text, values)

    def judge(self, sql: str, params: Any = None) -> Outcome:
        """The same statement as it was written, where there is nothing but the tenant's own."""
        return self.run(self.own, sql, params)

    def _fill(self, connection: Any, flights: Any, columns: str, fares: Any) -> None:
        connection.execute(f"CREATE TABLE flights ({COLUMNS})")
        typed = ", ".join(f"{name} {'text' if name == 'carrier' else 'integer'}" for name in columns.split(", "))
        connection.execute(f"CREATE TABLE fares ({typed})")
        connection.execute("CREATE TABLE airlines (code text, name text)")
        for table, rows in (("flights", flights), ("fares", fares), ("airlines", AIRLINES)):
            self._insert(connection, table, rows)

    def _insert(self, connection: Any, table: str, rows: Any) -> None:
        for row in rows:
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join([self._mark] * len(row))})", row)


def _names(columns: str) -> list[str]:
    return [column.split()[0] for column in columns.split(", ")]


@pytest.fixture(scope="session")
def postgres_uri(postgres_server: str) -> str:
    return postgres_server


def _sqlite(tmp_path: Path) -> Iterator[Database]:
    everything, own = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    made = Database("sqlite", everything, own, sqlite3.Error, "?")
    other = tmp_path / "other.sqlite"
    everything.execute("ATTACH ? AS other", (str(other),))
    everything.execute(f"CREATE TABLE other.flights ({COLUMNS})")
    everything.execute("INSERT INTO other.flights SELECT * FROM main.flights")
    everything.execute("CREATE VIEW all_flights AS SELECT * FROM flights")
    everything.commit()
    yield made
    everything.close()
    own.close()


def _duckdb(tmp_path: Path) -> Iterator[Database]:
    duckdb = pytest.importorskip("duckdb", reason="the wheel is the database")
    everything, own = duckdb.connect(config={"threads": 1}), duckdb.connect(config={"threads": 1})
    made = Database("duckdb", everything, own, duckdb.Error, "?")
    everything.execute("CREATE VIEW all_flights AS SELECT * FROM flights")
    everything.execute(f"ATTACH '{tmp_path / 'other.duckdb'}' AS other")
    everything.execute("CREATE TABLE other.flights AS SELECT * FROM memory.main.flights")
    (tmp_path / "file.csv").write_text("who\nSECRET-file\n")
    for connection in (everything, own):
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    yield made
    everything.close()
    own.close()


def _postgres(uri: str) -> Iterator[Database]:
    psycopg = pytest.importorskip("psycopg", reason="the extra [postgres] has the driver")
    with psycopg.connect(uri, autocommit=True) as admin:
        admin.execute("CREATE DATABASE everything")
        admin.execute("CREATE DATABASE own")
    everything, own = (psycopg.connect(uri, dbname=name, autocommit=True) for name in ("everything", "own"))
    made = Database("postgres", everything, own, psycopg.Error, "%s")
    everything.execute("CREATE VIEW all_flights AS SELECT * FROM flights")
    everything.execute("CREATE SCHEMA other")
    everything.execute("CREATE TABLE other.flights AS SELECT * FROM public.flights")
    for signature in (
        "peek()",
        "peeked(airlines)",
        "peeked_at(flights)",
        "peeked_anywhere(anyelement)",
        '"peeked_DD"(anyelement)',
        "peeked_by_number(integer)",
        "peeked_at_many(VARIADIC flights[])",
    ):
        body = "SETOF text SECURITY DEFINER LANGUAGE sql AS 'SELECT tail FROM flights'"
        everything.execute(f"CREATE FUNCTION {signature} RETURNS {body}")
    body = "text LANGUAGE sql AS 'SELECT max(tail) FROM flights'"
    everything.execute(f"CREATE FUNCTION peek_once_more(text, anyelement) RETURNS {body}")
    everything.execute("CREATE AGGREGATE peeked_at_all(anyelement) (SFUNC = peek_once_more, STYPE = text)")
    yield made
    everything.close()
    own.close()
    with psycopg.connect(uri, autocommit=True) as admin:
        admin.execute("DROP DATABASE everything")
        admin.execute("DROP DATABASE own")


@pytest.fixture(scope="session")
def sqlite_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    yield from _sqlite(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def duckdb_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    yield from _duckdb(tmp_path_factory.mktemp("duckdb"))


@pytest.fixture(scope="session")
def postgres_database(postgres_uri: str) -> Iterator[Database]:
    yield from _postgres(postgres_uri)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Database:
    """The database of the parameter: ``sqlite``, ``duckdb`` or ``postgres``."""
    found: Database = request.getfixturevalue(f"{request.param}_database")
    return found
