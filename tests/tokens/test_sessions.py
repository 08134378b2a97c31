"""Single use and embed sessions: one winner, nothing forgotten early, nobody else's session."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.credentials import is_handle
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.core.token_policy import BOOTSTRAP
from toucan_guard.testing import FakeClock
from toucan_guard.tokens.sessions import SESSION_TYPE, EmbedSessions, OpenedSession, handle_of
from toucan_guard.tokens.store import MemoryStore

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0


def _claims(**changes: Any) -> VerifiedClaims:
    given: dict[str, Any] = {
        "issuer": "https://host.example", "audiences": ("charts",), "subject": "u", "token_id": "t",
        "issued_at": NOW, "expires_at": NOW + 60, "not_before": None, "tenant": "acme", "origins": None,
        "grants": (), "rls": {"carrier": "AA"}, "region": None, "key_id": None, "algorithm": "HS256",
        "token_type": BOOTSTRAP, "session_seconds": 900, **changes,
    }  # fmt: skip
    return VerifiedClaims(**given)


class World:
    def __init__(self, **store: Any) -> None:
        self.clock = FakeClock(NOW)
        self.store = MemoryStore(clock=self.clock, **store)
        self.sessions = EmbedSessions(self.store, lifetime_seconds=3600, leeway_seconds=30)

    async def exchange(self, claims: VerifiedClaims, cookies: dict[str, str] | None = None) -> OpenedSession | Deny:
        return await self.sessions.exchange(claims, cookies or {}, now=self.clock())

    async def open(self, claims: VerifiedClaims) -> OpenedSession:
        opened = await self.exchange(claims)
        assert isinstance(opened, OpenedSession)
        return opened

    async def find(self, handle: str, secret: str) -> VerifiedClaims | Deny:
        return await self.sessions.find(handle, secret, now=self.clock())


def _reason(result: object) -> str | None:
    return str(result.reason) if isinstance(result, Deny) else None


async def test_a_session_is_opened_and_found_with_the_claims_of_its_token() -> None:
    world = World()
    opened = await world.open(_claims())
    assert is_handle(opened.handle)
    assert opened.secret is not None
    assert len(opened.secret) == 43, "256 random bits"
    assert opened.secret not in repr(opened)
    found = await world.find(opened.handle, opened.secret)
    assert found == _claims(expires_at=NOW + 900, token_type=SESSION_TYPE)


async def test_a_session_has_nothing_that_was_worked_out_for_its_token() -> None:
    world, claims = World(), _claims()
    claims.derived["filter"] = "ends with the token"
    opened = await world.open(claims)
    found = await world.find(opened.handle, opened.secret or "")
    assert isinstance(found, VerifiedClaims)
    assert found.derived == {}


@pytest.mark.parametrize(
    ("session_seconds", "issued_at", "ends"),
    [
        pytest.param(900, NOW, NOW + 900, id="as long as the token says"),
        pytest.param(86_400, NOW, NOW + 3600, id="at most the configured lifetime"),
        pytest.param(900, NOW - 50, NOW + 850, id="counted from when the token was made"),
        pytest.param(None, NOW, NOW, id="a token that does not say opens nothing that lasts"),
    ],
)
async def test_when_a_session_ends(session_seconds: int | None, issued_at: float, ends: float) -> None:
    world = World()
    opened = await world.open(_claims(session_seconds=session_seconds, issued_at=issued_at))
    assert opened.expires_at == ends
    world.clock.now = ends - 0.001
    if ends > NOW:
        assert _reason(await world.find(opened.handle, str(opened.secret))) is None
    world.clock.now = ends
    assert _reason(await world.find(opened.handle, str(opened.secret))) == Reason.SESSION_UNKNOWN


async def test_neither_the_handle_nor_the_secret_opens_a_session_alone() -> None:
    world = World()
    one, two = await world.open(_claims(token_id="one")), await world.open(_claims(token_id="two"))
    for handle, secret in [
        (one.handle, ""),
        (one.handle, str(two.secret)),
        (two.handle, str(one.secret)),
        ("", f"{one.handle}:{one.secret}"),
        (one.handle, f"{one.secret}\udcff"),
    ]:
        assert _reason(await world.find(handle, secret)) == Reason.SESSION_UNKNOWN
    assert _reason(await world.find(one.handle, str(one.secret))) is None


async def test_the_store_holds_no_secret() -> None:
    world = World()
    opened = await world.open(_claims())
    assert str(opened.secret) not in repr(vars(world.store))


async def test_a_spent_token_is_refused_to_everybody_but_the_browser_that_holds_its_session() -> None:
    world = World()
    opened = await world.open(_claims())
    assert _reason(await world.exchange(_claims())) == Reason.TOKEN_SPENT
    assert _reason(await world.exchange(_claims(), {opened.handle: "guessed"})) == Reason.TOKEN_SPENT
    assert _reason(await world.exchange(_claims(), {"b" * 26: str(opened.secret)})) == Reason.TOKEN_SPENT
    again = await world.exchange(_claims(), {opened.handle: str(opened.secret)})
    assert again == OpenedSession(opened.handle, None, opened.expires_at)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"subject": "somebody else"}, id="another viewer"),
        pytest.param({"tenant": "other"}, id="another tenant"),
        pytest.param({"rls": {"carrier": "UA"}}, id="other rows"),
        pytest.param({"issued_at": NOW + 1}, id="made at another time"),
    ],
)
async def test_a_host_that_repeats_a_jti_does_not_lead_one_viewer_into_the_others_session(changes: Any) -> None:
    world = World()
    opened = await world.open(_claims())
    mixed_up = await world.exchange(_claims(**changes), {opened.handle: str(opened.secret)})
    assert _reason(mixed_up) == Reason.TOKEN_SPENT


async def test_of_many_at_once_one_wins() -> None:
    world = World()
    results: list[OpenedSession | Deny] = []

    async def race() -> None:
        await anyio.lowlevel.checkpoint()
        results.append(await world.exchange(_claims()))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(race)
    assert sum(isinstance(result, OpenedSession) for result in results) == 1


async def test_a_spent_token_is_remembered_as_long_as_it_could_be_accepted() -> None:
    world = World()
    await world.open(_claims())
    world.clock.now = NOW + 60 + 30  # exp + leeway: dead from here on, whoever looks
    assert _reason(await world.exchange(_claims())) == Reason.TOKEN_SPENT


async def test_when_the_session_has_ended_its_browser_is_a_stranger() -> None:
    world = World()
    opened = await world.open(_claims(session_seconds=10))
    world.clock.advance(11)
    again = await world.exchange(_claims(session_seconds=10), {opened.handle: str(opened.secret)})
    assert _reason(again) == Reason.TOKEN_SPENT


async def test_a_full_store_refuses_and_forgets_nothing() -> None:
    world = World(max_entries=4)
    one = await world.open(_claims(token_id="one"))
    await world.open(_claims(token_id="two"))
    with pytest.raises(StoreUnavailable):
        await world.exchange(_claims(token_id="three"))
    assert _reason(await world.find(one.handle, str(one.secret))) is None
    assert _reason(await world.exchange(_claims(token_id="one"))) == Reason.TOKEN_SPENT


async def test_a_full_store_makes_room_from_what_has_ended() -> None:
    world = World(max_entries=4)
    one = await world.open(_claims(token_id="one", session_seconds=3600))
    await world.open(_claims(token_id="two", session_seconds=10))
    world.clock.advance(92)  # both spent tokens and the second session are over
    await world.open(_claims(token_id="three", issued_at=NOW + 92, expires_at=NOW + 152))
    assert _reason(await world.find(one.handle, str(one.secret))) is None


async def test_a_store_with_one_place_left_does_not_open_half_a_session() -> None:
    world = World(max_entries=3)
    await world.open(_claims(token_id="one"))
    with pytest.raises(StoreUnavailable):
        await world.exchange(_claims(token_id="two"))
    assert _reason(await world.exchange(_claims(token_id="two"))) == Reason.TOKEN_SPENT, "spent stays spent"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"issuer": "https://other.example"}, id="issuer"),
        pytest.param({"audiences": ("other",)}, id="audience"),
        pytest.param({"audiences": ("charts", "t")}, id="two audiences"),
        pytest.param({"token_id": "other"}, id="token id"),
        pytest.param({"audiences": ("char",), "token_id": "tst"}, id="a moved boundary"),
        pytest.param({"token_id": "\udcff"}, id="a lone surrogate"),
    ],
)
async def test_the_handle_is_of_the_tokens_identity(changes: Any) -> None:
    assert is_handle(handle_of(_claims(**changes)))
    assert handle_of(_claims(**changes)) != handle_of(_claims())
    assert handle_of(replace(_claims(), subject="x", expires_at=1.0)) == handle_of(_claims())
