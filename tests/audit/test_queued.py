"""best_effort: a slow pipe stalls nobody, a full queue drops the newest, and what was dropped is counted."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from toucan_guard.audit import queued
from toucan_guard.audit.chain import Chain
from toucan_guard.audit.open import open_sink
from toucan_guard.audit.queued import QueuedSink
from toucan_guard.audit.sinks import LineSink, StructlogSink
from toucan_guard.audit.writers import DescriptorWriter
from toucan_guard.core.audit_line import dump_json
from toucan_guard.core.errors import AuditWriteError


def event(number: int, **more: Any) -> dict[str, Any]:
    return {"schema": 1, "event": "decision", "event_id": f"e-{number}", **more}


class Gate:
    """A writer that waits until it is opened, and fails where it is told to."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.fail = 0
        self.lines: list[dict[str, Any]] = []

    def info(self, line: bytes) -> None:
        self.reached.set()
        assert self.open.wait(30)
        if self.fail:
            self.fail -= 1
            raise OSError(28, "No space left on device")
        self.lines.append(json.loads(line))

    def close(self) -> None:
        return


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def sink_of(gate: Any, size: int = 100) -> QueuedSink:
    return QueuedSink(LineSink(gate, Chain(None, settings=None, dump=dump_json), counts=True), size=size)


def told(gate: Gate) -> list[tuple[str, str | None, int | None]]:
    return [(line["event"], line.get("event_id"), line.get("dropped")) for line in gate.lines]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_events_are_written_in_their_order_and_the_chain_is_closed(gate: Gate) -> None:
    gate.open.set()
    sink = sink_of(gate)
    for number in range(5):
        sink.write(event(number))
    sink.close()
    assert told(gate) == [
        ("open", None, None), *[("decision", f"e-{number}", None) for number in range(5)], ("close", None, None)
    ]  # fmt: skip
    sink.close()  # twice is once


def test_nobody_waits_for_a_writer_that_hangs(gate: Gate) -> None:
    sink = sink_of(gate)
    for number in range(100):
        sink.write(event(number))  # this would never return, if it wrote
    assert gate.lines == []
    gate.open.set()
    sink.close()
    assert len(gate.lines) == 102


def test_a_full_queue_refuses_the_newest(gate: Gate) -> None:
    sink = sink_of(gate, size=3)
    sink.write(event(0))
    assert gate.reached.wait(20)  # the thread has taken the first, and hangs
    for number in (1, 2, 3):
        sink.write(event(number))
    for number in (4, 5):
        with pytest.raises(AuditWriteError, match="queue of events is full"):
            sink.write(event(number))
    gate.open.set()
    until(lambda: len(gate.lines) == 5)
    sink.close()
    assert told(gate)[1:] == [
        *[("decision", f"e-{number}", None) for number in range(4)],
        ("close", None, 2),  # nobody came after them
    ]


def test_what_fails_later_is_counted_in_the_next_event(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    gate.open.set()
    sink = sink_of(gate)
    sink.write(event(0))
    until(lambda: len(gate.lines) == 2)
    gate.fail = 3
    with caplog.at_level(logging.ERROR, logger="toucan_guard"):
        for number in (1, 2, 3):
            sink.write(event(number, **({"dropped": 4} if number == 2 else {})))
        sink.write(event(4))
        sink.close()
    assert told(gate)[1:] == [("decision", "e-0", None), ("decision", "e-4", 7), ("close", None, None)]
    assert [record.message for record in caplog.records] == [
        "toucan_guard audit: an audit line could not be written (No space left on device)"
    ] * 3


def test_what_hangs_to_the_end_is_told_to_the_operator(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queued, "_SECONDS_TO_END", 0.05)
    sink = sink_of(gate)
    sink.write(event(0))
    with caplog.at_level(logging.ERROR, logger="toucan_guard"):
        sink.close()
    assert "were not written in time" in caplog.text


def test_a_pipe_that_nobody_reads_does_not_stop_the_caller() -> None:
    reading, writing = os.pipe()
    sink = sink_of(DescriptorWriter(writing), size=2000)
    for number in range(2000):  # more than a pipe holds
        sink.write(event(number, filling="x" * 200))
    with os.fdopen(reading, "rb") as stream:
        closing = threading.Thread(target=lambda: (sink.close(), os.close(writing)))
        closing.start()
        lines = stream.readlines()
        closing.join(30)
    assert len(lines) == 2002


def test_the_mode_decides_whether_there_is_a_queue(tmp_path: Path) -> None:
    path = str(tmp_path / "audit.jsonl")
    assert isinstance(open_sink(path), LineSink)
    assert isinstance(open_sink(path, mode="best_effort"), QueuedSink)
    assert isinstance(open_sink("structlog", mode="best_effort"), StructlogSink)  # the host's own affair
