"""The corpora that others wrote, and one line for each in the run's summary.

A corpus is read in place and never copied; where it is absent its test is
skipped with that reason, so that nobody takes an empty run for agreement.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class ConformanceReport:
    """Collects what each corpus said, for the end of the run."""

    lines: list[str] = field(default_factory=list)

    def add(self, corpus: str, rows: int, agreed: int, deviations: Sequence[tuple[str, str]] = ()) -> None:
        """Record one corpus: how many rows were tried, how many agreed, and each deviation with its reason."""
        self.lines.append(f"{corpus}: {agreed} of {rows} rows agree, {len(deviations)} deviate on purpose")
        reasons: dict[str, int] = {}
        for _, reason in deviations:
            reasons[reason] = reasons.get(reason, 0) + 1
        self.lines.extend(f"    {count} x {reason}" for reason, count in reasons.items())


_REPORT = pytest.StashKey[ConformanceReport]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPORT] = ConformanceReport()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash[_REPORT].lines
    if lines:
        terminalreporter.section("conformance")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def conformance_report(pytestconfig: pytest.Config) -> ConformanceReport:
    """Where a conformance test says how many rows agreed; printed at the end of the run."""
    return pytestconfig.stash[_REPORT]


@pytest.fixture(scope="session")
def load_corpus() -> Callable[[str], Any]:
    """Read a corpus by its file name, or skip the test where it is not there."""
    default = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"
    folder = Path(os.environ.get("TOUCAN_CORPORA", default))

    def load(name: str) -> Any:
        path = folder / name
        if not path.is_file():
            pytest.skip(f"the corpus {name} is not in {folder} (set TOUCAN_CORPORA)")
        return json.loads(path.read_text(encoding="utf-8"))

    return load
