"""Hints at what was meant, and that their work is bounded."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import pytest

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.hints import Hints, did_you_mean
from toucan_guard.core.rls_policy import RlsPolicy


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("carier", " (did you mean carrier?)"),
        ("zzz", ""),
        ("", ""),
        (7, ""),
        (None, ""),
        ("c" * 100_000, ""),
    ],
    ids=["a slip", "nothing like it", "nothing", "a number", "none", "very long"],
)
def test_what_is_meant(name: object, hint: str) -> None:
    assert did_you_mean(name, ("carrier", "airports")) == Hints()(name, ("carrier", "airports")) == hint


def test_hints_end_where_their_work_does() -> None:
    meant = Hints(most_compared=5)
    assert [bool(meant("carier", ("carrier", "airports"))) for _ in range(5)] == [True, True, True, False, False]
    # Somebody with thousands of names has the first hint all the same.
    assert Hints(most_compared=1)("carier", ["carrier", *map(str, range(5_000))]) == " (did you mean carrier?)"


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many names each search for a hint has looked at."""
    counts: list[int] = []
    find = difflib.get_close_matches

    def counting(name: str, known: Sequence[str], most: int) -> list[str]:
        counts.append(len(known))
        return find(name, known, most)

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    return counts


def test_a_policy_of_thousands_of_mistakes_tells_all_and_hints_at_the_first(compared: list[int]) -> None:
    declared = "".join(f"carrier{index} = 'string'\n" for index in range(2_000))
    rules = "".join(f"{{ column = 'c', op = 'eq', attribute = 'carier{index}' }},\n" for index in range(2_000))
    with pytest.raises(ConfigError) as caught:
        RlsPolicy.from_toml(f"[attributes]\n{declared}[tables.flights]\nall = [\n{rules}]\n")
    problems = caught.value.problems
    assert len(problems) == 2_000
    assert "(did you mean carrier0?)" in problems[0]
    assert problems[-1].endswith("the attribute 'carier1999' is not declared: declare it under [attributes]")
    assert sum(compared) <= 25_000


def test_what_a_host_sends_is_compared_with_little(compared: list[int]) -> None:
    policy = RlsPolicy.from_columns({f"flights.c{index}": f"carrier{index}" for index in range(100)})
    problems = policy.problems({f"carier{index}": "AA" for index in range(200)})
    assert "(did you mean carrier0?)" in problems[0]
    assert len(problems) == 300
    assert sum(compared) <= 1_100
