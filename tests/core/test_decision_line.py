"""The line of a decision: byte for byte what the event of the same decision would have been encoded to."""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus
from typing import Any

import pytest
from audit_samples import make_claims as _claims
from hypothesis import given
from hypothesis import strategies as st

from toucan_guard.core.audit_event import decision_event, detail_of, step_text
from toucan_guard.core.audit_line import MAX_LINE_BYTES, encode_line
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decision_line import DecisionLine, identity_text, nobody_text
from toucan_guard.core.decisions import ALLOW, Allow, Decision, Deny, Reason
from toucan_guard.core.pseudonyms import Pseudonyms

EVENT_ID, REQUEST_ID = "019ab2c4-5d6e-7f80-9a1b-2c3d4e5f6071", "trace-12345678"
PSEUDONYMS = Pseudonyms(secrets.token_bytes(32))


_SAME = {
    "outcome": "allow",
    "reason": None,
    "kind": "http",
    "method": "GET",
    "origin": "https://portal.example",
    "embedder": None,
    "fetch_site": "cross-site",
    "fetch_dest": "iframe",
    "rls_attributes": ("carrier",),
    "policy_version": "v1",
    "exempt": False,
}
_STEPS: list[tuple[str, Decision, bool]] = [
    ("origin", Allow({"origin": "https://portal.example"}), True),
    ("region", ALLOW, True),
    ("embed_token", Deny(Reason.TOKEN_MISSING, 'no "token"'), True),
    ("api_key", Deny(Reason.TOKEN_MISSING, "told", facts={"cause": "the cause"}), True),
    ("hours", Deny("x_closed"), False),
]
_EACH = {
    "now": 1_018.5,
    "event_id": EVENT_ID,
    "request_id": REQUEST_ID,
    "trace_id": None,
    "route": "/dashboards/{id}",
    "status": 200,
    "seconds_to_first_byte": 0.0012345,
    "tables": {"flights": "v1"},
    "region": "eu",
    "client": "192.0.2.7",
    "dropped": 0,
}


def _lines(
    claims: VerifiedClaims | None,
    pseudonyms: Pseudonyms | None = None,
    *,
    steps: list[tuple[str, Decision, bool]] = _STEPS[:2],
    later: int = 0,
    key_id: str | None = None,
    **changes: Any,
) -> tuple[bytes | None, bytes]:
    """The line that is put together, and the one of the event. The last steps are decided later."""
    facts = {**_SAME, **_EACH, **changes}
    same, each = {name: facts[name] for name in _SAME}, {name: facts[name] for name in _EACH}
    event = decision_event(claims=claims, steps=steps, key_id=key_id, **facts)
    if pseudonyms is not None:
        pseudonyms.hide(event)
        each["client"] = None if each["client"] is None else pseudonyms.of("client", each["client"])
    identity = nobody_text(key_id) if claims is None else identity_text(claims, pseudonyms)
    said = [(layer, step_text(decision, enforced)) for layer, decision, enforced in steps]
    first = len(said) - min(later, len(said) - 1)
    detail = None if facts["reason"] is None else detail_of(steps, facts["reason"])
    line = DecisionLine(steps=said[:first], detail=detail, **same).of(
        more_steps=tuple(said[first:]), identity=identity, expires_at=None if claims is None else claims.expires_at,
        **each,
    )  # fmt: skip
    return line, encode_line(event)


_text = st.none() | st.text(max_size=5)


@given(
    changes=st.fixed_dictionaries(
        {
            **dict.fromkeys(
                (
                    "origin", "embedder", "fetch_site", "fetch_dest", "policy_version",
                    "region", "client", "route", "trace_id", "key_id",
                ),
                _text,
            ),
            "outcome": st.sampled_from(["allow", "deny", "error"]),
            "reason": st.sampled_from([None, "token_missing", "x_closed", "unanswered"]),
            "steps": st.lists(st.sampled_from(_STEPS), min_size=1, max_size=4),
            "later": st.integers(0, 2),
            "status": st.none() | st.integers(100, 599),
            "now": st.floats(0, 2_000_000_000),
            "seconds_to_first_byte": st.floats(0, 100),
            "tables": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
            "rls_attributes": st.lists(st.text(max_size=3), max_size=2).map(tuple),
            "dropped": st.integers(0, 2),
            "method": st.sampled_from(["GET", None, "é\"\\"]),
            "exempt": st.booleans(),
        }
    ),
    claims=st.sampled_from(
        [None, _claims(), _claims(tenant=None, grants=(), key_id=None), _claims(subject="\0é\u2028\"", expires_at=1.5)]
    ),
    pseudonyms=st.sampled_from([None, PSEUDONYMS]),
)  # fmt: skip
def test_a_line_is_what_the_event_is_encoded_to(
    changes: dict[str, Any], claims: VerifiedClaims | None, pseudonyms: Pseudonyms | None
) -> None:
    line, encoded = _lines(claims, pseudonyms, **changes)
    has_ended = claims is not None and json.loads(encoded)["expires_in_seconds"] < 0
    assert line == (None if has_ended else encoded)


def test_the_everyday_line() -> None:
    line, encoded = _lines(_claims())
    assert line == encoded
    assert json.loads(encoded)["subject"] == "user-1"


@pytest.mark.parametrize("status", [HTTPStatus.OK, "200", 200.0, True])
def test_a_status_that_is_no_plain_number_is_left_to_the_encoder_of_events(status: Any) -> None:
    assert _lines(_claims(), status=status)[0] is None


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({"now": 1_099.9999}, True),
        ({"now": 1_100.0}, True),
        ({"now": 1_100.0009}, True),
        ({"now": 1_100.002}, False),
        ({"seconds_to_first_byte": 0.0}, True),
        ({"seconds_to_first_byte": -0.00001}, False),
    ],
)
def test_a_time_below_nothing_is_left_to_the_encoder_of_events(changes: dict[str, Any], fits: bool) -> None:
    line, encoded = _lines(_claims(expires_at=1_100.0), **changes)
    assert line == (encoded if fits else None)


@pytest.mark.parametrize("thousandths", [*range(1000), 1_000, 1_001, 123_456, 10**9 + 10, 10**12 - 1])
def test_a_number_of_thousandths_is_written_as_a_float_is(thousandths: int) -> None:
    seconds = (thousandths + 0.5) / 1_000_000
    line, encoded = _lines(_claims(expires_at=1_018.5 + seconds * 1000), seconds_to_first_byte=seconds)
    assert line == encoded


@pytest.mark.parametrize(("length", "fits"), [(3000, False), (2500, True)])
def test_a_line_that_may_have_to_be_capped_is_left_to_the_encoder_of_events(length: int, fits: bool) -> None:
    line, encoded = _lines(_claims(subject="x" * length))
    assert (line == encoded) is fits
    assert (line is None) is not fits
    assert len(encoded) <= MAX_LINE_BYTES
