"""Values that are made quickly are the values that their class makes."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from toucan_guard.core.embed import Embed, make_embed
from toucan_guard.core.sealed import sealing


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    seen: list[int] = field(default_factory=list, init=False, compare=False)
    note: str = field(default="none", init=False)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x")

    @property
    def both(self) -> tuple[int, int]:
        return self.x, self.y


make = sealing(Point)


def test_it_is_of_the_class_and_equal_to_what_the_class_makes() -> None:
    made = make(1)
    assert type(made) is Point
    assert (made, hash(made), repr(made), made.both) == (Point(1), hash(Point(1)), repr(Point(1)), (1, 2))
    assert make(1, y=3) == make(x=1, y=3) == Point(1, 3) != made
    assert replace(made, y=4) == copy.deepcopy(make(1, 4)) == Point(1, 4)


def test_it_is_closed() -> None:
    made = make(1)
    for name in ("x", "note"):
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, 5)
    with pytest.raises(FrozenInstanceError):
        del made.x
    assert not hasattr(made, "__dict__")
    assert made == Point(1)


def test_two_values_share_nothing_that_a_default_makes() -> None:
    first, second = make(1), make(1)
    first.seen.append(7)
    assert (second.seen, make(1).seen, first.note) == ([], [], "none")


def test_arguments_are_those_of_the_class_and_are_not_looked_at() -> None:
    for arguments in ({}, {"x": 1, "z": 2}, {"x": 1, "note": "set"}):
        with pytest.raises(TypeError):
            make(**arguments)
    with pytest.raises(ValueError, match="x"):
        Point(-1)
    assert make(-1).x == -1


def test_the_classes_own_constructor_stays_as_it_is() -> None:
    made = make_embed("u", "AA", (), None, "https://host.example", "t", 1.0, None)
    assert made == Embed("u", "AA", (), None, "https://host.example", "t", 1.0)
    with pytest.raises(FrozenInstanceError):
        Embed("u", "AA", (), None, "https://host.example", "t", 1.0).tenant = "BB"  # type: ignore[misc]
