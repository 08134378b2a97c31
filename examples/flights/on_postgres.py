"""The same flights in PostgreSQL, which filters by itself: row-level security, written from the same policy.

DATABASE_URL names a role that may make tables and roles, in a database of the demo's own. That role loads the
flights and writes the policies. The app connects as another one, which owns nothing and sees no row until
the guard's `bind` has told the database whose rows a transaction may see.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
from console import progress
from data import FLIGHTS_IN_THE_SOURCE, Airline, Airport, Base, DemoError, Flight, read_csv, typed
from psycopg import sql
from sqlalchemy import Engine, create_engine, func, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from toucan_guard import GuardSettings
from toucan_guard.rls.postgres import bind_each_transaction, configure, policy_sql
from toucan_guard.rls.postgres_check import set_key
from toucan_guard.rls.postgres_policies import APP_ROLE

_LOGIN = "flights_demo"
_BATCH = 10_000


def prepare(url: URL) -> None:
    """Load the flights where that was not done before.

    Raises:
        DemoError: The database does not answer, or holds other tables of these names.
    """
    engine = create_engine(url)
    try:
        if not inspect(engine).has_table(Flight.__tablename__):
            _load(engine)
        with engine.connect() as connection:
            counted = connection.scalar(select(func.count()).select_from(Flight))
    except SQLAlchemyError as error:
        raise DemoError(f"the database of DATABASE_URL cannot be used: {type(error).__name__}") from None
    finally:
        engine.dispose()
    if counted != FLIGHTS_IN_THE_SOURCE:
        raise DemoError(
            f"the table flights is there, but the role of DATABASE_URL sees {counted:,} rows and not "
            f"{FLIGHTS_IN_THE_SOURCE:,}: name an empty database, and its superuser"
        )


def guarded_engine(url: URL, settings: GuardSettings) -> Engine:
    """Write the policies, and give an engine whose every transaction begins with the current embed.

    Raises:
        DemoError: The role of DATABASE_URL may not do it.
    """
    assert settings.policy is not None  # noqa: S101 - the demo names a policy file
    assert settings.database_context is not None  # noqa: S101 - and a key
    password = secrets.token_urlsafe(24)
    try:
        with psycopg.connect(_libpq(url), autocommit=True) as connection:
            connection.execute(policy_sql(settings.policy).encode())
            set_key(connection, settings.database_context, retire_others=True)
            known = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (_LOGIN,)).fetchone()
            # Only its hash goes out: statements are written into logs.
            hashed = connection.pgconn.encrypt_password(password.encode(), _LOGIN.encode(), b"scram-sha-256").decode()
            change = sql.SQL("ALTER" if known is not None else "CREATE")
            role = sql.Identifier(_LOGIN)
            connection.execute(
                sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(change, role, sql.Literal(hashed)),
            )
            connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(APP_ROLE), role))
    except psycopg.Error as error:
        raise DemoError(
            f"the policies cannot be written: {error.diag.message_primary or type(error).__name__}"
        ) from None
    engine = create_engine(url.set(username=_LOGIN, password=password))
    configure(settings)
    bind_each_transaction(engine)
    return engine


def _libpq(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _load(engine: Engine) -> None:
    """All of it in one transaction: an interrupted load leaves nothing behind."""
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, psycopg.Connection)  # noqa: S101 - the URL names psycopg
        with progress("Loading the flights of 2013", FLIGHTS_IN_THE_SOURCE) as advance:
            for name, table in (("airlines", Airline), ("airports", Airport), ("flights", Flight)):
                columns = [column.name for column in table.__table__.columns]
                statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
                    sql.Identifier(name), sql.SQL(", ").join(map(sql.Identifier, columns))
                )
                with driver.cursor().copy(statement) as copy:
                    for number, row in enumerate(_rows(name), start=1):
                        copy.write_row([row[column] for column in columns])
                        if name == "flights" and number % _BATCH == 0:
                            advance(_BATCH)


def _rows(name: str) -> Iterator[dict[str, str | int | None]]:
    for number, row in enumerate(read_csv(name), start=1):
        yield {"id": number, **typed(row)} if name == "flights" else dict(row)
