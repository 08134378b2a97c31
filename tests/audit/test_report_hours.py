"""Requests over time: nothing is lost when the columns get wider, and bursts are told from what is usual."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from toucan_guard.audit.report.hours import ALLOWED, REFUSED, Hours, text_of_moment

START = datetime(2026, 10, 1, tzinfo=UTC)


def _at(**after: float) -> str:
    return text_of_moment(START + timedelta(**after))


@pytest.mark.parametrize(
    ("span", "unit", "columns"),
    [
        pytest.param({"minutes": 10}, "minute", 11, id="ten minutes"),
        pytest.param({"hours": 5}, "hour", 6, id="five hours"),
        pytest.param({"days": 2}, "hour", 49, id="two days"),
        pytest.param({"days": 30}, "day", 31, id="a month"),
        pytest.param({"days": 364}, "week", 53, id="a year"),
        pytest.param({"days": 1_000}, "month", 33, id="three years"),
    ],
)
def test_the_columns_fit_the_time(span: dict[str, float], unit: str, columns: int) -> None:
    hours = Hours()
    hours.count(_at(), ALLOWED)
    hours.count(_at(**span), REFUSED)
    used, slots = hours.timeline(_at(), _at(**span))
    assert (used, len(slots)) == (unit, columns)
    assert (sum(slot.allowed for slot in slots), sum(slot.refused for slot in slots)) == (1, 1)
    assert (slots[0].allowed, slots[-1].refused) == (1, 1)


@pytest.mark.parametrize(
    ("step", "count"),
    [
        pytest.param(timedelta(minutes=1), 1_500, id="minutes become hours"),
        pytest.param(timedelta(hours=1), 3_000, id="hours become days"),
        pytest.param(timedelta(days=1), 5_000, id="days become months"),
    ],
)
def test_nothing_is_lost_when_columns_get_wider(step: timedelta, count: int) -> None:
    hours = Hours()
    for index in range(count):
        time = text_of_moment(START + index * step)
        hours.count(time, REFUSED)
        hours.refuse(time, "token_expired", "https://a.example")
    _, slots = hours.timeline(_at(), text_of_moment(START + (count - 1) * step))
    assert sum(slot.refused for slot in slots) == count
    assert len(hours._hours) <= 4_000
    kept = [hour.reasons["token_expired"] for hour in hours._hours.values()]
    assert sum(reason.count for reason in kept) == sum(reason.votes for reason in kept) == count


def _refusals(counted: Hours, number: int, *, site: str = "https://a.example", **after: Any) -> None:
    for index in range(number):
        counted.refuse(_at(**after), "token_expired", site if index % 10 else None)


def test_a_burst_is_found_with_its_length_and_its_site() -> None:
    hours = Hours()
    for hour in range(48):
        _refusals(hours, 3, site="https://others.example", hours=hour)
    _refusals(hours, 200, hours=20)
    _refusals(hours, 100, hours=21)
    (burst,) = hours.bursts(_at(), _at(hours=47))
    assert (burst.reason, burst.start, burst.hours, burst.unit, burst.count) == (
        "token_expired", _at(hours=20), 2, "hour", 306,
    )  # fmt: skip
    assert burst.usual == pytest.approx(6, abs=0.7)
    assert burst.site == "https://a.example"
    assert 153 < burst.site_count <= 270, "a majority is only claimed where it is certain"


def test_what_happens_every_day_at_noon_is_no_burst() -> None:
    hours = Hours()
    for hour in range(24 * 20):
        _refusals(hours, 30 if hour % 24 in (11, 12, 13) else 10, hours=hour)
    assert hours.bursts(_at(), _at(hours=24 * 20 - 1)) == ()


@pytest.mark.parametrize(
    ("refusals", "span"),
    [
        pytest.param(19, 100, id="few are no burst"),
        pytest.param(500, 3, id="in a few hours nobody can say what is usual"),
    ],
)
def test_no_burst(refusals: int, span: int) -> None:
    hours = Hours()
    _refusals(hours, refusals, hours=2)
    assert hours.bursts(_at(), _at(hours=span)) == ()


def test_in_a_record_of_a_year_a_burst_is_a_day() -> None:
    hours = Hours()
    for hour in range(24 * 200):
        _refusals(hours, 1, hours=hour)
    _refusals(hours, 400, days=100)
    (burst,) = hours.bursts(_at(), _at(days=200))
    assert (burst.unit, burst.hours, burst.start) == ("day", 1, _at(days=100))


def test_many_reasons_in_one_hour_are_counted_together() -> None:
    hours = Hours()
    for index in range(1_000):
        hours.refuse(_at(), f"x_{index}", None)
    (hour,) = hours._hours.values()
    assert len(hour.reasons) == 65
    assert sum(reason.count for reason in hour.reasons.values()) == 1_000
    assert hours.bursts(_at(), _at(hours=20)) == (), "what is counted together is no reason"
