"""Chained logs in memory, as the guard writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from toucan_guard.audit.chain import Chain
from toucan_guard.audit.sinks import LineSink
from toucan_guard.audit.verdict import Verdict
from toucan_guard.audit.verify import ChainVerifier
from toucan_guard.core.audit_line import dump_json

KEY = b"correct-horse-battery-staple-0123456789"


class Memory:
    """A writer that keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def info(self, line: bytes) -> None:
        self.lines.append(line)

    def close(self) -> None:
        return


def decision(number: int = 0, **more: Any) -> dict[str, Any]:
    return {"schema": 1, "event": "decision", "event_id": f"e-{number}", "outcome": "allow", "status": 200, **more}


@pytest.fixture
def chained() -> Callable[..., list[bytes]]:
    """``chained(5)``: the lines of a chain with five events, from ``open`` to ``close``."""

    def make(events: int, *, key: bytes | None = None, close: bool = True) -> list[bytes]:
        memory = Memory()
        sink = LineSink(memory, Chain(key, settings="0123456789abcdef", dump=dump_json))
        for number in range(events):
            sink.write(decision(number))
        if close:
            sink.close()
        return memory.lines

    return make


@pytest.fixture
def judge() -> Callable[..., Verdict]:
    """``judge(lines, …)``: the verdict on lines of one file, or on several files in a mapping."""

    def verdict(files: Iterable[bytes] | dict[str, list[bytes]], key: bytes | None = None, **more: Any) -> Verdict:
        verifier = ChainVerifier(key, **more)
        named = files if isinstance(files, dict) else {"audit.jsonl": list(files)}
        for name, lines in named.items():
            for number, line in enumerate(lines, 1):
                verifier.feed(line, file=name, number=number)
        return verifier.finish()

    return verdict
