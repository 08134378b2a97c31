"""A record that is given twice: copies are recognised, counted once, and hide nothing that was done to an original."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toucan_guard.audit.chain import Chain
from toucan_guard.audit.verdict import Verdict
from toucan_guard.core.audit_chain import FIRST_PREVIOUS, previous_of, read_link
from toucan_guard.core.audit_event import close_event
from toucan_guard.core.audit_line import dump_json

KEY = b"correct-horse-battery-staple-0123456789"
OTHER_KEY = b"another-horse-battery-staple-9876543210"

Chained = Callable[..., list[bytes]]
Judge = Callable[..., Verdict]
Files = dict[str, list[bytes]]


@pytest.fixture(params=[None, KEY], ids=["without a key", "keyed"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    return request.param  # type: ignore[no-any-return]


def _evidence(verdict: Verdict) -> list[tuple[str, str, int]]:
    return [(finding.kind, finding.file, finding.number) for finding in verdict.findings if finding.tampering]


def _in_every_order(judge: Judge, files: Files, key: bytes | None, **more: Any) -> Verdict:
    """The verdict on some files, which is the same in whatever order they are given."""
    verdicts = [judge({name: files[name] for name in order}, key, **more) for order in itertools.permutations(files)]
    assert len({(v.tampered, v.unproved, v.lines, len(_evidence(v))) for v in verdicts}) == 1
    assert verdicts[0].tampered or len({v.copies for v in verdicts}) == 1
    return verdicts[0]


class TestCopies:
    def test_a_copy_beside_its_original(self, key: bytes | None, chained: Chained, judge: Judge) -> None:
        lines = chained(10, key=key)
        verdict = _in_every_order(judge, {"audit.log": lines, "audit.log.bak": lines}, key)
        assert (verdict.tampered, verdict.lines, verdict.copies) == (False, 12, 12)
        (finding,) = verdict.findings
        assert (finding.kind, finding.file, finding.number) == ("given_twice", "audit.log.bak", 1)
        assert finding.sentence == (
            "All 12 lines of this file stand in audit.log as well, byte for byte, and are counted once."
        )
        (chain,) = verdict.chains
        assert (chain.lines, chain.first, chain.last, chain.closed, chain.checked) == (12, 0, 11, True, True)

    @pytest.mark.parametrize(
        "files",
        [
            {"a": (0, 8), "b": (4, 12)},
            {"a": (0, 12), "b": (3, 7)},
            {"a": (0, 12), "b": (0, 1)},
            {"a": (0, 12), "b": (11, 12)},
            {"a": (0, 6), "b": (6, 12), "c": (3, 9)},
            {"a": (0, 6), "b": (6, 12), "c": (0, 6)},
            {"a": (0, 6), "b": (6, 12), "c": (6, 12)},
            {"a": (0, 6), "b": (6, 12), "c": (5, 7)},
            {"a": (0, 6), "b": (6, 12), "c": (0, 12)},
            {"a": (0, 5), "b": (4, 9), "c": (8, 12)},
        ],
        ids=str,
    )
    def test_copies_that_overlap_in_any_way(
        self, files: dict[str, tuple[int, int]], key: bytes | None, chained: Chained, judge: Judge
    ) -> None:
        lines = chained(10, key=key)
        given = {name: lines[first:last] for name, (first, last) in files.items()}
        verdict = _in_every_order(judge, given, key)
        assert (verdict.tampered, verdict.lines) == (False, 12)
        assert verdict.copies == sum(last - first for first, last in files.values()) - 12
        assert {finding.kind for finding in verdict.findings} == {"given_twice"}

    def test_copies_of_several_workers_and_who_has_what(self, judge: Judge, chained: Chained) -> None:
        dice = random.Random(3)
        workers = [chained(20) for _ in range(3)]
        lines: list[bytes] = []
        while workers := [worker for worker in workers if worker]:
            lines.append(dice.choice(workers).pop(0))
        files = {"a": lines[:30], "b": lines[30:], "c": lines[20:40], "d": lines[10:]}
        verdict = _in_every_order(judge, files, None)
        assert (verdict.tampered, verdict.lines, verdict.copies) == (False, 66, 20 + 56)
        assert [finding.sentence for finding in verdict.findings] == [
            "All 20 lines of this file stand in a and b as well, byte for byte, and are counted once.",
            "All 56 lines of this file stand in a and b as well, byte for byte, and are counted once.",
        ]
        many = {f"{number}": lines[number * 10 : number * 10 + 10] for number in range(6)} | {"all": lines}
        (finding,) = judge(many).findings
        assert finding.sentence.startswith("60 lines of 66 of this file stand in 0, 1, 2 and more files as well,")

    def test_a_copy_whose_key_was_not_given(self, chained: Chained, judge: Judge) -> None:
        lines = chained(10, key=KEY)
        for given_key in (None, OTHER_KEY):
            verdict = _in_every_order(judge, {"a": lines, "b": lines[2:]}, given_key)
            assert (verdict.tampered, verdict.unproved, verdict.lines, verdict.copies) == (False, True, 12, 10)
            # Two lines that differ are evidence, whoever has the key.
            other = lines[5].replace(b"allow", b"error")
            verdict = _in_every_order(judge, {"a": lines, "b": [*lines[:5], other, *lines[6:]]}, given_key)
            assert _evidence(verdict) == [("altered", "b", 6)]

    @pytest.mark.parametrize("length", [1, 30, 70, 150])
    @pytest.mark.parametrize("upto", [3, 11])
    def test_a_copy_that_was_made_while_a_line_was_written(
        self, upto: int, length: int, key: bytes | None, chained: Chained, judge: Judge
    ) -> None:
        lines = chained(10, key=key)
        copy = [*lines[:upto], lines[upto][:length]]
        verdict = _in_every_order(judge, {"a": lines, "b": copy}, key)
        assert (verdict.tampered, {finding.kind for finding in verdict.findings}) == (False, {"given_twice", "cut"})
        assert _in_every_order(judge, {"a": lines, "b": [*copy[:-1], copy[-1] + b"\n"]}, key).tampered
        if length > 46:  # the line's number is in it
            assert _in_every_order(judge, {"a": lines, "b": [*lines[: upto - 1], copy[-1]]}, key).tampered

    def test_what_a_killed_process_had_begun_stands_in_the_copy_too(self, chained: Chained, judge: Judge) -> None:
        lines = chained(6, close=False)
        files = {"a": [*lines[:-1], lines[-1][:90]], "b": [*lines[2:-1], lines[-1][:90]]}
        verdict = _in_every_order(judge, files, None)
        assert not verdict.tampered
        assert [finding.kind for finding in verdict.findings].count("cut") == 2

    @pytest.mark.parametrize("first", [0, 4], ids=["a chain's first line", "the first one after a rotation"])
    def test_a_copy_that_ends_within_a_line_of_a_chain_that_it_has_no_other_of(
        self, first: int, key: bytes | None, chained: Chained, judge: Judge
    ) -> None:
        """A process was started, or a file rotated, just before a backup was made of it."""
        one, two = chained(3, key=key), chained(6, key=key)
        earlier, log = two[:first], [*one, *two[first:]]
        for length in (1, 40, 100, len(log[5]) - 2):
            copy = [*one, log[5][:length]]
            verdict = _in_every_order(judge, {"earlier": earlier, "log": log, "copy": copy}, key)
            assert (verdict.tampered, verdict.lines) == (False, 13)
            assert [(f.kind, f.file, f.number) for f in verdict.findings] == [
                ("given_twice", "copy", 1),
                ("cut", "copy", 6),
            ]
            for claims in (b'{"chain":"x', log[6][:100]):  # it does not go on like this
                verdict = _in_every_order(judge, {"log": log, "copy": [*one, claims]}, key)
                assert _evidence(verdict) == [("inserted", "copy", 6)]

    def test_a_copy_that_ends_in_lines_of_two_chains_neither_of_which_it_has(
        self, key: bytes | None, chained: Chained, judge: Judge
    ) -> None:
        stopped, two = chained(3, key=key, close=False), chained(3, key=key)
        log = [*stopped[:-1], stopped[-1][:60] + two[0], *two[1:]]
        for length in (71, 100, 130):
            verdict = _in_every_order(judge, {"log": log, "copy": [*stopped[:-1], log[3][:length]]}, key)
            assert not verdict.tampered, verdict.findings
            assert [f.kind for f in verdict.findings if f.file == "copy"] == ["given_twice", "cut"]
            later = stopped[-1][:60] + two[1][:length]  # but no line that is behind one which it has not
            assert _evidence(judge({"log": log, "copy": [*stopped[:-1], later]}, key)) == [("inserted", "copy", 4)]

    @pytest.mark.parametrize("begins", range(8))
    @pytest.mark.parametrize("ends", range(3, 9))
    def test_a_line_that_a_full_disk_cut_stands_in_the_copy_too(
        self, begins: int, ends: int, key: bytes | None, judge: Judge
    ) -> None:
        chain = Chain(key, settings=None, dump=dump_json)
        event = {"schema": 1, "event": "decision", "event_id": "e"}
        log = [chain.link(chain.begin()), chain.link(event), chain.link(event)]
        cut = chain.link(event)[:80]
        chain.cut(80)
        log += [cut + b"\n", chain.link(event), chain.link(event), chain.link(event)]
        log.append(chain.link(close_event(now=0, dropped=0)))
        assert judge(log, key).findings == ()
        copy = log[begins:ends]
        copies = [copy]
        if copy and copy[-1] == cut + b"\n":  # its newline came with the next line
            copies.append([*copy[:-1], cut])
        for copy in filter(None, copies):
            verdict = _in_every_order(judge, {"a": log, "b": copy}, key)
            assert not verdict.tampered, verdict.findings
            assert (verdict.lines, verdict.copies) == (7, len(copy) - (begins <= 3 < ends))

    def test_a_copy_that_ends_in_lines_that_a_full_disk_cut(self, key: bytes | None, judge: Judge) -> None:
        """A copy of so many lines has the newline behind each of them, and not the line that owns up to them."""
        one, two = (Chain(key, settings=None, dump=dump_json) for _ in range(2))
        log = [one.link(one.begin()), two.link(two.begin())]
        event = {"schema": 1, "event": "decision", "event_id": "e"}
        cut = one.link(event)[:100]
        one.cut(100)
        again = one.link(event)[:7]
        one.cut(7)
        other = two.link(event)[:120]
        two.cut(120)
        third = one.link(event)[:7]
        one.cut(7)
        parts = [cut + b"\n", again + other + b"\n", third + b"\n"]
        whole = [*log, *parts, one.link(event), two.link(event)]
        assert judge(whole, key).findings[:-2] == ()
        for ends in range(2, 6):
            verdict = _in_every_order(judge, {"a": whole, "b": whole[:ends]}, key)
            assert not verdict.tampered, verdict.findings
        for edited in (
            [*whole[:3], parts[0]],  # more often than in the other file
            [parts[0], *whole[:3]],
            [*whole[:3], one.link(close_event(now=0, dropped=0))],  # its chain goes on, without who owns up to it
            [*parts[:1], one.link(close_event(now=0, dropped=0))],
        ):
            verdict = _in_every_order(judge, {"a": whole, "b": edited}, key)
            assert "inserted" in [kind for kind, *_ in _evidence(verdict)]


EDITS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a line is altered": lambda a: [*a[:5], a[5].replace(b"allow", b"error"), *a[6:]],
    "a line is dropped": lambda a: [*a[:5], *a[6:]],
    "lines are dropped": lambda a: [*a[:3], *a[9:]],
    "lines are swapped": lambda a: [*a[:5], a[6], a[5], *a[7:]],
    "the halves are swapped": lambda a: [*a[6:], *a[:6]],
    "a line is moved to the end": lambda a: [*a[:5], *a[6:], a[5]],
    "a line is repeated": lambda a: [*a[:6], *a[5:]],
    "a line is repeated at the end": lambda a: [*a, a[5]],
    "all lines are repeated": lambda a: [*a, *a],
    "a line is put in": lambda a: [*a[:5], b"x\n", *a[5:]],
    "half a line is put in": lambda a: [*a[:5], a[6][:80] + b"\n", *a[5:]],
    "a number is altered": lambda a: [*a[:5], a[5].replace(b'"seq":5', b'"seq":4'), *a[6:]],
    "a line ends as on windows": lambda a: [*a[:5], a[5][:-1] + b"\r\n", *a[6:]],
}


class TestNoCopyHidesAnything:
    @pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
    def test_an_edit_of_one_file_is_found_there_whatever_its_copies_say(
        self, edit: Callable[[list[bytes]], list[bytes]], key: bytes | None, chained: Chained, judge: Judge
    ) -> None:
        lines = chained(12, key=key)
        for sound in (
            {"bak": lines},
            {"bak": lines[2:12]},
            {"bak": lines, "bak2": lines},
            {"old": lines[:6], "new": lines[6:]},
            {"old": lines[:7], "new": lines[4:]},
        ):
            verdict = _in_every_order(judge, {"audit.log": edit(list(lines)), **sound}, key)
            assert verdict.tampered, (sound.keys(), verdict.findings)
            assert {file for _, file, _ in _evidence(verdict)} == {"audit.log"}, verdict.findings

    @pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
    def test_the_same_edit_in_all_copies(
        self, edit: Callable[[list[bytes]], list[bytes]], key: bytes | None, chained: Chained, judge: Judge
    ) -> None:
        edited = edit(chained(12, key=key))
        assert _in_every_order(judge, {"a": edited, "b": edited, "c": edited}, key).tampered

    def test_without_a_key_a_rest_that_was_made_anew_is_told_once(self, chained: Chained, judge: Judge) -> None:
        lines = chained(10)
        forged, previous = [], FIRST_PREVIOUS
        for line in lines:
            link = read_link(line[:-1])
            assert link is not None
            body = link.body.replace(b'"e-4"', b'"e-5"').replace(link.previous.encode(), previous.encode(), 1)
            digest = hashlib.sha256(body).hexdigest()
            forged.append(body + f',"hash":"{digest}"}}\n'.encode())
            previous = previous_of(digest)
        assert not judge(forged).tampered
        verdict = _in_every_order(judge, {"a": lines, "b": forged}, None)
        (finding,) = [finding for finding in verdict.findings if finding.tampering]
        assert (finding.kind, finding.number) == ("altered", 6)
        assert "(seq 5) stands in a with other bytes, and so are 6 lines more" in judge(
            {"a": lines, "b": forged}
        ).findings[-1].sentence  # fmt: skip

    def test_without_a_key_a_line_that_was_made_anew_is_told_by_the_next_one_wherever_that_stands(
        self, chained: Chained, judge: Judge
    ) -> None:
        lines = chained(10)
        link = read_link(lines[5][:-1])
        assert link is not None
        body = link.body.replace(b"allow", b"error")
        forged = body + f',"hash":"{hashlib.sha256(body).hexdigest()}"}}\n'.encode()
        for files in (
            {"a": [*lines[:5], forged], "b": lines[6:]},
            {"a": lines[:5], "b": [forged], "c": lines[6:]},
            {"a": [*lines[:5], forged, *lines[6:]]},
        ):
            verdict = _in_every_order(judge, files, None)
            ((kind, file, number),) = _evidence(verdict)
            assert (kind, files[file][number - 1]) == ("altered", lines[6])

    def test_a_line_of_another_file_is_not_put_between(self, chained: Chained, judge: Judge) -> None:
        """A genuine line, put into a file in which it does not belong, says something that did not happen then."""
        lines = chained(30)
        old, new = lines[:15], lines[15:]
        for at in (0, 5, 16):
            verdict = _in_every_order(judge, {"old": old, "new": [*new[:at], lines[4], *new[at:]]}, None)
            assert verdict.tampered, at
        # Where its chain has no other line in that file, it may have been copied, and is told.
        verdict = _in_every_order(judge, {"old": old + new, "other": [*chained(3), lines[4]]}, None)
        assert (verdict.tampered, verdict.copies) == (False, 1)

    def test_lines_that_were_spread_over_files_are_told_and_are_no_evidence(
        self, chained: Chained, judge: Judge
    ) -> None:
        lines = chained(10)
        verdict = _in_every_order(
            judge, {"a": [*lines[:3], *lines[6:8], *lines[9:]], "b": lines[3:6] + lines[8:9]}, None
        )
        assert (verdict.tampered, verdict.lines, verdict.copies) == (False, 12, 0)
        assert {(finding.kind, finding.file, finding.number) for finding in verdict.findings} == {
            ("scattered", "a", 4), ("scattered", "b", 4)
        }  # fmt: skip

    def test_what_all_copies_lack_is_missing(self, key: bytes | None, chained: Chained, judge: Judge) -> None:
        lines = chained(10, key=key)
        verdict = _in_every_order(judge, {"a": lines[:4] + lines[6:], "b": lines[:5] + lines[6:]}, key)
        kinds = [kind for kind, _, _ in _evidence(verdict)]
        assert kinds == ["dropped", "dropped"]
        assert any("(seq 5) is missing" in finding.sentence for finding in verdict.findings)
        assert any("(seq 4 to 5) are missing in this file" in finding.sentence for finding in verdict.findings)


_LINES: dict[bytes | None, list[bytes]] = {}


def _lines(key: bytes | None) -> list[bytes]:
    if key not in _LINES:
        chains = []
        for events in (9, 5):
            chain = Chain(key, settings=None, dump=dump_json)
            event = {"schema": 1, "event": "decision", "outcome": "allow"}
            chains.append([chain.link(chain.begin()), *(chain.link(event) for _ in range(events))])
        one, two = chains
        _LINES[key] = [*one[:3], *two[:2], *one[3:4], *two[2:4], *one[4:], *two[4:]]
    return _LINES[key]


@st.composite
def _windows(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Pieces of a record that have all of it between them."""
    count = len(_lines(None))
    cuts = sorted({0, count, *draw(st.lists(st.integers(0, count), max_size=3))})
    pieces = list(itertools.pairwise(cuts))
    extra = draw(st.lists(st.tuples(st.integers(0, count), st.integers(0, count)), max_size=4))
    return draw(st.permutations(pieces + [(min(pair), max(pair)) for pair in extra if pair[0] != pair[1]]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(windows=_windows(), keyed=st.booleans(), windows_ends=st.sets(st.integers(0, 7)))
def test_pieces_and_copies_in_any_order_are_the_record(
    windows: list[tuple[int, int]], keyed: bool, windows_ends: set[int], judge: Judge
) -> None:
    key = KEY if keyed else None
    lines = _lines(key)
    files = {
        f"f{number}": [line[:-1] + b"\r\n" if number in windows_ends else line for line in lines[first:last]]
        for number, (first, last) in enumerate(windows)
    }
    verdict = judge(files, key)
    assert (verdict.tampered, verdict.unproved) == (False, False), verdict.findings
    assert (verdict.lines, verdict.copies) == (16, sum(map(len, files.values())) - 16)
    assert {finding.kind for finding in verdict.findings} <= {"open_ended", "given_twice", "line_ends"}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(windows=_windows(), keyed=st.booleans(), data=st.data())
def test_an_edit_in_any_piece_or_copy_is_found(
    windows: list[tuple[int, int]], keyed: bool, data: st.DataObject, judge: Judge
) -> None:
    key = KEY if keyed else None
    lines = _lines(key)
    files = {f"f{number}": lines[first:last] for number, (first, last) in enumerate(windows)}
    file = data.draw(st.sampled_from(sorted(files)))
    edited = list(files[file])
    at = data.draw(st.integers(0, len(edited) - 1))
    line = edited[at]
    chain = [number for number, each in enumerate(edited) if each[:46] == line[:46]]
    match data.draw(st.sampled_from(["alter", "drop", "repeat", "move"])):
        case "alter":
            byte = data.draw(st.integers(0, len(line) - 2))
            edited[at] = line[:byte] + bytes([line[byte] ^ 1]) + line[byte + 1 :]
        case "drop" if at not in {chain[0], chain[-1]}:  # at an edge, this is a shorter piece
            del edited[at]
        case "repeat":
            edited.insert(data.draw(st.integers(0, len(edited))), line)
        case "move" if len(chain) > 1:
            other = data.draw(st.sampled_from([number for number in chain if number != at]))
            edited[at], edited[other] = edited[other], edited[at]
        case _:
            return
    told = {
        judge({name: edited if name == file else files[name] for name in order}, key).tampered
        for order in (sorted(files), sorted(files, reverse=True))
    }
    if told != {True}:
        # No evidence, and no proof: no line of a file, or of a chain, is known. Or all that is missing in one file
        # stands in another one.
        verdict = judge(files | {file: edited}, key)
        kinds = {finding.kind for finding in verdict.findings}
        assert told == {False}
        assert verdict.unproved or ("scattered" in kinds and verdict.lines == 16), verdict.findings
