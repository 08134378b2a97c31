"""Whatever stands in a line, reading it gives an event or says what is wrong with it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toucan_guard.audit.report.hours import moment_of
from toucan_guard.audit.report.lines import LineReader, number_of, text_of, texts_of

TIME = "2026-10-01T08:00:00.000Z"
GOOD: dict[str, Any] = {"schema": 1, "event": "decision", "time": TIME, "outcome": "allow"}


def _line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(b"  \n", "empty", id="only space"),
        pytest.param(b"INFO: started", "no JSON object", id="a line of another program"),
        pytest.param(b"[]", "no JSON object", id="a list"),
        pytest.param(b'"\xff"', "no JSON object", id="bytes that are no text"),
        pytest.param(b"[" * 100_000, "no JSON object", id="a deep one"),
        pytest.param(_line()[:40], "no JSON object", id="one that was cut"),
        pytest.param(_line(event="login"), "no event of the guard", id="somebody else's event"),
        pytest.param(b'{"event":"open","time":"2026-10-01T08:00:00Z"}', "no event of the guard", id="without a schema"),
        pytest.param(_line(event=["decision"]), "no event of the guard", id="an event that is a list"),
        pytest.param(_line(time=None), "when it was written", id="no time"),
        pytest.param(_line(time=17), "when it was written", id="a time that is a number"),
        pytest.param(_line(time="yesterday"), "time cannot be read", id="a time in words"),
        pytest.param(_line(time="2026-02-30T08:00:00Z"), "time cannot be read", id="a day that there is not"),
        pytest.param(_line(time="2026-10-01T25:00:00Z"), "time cannot be read", id="an hour that there is not"),
        pytest.param(_line(time="2026-10-01T08:00:00"), "time cannot be read", id="a time without a zone"),
        pytest.param(_line(time="9999-12-31T23:59:59-12:00"), "time cannot be read", id="a time beyond all years"),
        pytest.param(_line(outcome="maybe"), "outcome", id="an outcome that there is not"),
        pytest.param(_line(outcome={}), "outcome", id="an outcome that is an object"),
        pytest.param(_line(outcome=None), "outcome", id="no outcome"),
    ],
)
def test_what_is_wrong_with_a_line(line: bytes, problem: str) -> None:
    told = LineReader().read(line)
    assert isinstance(told, str)
    assert problem in told


@pytest.mark.parametrize(
    ("time", "utc"),
    [
        pytest.param("2026-10-01T08:00:00Z", "2026-10-01T08:00:00Z", id="to the second"),
        pytest.param("2026-10-01T08:00:00.123456Z", "2026-10-01T08:00:00.123456Z", id="to the microsecond"),
        pytest.param("2026-10-01T08:00:00+02:00", "2026-10-01T06:00:00.000Z", id="another zone"),
        pytest.param("2026-10-01 08:00:00.5+00:00", "2026-10-01T08:00:00.500Z", id="as a host's pipeline may write it"),
    ],
)
def test_times_are_utc(time: str, utc: str) -> None:
    event = LineReader().read(_line(time=time))
    assert isinstance(event, dict)
    assert event["time"] == utc


def test_a_lone_surrogate_is_read() -> None:
    event = LineReader().read(_line(subject="\ud800"))
    assert isinstance(event, dict)
    assert event["subject"] == "\ud800"


@given(line=st.binary(max_size=200))
def test_any_bytes_are_read_without_an_exception(line: bytes) -> None:
    assert isinstance(LineReader().read(line), str | dict)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(value=_JSON)
def test_a_member_of_another_type_counts_for_nothing(value: Any) -> None:
    event = {"x": value}
    text, texts, number = text_of(event, "x"), texts_of(event, "x"), number_of(event, "x")
    assert text is None or (isinstance(value, str) and value.startswith(text))
    assert all(isinstance(item, str) for item in texts)
    assert number is None or (number == value and not isinstance(value, bool))


@given(
    time=st.from_regex(
        r"(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z", fullmatch=True
    )
)
@example(time="2026-10-01T24:00:00Z")
@example(time="2026-10-01T29:59:59Z")
def test_what_is_read_as_a_time_is_one(time: str) -> None:
    """One line with an hour that there is not would stop the whole report."""
    read = LineReader().read(_line(time=time))
    if isinstance(read, dict):
        assert moment_of(read["time"]) == datetime.fromisoformat(time)
    else:
        with pytest.raises(ValueError, match=r"must be in|out of range|Invalid isoformat"):
            moment_of(time)


def test_long_names_are_capped_so_that_thousands_of_them_fit() -> None:
    assert len(text_of({"x": "a" * 60_000}, "x") or "") == 257
    capped = texts_of({"x": ["a" * 60_000] * 40}, "x")
    assert len(capped) == 17
    assert capped[-1] == "… 24 more"
    assert max(map(len, capped)) == 257
