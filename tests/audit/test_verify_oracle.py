"""A verdict without evidence means what it says, whatever was done to whichever of several files.

An oracle looks at the bytes: where nothing is found, every line is genuine, no number stands twice or out of order in
a file, none is missing, and what is no line is told. 150 cases by default; ``TOUCAN_LONG=1`` makes it 20,000.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterable

import pytest

from toucan_guard.audit.chain import Chain
from toucan_guard.audit.verdict import Verdict
from toucan_guard.core.audit_chain import Link, read_link
from toucan_guard.core.audit_event import close_event
from toucan_guard.core.audit_line import dump_json

KEY = b"correct-horse-battery-staple-0123456789"
CASES = 20_000 if os.environ.get("TOUCAN_LONG") else 150
START = b'{"chain":"'
# As much of the beginning of a line as names the line before it; what is behind that proves nothing.
NAMED = 102

Files = dict[str, list[bytes]]
Judge = Callable[..., Verdict]


def _record(dice: random.Random, key: bytes | None) -> list[bytes]:
    workers = []
    for events in (8, 4, 2):
        chain = Chain(key, settings=None, dump=dump_json)
        event = {"schema": 1, "event": "decision", "outcome": "allow"}
        lines = [chain.link(chain.begin()), *(chain.link(event) for _ in range(events))]
        if dice.random() < 0.5:
            lines.append(chain.link(close_event(now=0, dropped=0)))
        workers.append(lines)
    record: list[bytes] = []
    while workers := [worker for worker in workers if worker]:
        record.append(dice.choice(workers).pop(0))
    return record


def _pieces(dice: random.Random, record: list[bytes]) -> Files:
    files = {}
    for number in range(dice.randint(1, 4)):
        first, last = sorted(dice.sample(range(len(record) + 1), 2))
        files[f"f{number}"] = record[first:last] if dice.random() < 0.7 else list(record)
    return files


def _edit(dice: random.Random, lines: list[bytes], record: list[bytes]) -> list[bytes]:
    edited = [line for line in lines if len(line) > 1]
    if not edited:
        return edited
    at = dice.randrange(len(edited))
    anywhere = dice.randrange(len(edited) + 1)
    line = edited[at]
    byte = dice.randrange(len(line) - 1)
    match dice.randrange(9):
        case 0:
            del edited[at]
        case 1:
            edited.insert(anywhere, dice.choice(record))
        case 2:
            other = dice.randrange(len(edited))
            edited[at], edited[other] = edited[other], edited[at]
        case 3:
            edited.insert(dice.randrange(len(edited)), edited.pop(at))
        case 4:
            edited[at] = line[:byte] + bytes([line[byte] ^ (1 << dice.randrange(8))]) + line[byte + 1 :]
        case 5:
            edited[at] = line[:-1] + b"\r\n"
        case 6:
            edited[at] = line[:byte]
        case 7:
            edited.insert(at, line[:byte] + dice.choice([b"", b"\n"]))
        case _:
            edited = [each[:-1] + b"\r\n" if each.endswith(b"\n") else each for each in edited]
    return edited


def _lines_of(pieces: Iterable[bytes]) -> list[bytes]:
    """The lines as a reader of the file meets them."""
    return [line for line in re.split(b"(?<=\n)", b"".join(pieces)) if line]


def _links(line: bytes, genuine: set[bytes], kinds: set[str]) -> list[Link]:
    """The genuine lines that stand on one; whatever else stands there has to be the beginning of one, and told."""
    content = line.rstrip(b"\r\n")
    parts = [part for part in re.split(b"(?=" + re.escape(START) + b")", content) if part]
    whole = [part for part in parts if part in genuine]
    for part in parts:
        # Behind the beginning of a line there may be the first bytes of the next one.
        begun = [part, *(part[:-length] for length in range(1, len(START)) if part.endswith(START[:length]))]
        assert part in genuine or any(each.startswith(one[:NAMED]) for each in genuine for one in begun), line
    assert len(parts) <= 1 or {"cut", "joined"} & kinds, line
    assert len(parts) == len(whole) or "cut" in kinds, line
    return [link for link in map(read_link, whole) if link is not None]


def _look_at(files: Files, record: list[bytes], verdict: Verdict) -> None:
    genuine = {line[:-1] for line in record}
    kinds = {finding.kind for finding in verdict.findings}
    seen: dict[str, set[int]] = {}
    for lines in files.values():
        last: dict[str, int] = {}
        for line in lines:
            for link in _links(line, genuine, kinds):
                before = last.get(link.chain, link.number - 1)
                assert link.number > before
                assert link.number == before + 1 or "scattered" in kinds
                last[link.chain] = link.number
                seen.setdefault(link.chain, set()).add(link.number)
    assert all(len(numbers) == max(numbers) - min(numbers) + 1 for numbers in seen.values())
    assert sum(map(len, seen.values())) == verdict.lines


@pytest.mark.parametrize("key", [None, KEY], ids=["without a key", "keyed"])
def test_where_nothing_is_found_everything_is_as_it_was_written(key: bytes | None, judge: Judge) -> None:
    clean = 0
    records = [_record(random.Random(seed), key) for seed in range(5)]
    for seed in range(CASES // 2):
        dice = random.Random(seed)
        record = records[seed % 5]
        pieces = _pieces(dice, record)
        for _ in range(dice.choice([0, 1, 1, 2, 3])):
            name = dice.choice(list(pieces))
            pieces[name] = _edit(dice, pieces[name], record)
        files = {name: _lines_of(lines) for name, lines in pieces.items()}
        verdict = judge(files, key)
        for _ in range(2):
            order = dice.sample(list(files), len(files))
            other = judge({name: files[name] for name in order}, key)
            assert (other.tampered, other.unproved, other.lines) == (verdict.tampered, verdict.unproved, verdict.lines)
        if not verdict.tampered and not verdict.unproved:
            clean += 1
            _look_at(files, record, verdict)
    assert clean > CASES // 10
