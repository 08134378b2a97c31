"""The charts, drawn as SVG on the server at the width at which they will be shown.

Every mark carries a <title>, which browsers show as a tooltip; every chart says in one
sentence what it shows. Colours come from the style sheet around it (assets/charts.css),
so the same drawing serves light and dark pages and every brand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import svg

_CHARACTER = 6.4  # the mean width of a character at 12 px, for labels that must not collide
_NARROW = 520
_LEFT, _TOP, _BOTTOM = 40, 28, 28


@dataclass(frozen=True)
class Mark:
    """One value of a chart.

    Attributes:
        label: What stands at the axis.
        value: How long the mark is.
        text: The value, written out.
        tip: The whole story of this mark, for the tooltip.
        at: Where it stands on an axis that is itself a measure; unused by bars.
        more: A second label, shown where there is room.
    """

    label: str
    value: float
    text: str
    tip: str
    at: float = 0.0
    more: str = ""


def columns(marks: Sequence[Mark], *, width: int, summary: str, unit: str, height: int = 268) -> str:
    """Upright bars over a zero line; the longest one stands out."""
    right, floor = width - 6, height - _BOTTOM
    ticks = _ticks(min(0.0, *(m.value for m in marks)), max(m.value for m in marks))
    y = _linear(ticks[0], ticks[-1], floor, _TOP)
    step = (right - _LEFT) / len(marks)
    thick = min(step * 0.66, 46)
    longest = max(marks, key=lambda mark: mark.value)
    parts = list(_grid(ticks, y, right, unit))
    for index, mark in enumerate(marks):
        middle = _LEFT + step * (index + 0.5)
        value = svg.text("value", middle, min(y(mark.value), y(0)) - 7, mark.text, "middle")
        parts.append(
            svg.mark(
                mark.tip,
                svg.target(middle - step / 2, _TOP, step, floor - _TOP),
                svg.path("bar worst" if mark is longest else "bar", _column(middle, thick, y(0), y(mark.value))),
                value if step >= len(mark.text) * _CHARACTER else "",
                svg.text("tick", middle, height - 8, mark.label if step >= 30 else mark.label[:1], "middle"),
            )
        )
    parts.append(svg.line("zero", _LEFT, y(0), right, y(0)))
    return svg.document(parts, width, height, summary)


def area(
    marks: Sequence[Mark], *, width: int, summary: str, unit: str, name: Callable[[int], str], height: int = 268
) -> str:
    """A line with the ground below it filled; its highest point is labelled, `name` says what stands at the axis."""
    right, floor = width - 14, height - _BOTTOM
    ticks = _ticks(min(0.0, *(m.value for m in marks)), max(m.value for m in marks))
    y = _linear(ticks[0], ticks[-1], floor, _TOP)
    x = _linear(marks[0].at, max(marks[-1].at, marks[0].at + 1), _LEFT, right)
    step = x(marks[0].at + 1) - _LEFT
    points = "L".join(f"{x(mark.at):.1f} {y(mark.value):.1f}" for mark in marks)
    parts = list(_grid(ticks, y, right, unit))
    parts.append(svg.path("area", f"M{_LEFT} {y(0):.1f}L{points}L{x(marks[-1].at):.1f} {y(0):.1f}Z"))
    parts.append(svg.line("zero", _LEFT, y(0), right, y(0)))
    parts.append(svg.path("line", f"M{points}"))
    peak = max(marks, key=lambda mark: mark.value)
    for mark in marks:
        px, py = x(mark.at), y(mark.value)
        parts.append(
            svg.mark(
                mark.tip,
                svg.target(px - step / 2, _TOP, step, floor - _TOP),
                svg.circle("dot worst" if mark is peak else "dot", px, py, 4 if mark is peak else 3),
            )
        )
    every = next((some for some in (1, 2, 3, 4, 6) if step * some >= 46), 12)
    for at in range(int(marks[0].at), int(marks[-1].at) + 1, every):
        parts.append(svg.text("tick", x(at), height - 8, name(at), "middle"))
    parts.append(svg.text("value", x(peak.at), y(peak.value) - 11, peak.text, "end" if peak is marks[-1] else "middle"))
    return svg.document(parts, width, height, summary)


def bars(marks: Sequence[Mark], *, width: int, summary: str) -> str:
    """Lying bars with their labels on the left and the values at their ends, under an axis of round numbers."""
    row, top, second = 30, 24, 88
    narrow = width < _NARROW
    height = top + row * len(marks) + 6
    left = 96.0 if narrow else min(280.0, width * 0.42)
    right = width - max(len(mark.text) for mark in marks) * _CHARACTER - 12
    ticks = _ticks(0, max(mark.value for mark in marks), about=3 if narrow else 5)
    x = _linear(0, ticks[-1], left, right)
    parts = []
    for tick in ticks:
        parts.append(svg.line("grid" if tick else "zero", x(tick), top - 4, x(tick), height - 4))
        parts.append(svg.text("tick", x(tick), top - 10, f"{tick:,.0f}", "middle"))
    for index, mark in enumerate(marks):
        upper = top + row * index
        parts.append(
            svg.mark(
                mark.tip,
                svg.target(0, upper, width, row),
                svg.text("code", 0, upper + 19, mark.label),
                "" if narrow else svg.text("tick", second, upper + 19, _shortened(mark.more, left - second - 14)),
                svg.path("bar" if index else "bar worst", _bar(left, x(mark.value), upper + 6, row - 12)),
                svg.text("value", x(mark.value) + 7, upper + 19, mark.text),
            )
        )
    return svg.document(parts, width, height, summary)


def _grid(ticks: Sequence[float], y: Callable[[float], float], right: float, unit: str) -> Iterator[str]:
    for tick in ticks:
        yield svg.line("grid", _LEFT, y(tick), right, y(tick))
        yield svg.text("tick", _LEFT - 8, y(tick) + 4, f"{tick:g}", "end")
    yield svg.text("unit", 0, 12, unit)


def _ticks(low: float, high: float, *, about: int = 6) -> list[float]:
    """Round numbers that reach from below `low` to above `high`."""
    high = max(high, low + 1)
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= raw)
    return [step * index for index in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _linear(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _shortened(label: str, room: float) -> str:
    most = int(room / _CHARACTER)
    return label if len(label) <= most else label[: most - 1].rstrip() + "…"


def _column(middle: float, thick: float, zero: float, end: float) -> str:
    """An upright bar whose far end is rounded and whose foot stands flat on the zero line."""
    by = min(4.0, thick / 2, abs(zero - end))
    left, right, near = middle - thick / 2, middle + thick / 2, end + math.copysign(by, zero - end)
    return (
        f"M{left:.1f} {zero:.1f}V{near:.1f}Q{left:.1f} {end:.1f} {left + by:.1f} {end:.1f}"
        f"H{right - by:.1f}Q{right:.1f} {end:.1f} {right:.1f} {near:.1f}V{zero:.1f}Z"
    )


def _bar(left: float, right: float, top: float, thick: float) -> str:
    """A lying bar, rounded at its end."""
    by = min(4.0, max(0.0, right - left))
    bottom = top + thick
    return (
        f"M{left:.1f} {top:.1f}H{right - by:.1f}Q{right:.1f} {top:.1f} {right:.1f} {top + by:.1f}"
        f"V{bottom - by:.1f}Q{right:.1f} {bottom:.1f} {right - by:.1f} {bottom:.1f}H{left:.1f}Z"
    )
