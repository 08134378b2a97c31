"""PostgreSQL rounds and cuts what it is given: a row that was judged by other values than the stored is not written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    CHAR,
    Column,
    Double,
    Engine,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    create_engine,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from toucan_guard.core.errors import QueryRefused
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sqlalchemy import protect

pytest.importorskip("psycopg", reason="the extra [postgres] has the driver")

POLICY = RlsPolicy.from_toml("""
[attributes]
most = "number"
name = "string"

[tables.rooms]
write = true
all = [
  { column = "whole", op = "lt", attribute = "most" },
  { column = "exact", op = "lt", attribute = "most" },
  { column = "real", op = "lt", attribute = "most" },
  { column = "name", op = "ne", attribute = "name" },
  { column = "code", op = "ne", attribute = "name" },
]
""")
FILTER = RowFilter(POLICY, {"most": 2, "name": "A"})
META = MetaData()
ROOMS = Table(
    "rooms",
    META,
    Column("id", Integer, primary_key=True),
    Column("whole", Integer),
    Column("exact", Numeric(10, 2)),
    Column("real", Double),
    Column("name", String(1)),
    Column("code", CHAR(2)),
)
GOOD: dict[str, Any] = {"id": 1, "whole": 1, "exact": Decimal("1.99"), "real": 1.5, "name": "B", "code": "BB"}


@pytest.fixture(scope="module")
def engines(make_database: Callable[[], Any]) -> Iterator[tuple[Engine, Engine]]:
    """One without protection, and one with."""
    url = make_database().owner.replace("postgresql:", "postgresql+psycopg:", 1)
    unprotected, protected = create_engine(url), create_engine(url)
    META.create_all(unprotected)
    protect(protected, POLICY)
    token = current_row_access.set(RowAccess(FILTER))
    yield unprotected, protected
    current_row_access.reset(token)
    unprotected.dispose()
    protected.dispose()


NUMBERS = st.one_of(
    st.sampled_from([1.6, 1.999, 1.99999999999999999999, Decimal("1.999"), Decimal("1.99999999999999999999"), 2, 1.5]),
    st.floats(-3, 3),
    st.decimals(-3, 3, places=3),
    st.integers(-3, 3),
)
ROWS = st.fixed_dictionaries(
    {
        "whole": NUMBERS,
        "exact": NUMBERS,
        "real": NUMBERS,
        "name": st.sampled_from(["A", "B", "A ", "B ", ""]),
        "code": st.sampled_from(["A", "A ", "AA", "BB", "B", "B ", ""]),
    }
)


@given(changed=ROWS, one=st.sampled_from([*GOOD, "all"]))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_written_may_be_seen(engines: tuple[Engine, Engine], changed: dict[str, Any], one: str) -> None:
    unprotected, protected = engines
    row = {**GOOD, **(changed if one == "all" else {one: changed[one]} if one in changed else {})}
    for write in (insert(ROOMS).values(row), update(ROOMS).values(row)):
        with unprotected.begin() as connection:
            connection.execute(delete(ROOMS))
            if write.is_update:
                connection.execute(insert(ROOMS).values(GOOD))
        try:
            with protected.begin() as connection:
                connection.execute(write)
        except (QueryRefused, DBAPIError):
            pass
        with unprotected.connect() as connection:
            stored = [dict(found) for found in connection.execute(select(ROOMS)).mappings()]
        assert all(FILTER.matches("rooms", found) for found in stored)
        with protected.connect() as connection:
            assert len(connection.execute(select(ROOMS.c.id)).all()) == len(stored)


@pytest.mark.parametrize(
    ("column", "value"),
    [("whole", 1.6), ("exact", Decimal("1.999")), ("real", Decimal("1.99999999999999999999")), ("name", "A ")],
)
def test_a_row_that_would_be_rounded_into_another_is_refused(
    engines: tuple[Engine, Engine], column: str, value: Any
) -> None:
    _, protected = engines
    with protected.begin() as connection, pytest.raises(QueryRefused, match=rf"rooms\.{column} must be written as"):
        connection.execute(insert(ROOMS).values({**GOOD, "id": 9, column: value}))


def test_a_row_that_is_kept_as_it_is_may_be_written(engines: tuple[Engine, Engine]) -> None:
    _, protected = engines
    with protected.begin() as connection:
        connection.execute(delete(ROOMS))
        connection.execute(insert(ROOMS).values(GOOD))
        connection.execute(update(ROOMS).values(exact=Decimal("0.10"), whole=1.0, real=0.1))
        assert connection.execute(select(ROOMS.c.id)).all() == [(1,)]
