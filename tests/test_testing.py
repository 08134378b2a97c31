"""The helpers for users' own tests do what a guard accepts, and nothing that outlives the test."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from toucan_guard import Grant, ToucanGuard
from toucan_guard.audit import sinks
from toucan_guard.core.api_key_limits import ApiKeyLimits
from toucan_guard.core.errors import MintError
from toucan_guard.testing import FakeClock, audit_capture, make_api_key, sign_token


async def chart(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse(scope["state"]["embed"].subject)(scope, receive, send)


def test_a_fake_clock_stands_until_it_is_moved() -> None:
    clock = FakeClock(1000.0)
    assert [clock(), clock()] == [1000.0, 1000.0]
    clock.advance(0.5)
    assert clock() == clock.now == 1000.5


def test_a_fake_clock_begins_at_the_present() -> None:
    assert abs(FakeClock()() - time.time()) < 5


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        pytest.param({"rls": {"carrier": "AA"}}, 200, id="with attributes"),
        pytest.param({"rls": {"carrier": "AA"}, "grants": [Grant("a", "b", ("c",))]}, 200, id="with grants"),
        pytest.param({"rls": {"carrier": "AA"}, "grants": iter([Grant("a", "b", ("c",))])}, 200, id="with an iterator"),
        pytest.param({}, 403, id="without attributes"),
        pytest.param({"rls": {"carrier": "AA"}, "now": 0.0}, 401, id="made long ago"),
        pytest.param({"rls": {"carrier": "AA"}, "tenant": None}, 401, id="without a tenant"),
        pytest.param(
            {"rls": {"carrier": "AA"}, "bootstrap": True, "lifetime_seconds": 60}, 401, id="of a frame's navigation"
        ),
    ],
)
async def test_a_token_is_what_it_says(changes: dict[str, Any], status: int, http: Any, make_settings: Any) -> None:
    guard = ToucanGuard(chart, settings=make_settings())
    answer = await http(guard, headers={"authorization": f"Bearer {sign_token(**changes)}"})
    assert answer.status == status


@pytest.mark.parametrize("bootstrap", [False, True])
def test_a_token_that_the_guard_would_refuse_is_not_signed(bootstrap: bool) -> None:
    with pytest.raises(MintError, match="subject"):
        sign_token(subject="", bootstrap=bootstrap)
    with pytest.raises(MintError, match="origin"):
        sign_token(origins=["https://portal.example/path"], bootstrap=bootstrap)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["asymmetric", "secret"])
async def test_a_token_with_ones_own_key(kind: str, http: Any, make_settings: Any) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    if kind == "secret":
        key: Any = "Zk9!xW4r-Lb6-pT7#vQ2m-another-secret"
        settings = make_settings(secret=key)
    else:
        private = Ed25519PrivateKey.generate()
        key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        from toucan_guard.tokens.keys import SigningKey

        loaded = SigningKey.load(key)
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": _b64(public), "kid": loaded.kid, "alg": loaded.algorithm}
        settings = make_settings(secret=None, keys=json.dumps({"keys": [jwk]}))
    headers = {"authorization": f"Bearer {sign_token(key, rls={'carrier': 'AA'})}"}
    assert (await http(ToucanGuard(chart, settings=settings), headers=headers)).body == b"user-1"
    assert (await http(ToucanGuard(chart, settings=make_settings()), headers=headers)).status == 401


def _b64(raw: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.anyio
async def test_events_are_captured_while_the_block_runs(http: Any, make_settings: Any, audit_lines: Any) -> None:
    guard = ToucanGuard(chart, settings=make_settings())
    headers = {"authorization": f"Bearer {sign_token(rls={'carrier': 'AA'})}"}
    await http(guard)
    with audit_capture() as outer:
        await http(guard, headers=headers)
        with audit_capture() as inner:
            await http(guard)
    await http(guard)
    assert [event["outcome"] for event in outer] == ["allow", "deny"]
    assert [event["reason"] for event in inner] == ["token_missing"]
    assert [line["outcome"] for line in audit_lines()] == ["deny", "allow", "deny", "deny"]
    assert outer[0]["event_id"] == audit_lines()[1]["event_id"]


@pytest.mark.anyio
async def test_events_are_captured_where_nothing_is_written(http: Any, make_settings: Any) -> None:
    guard = ToucanGuard(chart, settings=make_settings(audit=None, insecure_no_audit=True))
    with audit_capture() as events:
        await http(guard)
    assert [event["reason"] for event in events] == ["token_missing"]


def test_a_failing_test_leaves_no_observer_behind() -> None:
    before = list(sinks.observers)

    def failing() -> None:
        with audit_capture(), audit_capture():
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - any ValueError is this one
        failing()
    assert sinks.observers == before


def test_an_api_key_of_its_own_works(make_settings: Any, tmp_path: Path) -> None:
    pepper = "a pepper of this test, 32 bytes long"
    limits = ApiKeyLimits(tenants=("AA",))
    one, two = (make_api_key(tmp_path / "keys.json", pepper=pepper, limits=each) for each in (None, limits))
    settings = make_settings(
        secret=None,
        api_keys_file=tmp_path / "keys.json",
        api_key_pepper=pepper,
        token_service_key="a service key of this test, 32 bytes",
    )
    keys = settings.api_keys
    found = [keys.authenticate(text, now=time.time()) for text in (one, two)]
    keys.close()
    assert [entry.limits for entry in found] == [ApiKeyLimits(), limits]
