"""``toucan-guard audit report``: what the record says, for people who are no developers."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from toucan_guard.audit.report.figures import Report
from toucan_guard.audit.report.finish import finish
from toucan_guard.audit.report.gather import Gatherer
from toucan_guard.audit.report.hours import text_of_moment
from toucan_guard.audit.report.page import page
from toucan_guard.audit.report.since import read_since
from toucan_guard.cli.audit import Expected, Files, KeyFiles, chain_verifier
from toucan_guard.cli.output import FINDING, complain, say_json, wrong_use
from toucan_guard.cli.record_files import RecordFiles, identity
from toucan_guard.cli.report_text import tell

_AHEAD = timedelta(days=1)  # clocks differ; a day is no clock


def report(  # noqa: PLR0917 - the parameters are the command's options
    files: Files,
    since: Annotated[
        str | None, typer.Option("--since", help="Count from here on: 2026-10-01, 30d, 4w. Times are UTC.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the report as one page to this file.")] = None,
    key_file: KeyFiles = None,
    expect: Expected = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="Other programs write into the same stream.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """Say what the guard let through and refused, what it points out, and whether the record is genuine.

    Leaves with 1 where somebody has to act: the record was changed, has holes, or fits no key that was given, or an
    API key is out; else with 2 where a file cannot be read."""
    now = datetime.now(UTC)
    start = None if since is None else read_since(since, now=now)
    if since is not None and start is None:
        wrong_use(f"--since {since!r} is no time: write a day such as 2026-10-01, or 30d for the last thirty days")
    if html is not None:
        _look_at(html, files)
    verifier = chain_verifier(key_file, expect, mixed=mixed)
    gatherer = Gatherer(since=start, until=text_of_moment(now + _AHEAD), files=map(str, files))
    record = RecordFiles(files)
    for name, number, line in record.lines():
        for counted in verifier.feed(line, file=name, number=number):
            gatherer.feed(counted, file=name, number=number)
    for name, why in record.unread.items():
        verifier.cannot_read(name, why, damaged=name in record.damaged)
        gatherer.cannot_read(name, why)
    made = finish(gatherer, verifier.finish(), made=now)
    if html is not None:
        _write(html, made)
    if as_json:
        say_json(as_value(made))
    else:
        tell(made)
        if html is not None:
            complain(f"The page is {html}", style="")
    if made.newest is None:
        wrong_use("There is no audit event in this record.")
    if any(notice.level == "act" for notice in made.notices):
        raise typer.Exit(FINDING)
    if record.unread:
        wrong_use("The report is without what stands in a file that cannot be read.")


def as_value(made: Report) -> dict[str, Any]:
    """The report for programs; names in it may grow, they do not change."""
    value = {"report": 1, **asdict(made)}
    value["totals"] |= {"requests": made.totals.requests, "let_in": made.totals.let_in}
    return value


def _look_at(html: Path, files: list[Path]) -> None:
    """Find out before hours of reading whether the page can be written, and that it overwrites no record."""
    if html.is_dir() or not html.parent.is_dir():
        wrong_use(f"--html {html}: this is {'a folder' if html.is_dir() else 'in no folder that there is'}")
    if identity(html) in map(identity, files):
        wrong_use(f"--html {html}: this is a file of the record, which would be overwritten")


def _write(html: Path, made: Report) -> None:
    try:
        html.write_text(page(made), encoding="utf-8")
    except OSError as error:
        wrong_use(f"--html {html}: the page cannot be written ({error.strerror})")
