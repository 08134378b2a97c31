"""One pooled connection, viewers in turn, with everything that happens to connections in between.

CVE-2023-2455 and CVE-2025-8713 are of this kind: a plan or a row of one viewer that serves the next.
``TOUCAN_POOLED_QUERIES=100000`` is the long form.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg")

from toucan_guard.core.rls_policy import RlsPolicy  # noqa: E402
from toucan_guard.core.row_filter import RowFilter  # noqa: E402
from toucan_guard.rls.postgres import DatabaseContext, bind, configure  # noqa: E402

KEY = "a-context-key-for-tests-of-postgres-0123456789"
QUERIES = int(os.environ.get("TOUCAN_POOLED_QUERIES") or 2_000)
TENANTS = tuple("ABCDEFGH")
ROWS_EACH = 50
POLICY = RlsPolicy.from_toml(
    """
    [attributes]
    tenant = "string"

    [tables.facts]
    write = true
    all = [ { column = "tenant", op = "eq", attribute = "tenant" } ]
    """
)
TABLES = f"""
    CREATE TABLE facts (id integer PRIMARY KEY, tenant text NOT NULL, amount integer NOT NULL);
    INSERT INTO facts SELECT i, substr('{"".join(TENANTS)}', 1 + i % {len(TENANTS)}, 1), i
      FROM generate_series(0, {ROWS_EACH * len(TENANTS) - 1}) AS i;
    CREATE INDEX ON facts (tenant);
    ANALYZE;
"""
# Each gives rows whose first column is the tenant.
SELECTS = (
    "SELECT tenant, id FROM facts",
    "SELECT tenant, count(*) FROM facts GROUP BY tenant",
    "SELECT tenant, amount FROM facts WHERE id = %(id)s",
    "SELECT max(tenant), sum(amount) FROM facts",
    "SELECT tenant, id FROM facts WHERE tenant = %(other)s",
    "SELECT a.tenant, b.tenant FROM facts AS a JOIN facts AS b ON b.id = a.id + 1",
    "SELECT tenant FROM (SELECT tenant FROM facts UNION ALL SELECT tenant FROM facts) AS both_of_them",
    "WITH x AS MATERIALIZED (SELECT * FROM facts) SELECT tenant, amount FROM x ORDER BY amount DESC LIMIT 3",
    "SELECT tenant, id FROM facts WHERE EXISTS (SELECT FROM facts AS f WHERE f.id = facts.id + 8) FOR UPDATE",
    "UPDATE facts SET amount = amount RETURNING tenant, id",
    "DELETE FROM facts WHERE id = %(id)s RETURNING tenant, id",
)
EMPTY_IS_RIGHT = ("WHERE id = ", "WHERE tenant = ", "JOIN")


class Pool:
    """A pool of one connection, which is made anew when it was lost."""

    def __init__(self, database: Any, dice: random.Random) -> None:
        self._database, self._dice = database, dice
        self.made = 0
        self._connection: Any = None

    def connection(self) -> Any:
        if self._connection is None or self._connection.closed:
            # Prepared at the first use, at the fifth, or never.
            self._connection = self._database.connect(prepare_threshold=self._dice.choice((0, 5, None)))
            self.made += 1
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _judged(tenant: str) -> RowFilter:
    judged = POLICY.row_filter({"tenant": tenant})
    assert isinstance(judged, RowFilter)
    return judged


def _look(connection: Any, tenant: str | None, dice: random.Random) -> None:
    query = dice.choice(SELECTS)
    asked = {"id": dice.randrange(ROWS_EACH * len(TENANTS)), "other": dice.choice(TENANTS)}
    rows = connection.execute(query.encode(), asked).fetchall()
    seen = {value for row in rows for value in row if isinstance(value, str)}
    assert seen <= {tenant}, f"{query}: {tenant} saw {seen}"
    if tenant is not None and not any(part in query for part in EMPTY_IS_RIGHT):
        assert seen == {tenant}, query


def test_no_row_crosses_from_one_viewer_to_the_next(make_database: Callable[[], Any]) -> None:
    dice = random.Random(20130101)
    database = make_database()
    database.run(TABLES)
    database.protect(POLICY)
    configure(DatabaseContext(KEY))
    filters = {tenant: _judged(tenant) for tenant in TENANTS}
    pool = Pool(database, dice)
    asked = 0
    with database.admin() as admin:
        while asked < QUERIES:
            connection, tenant = pool.connection(), dice.choice((*TENANTS, None))
            if tenant is not None:
                bind(connection, filters[tenant])
            for _ in range(dice.randrange(1, 6)):
                _look(connection, tenant, dice)
                asked += 1
            match dice.randrange(20):
                case 0:
                    with pytest.raises(psycopg.errors.DivisionByZero):
                        connection.execute("SELECT 1 / 0 FROM facts" if tenant else "SELECT 1 / 0")
                    connection.rollback()
                case 1:
                    connection.execute("SAVEPOINT s")
                    _look(connection, tenant, dice)
                    connection.execute("ROLLBACK TO SAVEPOINT s")
                    _look(connection, tenant, dice)
                    asked += 2
                    connection.rollback()
                case 2 if asked % 7 == 0:
                    # The backend dies in the middle of a transaction.
                    admin.execute("SELECT pg_terminate_backend(%s, 10000)", (connection.info.backend_pid,))
                    with pytest.raises(psycopg.OperationalError):
                        _look(connection, tenant, dice)
                case 3:
                    connection.rollback()
                    connection.execute("DISCARD PLANS")
                    connection.commit()
                case 4 | 5 | 6 | 7:
                    connection.rollback()
                case _:
                    # A deletion would leave fewer rows for the next look.
                    connection.rollback()
                    if tenant is not None:
                        bind(connection, filters[tenant])
                        connection.execute("UPDATE facts SET amount = amount + 0 WHERE id = 1")
                    connection.commit()
        counted = admin.execute("SELECT count(*), count(DISTINCT tenant) FROM facts").fetchone()
    pool.close()

    assert counted == (ROWS_EACH * len(TENANTS), len(TENANTS))
    assert pool.made > 1
