"""``toucan-guard audit report``, as a security officer runs it every month."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toucan_guard.cli import app
from toucan_guard.cli.output import out
from toucan_guard.core.audit_line import encode_line

KEY = "a key of the chain that nobody guesses, 0123456789"


@pytest.fixture
def report() -> Callable[..., Any]:
    def run(*arguments: object, stdin: bytes | None = None) -> Any:
        return CliRunner().invoke(app, ["audit", "report", *map(str, arguments)], input=stdin)

    return run


def _flat(text: str) -> str:
    """What a terminal of 80 columns shows, as one line."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def lines(traffic: Any) -> list[bytes]:
    return list(traffic.month(1_500))


@pytest.fixture
def record(tmp_path: Path, lines: list[bytes]) -> Path:
    path = tmp_path / "october.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def test_a_month_in_the_terminal(report: Any, record: Path) -> None:
    told = report(record)
    assert told.exit_code == 0, told.output
    for words in ("1 to 31 October 2026", "Nothing needs action", "A burst of refusals", "Northwind Air",
                  "can be retired", "Is this record genuine?", "Yes, as far as it goes"):  # fmt: skip
        assert words in _flat(told.stdout)
    assert "\x1b" not in told.stdout


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_wider_than_the_terminal(
    report: Any, record: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "_width", columns)
    monkeypatch.chdir(record.parent)  # a path stays in one piece, however long
    told = report(record.name).stdout
    assert [line for line in told.split("\n") if len(line) > columns] == []
    assert "What to do".lower() in told if columns == 120 else "what to do" not in told
    # Whole words: no sentence is broken by the terminal, and a name of a usual length keeps to its line.
    for words in ("What helps: let the page get a new one in time.", "https://portal.northwind.example"):
        assert words in _flat(told)


def test_columns_are_called_by_what_they_count(report: Any, record: Path) -> None:
    told = report(record).stdout
    heads = [line for line in told.split("\n") if re.search("requests .* refused  |requests +refused", line)]
    assert len(heads) == 4, "sites, keys, customers and regions say what was refused of all requests"
    (scopes,) = [line for line in told.split("\n") if line.startswith("let in   opens")]
    assert "requests" not in scopes


def test_a_month_for_programs(report: Any, record: Path) -> None:
    made = report(record, "--json")
    value = json.loads(made.stdout)
    assert (made.exit_code, value["report"], value["integrity"]["state"]) == (0, 1, "intact")
    assert value["totals"]["requests"] == sum(
        value["totals"][name] for name in ("allowed", "refused", "would_refuse", "failed")
    )
    assert value["totals"]["let_in"] == value["totals"]["allowed"] + value["totals"]["would_refuse"]
    assert {notice["kind"] for notice in value["notices"]} >= {"burst", "unused_key"}


def test_a_store_that_does_not_answer_refuses_nobody(report: Any, traffic: Any, tmp_path: Path) -> None:
    day = datetime(2026, 10, 1, tzinfo=UTC)
    closed = {"outcome": "deny", "reason": "store_unavailable", "status": 503, "region": "eu-west"}
    (tmp_path / "log").write_bytes(b"".join(encode_line(traffic._event(day, **said)) for said in (closed, closed, {})))
    told, value = report(tmp_path / "log"), json.loads(report(tmp_path / "log", "--json").stdout)
    for words in ("3 requests came in: none of them were refused, and 2 (66.7%) failed", "Why requests failed",
                  "The service was not ready 2 times"):  # fmt: skip
        assert words in _flat(told.stdout)
    assert "Why requests were refused" not in told.stdout
    assert (value["totals"]["refused"], value["totals"]["failed"]) == (0, 2)
    (region,) = value["regions"]["rows"]
    assert [region[name] for name in ("count", "let_in", "refused", "failed")] == [2, 0, 0, 2]


def test_a_month_as_a_page(report: Any, record: Path, tmp_path: Path) -> None:
    html = tmp_path / "report.html"
    made = report(record, "--html", html)
    assert made.exit_code == 0
    assert "Northwind Air" in made.stdout, "the page comes beside the summary"
    assert str(html) in made.stderr.replace("\n", "")
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_files_in_any_order_and_compressed_and_twice(report: Any, lines: list[bytes], tmp_path: Path) -> None:
    first, second = tmp_path / "b.jsonl.gz", tmp_path / "a.jsonl"
    first.write_bytes(gzip.compress(b"".join(lines[:700])))
    second.write_bytes(b"".join(lines[700:]))
    (tmp_path / "again.jsonl").symlink_to(second)
    value = json.loads(report(second, first, tmp_path / "again.jsonl", "--json").stdout)
    assert value["source"]["lines"] == len(lines)
    assert value["integrity"]["state"] == "intact"


def test_since_a_day(report: Any, record: Path) -> None:
    value = json.loads(report(record, "--since", "2026-10-20", "--json").stdout)
    assert value["since"] == "2026-10-20T00:00:00.000Z"
    assert value["timeline"][0]["start"] == "2026-10-20T00:00:00Z"
    assert 0 < value["totals"]["requests"] < value["source"]["before"]
    assert value["integrity"]["state"] == "intact", "the seals of all lines are checked"


@pytest.mark.parametrize("since", ["30d", "12h", "4w", "9999w", "2026-10-01T08:00:00+02:00", " 2026-10-01 "])
def test_since_is_understood(report: Any, record: Path, since: str) -> None:
    assert report(record, "--since", since, "--json").exit_code == 0


def test_a_time_in_which_nothing_happened_says_so(report: Any, record: Path) -> None:
    told = report(record, "--since", "1h")
    assert told.exit_code == 0
    assert "Nothing is on record for this time" in told.stdout
    assert "The newest line is of 31 October 2026" in _flat(told.stdout)


@pytest.mark.parametrize(
    "since", ["yesterday", "30", "99999999d", "2026-13-01", "", "-1d"], ids=lambda since: since or "nothing"
)
def test_since_is_not_understood(report: Any, record: Path, since: str) -> None:
    told = report(record, f"--since={since}")
    assert told.exit_code == 2
    assert "2026-10-01, or 30d" in told.stderr.replace("\n", " ")


def test_evidence_of_tampering_leaves_with_1(report: Any, lines: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(lines[:300] + lines[301:]))
    told = report(path)
    assert told.exit_code == 1
    assert "One thing needs somebody to act" in told.stdout
    assert "The record was changed after it was written" in told.stdout


def test_a_sealed_record_wants_its_key(report: Any, traffic: Any, tmp_path: Path) -> None:
    path, key = tmp_path / "audit.jsonl", tmp_path / "key"
    path.write_bytes(b"".join(traffic.month(200, key=KEY.encode())))
    key.write_text(KEY + "\n")
    without, with_key = report(path), report(path, "--key-file", key)
    assert (without.exit_code, with_key.exit_code) == (0, 0)
    assert "was not given" in _flat(without.stdout)
    assert "whoever does not hold it could not have written a line" in _flat(with_key.stdout)
    assert KEY not in with_key.output
    key.write_text("short")
    assert report(path, "--key-file", key).exit_code == 2


def test_keys_that_were_changed_are_given_together(
    report: Any, traffic: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key = tmp_path / "audit.jsonl", tmp_path / "key"
    changed = KEY[::-1]
    path.write_bytes(b"".join([*traffic.month(50, key=KEY.encode()), *traffic.month(50, key=changed.encode())]))
    key.write_text(KEY + "\n")
    one = report(path, "--key-file", key)
    assert one.exit_code == 1
    assert "Lines of the record fit no key that was given" in _flat(one.stdout)
    monkeypatch.setenv("TOUCAN_GUARD_AUDIT_CHAIN_KEY", changed)
    both = report(path, "--key-file", key)
    assert both.exit_code == 0
    assert "each as it was written" in _flat(both.stdout)


def test_a_line_that_somebody_else_holds_must_be_there(report: Any, lines: list[bytes], tmp_path: Path) -> None:
    path, last = tmp_path / "audit.jsonl", json.loads(lines[-1])
    path.write_bytes(b"".join(lines[:-1]))
    anchor = f"{last['chain']}:{last['seq']}:{last['hash']}"
    assert report(path).exit_code == 0, "the end of an open chain can be cut off unseen"
    assert report(path, "--expect", anchor).exit_code == 1
    assert report(path, "--expect", "x").exit_code == 2


@pytest.mark.parametrize(
    "damage",
    [lambda packed: packed[:-9], lambda packed: packed[:200] + b"?" * 50 + packed[250:]],
    ids=["its end is gone", "its middle is another"],
)
def test_a_compressed_file_that_is_damaged_is_told(
    report: Any, lines: list[bytes], tmp_path: Path, damage: Any
) -> None:
    path = tmp_path / "audit.jsonl.gz"
    path.write_bytes(damage(gzip.compress(b"".join(lines))))
    told = report(path)
    assert told.exit_code == 2
    assert "cannot be read" in told.stderr.replace("\n", " ")


def test_what_was_read_of_a_damaged_file_is_not_called_as_it_was_written(
    report: Any, lines: list[bytes], tmp_path: Path
) -> None:
    path, html = tmp_path / "audit.jsonl.gz", tmp_path / "report.html"
    altered = b"".join(lines).replace(b'"outcome":"deny"', b'"outcome":"allow"', 1)
    path.write_bytes(gzip.compress(altered)[:-8] + bytes(8))  # a checksum that does not fit
    told = report(path, "--html", html)
    assert told.exit_code == 2
    for shown in (_flat(told.stdout), html.read_text(encoding="utf-8")):
        assert "are as they were written, but for what is named as damaged. Of the rest nothing is known" in shown
        assert "Lines of a damaged one were counted as they were read, and are not all as they were written." in shown


@pytest.mark.parametrize(
    "content", [b"", b"INFO: started\nINFO: stopped\n"], ids=["an empty file", "another program's"]
)
def test_a_file_that_is_no_record_is_wrong_use(report: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log").write_bytes(content)
    told = report(tmp_path / "log")
    assert told.exit_code == 2
    assert "There is no audit event in this record" in told.stderr
    assert ("There is no line to look at" in told.stdout) is (content == b"")
    assert ("carry no seals" in told.stdout) is (content != b"")


def test_requests_that_need_no_token_are_told_apart(report: Any, traffic: Any, tmp_path: Path) -> None:
    day = datetime(2026, 10, 1, tzinfo=UTC)
    events = [traffic._event(day), traffic._event(day, exempt=True), traffic._event(day, exempt=True)]
    (tmp_path / "log").write_bytes(b"".join(map(encode_line, events)))
    told = report(tmp_path / "log")
    assert "1 request came in, and was not refused" in told.stdout
    assert "Counted apart, as they show nothing: 2 requests (to paths that need no token)." in _flat(told.stdout)


def test_a_file_that_is_not_there_is_wrong_use(report: Any, tmp_path: Path) -> None:
    told = report(tmp_path / "none.jsonl")
    assert told.exit_code == 2
    assert "cannot be read" in told.stderr.replace("\n", " ")


def test_a_file_that_cannot_be_read_hides_no_other(report: Any, lines: list[bytes], tmp_path: Path) -> None:
    first, second, html = tmp_path / "1.jsonl", tmp_path / "2.jsonl.gz", tmp_path / "report.html"
    first.write_bytes(b"".join(lines[:700]))
    second.write_bytes(gzip.compress(b"".join(lines[700:]))[:-200])
    told = report(tmp_path / "none.jsonl", second, first, "--html", html)
    assert told.exit_code == 2
    assert "2 files could not be read" in told.stdout
    assert "2 files could not be read" in html.read_text(encoding="utf-8")
    assert "Not all of it is proved" in _flat(told.stdout)
    value = json.loads(report(tmp_path / "none.jsonl", second, first, "--json").stdout)
    assert [Path(file["file"]).name for file in value["source"]["unread"]] == ["none.jsonl", "2.jsonl.gz"]
    assert 700 < value["source"]["lines"] < len(lines)
    assert value["integrity"]["state"] == "unchecked"
    assert {notice["kind"] for notice in value["notices"]} >= {"unread_file", "burst"}
    assert "unchecked" not in {notice["kind"] for notice in value["notices"]}, "the file is a record, as far as we know"
    first.write_bytes(b"".join(lines[:300] + lines[301:]))
    assert report(first, tmp_path / "none.jsonl").exit_code == 1, "where somebody has to act, that counts"


def test_a_page_never_overwrites_the_record(report: Any, record: Path, tmp_path: Path) -> None:
    before = record.read_bytes()
    link = tmp_path / "report.html"
    link.symlink_to(record)
    for path in (record, link):
        told = report(record, "--html", path)
        assert told.exit_code == 2
        assert "would be overwritten" in told.stderr.replace("\n", " ")
    assert record.read_bytes() == before


@pytest.mark.parametrize("where", [".", "no/such/folder/report.html"])
def test_a_page_that_cannot_be_written_is_told_before_reading(
    report: Any, record: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = report(record, "--html", where)
    assert (told.exit_code, told.stdout) == (2, "")


def test_names_out_of_the_record_do_nothing_to_the_terminal(report: Any, traffic: Any, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    attacks = [
        "\x1b[2J\x1b]0;title\x07",
        "[red]not red[/red] [link=https://evil.example]x[/link]",
        "\u202etxet",
        "a\rb\x00",
    ]
    path.write_bytes(b"".join(line.rstrip(b"\n") + b"\n" for line in traffic.naughty(attacks)))
    told = report(path, "--mixed")
    assert told.exit_code == 0, told.output
    assert all(line.isprintable() for line in told.stdout.split("\n"))
    assert "[link=https://evil.example]" in told.stdout.replace("\n", ""), "taken literally"
