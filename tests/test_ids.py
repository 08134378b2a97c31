"""Ids sort by time and do not repeat."""

from __future__ import annotations

import time
from uuid import UUID

import pytest

from toucan_guard.ids import new_id


def test_ids_are_uuids_that_sort_by_time_and_do_not_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.time_ns() // 1_000_000
    ids = [UUID(new_id()) for _ in range(2000)]
    assert len(set(ids)) == 2000
    for one in ids:
        assert (one.version, one.variant) == (7, "specified in RFC 4122")
    assert before <= ids[0].int >> 80 <= time.time_ns() // 1_000_000
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    early = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 1_001_000_000)
    assert early < new_id()
    assert early.startswith("00000000-03e8-7")
