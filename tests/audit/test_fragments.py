"""Fragments: what a chain owns up to is no fault, wherever it stands; what nobody knows is evidence."""

from __future__ import annotations

import time

import pytest

from toucan_guard.audit.fragments import Fragments
from toucan_guard.audit.verdict import Findings, Place
from toucan_guard.core.audit_chain import FIRST_PREVIOUS, cut_of, start_of

CHAIN = "019ab2c4-5d6e-7f80-9a1b-2c3d4e5f6071"
OTHER_CHAIN = "019ab2c4-0000-7f80-9a1b-2c3d4e5f6071"
FILES = {"f", "new", "old"}
ONE, TWO, THREE = b'{"chain":"one', b'{"chain":"two"', b'{"c'


@pytest.fixture
def findings() -> Findings:
    return Findings()


@pytest.fixture
def fragments(findings: Findings) -> Fragments:
    return Fragments(findings)


def _kinds(findings: Findings) -> list[tuple[str, int]]:
    return [(finding.kind, finding.number) for finding in findings.in_order()]


@pytest.mark.parametrize("order", [(ONE, TWO, THREE), (TWO, THREE, ONE), (THREE, TWO, ONE), (TWO, ONE, THREE)])
def test_several_cut_lines_on_one_line(order: tuple[bytes, ...], fragments: Fragments, findings: Findings) -> None:
    fragments.take(ONE + TWO + THREE, Place("f", 3), ended=True)
    for number, content in enumerate(order, 4):
        fragments.own(cut_of(content), CHAIN, Place("f", number), must_be_here=True)
    fragments.finish([], linked=FILES)
    assert _kinds(findings) == []


def test_what_nobody_owns_is_evidence(fragments: Fragments, findings: Findings) -> None:
    fragments.take(ONE, Place("f", 1), ended=True)
    fragments.take(ONE + b"!", Place("f", 2), ended=True)
    fragments.own(cut_of(ONE), CHAIN, Place("f", 3), must_be_here=True)
    fragments.finish([], linked=FILES)
    assert _kinds(findings) == [("inserted", 2)]


def test_what_is_owned_must_be_there_where_its_neighbours_are(fragments: Fragments, findings: Findings) -> None:
    fragments.take(TWO, Place("f", 1), ended=True)
    fragments.own(cut_of(ONE), CHAIN, Place("f", 3), must_be_here=True)
    fragments.own(cut_of(THREE + TWO), CHAIN, Place("f", 4), must_be_here=False)  # in a file that was not given
    fragments.own(cut_of(TWO), CHAIN, Place("f", 5), must_be_here=False)
    fragments.finish([], linked=FILES)
    assert _kinds(findings) == [("dropped", 3)]


def test_a_fragment_in_a_file_that_comes_later(fragments: Fragments, findings: Findings) -> None:
    fragments.own(cut_of(ONE), CHAIN, Place("new", 1), must_be_here=False)
    fragments.take(ONE, Place("old", 9), ended=True)
    fragments.finish([], linked=FILES)
    assert _kinds(findings) == []


def test_the_beginning_of_a_next_line_belongs_to_a_chain_that_was_not_closed(
    fragments: Fragments, findings: Findings
) -> None:
    start = start_of(CHAIN, 5, previous=FIRST_PREVIOUS)
    for number, content in enumerate((start + b'"prev"', start[:20], b"x" + start, start[:46] + b"x"), 1):
        fragments.take(content, Place("f", number), ended=False)
    fragments.finish([("f", start)], linked=FILES, chains={CHAIN})
    assert _kinds(findings) == [("cut", 1), ("cut", 2), ("inserted", 3)]
    assert "2 lines, from here on," in findings.in_order()[2].sentence


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(start_of(OTHER_CHAIN, 0, previous=FIRST_PREVIOUS)[:40], "cut", id="a first line"),
        pytest.param(start_of(OTHER_CHAIN, 7, previous="a" * 32), "cut", id="of a chain that is in other files"),
        pytest.param(start_of(OTHER_CHAIN, 7, previous="a" * 32) + b'{"cha', "cut", id="and what begins behind it"),
        pytest.param(b"{", "cut", id="one byte"),
        pytest.param(start_of(CHAIN, 0, previous=FIRST_PREVIOUS), "inserted", id="a line of a chain that went on"),
        pytest.param(b'{"chain":"x', "inserted", id="what names no chain"),
        pytest.param(b'{"chains', "inserted", id="what no line begins with"),
        pytest.param(start_of(OTHER_CHAIN, 0, previous=FIRST_PREVIOUS)[:46] + b'","x', "inserted", id="no number"),
        pytest.param(start_of(OTHER_CHAIN, 7, previous="a" * 32)[:60] + b"!", "inserted", id="no line before"),
        pytest.param(
            b'{"chain":"%b","seq":007' % OTHER_CHAIN.encode(), "inserted", id="a number that is written otherwise"
        ),
    ],
)
def test_of_a_chain_there_may_be_no_more_than_a_beginning(
    content: bytes, kind: str, fragments: Fragments, findings: Findings
) -> None:
    """A service that is started on a full disk, or the last that a rotation has left of one that was stopped."""
    fragments.take(content, Place("f", 1), ended=False)
    fragments.finish([], linked=FILES, chains={CHAIN})
    assert _kinds(findings) == [(kind, 1)]


def test_the_newline_behind_a_beginning_may_be_that_of_whoever_writes_next(
    fragments: Fragments, findings: Findings
) -> None:
    start = start_of(CHAIN, 5, previous=FIRST_PREVIOUS)
    for number in (1, 2, 4, 6):
        fragments.take(start + b"%d" % number, Place("f", number), ended=True)
        fragments.newline_is_of(Place("f", 5))
    fragments.newline_is_of(Place("g", 7))
    fragments.finish([("f", start)], linked=FILES, chains={CHAIN})
    assert _kinds(findings) == [("cut", 1), ("inserted", 2), ("cut", 4), ("inserted", 6)]


def test_a_beginning_is_not_taken_apart_for_what_may_be_elsewhere(fragments: Fragments, findings: Findings) -> None:
    start = start_of(CHAIN, 5, previous=FIRST_PREVIOUS)
    fragments.own(cut_of(start[:1]), OTHER_CHAIN, Place("f", 1), must_be_here=False)
    fragments.take(start, Place("f", 2), ended=False)
    fragments.finish([("f", start)], linked=FILES, chains={CHAIN, OTHER_CHAIN})
    assert _kinds(findings) == [("cut", 2)]


@pytest.mark.parametrize(
    ("content", "ended"), [(b'"event":"close"', True), (b'"event":"close"}', False)], ids=["a newline", "an object"]
)
def test_what_looks_like_a_next_line_and_was_not_stopped_is_evidence(
    content: bytes, ended: bool, fragments: Fragments, findings: Findings
) -> None:
    start = start_of(CHAIN, 5, previous=FIRST_PREVIOUS)
    fragments.take(start + content, Place("f", 1), ended=ended)
    fragments.finish([("f", start)], linked=FILES)
    assert _kinds(findings) == [("inserted", 1)]


def test_beginnings_of_lines_of_several_chains(fragments: Fragments, findings: Findings) -> None:
    one, two = (start_of(CHAIN, number, previous=FIRST_PREVIOUS) for number in (5, 6))
    for number, content in enumerate((one[:20], two, one[:9]), 1):
        fragments.take(content, Place("f", number), ended=False)
    fragments.finish([("f", two), ("f", one)], linked=FILES)
    assert _kinds(findings) == [("cut", 1), ("cut", 2), ("cut", 3)]


@pytest.mark.parametrize("file", ["copy", "original"])
def test_a_beginning_belongs_to_its_file(file: str, fragments: Fragments, findings: Findings) -> None:
    start = start_of(CHAIN, 5, previous=FIRST_PREVIOUS)
    fragments.take(start, Place(file, 1), ended=False)
    fragments.finish([("copy", start)], linked={"copy", "original"}, chains={CHAIN})
    assert _kinds(findings) == [("cut" if file == "copy" else "inserted", 1)]


def test_what_must_be_in_one_file_is_not_found_in_another(fragments: Fragments, findings: Findings) -> None:
    """Nobody takes a cut line out of a file and puts it into a copy a second time."""
    fragments.take(ONE, Place("new", 1), ended=True)
    fragments.take(ONE, Place("new", 5), ended=True)
    fragments.own(cut_of(ONE), CHAIN, Place("new", 7), must_be_here=True)
    fragments.own(cut_of(ONE), CHAIN, Place("old", 7), must_be_here=True)
    fragments.finish([], linked=FILES)
    assert _kinds(findings) == [("inserted", 5), ("dropped", 7)]


def test_a_file_that_is_none_of_the_guards_is_told_once(fragments: Fragments, findings: Findings) -> None:
    for number in range(1, 400):
        fragments.take(b"\x00\xffgarbage", Place("wrong", number), ended=True)
    fragments.finish([], linked=FILES)
    assert _kinds(findings) == [("foreign", 1)]
    assert (findings.tampered, findings.unproved) == (False, True)


def test_a_file_whose_lines_claim_to_be_the_guards_is_evidence(fragments: Fragments, findings: Findings) -> None:
    for number in range(1, 400):
        fragments.take(b'{ "chain": "one" }', Place("formatted", number), ended=True)
    fragments.finish([], linked=FILES)
    assert _kinds(findings) == [("inserted", 1)]
    assert "399 lines, from here on," in findings.in_order()[0].sentence


def test_very_many_and_very_long_ones_are_not_remembered(fragments: Fragments, findings: Findings) -> None:
    fragments.take(b"x" * 9000, Place("f", 1), ended=True)
    for number in range(3, 301, 2):
        fragments.take(ONE, Place("f", number), ended=True)
    for number in range(400, 550):
        fragments.own(cut_of(TWO), CHAIN, Place("f", number), must_be_here=True)
    assert [kind for kind, _ in _kinds(findings)] == ["dropped"] * 50
    for number in range(600, 800):
        fragments.own(cut_of(ONE), CHAIN, Place("f", number), must_be_here=True)
    fragments.finish([], linked=FILES)
    assert [kind for kind, _ in _kinds(findings)].count("inserted") == 1 + 49  # the hundred were owned


def test_places_beyond_ten_thousand_are_counted(fragments: Fragments, findings: Findings) -> None:
    for number in range(1, 24_001, 2):
        fragments.take(b"x" * 9000, Place("f", number), ended=True)
    fragments.finish([], linked=FILES)
    assert (len(findings.in_order()), findings.more) == (10_000, 2_000)


def test_beginnings_are_looked_for_only_where_something_was_begun(fragments: Fragments) -> None:
    """There may be thousands of chains and hundreds of files."""
    assert fragments.files == set()
    fragments.take(ONE, Place("new", 1), ended=False)
    fragments.take(TWO, Place("old", 9), ended=True)
    fragments.own(cut_of(TWO), CHAIN, Place("old", 10), must_be_here=True)
    assert fragments.files == {"new"}


def test_a_cut_line_is_no_part_of_a_longer_one(fragments: Fragments, findings: Findings) -> None:
    """A short one is the beginning of every other."""
    start = start_of(OTHER_CHAIN, 0, previous=FIRST_PREVIOUS)
    fragments.take(start, Place("f", 1), ended=False)
    fragments.take(start + THREE, Place("f", 2), ended=True)
    fragments.own(cut_of(THREE), CHAIN, Place("f", 3), must_be_here=True)
    fragments.finish([], linked=FILES, chains={CHAIN})
    assert _kinds(findings) == [("cut", 1), ("cut", 2)]


def test_a_cut_line_between_two_that_were_begun(fragments: Fragments, findings: Findings) -> None:
    start = start_of(OTHER_CHAIN, 0, previous=FIRST_PREVIOUS)
    fragments.take(start + ONE + start[:5], Place("f", 1), ended=True)
    fragments.own(cut_of(ONE), CHAIN, Place("f", 3), must_be_here=True)
    fragments.finish([], linked=FILES, chains={CHAIN})
    assert _kinds(findings) == [("cut", 1), ("cut", 1)]


def test_the_first_bytes_of_several_lines_stand_on_one(fragments: Fragments, findings: Findings) -> None:
    start = start_of(CHAIN, 5, previous=FIRST_PREVIOUS)
    fragments.take(start + b'{"{"cha{' + start[:9], Place("f", 1), ended=False)
    fragments.finish([("f", start)], linked=FILES, chains={CHAIN})
    assert _kinds(findings) == [("cut", 1)]


@pytest.mark.parametrize(
    "content",
    [
        b'"event":"close"}{"',
        b'"event":"close"} and more',
        b'"event":"open","x":{"chain":"%b","seq":0,"prev":"%b","y":1}}',
    ],
)
def test_a_whole_object_is_no_line_that_was_begun(content: bytes, fragments: Fragments, findings: Findings) -> None:
    """Whatever stands behind it, or in it: a reader of JSON would take it for an event."""
    start = start_of(CHAIN, 5, previous=FIRST_PREVIOUS)
    inner = (OTHER_CHAIN.encode(), FIRST_PREVIOUS.encode()) if b"%b" in content else ()
    fragments.take(start + content % inner, Place("f", 1), ended=False)
    fragments.finish([("f", start)], linked=FILES, chains={CHAIN})
    assert _kinds(findings) == [("inserted", 1)]


def test_what_is_owned_is_looked_for_in_its_own_file_first(fragments: Fragments, findings: Findings) -> None:
    """The line before the first of a file is in another one; a copy may stand in front of both."""
    for file in ("copy", "new"):
        fragments.take(ONE, Place(file, 1), ended=True)
    fragments.own(cut_of(ONE), CHAIN, Place("new", 2), must_be_here=False)
    fragments.finish([], linked=FILES, chains={CHAIN}, ends={(CHAIN, "new"): 2})
    assert _kinds(findings) == []


def test_what_stands_beside_another_one_and_in_a_copy_alone_is_of_both(
    fragments: Fragments, findings: Findings
) -> None:
    fragments.take(ONE + TWO, Place("new", 1), ended=True)
    fragments.take(ONE, Place("copy", 1), ended=False)  # made before the other process wrote
    fragments.own(cut_of(ONE), CHAIN, Place("new", 2), must_be_here=False)
    fragments.own(cut_of(TWO), OTHER_CHAIN, Place("newest", 1), must_be_here=False)
    fragments.finish([], linked=FILES, chains={CHAIN, OTHER_CHAIN}, ends={(CHAIN, "new"): 2})
    assert _kinds(findings) == []


def test_what_may_be_elsewhere_takes_nothing_from_what_must_be_here(fragments: Fragments, findings: Findings) -> None:
    fragments.take(b"{", Place("f", 1), ended=True)
    fragments.own(cut_of(b"{"), OTHER_CHAIN, Place("f", 2), must_be_here=False)
    fragments.own(cut_of(b"{"), CHAIN, Place("f", 3), must_be_here=True)
    fragments.finish([], linked=FILES, chains={CHAIN, OTHER_CHAIN})
    assert _kinds(findings) == []


def test_braces_in_a_line_that_was_begun_begin_no_other(fragments: Fragments, findings: Findings) -> None:
    start = start_of(CHAIN, 5, previous=FIRST_PREVIOUS)
    content = start + b'"subject":"{{user}}' * 20
    fragments.take(content, Place("f", 1), ended=False)
    fragments.take(content[:-9] + THREE, Place("f", 3), ended=True)
    fragments.own(cut_of(content[:-9]), CHAIN, Place("f", 4), must_be_here=True)
    fragments.own(cut_of(THREE), OTHER_CHAIN, Place("f", 5), must_be_here=True)
    fragments.finish([("f", start)], linked=FILES, chains={CHAIN, OTHER_CHAIN})
    assert _kinds(findings) == [("cut", 1)]


def test_many_fragments_of_many_pieces_are_judged_soon(fragments: Fragments, findings: Findings) -> None:
    """Whoever may write the file makes nobody wait for hours: it took minutes."""
    for number in range(100):
        fragments.take(b"{" * 8_000, Place("f", 2 * number), ended=True)
        fragments.own(cut_of(b"{" * (7_000 - number) + b"z"), CHAIN, Place("f", 500 + number), must_be_here=True)
    before = time.process_time()
    fragments.finish([("f", start_of(CHAIN, 5, previous=FIRST_PREVIOUS))], linked=FILES)
    assert time.process_time() - before < 10
    assert len(findings.in_order()) == 200
