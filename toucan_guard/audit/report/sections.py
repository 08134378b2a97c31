"""The sections of the page, in the order in which they stand. Each reads the report and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from toucan_guard.audit.report.charts import Chart, drawn, labels_of
from toucan_guard.audit.report.charts import Column as Bar
from toucan_guard.audit.report.figures import Integrity, Listing, Report, Scope
from toucan_guard.audit.report.markup import Column, Html, bar, element, lines, name, sentence, table, words
from toucan_guard.audit.report.notices import UNUSED_DAYS, covered_days, retirable
from toucan_guard.audit.report.words import (
    as_read,
    at_least,
    date,
    day,
    duration,
    minute,
    month,
    number,
    plural,
    share,
    short_day,
    told_of,
)

_SCOPES: Final = 8
_ROWS: Final = 15  # of a table; what is left out is counted below it
_ICONS: Final = {
    "act": '<path d="M12 3 2.5 20h19L12 3Z"/><path d="M12 10v4.5M12 17.4v.1"/>',
    "look": '<circle cx="12" cy="12" r="9.2"/><path d="M12 7.5v5.2M12 16.2v.1"/>',
    "calm": '<circle cx="12" cy="12" r="9.2"/><path d="m8 12.3 2.8 2.8 5.4-6"/>',
}
_STEP_WORDS: Final = {"minute": "minute by minute", "hour": "hour by hour", "day": "day by day",
                      "week": "week by week", "month": "month by month"}  # fmt: skip


def icon(level: str) -> Html:
    """A sign beside what is also said in words."""
    return Html(
        '<svg class="mark" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" '
        f'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">{_ICONS[level]}</svg>'
    )


def section(anchor: str, title: str, *content: str) -> Html:
    """A section with its heading."""
    return element("section", element("h2", title, id=anchor), *content, aria_labelledby=anchor)


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
                element("span", f"Viewers read: “{read}”.", class_="soft") if read else "",
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
        for row in refused[:_ROWS]
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
            f"{number(len(refused))} of {_names(listing, 'web site')} that asked were refused at least once",
            [Column("Web site", "main"), Column("Refused", "number"), Column("Requests", "number"),
             Column("Mostly because"), Column("First seen", "date"), Column("Last seen", "date")],
            rows,
        ),
        _left_out(len(refused) - _ROWS, "web site"),
        _overflow(listing, "web sites"),
    )  # fmt: skip


def scopes(report: Report) -> Html:
    """What tokens open."""
    title = "What tokens open"
    if not report.scopes:
        return section("scopes", title, element("p", "No token was used."))
    lead = element(
        "p",
        "A scope is everything that a token allows: which objects, which actions, and by which attributes the rows are "
        "limited. The narrower, the less is lost with a token.",
    )
    widest = table("The widest scopes, the widest first", _SCOPE_COLUMNS, map(_scope_row, report.widest[:_SCOPES]))
    if report.scopes_known <= _SCOPES:
        return section("scopes", title, lead, widest)
    known = f"{number(report.scopes_known)}{' or more' if report.scopes_overflowed else ''}"
    used = table(
        f"The {_SCOPES} scopes that were used most, of {known}",
        _SCOPE_COLUMNS,
        map(_scope_row, report.scopes[:_SCOPES]),
    )
    return section("scopes", title, lead, used, element("h3", "The widest"), widest)


_SCOPE_COLUMNS: Final = (
    Column("Opens", "main"),
    Column("Rows limited by"),
    Column("Customers"),
    Column("Requests", "number"),
    Column("Last used", "date"),
)


def _scope_row(scope: Scope) -> Sequence[str]:
    grants = [
        Html(name(grant) + (" " + element("span", "every one", class_="tag warn") if ":*:" in grant else ""))
        for grant in scope.grants[:6]
    ]
    if len(scope.grants) > 6:
        grants.append(element("span", f"and {len(scope.grants) - 6} more", class_="soft"))
    limited = (
        lines(*map(name, scope.rls_attributes))
        if scope.rls_attributes
        else element("span", "nothing: every row", class_="tag bad")
    )
    return [
        lines(*grants) or element("span", "no object by name", class_="soft"),
        limited,
        _several(scope.tenants),
        at_least(scope.count, scope.at_most),
        date(scope.last),
    ]


def tokens(report: Report) -> Html:
    """How long tokens live."""
    title = "How long tokens live"
    if not report.long_tokens:
        return section("tokens", title, element("p", "No token was used."))
    counted = sum(count for _, count in report.lifetimes)
    before, spans = 0, []
    for limit, count in report.lifetimes:
        text = f"up to {duration(limit)}" if limit is not None else f"more than {duration(before)}"
        before = limit or before
        spans.append([text, number(count), share(count, counted), bar(count, counted)])
    return section(
        "tokens",
        title,
        element("p", "The shorter a token lives, the less a stolen one is worth. Minutes are best."),
        table(
            "How long tokens still had to live when they were used",
            [Column("Time left", "main"), Column("Requests", "number"), Column("Share", "number"),
             Column("Bar", "meter long")],
            spans,
        ),
        element("h3", "The longest-lived"),
        table(
            "Tokens with the most time left when they were used",
            [Column("Token", "main"), Column("Time left"), Column("Customer"), Column("Person"), Column("Key"),
             Column("Seen")],
            (
                [name(token.token_id), duration(token.seconds), name(token.tenant or ""), name(token.subject or ""),
                 name(token.key_id or "", empty="without a name"), minute(token.time)]
                for token in report.long_tokens[:10]
            ),
        ),
    )  # fmt: skip


def keys(report: Report) -> Html:
    """Signing keys and API keys by last use."""
    title = "Keys by last use"
    if not report.keys:
        return section("keys", title, element("p", "No token was used, and so no key."))
    rows = []
    for key in report.keys:
        kind = "API key" if key.api_key else "Signing key"
        state = (
            element("span", "can be retired", class_="tag warn")
            if retirable(key)
            else element("span", "in use", class_="tag")
        )
        used = [f"{plural(key.used, 'request')}"] + ([f"{plural(key.issued, 'token')} issued"] if key.issued else [])
        rows.append([
            lines(name(key.key_id, empty="a key without a name"), element("span", key.issuer, class_="soft name")),
            kind,
            lines(date(key.last), element("span", _ago(key.unused_days), class_="soft")),
            lines(*used),
            _several(key.tenants),
            state,
        ])  # fmt: skip
    short = covered_days(report) < UNUSED_DAYS and not report.source.before
    caveat = (
        f"This record is shorter than {UNUSED_DAYS} days: it cannot say which keys have gone out of use. "
        if short
        else f"A key that was not used for {UNUSED_DAYS} days can probably go: it can only be lost. "
    )
    return section(
        "keys",
        title,
        element("p", caveat + "A key that was never used in this record is not in this table."),
        table(
            "Keys, those unused for longest first",
            [Column("Key", "main"), Column("Kind"), Column("Last used", "date"), Column("In this time"),
             Column("Customers"), Column("State")],
            rows[:_ROWS],
        ),
        _left_out(len(rows) - _ROWS, "key"),
    )  # fmt: skip


def customers(report: Report) -> Html:
    """Tenants by traffic."""
    title = "Customers"
    listing = report.tenants
    if not listing.rows:
        return section("customers", title, element("p", "No customer was seen."))
    most = max(row.count for row in listing.rows)
    return section(
        "customers",
        title,
        table(
            f"{_names(listing, 'customer')} by requests with a valid token",
            [Column("Customer", "main"), Column("Requests", "number"), Column("Share", "meter long"),
             Column("Refused", "number"), Column("Last seen", "date")],
            (
                [name(row.name), at_least(row.count, row.at_most), bar(row.count, most),
                 f"{number(row.refused)} ({share(row.refused, row.count)})", date(row.last)]
                for row in listing.rows[:_ROWS]
            ),
        ),
        _left_out(listing.names - _ROWS, "customer", listing.total - sum(row.count for row in listing.rows[:_ROWS])),
        _overflow(listing, "customers"),
    )  # fmt: skip


def regions(report: Report) -> Html:
    """Where requests were answered."""
    listing = report.regions
    if not listing.rows:
        text = "This record names no region: REGION is not set, and nothing is held to one."
        return section("regions", "Regions", element("p", text))
    mismatch = sum(row.refused for row in report.reasons.rows if row.name == "region_mismatch")
    return section(
        "regions",
        "Regions",
        table(
            f"Requests by the region that answered; {number(mismatch)} refused because the token belongs elsewhere",
            [Column("Region", "main"), Column("Requests", "number"), Column("Refused", "number")],
            ([name(row.name), number(row.count), number(row.refused)] for row in listing.rows[:_ROWS]),
        ),
        _left_out(listing.names - _ROWS, "region"),
    )


def filters(report: Report) -> Html:
    """Which tables were filtered, as the adapters have confirmed."""
    listing = report.tables
    if not listing.rows:
        text = "No query went through the guard's own row filters. Where the app queries in another way, that is right."
        return section("filters", "Row filters", element("p", text))
    return section(
        "filters",
        "Row filters",
        table(
            "Tables whose rows were limited to what the token allows, and in how many requests",
            [Column("Table", "main"), Column("Requests", "number")],
            ([name(row.name), at_least(row.count, row.at_most)] for row in listing.rows[:_ROWS]),
        ),
        _left_out(listing.names - _ROWS, "table"),
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
                for row in listing.rows[:_ROWS]
            ),
        ),
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
                for person in report.travellers[:_ROWS]
            ),
        ),
        _left_out(len(report.travellers) - _ROWS, "person", many="people"),
    )


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
        ("Requests to open paths", f"{number(totals.exempt)} (health checks and the like)"),
        ("Processes started", number(totals.starts)),
    ]
    bad = [element("li", f"{line.file}:{line.number}: {line.problem}") for line in source.bad_lines[:10]]
    shown = [element("p", "The first lines that could not be read:"), element("ul", *bad)] if bad else []
    return section("gaps", "Failures and gaps", _facts(facts), *shown)


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
        element("p", told_seals(seals)),
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


def _facts(facts: Sequence[tuple[str, str]]) -> Html:
    return element("dl", *(element(tag, text) for fact in facts for tag, text in zip(("dt", "dd"), fact, strict=True)),
                   class_="facts")  # fmt: skip


def _several(names: Sequence[str]) -> Html:
    if not names:
        return element("span", "none", class_="soft")
    more = len(names) - 2
    return lines(*map(name, names[:2]), element("span", f"and {more} more", class_="soft") if more > 0 else "")


def _names(listing: Listing, one: str) -> str:
    return f"more than {plural(listing.names, one)}" if listing.overflowed else plural(listing.names, one)


def _left_out(more: int, one: str, requests: int = 0, *, many: str | None = None) -> Html:
    if more <= 0:
        return Html("")
    counted = f", with {plural(requests, 'request')}" if requests else ""
    return element("p", f"And {plural(more, one, many)} more{counted}; --json lists up to 200.")


def _overflow(listing: Listing, many: str) -> Html:
    if not listing.overflowed:
        return Html("")
    return element(
        "p",
        f"There were more {many} than could be kept apart. Those with the most are certain to be here; where a number "
        f"is given as “from … to …”, some of the first requests may be missing. "
        f"{plural(listing.others, 'request')} of other {many} are counted together.",
    )


def _ago(days: int) -> str:
    return "on the last day" if days == 0 else f"{plural(days, 'day')} before the end"
