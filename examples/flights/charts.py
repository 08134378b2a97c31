"""The charts, drawn as SVG on the server at the width at which they will be shown.

Every mark carries a <title>, which browsers show as a tooltip; every chart says in one
sentence what it shows. Colours come from the style sheet around it (assets/charts.css),
so the same drawing serves light and dark pages and every brand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

_CHARACTER = 6.4  # the mean width of a character at 12 px, for labels that must not collide
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NARROW = 520


@dataclass(frozen=True)
class Mark:
    """One value of a chart.

    Attributes:
        label: What stands at the axis.
        value: How long the mark is.
        text: The value, written out.
        tip: The whole story of this mark, for the tooltip.
    """

    label: str
    value: float
    text: str
    tip: str


@dataclass(frozen=True)
class Place:
    """A destination on the map, or a dot of its background."""

    code: str
    lat: float
    lon: float
    flights: int = 0
    tip: str = ""


def month_name(month: int) -> str:
    """The short English name of a month, 1 to 12."""
    return _MONTHS[month - 1]


def columns(marks: Sequence[Mark], *, width: int, summary: str, unit: str, height: int = 268) -> str:
    """Upright bars over a zero line; the longest one stands out."""
    left, right, top, bottom = 40, 6, 26, 28
    ticks = _ticks(min(0.0, *(m.value for m in marks)), max(m.value for m in marks))
    y = _linear(ticks[0], ticks[-1], height - bottom, top)
    step = (width - left - right) / len(marks)
    thick = min(step * 0.66, 46)
    worst = max(marks, key=lambda mark: mark.value)
    parts = list(_grid(ticks, y, left, width - right, unit))
    for index, mark in enumerate(marks):
        middle = left + step * (index + 0.5)
        extreme, zero = y(mark.value), y(0)
        upper = min(extreme, zero)
        body = _rounded(middle - thick / 2, thick, zero, extreme)
        kind = "bar worst" if mark is worst else "bar"
        parts.append(
            f'<g class="mark"><title>{escape(mark.tip)}</title>'
            f'<rect class="hit" x="{middle - step / 2:.1f}" y="{top}" width="{step:.1f}" height="{height - top - bottom}"/>'
            f'<path class="{kind}" d="{body}"/>'
        )
        if step >= len(mark.text) * _CHARACTER:
            parts.append(f'<text class="value" x="{middle:.1f}" y="{upper - 7:.1f}" text-anchor="middle">{escape(mark.text)}</text>')
        short = mark.label if step >= 30 else mark.label[:1]
        parts.append(f'<text class="tick" x="{middle:.1f}" y="{height - 8}" text-anchor="middle">{escape(short)}</text></g>')
    parts.append(_line(left, y(0), width - right, y(0), "zero"))
    return _svg(parts, width, height, summary)


def area(marks: Sequence[Mark], *, width: int, summary: str, unit: str, height: int = 248) -> str:
    """A line with the ground below it filled; its highest point is labelled."""
    left, right, top, bottom = 40, 14, 30, 28
    ticks = _ticks(min(0.0, *(m.value for m in marks)), max(m.value for m in marks))
    y = _linear(ticks[0], ticks[-1], height - bottom, top)
    step = (width - left - right) / max(1, len(marks) - 1)
    points = [(left + step * index, y(mark.value)) for index, mark in enumerate(marks)]
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
    ground = f"{path}L{points[-1][0]:.1f} {y(0):.1f}L{points[0][0]:.1f} {y(0):.1f}Z"
    parts = list(_grid(ticks, y, left, width - right, unit))
    parts.append(f'<path class="area" d="{ground}"/>{_line(left, y(0), width - right, y(0), "zero")}')
    parts.append(f'<path class="line" d="{path}"/>')
    every = max(1, math.ceil(46 / step))
    peak = max(range(len(marks)), key=lambda index: marks[index].value)
    for index, (mark, (px, py)) in enumerate(zip(marks, points, strict=True)):
        kind = "dot worst" if index == peak else "dot"
        parts.append(
            f'<g class="mark"><title>{escape(mark.tip)}</title>'
            f'<rect class="hit" x="{px - step / 2:.1f}" y="{top}" width="{step:.1f}" height="{height - top - bottom}"/>'
            f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="{4 if index == peak else 3}"/></g>'
        )
        if index % every == 0:
            parts.append(f'<text class="tick" x="{px:.1f}" y="{height - 8}" text-anchor="middle">{escape(mark.label)}</text>')
    anchor = "end" if points[peak][0] > width - 80 else "middle"
    parts.append(
        f'<text class="value" x="{points[peak][0]:.1f}" y="{points[peak][1] - 11:.1f}" text-anchor="{anchor}">'
        f"{escape(marks[peak].text)}</text>"
    )
    return _svg(parts, width, height, summary)


def bars(marks: Sequence[Mark], *, width: int, summary: str) -> str:
    """Lying bars with their labels on the left and the values at their ends, under an axis of round numbers."""
    row, top = 30, 24
    height = top + row * len(marks) + 6
    left = 96 if width < _NARROW else min(250.0, width * 0.38)
    longest = max(len(mark.text) for mark in marks) * _CHARACTER + 12
    ticks = _ticks(0, max(mark.value for mark in marks), about=3 if width < _NARROW else 5)
    x = _linear(0, ticks[-1], left, width - longest)
    parts = []
    for tick in ticks:
        parts.append(_line(x(tick), top - 4, x(tick), height - 4, "grid" if tick else "zero"))
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{top - 10}" text-anchor="middle">{tick:,.0f}</text>')
    for index, mark in enumerate(marks):
        upper = top + row * index
        code, _, name = mark.label.partition("|")
        room = int((left - 106) / _CHARACTER)
        name = "" if width < _NARROW else name if len(name) <= room else name[: room - 1].rstrip() + "…"
        parts.append(
            f'<g class="mark"><title>{escape(mark.tip)}</title>'
            f'<rect class="hit" x="0" y="{upper}" width="{width}" height="{row}"/>'
            f'<text class="code" x="0" y="{upper + 19}">{escape(code)}</text>'
            f'<text class="tick" x="88" y="{upper + 19}">{escape(name)}</text>'
            f'<path class="bar{" worst" if index == 0 else ""}" d="{_lying(left, x(mark.value), upper + 6, row - 12)}"/>'
            f'<text class="value" x="{x(mark.value) + 7:.1f}" y="{upper + 19}">{escape(mark.text)}</text></g>'
        )
    return _svg(parts, width, height, summary)


def route_map(home: Place, destinations: Sequence[Place], dots: Sequence[Place], *, width: int, summary: str) -> str:
    """The country drawn by the dots of its airports, with an arc to every destination."""
    height = round(width * 0.6)
    project = _projection(width, height)
    ground = "".join(f"M{px:.0f} {py:.0f}h0" for dot in dots if (point := project(dot)) for px, py in (point,))
    parts = [f'<path class="land" stroke-width="{max(1.6, width / 330):.1f}" d="{ground}"/>']
    parts.extend(_insets(width, height))
    start = project(home) or (0.0, 0.0)
    most = max((place.flights for place in destinations), default=1)
    taken: list[tuple[float, float, float, float]] = [(start[0] - 8, start[1] - 10, start[0] + 70, start[1] + 12)]
    labels = []
    for place in sorted(destinations, key=lambda place: place.flights):
        if (end := project(place)) is None:
            continue
        share = math.sqrt(place.flights / most)
        parts.append(
            f'<g class="mark"><title>{escape(place.tip)}</title>'
            f'<path class="arc" stroke-width="{0.6 + 3.2 * share:.1f}" stroke-opacity="{0.3 + 0.55 * share:.2f}" d="{_arc(start, end)}"/>'
            f'<circle class="dot" cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="{2 + 3 * share:.1f}"/></g>'
        )
    for place in sorted(destinations, key=lambda place: -place.flights):
        if (end := project(place)) is None:
            continue
        box = (end[0] - 15, end[1] - 22, end[0] + 15, end[1] - 5)
        if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            taken.append(box)
            labels.append(f'<text class="place" x="{end[0]:.1f}" y="{end[1] - 9:.1f}" text-anchor="middle">{escape(place.code)}</text>')
    parts.append(f'<circle class="home" cx="{start[0]:.1f}" cy="{start[1]:.1f}" r="5"/>')
    parts.append(f'<text class="place home-label" x="{start[0] + 9:.1f}" y="{start[1] + 5:.1f}">{escape(home.code)}</text>')
    return _svg([*parts, *labels], width, height, summary)


def _svg(parts: Sequence[str], width: int, height: int, summary: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(summary)}">{"".join(parts)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _grid(ticks: Sequence[float], y: Callable[[float], float], left: float, right: float, unit: str) -> Iterator[str]:
    for tick in ticks:
        yield _line(left, y(tick), right, y(tick), "grid")
        yield f'<text class="tick" x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
    yield f'<text class="unit" x="0" y="12">{escape(unit)}</text>'


def _ticks(low: float, high: float, *, about: int = 6) -> list[float]:
    """Round numbers that reach from below `low` to above `high`."""
    raw = max(high - low, 1e-9) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= raw)
    return [step * index for index in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _linear(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _rounded(x: float, thick: float, zero: float, extreme: float) -> str:
    """An upright bar whose far end is rounded and whose foot stands flat on the zero line."""
    round_by = min(4.0, thick / 2, abs(zero - extreme))
    near = extreme + math.copysign(round_by, zero - extreme)
    return (
        f"M{x:.1f} {zero:.1f}V{near:.1f}Q{x:.1f} {extreme:.1f} {x + round_by:.1f} {extreme:.1f}"
        f"H{x + thick - round_by:.1f}Q{x + thick:.1f} {extreme:.1f} {x + thick:.1f} {near:.1f}V{zero:.1f}Z"
    )


def _lying(left: float, right: float, top: float, thick: float) -> str:
    by = min(4.0, max(0.0, right - left))
    return (
        f"M{left:.1f} {top:.1f}H{right - by:.1f}Q{right:.1f} {top:.1f} {right:.1f} {top + by:.1f}"
        f"V{top + thick - by:.1f}Q{right:.1f} {top + thick:.1f} {right - by:.1f} {top + thick:.1f}H{left:.1f}Z"
    )


def _arc(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A curve that bends towards the north, as great circles do on this map."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    bend = 0.16 if dx < 0 else -0.16
    return (
        f"M{start[0]:.1f} {start[1]:.1f}Q{(start[0] + end[0]) / 2 - dy * bend:.1f} "
        f"{(start[1] + end[1]) / 2 + dx * bend:.1f} {end[0]:.1f} {end[1]:.1f}"
    )


def _albers(parallel_1: float, parallel_2: float, lat_0: float, lon_0: float) -> Callable[[float, float], tuple[float, float]]:
    """Albers' equal-area conic projection (Snyder, Map Projections, USGS 1395, page 100), on a sphere of radius 1."""
    one, two, zero = (math.radians(angle) for angle in (parallel_1, parallel_2, lat_0))
    n = (math.sin(one) + math.sin(two)) / 2
    c = math.cos(one) ** 2 + 2 * n * math.sin(one)
    rho_0 = math.sqrt(c - 2 * n * math.sin(zero)) / n

    def project(lat: float, lon: float) -> tuple[float, float]:
        rho = math.sqrt(c - 2 * n * math.sin(math.radians(lat))) / n
        theta = n * math.radians(lon - lon_0)
        return rho * math.sin(theta), rho_0 - rho * math.cos(theta)

    return project


_CONTIGUOUS = _albers(29.5, 45.5, 38.0, -96.0)
_ALASKA = _albers(55.0, 65.0, 62.0, -152.0)
_HAWAII = _albers(8.0, 18.0, 20.6, -157.4)


def _projection(width: float, height: float) -> Callable[[Place], tuple[float, float] | None]:
    """Map places to pixels: the 48 states fill the picture, Alaska and Hawaii stand in boxes at the lower left."""
    scale = min(width / 0.80, height / 0.50)

    def project(place: Place) -> tuple[float, float] | None:
        lat, lon = place.lat, place.lon
        if 24 < lat < 50 and -125.5 < lon < -66:
            x, y = _CONTIGUOUS(lat, lon)
            return width * 0.495 + x * scale, height * 0.5 - y * scale
        if 54 < lat < 72 and -170 < lon < -130:
            x, y = _ALASKA(lat, lon)
            return width * 0.115 + x * scale * 0.34, height * 0.855 - y * scale * 0.34
        if 18 < lat < 23 and -161 < lon < -154:
            x, y = _HAWAII(lat, lon)
            return width * 0.285 + x * scale, height * 0.925 - y * scale
        return None

    return project


def _insets(width: float, height: float) -> Iterator[str]:
    yield f'<path class="inset" d="M{width * 0.01:.0f} {height * 0.72:.0f}H{width * 0.17:.0f}L{width * 0.22:.0f} {height * 0.84:.0f}V{height * 0.99:.0f}"/>'
    yield f'<path class="inset" d="M{width * 0.22:.0f} {height * 0.84:.0f}H{width * 0.31:.0f}L{width * 0.36:.0f} {height * 0.99:.0f}"/>'
