"""The report in a few sentences: what the terminal and the page begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toucan_guard.audit.report.figures import Report
from toucan_guard.audit.report.notices import many_failed
from toucan_guard.audit.report.words import listed, minute, number, period, plural, share


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
    """How many requests, how many of them were refused, and how many failed where these are many."""
    totals = report.totals
    if report.begins is None:
        return "Nothing is on record for this time"
    asked = f"{plural(totals.requests, 'request')} came in"
    if not totals.requests:
        return "No requests for charts came in"
    if totals.requests == 1:
        return f"{asked}, and {'failed' if totals.failed else 'was refused' if totals.refused else 'was not refused'}"
    if totals.requests in (totals.refused, totals.failed):
        return f"{asked}, and all of them {'were refused' if totals.refused else 'failed'}"
    some = "none of them"
    if totals.refused:
        some = f"{number(totals.refused)} ({share(totals.refused, totals.requests)})"
    refused = f"{some} {'was' if totals.refused == 1 else 'were'} refused"
    if not many_failed(report):
        return f"{asked}, and {refused}"
    return f"{asked}: {refused}, and {number(totals.failed)} ({share(totals.failed, totals.requests)}) failed"


def counting(report: Report) -> str:
    """What was counted as a request, and what apart; nothing where nothing was."""
    totals = report.totals
    found = [
        (totals.redirects, "redirect", "redirects", "a browser is sent on, as into a frame"),
        (totals.preflights, "preflight", "preflights", "a browser's question beforehand, whether it may ask"),
        (totals.exempt, "request", "requests", "to paths that need no token"),
        (totals.issued, "token", "tokens", "given to a server with an API key"),
        (totals.renewed, "token", "tokens", "renewed by a page"),
    ]
    beside = [f"{plural(count, one, many)} ({what})" for count, one, many, what in found if count]
    told = []
    if totals.requests or beside:
        told.append("A request asks for a chart, its data or its live feed, and is let in, is refused or fails.")
    if beside:
        told.append(f"Counted apart, as they show nothing: {listed(beside, len(beside))}.")
    asked = totals.refused_preflights
    if asked:
        were = "was a preflight" if asked == 1 else "were preflights"
        told.append(
            f"Of the requests that were refused, {number(asked)} {were}: the browser asked beforehand, and was told no."
        )
    return " ".join(told)


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
    """The numbers at the top: what was let in, refused and failed is all there is."""
    totals = report.totals
    found = [
        Tile("Let in", number(totals.let_in), share(totals.let_in, totals.requests), bad=False),
        Tile("Refused", number(totals.refused), share(totals.refused, totals.requests), bad=False),
        Tile("Failed", number(totals.failed), share(totals.failed, totals.requests), bad=False),
        Tile("Not written down", number(totals.dropped), "gaps in the record", bad=totals.dropped > 0),
        Tile("Customers", number(report.tenants.names) + ("+" if report.tenants.overflowed else ""), "seen", bad=False),
    ]
    if totals.would_refuse:
        trial = Tile("On trial", number(totals.would_refuse), "of those let in", bad=False)
        found.insert(1, trial)
    return found
