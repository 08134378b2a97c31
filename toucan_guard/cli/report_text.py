"""The report in a terminal: the same sentences as on the page, and the tables that fit."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from toucan_guard.audit.report.figures import Report
from toucan_guard.audit.report.headline import counting, covered, headline, tiles, verdict
from toucan_guard.audit.report.notices import many_failed, retirable
from toucan_guard.audit.report.sections import because, told_seals, told_siteless
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
_WIDTH: Final = 48  # blocks of the lines over time
_TIE: Final = "\N{NO-BREAK SPACE}"
_LEFT_OUT: Final = frozenset({"what to do", "first seen", "last seen", "seen", "days ago"})  # on a narrow terminal
_COUNTS: Final = frozenset({"requests", "let in", "refused", "failed", "refused anyway", "days ago"})
_LONGEST_LINE: Final = 110  # of prose


def tell(report: Report) -> None:
    """Print the report."""
    state = verdict(report)
    mark, style = _MARKS[state.level]
    _tell(f"Embed security report · {covered(report)}", "dim")
    _tell(f"{headline(report)}.", "bold")
    _tell(f"{mark} {state.title}. {state.text}".rstrip(), style)
    say("")
    # A number stays beside its name.
    tied = [f"{tile.label} {tile.value} ({tile.more})".replace(" ", _TIE) for tile in tiles(report)]
    _tell(" · ".join(tied))
    _tell(counting(report), "dim")
    _over_time(report)
    for notice in report.notices:
        mark, style = _MARKS[notice.level]
        say("")
        _tell(f"{mark} {_plain(notice.title)}", style)
        _tell(f"  {_plain(notice.text)}")
        _tell(f"  {_plain(notice.advice)}", "dim")
    _reasons(report)
    _sites(report)
    _scopes(report)
    _keys(report)
    _customers(report)
    _others(report)
    say("")
    say("Is this record genuine?", "bold")
    _tell(told_seals(report.integrity) if report.source.lines else "There is no line to look at.")
    for finding in report.integrity.findings[:_ROWS]:
        place = f"{finding.place}: " if finding.place else ""
        _tell(f"  {place}{finding.kind.replace('_', ' ')}. {finding.sentence}", "red" if finding.tampering else "")
    more = report.integrity.more + max(0, len(report.integrity.findings) - _ROWS)
    if more:
        say(f"  … and {number(more)} more.")


def _over_time(report: Report) -> None:
    slots, unit = report.timeline, report.unit
    if len(slots) < 2 or not report.totals.requests:
        return
    say("")
    lines = [("Requests", [slot.requests for slot in slots]), ("Refusals", [slot.refused for slot in slots])]
    if many_failed(report):
        lines.append(("Failures", [slot.failed for slot in slots]))
    for title, values in lines:
        _tell(f"{title:<9} {_line(values)} {number(max(values))} at most in {'an' if unit == 'hour' else 'a'} {unit}")
    each = _slots_in_a_block(len(slots))
    block = f"each block is {plural(each, unit) if each > 1 else ('an ' if unit == 'hour' else 'a ') + unit}"
    _tell(f"{'':<9} from {minute(slots[0].start)}; {block}", "dim")


def _slots_in_a_block(slots: int) -> int:
    return -(-slots // _WIDTH)


def _line(values: Sequence[int]) -> str:
    """Values as blocks, several to a block where there are many."""
    each = _slots_in_a_block(len(values))
    sums = [sum(values[start : start + each]) for start in range(0, len(values), each)]
    highest = max(sums) or 1
    return "".join(_BLOCKS[-(-value * 7 // highest)] for value in sums)


def _reasons(report: Report) -> None:
    for what, counts, whole in (
        ("refused", {row.name: row.refused for row in report.reasons.rows}, report.totals.refused),
        ("failed", {row.name: row.failed for row in report.reasons.rows}, report.totals.failed),
    ):
        names = sorted((name for name, count in counts.items() if count), key=lambda name: -counts[name])
        _table(
            f"Why requests {'were refused' if what == 'refused' else what}",
            (what, "reason", "what happened", "what to do"),
            (
                (
                    f"{number(counts[name])} ({share(counts[name], whole)})",
                    name,
                    _plain(told_of(name).meaning),
                    _plain(told_of(name).mend),
                )
                for name in names[:_ROWS]
            ),
            len(names) - _ROWS,
        )


def _sites(report: Report) -> None:
    refused = [row for row in report.sites.rows if row.refused]
    _table(
        "Refusals by web site",
        ("requests", "refused", "web site", "because", "first seen", "last seen"),
        (
            (
                at_least(row.count, row.at_most),
                number(row.refused),
                row.name,
                _plain(because(row)[0]),
                date(row.first),
                date(row.last),
            )
            for row in refused[:_ROWS]
        ),
        len(refused) - _ROWS,
    )
    _tell(told_siteless(report), "dim")


def _scopes(report: Report) -> None:
    _table(
        "What tokens open, the widest first",
        ("let in", "opens", "rows limited by", "customers"),
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
        f"{plural(report.totals.with_token, 'request')} with a valid token, by key; those unused for longest first",
        ("key", "kind", "last used", "days ago", "requests", "let in", "refused", "failed", "state"),
        (
            (
                key.key_id or "a key without a name",
                "API key" if key.api_key else "signing key",
                date(key.last),
                number(key.unused_days),
                number(key.used),
                number(key.let_in),
                number(key.refused),
                number(key.failed),
                "can be retired" if retirable(key) else "in use",
            )
            for key in report.keys[:_ROWS]
        ),
        len(report.keys) - _ROWS,
    )


def _customers(report: Report) -> None:
    for title, one, listing in (("Customers", "customer", report.tenants), ("Regions", "region", report.regions)):
        _table(
            f"{title}, by {plural(listing.total, 'request')}{' with a valid token' if one == 'customer' else ''}",
            ("requests", "let in", "refused", "failed", one, "last seen"),
            (
                (
                    at_least(row.count, row.at_most),
                    number(row.let_in),
                    number(row.refused),
                    number(row.failed),
                    row.name,
                    date(row.last),
                )
                for row in listing.rows[:_ROWS]
            ),
            listing.names - _ROWS,
        )


def _others(report: Report) -> None:
    _table(
        f"Rules on trial (REPORT_ONLY): {plural(report.totals.would_refuse, 'request')} let in on trial",
        ("let in", "refused anyway", "reason", "what happened"),
        (
            (number(row.let_in), number(row.refused), row.name, _plain(told_of(row.name).meaning))
            for row in report.report_only.rows[:_ROWS]
        ),
        report.report_only.names - _ROWS,
    )
    totals, source = report.totals, report.source
    say("")
    say("Failures and gaps", "bold")
    _tell(
        f"{plural(totals.failed, 'request')} failed; {plural(totals.cut, 'answer')} broke off; "
        f"{plural(totals.closed, 'live feed or stream', 'live feeds or streams')} ended with their token; "
        f"{plural(totals.dropped, 'entry', 'entries')} not written down; "
        f"{plural(source.bad, 'line')} of {number(source.lines)} could not be read"
        + (f"; {plural(len(source.unread), 'file')} could not be read." if source.unread else ".")
    )
    for line in source.bad_lines[:5]:
        _tell(f"  {line.file}:{line.number}: {line.problem}")


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], more: int = 0) -> None:
    """A table of what stands in the record, taken literally; nothing where there is no row."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    # On a narrow terminal, what happened has to do: the page says the rest.
    shown = [column not in _LEFT_OUT or out.width >= _WIDE for column in columns]
    for column in compress(columns, shown):
        counts = column in _COUNTS
        table.add_column(
            column,
            justify="right" if counts else "left",
            overflow="fold",
            no_wrap=counts,
            # A name is broken last.
            max_width=24 if column == "because" and out.width < _WIDE else None,
        )
    for row in rows:
        table.add_row(*(Text(harmless(cell)) for cell in compress(row, shown)))
    if not table.row_count:
        return
    say("")
    say(title, "bold")
    out.print(table)
    if more > 0:
        say(f"… and {number(more)} more.")


def _tell(text: str, style: str = "") -> None:
    """A sentence or two, broken between words; the lines after the first stand under its words. Nothing for none."""
    indent = " " * (len(text) - len(text.lstrip(f" {''.join(mark for mark, _ in _MARKS.values())}")))
    width = max(40, min(out.width, _LONGEST_LINE))
    for line in textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    ):
        say(line.replace(_TIE, " "), style)


def _plain(text: str) -> str:
    return text.replace("`", "")
