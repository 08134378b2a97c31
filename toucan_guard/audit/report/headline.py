"""The report in a few sentences: what the terminal and the page begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toucan_guard.audit.report.figures import Report
from toucan_guard.audit.report.words import minute, number, period, plural, share


class Verdict(NamedTuple):
    """The state of things.

    Attributes:
        level: ``act``, ``look`` or ``calm``.
        title: In a few words.
        text: A sentence more.
    """

    level: str
    title: str
    text: str


class Tile(NamedTuple):
    """One of the numbers at the top."""

    label: str
    value: str
    more: str
    bad: bool


def headline(report: Report) -> str:
    """How many requests, and how many of them were refused."""
    totals = report.totals
    if report.begins is None:
        return "Nothing is on record for this time"
    asked = f"{plural(totals.requests, 'request')} came in"
    if not totals.requests:
        return "No requests came in"
    if not totals.refused:
        return f"{asked}, and nobody was refused"
    return f"{asked}, and {share(totals.refused, totals.requests)} were refused"


def covered(report: Report) -> str:
    """The time that the report is about."""
    if report.begins is None or report.ends is None:
        if not report.source.lines:
            return "There is no line in it."
        newest = f" The newest line is of {minute(report.newest)}." if report.newest else ""
        return f"No line of the record falls into this time.{newest}"
    return period(report.begins, report.ends)


def verdict(report: Report) -> Verdict:
    """Whether anything needs somebody to act."""
    acts = sum(notice.level == "act" for notice in report.notices)
    looks = len(report.notices) - acts
    looked = f"{plural(looks, 'thing is', 'things are')} worth a look." if looks else ""
    if acts:
        needs = "One thing needs" if acts == 1 else f"{number(acts)} things need"
        return Verdict("act", f"{needs} somebody to act", f"Besides, {looked}" if looked else "")
    if report.begins is None:
        return Verdict("look", "There is nothing to report on", "Was this the right file, and the right time?")
    if looks:
        return Verdict("look", "Nothing needs action", looked)
    return Verdict("calm", "Nothing needs action", "Nothing stands out.")


def tiles(report: Report) -> Sequence[Tile]:
    """The numbers at the top."""
    totals = report.totals
    found = [
        Tile("Let through", number(totals.allowed), share(totals.allowed, totals.requests), bad=False),
        Tile("Refused", number(totals.refused), share(totals.refused, totals.requests), bad=False),
        Tile("Failed", number(totals.failed), "errors of the app", bad=False),
        Tile("Not written down", number(totals.dropped), "gaps in the record", bad=totals.dropped > 0),
        Tile("Customers", number(report.tenants.names) + ("+" if report.tenants.overflowed else ""), "seen", bad=False),
    ]
    if totals.would_refuse:
        trial = Tile("On trial", number(totals.would_refuse), "would be refused", bad=False)
        found.insert(2, trial)
    return found
