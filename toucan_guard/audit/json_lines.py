"""The fastest JSON encoder that is installed; what it would write differently is left to the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toucan_guard.core.audit_line import Dump, dump_json


def fastest_dump() -> Dump:
    """orjson where the extra ``[orjson]`` is installed, else the standard library."""
    try:
        import orjson
    except ImportError:
        return dump_json

    encode, failed = orjson.dumps, (TypeError, ValueError)

    def dump(event: Mapping[str, Any]) -> bytes:
        try:
            line: bytes = encode(event)
        except failed:  # a lone surrogate
            return dump_json(event)
        # Beyond ASCII it would be raw UTF-8, with characters in it that end a line or move a cursor.
        return line if line.isascii() and line.find(b"\x7f") < 0 else dump_json(event)

    return dump
