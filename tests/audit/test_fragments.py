"""Fragments: what a chain owns up to is no fault, wherever it stands; what nobody knows is evidence."""

from __future__ import annotations

import pytest

from toucan_guard.audit.fragments import Fragments
from toucan_guard.audit.verdict import Findings, Place
from toucan_guard.core.audit_chain import cut_of, start_of

CHAIN = "019ab2c4-5d6e-7f80-9a1b-2c3d4e5f6071"
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
    fragments.finish([])
    assert _kinds(findings) == []


def test_what_nobody_owns_is_evidence(fragments: Fragments, findings: Findings) -> None:
    fragments.take(ONE, Place("f", 1), ended=True)
    fragments.take(ONE + b"!", Place("f", 2), ended=True)
    fragments.own(cut_of(ONE), CHAIN, Place("f", 3), must_be_here=True)
    fragments.finish([])
    assert _kinds(findings) == [("inserted", 2)]


def test_what_is_owned_must_be_there_where_its_neighbours_are(fragments: Fragments, findings: Findings) -> None:
    fragments.take(TWO, Place("f", 1), ended=True)
    fragments.own(cut_of(ONE), CHAIN, Place("f", 3), must_be_here=True)
    fragments.own(cut_of(THREE + TWO), CHAIN, Place("f", 4), must_be_here=False)  # in a file that was not given
    fragments.own(cut_of(TWO), CHAIN, Place("f", 5), must_be_here=False)
    fragments.finish([])
    assert _kinds(findings) == [("dropped", 3)]


def test_a_fragment_in_a_file_that_comes_later(fragments: Fragments, findings: Findings) -> None:
    fragments.own(cut_of(ONE), CHAIN, Place("new", 1), must_be_here=False)
    fragments.take(ONE, Place("old", 9), ended=True)
    fragments.finish([])
    assert _kinds(findings) == []


def test_the_beginning_of_a_next_line_belongs_to_one_chain_that_was_not_closed(
    fragments: Fragments, findings: Findings
) -> None:
    start = start_of(CHAIN, 5)
    for number, content in enumerate((start + b'"prev"', start[:20], b"x" + start), 1):
        fragments.take(content, Place("f", number), ended=False)
    fragments.finish([start])
    assert _kinds(findings) == [("cut", 1), ("inserted", 2), ("inserted", 3)]


@pytest.mark.parametrize(
    ("content", "ended"), [(b'"event":"close"', True), (b'"event":"close"}', False)], ids=["a newline", "an object"]
)
def test_what_looks_like_a_next_line_and_was_not_stopped_is_evidence(
    content: bytes, ended: bool, fragments: Fragments, findings: Findings
) -> None:
    start = start_of(CHAIN, 5)
    fragments.take(start + content, Place("f", 1), ended=ended)
    fragments.finish([start])
    assert _kinds(findings) == [("inserted", 1)]


def test_very_many_and_very_long_ones_are_not_remembered(fragments: Fragments, findings: Findings) -> None:
    fragments.take(b"x" * 9000, Place("f", 1), ended=True)
    for number in range(2, 150):
        fragments.take(ONE, Place("f", number), ended=True)
    assert len(_kinds(findings)) == 1 + 48
    for number in range(200, 350):
        fragments.own(cut_of(TWO), CHAIN, Place("f", number), must_be_here=True)
    assert len(_kinds(findings)) == 1 + 48 + 50
