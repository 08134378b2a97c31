"""Revoking from a host's own code, through the whole guard: requests, sessions, and what cannot be revoked."""

from __future__ import annotations

import time
from typing import Any

import pytest

from toucan_guard import ConfigError, ToucanGuard
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.revocation import in_force, lift, revoke
from toucan_guard.tokens.revocation import Revocation, RevocationKind
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.tokens.store import MemoryStore

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0
FRAME = {
    "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe",
    "referer": "https://portal.example/",
}  # fmt: skip


async def chart(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the app's data"})


@pytest.fixture(autouse=True)
def _noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request reads the revocations: when a copy is renewed is tested in tests/tokens."""

    async def keep_fresh(self: Revocations) -> None:
        await self.refresh()

    monkeypatch.setattr(Revocations, "keep_fresh", keep_fresh)
    monkeypatch.setattr(Revocations, "clears", lambda *_: False)  # no copy is fresh enough to be believed unasked


@pytest.mark.parametrize(
    ("named", "others"),
    [
        pytest.param({"token": "t-1"}, {"token_id": "t-2"}, id="a token"),
        pytest.param({"subject": "user-1"}, {"subject": "user-2"}, id="a subject"),
        pytest.param({"tenant": "acme"}, {"tenant": "other"}, id="a tenant"),
        pytest.param({"issued_before": None}, {"now": 2.0}, id="what was issued before now"),
    ],
)
async def test_what_is_revoked_is_refused_and_other_tokens_are_not(
    named: dict[str, Any], others: dict[str, Any], make_settings: Any, make_token: Any, http: Any, audit_lines: Any
) -> None:
    settings = make_settings()
    guard = ToucanGuard(chart, settings=settings)
    now = time.time()
    named = {name: now if value is None else value for name, value in named.items()}
    if "now" in others:
        others = {"now": now + others["now"]}
    revoked, other = (make_token(**{"token_id": "t-1", **changes}) for changes in ({"now": now}, others))
    assert (await http(guard, "GET", "/", {"x-embed-token": revoked})).status == 200
    await revoke(settings, **named)
    refused = await http(guard, "GET", "/", {"x-embed-token": revoked})
    assert (refused.status, refused.reason) == (401, "token_revoked")
    assert (await http(guard, "GET", "/", {"x-embed-token": other})).status == 200
    lines = audit_lines()
    assert [line["reason"] for line in lines] == [None, "token_revoked", None]
    assert (lines[1]["token_id"], lines[1]["subject"]) == ("t-1", lines[0]["subject"])  # whose it was


async def test_a_key_is_revoked_by_its_name(make_settings: Any, make_token: Any, http: Any) -> None:
    settings = make_settings()
    (revocation,) = await revoke(settings, key="k-1", now=NOW)
    assert revocation == Revocation(RevocationKind.KEY, "k-1", NOW + 10 * 365 * 86_400)
    # The configured secret has no name, so this names no key of ours.
    answer = await http(ToucanGuard(chart, settings=settings), "GET", "/", {"x-embed-token": make_token()})
    assert answer.status == 200


async def test_a_session_ends_with_its_tenant(make_settings: Any, make_token: Any, http: Any) -> None:
    settings = make_settings(token_carriers=["session"])
    guard = ToucanGuard(chart, settings=settings)
    token = make_token(bootstrap=True, session_seconds=600)
    opened = await http(guard, "GET", "/", FRAME, query=f"embed_token={token}")
    frame = {**FRAME, "cookie": str(opened.header("set-cookie")).partition(";")[0]}
    query = str(opened.header("location"))[1:]
    assert (await http(guard, "GET", "/", frame, query=query)).status == 200
    await revoke(settings, tenant="acme")
    assert (await http(guard, "GET", "/", frame, query=query)).status == 401
    again = await http(guard, "GET", "/", FRAME, query=f"embed_token={make_token(bootstrap=True)}")
    assert again.status == 401, "nor does a new one open another session"


async def test_guards_of_several_mounts_share_what_is_revoked(make_settings: Any, make_token: Any, http: Any) -> None:
    one, other = make_settings(), make_settings()
    guards = [ToucanGuard(chart, settings=settings) for settings in (one, other)]
    await revoke(one, subject="user-1")
    for guard in guards:
        assert (await http(guard, "GET", "/", {"x-embed-token": make_token()})).reason == "token_revoked"


async def test_several_names_are_several_revocations_listed_in_order(make_settings: Any) -> None:
    settings = make_settings(token_lifetime_seconds=600, leeway_seconds=10)
    added = await revoke(settings, tenant="acme", token="t-1", issued_before=NOW - 0.5, now=NOW)
    end = NOW + 600 + 20 + 1 + 5  # a worker may hear of it five seconds later, and refresh a token meanwhile
    listed = await in_force(settings, now=NOW)
    assert [(it.kind, it.value, it.until) for it in listed] == [
        ("issued_before", str(int(NOW)), end), ("tenant", "acme", end), ("token", "t-1", end)
    ]  # fmt: skip
    assert set(listed) == set(added)
    assert await in_force(settings, now=end) == ()


async def test_a_mistake_is_taken_back(make_settings: Any, make_token: Any, http: Any) -> None:
    settings = make_settings()
    guard = ToucanGuard(chart, settings=settings)
    await revoke(settings, tenant="acme", subject="somebody")
    await revoke(settings, tenant="acme", until=time.time() + 9999)
    assert (await http(guard, "GET", "/", {"x-embed-token": make_token()})).status == 401
    assert len(await lift(settings, tenant="acme")) == 2
    assert await lift(settings, tenant="acme") == ()
    assert (await http(guard, "GET", "/", {"x-embed-token": make_token()})).status == 200
    assert [it.value for it in await in_force(settings)] == ["somebody"]


@pytest.mark.parametrize(
    ("named", "words"),
    [
        pytest.param({}, "name a token", id="nothing"),
        pytest.param({"tenant": ""}, "names something", id="an empty name"),
        pytest.param({"token": "x" * 8193}, "8192", id="an endless name"),
        pytest.param({"subject": "\ud800"}, "surrogates", id="a name that is no text"),
        pytest.param({"tenant": 7}, "names something", id="a number for a name"),
        pytest.param({"issued_before": float("nan")}, "seconds since", id="a time that is no number"),
        pytest.param({"issued_before": -1.0}, "seconds since", id="a time before the epoch"),
        pytest.param({"issued_before": "now"}, "seconds since", id="a time in words"),
        pytest.param({"tenant": "acme", "until": 5.0}, "before it begins", id="an end that has passed"),
    ],
)
async def test_what_names_nothing_revokes_nothing(named: dict[str, Any], words: str, make_settings: Any) -> None:
    settings = make_settings()
    with pytest.raises(ValueError, match=words):
        await revoke(settings, **named)
    assert await in_force(settings) == ()


async def test_where_every_worker_has_a_memory_of_its_own_nothing_pretends_to_be_revoked(
    make_settings: Any, make_token: Any, http: Any
) -> None:
    settings = make_settings(workers=2)
    for attempt in (revoke(settings, tenant="acme"), lift(settings, tenant="acme"), in_force(settings)):
        with pytest.raises(ConfigError, match="STORE_URL"):
            await attempt
    guard = ToucanGuard(chart, settings=settings)
    assert (await http(guard, "GET", "/", {"x-embed-token": make_token()})).status == 200


async def test_an_entry_of_another_version_is_not_left_out_of_the_list(make_settings: Any) -> None:
    settings = make_settings()
    await settings.store.revoke(settings.issuer, "2:device:5:d-1")
    with pytest.raises(StoreUnavailable, match="cannot read"):
        await in_force(settings)


@pytest.mark.parametrize("fail_open", [False, True], ids=["closed", "open"])
async def test_a_store_that_is_down_refuses_unless_the_switch_says_otherwise_and_is_recorded_each_time(
    fail_open: bool, make_settings: Any, make_token: Any, http: Any, audit_lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("down")

    async def failing(self: Revocations) -> None:
        return

    monkeypatch.setattr(MemoryStore, "revoked", down)
    monkeypatch.setattr(MemoryStore, "spend", down)
    monkeypatch.setattr(MemoryStore, "get", down)
    monkeypatch.setattr(Revocations, "keep_fresh", failing)
    settings = make_settings(token_carriers=["x-embed-token", "session"], insecure_store_fail_open=fail_open)
    guard = ToucanGuard(chart, settings=settings)
    for _ in range(2):
        answer = await http(guard, "GET", "/", {"x-embed-token": make_token()})
        assert answer.status == (200 if fail_open else 503)
    lines = audit_lines()
    assert [(line["outcome"], line["reason"]) for line in lines] == [
        ("would_deny" if fail_open else "deny", "store_unavailable")
    ] * 2
    if fail_open:
        assert {"layer": "revocation", "decision": "would_deny:store_unavailable"} in lines[0]["steps"]
    # Neither single use nor a session is opened by the switch, and a bad token is as bad as ever.
    spent = await http(guard, "GET", "/", FRAME, query=f"embed_token={make_token(bootstrap=True)}")
    assert spent.status == 503
    session = await http(guard, "GET", "/", {**FRAME, "cookie": f"__Host-embed-{'a' * 26}={'b' * 43}"})
    assert session.status == 503
    expired = await http(guard, "GET", "/", {"x-embed-token": make_token(now=time.time() - 9999)})
    assert expired.reason == "token_expired"
