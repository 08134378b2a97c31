"""What was met of a chain, in whatever order: found again, and a few bytes for each line."""

from __future__ import annotations

import random
import tracemalloc
from typing import NamedTuple

import pytest

from toucan_guard.audit.seen import UNSOUND, SeenLines, make_marks
from toucan_guard.core.audit_chain import Link


class _Met(NamedTuple):
    file: str
    mark: int


@pytest.mark.parametrize("seed", range(20))
def test_what_was_met_is_known_again(seed: int) -> None:
    dice = random.Random(seed)
    seen, model = SeenLines(), dict[int, _Met]()
    for _ in range(40):
        file, first, step = f"f{dice.randrange(4)}", dice.randrange(30), dice.choice([1, 1, 1, 2, -1])
        for number in range(first, first + step * dice.randrange(1, 12), step):
            if number < 0:
                continue
            mark = dice.randrange(3)
            before = seen.meet(number, file, mark)
            known = model.get(number)
            assert (None if before is None else tuple(before)) == known
            if known is None:
                model[number] = _Met(file, mark)
            elif known.mark == UNSOUND:
                model[number] = known._replace(mark=mark)
            assert seen.count == len(model)


def test_numbers_beyond_all() -> None:
    seen = SeenLines()
    assert seen.meet(10**17, "f", 1) is None
    assert seen.meet(0, "f", 2) is None
    assert seen.meet(10**17, "g", 3) == ("f", 1)


def test_a_line_costs_few_bytes() -> None:
    tracemalloc.start()
    seen = SeenLines()
    for number in range(200_000):
        seen.meet(number, "f", number + 2**60)
    cost = tracemalloc.get_traced_memory()[0]
    for number in range(200_000):
        seen.meet(number, "copy", number + 2**60)
    assert tracemalloc.get_traced_memory()[0] - cost < 4096
    tracemalloc.stop()
    assert cost < 10 * 200_000


def test_a_mark_is_of_all_bytes_and_of_one_verification() -> None:
    link = Link("c", 7, "p", "decision", keyed=True, digest="ab", body=b"{", cuts=())
    mark = make_marks()
    # What was read of the bytes is not looked at; and of a sound line its digest says what they are.
    assert mark(link, sound=False) == mark(link._replace(event="close"), sound=False)
    assert mark(link, sound=True) == mark(link._replace(body=b"}"), sound=True)
    others = (link._replace(digest="ac"), link._replace(body=b"}"), link._replace(keyed=False))
    marks = {mark(other, sound=False) for other in (link, *others)}
    sound = {mark(other, sound=True) for other in (link, others[0])}
    assert len({UNSOUND, *marks, *sound, make_marks()(link, sound=False), make_marks()(link, sound=True)}) == 9
