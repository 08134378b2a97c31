"""Many random edits of one large log of several workers: every one is found where it was made.

2,000 lines with 20 edits by default; ``TOUCAN_LONG=1`` makes it 100,000 lines with 1,000.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from toucan_guard.audit.verdict import Verdict

KEY = b"correct-horse-battery-staple-0123456789"
LINES, EDITS = (100_000, 1_000) if os.environ.get("TOUCAN_LONG") else (2_000, 20)


def _edit(dice: random.Random, window: list[bytes]) -> list[bytes]:
    """The window with one change in it."""
    edited = list(window)
    at = dice.randrange(len(window))
    line = window[at]
    byte = dice.randrange(len(line) - 1)
    match dice.randrange(8):
        case 0:  # a bit flips
            edited[at] = line[:byte] + bytes([line[byte] ^ (1 << dice.randrange(8))]) + line[byte + 1 :]
        case 1:  # a byte goes
            edited[at] = line[:byte] + line[byte + 1 :]
        case 2:  # a byte comes
            edited[at] = line[:byte] + bytes([dice.randrange(256)]) + line[byte:]
        case 3:  # lines go
            del edited[at : at + dice.randint(1, 5)]
        case 4:  # a line is repeated somewhere
            edited.insert(dice.randrange(len(window)), line)
        case 5:  # a line is moved
            edited.insert(dice.randrange(len(window)), edited.pop(at))
        case 6:  # a line is cut short
            edited[at] = line[:byte] + b"\n"
        case _:  # a line of somebody's own making
            edited.insert(at, line.replace(b'"allow"', b'"error"').replace(b'"seq":', b'"seq":1'))
    return _edit(dice, window) if edited == window or _harmless(window, edited) else edited


def _harmless(window: list[bytes], edited: list[bytes]) -> bool:
    """Whether every chain's lines stand where they stood among their own: only the interleaving is another."""
    if sorted(window) != sorted(edited):
        return False
    chains = {line[:46] for line in window}
    return all([x for x in window if x[:46] == c] == [x for x in edited if x[:46] == c] for c in chains)


@pytest.mark.parametrize("key", [None, KEY], ids=["without a key", "keyed"])
def test_every_edit_is_found_where_it_was_made(
    key: bytes | None, chained: Callable[..., list[bytes]], judge: Callable[..., Verdict]
) -> None:
    dice = random.Random(20261126)
    workers = [chained(LINES // 4 - 2, key=key) for _ in range(4)]
    lines: list[bytes] = []
    while workers:
        worker = dice.choice(workers)
        lines.append(worker.pop(0))
        workers = [worker for worker in workers if worker]
    assert judge(lines, key).findings == ()

    windows = [lines[at : at + LINES // EDITS] for at in range(0, len(lines), LINES // EDITS)]
    assert len(windows) == EDITS
    edited: list[bytes] = []
    places: list[range] = []
    for window in windows:
        changed = _edit(dice, window)
        # What is missing at the end of a window shows at the next line of its chain, which comes within a few.
        places.append(range(len(edited) + 1, len(edited) + len(changed) + 60))
        edited += changed
    verdict = judge(edited, key)
    assert verdict.tampered
    assert verdict.more == 0
    told = sorted({finding.number for finding in verdict.findings if finding.tampering})
    missed = [place for place in places if not any(number in place for number in told)]
    assert missed == []
    # And nothing is said of windows' worth of lines that nobody touched: no more places than edits could make.
    assert len(told) <= 4 * EDITS
