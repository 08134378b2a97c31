"""The rows as one chart for the README: what is reached, as bars, and how costs grow, as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from rows import Curve, Row

_WIDTH, _LEFT, _BARS, _BAR = 1030, 610, 330, 22
_PANEL_WIDTH, _PANEL_HEIGHT, _ACROSS = 390, 150, 2
_STEP_X, _STEP_Y = _WIDTH // _ACROSS, 225
_STYLE = (
    "text{fill:#24292f}.bar{fill:#2f7d6d}.over{fill:#c2571a}.line{stroke:#57606a}.grid{stroke:#57606a;opacity:.25}"
    ".c0{stroke:#2f7d6d;fill:#2f7d6d}.c1{stroke:#c2571a;fill:#c2571a}"
    "@media(prefers-color-scheme:dark){text{fill:#d0d7de}.line,.grid{stroke:#8b949e}}"
)


def as_svg(rows: Sequence[Row]) -> str:
    bars = [row for row in rows if row.reach and not row.unit]
    panels: dict[str, list[Curve]] = {}
    for row in rows:
        if row.curve is not None:
            panels.setdefault(row.curve.over, []).append(row.curve)
    top = 34 + _BAR * len(bars) + 30 if bars else 0
    height = top + _STEP_Y * math.ceil(len(panels) / _ACROSS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"',
        'font-family="system-ui, sans-serif" font-size="12" role="img" aria-labelledby="t">',
        '<title id="t">Measured ratios as a share of what is to be reached, and how costs grow</title>',
        f"<style>{_STYLE}</style>",
        *(_reached(bars) if bars else ()),
    ]
    for number, (over, curves) in enumerate(panels.items()):
        parts += _panel(over, curves, 50 + number % _ACROSS * _STEP_X, top + 45 + number // _ACROSS * _STEP_Y)
    return "\n".join([*parts, "</svg>"])


def _reached(rows: Sequence[Row]) -> list[str]:
    """Each ratio that has something to reach, as a share of it: a bar that ends before the line has reached it."""
    parts = []
    scale = _BARS / 2
    for number, row in enumerate(rows):
        assert row.reach is not None
        share = row.reach / row.figure.median if row.least else row.figure.median / row.reach
        y = 34 + number * _BAR
        shown = min(share, 2.0)
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(row.what)}</text>')
        kind = "bar" if row.reached else "over"
        parts.append(f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{shown * scale:.1f}" height="15" rx="2"/>')
        parts.append(
            f'<text x="{_LEFT + shown * scale + 6:.1f}" y="{y + 12}">{row.figure.median:.2f} of {row.reach:g}</text>'
        )
    parts.append(
        f'<line class="line" x1="{_LEFT + scale}" x2="{_LEFT + scale}" y1="24" y2="{34 + _BAR * len(rows)}" '
        'stroke-dasharray="3 3"/>'
    )
    parts.append(f'<text x="{_LEFT + scale}" y="16" text-anchor="middle">to be reached (bars end at twice that)</text>')
    return parts


def _panel(over: str, curves: Sequence[Curve], left: float, top: float) -> list[str]:
    """Microseconds over a number of things; the numbers stand at their logarithms where they reach far."""
    sizes = sorted({size for curve in curves for size in curve.points})
    place = math.log10 if sizes[-1] > 64 * max(1, sizes[0]) else float
    first, last = place(sizes[0]), place(sizes[-1])
    most = _round_above(max(figure.high for curve in curves for figure in curve.points.values()))

    def x(size: float) -> float:
        return left + (place(size) - first) / (last - first) * _PANEL_WIDTH

    def y(amount: float) -> float:
        return top + _PANEL_HEIGHT - amount / most * _PANEL_HEIGHT

    parts = [f'<text x="{left}" y="{top - 12}" font-weight="600">{escape(over)}, microseconds</text>']
    for quarter in range(5):
        amount = most * quarter / 4
        parts.append(f'<line class="grid" x1="{left}" x2="{left + _PANEL_WIDTH}" y1="{y(amount)}" y2="{y(amount)}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(amount) + 4}" text-anchor="end">{amount:g}</text>')
    parts += [
        f'<text x="{x(size):.1f}" y="{top + _PANEL_HEIGHT + 16}" text-anchor="middle">{size:,}</text>' for size in sizes
    ]
    for number, curve in enumerate(curves):
        points = [(x(size), y(figure.median)) for size, figure in curve.points.items()]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline class="c{number}" points="{line}" style="fill:none" stroke-width="1.5"/>')
        for size, figure in curve.points.items():
            spread = f'x1="{x(size):.1f}" x2="{x(size):.1f}" y1="{y(figure.low):.1f}" y2="{y(figure.high):.1f}"'
            parts.append(f'<line class="c{number}" {spread} stroke-width="1.5"/>')
            parts.append(f'<circle class="c{number}" cx="{x(size):.1f}" cy="{y(figure.median):.1f}" r="2.5"/>')
        parts.append(f'<text x="{points[-1][0]:.1f}" y="{points[-1][1] - 8:.1f}" text-anchor="end">{curve.name}</text>')
    return parts


def _round_above(amount: float) -> float:
    """The next number that four steps reach evenly."""
    unit = 10 ** math.floor(math.log10(amount))
    return next(unit * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if unit * step >= amount)
