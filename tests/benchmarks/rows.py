"""The rows of the table: what is measured against what, and what is to be reached."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from measure import Figure


@dataclass(frozen=True)
class Curve:
    """How a cost grows: one line of the plot.

    Attributes:
        over: What there is more and more of.
        name: Which of the lines over it this is.
        points: How many, to microseconds.
    """

    over: str
    name: str
    points: dict[int, Figure]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        group: The part of the guard that it is about.
        what: What is compared, in words.
        figure: The ratio (or the amount), as a median with its quartiles.
        reach: What it should be at most; ``least`` turns that round; None where it is only reported.
        unit: Empty for a ratio.
        beside: The amounts behind a ratio, such as ``{"guard": "21.3 us"}``.
        curve: What the plot shows of it.
    """

    group: str
    what: str
    figure: Figure
    reach: float | None = None
    least: bool = False
    unit: str = ""
    beside: dict[str, str] | None = None
    curve: Curve | None = None

    @property
    def reached(self) -> bool | None:
        if self.reach is None:
            return None
        return self.figure.median >= self.reach if self.least else self.figure.median <= self.reach

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "reached": self.reached}


def exactly(value: float) -> Figure:
    """An amount that was counted, not timed."""
    return Figure(value, value, value)


def microseconds(figure: Figure) -> str:
    return f"{figure.median * 1e6:.1f} us"
