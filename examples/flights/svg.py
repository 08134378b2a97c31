"""The few SVG elements that the charts are made of; every text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def document(parts: Sequence[str], width: float, height: float, summary: str) -> str:
    """The drawing as a whole, with one sentence for those who cannot see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escape(summary)}">{"".join(parts)}</svg>'
    )


def mark(tip: str, *parts: str) -> str:
    """One value: its shapes, and the story that browsers show when it is pointed at."""
    return f'<g class="mark"><title>{escape(tip)}</title>{"".join(parts)}</g>'


def text(kind: str, x: float, y: float, content: str, anchor: str = "start") -> str:
    """A label whose baseline begins (or has its middle or end) at a point."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def path(kind: str, shape: str, **attributes: float) -> str:
    """A path; attributes are written with dashes for underscores."""
    extra = "".join(f' {name.replace("_", "-")}="{value:.2f}"' for name, value in attributes.items())
    return f'<path class="{kind}"{extra} d="{shape}"/>'


def circle(kind: str, x: float, y: float, radius: float) -> str:
    """A dot."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'


def target(x: float, y: float, width: float, height: float) -> str:
    """An invisible box that makes a mark's tooltip answer on more than the mark itself."""
    return f'<rect class="hit" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
