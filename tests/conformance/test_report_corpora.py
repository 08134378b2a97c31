"""The Big List of Naughty Strings through the audit report: in the terminal, as JSON and as a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from toucan_guard.cli import app


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def _tags(html: str) -> list[tuple[str, tuple[str, ...]]]:
    reader = _Tags()
    reader.feed(html)
    reader.close()
    return reader.found


def test_no_naughty_string_gets_through_the_report(
    traffic: Any, tmp_path: Path, load_corpus: Callable[[str], Any], conformance_report: Any
) -> None:
    strings = load_corpus("blns.json")
    kinds = {tag for tag, _ in _tags(_made(traffic, tmp_path, ["harmless.name"])[0])}
    agreed = 0
    # In small lots, so that every string is shown and none is counted together with others.
    for start in range(0, len(strings), 12):
        lot = strings[start : start + 12]
        html, told, report = _made(traffic, tmp_path, lot)
        found = _tags(html)
        assert {tag for tag, _ in found} <= kinds, lot
        assert not [names for _, names in found for name in names if name.startswith("on") or name in ("src", "style")]
        assert all(line.isprintable() for line in told.split("\n")), lot
        assert report["totals"]["requests"] == 4 * len(lot)
        assert report["source"]["bad"] == len(lot)
        # Long lines are shortened, and the names in them: each is there, at least with its beginning.
        names = [row["name"].removesuffix("…") for row in report["tenants"]["rows"]]
        assert all(any(string.startswith(name) for name in names) for string in lot if string), lot
        agreed += len(lot)
    conformance_report.add("audit report, blns.json", len(strings), agreed)


def _made(traffic: Any, tmp_path: Path, strings: list[str]) -> tuple[str, str, Any]:
    """The page, what the terminal shows, and the report for programs."""
    record, html = tmp_path / "audit.jsonl", tmp_path / "report.html"
    record.write_bytes(b"".join(line.rstrip(b"\n").replace(b"\n", b" ") + b"\n" for line in traffic.naughty(strings)))
    told = CliRunner().invoke(app, ["audit", "report", "--mixed", str(record), "--html", str(html)])
    made = CliRunner().invoke(app, ["audit", "report", "--mixed", str(record), "--json"])
    assert (told.exit_code, made.exit_code) == (0, 0), told.output
    return html.read_text(encoding="utf-8"), told.stdout, json.loads(made.stdout)
