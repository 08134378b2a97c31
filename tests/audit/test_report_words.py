"""Words of the report: plain, right, and harmless whatever is quoted in them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toucan_guard.audit.report import words
from toucan_guard.core.decisions import Reason


@given(
    text=st.text(max_size=400) | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Mn", "Zl", "Zp"]), max_size=80)
)
def test_harmless_text_shows_everything_and_moves_nothing(text: str) -> None:
    shown = words.harmless(text)
    assert len(shown) <= 301
    assert shown.isprintable()
    marks = [unicodedata.category(character) in ("Mn", "Me") for character in shown]
    assert not any(all(marks[at : at + 3]) for at in range(len(marks) - 2)), "accents do not pile up"
    shown.encode("utf-8")  # no lone surrogate


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("Zürich 東京 🙂", "Zürich 東京 🙂", id="letters of all the world stay"),
        pytest.param("a\x1b[31mb\r\n\x00", "a\\x1b[31mb\\r\\n\\x00", id="control characters"),
        pytest.param(
            "a\u202eb\u200bc\u2028", "a\\u202eb\\u200bc\\u2028", id="writing turned round, nothing, a line's end"
        ),
        pytest.param("e\u0301\u0301\u0301\u0301", "e\u0301\u0301\\u0301\\u0301", id="accents on top of each other"),
        pytest.param("\ud800", "\\ud800", id="half a character"),
        pytest.param("x" * 400, "x" * 300 + "…", id="more than a reader can take"),
    ],
)
def test_harmless(text: str, shown: str) -> None:
    assert words.harmless(text) == shown


@pytest.mark.parametrize("reason", [*Reason, "x_office_hours", "unanswered", "token_from_the_future", "", "x_", "<b>"])
def test_every_reason_is_told(reason: str) -> None:
    told = words.told_of(str(reason))
    assert told.meaning
    assert told.mend
    assert (words.as_read(str(reason)) is None) is (reason not in list(Reason))


@pytest.mark.parametrize(
    ("part", "whole", "told"),
    [(0, 0, "0%"), (0, 9, "0%"), (1, 100_000, "under 0.1%"), (1, 40, "2.5%"), (99_999, 100_000, "over 99.9%"),
     (9, 9, "100%")],
)  # fmt: skip
def test_share(part: int, whole: int, told: str) -> None:
    assert words.share(part, whole) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-3, "0 seconds"), (1, "1 second"), (59, "59 seconds"), (60, "1 minute"), (75, "1 minute"), (300, "5 minutes"),
        (900, "15 minutes"), (3_599, "60 minutes"), (3_600, "1 hour"), (5_400, "2 hours"), (28_800, "8 hours"),
        (86_400, "24 hours"), (864_000, "10 days"),
    ],
)  # fmt: skip
def test_duration(seconds: float, told: str) -> None:
    assert words.duration(seconds) == told


@pytest.mark.parametrize(
    ("begins", "ends", "told"),
    [
        pytest.param("2026-10-01T00:00:00Z", "2026-10-31T23:00:00Z", "1 to 31 October 2026", id="a month"),
        pytest.param(
            "2026-09-30T00:00:00Z", "2026-10-31T23:00:00Z", "30 September to 31 October 2026", id="two months"
        ),
        pytest.param(
            "2025-12-01T00:00:00Z", "2026-01-31T00:00:00Z", "1 December 2025 to 31 January 2026", id="two years"
        ),
        pytest.param(
            "2026-10-01T08:00:00.123Z", "2026-10-01T09:30:00Z", "1 October 2026, 08:00 to 09:30 UTC", id="an hour"
        ),
        pytest.param("2026-10-01T08:00:01Z", "2026-10-01T08:00:59Z", "1 October 2026, 08:00 UTC", id="a minute"),
    ],
)
def test_period(begins: str, ends: str, told: str) -> None:
    assert words.period(begins, ends) == told


@pytest.mark.parametrize(
    ("names", "told"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c"),
     (list("abcde"), "a, b, c and 2 more"), (["a", "b, c"], "a and b, c")],
)  # fmt: skip
def test_listed(names: list[str], told: str) -> None:
    assert words.listed(names) == told


def test_a_count_that_is_not_certain_says_so() -> None:
    assert words.at_least(1_200, 1_200) == "1,200"
    assert words.at_least(1_200, 1_900) == "1,200 to 1,900"


@pytest.mark.parametrize("reason", ["embedder_not_allowed", "embedder_unknown"])
def test_what_nobody_may_frame_nobody_reads(reason: str) -> None:
    assert "empty frame" in str(words.as_read(reason))
    assert "“" in str(words.as_read("token_expired"))
