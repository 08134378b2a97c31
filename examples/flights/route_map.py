"""A map without a map: the dots of all the country's airports draw its shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import svg

Point = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """A destination on the map, or a dot of its background."""

    code: str
    lat: float
    lon: float
    flights: int = 0
    tip: str = ""


def draw(home: Place, destinations: Sequence[Place], dots: Sequence[Place], *, width: int, summary: str) -> str:
    """Arcs from one place to every destination; the wider, the more flights."""
    height = round(width * 0.6)
    project = _projection(width, height)
    ground = "".join(f"M{point[0]:.0f} {point[1]:.0f}h0" for dot in dots if (point := project(dot)))
    start = project(home) or (0.0, 0.0)
    by_flights = sorted(destinations, key=lambda place: place.flights)
    ends = [(place, end) for place in by_flights if (end := project(place))]
    most = max((place.flights for place in destinations), default=1)

    parts = [svg.path("land", ground, stroke_width=max(1.6, width / 330)), *_inset_frames(width, height)]
    for place, end in ends:
        share = math.sqrt(place.flights / most)
        parts.append(
            svg.mark(
                place.tip,
                svg.path("arc", _arc(start, end), stroke_width=0.6 + 3.2 * share, stroke_opacity=0.3 + 0.55 * share),
                svg.circle("dot", *end, 2 + 3 * share),
            )
        )
    parts.append(svg.circle("home", *start, 5))
    parts.append(svg.text("place", start[0] + 9, start[1] + 5, home.code))
    parts.extend(_labels(start, reversed(ends)))
    return svg.document(parts, width, height, summary)


def _labels(home: Point, ends: Iterator[tuple[Place, Point]]) -> Iterator[str]:
    """A label for each place whose label would cover no other; the busiest come first."""
    taken = [(home[0] - 8, home[1] - 10, home[0] + 46, home[1] + 12)]
    for place, (x, y) in ends:
        left, top, right, bottom = x - 15, y - 22, x + 15, y - 5
        if all(right <= box[0] or box[2] <= left or bottom <= box[1] or box[3] <= top for box in taken):
            taken.append((left, top, right, bottom))
            yield svg.text("place", x, y - 9, place.code, "middle")


def _arc(start: Point, end: Point) -> str:
    """A curve that bends towards the north, as great circles do on this map."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    bend = 0.16 if dx < 0 else -0.16
    middle = (start[0] + end[0]) / 2 - dy * bend, (start[1] + end[1]) / 2 + dx * bend
    return f"M{start[0]:.1f} {start[1]:.1f}Q{middle[0]:.1f} {middle[1]:.1f} {end[0]:.1f} {end[1]:.1f}"


def _albers(parallels: Point, centre: Point) -> Callable[[Place], Point]:
    """Albers' equal-area conic projection on a sphere of radius 1 (Snyder, USGS Professional Paper 1395, page 100)."""
    one, two, middle = (math.radians(angle) for angle in (*parallels, centre[0]))
    n = (math.sin(one) + math.sin(two)) / 2
    c = math.cos(one) ** 2 + 2 * n * math.sin(one)
    rho_middle = math.sqrt(c - 2 * n * math.sin(middle)) / n

    def project(place: Place) -> Point:
        rho = math.sqrt(c - 2 * n * math.sin(math.radians(place.lat))) / n
        theta = n * math.radians(place.lon - centre[1])
        return rho * math.sin(theta), rho_middle - rho * math.cos(theta)

    return project


@dataclass(frozen=True)
class _Region:
    """A part of the country: what belongs to it, and where in the picture it stands, as shares of its size."""

    lat: Point
    lon: Point
    project: Callable[[Place], Point]
    middle: Point
    scale: float = 1.0


_REGIONS = (
    _Region((24, 50), (-125.5, -66), _albers((29.5, 45.5), (38.0, -96.0)), (0.495, 0.5)),
    _Region((54, 72), (-170, -130), _albers((55.0, 65.0), (62.0, -152.0)), (0.115, 0.855), 0.34),
    _Region((18, 23), (-161, -154), _albers((8.0, 18.0), (20.6, -157.4)), (0.285, 0.925)),
)


def _projection(width: float, height: float) -> Callable[[Place], Point | None]:
    """Map places to pixels: 48 states fill the picture, Alaska and Hawaii stand in boxes at the lower left."""
    pixels = min(width / 0.80, height / 0.50)

    def project(place: Place) -> Point | None:
        for region in _REGIONS:
            if region.lat[0] < place.lat < region.lat[1] and region.lon[0] < place.lon < region.lon[1]:
                x, y = region.project(place)
                scale = pixels * region.scale
                return width * region.middle[0] + x * scale, height * region.middle[1] - y * scale
        return None

    return project


def _inset_frames(width: float, height: float) -> Iterator[str]:
    for shares in (
        ((0.01, 0.72), (0.17, 0.72), (0.22, 0.84), (0.22, 0.99)),
        ((0.22, 0.84), (0.31, 0.84), (0.36, 0.99)),
    ):
        yield svg.path("inset", "M" + "L".join(f"{x * width:.0f} {y * height:.0f}" for x, y in shares))
