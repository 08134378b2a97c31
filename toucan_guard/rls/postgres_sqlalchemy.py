"""``bind`` at the beginning of each transaction of a SQLAlchemy engine over psycopg 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.base import OptionEngine

from toucan_guard.core.errors import ConfigError
from toucan_guard.rls.context import require_row_access

_DRIVER: Final = ("postgresql", "psycopg")
_listened: WeakSet[Engine] = WeakSet()


def listen(target: Any, bind: Callable[..., Any]) -> None:
    """Call ``bind`` whenever a transaction begins.

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

    if engine not in _listened:
        _listened.add(engine)
        event.listen(engine, "begin", begin)
