"""The sections about web sites, people and the record. Each reads the report and nothing else."""

from __future__ import annotations

from toucan_guard.audit.report.figures import Integrity, Report, Row
from toucan_guard.audit.report.markup import Column, Html, element, lines, name, table, words
from toucan_guard.audit.report.parts import ROWS, counted, fact_list, icon, left_out, overflow, section
from toucan_guard.audit.report.words import at_least, date, minute, number, plural, share, told_of


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


def sites(report: Report) -> Html:
    """Which web sites were refused."""
    title = "Refusals by web site"
    listing = report.sites
    refused = [row for row in listing.rows if row.refused]
    new = {site.site for site in report.new_sites}
    if not refused:
        return section("sites", title, element("p", f"No web site was refused. {told_siteless(report)}"))
    rows = [
        [
            Html(name(row.name) + (" " + element("span", "new", class_="tag warn") if row.name in new else "")),
            at_least(row.count, row.at_most),
            lines(number(row.refused), element("span", "every time", class_="tag warn") if _always(row) else ""),
            lines(*map(words, because(row))),
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
            f"sometimes is a customer with a fault to mend. {told_siteless(report)}",
        ),
        table(
            f"{number(len(refused))} of {counted(listing, 'web site')} that asked were refused at least once",
            [Column("Web site", "main"), Column("Requests", "number"), Column("Refused", "number"),
             Column("Because"), Column("First seen", "date"), Column("Last seen", "date")],
            rows,
        ),
        left_out(len(refused) - ROWS, "web site"),
        overflow(listing, "web sites"),
    )  # fmt: skip


def _always(row: Row) -> bool:
    return row.refused == row.count == row.at_most > 1


def because(row: Row) -> list[str]:
    """Why a web site was refused: the two reasons that were noted most often, and how often."""
    told = [f"{told_of(reason).meaning} ({number(count)})" for reason, count in row.notes[:2]]
    more = len(row.notes) - 2
    return told + ([f"and {plural(more, 'other reason')}{' or more' if row.unnoted else ''}"] if more > 0 else [])


def told_siteless(report: Report) -> str:
    """How many requests stand in no row of the web sites."""
    siteless, refused = report.totals.siteless, report.totals.refused_siteless
    if not siteless:
        return ""
    if siteless == 1:
        return f"1 request named no web site, and was{'' if refused else ' not'} refused."
    were = f"{number(refused)} of them {'was' if refused == 1 else 'were'}" if refused else "none of them was"
    return f"{number(siteless)} requests named no web site; {were} refused."


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


def gaps(report: Report) -> Html:
    """Failures, and what the record does not have."""
    totals, source = report.totals, report.source
    facts = [
        ("Requests that failed", f"{number(totals.failed)} ({share(totals.failed, totals.requests)})"),
        ("Answers that broke off", number(totals.cut)),
        ("Ended with their token", f"{number(totals.closed)} (live feeds and streams)"),
        ("Entries not written down", number(totals.dropped)),
        ("Lines shortened for length", number(totals.shortened)),
        ("Lines that could not be read", number(source.bad)),
        ("Files that could not be read", number(len(source.unread))),
        ("Lines with an impossible date", number(source.misdated)),
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
    if not seals.lines:
        return (
            "Nobody can tell: no line is as the guard writes them. A program that formats them anew breaks every seal."
        )
    counted = f"{plural(seals.lines, 'line')} in {plural(seals.chains, 'chain')}"
    if seals.state == "tampered":
        return f"No. {counted} were checked, and some are not as they were written:"
    if seals.unknown_lines and seals.with_key:
        unknown = f"{plural(seals.unknown_lines, 'line')} in {plural(seals.unknown_chains, 'chain')}"
        return f"Not all of it is proved: of {counted}, {unknown} fit no key that this report was given."
    if seals.unknown_lines:
        return f"It was not checked: {counted} are sealed with a key that this report was not given."
    if seals.state == "unchecked":
        but = ", but for what is named as damaged" if any(each.kind == "damaged" for each in seals.findings) else ""
        return f"Not all of it is proved: {counted} are as they were written{but}. Of the rest nothing is known:"
    how = (
        "The seals were made with a key: whoever does not hold it could not have written a line."
        if seals.keyed
        else "The seals were made without a key: somebody who remade all of them would not be found out. "
        "AUDIT_CHAIN_KEY closes that gap."
    )
    return f"Yes, as far as it goes: {counted}, each as it was written. {how}"
