"""Read one line of the record as an event. What is no event is said to be none, and never raises."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final

from toucan_guard.audit.json_lines import fastest_load
from toucan_guard.core.audit_event import Event, is_event

OUTCOMES: Final = ("allow", "deny", "would_deny", "error")

_LONGEST: Final = 256  # what writes the record caps there too; a name of 60 KB is somebody else's
_MARK: Final = "…"
_MOST_TEXTS: Final = 16
_TIME: Final = re.compile(
    r"(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?Z"
)


class LineReader:
    """Lines in, events out. Remembers which days there are in the calendar, so that a date is looked at once."""

    def __init__(self) -> None:
        self._load = fastest_load()
        self._days: set[str] = set()

    def read(self, line: bytes) -> Event | str:
        """The event of a line, its ``time`` in UTC to the second or finer; or what is wrong with the line."""
        event = self._load(line)
        if not isinstance(event, dict):
            return "it is empty" if not line.strip() else "it is no JSON object"
        if not is_event(event):
            return "it is no event of the guard"
        time = event.get("time")
        if not isinstance(time, str):
            return "it does not say when it was written"
        if _TIME.fullmatch(time) is None or not self._is_day(time[:10]):
            utc = _in_utc(time)
            if utc is None:
                return "its time cannot be read"
            event["time"] = utc
        if event["event"] == "decision" and event.get("outcome") not in OUTCOMES:
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


def _in_utc(time: str) -> str | None:
    """A time that somebody's own pipeline writes in another way, as the guard writes it."""
    try:
        moment = datetime.fromisoformat(time)
        if moment.tzinfo is None or not 1900 <= moment.year < 2100:
            return None
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return None
