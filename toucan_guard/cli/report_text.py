"""The report in a terminal: the same sentences as on the page, and the tables that fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from toucan_guard.audit.report.figures import Report
from toucan_guard.audit.report.headline import covered, headline, tiles, verdict
from toucan_guard.audit.report.notices import retirable
from toucan_guard.audit.report.sections import told_seals
from toucan_guard.audit.report.words import (
    at_least,
    date,
    duration,
    harmless,
    listed,
    minute,
    number,
    plural,
    share,
    told_of,
)
from toucan_guard.cli.output import out, say

_MARKS: Final = {"act": ("✗", "red"), "look": ("!", "yellow"), "calm": ("✓", "green")}
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_ROWS: Final = 10
_WIDE: Final = 110
_WIDTH: Final = 62  # columns of the lines over time


def tell(report: Report) -> None:
    """Print the report."""
    state = verdict(report)
    mark, style = _MARKS[state.level]
    say(f"Embed security report · {covered(report)}", "dim")
    say(f"{headline(report)}.", "bold")
    say(f"{mark} {state.title}. {state.text}".rstrip(), style)
    say("")
    say(" · ".join(f"{tile.label} {tile.value} ({tile.more})" for tile in tiles(report)))
    _over_time(report)
    for notice in report.notices:
        mark, style = _MARKS[notice.level]
        say("")
        say(f"{mark} {_plain(notice.title)}", style)
        say(f"  {_plain(notice.text)}")
        say(f"  {_plain(notice.advice)}", "dim")
    _reasons(report)
    _sites(report)
    _scopes(report)
    _keys(report)
    _customers(report)
    _others(report)
    say("")
    say("Is this record genuine?", "bold")
    say(told_seals(report.integrity) if report.source.lines else "There is no line to look at.")
    for finding in report.integrity.findings[:_ROWS]:
        place = f"{finding.place}: " if finding.place else ""
        say(f"  {place}{finding.kind.replace('_', ' ')}. {finding.sentence}", "red" if finding.tampering else "")
    more = report.integrity.more + max(0, len(report.integrity.findings) - _ROWS)
    if more:
        say(f"  … and {number(more)} more.")


def _over_time(report: Report) -> None:
    if len(report.timeline) < 2:
        return
    say("")
    for title, values in (
        ("Requests", [slot.requests for slot in report.timeline]),
        ("Refusals", [slot.refused for slot in report.timeline]),
    ):
        line = _line(values)
        say(f"{title:<9} {line} at most {number(max(values))} {'an' if report.unit == 'hour' else 'a'} {report.unit}")


def _line(values: Sequence[int]) -> str:
    """Values as blocks, several to a block where there are many."""
    each = -(-len(values) // _WIDTH)
    sums = [sum(values[start : start + each]) for start in range(0, len(values), each)]
    highest = max(sums) or 1
    return "".join(_BLOCKS[-(-value * 7 // highest)] for value in sums)


def _reasons(report: Report) -> None:
    refused = sorted((row for row in report.reasons.rows if row.refused), key=lambda row: -row.refused)
    _table(
        "Why requests were refused",
        ("refused", "reason", "what happened", "what to do"),
        (
            (
                f"{number(row.refused)} ({share(row.refused, report.totals.refused)})",
                row.name,
                _plain(told_of(row.name).meaning),
                _plain(told_of(row.name).mend),
            )
            for row in refused[:_ROWS]
        ),
        len(refused) - _ROWS,
    )


def _sites(report: Report) -> None:
    refused = [row for row in report.sites.rows if row.refused]
    _table(
        "Web sites that were refused",
        ("refused", "requests", "web site", "mostly because", "first seen", "last seen"),
        (
            (
                number(row.refused),
                at_least(row.count, row.at_most),
                row.name,
                _plain(told_of(row.notes[0][0]).meaning) if row.notes else "",
                date(row.first),
                date(row.last),
            )
            for row in refused[:_ROWS]
        ),
        len(refused) - _ROWS,
    )


def _scopes(report: Report) -> None:
    _table(
        "What tokens open, the widest first",
        ("requests", "opens", "rows limited by", "customers"),
        (
            (
                at_least(scope.count, scope.at_most),
                " ".join(scope.grants) or "no object by name",
                ", ".join(scope.rls_attributes) or "nothing: every row",
                listed(list(scope.tenants), 2),
            )
            for scope in report.widest[:_ROWS]
        ),
        report.scopes_known - _ROWS,
    )
    _table(
        "The longest-lived tokens",
        ("time left", "token", "customer", "person", "key", "seen"),
        (
            (
                duration(token.seconds),
                token.token_id,
                token.tenant or "",
                token.subject or "",
                token.key_id or "",
                minute(token.time),
            )
            for token in report.long_tokens[:5]
        ),
    )


def _keys(report: Report) -> None:
    _table(
        "Keys by last use",
        ("key", "kind", "last used", "days ago", "requests", "state"),
        (
            (
                key.key_id or "a key without a name",
                "API key" if key.api_key else "signing key",
                date(key.last),
                number(key.unused_days),
                number(key.used),
                "can be retired" if retirable(key) else "in use",
            )
            for key in report.keys[:_ROWS]
        ),
        len(report.keys) - _ROWS,
    )


def _customers(report: Report) -> None:
    _table(
        "Customers",
        ("requests", "refused", "customer", "last seen"),
        (
            (at_least(row.count, row.at_most), number(row.refused), row.name, date(row.last))
            for row in report.tenants.rows[:_ROWS]
        ),
        report.tenants.names - _ROWS,
    )
    _table(
        "Regions",
        ("requests", "refused", "region"),
        ((number(row.count), number(row.refused), row.name) for row in report.regions.rows[:_ROWS]),
        report.regions.names - _ROWS,
    )


def _others(report: Report) -> None:
    _table(
        "Rules on trial (REPORT_ONLY)",
        ("would be refused", "reason", "what happened"),
        ((number(row.count), row.name, _plain(told_of(row.name).meaning)) for row in report.report_only.rows[:_ROWS]),
    )
    totals, source = report.totals, report.source
    say("")
    say("Failures and gaps", "bold")
    say(
        f"{plural(totals.failed, 'request')} failed, {plural(totals.cut, 'answer')} broke off, "
        f"{plural(totals.closed, 'socket')} closed on expiry, {plural(totals.dropped, 'decision')} not written down; "
        f"{plural(source.bad, 'line')} of {number(source.lines)} could not be read."
    )
    if totals.exempt:
        say(f"{plural(totals.exempt, 'request')} to paths that need no token; they are counted nowhere else.")
    for line in source.bad_lines[:5]:
        say(f"  {line.file}:{line.number}: {line.problem}")


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], more: int = 0) -> None:
    """A table of what stands in the record, taken literally; nothing where there is no row."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    # On a narrow terminal, what happened has to do: the page says the rest.
    shown = [column != "what to do" or out.width >= _WIDE for column in columns]
    for column in compress(columns, shown):
        counts = column in {"requests", "refused", "days ago", "would be refused"}
        table.add_column(column, justify="right" if counts else "left", overflow="fold", no_wrap=counts)
    for row in rows:
        table.add_row(*(Text(harmless(cell)) for cell in compress(row, shown)))
    if not table.row_count:
        return
    say("")
    say(title, "bold")
    out.print(table)
    if more > 0:
        say(f"… and {number(more)} more.")


def _plain(text: str) -> str:
    return text.replace("`", "")
