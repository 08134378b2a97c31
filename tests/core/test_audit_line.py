"""One short line of ASCII, whatever is in the event."""

from __future__ import annotations

import json
from typing import Any

import pytest
from audit_samples import UUID
from audit_samples import make_claims as _claims
from audit_samples import make_event as _event
from audit_samples import read_line as _line

from toucan_guard.core.audit_line import MAX_LINE_BYTES, encode_line
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.grants import Grant


@pytest.mark.parametrize(
    ("given", "written"),
    [
        pytest.param("a\nb\r\t\x00\x1b[31m", "a\nb\r\t\x00\x1b[31m", id="control characters are escaped, not lost"),
        pytest.param("\ud800", "\ud800", id="a lone surrogate is escaped"),
        pytest.param("\u2028\u2029\x85", "\u2028\u2029\x85", id="other line ends are escaped"),
        pytest.param("</script>*/'; DROP", "</script>*/'; DROP", id="markup and SQL stay text"),
        pytest.param(float("nan"), None, id="NaN is null"),
        pytest.param(float("inf"), None, id="infinity is null"),
        pytest.param(float("-inf"), None, id="minus infinity is null"),
        pytest.param(1.5, 1.5, id="a number"),
        pytest.param(True, True, id="true"),
        pytest.param(2**63 - 1, 2**63 - 1, id="the largest integer"),
        pytest.param(-(2**63), -(2**63), id="the smallest integer"),
        pytest.param(10**5000, None, id="an integer that Python refuses to write"),
        pytest.param(None, None, id="null"),
        pytest.param(Reason.TOKEN_SPENT, "token_spent", id="a member of an enumeration"),
        pytest.param(Grant("a", "b", ("c",)), "Grant(type='a', id='b', actions=('c',))", id="anything else as text"),
        pytest.param(("a", 1), ["a", 1], id="a tuple"),
        pytest.param({1: {"a": "b"}}, {"1": {"a": "b"}}, id="a mapping of mappings"),
        pytest.param("é" * 3000, "é" * 256 + "…", id="a text that does not fit is capped and marked"),
        pytest.param("é" * 500, "é" * 500, id="a text that fits is whole"),
        pytest.param(list(range(1040)), [*range(32), "… 1008 more"], id="a long list says how many are left out"),
        pytest.param(list(range(99)), list(range(99)), id="a list that fits is whole"),
        pytest.param(
            {f"t{n:02}": "v" for n in range(1032)},
            {**{f"t{n:02}": "v" for n in range(32)}, "…": 1000},
            id="a long mapping says how many are left out",
        ),
        pytest.param(["é" * 3000], ["é" * 256 + "…"], id="a long text in a list"),
        pytest.param({"x" * 5000: 1}, {"x" * 256 + "…": 1}, id="a long name is capped"),
        pytest.param(
            {"event_id": "x", **{f"t{n:02}": "v" for n in range(1031)}},
            {"event_id": "x", **{f"t{n:02}": "v" for n in range(31)}, "…": 1000},
            id="a table that is named like a field is no way round the cap",
        ),
    ],
)
def test_any_value_is_written_safely(given: object, written: object) -> None:
    assert _line({"event_id": UUID, "value": given})["value"] == written


WIDE = "\U0001f424"  # twelve bytes in the line


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"claims": _claims(subject=WIDE * 8000)}, id="a subject of 8,000 birds"),
        pytest.param({"claims": _claims(tenant="x" * 8000)}, id="a long tenant"),
        pytest.param(
            {"claims": _claims(grants=tuple(Grant(WIDE * 99, WIDE * 99, (WIDE * 99,)) for _ in range(99)))},
            id="many long grants",
        ),
        pytest.param({"tables": {f"{WIDE * 40}{n}": WIDE * 40 for n in range(500)}}, id="many tables"),
        pytest.param({"rls_attributes": tuple(WIDE * 40 + str(n) for n in range(500))}, id="many attributes"),
        pytest.param({"steps": [("x" * 500, Deny("x_own", WIDE * 500), True)] * 500}, id="many layers"),
        pytest.param({"method": "M" * 8000, "route": "/" + WIDE * 900}, id="a long method and route"),
    ],
)
def test_a_line_fits_whatever_the_caller_sends(changes: dict[str, Any]) -> None:
    written = _line(_event(**changes))
    assert (written["event_id"], written["request_id"], written["outcome"]) == (UUID, UUID, "allow")


def test_what_no_cap_could_make_fit_keeps_the_essential() -> None:
    huge = {
        name: WIDE * 500 if isinstance(value, str) and name not in ("event_id", "request_id") else value
        for name, value in _event(
            claims=_claims(subject=WIDE * 500, grants=tuple(Grant(WIDE * 99, str(n), ("v",)) for n in range(9))),
            dropped=7,
        ).items()
    }
    written = _line(huge)
    assert written["truncated"] is True
    assert "grants" not in written
    assert (written["event_id"], written["request_id"]) == (UUID, UUID)
    assert (written["status"], written["dropped"]) == (200, 7)
    assert written["subject"] == WIDE * 32 + "…"


def test_ids_are_whole_where_everything_else_is_cut() -> None:
    inherited = "a" * 64
    written = _line(_event(request_id=inherited, claims=_claims(subject=WIDE * 8000)))
    assert written["request_id"] == inherited
    assert "truncated" not in written


def test_many_short_values_that_do_not_fit_together_are_capped_all_the_same() -> None:
    event = {"event_id": UUID, **{f"field_{number}": "x" * 250 for number in range(20)}}
    line = encode_line(event)
    assert len(line) <= MAX_LINE_BYTES
    written = json.loads(line)
    assert written["event_id"] == UUID
    assert written["field_0"].endswith("…")
