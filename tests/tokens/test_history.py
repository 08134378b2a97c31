"""Versions of a history: what goes on, and what has begun anew or gone back."""

from __future__ import annotations

import pytest

from toucan_guard.tokens.history import goes_on, next_version

FIRST = next_version("")
SECOND = next_version(FIRST)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param(FIRST, FIRST, True, id="nothing has changed"),
        pytest.param(FIRST, SECOND, True, id="a change"),
        pytest.param(FIRST, next_version(FIRST), True, id="another change at the same time"),
        pytest.param(SECOND, next_version(FIRST), True, id="two changes at the same time, one over the other"),
        pytest.param(SECOND, FIRST, False, id="back in the same history"),
        pytest.param(FIRST, "", False, id="empty"),
        pytest.param(FIRST, next_version(""), False, id="another history"),
        pytest.param(FIRST, "0f" * 16, False, id="a version of something else"),
        pytest.param("", FIRST, True, id="it was empty before"),
        pytest.param("", "", True, id="it stays empty"),
        pytest.param("17", "18", True, id="a store that counts"),
        pytest.param("0f" * 16, "", True, id="what cannot be told"),
    ],
)
def test_a_history_goes_on_or_does_not(before: str, now: str, expected: bool) -> None:
    assert goes_on(before, now) is expected


def test_every_change_is_a_version_of_its_own() -> None:
    versions = {next_version(FIRST) for _ in range(100)}
    assert len(versions) == 100


@pytest.mark.parametrize(
    "odd", ["", "a", "a.b", "a.b.c", ".1.c", "a.-1.c", "a.1", "a.²...c", "a." + "9" * 400 + ".c", "\udce9.1.c"]
)
def test_after_what_is_no_version_a_history_begins(odd: str) -> None:
    begun = next_version(odd)
    assert goes_on(begun, next_version(begun))
    assert begun.split(".")[1] == "1" or odd == "\udce9.1.c"
