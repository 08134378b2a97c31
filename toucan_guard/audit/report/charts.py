"""Columns over time, as inline SVG: drawn once for wide pages and paper, and once for phones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from toucan_guard.audit.report.figures import Unit
from toucan_guard.audit.report.markup import Html, element, esc
from toucan_guard.audit.report.words import month, number, short_day

_LEFT, _TOP, _BOTTOM, _RIGHT = 46, 10, 26, 6
_THICKEST: Final = 56.0  # of a column
_LABEL: Final = 62.0  # room of a label under the axis
# Which columns have a label, the closest first: every so many minutes of a day, hours of a day, days, weeks, months.
_EVERY: Final[dict[Unit, tuple[int, ...]]] = {
    "minute": (1, 2, 5, 10, 15, 30, 60, 120, 240),
    "hour": (1, 2, 3, 6, 12, 24),
    "day": (1, 2, 7, 14, 28),
    "week": (1, 2, 4, 8, 13, 26),
    "month": (1, 2, 3, 6, 12, 24),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        start: When it begins, RFC 3339 in UTC; stands under it, where there is room.
        value: How high it is.
        tip: Its story, which browsers show when it is pointed at.
        marked: It stands out.
    """

    start: str
    value: int
    tip: str
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, and what it says to those who cannot see it."""

    id: str
    title: str
    summary: str
    unit: Unit
    columns: Sequence[Column]
    height: int


def drawn(chart: Chart) -> Html:
    """The chart in both of its forms; the style sheet shows one of them."""
    return Html(_svg(chart, 940, "wide") + _svg(chart, 348, "narrow"))


def _svg(chart: Chart, width: int, form: str) -> str:
    height = chart.height
    floor, right = height - _BOTTOM, width - _RIGHT
    ticks = ticks_up_to(max((column.value for column in chart.columns), default=0))
    scale = (floor - _TOP) / ticks[-1]
    # However few there are, they share the whole axis: an empty rest would read as hours in which nothing came.
    step = (right - _LEFT) / max(1, len(chart.columns))
    thick = min(step * 0.72, _THICKEST) if step > 3 else max(step * 0.86, 0.6)
    labelled = labelled_of(chart.unit, [column.start for column in chart.columns], _LABEL / step)
    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{floor - tick * scale:.1f}" '
        f'y2="{floor - tick * scale:.1f}"/>'
        f'<text class="tick" x="{_LEFT - 8}" y="{floor - tick * scale + 4:.1f}" text-anchor="end">{number(tick)}</text>'
        for tick in ticks
    ]
    for index, column in enumerate(chart.columns):
        x = _LEFT + step * index
        tall = column.value * scale
        tall = max(tall, 1.2) if column.value else 0
        kind = "column marked" if column.marked else "column"
        parts.append(
            f"<g><title>{esc(column.tip)}</title>"
            f'<rect class="hit" x="{x:.1f}" y="{_TOP}" width="{step:.1f}" height="{floor - _TOP}"/>'
            f'<rect class="{kind}" x="{x + (step - thick) / 2:.2f}" y="{floor - tall:.1f}" width="{thick:.2f}" '
            f'height="{tall:.1f}" rx="{min(1.6, thick / 4):.1f}"/></g>'
        )
        middle = x + step / 2
        if index in labelled and middle + _LABEL * 0.4 <= width:
            parts.append(
                f'<line class="mark" x1="{middle:.1f}" x2="{middle:.1f}" y1="{floor}" y2="{floor + 4}"/>'
                f'<text class="tick" x="{middle:.1f}" y="{height - 7}" text-anchor="middle">'
                f"{esc(_label(chart.unit, column.start))}</text>"
            )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    name = f"{chart.id}-{form}"
    return (
        f'<svg class="chart {chart.id} {form}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{name}-title {name}-desc">'
        f"{element('title', chart.title, id=f'{name}-title')}{element('desc', chart.summary, id=f'{name}-desc')}"
        f"{''.join(parts)}</svg>"
    )


def ticks_up_to(highest: int) -> list[int]:
    """Round numbers from 0 to at least the highest value."""
    rough = max(1, highest) / 3
    size = 10 ** math.floor(math.log10(rough)) if rough >= 1 else 1
    step = next(int(size * factor) or 1 for factor in (1, 2, 2.5, 5, 10) if int(size * factor) >= rough)
    return [step * index for index in range(max(1, math.ceil(highest / step)) + 1)]


def labelled_of(unit: Unit, starts: Sequence[str], fewest: float) -> frozenset[int]:
    """Which columns have a label: at round times, and at least so many columns apart.

    Args:
        unit: What a column is.
        starts: When each begins.
        fewest: How many columns a label needs for itself.
    """
    every = next((every for every in _EVERY[unit] if every >= fewest), math.ceil(fewest))
    if unit in ("day", "week") or every not in _EVERY[unit]:
        return frozenset(range(0, len(starts), every))
    return frozenset(index for index, start in enumerate(starts) if _place(unit, start) % every == 0)


def _place(unit: Unit, start: str) -> int:
    """How many minutes or hours into its day a column begins, or months since the year 0."""
    if unit == "month":
        return int(start[:4]) * 12 + int(start[5:7]) - 1
    return int(start[11:13]) if unit == "hour" else int(start[11:13]) * 60 + int(start[14:16])


def _label(unit: Unit, start: str) -> str:
    """How the beginning of a column is written under the axis: at midnight, the day."""
    if unit in ("minute", "hour"):
        return start[11:16] if start[11:16] != "00:00" else short_day(start)
    return month(start) if unit == "month" else short_day(start)
