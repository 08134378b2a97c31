"""The table of reasons is whole, and it is the README's."""

from __future__ import annotations

from pathlib import Path

import pytest

from toucan_guard.core.decisions import EXPLANATIONS, Reason
from toucan_guard.core.reason_table import REASON_TABLE

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.parametrize("reason", list(Reason))
def test_the_readme_tells_every_reason_in_these_words(reason: Reason) -> None:
    told = REASON_TABLE[reason]
    row = f"\n| `{reason}` | {EXPLANATIONS[reason].status} | {told.meaning} | {told.mend} |\n"
    assert row in README.read_text(encoding="utf-8")


def test_nothing_is_told_that_is_no_reason() -> None:
    assert set(REASON_TABLE) == set(Reason)
