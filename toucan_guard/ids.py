"""Ids of requests, events and chains."""

from __future__ import annotations

import os
import time
from typing import Final

_VARIANT: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
# Random text for ids, fetched in advance. A child would give out the same as its parent, so it begins with none.
_randomness: Final[list[str]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_randomness.clear)


def new_id() -> str:
    """A UUIDv7 (RFC 9562 §5.7): sorts by time, and its random part does not repeat between workers."""
    try:
        random = _randomness.pop()  # one step of the interpreter, so that two threads never take the same
    except IndexError:
        random, *more = (os.urandom(10).hex() for _ in range(64))
        _randomness.extend(more)
    milliseconds = f"{time.time_ns() // 1_000_000:012x}"
    # The two bits of the variant, and two random ones beside them.
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7{random[:3]}-{_VARIANT[random[3]]}{random[4:7]}-{random[7:19]}"
