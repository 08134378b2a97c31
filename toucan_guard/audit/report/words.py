"""Numbers, times and reasons in words, for readers who are no developers; and text that does no harm."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from toucan_guard.audit.report.hours import moment_of
from toucan_guard.core.decisions import EXPLANATIONS, Reason
from toucan_guard.core.reason_table import REASON_TABLE, Told

_MONTHS: Final = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
_REASONS: Final = {reason.value: reason for reason in Reason}
_OWN: Final = re.compile(r"x_[A-Za-z0-9_]{1,62}")
_MARKS: Final = frozenset({"Mn", "Me"})  # accents and the like, which pile up over the lines around them
_MOST_MARKS: Final = 2
# Their answers may be framed by nobody, so that no viewer reads them.
_UNSEEN: Final = frozenset({Reason.EMBEDDER_NOT_ALLOWED, Reason.EMBEDDER_UNKNOWN})


def harmless(text: str, most: int = 300) -> str:
    """Text that shows what is in it: nothing hidden, nothing that moves the cursor, turns the writing round, or
    covers the lines around it; and not longer than a reader can take."""
    if text.isascii() and text.isprintable():
        shown = text
    else:
        parts: list[str] = []
        marks = 0
        for character in text:
            marks = marks + 1 if unicodedata.category(character) in _MARKS else 0
            shows = character.isprintable() and marks <= _MOST_MARKS
            parts.append(character if shows else character.encode("unicode_escape").decode("ascii"))
        shown = "".join(parts)
    return shown if len(shown) <= most else shown[:most] + "…"


def told_of(reason: str) -> Told:
    """A reason in words: what happened, and the mend."""
    if reason in _REASONS:
        known = _REASONS[reason]
        told = EXPLANATIONS[known]
        return REASON_TABLE.get(known) or Told(told.title, told.advice)
    if reason == "unanswered":
        return Told("the connection ended before anybody answered", "look at the log of the app and its server")
    if _OWN.fullmatch(reason):
        return Told("a rule of your own app", "ask the people who wrote the rule")
    return Told("a reason that this version does not know", "read the record with the version that wrote it")


def as_read(reason: str) -> str | None:
    """What a refused viewer reads or sees, as a sentence."""
    if reason in _UNSEEN:
        return "Viewers see an empty frame: the browser shows nothing in a page that may not frame it."
    return f"Viewers read: “{EXPLANATIONS[_REASONS[reason]].title}”." if reason in _REASONS else None


def number(value: float) -> str:
    """``1,234``."""
    return f"{value:,.0f}"


def at_least(count: int, at_most: int) -> str:
    """A count, and how much higher it may be where it is not certain."""
    return number(count) if at_most == count else f"{number(count)} to {number(at_most)}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 line``, ``2 lines``."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str:
    """A percentage that is 0% only for nothing and 100% only for everything."""
    if not whole or not part:
        return "0%"
    percent = 100 * part / whole
    if part == whole:
        return "100%"
    if percent < 0.1:
        return "under 0.1%"
    if percent > 99.9:
        return "over 99.9%"
    return f"{percent:.1f}%"


def day(time: str) -> str:
    """``7 October 2026``."""
    moment = moment_of(time)
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}"


def date(time: str) -> str:
    """``7 Oct 2026``, for tables."""
    return f"{short_day(time)} {time[:4]}"


def short_day(time: str) -> str:
    """``7 Oct``."""
    moment = moment_of(time)
    return f"{moment.day} {_MONTHS[moment.month - 1][:3]}"


def month(time: str) -> str:
    """``Oct 2026``."""
    moment = moment_of(time)
    return f"{_MONTHS[moment.month - 1][:3]} {moment.year}"


def full_month(time: str) -> str:
    """``October 2026``."""
    return f"{_MONTHS[moment_of(time).month - 1]} {time[:4]}"


def minute(time: str) -> str:
    """``7 October 2026, 14:05 UTC``."""
    return f"{day(time)}, {time[11:16]} UTC"


def period(begins: str, ends: str) -> str:
    """``1 to 31 October 2026``, with the least that is needed."""
    first, last = moment_of(begins), moment_of(ends)
    if begins[:16] == ends[:16]:
        return minute(begins)
    if first.date() == last.date():
        return f"{day(begins)}, {begins[11:16]} to {ends[11:16]} UTC"
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day} to {day(ends)}"
    if first.year == last.year:
        return f"{first.day} {_MONTHS[first.month - 1]} to {day(ends)}"
    return f"{day(begins)} to {day(ends)}"


def duration(seconds: float) -> str:
    """``5 minutes``, ``2 hours``, ``3 days``: to the nearest, for people."""
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size or (seconds >= size and name != "day" and seconds % size < 1):
            return plural(round(seconds / size), name)
    if 59.5 <= seconds < 90:
        return "1 minute"
    return plural(max(0, round(seconds)), "second")


def listed(names: list[str], most: int = 3) -> str:
    """``a, b and c``; ``a, b, c and 4 more``."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {number(len(names) - most)} more"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
