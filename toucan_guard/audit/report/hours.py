"""Requests over time, minute by minute at first; and when there were unusually many refusals of one reason.

A record of days is kept hour by hour, one of years day by day, or month by month: the memory stays bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from toucan_guard.audit.report.figures import Burst, Slot, Unit

UNITS: Final[tuple[Unit, ...]] = ("minute", "hour", "day", "week", "month")
ALLOWED, REFUSED, WOULD_REFUSE, FAILED = range(4)

_MINUTE, _HOUR, _DAY, _MONTH = 16, 13, 10, 7  # characters of a time that name its minute, hour, day and month
_MOST: Final = {_MINUTE: 400, _HOUR: 2_400, _DAY: 4_000, _MONTH: 3_000}
_LONGER: Final = {_MINUTE: _HOUR, _HOUR: _DAY, _DAY: _MONTH}
_MOST_REASONS: Final = 64  # in one hour
_OTHER: Final = "…"
_FEWEST_TO_TELL: Final = 6  # hours or days, to know what is usual
_FEWEST: Final = 20  # refusals in an hour that are worth a word
_FACTOR: Final = 5
_MOST_BURSTS: Final = 12
_STEPS: Final = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
}


class _Reason:
    """Refusals of one reason in one hour; and by a vote (Boyer and Moore, 1981) the site that sent most of them."""

    __slots__ = ("count", "site", "votes")

    def __init__(self) -> None:
        self.count = 0
        self.site: str | None = None
        self.votes = 0  # the site sent certainly as many

    def add(self, other: _Reason) -> None:
        self.count += other.count
        self.vote(other.site, other.votes)

    def vote(self, site: str | None, votes: int) -> None:
        if site == self.site:
            self.votes += votes
        elif votes > self.votes:
            self.site, self.votes = site, votes - self.votes
        else:
            self.votes -= votes


class _Hour:
    __slots__ = ("counts", "reasons")

    def __init__(self) -> None:
        self.counts = [0, 0, 0, 0]
        self.reasons: dict[str, _Reason] = {}

    def reason(self, name: str) -> _Reason:
        kept = self.reasons.get(name)
        if kept is None:
            if len(self.reasons) >= _MOST_REASONS:
                name = _OTHER
            kept = self.reasons.setdefault(name, _Reason())
        return kept


class Hours:
    """Counts requests by hour."""

    def __init__(self) -> None:
        self._width = _MINUTE
        self._hours: dict[str, _Hour] = {}

    def count(self, time: str, outcome: int) -> None:
        """Count one request; ``outcome`` is ``ALLOWED`` or one of those beside it."""
        self._hour(time).counts[outcome] += 1

    def refuse(self, time: str, reason: str, site: str | None) -> None:
        """Count one refusal by its reason; ``count`` counts it as a request."""
        kept = self._hour(time).reason(reason)
        kept.count += 1
        kept.vote(site, 1)

    def _hour(self, time: str) -> _Hour:
        name = time[: self._width]
        hour = self._hours.get(name)
        if hour is None:
            if len(self._hours) >= _MOST[self._width]:
                self._fold()
                name = time[: self._width]
            hour = self._hours.setdefault(name, _Hour())
        return hour

    def _fold(self) -> None:
        """Hours in place of minutes, days in place of hours, months in place of days."""
        self._width = _LONGER[self._width]
        hours, self._hours = self._hours, {}
        for name, hour in hours.items():
            longer = self._hours.setdefault(name[: self._width], _Hour())
            longer.counts = [a + b for a, b in zip(longer.counts, hour.counts, strict=True)]
            for reason, kept in hour.reasons.items():
                longer.reason(reason).add(kept)

    def timeline(self, begins: str, ends: str) -> tuple[Unit, tuple[Slot, ...]]:
        """The columns of the charts: minutes for some hours, hours for some days, days for some months, and so on."""
        unit = self._unit(begins, ends)
        counted: dict[datetime, list[int]] = {}
        for name, hour in self._hours.items():
            there = counted.setdefault(_start_of(moment_of(name), unit), [0, 0, 0, 0])
            for outcome, number in enumerate(hour.counts):
                there[outcome] += number
        return unit, tuple(
            Slot(text_of_moment(start), *counted.get(start, (0, 0, 0, 0)))
            for start in _starts(moment_of(begins), moment_of(ends), unit)
        )

    def _unit(self, begins: str, ends: str) -> Unit:
        kept = {_MINUTE: 0, _HOUR: 1, _DAY: 2, _MONTH: 4}[self._width]
        hours = (moment_of(ends) - moment_of(begins)) / timedelta(hours=1)
        wanted = sum(hours >= limit for limit in (3, 3 * 24, 120 * 24, 730 * 24))
        return UNITS[max(kept, wanted)]

    def bursts(self, begins: str, ends: str) -> tuple[Burst, ...]:
        """Where refusals of one reason are five times as many as usual, and twenty in an hour at the least."""
        if self._width == _MONTH:
            return ()
        unit: Unit = "day" if self._width == _DAY else "hour"
        slots = sum(1 for _ in _starts(moment_of(begins), moment_of(ends), unit))
        if slots < _FEWEST_TO_TELL:
            return ()
        by_reason: dict[str, dict[datetime, _Reason]] = {}
        for name, hour in self._hours.items():
            start = _start_of(moment_of(name), unit)
            for reason, kept in hour.reasons.items():
                by_reason.setdefault(reason, {}).setdefault(start, _Reason()).add(kept)
        found = [
            burst
            for reason, at in by_reason.items()
            if reason != _OTHER
            for burst in _bursts_of(reason, at, slots, unit)
        ]
        return tuple(sorted(found, key=lambda burst: (-burst.count, burst.start, burst.reason))[:_MOST_BURSTS])


def _bursts_of(reason: str, at: dict[datetime, _Reason], slots: int, unit: Unit) -> Iterator[Burst]:
    # The busiest twentieth says nothing about what is usual.
    counts = sorted((kept.count for kept in at.values()), reverse=True)
    left_out = max(1, slots // 20)
    usual = sum(counts[left_out:]) / (slots - left_out)
    least = max(_FEWEST, _FACTOR * usual, usual + 6 * math.sqrt(usual))
    step = timedelta(hours=1) if unit == "hour" else timedelta(days=1)
    run: list[datetime] = []
    for start in [*sorted(start for start, kept in at.items() if kept.count >= least), None]:
        if run and (start is None or start != run[-1] + step):
            whole = _Reason()
            for hour in run:
                whole.add(at[hour])
            most = whole.site if whole.votes * 2 > whole.count else None
            yield Burst(
                reason,
                text_of_moment(run[0]),
                len(run),
                unit,
                whole.count,
                round(usual * len(run), 1),
                most,
                whole.votes if most else 0,
            )
            run = []
        if start is not None:
            run.append(start)


def moment_of(time: str) -> datetime:
    """The moment of a time that was read from a line, or of its beginning: an hour, a day, a month."""
    if len(time) == _MONTH:
        time += "-01"
    return datetime.fromisoformat(time).replace(tzinfo=UTC)


def text_of_moment(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _start_of(moment: datetime, unit: Unit) -> datetime:
    if unit == "minute":
        return moment.replace(second=0, microsecond=0)
    if unit == "hour":
        return moment.replace(minute=0, second=0, microsecond=0)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def _starts(begins: datetime, ends: datetime, unit: Unit) -> Iterator[datetime]:
    start = _start_of(begins, unit)
    while start <= ends:
        yield start
        if unit == "month":
            start = (start + timedelta(days=32)).replace(day=1)
        else:
            start += _STEPS[unit]
