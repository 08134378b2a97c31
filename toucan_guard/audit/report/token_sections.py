"""The sections about tokens: what they open, how long they live, whose they are, and what they showed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from toucan_guard.audit.report.figures import Report, Scope
from toucan_guard.audit.report.gather import opens_every_object
from toucan_guard.audit.report.markup import Column, Html, bar, element, lines, name, table
from toucan_guard.audit.report.notices import UNUSED_DAYS, covered_days, retirable
from toucan_guard.audit.report.parts import ROWS, counted, left_out, overflow, section, several
from toucan_guard.audit.report.words import at_least, date, duration, minute, number, plural, share

_SCOPES: Final = 8
_SCOPE_COLUMNS: Final = (
    Column("Opens", "main"),
    Column("Rows limited by"),
    Column("Customers"),
    Column("Let in", "number"),
    Column("Last used", "date"),
)


def scopes(report: Report) -> Html:
    """What tokens open."""
    title = "What tokens open"
    if not report.scopes:
        return section("scopes", title, element("p", "No token was used."))
    lead = element(
        "p",
        "A scope is everything that a token allows: which objects, which actions, and by which attributes the rows are "
        "limited. The narrower, the less is lost with a token. "
        f"{plural(report.totals.let_in_with_token, 'request was', 'requests were')} let in with a token.",
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


def _scope_row(scope: Scope) -> Sequence[str]:
    grants = [
        Html(name(grant) + (" " + element("span", "every one", class_="tag warn") if opens_every_object(grant) else ""))
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
        several(scope.tenants),
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
        upto = f"{duration(before)} to {duration(limit)}" if before and limit else f"up to {duration(limit or 0)}"
        text = upto if limit is not None else f"more than {duration(before)}"
        before = limit or before
        spans.append([text, number(count), share(count, counted), bar(count, counted)])
    return section(
        "tokens",
        title,
        element("p", "The shorter a token lives, the less a stolen one is worth. Minutes are best."),
        table(
            "How long tokens still had to live when they let somebody in",
            [Column("Time left", "main"), Column("Let in", "number"), Column("Share", "number"),
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
        retired = element("span", "can be retired", class_="tag warn") if retirable(key) else ""
        issued = element("span", f"{plural(key.issued, 'token')} given", class_="soft") if key.issued else ""
        rows.append([
            lines(
                name(key.key_id, empty="a key without a name"),
                element("span", key.issuer, class_="soft name"),
                element("span", kind, class_="soft"),
                issued,
            ),
            lines(date(key.last), element("span", _ago(key.unused_days), class_="soft"), retired),
            number(key.used),
            number(key.let_in),
            number(key.refused),
            number(key.failed),
            several(key.tenants),
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
            f"{plural(report.totals.with_token, 'request')} with a valid token, by key; those unused for longest first",
            [Column("Key", "main"), Column("Last used", "date"), Column("Requests", "number"),
             Column("Let in", "number"), Column("Refused", "number"), Column("Failed", "number"), Column("Customers")],
            rows[:ROWS],
        ),
        left_out(len(rows) - ROWS, "key"),
    )  # fmt: skip


def _ago(days: int) -> str:
    return "on the last day" if days == 0 else f"{plural(days, 'day')} before the end"


def customers(report: Report) -> Html:
    """Tenants by traffic."""
    title = "Customers"
    listing = report.tenants
    if not listing.rows:
        return section("customers", title, element("p", "No customer was seen."))
    return section(
        "customers",
        title,
        table(
            f"{counted(listing, 'customer')}, by {plural(listing.total, 'request')} with a valid token of theirs",
            [Column("Customer", "main"), Column("Requests", "number"), Column("Share", "meter long"),
             Column("Let in", "number"), Column("Refused", "number"), Column("Failed", "number"),
             Column("Last seen", "date")],
            (
                [name(row.name), at_least(row.count, row.at_most), bar(row.count, listing.total), number(row.let_in),
                 f"{number(row.refused)} ({share(row.refused, row.count)})", number(row.failed), date(row.last)]
                for row in listing.rows[:ROWS]
            ),
        ),
        left_out(listing.names - ROWS, "customer", listing.total - sum(row.count for row in listing.rows[:ROWS])),
        overflow(listing, "customers"),
    )  # fmt: skip


def regions(report: Report) -> Html:
    """Where requests were answered."""
    listing = report.regions
    if not listing.rows:
        text = "This record names no region: REGION is not set, and nothing is held to one."
        return section("regions", "Regions", element("p", text))
    mismatch = sum(row.refused for row in report.reasons.rows if row.name == "region_mismatch")
    belong = (
        "1 was refused because its token belongs"
        if mismatch == 1
        else (f"{number(mismatch)} were refused because their tokens belong")
    )
    elsewhere = f"; {belong} to another" if mismatch else ""
    return section(
        "regions",
        "Regions",
        table(
            f"{plural(listing.total, 'request')} by the region that answered{elsewhere}",
            [
                Column("Region", "main"),
                *(Column(title, "number") for title in ("Requests", "Let in", "Refused", "Failed")),
            ],
            (
                [name(row.name), *map(number, (row.count, row.let_in, row.refused, row.failed))]
                for row in listing.rows[:ROWS]
            ),
        ),
        left_out(listing.names - ROWS, "region"),
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
            ([name(row.name), at_least(row.count, row.at_most)] for row in listing.rows[:ROWS]),
        ),
        left_out(listing.names - ROWS, "table"),
    )
