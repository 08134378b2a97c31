"""The line of what was allowed: byte for byte what the event of the same decision would have been encoded to."""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toucan_guard.core.allowed_line import AllowedLine, identity_text
from toucan_guard.core.audit_event import decision_event
from toucan_guard.core.audit_line import MAX_LINE_BYTES, encode_line
from toucan_guard.core.decisions import ALLOW, Allow
from toucan_guard.core.grants import Grant
from toucan_guard.core.pseudonyms import Pseudonyms
from toucan_guard.core.token import VerifiedClaims

EVENT_ID, REQUEST_ID = "019ab2c4-5d6e-7f80-9a1b-2c3d4e5f6071", "trace-12345678"
PSEUDONYMS = Pseudonyms(secrets.token_bytes(32))


def _claims(**changes: Any) -> VerifiedClaims:
    given: dict[str, Any] = {
        "issuer": "https://host.example",
        "audiences": ("charts",),
        "subject": "user-1",
        "token_id": "t-1",
        "issued_at": 1_000,
        "expires_at": 1_300,
        "not_before": None,
        "tenant": "acme",
        "origins": None,
        "grants": (Grant("dashboard", "delays", ("view", "export")),),
        "rls": MappingProxyType({"carrier": "AA"}),
        "region": None,
        "key_id": "k-1",
        "algorithm": "HS256",
        "token_type": "embed+jwt",
        "session_seconds": None,
        **changes,
    }
    return VerifiedClaims(**given)


_SAME = {
    "steps": [("origin", Allow({"origin": "https://portal.example"}), True), ("region", ALLOW, True)],
    "kind": "http",
    "method": "GET",
    "origin": "https://portal.example",
    "embedder": None,
    "fetch_site": "cross-site",
    "fetch_dest": "iframe",
    "rls_attributes": ("carrier",),
    "policy_version": "v1",
}
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
    claims: VerifiedClaims, more: tuple[str, ...] = (), pseudonyms: Pseudonyms | None = None, **changes: Any
) -> tuple[bytes | None, bytes]:
    """The admitted line, and the one of the event."""
    facts = {**_SAME, **_EACH, **changes}
    same, each = {name: facts[name] for name in _SAME}, {name: facts[name] for name in _EACH}
    event = decision_event(
        outcome="allow", reason=None, claims=claims, exempt=False,
        **{**facts, "steps": [*facts["steps"], *((name, ALLOW, True) for name in more)]},
    )  # fmt: skip
    if pseudonyms is not None:
        pseudonyms.hide(event)
        each["client"] = None if each["client"] is None else pseudonyms.of("client", each["client"])
    identity = identity_text(claims, pseudonyms)
    line = AllowedLine(**same).of(more_layers=more, identity=identity, expires_at=claims.expires_at, **each)
    return line, encode_line(event)


_text = st.none() | st.text(max_size=5)


@given(
    changes=st.fixed_dictionaries(
        {
            **dict.fromkeys(
                (
                    "origin", "embedder", "fetch_site", "fetch_dest", "policy_version",
                    "region", "client", "route", "trace_id",
                ),
                _text,
            ),
            "steps": st.lists(st.sampled_from(_SAME["steps"]), min_size=1, max_size=3),
            "status": st.integers(100, 599),
            "now": st.floats(0, 2_000_000_000),
            "seconds_to_first_byte": st.floats(0, 100),
            "tables": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
            "rls_attributes": st.lists(st.text(max_size=3), max_size=2).map(tuple),
            "dropped": st.integers(0, 2),
            "method": st.sampled_from(["GET", None, "é\"\\"]),
        }
    ),
    more=st.lists(st.sampled_from(["grant", "hours", "é\"\0"]), max_size=2).map(tuple),
    claims=st.sampled_from(
        [_claims(), _claims(tenant=None, grants=(), key_id=None), _claims(subject="\0é\u2028\"", expires_at=1.5)]
    ),
    pseudonyms=st.sampled_from([None, PSEUDONYMS]),
)  # fmt: skip
def test_a_line_is_what_the_event_is_encoded_to(
    changes: dict[str, Any], more: tuple[str, ...], claims: VerifiedClaims, pseudonyms: Pseudonyms | None
) -> None:
    line, encoded = _lines(claims, more, pseudonyms, **changes)
    assert line == encoded


def test_the_everyday_line() -> None:
    line, encoded = _lines(_claims())
    assert line == encoded
    assert json.loads(encoded)["subject"] == "user-1"


@pytest.mark.parametrize("status", [HTTPStatus.OK, "200", 200.0, True, None])
def test_a_status_that_is_no_plain_number_is_left_to_the_encoder_of_events(status: Any) -> None:
    assert _lines(_claims(), status=status)[0] is None


@pytest.mark.parametrize(("length", "fits"), [(3000, False), (2500, True)])
def test_a_line_that_may_have_to_be_capped_is_left_to_the_encoder_of_events(length: int, fits: bool) -> None:
    line, encoded = _lines(_claims(subject="x" * length))
    assert (line == encoded) is fits
    assert (line is None) is not fits
    assert len(encoded) <= MAX_LINE_BYTES
