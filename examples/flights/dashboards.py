"""What each dashboard shows: tiles, charts and their tables, ready to be sent as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import charts
import queries
import route_map
from charts import Mark
from queries import Delay, Overview, Route
from route_map import Place
from sqlalchemy.orm import Session

Json = dict[str, Any]

_NEW_YORK = Place("NYC", 40.70, -74.0)
_BUSIEST = 12
# From this width on, two charts stand side by side (assets/charts.css and board.js know it too).
_WIDE, _GAP = 980, 56


def delays(session: Session, view: Overview, width: int) -> Json:
    """When do this airline's flights leave late?"""
    each = (width - _GAP) // 2 if width >= _WIDE else width
    shown = [_by_month(queries.delays_by_month(session), each)]
    if hours := queries.delays_by_hour(session):
        shown.append(_by_hour(hours, each))
    return {
        "title": "Delays",
        "tiles": [
            _tile("Flights", f"{view.flights:,}", "planned in 2013"),
            _tile("On time", f"{view.on_time:.0%}", f"left within {queries.LATE_MINUTES} minutes"),
            _tile("Mean delay", f"{view.mean_delay:.1f} min", "at departure"),
            _tile("Cancelled", f"{view.cancelled:.1%}", "never left"),
        ],
        "charts": shown,
    }


def _by_month(months: Sequence[Delay], width: int) -> Json:
    worst = max(months, key=lambda month: month.mean_delay)
    return {
        "title": "Delays by month",
        "note": f"{long_month(worst.key)} was the hardest month: "
        f"flights left {worst.mean_delay:.0f} minutes late on average.",
        "svg": charts.columns(
            [_mark(long_month(month.key)[:3], month) for month in months],
            width=width,
            unit="minutes late, mean",
            summary=f"Mean departure delay for each month of 2013; the longest is "
            f"{worst.mean_delay:.1f} minutes in {long_month(worst.key)}.",
        ),
        "table": _table("Month", [(long_month(month.key), month) for month in months]),
    }


def _by_hour(hours: Sequence[Delay], width: int) -> Json:
    worst = max(hours, key=lambda hour: hour.mean_delay)
    early = [hour for hour in hours if hour.key < 9]
    morning = f"{_on_time(early):.0%} of the flights before 9:00 left on time. " if early else ""
    return {
        "title": "Delays through the day",
        "note": f"{morning}Delays pile up until {_clock(worst.key)}, when the mean is {worst.mean_delay:.0f} minutes.",
        "svg": charts.area(
            [_mark(_clock(hour.key), hour) for hour in hours],
            name=_clock,
            width=width,
            unit="minutes late, mean",
            summary=f"Mean departure delay by the hour of the plan; the longest is "
            f"{worst.mean_delay:.1f} minutes at {_clock(worst.key)}.",
        ),
        "table": _table("Hour", [(_clock(hour.key), hour) for hour in hours]),
    }


def routes(session: Session, view: Overview, width: int) -> Json:
    """Where do this airline's flights go, and how many?"""
    found = queries.routes(session)
    busiest, top = found[0], found[:_BUSIEST]
    by_dest: dict[str, list[Route]] = {}
    for route in found:
        by_dest.setdefault(route.dest, []).append(route)
    unmapped = sorted(dest for dest, some in by_dest.items() if some[0].lat is None)
    left = round((width - _GAP) * 0.56) if width >= _WIDE else width
    right = round((width - _GAP) * 0.44) if width >= _WIDE else width
    return {
        "title": "Routes",
        "tiles": [
            _tile("Flights", f"{view.flights:,}", "planned in 2013"),
            _tile("Destinations", f"{len(by_dest)}", f"on {len(found)} routes"),
            _tile("Busiest route", f"{busiest.origin} → {busiest.dest}", f"{busiest.flights:,} flights"),
            _tile("Distance", _millions(sum(r.miles * r.flights for r in found)), "miles planned"),
        ],
        "charts": [
            {
                "title": "Where the flights go",
                "note": "The wider the arc, the more flights."
                + (f" Not in the list of places, so not on the map: {', '.join(unmapped)}." if unmapped else ""),
                "svg": route_map.draw(
                    _NEW_YORK,
                    [_place(dest, some) for dest, some in by_dest.items() if some[0].lat is not None],
                    [Place(faa, lat, lon) for faa, lat, lon in queries.places(session)],
                    width=left,
                    summary=f"A map of the United States with arcs from New York to {len(by_dest)} destinations.",
                ),
                "table": None,
            },
            {
                "title": "Busiest routes",
                "note": f"The first {len(top)} routes carry "
                f"{sum(r.flights for r in top) / max(view.flights, 1):.0%} of the flights.",
                "svg": charts.bars(
                    [_route_mark(route) for route in top],
                    width=right,
                    summary=f"Flights on the {len(top)} busiest routes; the busiest is {busiest.origin} to "
                    f"{busiest.dest_name} with {busiest.flights:,} flights.",
                ),
                "table": {
                    "columns": ["Route", "To", "Flights", "Mean delay"],
                    "rows": [
                        [f"{r.origin} → {r.dest}", r.dest_name, f"{r.flights:,}", f"{r.mean_delay:.1f} min"]
                        for r in found
                    ],
                },
            },
        ],
    }


DASHBOARDS: Mapping[str, Callable[[Session, Overview, int], Json]] = {"delays": delays, "routes": routes}


def build(dashboard_id: str, session: Session, width: int) -> Json:
    """Everything that a page needs to show one dashboard.

    Args:
        dashboard_id: A key of `DASHBOARDS`.
        session: Its statements see the rows that the pass opens.
        width: How wide the charts will be shown, in pixels.
    """
    view = queries.overview(session)
    shown = DASHBOARDS[dashboard_id](session, view, width) if view.flights else _nothing(dashboard_id)
    return {
        "dashboard": dashboard_id,
        "flights": view.flights,
        "carriers": view.carriers,
        "airlines": view.airlines,
        "airports": view.origins,
        "scope": _scope(view),
        **shown,
    }


def _on_time(delays_of_hours: Sequence[Delay]) -> float:
    flights = sum(hour.flights for hour in delays_of_hours)
    return sum(hour.on_time * hour.flights for hour in delays_of_hours) / max(flights, 1)


def _scope(view: Overview) -> str:
    if not view.flights:
        return "No flights"
    where = "all New York airports" if len(view.origins) == 3 else f"departures from {' and '.join(view.origins)}"
    return f"{', '.join(view.airlines)} · {where}"


def _nothing(dashboard_id: str) -> Json:
    return {"title": dashboard_id.title(), "tiles": [_tile("Flights", "0", "in view of this pass")], "charts": []}


def _tile(label: str, value: str, note: str) -> Json:
    return {"label": label, "value": value, "note": note}


def _mark(label: str, delay: Delay) -> Mark:
    tip = (
        f"{label}: {delay.mean_delay:.1f} minutes late on average, {delay.on_time:.0%} on time, "
        f"{delay.cancelled:.1%} cancelled, {delay.flights:,} flights"
    )
    return Mark(label, delay.mean_delay, f"{delay.mean_delay:.0f}", tip, at=delay.key)


def _route_mark(route: Route) -> Mark:
    tip = (
        f"{route.origin} → {route.dest}, {route.dest_name}: {route.flights:,} flights, "
        f"{route.miles:,} miles, {route.mean_delay:.1f} minutes late on average"
    )
    name = route.dest_name.removesuffix(" Intl")
    return Mark(f"{route.origin} → {route.dest}", route.flights, f"{route.flights:,}", tip, more=name)


def _place(dest: str, some: Sequence[Route]) -> Place:
    flights = sum(route.flights for route in some)
    tip = f"{some[0].dest_name} ({dest}): {flights:,} flights from {', '.join(sorted(r.origin for r in some))}"
    return Place(dest, some[0].lat or 0.0, some[0].lon or 0.0, flights, tip)


def _table(first: str, rows: Sequence[tuple[str, Delay]]) -> Json:
    return {
        "columns": [first, "Flights", "Mean delay", "On time", "Cancelled"],
        "rows": [
            [label, f"{d.flights:,}", f"{d.mean_delay:.1f} min", f"{d.on_time:.0%}", f"{d.cancelled:.1%}"]
            for label, d in rows
        ],
    }


def long_month(month: int) -> str:
    """The English name of a month, 1 to 12."""
    names = "January February March April May June July August September October November December"
    return names.split()[month - 1]


def _clock(hour: int) -> str:
    return f"{hour}:00"


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1_000_000 else f"{number:,}"
