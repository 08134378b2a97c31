"""Columns over time, as inline SVG: drawn once for wide pages and paper, and once for phones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from toucan_guard.audit.report.figures import Unit
from toucan_guard.audit.report.markup import Html, element, esc
from toucan_guard.audit.report.words import number

_LEFT, _TOP, _BOTTOM, _RIGHT = 46, 10, 26, 6
_WIDEST_COLUMN: Final = 34.0
_LABEL: Final = 62.0  # room of a label under the axis


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        label: What stands under it, where there is room.
        value: How high it is.
        tip: Its story, which browsers show when it is pointed at.
        marked: It stands out.
    """

    label: str
    value: int
    tip: str
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, and what it says to those who cannot see it."""

    id: str
    title: str
    summary: str
    columns: Sequence[Column]
    height: int
    kind: str


def drawn(chart: Chart) -> Html:
    """The chart in both of its forms; the style sheet shows one of them."""
    return Html(_svg(chart, 940, "wide") + _svg(chart, 348, "narrow"))


def _svg(chart: Chart, width: int, form: str) -> str:
    height = chart.height
    floor, right = height - _BOTTOM, width - _RIGHT
    ticks = ticks_up_to(max((column.value for column in chart.columns), default=0))
    scale = (floor - _TOP) / ticks[-1]
    step = (right - _LEFT) / max(1, len(chart.columns))
    step = min(step, _WIDEST_COLUMN)
    thick = step * 0.72 if step > 3 else max(step * 0.86, 0.6)
    every = math.ceil(_LABEL / step)
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
        if index % every == 0 and (x + _LABEL * 0.8 <= width or index == 0):
            parts.append(
                f'<line class="mark" x1="{x + step / 2:.1f}" x2="{x + step / 2:.1f}" y1="{floor}" y2="{floor + 4}"/>'
            )
            anchor = "start" if x + step / 2 < _LEFT + 18 else "middle"
            parts.append(
                f'<text class="tick" x="{max(x + step / 2, _LEFT):.1f}" y="{height - 7}" text-anchor="{anchor}">'
                f"{esc(column.label)}</text>"
            )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    name = f"{chart.id}-{form}"
    return (
        f'<svg class="chart {chart.kind} {form}" viewBox="0 0 {width} {height}" role="img" '
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


def labels_of(unit: Unit, *, day: Callable[[str], str], month: Callable[[str], str]) -> Callable[[str], str]:
    """How the beginning of a column is written under the axis."""
    if unit in ("minute", "hour"):
        return lambda start: start[11:16] if start[11:16] != "00:00" else day(start)
    return month if unit == "month" else day
