"""The audit report reads the same with orjson and without."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from toucan_guard.audit.report.lines import LineReader

pytest.importorskip("orjson")


def test_orjson_and_the_standard_library_read_the_same(traffic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [*traffic.month(300), *traffic.naughty(["\ud800", "\x00\x1f", "é東🙂", "9" * 400, "[" * 2_000])]
    fast = [LineReader().read(line) for line in lines]
    monkeypatch.setitem(sys.modules, "orjson", None)
    assert [LineReader().read(line) for line in lines] == fast
