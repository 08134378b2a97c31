"""The columns over time: whole axis, round labels that stand apart, and words for what a column is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toucan_guard.audit.report.charts import Chart, Column, drawn, labelled_of
from toucan_guard.audit.report.figures import Unit
from toucan_guard.audit.report.finish import finish
from toucan_guard.audit.report.gather import Gatherer
from toucan_guard.audit.report.hours import Hours, text_of_moment
from toucan_guard.audit.report.over_time import timeline, within
from toucan_guard.core.audit_line import encode_line

START = datetime(2026, 10, 1, 8, 20, tzinfo=UTC)
WIDTHS = {"wide": 940, "narrow": 348}


def _columns(span: timedelta) -> tuple[Unit, list[Column]]:
    hours = Hours()
    begins, ends = text_of_moment(START), text_of_moment(START + span)
    hours.count(begins, 0)
    unit, slots = hours.timeline(begins, ends)
    return unit, [Column(slot.start, 1 + index % 7, "") for index, slot in enumerate(slots)]


SPANS = st.one_of(
    st.integers(1, 170).map(lambda minutes: timedelta(minutes=minutes)),
    st.integers(3, 800).map(lambda hours: timedelta(hours=hours)),
    st.integers(3, 1_500).map(lambda days: timedelta(days=days)),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(span=SPANS)
def test_columns_share_the_axis_and_labels_stand_apart(span: timedelta) -> None:
    unit, columns = _columns(span)
    svg = drawn(Chart("traffic", "Requests", "All of them.", unit, columns, 190))
    for form, drawing in zip(("wide", "narrow"), svg.split("<svg")[1:], strict=True):
        hits = [
            (float(x), float(width))
            for x, width in re.findall(r'class="hit" x="([\d.]+)" y="\d+" width="([\d.]+)"', drawing)
        ]
        assert len(hits) == len(columns)
        assert hits[0][0] == pytest.approx(46, abs=0.1)
        assert sum(hits[-1]) == pytest.approx(WIDTHS[form] - 6, abs=0.2), "the axis ends with the last column"
        thick = [
            float(width) for width in re.findall(r'class="column" x="[\d.]+" y="[\d.]+" width="([\d.]+)"', drawing)
        ]
        assert 0.5 <= max(thick) <= 56
        labels = [
            (float(x), text)
            for x, y, text in re.findall(
                r'<text class="tick" x="([\d.]+)" y="(\d+)" text-anchor="middle">([^<]*)', drawing
            )
        ]
        assert labels
        assert all(later - earlier >= 61 for (earlier, _), (later, _) in pairwise(labels)), "no label on another"
        assert labels[0][0] >= 20
        assert labels[-1][0] <= WIDTHS[form] - 20


@pytest.mark.parametrize(
    ("unit", "first", "columns", "fewest", "told"),
    [
        pytest.param("minute", "01T08:07", 30, 4.1, "08:10 08:15 08:20 08:25 08:30 08:35", id="minutes"),
        pytest.param("hour", "01T22:00", 9, 1.7, "22:00 00:00 02:00 04:00 06:00", id="hours"),
        pytest.param("hour", "01T09:00", 60, 14, "00:00 00:00", id="days of hours"),
        pytest.param("hour", "01T10:00", 3, 0.2, "10:00 11:00 12:00", id="few hours"),
        pytest.param("hour", "01T09:00", 90, 30, "09:00 15:00 21:00", id="a label that needs more than a day"),
    ],
)
def test_labels_stand_at_round_times(unit: Unit, first: str, columns: int, fewest: float, told: str) -> None:
    start, step = datetime.fromisoformat(f"2026-10-{first}").replace(tzinfo=UTC), timedelta(**{f"{unit}s": 1})
    starts = [text_of_moment(start + index * step) for index in range(columns)]
    assert " ".join(starts[index][11:16] for index in sorted(labelled_of(unit, starts, fewest))) == told


@pytest.mark.parametrize(
    ("unit", "told"),
    [
        ("minute", "in the minute from 5 October 2026, 14:05 UTC"),
        ("hour", "in the hour from 5 October 2026, 14:05 UTC"),
        ("day", "on 5 October 2026"),
        ("week", "in the week from 5 October 2026"),
        ("month", "in October 2026"),
    ],
)  # fmt: skip
def test_what_a_column_is_in_words(unit: Unit, told: str) -> None:
    assert within(unit, "2026-10-05T14:05:00Z") == told


def _section(traffic: Any, *hours: float, **said: Any) -> str:
    gatherer = Gatherer(since=None, until="2026-11-03T00:00:00Z")
    for number, hour in enumerate(hours, 1):
        event = traffic._event(START + timedelta(hours=hour), **said)
        gatherer.feed(encode_line(event), file="x", number=number)
    return timeline(finish(gatherer, None, made=datetime(2026, 11, 2, tzinfo=UTC)))


def test_a_record_that_ends_within_a_column_says_so(traffic: Any) -> None:
    told = _section(traffic, 0, 1, 2, 30)
    assert "The first hour had begun when the record begins, on 1 October 2026, 08:20 UTC." in told
    assert "The last hour was not over when the record ends, on 2 October 2026, 14:20 UTC." in told
    assert "record begins" not in _section(traffic, 0, 1), "a minute is a minute"
    assert "record ends" not in _section(traffic, -0.3, 15.65), "nearly whole"


def test_a_record_without_requests_has_no_chart(traffic: Any) -> None:
    told = _section(traffic, 0, 30, exempt=True)
    assert "No requests for charts came in." in told
    assert "<svg" not in told
    assert "1 request came in, all in the minute from 1 October 2026, 08:20 UTC." in _section(traffic, 0)
