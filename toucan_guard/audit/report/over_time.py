"""The section about time: requests and refusals as columns, and the same in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from toucan_guard.audit.report.charts import Chart, drawn
from toucan_guard.audit.report.charts import Column as Bar
from toucan_guard.audit.report.figures import Report, Slot, Unit
from toucan_guard.audit.report.headline import covered
from toucan_guard.audit.report.hours import moment_of, text_of_moment
from toucan_guard.audit.report.markup import Column, Html, element, table
from toucan_guard.audit.report.notices import many_failed
from toucan_guard.audit.report.parts import section
from toucan_guard.audit.report.words import day, full_month, minute, number, plural

STEP_WORDS: Final = {"minute": "minute by minute", "hour": "hour by hour", "day": "day by day",
                     "week": "week by week", "month": "month by month"}  # fmt: skip

_STEPS: Final = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7),
                 "month": timedelta(days=30)}  # fmt: skip
_WORTH_A_WORD: Final = 0.1  # of a column


def timeline(report: Report) -> Html:
    """Traffic and refusals over time, and failures where they are many."""
    slots, unit, totals = report.timeline, report.unit, report.totals
    title = "Traffic and refusals over time"
    if not totals.requests:
        return section("time", title, element("p", "No requests for charts came in."))
    if len(slots) < 2:
        alone = f"{plural(totals.requests, 'request')} came in, all {within(unit, slots[0].start)}."
        return section("time", title, element("p", alone))
    busiest = max(slots, key=lambda slot: slot.requests)
    charts = [
        Chart(
            "traffic",
            f"Requests, {STEP_WORDS[unit]}",
            f"{plural(totals.requests, 'request')} in all; the most, {number(busiest.requests)}, "
            f"{within(unit, busiest.start)}.",
            unit,
            [
                Bar(slot.start, slot.requests, f"{plural(slot.requests, 'request')} {within(unit, slot.start)}")
                for slot in slots
            ],
            190,
        )
    ]
    note = ""
    if totals.refused:
        marked = _days_of_bursts(report)
        note = "; days with a burst are darker" if marked else ""
        charts.append(_turned_away(report, "refused", "refusal", [(slot, slot.refused) for slot in slots], marked))
    if many_failed(report):
        charts.append(_turned_away(report, "failed", "failure", [(slot, slot.failed) for slot in slots]))
    figures = [
        element(
            "figure",
            element(
                "figcaption",
                chart.title,
                element("span", f" ({covered(report)}{note if chart.id == 'refused' else ''}). {chart.summary}"),
            ),
            drawn(chart),
        )
        for chart in charts
    ]
    numbers = table(
        f"Requests {STEP_WORDS[unit]}, in UTC",
        [Column("From"), *(Column(title, "number") for title in ("Requests", "Let in", "Refused", "Failed"))],
        (
            [_beginning(unit, slot.start), *map(number, (slot.requests, slot.let_in, slot.refused, slot.failed))]
            for slot in slots
        ),
    )
    cut = _not_whole(report)
    told = element("p", cut) if cut else ""
    details = element("details", element("summary", "The same in numbers"), numbers)
    return section("time", title, told, *figures, details)


def _turned_away(
    report: Report, kind: str, one: str, counted: Sequence[tuple[Slot, int]], marked: frozenset[str] = frozenset()
) -> Chart:
    """How many were not let in, in columns: ``kind`` says how, and ``one`` of them is called so."""
    unit = report.unit
    worst, most = max(counted, key=lambda each: each[1])
    return Chart(
        kind,
        f"{one.capitalize()}s, {STEP_WORDS[unit]}",
        f"{plural(sum(count for _, count in counted), one)} in all; the most, {number(most)}, "
        f"{within(unit, worst.start)}.",
        unit,
        [
            Bar(
                slot.start,
                count,
                f"{number(count)} of {plural(slot.requests, 'request')} {kind} {within(unit, slot.start)}",
                marked=slot.start[:10] in marked,
            )
            for slot, count in counted
        ],
        160,
    )


def _not_whole(report: Report) -> str:
    """What makes the first or the last column lower than it would be."""
    if report.begins is None or report.ends is None or report.unit == "minute":
        return ""
    first, last = moment_of(report.timeline[0].start), moment_of(report.timeline[-1].start)
    begins, ends, step = moment_of(report.begins), moment_of(report.ends), _STEPS[report.unit]
    told = []
    if begins - first > step * _WORTH_A_WORD:
        told.append(f"The first {report.unit} had begun when the record begins, on {minute(report.begins)}.")
    if last + step - ends > step * _WORTH_A_WORD:
        told.append(f"The last {report.unit} was not over when the record ends, on {minute(report.ends)}.")
    return " ".join(told)


def _days_of_bursts(report: Report) -> frozenset[str]:
    """The days that a burst fell on, where a column is a day."""
    if report.unit != "day":
        return frozenset()
    days: set[str] = set()
    for burst in report.bursts:
        start, step = moment_of(burst.start), timedelta(hours=1) if burst.unit == "hour" else timedelta(days=1)
        days.update(text_of_moment(start + index * step)[:10] for index in range(burst.hours))
    return frozenset(days)


def within(unit: Unit, start: str) -> str:
    """``on 7 October 2026``, ``in the hour from 7 October 2026, 14:00 UTC``: when something in a column happened."""
    if unit in ("minute", "hour"):
        return f"in the {unit} from {minute(start)}"
    if unit == "month":
        return f"in {full_month(start)}"
    return f"on {day(start)}" if unit == "day" else f"in the week from {day(start)}"


def _beginning(unit: Unit, start: str) -> str:
    if unit == "month":
        return full_month(start)
    return minute(start) if unit in ("minute", "hour") else day(start)
