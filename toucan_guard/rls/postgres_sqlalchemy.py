"""``bind`` at the beginning of each transaction of a SQLAlchemy engine over psycopg 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.sql.elements import ReleaseSavepointClause, RollbackToSavepointClause

from toucan_guard.core.errors import ConfigError, RowSecurityError
from toucan_guard.rls.context import current_row_access, require_row_access

_DRIVER: Final = ("postgresql", "psycopg")
_BOUND: Final = "toucan_guard_bound"
_TABLES: Final = "toucan_guard_tables"
# They read nothing, and an embed that has ended still has to leave its transaction.
_LEAVING: Final = (ReleaseSavepointClause, RollbackToSavepointClause)
_listened: WeakSet[Engine] = WeakSet()


class OthersTransaction(RowSecurityError, DontWrapMixin):
    """A transaction that was left open shows the rows of whom it began for, and somebody else uses it."""

    def __init__(self) -> None:
        super().__init__(
            "the transaction began on behalf of another embed: open one session for each connection, and end it"
        )


class _Cursors:
    """Makes a driver connection's cursors, but for no other embed while a transaction is open."""

    def __init__(self, make: Any, embed_key: str) -> None:
        self._make: Any = make._make if isinstance(make, _Cursors) else make
        self._embed_key = embed_key

    def __call__(self, connection: Any, *args: Any, **options: Any) -> Any:
        access = current_row_access.get()
        others = access is not None and access.embed_key != self._embed_key
        if others and connection.info.transaction_status != TransactionStatus.IDLE:
            raise OthersTransaction
        return self._make(connection, *args, **options)


def listen(target: Any, bind: Callable[..., Any], protected: Callable[..., frozenset[str]]) -> None:
    """Call ``bind`` whenever a transaction begins, and refuse what another embed, or nobody, runs in it.

    Args:
        target: The engine.
        bind: Binds a driver's connection to a row filter; what it returns for an async one is awaited.
        protected: The tables for which such a bound connection writes receipts.

    Raises:
        ConfigError: It is no engine over psycopg 3, or one in autocommit.
    """
    engine = getattr(target, "sync_engine", target)
    while isinstance(engine, OptionEngine):
        engine = engine._proxied  # noqa: SLF001 - it has no public name
    if not isinstance(engine, Engine):
        raise ConfigError(f"bind_each_transaction() takes an Engine or AsyncEngine, not {type(target).__name__}")
    dialect = engine.dialect
    if (dialect.name, dialect.driver.removesuffix("_async")) != _DRIVER:
        raise ConfigError(
            f"bind_each_transaction() speaks psycopg 3, not {dialect.name}+{dialect.driver}: use postgresql+psycopg://"
        )

    def begin(connection: Connection) -> None:
        row_filter = require_row_access().row_filter
        # The driver's own connection: a statement of SQLAlchemy's would come by here again.
        pooled: Any = connection.connection.dbapi_connection
        if dialect.is_async:
            pooled.run_async(lambda driver: bind(driver, row_filter))
        else:
            bind(pooled, row_filter)
        connection.info[_BOUND] = row_filter.fingerprint
        driver: Any = connection.connection.driver_connection
        connection.info[_TABLES] = protected(driver, row_filter)
        # Whoever takes the driver's own cursor does not come by _refuse_others.
        driver.cursor_factory = _Cursors(driver.cursor_factory, row_filter.fingerprint)
        driver.server_cursor_factory = _Cursors(driver.server_cursor_factory, row_filter.fingerprint)

    if engine not in _listened:
        _listened.add(engine)
        event.listen(engine, "begin", begin)
        event.listen(engine, "begin_twophase", _refuse_two_phases)
        event.listen(engine, "before_cursor_execute", _refuse_others)


def _refuse_two_phases(_connection: Connection, _xid: object) -> None:
    # It comes before the driver's own beginning, which wants a connection that has no transaction yet.
    raise RowSecurityError("a two-phase transaction cannot be bound: use begin()")


def _refuse_others(connection: Connection, _cursor: object, _statement: str, *more: Any) -> None:
    """A transaction that was left open, in a session that is shared, still shows the rows of whom it began for."""
    _parameters, context, _many = more
    if isinstance(getattr(getattr(context, "compiled", None), "statement", None), _LEAVING):
        return
    access = require_row_access()
    if connection.info.get(_BOUND) != access.embed_key:
        raise OthersTransaction
    # A cache may have been asked since the transaction began, and this statement fills it.
    access.note(connection.info[_TABLES], access.row_filter.policy.version)
