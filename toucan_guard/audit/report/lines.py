"""Read one line of the record as an event. What is no event is said to be none, and never raises."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from toucan_guard.core.audit_event import Event

OUTCOMES: Final = ("allow", "deny", "would_deny", "error")

_KINDS: Final = frozenset({"decision", "completion", "open", "close"})
_LONGEST: Final = 256  # what writes the record caps there too; a name of 60 KB is somebody else's
_MARK: Final = "…"
_MOST_TEXTS: Final = 16
_TIME: Final = re.compile(
    r"(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?Z"
)
_CHAINED: Final = b'{"chain":"'


def fastest_load() -> Callable[[bytes], Any]:
    """orjson where the extra ``[orjson]`` is installed, else the standard library."""
    try:
        import orjson
    except ImportError:
        return json.loads
    load: Callable[[bytes], Any] = orjson.loads
    return load


class LineReader:
    """Lines in, events out. Remembers which days there are in the calendar, so that a date is looked at once."""

    def __init__(self) -> None:
        self._load = fastest_load()
        self._days: set[str] = set()

    def read(self, line: bytes) -> Event | str:
        """The event of a line, its ``time`` in UTC to the second or finer; or what is wrong with the line."""
        try:
            event = self._load(line)
        except (ValueError, RecursionError):
            event = _read_slowly(line)
        if not isinstance(event, dict):
            return "it is empty" if not line.strip() else "it is no JSON object"
        kind = event.get("event")
        if not isinstance(kind, str) or kind not in _KINDS:
            return "it is no event of the guard"
        time = event.get("time")
        if not isinstance(time, str):
            return "it does not say when it was written"
        if _TIME.fullmatch(time) is None or not self._is_day(time[:10]):
            utc = _in_utc(time)
            if utc is None:
                return "its time cannot be read"
            event["time"] = utc
        if kind == "decision" and event.get("outcome") not in OUTCOMES:
            return "its outcome is none that the guard knows"
        return event

    def _is_day(self, day: str) -> bool:
        if day in self._days:
            return True
        try:
            datetime.fromisoformat(day)
        except ValueError:
            return False
        self._days.add(day)
        return True


def text_of(event: Event, name: str) -> str | None:
    """A member that should be text; capped, and None where it is anything else or empty."""
    value = event.get(name)
    if not isinstance(value, str) or not value:
        return None
    return value if len(value) <= _LONGEST else capped(value)


def texts_of(event: Event, name: str) -> tuple[str, ...]:
    """A member that should be a list of texts; capped, and empty where it is anything else."""
    value = event.get(name)
    if not isinstance(value, list):
        return ()
    more = len(value) - _MOST_TEXTS
    texts = tuple(
        [text if len(text) <= _LONGEST else capped(text) for text in value[:_MOST_TEXTS] if isinstance(text, str)]
    )
    return (*texts, f"{_MARK} {more} more") if more > 0 else texts


def capped(text: str) -> str:
    """Text of a length that can be kept a few thousand times."""
    return text if len(text) <= _LONGEST else text[:_LONGEST] + _MARK


def number_of(event: Event, name: str) -> float | None:
    """A member that should be a number; None where it is anything else, or no finite one."""
    value = event.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        return None
    return value if math.isfinite(value) else None


def _read_slowly(line: bytes) -> Any:
    """What orjson refuses and the standard library writes (a lone surrogate); a line behind one that was cut."""
    for start in (0, line.rfind(_CHAINED, 1)):
        if start < 0:
            break
        try:
            return json.loads(line[start:])
        except (ValueError, RecursionError):
            continue
    return None


def _in_utc(time: str) -> str | None:
    """A time that somebody's own pipeline writes in another way, as the guard writes it."""
    try:
        moment = datetime.fromisoformat(time)
        if moment.tzinfo is None or not 1900 <= moment.year < 2100:
            return None
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return None
