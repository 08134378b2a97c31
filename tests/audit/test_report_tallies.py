"""Counters with bounded memory: what they claim is true, and what they cannot know they say."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toucan_guard.audit.report.tallies import Tally, Top

NAMES = st.lists(st.text("abcdefghijklmno", min_size=1, max_size=1), max_size=400)


@given(names=NAMES, capacity=st.integers(2, 9))
def test_a_count_is_never_too_high_and_its_upper_bound_never_too_low(names: list[str], capacity: int) -> None:
    tally: Tally[str] = Tally(capacity)
    for index, name in enumerate(names):
        tally.count(name, f"{index:04d}")
        assert len(tally) <= capacity
    truth = Counter(names)
    assert tally.total == len(names)
    kept = dict(tally.ranked())
    for name, seen in kept.items():
        assert seen.count <= truth[name] <= seen.count + seen.missing
    for name in truth.keys() - kept.keys():
        assert tally.overflowed, name
    if not tally.overflowed:
        assert {name: seen.count for name, seen in kept.items()} == truth


def test_whatever_is_frequent_is_kept_however_many_others_there_are() -> None:
    tally: Tally[str] = Tally(100)
    for index in range(30_000):
        tally.count(f"once-{index}", "t")
        if index > 15_000 and index % 10 == 0:
            tally.count("late and frequent", "t")
    name, seen = next(tally.ranked())
    assert name == "late and frequent"
    assert seen.count <= 1_500 <= seen.count + seen.missing
    assert seen.missing < 700


def test_first_and_last_do_not_depend_on_the_order_of_lines() -> None:
    tally: Tally[str] = Tally(10)
    for time in ("2026-10-05", "2026-10-01", "2026-10-09"):
        tally.count("a", time)
    tally.known("a", "2026-09-01")
    seen = dict(tally.ranked())["a"]
    assert (seen.count, seen.first, seen.last) == (3, "2026-09-01", "2026-10-09")


def test_notes_are_few_and_the_rest_is_counted() -> None:
    seen = Tally[str](10).count("a", "t")
    for index in range(20):
        seen.note(f"note-{index}")
        seen.note("note-0")
    assert len(seen.notes) == 8
    assert (seen.notes["note-0"], seen.unnoted) == (21, 12)


@given(ranks=st.lists(st.tuples(st.sampled_from("abcdefghijklmnopqrst"), st.integers(0, 50)), max_size=300))
def test_the_highest_ranks_are_exact(ranks: list[tuple[str, int]]) -> None:
    top: Top[str] = Top(4)
    best: dict[str, int] = {}
    for name, rank in ranks:
        top.offer(name, rank, name.upper())
        best[name] = max(rank, best.get(name, rank))
    expected = sorted(best.values(), reverse=True)[:4]
    assert [rank for _, rank, _ in top.ranked()] == expected
    for name, rank, value in top.ranked():
        assert (best[name], name.upper()) == (rank, value)


@pytest.mark.parametrize("capacity", [0, 1, 2])
def test_the_smallest_tally_works(capacity: int) -> None:
    tally: Tally[str] = Tally(capacity)
    for name in "abcabcabc":
        tally.count(name, "t")
    assert tally.total == 9
    assert len(tally) <= 2
