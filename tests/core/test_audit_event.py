"""The audit event: every field, no value that is nobody's business, and one short line of ASCII whatever is in it."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from audit_samples import SECRET_VALUE, UUID
from audit_samples import make_claims as _claims
from audit_samples import make_event as _event
from audit_samples import read_line as _line

from toucan_guard.core.audit_event import (
    close_event,
    completion_event,
    grant_text,
    is_event,
    open_event,
    timestamp,
)
from toucan_guard.core.audit_line import encode_line
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Allow, Deny, Reason
from toucan_guard.core.grants import Grant


@pytest.mark.parametrize("claims", [None, _claims()], ids=["nobody", "a token"])
def test_what_somebody_does_to_one_event_is_not_in_the_next(claims: VerifiedClaims | None) -> None:
    event = _event(claims=claims)
    untouched = json.dumps(event)
    for value in event.values():
        if isinstance(value, list | dict):
            value.clear()
    event.clear()
    assert json.dumps(_event(claims=claims)) == untouched


def test_a_decision_says_who_saw_what() -> None:
    assert _line(_event()) == {
        "schema": 1,
        "event": "decision",
        "time": "1970-01-01T00:16:58.500Z",
        "event_id": UUID,
        "request_id": UUID,
        "trace_id": None,
        "outcome": "allow",
        "reason": None,
        "detail": None,
        "steps": [{"layer": "origin", "decision": "allow"}],
        "kind": "http",
        "method": "GET",
        "route": "/dashboards/{id}",
        "status": 200,
        "first_byte_ms": 1.234,
        "origin": "https://portal.example",
        "embedder": None,
        "fetch_site": "cross-site",
        "fetch_dest": "iframe",
        "issuer": "https://host.example",
        "key_id": "k-1",
        "token_id": "t-1",
        "subject": "user-1",
        "tenant": "acme",
        "grants": ["dashboard:delays:view,export"],
        "expires_in_seconds": 281.5,
        "rls_attributes": ["carrier"],
        "policy_version": "v1",
        "tables": {"flights": "v1"},
        "region": "eu",
        "client": "192.0.2.7",
        "exempt": False,
    }


def test_a_decision_about_nobody_has_the_same_keys() -> None:
    nobody = _event(claims=None, rls_attributes=(), tables={})
    assert list(nobody) == list(_event())
    assert nobody["subject"] is nobody["tenant"] is nobody["expires_in_seconds"] is None
    assert nobody["grants"] == []


def test_the_values_of_row_level_attributes_are_not_in_it() -> None:
    assert SECRET_VALUE.encode() not in encode_line(_event())


@pytest.mark.parametrize(
    ("steps", "reason", "detail", "names"),
    [
        pytest.param(
            [("origin", Allow(), True), ("grant", Deny(Reason.GRANT_MISSING, "no grant"), True)],
            "grant_missing",
            "no grant",
            ["allow", "deny:grant_missing"],
            id="a refusal brings its sentence",
        ),
        pytest.param(
            [
                ("region", Deny(Reason.REGION_MISMATCH, "another region"), False),
                ("grant", Deny(Reason.GRANT_MISSING, "no grant"), True),
            ],
            "grant_missing",
            "no grant",
            ["would_deny:region_mismatch", "deny:grant_missing"],
            id="the sentence is that of the reason, not that of a report-only layer before it",
        ),
        pytest.param(
            [("region", Deny(Reason.REGION_MISMATCH, "another region"), False)],
            "region_mismatch",
            "another region",
            ["would_deny:region_mismatch"],
            id="a report-only refusal brings its sentence where it is the reason",
        ),
        pytest.param(
            [("region", Deny(Reason.REGION_MISMATCH, "another region"), False)],
            "app_failed",
            None,
            ["would_deny:region_mismatch"],
            id="a crash does not borrow a sentence",
        ),
        pytest.param([("gate", Deny("x_closed"), True)], "x_closed", None, ["deny:x_closed"], id="no sentence is null"),
        pytest.param([], None, None, [], id="no layer has decided"),
    ],
)
def test_steps_and_detail(steps: Any, reason: str | None, detail: str | None, names: list[str]) -> None:
    event = _event(steps=iter(steps), reason=reason)
    assert event["detail"] == detail
    assert [step["decision"] for step in event["steps"]] == names


def test_dropped_events_are_counted_only_where_there_are_any() -> None:
    assert "dropped" not in _event()
    assert _event(dropped=3)["dropped"] == 3


@pytest.mark.parametrize("dropped", [0, 2])
def test_a_completion_refers_to_its_decision(dropped: int) -> None:
    event = completion_event(
        now=0.0,
        request_id=UUID,
        event_id="e-2",
        decision_id="e-1",
        outcome="error",
        reason=None,
        tables=MappingProxyType({"flights": "v1"}),
        dropped=dropped,
    )
    assert _line(event) == {
        "schema": 1,
        "event": "completion",
        "time": "1970-01-01T00:00:00.000Z",
        "event_id": "e-2",
        "request_id": UUID,
        "decision_id": "e-1",
        "outcome": "error",
        "reason": None,
        "tables": {"flights": "v1"},
        **({"dropped": dropped} if dropped else {}),
    }


def test_a_grant_on_one_line() -> None:
    assert grant_text(Grant("dashboard", "*", ("view",))) == "dashboard:*:view"


def test_a_time_is_rfc_3339_in_utc() -> None:
    assert timestamp(1_795_468_447.1424) == "2026-11-23T21:14:07.142Z"
    assert timestamp(1_795_468_447) == "2026-11-23T21:14:07.000Z"


def test_the_ends_of_a_chain() -> None:
    opened = open_event(now=0.0, version="1.2", process=7, settings="0123", chain_key=None)
    assert _line(opened) == {
        "schema": 1,
        "event": "open",
        "time": "1970-01-01T00:00:00.000Z",
        "version": "1.2",
        "process": 7,
        "settings": "0123",
        "chain_key": None,
    }
    assert close_event(now=0.0, dropped=0) == {"schema": 1, "event": "close", "time": "1970-01-01T00:00:00.000Z"}
    assert close_event(now=0.0, dropped=3)["dropped"] == 3


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ({"schema": 1, "event": "decision"}, True),
        ({"event": "decision"}, False),
        ({"schema": 1, "event": "login"}, False),
        ({"schema": 1, "event": ["open"]}, False),
        ({"schema": 1}, False),
        (["schema", "event"], False),
        (None, False),
    ],
)
def test_what_says_that_it_is_an_event(value: object, is_one: bool) -> None:
    assert is_event(value) is is_one
