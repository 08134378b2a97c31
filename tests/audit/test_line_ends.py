"""Line ends that were changed on the way: one sentence for a whole file, and evidence where only some were."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from toucan_guard.audit.chain import Chain
from toucan_guard.audit.verdict import Verdict
from toucan_guard.core.audit_event import close_event
from toucan_guard.core.audit_line import dump_json

Chained = Callable[..., list[bytes]]
Judge = Callable[..., Verdict]


def _from_windows(lines: list[bytes], end: bytes = b"\r\n") -> list[bytes]:
    return [line[:-1] + end if line.endswith(b"\n") else line for line in lines]


def _told(verdict: Verdict) -> list[tuple[str, int]]:
    return [(finding.kind, finding.number) for finding in verdict.findings]


@pytest.mark.parametrize("end", [b"\r\n", b"\r\r\n"], ids=["once", "twice"])
def test_a_file_from_windows_is_told_once(end: bytes, chained: Chained, judge: Judge) -> None:
    lines = chained(200)
    verdict = judge(_from_windows(lines, end))
    assert (verdict.tampered, _told(verdict), verdict.lines) == (False, [("line_ends", 1)], 202)
    last = _from_windows(lines, end)[-1]
    for cut in (last[:-1], last.rstrip()):
        assert _told(judge([*_from_windows(lines[:-1], end), cut])) == [("line_ends", 1)]
    # It is the same record still.
    assert {finding.kind for finding in judge({"a": lines, "b": _from_windows(lines, end)}).findings} == {
        "given_twice", "line_ends"
    }  # fmt: skip


def test_what_was_changed_in_it_is_told_as_ever(chained: Chained, judge: Judge) -> None:
    lines = _from_windows(chained(20))
    assert _told(judge([*lines[:5], lines[5].replace(b"allow", b"error"), *lines[6:]])) == [
        ("line_ends", 1), ("altered", 6)
    ]  # fmt: skip
    assert _told(judge(lines[:5] + lines[6:])) == [("line_ends", 1), ("dropped", 6)]
    assert _told(judge([*lines[:5], b"x\r\n", *lines[5:]])) == [("line_ends", 1), ("inserted", 6)]


@pytest.mark.parametrize("some", [slice(3, 4), slice(0, 6), slice(1, None), slice(None, -1)], ids=str)
def test_where_only_some_lines_end_like_that_the_file_was_edited(some: slice, chained: Chained, judge: Judge) -> None:
    lines = chained(20)
    lines[some] = _from_windows(lines[some])
    assert _told(judge(lines)) == [("altered", (some.start or 0) + 1)]


def test_a_line_that_was_cut_and_empty_lines(judge: Judge) -> None:
    chain = Chain(None, settings=None, dump=dump_json)
    event = {"schema": 1, "event": "decision"}
    lines = [chain.link(chain.begin()), chain.link(event)]
    cut = chain.link(event)[:80]
    chain.cut(80)
    lines += [cut + b"\n", b"\n", b"\n", chain.link(event), chain.link(close_event(now=0, dropped=0))]
    assert _told(judge(lines)) == [("blank", 4)]
    verdict = judge(_from_windows(lines))
    assert (verdict.tampered, _told(verdict)) == (False, [("line_ends", 1), ("blank", 4)])
    assert verdict.findings[1].sentence == "2 empty lines, this is the first. Nothing is lost by it."


def test_other_programs_may_end_their_lines_as_they_like(chained: Chained, judge: Judge) -> None:
    assert judge([b"INFO\r\n", *chained(5), b"\xef\xbb\xbfINFO\r\n"], mixed=True).findings == ()


def test_a_byte_order_mark_is_told(chained: Chained, judge: Judge) -> None:
    lines = chained(5)
    assert _told(judge([b"\xef\xbb\xbf" + lines[0], *lines[1:]])) == [("line_ends", 1)]
    assert judge([lines[0], b"\xef\xbb\xbf" + lines[1], *lines[2:]]).tampered


def test_a_file_of_something_else_may_end_its_lines_as_it_likes(chained: Chained, judge: Judge) -> None:
    """A table of somebody's, or no text at all, that was given by mistake."""
    verdict = judge({"audit.jsonl": chained(3), "table.csv": [b"a;b\r\n", b"1;2\n", b"3;4\r\n"]})
    assert (verdict.tampered, verdict.unproved) == (False, True)
    assert [(finding.kind, finding.file) for finding in verdict.findings] == [("foreign", "table.csv")]
