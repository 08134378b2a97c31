"""Events and claims as the tests of the record make them, and a line read back."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest

from toucan_guard.core.audit_event import decision_event
from toucan_guard.core.audit_line import MAX_LINE_BYTES, encode_line
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Allow
from toucan_guard.core.grants import Grant

UUID = "019ab2c4-5d6e-7f80-9a1b-2c3d4e5f6071"
SECRET_VALUE = "a-row-value-that-is-nobodys-business"


def make_claims(**changes: Any) -> VerifiedClaims:
    """Verified claims, and whatever a test changes about them."""
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
        "rls": MappingProxyType({"carrier": SECRET_VALUE}),
        "region": None,
        "key_id": "k-1",
        "algorithm": "HS256",
        "token_type": "embed+jwt",
        "session_seconds": None,
        **changes,
    }
    return VerifiedClaims(**given)


def make_event(**changes: Any) -> dict[str, Any]:
    """A decision event, and whatever a test changes about it."""
    given: dict[str, Any] = {
        "now": 1_018.5,
        "event_id": UUID,
        "request_id": UUID,
        "trace_id": None,
        "outcome": "allow",
        "reason": None,
        "steps": [("origin", Allow({"origin": "https://portal.example"}), True)],
        "kind": "http",
        "method": "GET",
        "route": "/dashboards/{id}",
        "status": 200,
        "seconds_to_first_byte": 0.0012345,
        "origin": "https://portal.example",
        "embedder": None,
        "fetch_site": "cross-site",
        "fetch_dest": "iframe",
        "claims": make_claims(),
        "rls_attributes": ("carrier",),
        "policy_version": "v1",
        "tables": {"flights": "v1"},
        "region": "eu",
        "client": "192.0.2.7",
        "exempt": False,
        "dropped": 0,
        **changes,
    }
    return decision_event(**given)


def read_line(event: dict[str, Any]) -> dict[str, Any]:
    """The event as its line says it, which is one short line of ASCII."""
    line = encode_line(event)
    assert len(line) <= MAX_LINE_BYTES
    assert line.isascii()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert all(byte >= 0x20 for byte in line[:-1])
    parsed: dict[str, Any] = json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    return parsed
