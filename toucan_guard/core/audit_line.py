"""An audit event as one line: ASCII, at most 4,096 bytes whatever is in it; what does not fit is capped and marked.

Longer writes of several processes into one pipe would interleave (POSIX PIPE_BUF). orjson may do the
encoding where it is installed; what it would write differently is left to the standard library, so that
both write lines of the same meaning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from toucan_guard.core.audit_event import Event

MAX_LINE_BYTES: Final = 4096

Dump = Callable[[Mapping[str, Any]], bytes]

_MARK: Final = "…"
_encode: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
# Tried in turn until the line fits: characters of a string, entries of a list.
_CAPS: Final = ((256, 32), (96, 12), (32, 4))
# Short by construction; cut, they would no longer find each other.
_IDS: Final = frozenset({"event_id", "request_id", "decision_id"})
# What stays of an event that no cap could make fit.
_ESSENTIAL: Final = _IDS | frozenset(
    {"schema", "event", "time", "outcome", "reason", "status", "method", "subject", "tenant", "dropped"}
)
_LARGEST: Final = 2**63  # more than any number that is recorded, and than readers of JSON take


def dump_json(event: Mapping[str, Any]) -> bytes:
    """The event as JSON in ASCII, without any cap."""
    return _encode(event).encode("ascii")


def encode_line(event: Mapping[str, Any], *, max_bytes: int = MAX_LINE_BYTES, dump: Dump = dump_json) -> bytes:
    """The event as one JSON line of ASCII bytes, its newline included, at most ``max_bytes``.

    Control characters, lone surrogates and everything outside ASCII are escaped; NaN and infinities become null.

    Args:
        event: What to write.
        max_bytes: The room that there is, 2,048 at the least.
        dump: Encodes what is capped already; must return ASCII.
    """
    try:
        line = dump(event)
    except (TypeError, ValueError):
        pass  # what JSON cannot say becomes null below
    else:
        if len(line) < max_bytes:
            return line + b"\n"  # nearly every line
    for characters, entries in _CAPS:
        line = dump(_capped_event(event, characters, entries))
        if len(line) < max_bytes:
            return line + b"\n"
    essential = {name: value for name, value in event.items() if name in _ESSENTIAL}
    return dump({**_capped_event(essential, *_CAPS[-1]), "truncated": True}) + b"\n"


def _capped_event(event: Mapping[str, Any], characters: int, entries: int) -> Event:
    return {name: value if name in _IDS else _capped(value, characters, entries) for name, value in event.items()}


def _capped(value: Any, characters: int, entries: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= characters else value[:characters] + _MARK
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        kept = {
            _capped(str(name), characters, entries): _capped(item, characters, entries)
            for name, item in list(value.items())[:entries]
        }
        return kept if len(value) <= entries else {**kept, _MARK: len(value) - entries}
    if isinstance(value, list | tuple):
        kept_items = [_capped(item, characters, entries) for item in value[:entries]]
        return kept_items if len(value) <= entries else [*kept_items, f"{_MARK} {len(value) - entries} more"]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -_LARGEST <= value < _LARGEST else None
    if value is None or isinstance(value, bool):
        return value
    return _capped(str(value), characters, entries)
