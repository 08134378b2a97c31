"""Whatever befalls honest writers, nobody is accused: disks that fill, rotation, copies, processes that are stopped.

Several workers write through their own sinks on a disk that is a dictionary: what room there is, who is stopped in the
middle of a line, when the file is renamed or copied, all of it is thrown with dice. 200 records by default;
``TOUCAN_LONG=1`` makes it 8,000.
"""

from __future__ import annotations

import errno
import os
import random
import re
from collections.abc import Callable
from contextlib import suppress

import pytest

from toucan_guard.audit import chain, writers
from toucan_guard.audit.sinks import LineSink
from toucan_guard.audit.verdict import Verdict
from toucan_guard.audit.writers import DescriptorWriter
from toucan_guard.core.audit_chain import MAX_CUTS
from toucan_guard.core.audit_line import dump_json
from toucan_guard.core.errors import AuditWriteError

KEY = b"correct-horse-battery-staple-0123456789"
RECORDS = 8_000 if os.environ.get("TOUCAN_LONG") else 200
ROOMS = (0, 1, 2, 5, 9, 10, 11, 20, 60, 100, 150, 300, 400, 600)

Judge = Callable[..., Verdict]


class Stopped(BaseException):
    """A process has ended in the middle of whatever it did."""


class Disk:
    """Files, and who writes into them; what stands in ``log`` is the file that is written."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.files = {"log": bytearray()}
        self.room: int | None = None
        self.stops_next = False
        self._open: list[bytearray] = []

    def open(self) -> int:
        self._open.append(self.files["log"])
        return len(self._open) - 1

    def is_open(self, descriptor: int) -> bool:
        """Whether the file that is written is still the one of this descriptor."""
        return self._open[descriptor] is self.files["log"]

    def write(self, descriptor: int, data: bytes) -> int:
        written = len(data)
        if self.stops_next:  # but not behind the newline that mends the line before
            written = self.dice.choice([0, *range(2, len(data))])
        if self.room is not None:
            if self.room < 2:
                raise OSError(errno.ENOSPC, "full")
            written = min(written, self.room)
            self.room -= written
        self._open[descriptor] += data[:written]
        if self.stops_next:
            raise Stopped
        return written

    def rotate(self) -> None:
        self.files[f"log.{len(self.files)}"] = self.files["log"]
        self.files["log"] = bytearray()

    def copy(self) -> None:
        self.files[f"copy.{len(self.files)}"] = bytearray(self.files[self.dice.choice(list(self.files))])


class Worker(DescriptorWriter):
    """Opens the file anew after a rotation; sometimes a line later."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk.open())
        self._disk = disk

    def info(self, line: bytes) -> None:
        if not self._disk.is_open(self._descriptor) and self._disk.dice.random() < 0.6:
            self._descriptor, self._mend = self._disk.open(), b""
        super().info(line)


def _record(dice: random.Random, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[bytes]]:
    disk = Disk(dice)
    monkeypatch.setattr(writers.os, "write", disk.write)
    monkeypatch.setattr(chain, "_version", lambda: "1.0.0")  # which takes longer than all else

    def start() -> LineSink:
        return LineSink(Worker(disk), chain.Chain(KEY, settings=None, dump=dump_json))

    workers = [start() for _ in range(dice.randint(1, 4))]
    often = {what: dice.choice([0, 0.04, 0.1]) for what in ("rotated", "copied", "stopped", "closed")}
    filling = dice.choice([0, 0.1, 0.4])
    for number in range(dice.randint(5, 60)):
        if dice.random() < often["rotated"]:
            disk.rotate()
        if dice.random() < often["copied"]:
            disk.copy()
        disk.room = dice.choice(ROOMS) if dice.random() < filling else dice.choice([None, disk.room])
        at = dice.randrange(len(workers))
        if len(workers[at]._chain._cuts) == MAX_CUTS:  # more are not told of
            disk.room = None
        stopped = dice.random() < often["stopped"]
        disk.stops_next = stopped and dice.random() < 0.7
        event = {"schema": 1, "event": "decision", "event_id": f"e-{number}", "f": "x" * dice.choice([0, 30, 200])}
        with suppress(AuditWriteError, Stopped):
            workers[at].write(event)
        disk.stops_next = False
        if stopped or dice.random() < often["closed"]:
            if not stopped:
                workers[at].close()
            workers[at] = start()
    names = dice.sample(list(disk.files), len(disk.files))
    return {name: [line for line in re.split(b"(?<=\n)", bytes(disk.files[name])) if line] for name in names}


def test_honest_records_accuse_nobody(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    accused = []
    for seed in range(RECORDS):
        with monkeypatch.context() as patched:
            files = _record(random.Random(seed), patched)
        verdict = judge(files, KEY)
        if verdict.tampered or verdict.unproved:
            accused.append((seed, verdict.findings))
    assert accused == []
