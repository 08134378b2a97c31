"""Ids of requests, events and chains."""

from __future__ import annotations

import os
import time
from uuid import UUID


def new_id() -> str:
    """A UUIDv7 (RFC 9562 §5.7): sorts by time, and its random part does not repeat between workers."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    return str(
        UUID(
            int=(milliseconds & 0xFFFFFFFFFFFF) << 80
            | 0x7 << 76
            | (random >> 68 & 0xFFF) << 64
            | 0b10 << 62
            | random & 0x3FFFFFFFFFFFFFFF
        )
    )
