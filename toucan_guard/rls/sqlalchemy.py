"""Row-level security for SQLAlchemy 2: ``protect(sessionmaker, policy)``.

An engine is guarded or it is not. On a guarded one every statement is filtered when SQLAlchemy
compiles it (``sqlalchemy_compiler.py``): ORM and Core, loads and refreshes, UPDATE and DELETE,
``session.connection()``, sync and async. A job that needs every row uses a second engine.

What stays outside: whoever takes the driver's own connection (``engine.raw_connection()``) has left
SQLAlchemy, and with it this protection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final, TypeVar, cast

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import Compiled, Dialect
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.rls.context import RowAccess
from toucan_guard.rls.sqlalchemy_compiler import GuardedCompiler
from toucan_guard.rls.sqlalchemy_guard import Guard
from toucan_guard.rls.sqlalchemy_refusals import GuardedPreparer, GuardedTypes, RefusedQuery
from toucan_guard.rls.sqlalchemy_rules import DIALECTS
from toucan_guard.rls.sqlalchemy_writes import derived

_T = TypeVar("_T")
_WANTED: Final = "protect() takes a sessionmaker, an async_sessionmaker, a scoped_session or an engine"


def protect(target: _T, policy: RlsPolicy | None) -> _T:
    """Let every query of these sessions, or of this engine, see only the rows of the current embed.

    The engines themselves become guarded, whoever else uses them. That a session is not handed from one
    embed to the next, with the objects that it holds, only the sessions of a sessionmaker can check.

    Args:
        target: A ``sessionmaker``, ``async_sessionmaker``, ``scoped_session``, ``async_scoped_session``,
            ``Engine`` or ``AsyncEngine``. SQLite and PostgreSQL are spoken.
        policy: The rules; ``settings.policy``, which is None where row-level security is switched off, is refused.

    Returns:
        ``target``.

    Raises:
        ConfigError: There is no engine yet, it is guarded by another policy, or its database is not known here.
    """
    if not isinstance(policy, RlsPolicy):
        raise ConfigError("protect() takes the policy as an RlsPolicy, such as settings.policy")
    factory: Any = getattr(target, "session_factory", target)
    if _sync_engine(factory) is not None:
        _guard_engine(factory, policy)
        return target
    if not isinstance(factory, sessionmaker) and type(factory).__name__ != "async_sessionmaker":
        raise ConfigError(f"{_WANTED}, not {type(target).__name__}")
    binds = [factory.kw.get("bind"), *(factory.kw.get("binds") or {}).values()]
    engines = [bind for bind in binds if bind is not None]
    if not engines:
        raise ConfigError("protect() found no engine: give the sessionmaker its bind first")
    for engine in engines:
        _guard_engine(engine, policy)
    if isinstance(factory, sessionmaker):
        factory.class_ = _embed_session(factory.class_, policy)
    else:
        inner = factory.kw.get("sync_session_class") or factory.class_.sync_session_class
        factory.configure(sync_session_class=_embed_session(inner, policy))
    # A session from before would not be protected.
    if isinstance(target, scoped_session):
        target.remove()
    elif factory is not target:
        cast("Any", target).registry.clear()  # an async_scoped_session, whose remove() has to be awaited
    return target


class EmbedSession(Session):
    """A session that serves one embed, from its first use until it is closed.

    The objects that it holds are rows of that embed. Nobody else may find them here, not even
    without a query.
    """

    _tg_guard: ClassVar[Guard]
    _tg_owner: RowAccess | None = None

    def _tg_claim(self) -> None:
        access = self._tg_guard.access()
        if self._tg_owner is None:
            self._tg_owner = access
        elif self._tg_owner is not access:
            raise RefusedQuery("the session belongs to another embed: open one session for each connection")

    def _tg_check(self, dialect: Dialect) -> None:
        guard = guard_of(dialect)
        if guard is None:
            raise RefusedQuery("the session was sent to an engine that is not protected")
        if guard.policy != self._tg_guard.policy:
            raise RefusedQuery("the session was sent to an engine that another policy protects")
        self._tg_claim()

    def get_bind(self, *args: Any, **kw: Any) -> Engine | Connection:
        """Every query asks here which engine it goes to: it has to be a guarded one."""
        bind = super().get_bind(*args, **kw)
        self._tg_check(bind.dialect)
        return bind

    def connection(self, *args: Any, **kw: Any) -> Connection:
        """A connection; one that names its engine does not ask ``get_bind``."""
        connection = super().connection(*args, **kw)
        self._tg_check(connection.dialect)
        return connection

    def _identity_lookup(self, *args: Any, **kw: Any) -> Any:
        self._tg_claim()
        return super()._identity_lookup(*args, **kw)

    def get(self, *args: Any, **kw: Any) -> Any:
        """An object by its key, also from the identity map."""
        self._tg_claim()
        return super().get(*args, **kw)

    def get_one(self, *args: Any, **kw: Any) -> Any:
        """An object by its key, also from the identity map."""
        self._tg_claim()
        return super().get_one(*args, **kw)

    def merge(self, *args: Any, **kw: Any) -> Any:
        """A copy of an object, also from the identity map."""
        self._tg_claim()
        return super().merge(*args, **kw)

    def refresh(self, *args: Any, **kw: Any) -> None:
        """Read an object again."""
        self._tg_claim()
        super().refresh(*args, **kw)

    def __iter__(self) -> Iterator[object]:
        self._tg_claim()
        return super().__iter__()

    def close(self) -> None:
        """Close the session; it may then serve another embed."""
        super().close()
        self._tg_owner = None

    def reset(self) -> None:
        """Reset the session; it may then serve another embed."""
        super().reset()
        self._tg_owner = None


def guard_of(dialect: Dialect) -> Guard | None:
    """What guards an engine with this dialect, or None."""
    compiler = dialect.statement_compiler
    return compiler.tg_guard if issubclass(compiler, GuardedCompiler) else None


def _embed_session(base: type[Session], policy: RlsPolicy) -> type[Session]:
    if issubclass(base, EmbedSession):
        return base  # its engines have the same policy, or they would have been refused
    return type("EmbedSession", (EmbedSession, base), {"_tg_guard": Guard(policy)})


def _sync_engine(target: object) -> Engine | None:
    inner = getattr(target, "sync_engine", target)
    while isinstance(inner, OptionEngine):
        # The copy that execution_options() makes shares its dialect, so all copies have to be listened to.
        inner = inner._proxied  # noqa: SLF001 - it has no public name
    return inner if isinstance(inner, Engine) else None


def _guard_engine(target: object, policy: RlsPolicy) -> None:
    engine = _sync_engine(target)
    if engine is None:
        raise ConfigError(f"protect() needs an engine as bind, not {type(target).__name__}")
    dialect = engine.dialect
    if dialect.name not in DIALECTS:
        raise ConfigError(f"protect() does not speak {dialect.name} yet: it speaks {' and '.join(DIALECTS)}")
    known = guard_of(dialect)
    if known is not None:
        if known.policy != policy:
            raise ConfigError("the engine is protected by another policy already: use a second engine")
        return
    guard = Guard(policy)
    compiler = type("GuardedCompiler", (GuardedCompiler, dialect.statement_compiler), {"tg_guard": guard})
    preparer = derived(dialect.identifier_preparer, GuardedPreparer)
    preparer._strings = {}  # noqa: SLF001 - names that it has quoted in its own way
    types = derived(dialect.type_compiler_instance, GuardedTypes)
    # Statements that were compiled before lie in caches of which nobody has a list (each mapper has one),
    # under keys that contain the dialect. With another hash it does not find them again.
    own = type(dialect)
    made = type(
        own.__name__,
        (own,),
        {
            "__hash__": _guarded_hash,
            "__eq__": object.__eq__,
            # SQLAlchemy asks each class for itself whether its statements can be cached.
            "supports_statement_cache": vars(own).get("supports_statement_cache", False),
        },
    )
    dialect.__class__ = made
    dialect.statement_compiler = compiler
    dialect.identifier_preparer = preparer
    dialect.type_compiler_instance = types
    engine.clear_compiled_cache()
    event.listen(engine, "before_execute", _refuse_compiled)
    event.listen(engine, "before_cursor_execute", _Execution(guard, compiler))


def _guarded_hash(dialect: object) -> int:
    return hash((id(dialect), "toucan_guard"))


def _refuse_compiled(connection: Connection, statement: object, *more: object) -> None:
    # Who compiles can have one embed's values written into the text, and run it for another.
    if isinstance(statement, Compiled):
        raise RefusedQuery("the query cannot be filtered: it was compiled before; execute the statement itself")


class _Execution:
    """The last look at a statement before the driver gets it."""

    def __init__(self, guard: Guard, compiler: type[GuardedCompiler]) -> None:
        self._guard = guard
        self._compiler = compiler

    def __call__(self, *event_arguments: Any) -> None:
        *_, context, _many = event_arguments
        compiled = getattr(context, "compiled", None)
        if not isinstance(compiled, self._compiler):
            raise RefusedQuery(
                "the query cannot be filtered: it is text for the driver, a change of tables, or compiled elsewhere"
            )
        if compiled.tg_bare:
            return
        access = self._guard.access()
        if not getattr(context, "_toucan_guard_checked", False):
            # One execution may come here batch by batch, each time with all of its rows.
            context._toucan_guard_checked = True  # noqa: SLF001 - our own mark
            self._check_rows(compiled, access, context.compiled_parameters)
        access.note(compiled.tg_tables, self._guard.policy.version)

    def _check_rows(self, compiled: GuardedCompiler, access: RowAccess, rows: Iterable[Any]) -> None:
        for check in compiled.tg_checks:
            if not all(check.passes(access.row_filter, row) for row in rows):
                raise RefusedQuery(f"a row for {check.table} is not one that this embed may see, so it is not written")
