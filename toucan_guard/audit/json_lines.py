"""The fastest JSON library that is installed; what it does differently is left to the standard library."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
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


def fastest_load() -> Callable[[bytes], Any]:
    """orjson where the extra ``[orjson]`` is installed, else the standard library; None for what is no JSON."""
    try:
        from orjson import loads
    except ImportError:
        return _load

    def load(line: bytes) -> Any:
        try:
            return loads(line)
        except ValueError:  # a lone surrogate, which the standard library writes
            return _load(line)

    return load


def _load(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
