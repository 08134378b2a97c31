"""The sections about requests and the record. Each reads the report and nothing else."""

from __future__ import annotations

from typing import Final

from toucan_guard.audit.report.charts import Chart, drawn, labels_of
from toucan_guard.audit.report.charts import Column as Bar
from toucan_guard.audit.report.figures import Integrity, Report
from toucan_guard.audit.report.markup import Column, Html, bar, element, lines, name, sentence, table, words
from toucan_guard.audit.report.parts import ROWS, counted, fact_list, icon, left_out, overflow, section
from toucan_guard.audit.report.words import (
    as_read,
    at_least,
    date,
    day,
    minute,
    month,
    number,
    plural,
    share,
    short_day,
    told_of,
)

_STEP_WORDS: Final = {"minute": "minute by minute", "hour": "hour by hour", "day": "day by day",
                      "week": "week by week", "month": "month by month"}  # fmt: skip


def attention(report: Report) -> Html:
    """What somebody should act on, or look at."""
    if not report.notices:
        return section("attention", "What to look at", element("p", "Nothing stands out in this record."))
    items = [
        element(
            "li",
            icon(notice.level),
            element(
                "div",
                element("h3", words(notice.title)),
                element("p", words(notice.text)),
                element("p", words(notice.advice), class_="advice"),
            ),
            class_=notice.level,
        )
        for notice in report.notices
    ]
    return section("attention", "What to look at", element("ul", *items, class_="notices"))


def timeline(report: Report) -> Html:
    """Traffic and refusals over time."""
    slots, unit = report.timeline, report.unit
    title = "Traffic and refusals over time"
    if len(slots) < 2:
        alone = f"All of it happened within one {unit}, on {minute(slots[0].start)}." if slots else "There was none."
        return section("time", title, element("p", alone))
    label = labels_of(unit, day=short_day, month=month)
    busiest = max(slots, key=lambda slot: slot.requests)
    worst = max(slots, key=lambda slot: slot.refused)

    def when(start: str) -> str:
        return minute(start) if unit in ("minute", "hour") else f"{'week of ' if unit == 'week' else ''}{day(start)}"

    traffic = Chart(
        "traffic",
        f"Requests, {_STEP_WORDS[unit]}",
        f"{plural(report.totals.requests, 'request')} in all; the most, {number(busiest.requests)}, "
        f"on {when(busiest.start)}.",
        [
            Bar(label(slot.start), slot.requests, f"{when(slot.start)}: {plural(slot.requests, 'request')}")
            for slot in slots
        ],
        190,
        "traffic",
    )
    marked = {burst.start[:10] for burst in report.bursts} if unit == "day" else set[str]()
    refused = Chart(
        "refusals",
        f"Refusals, {_STEP_WORDS[unit]}",
        f"{plural(report.totals.refused, 'refusal')} in all; the most, {number(worst.refused)}, "
        f"on {when(worst.start)}.",
        [
            Bar(
                label(slot.start),
                slot.refused,
                f"{when(slot.start)}: {number(slot.refused)} of {plural(slot.requests, 'request')} refused",
                marked=slot.start[:10] in marked,
            )
            for slot in slots
        ],
        160,
        "refusals",
    )
    note = "; days with a burst are darker" if marked else ""
    figures = [
        element(
            "figure",
            element("figcaption", chart.title, element("span", f" (times in UTC{extra}). {chart.summary}")),
            drawn(chart),
        )
        for chart, extra in ((traffic, ""), (refused, note))
        if chart is traffic or report.totals.refused
    ]
    numbers = table(
        f"Requests {_STEP_WORDS[unit]}, in UTC",
        [Column("From"), *(Column(title, "number") for title in ("Let through", "Refused", "On trial", "Failed"))],
        (
            [when(slot.start), *map(number, (slot.allowed, slot.refused, slot.would_refuse, slot.failed))]
            for slot in slots
        ),
    )
    return section("time", title, *figures, element("details", element("summary", "The same in numbers"), numbers))


def reasons(report: Report) -> Html:
    """Why requests were refused, and what to do."""
    refused = [row for row in report.reasons.rows if row.refused]
    title = "Why requests were refused"
    if not refused:
        return section("reasons", title, element("p", "Nobody was refused."))
    whole = report.totals.refused
    rows = []
    for row in sorted(refused, key=lambda row: -row.refused):
        told, read = told_of(row.name), as_read(row.name)
        sites = [site for site, _ in row.notes[:2]]
        more = len(row.notes) - 2 + row.unnoted
        rows.append([
            lines(sentence(told.meaning), element("code", row.name, class_="soft")),
            lines(number(row.refused), element("span", share(row.refused, whole), class_="soft")),
            bar(row.refused, whole, "red"),
            lines(
                sentence(told.mend),
                element("span", read, class_="soft") if read else "",
            ),
            lines(*map(name, sites), element("span", "and others", class_="soft") if more > 0 else "")
            if sites else element("span", "no site named", class_="soft"),
        ])  # fmt: skip
    return section(
        "reasons",
        title,
        element("p", "Every refusal has one reason. Nothing was shown to any of these."),
        table(
            f"{plural(whole, 'refusal')} by reason, the most frequent first",
            [Column("What happened", "main"), Column("Refused", "number"), Column("Share", "meter"),
             Column("What to do"), Column("Mostly from", "place")],
            rows,
        ),
    )  # fmt: skip


def sites(report: Report) -> Html:
    """Which web sites were refused."""
    title = "Web sites that were refused"
    listing = report.sites
    refused = [row for row in listing.rows if row.refused]
    new = {site.site for site in report.new_sites}
    if not refused:
        return section("sites", title, element("p", "No web site was refused."))
    rows = [
        [
            Html(name(row.name) + (" " + element("span", "new", class_="tag warn") if row.name in new else "")),
            number(row.refused),
            at_least(row.count, row.at_most),
            lines(*(words(told_of(reason).meaning) for reason, _ in row.notes[:2])),
            date(row.first),
            date(row.last),
        ]
        for row in refused[:ROWS]
    ]
    return section(
        "sites",
        title,
        element(
            "p",
            "A site that was always refused is a stranger, or a customer's new address. One that is refused "
            "sometimes is a customer with a fault to mend.",
        ),
        table(
            f"{number(len(refused))} of {counted(listing, 'web site')} that asked were refused at least once",
            [Column("Web site", "main"), Column("Refused", "number"), Column("Requests", "number"),
             Column("Mostly because"), Column("First seen", "date"), Column("Last seen", "date")],
            rows,
        ),
        left_out(len(refused) - ROWS, "web site"),
        overflow(listing, "web sites"),
    )  # fmt: skip


def people(report: Report) -> Html:
    """Persons who were seen in several web sites."""
    if not report.travellers:
        return Html("")
    return section(
        "people",
        "People seen on several web sites",
        element("p", "Right where the sites belong to one customer; otherwise a token was handed on."),
        table(
            plural(len(report.travellers), "person", "people"),
            [Column("Person", "main"), Column("Customer"), Column("Web sites"), Column("Last seen", "date")],
            (
                [name(person.subject), name(person.tenant or ""), lines(*map(name, person.sites)), minute(person.last)]
                for person in report.travellers[:ROWS]
            ),
        ),
        left_out(len(report.travellers) - ROWS, "person", many="people"),
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
        element("p", "These rules only report so far (REPORT_ONLY): the requests were let through."),
        table(
            f"{plural(listing.total, 'request')} that would have been refused",
            [Column("What happened", "main"), Column("Requests", "number"), Column("What to do"),
             Column("Mostly from", "place")],
            (
                [lines(sentence(told_of(row.name).meaning), element("code", row.name, class_="soft")),
                 number(row.count), sentence(told_of(row.name).mend),
                 lines(*(name(site) for site, _ in row.notes[:3])) or element("span", "no site named", class_="soft")]
                for row in listing.rows[:ROWS]
            ),
        ),
    )  # fmt: skip


def gaps(report: Report) -> Html:
    """Failures, and what the record does not have."""
    totals, source = report.totals, report.source
    facts = [
        ("Requests that failed", f"{number(totals.failed)} ({share(totals.failed, totals.requests)})"),
        ("Answers that broke off", number(totals.cut)),
        ("Sockets closed on expiry", number(totals.closed)),
        ("Decisions not written down", number(totals.dropped)),
        ("Lines shortened for length", number(totals.shortened)),
        ("Lines that could not be read", number(source.bad)),
        ("Lines with an impossible date", number(source.misdated)),
        ("Requests to open paths", f"{number(totals.exempt)} (they need no token, and are counted nowhere else)"),
        ("Processes started", number(totals.starts)),
    ]
    bad = [element("li", f"{line.file}:{line.number}: {line.problem}") for line in source.bad_lines[:10]]
    shown = [element("p", "The first lines that could not be read:"), element("ul", *bad)] if bad else []
    return section("gaps", "Failures and gaps", fact_list(facts), *shown)


def genuine(report: Report) -> Html:
    """Whether the record is as it was written."""
    seals = report.integrity
    findings = [
        element("li", *([element("strong", f"{finding.place}: ")] if finding.place else []),
                f"{finding.kind.replace('_', ' ')}. {finding.sentence}")
        for finding in seals.findings[:20]
    ]  # fmt: skip
    more = seals.more + max(0, len(seals.findings) - 20)
    return section(
        "genuine",
        "Is this record genuine?",
        element("p", told_seals(seals) if report.source.lines else "There is no line to look at."),
        element("ul", *findings, class_="findings") if findings else "",
        element("p", f"And {number(more)} more.") if more else "",
    )


def told_seals(seals: Integrity) -> str:
    """What the check of the seals says, in words."""
    if seals.state == "unsealed":
        return (
            "Nobody can tell: its lines carry no seals. Records that the guard writes to a file or a stream do; those "
            "that go through structlog do not."
        )
    counted = f"{plural(seals.lines, 'line')} in {plural(seals.chains, 'chain')}"
    if seals.state == "tampered":
        return f"No. {counted} were checked, and some are not as they were written:"
    if seals.state == "unchecked":
        return f"It was not checked: {counted} are sealed with a key that this report was not given."
    how = (
        "The seals were made with a key: whoever does not hold it could not have written a line."
        if seals.keyed
        else "The seals were made without a key: somebody who remade all of them would not be found out. "
        "AUDIT_CHAIN_KEY closes that gap."
    )
    return f"Yes, as far as it goes: {counted}, each as it was written. {how}"
