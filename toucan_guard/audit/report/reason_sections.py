"""The sections about reasons: why requests were refused, why they failed, and what a rule on trial would refuse."""

from __future__ import annotations

from collections.abc import Sequence

from toucan_guard.audit.report.figures import Report, Row
from toucan_guard.audit.report.markup import Column, Html, bar, element, lines, name, sentence, table
from toucan_guard.audit.report.parts import ROWS, left_out, section
from toucan_guard.audit.report.words import as_read, number, plural, share, told_of


def reasons(report: Report) -> Html:
    """Why requests were refused, and what to do."""
    refused = sorted((row for row in report.reasons.rows if row.refused), key=lambda row: -row.refused)
    title = "Why requests were refused"
    if not refused:
        return section("reasons", title, element("p", "Nobody was refused."))
    return section(
        "reasons",
        title,
        element("p", "Every refusal has one reason. Nothing was shown to any of these."),
        _by_reason("refusal", "Refused", [(row, row.refused) for row in refused], report.totals.refused, "red"),
    )


def failures(report: Report) -> Html:
    """Why requests failed, and what to do; nothing where none has."""
    failed = sorted((row for row in report.reasons.rows if row.failed), key=lambda row: -row.failed)
    if not failed:
        return Html("")
    return section(
        "failures",
        "Why requests failed",
        element(
            "p",
            "These were not refused: the app, or something that the guard needs, did not do its part, or the viewer "
            "left. Where nothing could be decided, nothing was shown.",
        ),
        _by_reason("failure", "Failed", [(row, row.failed) for row in failed], report.totals.failed, "amber"),
    )


def _by_reason(one: str, title: str, counted: Sequence[tuple[Row, int]], whole: int, colour: str) -> Html:
    rows = []
    for row, count in counted:
        told, read = told_of(row.name), as_read(row.name)
        rows.append([
            lines(sentence(told.meaning), element("code", row.name, class_="soft")),
            lines(number(count), element("span", share(count, whole), class_="soft")),
            bar(count, whole, colour),
            lines(
                sentence(told.mend),
                element("span", read, class_="soft") if read else "",
            ),
            _from(row),
        ])  # fmt: skip
    return table(
        f"{plural(whole, one)} by reason, the most frequent first",
        [Column("What happened", "main"), Column(title, "number"), Column("Share", "meter"),
         Column("What to do"), Column("From", "place")],
        rows,
    )  # fmt: skip


def _from(row: Row) -> Html:
    """The web sites that a reason was noted with."""
    if not row.notes:
        return element("span", "no site named", class_="soft")
    more = len(row.notes) > 2 or row.unnoted
    return lines(
        *(name(site) for site, _ in row.notes[:2]), element("span", "and others", class_="soft") if more else ""
    )


def trial(report: Report) -> Html:
    """What report-only would have refused."""
    listing = report.report_only
    title = "Rules on trial"
    if not listing.rows:
        return section("trial", title, element("p", "No rule on trial (REPORT_ONLY) would have refused anything."))
    return section(
        "trial",
        title,
        element(
            "p",
            "These rules only report so far (REPORT_ONLY). A request may break several of them, and may be refused by "
            "another rule anyway.",
        ),
        table(
            f"{plural(report.totals.would_refuse, 'request')} let in that would have been refused, by rule",
            [Column("What happened", "main"), Column("Let in", "number"), Column("Refused anyway", "number"),
             Column("What to do"), Column("From", "place")],
            (
                [lines(sentence(told_of(row.name).meaning), element("code", row.name, class_="soft")),
                 number(row.let_in), number(row.refused), sentence(told_of(row.name).mend),
                 _from(row)]
                for row in listing.rows[:ROWS]
            ),
        ),
        left_out(listing.names - ROWS, "rule"),
    )  # fmt: skip
