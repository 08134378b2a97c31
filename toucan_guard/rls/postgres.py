"""Row-level security where PostgreSQL does it: ``bind(connection, row_filter)``.

The database has policies (``toucan-guard rls-sql``), and they read on whose behalf a transaction runs from
a signed setting of that transaction (``postgres_context.py``). ``bind`` sets it, in one statement with
bound parameters. Until then, and after the transaction, the same connection sees no rows at all.

    configure(settings)                                   # once, at start-up: PG_CONTEXT_KEY and PG_POOLER

    with pool.connection() as connection:                 # psycopg 3, sync or async, not in autocommit
        bind(connection, embed.rls)                       # await bind(…) for an AsyncConnection
        connection.execute("SELECT count(*) FROM flights")

With SQLAlchemy, ``bind_each_transaction(engine)`` does it at the beginning of every transaction, for the embed
on whose behalf the caller runs.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString, Protocol, overload
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import TransactionStatus

from toucan_guard.core.errors import ConfigError, NoEmbedContext, RowSecurityError
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.postgres_context import DatabaseContext
from toucan_guard.rls.postgres_policies import policy_sql, policy_statements
from toucan_guard.rls.postgres_server import (
    BIND_AGAIN,
    BIND_NEW,
    HELD,
    INSPECT,
    inspection_parameters,
    protected_tables,
    server_warning,
)

__all__ = [
    "DatabaseContext",
    "bind",
    "bind_each_transaction",
    "configure",
    "policy_sql",
    "policy_statements",
]


class _Settings(Protocol):
    @property
    def database_context(self) -> DatabaseContext | None: ...


class _Process:
    """What was configured for this process, and what is known of its connections."""

    def __init__(self) -> None:
        self.context: DatabaseContext | None = None
        # Connection to policy version to the tables that are protected there.
        self.tables: WeakKeyDictionary[Any, dict[str, frozenset[str]]] = WeakKeyDictionary()


_process: Final = _Process()


def configure(settings: _Settings | DatabaseContext) -> None:
    """Say once, at start-up, with which key ``bind`` signs.

    Args:
        settings: ``GuardSettings`` with ``PG_CONTEXT_KEY``, or a ``DatabaseContext``.

    Raises:
        ConfigError: The settings have no key.
    """
    context = settings if isinstance(settings, DatabaseContext) else settings.database_context
    if context is None:
        raise ConfigError("TOUCAN_GUARD_PG_CONTEXT_KEY is not set: give the key that signs what PostgreSQL sees")
    _process.context = context


@overload
def bind(
    connection: psycopg.Connection[Any], row_filter: RowFilter, *, context: DatabaseContext | None = None
) -> None: ...
@overload
def bind(
    connection: psycopg.AsyncConnection[Any], row_filter: RowFilter, *, context: DatabaseContext | None = None
) -> Awaitable[None]: ...
def bind(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
    row_filter: RowFilter,
    *,
    context: DatabaseContext | None = None,
) -> Awaitable[None] | None:
    """Let the rest of this transaction see the rows of one embed.

    One statement for each transaction; on a connection's first use one more, which looks whether the
    role could go round the policies and whether the tables that the policy names are protected. Each of these
    tables gets a receipt: whatever this transaction reads of it is filtered. Binding the same embed again writes it
    again, for a cache (``cache.py``) that was asked in between.

    Args:
        connection: A psycopg 3 connection, sync or async; ``await`` the result of the latter.
        row_filter: Whose rows: ``embed.rls``.
        context: The key to sign with, where it is not the one that was configured.

    Raises:
        ConfigError: No key was configured.
        NoEmbedContext: The token, or the connection that it came with, has ended.
        RowSecurityError: In autocommit; another embed is bound in this transaction, or the caller runs on
            another one's behalf; an earlier transaction has left a cursor ``WITH HOLD`` open; the role is a superuser,
            has BYPASSRLS or can become the owner; a table has no policy; the database does not accept the signature
            (another key, or clocks that differ).
    """
    context = _process.context if context is None else context
    if context is None:
        raise ConfigError("call toucan_guard.rls.postgres.configure(settings) once, before the first bind()")
    if isinstance(connection, psycopg.AsyncConnection):
        return _bind_async(connection, row_filter, context)
    if not isinstance(connection, psycopg.Connection):
        raise TypeError(f"bind() takes a psycopg 3 connection, not {type(connection).__name__}")
    access = _check(connection, row_filter)
    tables = _process.tables.get(connection, {}).get(row_filter.policy.version)
    statement, parameters = _statement(connection, row_filter, context)
    # Not connection.cursor(): a client-side cursor would write the claims into the statement's text. And not prepared:
    # SQL that a viewer brings could put a statement of its own under the name, and keep the next viewer's claims.
    with _explained(), psycopg.Cursor(connection) as cursor:
        if tables is None:
            cursor.execute(INSPECT, inspection_parameters(row_filter.policy), prepare=False)
            tables = _inspected(connection, row_filter, cursor.fetchall())
        cursor.execute(statement, parameters, prepare=False)
        _accepted(cursor.fetchone(), row_filter)
    _note(access, row_filter, tables)
    return None


async def _bind_async(
    connection: psycopg.AsyncConnection[Any], row_filter: RowFilter, context: DatabaseContext
) -> None:
    access = _check(connection, row_filter)
    tables = _process.tables.get(connection, {}).get(row_filter.policy.version)
    statement, parameters = _statement(connection, row_filter, context)
    with _explained():
        async with psycopg.AsyncCursor(connection) as cursor:
            if tables is None:
                await cursor.execute(INSPECT, inspection_parameters(row_filter.policy), prepare=False)
                tables = _inspected(connection, row_filter, await cursor.fetchall())
            await cursor.execute(statement, parameters, prepare=False)
            _accepted(await cursor.fetchone(), row_filter)
    _note(access, row_filter, tables)


@contextmanager
def _explained() -> Iterator[None]:
    """What the database says where it was not prepared, in words that help; the driver's own stay inside."""
    try:
        yield
    except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction):
        raise RowSecurityError("the database has no toucan_guard schema: run the SQL of toucan-guard rls-sql") from None
    except psycopg.errors.InsufficientPrivilege:
        raise RowSecurityError("the connection's role may not be bound: make it a member of the app's role") from None


def _check(connection: psycopg.BaseConnection[Any], row_filter: RowFilter) -> RowAccess | None:
    """What can be known without asking the database."""
    if not isinstance(row_filter, RowFilter):
        raise TypeError(f"bind() takes a RowFilter, such as embed.rls, not {type(row_filter).__name__}")
    access = current_row_access.get()
    if access is not None:
        if access.closed:
            raise NoEmbedContext("bind() after the end of the connection that the embed came with")
        if access.row_filter != row_filter:
            raise RowSecurityError("bind() was given another embed than the one on whose behalf the caller runs")
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise RowSecurityError(
            "bind() in autocommit would be over with its own statement: open a transaction first "
            "(with connection.transaction(): …), or leave autocommit off"
        )
    return access


def _statement(
    connection: psycopg.BaseConnection[Any], row_filter: RowFilter, context: DatabaseContext
) -> tuple[LiteralString, dict[str, str]]:
    value = context.sign(row_filter, now=time.time(), backend_pid=connection.info.backend_pid)
    if connection.info.transaction_status == TransactionStatus.IDLE:
        # In a new transaction nothing is bound; what a session may hold was left there by somebody else.
        return BIND_NEW, {"value": value}
    return BIND_AGAIN, {"value": value, "embed": row_filter.fingerprint}


def _inspected(connection: psycopg.BaseConnection[Any], row_filter: RowFilter, rows: list[Any]) -> frozenset[str]:
    if warning := server_warning(connection.info.server_version):
        warnings.warn(warning, RuntimeWarning, stacklevel=4)
    tables = protected_tables(rows)
    _process.tables.setdefault(connection, {})[row_filter.policy.version] = tables
    return tables


def _accepted(row: Any, row_filter: RowFilter) -> None:
    bound = row[0] if row else None
    if bound == row_filter.fingerprint:
        return
    if bound is None:
        raise RowSecurityError(
            "the database does not accept the embed: it has another key (toucan-guard rls-sql --set-key), another "
            "kind of pooler (--pooler), or a clock that is more than a minute ahead"
        )
    if bound == HELD:
        raise RowSecurityError(
            "an earlier transaction has left a cursor WITH HOLD open, with rows that may be another embed's: close it, "
            "or let the pool reset its connections (DISCARD ALL)"
        )
    raise RowSecurityError("another embed is bound in this transaction: end it first")


def _protected(connection: Any, row_filter: RowFilter) -> frozenset[str]:
    """The tables of which a connection that was bound shows an embed's rows alone."""
    return _process.tables.get(connection, {}).get(row_filter.policy.version, frozenset())


def _note(access: RowAccess | None, row_filter: RowFilter, tables: frozenset[str]) -> None:
    if access is not None:
        access.note(tables, row_filter.policy.version)


def bind_each_transaction(engine: Any) -> None:
    """Let every transaction of a SQLAlchemy engine begin with ``bind`` for the current embed.

    The embed is the one on whose behalf the caller runs; on nobody's behalf nothing runs. A job that needs every
    row uses a second engine and another role. Each statement writes the receipts of the policy's tables.

    In a connection that two embeds share, which is a mistake, the second one's statements and new cursors are refused
    while the first one's transaction is open, the driver's own (``connection.connection.cursor()``) included. A cursor
    of the driver's that is handed from one to the other goes past that, and so does one that nobody's code makes.

    Args:
        engine: An ``Engine`` or ``AsyncEngine`` over psycopg 3.

    Raises:
        ConfigError: It is no such engine, no key is configured, or it is in autocommit.
    """
    from toucan_guard.rls.postgres_sqlalchemy import listen

    if _process.context is None:
        raise ConfigError("call toucan_guard.rls.postgres.configure(settings) once, before bind_each_transaction()")
    listen(engine, bind, _protected)
