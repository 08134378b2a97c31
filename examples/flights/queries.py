"""What the dashboards ask the database.

No query here says whose rows it wants: each asks for all flights, and the guard's row
filter, compiled into every statement by `protect`, leaves the ones that the pass opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data import Airline, Airport, Flight
from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

# The usual definition in the trade: later than 15 minutes is late.
LATE_MINUTES = 15
# An hour of the day with fewer flights than this says nothing about its delays.
_ENOUGH_FLIGHTS = 50


@dataclass(frozen=True)
class Overview:
    """The numbers at the top of a dashboard. Shares are between 0 and 1, delays are minutes."""

    flights: int
    carriers: tuple[str, ...]
    airlines: tuple[str, ...]
    origins: tuple[str, ...]
    on_time: float
    mean_delay: float
    cancelled: float


@dataclass(frozen=True)
class Delay:
    """The delays of one month, or of one hour of the day."""

    key: int
    flights: int
    mean_delay: float
    on_time: float
    cancelled: float


@dataclass(frozen=True)
class Route:
    """One pair of airports; the place is unknown for airports outside the data set's list."""

    origin: str
    dest: str
    dest_name: str
    flights: int
    mean_delay: float
    miles: int
    lat: float | None
    lon: float | None


@dataclass(frozen=True)
class Departure:
    """One flight of the day that the live feed plays. No delay: cancelled."""

    clock: str
    name: str
    origin: str
    dest: str
    delay: int | None


def _mean_delay() -> ColumnElement[float]:
    return func.coalesce(func.avg(Flight.dep_delay), 0.0)


def _share(condition: ColumnElement[bool]) -> ColumnElement[float]:
    return func.coalesce(func.avg(case((condition, 1.0), else_=0.0)), 0.0)


def _on_time() -> ColumnElement[float]:
    """Of the flights that left, the share that left no later than 15 minutes after the plan."""
    left_on_time = func.sum(case((Flight.dep_delay <= LATE_MINUTES, 1.0), else_=0.0))
    return func.coalesce(left_on_time / func.nullif(func.count(Flight.dep_delay), 0), 0.0)


def overview(session: Session) -> Overview:
    """Sum up every flight that the pass opens."""
    flights, on_time, delay, cancelled = session.execute(
        select(func.count(), _on_time(), _mean_delay(), _share(Flight.dep_time.is_(None))).select_from(Flight)
    ).one()
    airlines = session.execute(
        select(Airline.carrier, Airline.name)
        .where(Airline.carrier.in_(select(Flight.carrier).distinct()))
        .order_by(Airline.carrier)
    ).all()
    origins = session.scalars(select(Flight.origin).distinct().order_by(Flight.origin)).all()
    return Overview(
        flights,
        tuple(a.carrier for a in airlines),
        tuple(a.name for a in airlines),
        tuple(origins),
        on_time,
        delay,
        cancelled,
    )


def delays_by_month(session: Session) -> Sequence[Delay]:
    """One entry for each month of the year, in order."""
    return _delays(session, Flight.month, at_least=1)


def delays_by_hour(session: Session) -> Sequence[Delay]:
    """One entry for each hour in which a flight was planned, in order."""
    return _delays(session, Flight.hour, at_least=_ENOUGH_FLIGHTS)


def _delays(session: Session, key: InstrumentedAttribute[int], *, at_least: int) -> Sequence[Delay]:
    query = (
        select(key, func.count(), _mean_delay(), _on_time(), _share(Flight.dep_time.is_(None)))
        .group_by(key)
        .having(func.count() >= at_least)
        .order_by(key)
    )
    return [Delay(*row) for row in session.execute(query)]


def routes(session: Session) -> Sequence[Route]:
    """Every route, the busiest first."""
    flights = func.count().label("flights")
    query = (
        select(
            Flight.origin,
            Flight.dest,
            func.coalesce(Airport.name, Flight.dest),
            flights,
            _mean_delay(),
            func.max(Flight.distance),
            Airport.lat,
            Airport.lon,
        )
        .join(Airport, Airport.faa == Flight.dest, isouter=True)
        .group_by(Flight.origin, Flight.dest, Airport.name, Airport.lat, Airport.lon)
        .order_by(flights.desc(), Flight.origin, Flight.dest)
    )
    return [Route(*row) for row in session.execute(query)]


def places(session: Session) -> Sequence[tuple[str, float, float]]:
    """Every airport with its place: the dots that draw the map."""
    return [(faa, lat, lon) for faa, lat, lon in session.execute(select(Airport.faa, Airport.lat, Airport.lon))]


def departures(session: Session, month: int, day: int) -> Sequence[Departure]:
    """The flights of one day, in the order in which they left or should have left."""
    when = func.coalesce(Flight.dep_time, Flight.sched_dep_time)
    query = (
        select(when, Flight.carrier, Flight.flight, Flight.origin, Flight.dest, Flight.dep_delay)
        .where(Flight.month == month, Flight.day == day)
        .order_by(when, Flight.carrier, Flight.flight)
    )
    return [
        Departure(f"{clock // 100 % 24:02}:{clock % 100:02}", f"{carrier} {number}", origin, dest, delay)
        for clock, carrier, number, origin, dest, delay in session.execute(query)
    ]
