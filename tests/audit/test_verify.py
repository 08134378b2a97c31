"""Verifying: every edit is found and placed, and nothing is said against what an honest system leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from toucan_guard.audit.chain import Chain
from toucan_guard.audit.verdict import HONEST, TAMPERING, UNPROVED, Verdict
from toucan_guard.audit.verify import ChainVerifier
from toucan_guard.core.audit_chain import FIRST_PREVIOUS, previous_of, read_link
from toucan_guard.core.audit_event import close_event
from toucan_guard.core.audit_line import dump_json
from toucan_guard.core.errors import ConfigError

KEY = b"correct-horse-battery-staple-0123456789"
OTHER_KEY = b"another-horse-battery-staple-9876543210"

Chained = Callable[..., list[bytes]]
Judge = Callable[..., Verdict]


_EVENT = {"schema": 1, "event": "decision", "outcome": "allow", "status": 200}


def _told(verdict: Verdict) -> list[tuple[str, int]]:
    return [(finding.kind, finding.number) for finding in verdict.findings]


def _closed(body: bytes) -> bytes:
    """A line as somebody without the key makes it."""
    return body + f',"hash":"{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


@pytest.fixture(params=[None, KEY], ids=["without a key", "keyed"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    return request.param  # type: ignore[no-any-return]


def test_an_untouched_log_is_as_it_was_written(chained: Chained, judge: Judge, key: bytes | None) -> None:
    lines = chained(20, key=key)
    verdict = judge(lines, key)
    assert (verdict.tampered, verdict.findings, verdict.lines, verdict.others, verdict.more) == (False, (), 22, 0, 0)
    (chain,) = verdict.chains
    assert (chain.first, chain.last, chain.lines, chain.closed, chain.checked) == (0, 21, 22, True, True)
    assert (chain.process, chain.settings, chain.keyed) == (os.getpid(), "0123456789abcdef", key is not None)
    last = json.loads(lines[-1])
    assert chain.anchor == f"{last['chain']}:21:{last['hash' if key is None else 'mac']}"


def _altered_digest(line: bytes) -> bytes:
    return line[:-10] + (b"0" if line[-10:-9] != b"0" else b"1") + line[-9:]


EDITS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a value is altered": lambda a: [*a[:5], a[5].replace(b"allow", b"deny"), *a[6:]],
    "a value in the first line is altered": lambda a: [a[0].replace(b'"process":', b'"process":1'), *a[1:]],
    "a value in the last line is altered": lambda a: [*a[:-1], a[-1].replace(b'"time":"2', b'"time":"3')],
    "a digest is altered": lambda a: [*a[:5], _altered_digest(a[5]), *a[6:]],
    "the last digest is altered": lambda a: [*a[:-1], _altered_digest(a[-1])],
    "a number is altered": lambda a: [*a[:5], a[5].replace(b'"seq":5', b'"seq":9'), *a[6:]],
    "a number is altered beyond all": lambda a: [*a[:5], a[5].replace(b'"seq":5', b'"seq":999'), *a[6:]],
    "a line is put into another chain": lambda a: [*a[:5], a[5].replace(b'{"chain":"0', b'{"chain":"1'), *a[6:]],
    "a line is dropped": lambda a: [*a[:5], *a[6:]],
    "three lines are dropped": lambda a: [*a[:5], *a[8:]],
    "two lines are swapped": lambda a: [*a[:5], a[6], a[5], *a[7:]],
    "a line is moved down": lambda a: [*a[:5], *a[6:9], a[5], *a[9:]],
    "a line is moved up": lambda a: [*a[:5], a[9], *a[5:9], *a[10:]],
    "the first line is moved": lambda a: [a[1], a[0], *a[2:]],
    "a line is repeated": lambda a: [*a[:6], a[5], *a[6:]],
    "a run is repeated": lambda a: [*a[:8], *a[5:8], *a[8:]],
    "a line is repeated before itself": lambda a: [*a[:3], a[5], *a[3:]],
    "garbage is inserted": lambda a: [*a[:5], b"\x00\xffgarbage\n", *a[5:]],
    "an event without a chain is inserted": lambda a: [*a[:5], b'{"schema":1,"event":"decision"}\n', *a[5:]],
    "half a line is inserted": lambda a: [*a[:5], a[5][:90] + b"\n", *a[5:]],
    "a line is cut": lambda a: [*a[:5], a[5][:90] + b"\n", *a[6:]],
    "a line is prefixed": lambda a: [*a[:5], b"x" + a[5], *a[6:]],
    "a line ends in a carriage return": lambda a: [*a[:5], a[5][:-1] + b"\r\n", *a[6:]],
    "two lines become one": lambda a: [*a[:5], a[5][:-1] + a[6], *a[7:]],
    "a line is formatted anew": lambda a: [*a[:5], json.dumps(json.loads(a[5])).encode() + b"\n", *a[6:]],
    "a line stands behind the end": lambda a: [*a, a[5]],
    "a line claims to have been cut": lambda a: [
        *a[:5],
        a[5].replace(b'"schema"', b'"cut":[[3,"0123456789abcdef"]],"schema"'),
        *a[6:],
    ],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_every_kind_of_edit_is_found_where_it_was_made(
    edit: Callable[[list[bytes]], list[bytes]], chained: Chained, judge: Judge, key: bytes | None
) -> None:
    lines = chained(20, key=key)
    edited = edit(list(lines))
    assert edited != lines
    verdict = judge(edited, key)
    assert verdict.tampered, verdict.findings
    changed = next(
        number for number, (was, now) in enumerate(zip(lines, [*edited, b""], strict=False), 1) if was != now
    ) if edited[: len(lines)] != lines else len(lines) + 1  # fmt: skip
    places = [finding.number for finding in verdict.findings if finding.tampering]
    assert any(abs(place - changed) <= 4 for place in places), (changed, verdict.findings)
    assert all(finding.kind in TAMPERING | HONEST | UNPROVED for finding in verdict.findings)


def test_only_the_altered_line_is_blamed(chained: Chained, judge: Judge, key: bytes | None) -> None:
    for edit in ("a value is altered", "a digest is altered"):
        verdict = judge(EDITS[edit](chained(20, key=key)), key)
        assert _told(verdict) == [("altered", 6)]


def test_a_dropped_line_is_told_between_its_neighbours(chained: Chained, judge: Judge) -> None:
    (finding,) = judge(EDITS["a line is dropped"](chained(20))).findings
    assert (finding.kind, finding.number) == ("dropped", 6)
    assert finding.sentence == "One line of this chain (seq 5) is missing between audit.jsonl:5 and audit.jsonl:6."
    (finding,) = judge(EDITS["three lines are dropped"](chained(20))).findings
    assert "3 lines of this chain (seq 5 to 7) are missing" in finding.sentence.lower()


def test_a_moved_line_is_told_once(chained: Chained, judge: Judge) -> None:
    assert _told(judge(EDITS["a line is moved down"](chained(20)))) == [("reordered", 9)]
    assert _told(judge(EDITS["a line is repeated"](chained(20)))) == [("inserted", 7)]


def test_random_edits_are_all_found(chained: Chained, judge: Judge, key: bytes | None) -> None:
    dice = random.Random(0)
    lines = [*chained(150, key=key)]
    for _ in range(120):
        edited = random_edit(dice, lines)
        verdict = judge(edited, key)
        assert verdict.findings, "an edit was not found"


def random_edit(dice: random.Random, lines: list[bytes]) -> list[bytes]:
    """The lines with one change somewhere."""
    edited = list(lines)
    at = dice.randrange(len(edited))
    line = edited[at]
    byte = dice.randrange(len(line) - 1)
    match dice.randrange(7):
        case 0:
            edited[at] = line[:byte] + bytes([line[byte] ^ (1 << dice.randrange(8))]) + line[byte + 1 :]
        case 1:
            edited[at] = line[:byte] + line[byte + 1 :]
        case 2:
            edited[at] = line[:byte] + bytes([dice.randrange(256)]) + line[byte:]
        case 3:
            del edited[at : at + dice.randint(1, 5)]
        case 4:
            edited.insert(dice.randrange(len(edited)), line)
        case 5:
            other = dice.randrange(len(edited))
            edited[at], edited[other] = edited[other], edited[at]
        case _:
            edited[at] = line[:byte]
    return edited if edited != lines else random_edit(dice, lines)


class TestWhatHonestSystemsLeave:
    def test_a_chain_without_close(self, chained: Chained, judge: Judge) -> None:
        verdict = judge(chained(5, close=False))
        assert (verdict.tampered, _told(verdict)) == (False, [("open_ended", 6)])
        assert not verdict.chains[0].closed

    def test_several_workers_in_one_file(self, chained: Chained, judge: Judge) -> None:
        dice = random.Random(1)
        workers = [chained(30) for _ in range(4)]
        mixed: list[bytes] = []
        while any(workers):
            worker = dice.choice([worker for worker in workers if worker])
            mixed.append(worker.pop(0))
        verdict = judge(mixed)
        assert (verdict.findings, len(verdict.chains)) == ((), 4)

    def test_a_restart_begins_another_chain(self, chained: Chained, judge: Judge) -> None:
        verdict = judge([*chained(3), *chained(3, close=False), *chained(3)])
        assert (verdict.tampered, [finding.kind for finding in verdict.findings]) == (False, ["open_ended"])
        assert sorted(chain.closed for chain in verdict.chains) == [False, True, True]

    @pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
    def test_a_chain_goes_on_through_rotated_files_in_any_order(
        self, order: tuple[str, ...], chained: Chained, judge: Judge, key: bytes | None
    ) -> None:
        lines = chained(30, key=key)
        files = {"a": lines[:10], "b": lines[10:20], "c": lines[20:]}
        assert judge({name: files[name] for name in order}, key).findings == ()

    def test_between_rotated_files_nothing_may_be_missing(self, chained: Chained, judge: Judge) -> None:
        lines = chained(30)
        verdict = judge({"b": lines[21:], "a": lines[:20]})
        assert verdict.tampered
        assert _told(verdict) == [("dropped", 1)]
        lines[20] = lines[20].replace(b"allow", b"error")
        assert _told(judge({"b": lines[20:], "a": lines[:20]})) == [("altered", 1)]

    def test_a_chain_that_begins_in_a_file_that_is_not_here(self, chained: Chained, judge: Judge) -> None:
        verdict = judge(chained(30)[10:])
        assert (verdict.tampered, _told(verdict)) == (False, [("begins_elsewhere", 1)])

    def test_a_line_that_a_killed_process_had_begun(self, chained: Chained, judge: Judge) -> None:
        lines = chained(6, close=False)
        for length in (1, 30, 70, 150):
            verdict = judge([*lines[:-1], lines[-1][:length]])
            assert not verdict.tampered
            assert {finding.kind for finding in verdict.findings} == {"cut", "open_ended"}
        assert judge([*lines[:-2], lines[-1][:150]]).tampered  # not the next one
        assert judge([*lines[:-1], lines[-1][:90] + b"\n"]).tampered  # whoever is stopped leaves no newline

    def test_a_line_that_was_begun_again_and_again(self, chained: Chained, judge: Judge) -> None:
        """On a full disk, before its process was stopped; and a service that was started there."""
        lines = chained(6, close=False)
        again = [lines[-1][:90] + b"\n", lines[-1][:40] + b"\n", lines[-1][:9]]
        verdict = judge([*lines[:-1], *again])
        assert not verdict.tampered
        assert {finding.kind for finding in verdict.findings} == {"cut", "open_ended"}
        first = chained(1)[0]
        assert not judge([*lines[:-1], *again[:2], first[:200] + b"\n", first[:3]]).tampered
        assert judge([*lines[:-1], *again[:2], lines[0][:200] + b"\n", first[:3]]).tampered  # that chain has begun

    def test_another_process_writes_behind_a_line_that_was_begun(self, chained: Chained, judge: Judge) -> None:
        killed, other = chained(6, close=False), chained(6)
        lines = [*other[:3], *killed[:-1], killed[-1][:100] + other[3], *other[4:]]
        verdict = judge(lines)
        assert not verdict.tampered
        assert [finding.kind for finding in verdict.findings] == ["open_ended", "cut"]

    def test_a_line_without_its_newline_and_another_process_behind_it(self, chained: Chained, judge: Judge) -> None:
        one, other = chained(6), chained(6)
        # The disk was one byte too small: the newline comes in front of the next line.
        verdict = judge([*one[:3], one[3][:-1] + other[0], *other[1:], b"\n", *one[4:]])
        assert (verdict.tampered, _told(verdict)) == (False, [("joined", 4), ("blank", 12)])
        assert verdict.lines == len(one) + len(other)

    @pytest.mark.parametrize("key", [None, KEY], ids=["without a key", "keyed"])
    def test_the_last_line_of_a_chain_is_altered(self, key: bytes | None, chained: Chained, judge: Judge) -> None:
        lines = chained(6, key=key)
        for byte in range(len(lines[-1]) - 1):
            altered = lines[-1][:byte] + b"!" + lines[-1][byte + 1 :]
            assert judge([*lines[:-1], altered], key).tampered

    def test_an_empty_line(self, chained: Chained, judge: Judge) -> None:
        lines = chained(6)
        verdict = judge([*lines[:3], b"\n", *lines[3:]])
        assert (verdict.tampered, _told(verdict)) == (False, [("blank", 4)])

    def test_other_programs_in_the_same_stream(self, chained: Chained, judge: Judge) -> None:
        lines = chained(6)
        foreign = b'INFO:     127.0.0.1:40122 - "GET / HTTP/1.1" 200 OK\n'
        mixed = [foreign, *lines[:3], foreign, *lines[3:], foreign]
        verdict = judge(mixed, mixed=True)
        assert (verdict.findings, verdict.others) == ((), 3)
        assert judge(mixed).tampered
        assert judge([*mixed, b'{"schema":1,"event":"decision"}\n'], mixed=True).tampered
        assert judge([*lines[:3], lines[3][:100], *lines[4:]], mixed=True).tampered

    def test_a_file_without_its_last_newline(self, chained: Chained, judge: Judge) -> None:
        lines = chained(6)
        assert judge([*lines[:-1], lines[-1][:-1]]).findings == ()

    def test_nothing_at_all(self, judge: Judge) -> None:
        verdict = judge([])
        assert (verdict.tampered, verdict.lines, verdict.chains, verdict.findings) == (False, 0, (), ())


class TestKeys:
    def test_without_the_key_only_numbers_are_checked(self, chained: Chained, judge: Judge) -> None:
        lines = chained(10, key=KEY)
        verdict = judge(EDITS["a value is altered"](lines))
        assert (verdict.tampered, _told(verdict), verdict.chains[0].checked) == (False, [("unchecked", 1)], False)
        assert judge(EDITS["a line is dropped"](lines)).tampered
        assert judge(EDITS["a line is moved down"](lines)).tampered

    def test_a_chain_whose_key_was_not_given_is_not_checked(self, chained: Chained, judge: Judge) -> None:
        lines = chained(10, key=KEY)
        named = json.loads(lines[0])["chain_key"]
        verdict = judge(lines, OTHER_KEY)
        assert (verdict.tampered, verdict.unproved, _told(verdict)) == (False, True, [("unchecked", 1)])
        assert (verdict.chains[0].checked, verdict.chains[0].key) == (False, named)
        assert f"made with the key {named}" in verdict.findings[0].sentence
        assert "nothing is known" in verdict.findings[0].sentence
        # Nor is it where the line that names the key is gone, and this is said.
        verdict = judge(lines[3:], OTHER_KEY)
        assert (verdict.tampered, verdict.chains[0].key) == (False, None)
        assert _told(verdict) == [("begins_elsewhere", 1), ("unchecked", 1)]
        assert "is not here" in verdict.findings[1].sentence

    def test_what_can_be_seen_without_the_key_is_still_seen(self, chained: Chained, judge: Judge) -> None:
        lines = chained(10, key=KEY)
        for edit in ("a line is dropped", "a line is moved down", "a line is repeated"):
            assert judge(EDITS[edit](lines), OTHER_KEY).tampered, edit

    def test_a_false_name_of_the_key_proves_nothing(self, chained: Chained, judge: Judge) -> None:
        """Whoever alters every line may name a key that nobody has; then no line is said to be as it was written."""
        lines = [line.replace(b'"schema":1', b'"schema":2') for line in chained(10, key=KEY)]
        named = json.loads(lines[0])["chain_key"].encode()
        for name in (b"0badc0de", b"", b"0BADC0DE", b"\\u0661" * 8, b"\\u001b[2J", b"a" * 200):
            verdict = judge([lines[0].replace(named, name), *lines[1:]], KEY)
            assert (verdict.tampered, verdict.unproved, verdict.chains[0].checked) == (False, True, False)
            assert verdict.chains[0].key == ("0badc0de" if name == b"0badc0de" else None)
        for name in (b'{"chain_key":1}', b"[]", b"nonsense"):
            (finding,) = judge([lines[0].replace(b'"' + named + b'"', name), *lines[1:]], KEY).findings
            assert finding.kind == "unchecked"
        # The true name is no way out.
        verdict = judge(lines, KEY)
        assert (verdict.tampered, verdict.unproved, _told(verdict)) == (True, False, [("altered", 1)])
        assert "not one of them" in verdict.findings[0].sentence

    @pytest.mark.parametrize("altered", [1, 7, 150])
    def test_one_line_that_fits_a_key_convicts_all_that_do_not(
        self, altered: int, chained: Chained, judge: Judge
    ) -> None:
        lines = chained(200, key=KEY)
        named = json.loads(lines[0])["chain_key"].encode()
        lines[0] = lines[0].replace(named, b"0badc0de")
        edited = [line.replace(b'"schema":1', b'"schema":2') for line in lines[:altered]] + lines[altered:]
        verdict = judge(edited, OTHER_KEY, earlier=[KEY])
        assert (verdict.tampered, verdict.unproved) == (True, False)
        assert [number for _, number in _told(verdict)] == [*range(1, min(altered, 100) + 1), 150][: altered or 1]
        if altered == 150:
            assert "49 more of its chain before it" in verdict.findings[-1].sentence

    def test_a_digest_that_was_altered_before_the_key_is_known_accuses_no_other_line(
        self, chained: Chained, judge: Judge
    ) -> None:
        lines = chained(10, key=KEY)
        for at in (0, 1):
            verdict = judge([*lines[:at], _altered_digest(lines[at]), *lines[at + 1 :]], OTHER_KEY, earlier=[KEY])
            assert _told(verdict) == [("altered", at + 1)]

    def test_a_false_name_of_the_key_hides_no_other_edit(self, chained: Chained, judge: Judge) -> None:
        lines = chained(10, key=KEY)
        lines[0] = lines[0].replace(b'"chain_key":"', b'"chain_key":"x')
        lines[6] = lines[6].replace(b"allow", b"error")
        assert _told(judge(lines, KEY)) == [("altered", 1), ("altered", 7)]

    def test_a_chain_that_was_made_anew_without_the_key(self, chained: Chained, judge: Judge) -> None:
        verdict = judge(chained(10), KEY)
        assert (verdict.tampered, _told(verdict)) == (True, [("unkeyed", 1)])

    def test_a_line_without_the_key_in_a_keyed_chain(self, chained: Chained, judge: Judge) -> None:
        lines = chained(10, key=KEY)
        link = read_link(lines[5][:-1])
        assert link is not None
        lines[5] = _closed(link.body)
        assert judge(lines, KEY).tampered
        assert judge(lines).tampered

    def test_a_line_that_was_made_up_is_checked_by_itself(self, chained: Chained, judge: Judge) -> None:
        lines = chained(10, key=KEY)
        other = lines[5].replace(b'{"chain":"0', b'{"chain":"1')
        verdict = judge([*lines[:3], other, *lines[3:]], KEY)
        assert _told(verdict) == [("begins_elsewhere", 4), ("unchecked", 4), ("open_ended", 4)]
        assert (verdict.unproved, [chain.lines for chain in verdict.chains if chain.checked]) == (True, [12])
        # Behind a gap, too: what follows is still checked.
        gap = [*lines[:3], lines[5].replace(b"allow", b"error"), *lines[6:]]
        assert {("dropped", 4), ("altered", 4)} <= set(_told(judge(gap, KEY)))

    def test_whoever_makes_the_rest_anew_without_a_key_is_not_found_but_for_an_anchor(
        self, chained: Chained, judge: Judge
    ) -> None:
        lines = chained(10)
        anchor = judge(lines).chains[0].anchor
        forged, previous = [], FIRST_PREVIOUS
        for line in lines:
            link = read_link(line[:-1])
            assert link is not None
            body = link.body.replace(b"allow", b"error").replace(link.previous.encode(), previous.encode(), 1)
            forged.append(_closed(body))
            previous = previous_of(hashlib.sha256(body).hexdigest())
        assert judge(forged).findings == ()
        verdict = judge(forged, expect=[anchor])
        assert (verdict.tampered, _told(verdict)) == (True, [("replaced", 12)])


class TestAnchors:
    def test_a_line_that_is_there(self, chained: Chained, judge: Judge) -> None:
        lines = chained(10)
        for chain in (*judge(lines).chains, *judge(lines[:6]).chains):
            assert judge(lines, expect=[chain.anchor]).findings == ()

    def test_a_line_that_was_taken_off_the_end(self, chained: Chained, judge: Judge) -> None:
        lines = chained(10, close=False)
        anchor = judge(lines).chains[0].anchor
        verdict = judge(lines[:-1], expect=[anchor])
        assert verdict.tampered
        assert {finding.kind for finding in verdict.findings} == {"open_ended", "dropped"}
        assert judge([], expect=[anchor]).tampered

    @pytest.mark.parametrize("text", ["", "a:b:c", "x" * 36 + ":x:" + "0" * 64, "x" * 36 + ":1:" + "0" * 63, "::::"])
    def test_what_is_no_anchor_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match="CHAIN:NUMBER:DIGEST"):
            ChainVerifier(expect=[text])


class TestBounds:
    def test_findings_beyond_ten_thousand_are_counted(self, chained: Chained, judge: Judge) -> None:
        lines = chained(12_000, close=False)
        edited = [line.replace(b"allow", b"error") for line in lines]
        verdict = judge(edited)
        assert (len(verdict.findings), verdict.more, verdict.tampered) == (10_001, 2_000, True)
        assert sum(finding.tampering for finding in verdict.findings) == 10_000

    def test_a_log_in_pieces_is_given_up_at_some_point(
        self, chained: Chained, judge: Judge, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("toucan_guard.audit.verify._MOST_BREAKS", 10)
        verdict = judge(chained(100)[::-1])
        assert verdict.tampered
        assert any("too many breaks" in finding.sentence for finding in verdict.findings)

    def test_a_line_that_is_too_long_for_a_fragment(self, chained: Chained, judge: Judge) -> None:
        assert judge([*chained(3), b"x" * 9000]).tampered

    @pytest.mark.parametrize("seed", range(5))
    def test_any_bytes_are_judged(self, seed: int, chained: Chained, judge: Judge) -> None:
        dice = random.Random(seed)
        lines = chained(10)
        noise: list[Any] = [
            dice.choice([dice.randbytes(40), dice.choice(lines)[: dice.randrange(300)]]) for _ in range(99)
        ]
        assert judge([*lines, *noise]).tampered


@pytest.mark.parametrize("length", [3, 12, 100, -2])
def test_a_line_whose_newline_is_late_with_the_cut_line_of_another_process_behind_it(
    key: bytes | None, length: int, judge: Judge
) -> None:
    """Two processes write to a disk that is full now and then; nothing of it is anybody's fault."""
    one, other = (Chain(key, settings=None, dump=dump_json) for _ in range(2))
    log = [chain.link(chain.begin()) for chain in (one, other)]
    late = one.link({**_EVENT, "event_id": "e-1"})[:-1]
    cut = other.link({**_EVENT, "event_id": "e-2"})[:length]
    other.cut(len(cut))
    log += [late + cut + b"\n", one.link({**_EVENT, "event_id": "e-3"}), other.link({**_EVENT, "event_id": "e-4"})]
    log += [chain.link(close_event(now=0, dropped=0)) for chain in (one, other)]
    verdict = judge(log, key)
    assert (verdict.tampered, verdict.findings, verdict.lines) == (False, (), 7)
    # What nobody owns up to was put there.
    for behind in (b"x", cut + b"x", cut[:-1]):
        assert judge([*log[:2], late + behind + b"\n", *log[3:]], key).tampered
