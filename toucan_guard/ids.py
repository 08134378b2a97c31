"""Ids of requests, events and chains."""

from __future__ import annotations

import os
import time
from typing import Final

_VARIANT: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}

_BATCH: Final = [f"{number:02x}" for number in range(256)]

# The random ends of ids, made in batches: 66 random bits and a count. A child would give out the same as its parent, so
# it begins with none.
_ends: Final[list[str]] = []
# The millisecond of the last id, and what its ids begin with. One object, so that two threads never mix two of them.
_now: tuple[int, str] = (0, "")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ends.clear)


def new_id() -> str:
    """A UUIDv7 (RFC 9562 §5.7): sorts by time, and its random part does not repeat between workers."""
    global _now  # noqa: PLW0603 - one for the process, as the ends are
    milliseconds = time.time_ns() // 1_000_000
    now = _now
    if now[0] != milliseconds:
        _now = now = milliseconds, milliseconds.to_bytes(6).hex("-", -4)
    try:
        return now[1] + _ends.pop()  # one step of the interpreter, so that two threads never take the same
    except IndexError:
        random = os.urandom(9).hex()
        # The version; then the two bits of the variant, and two random ones beside them.
        begun = f"-7{random[:3]}-{_VARIANT[random[3]]}{random[4:7]}-{random[7:17]}"
        end, *more = [begun + number for number in _BATCH]
        _ends.extend(more)
        return now[1] + end
