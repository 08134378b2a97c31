"""Revocation: what is revoked is refused within the declared time, and nobody waits for a store that hangs."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Collection
from types import MappingProxyType
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError, StoreUnavailable
from toucan_guard.core.token_policy import EMBED
from toucan_guard.testing import FakeClock
from toucan_guard.tokens.history import next_version
from toucan_guard.tokens.revocation import MAX_REVOCATIONS, Revocation, RevocationKind, end_of_life, revoke
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.tokens.store import MemoryStore

NOW = 1_800_000_000.0
ISSUER = "https://host.example"
STALENESS = 5.0


def _claims(**changes: Any) -> VerifiedClaims:
    given: dict[str, Any] = {
        "issuer": ISSUER, "audiences": ("charts",), "subject": "u-1", "token_id": "t-1", "issued_at": NOW - 10,
        "expires_at": NOW + 290, "not_before": None, "tenant": "acme", "origins": None, "grants": (),
        "rls": MappingProxyType({}), "region": None, "key_id": "k-1", "algorithm": "HS256", "token_type": EMBED,
        "session_seconds": None, **changes,
    }  # fmt: skip
    return VerifiedClaims(**given)


class Store(MemoryStore):
    """The memory store, which can hang, fail and count."""

    def __init__(self) -> None:
        super().__init__(clock=time.time)
        self.asked = 0
        self.hangs = False
        self.error: Exception | None = None

    async def revoked(self, issuer: str, *, since: str = "") -> tuple[str, Collection[str]] | None:
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        if self.hangs:
            await anyio.sleep(60)
        if self.error is not None:
            raise self.error
        return await super().revoked(issuer, since=since)


class World:
    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock(NOW)
        self.monotonic = FakeClock(100.0)
        self.store = Store()
        given = {"issuer": ISSUER, "staleness_seconds": STALENESS, **options}
        self.revocations = Revocations(self.store, clock=self.clock, monotonic=self.monotonic, **given)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.monotonic.now += seconds

    async def revoke(self, kind: str, value: str, seconds: float = 3600) -> None:
        revocation = Revocation(RevocationKind(kind), value, self.clock() + seconds)
        await revoke(self.store, ISSUER, revocation, now=self.clock())

    async def request(self, **changes: Any) -> str | None:
        await self.revocations.keep_fresh()
        return self.judge(**changes)

    def judge(self, **changes: Any) -> str | None:
        denied = self.revocations.judge(_claims(**changes), self.clock())
        return None if denied is None else str(denied.reason)


async def _settled() -> None:
    """Let work that was begun in the background end."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "value", "others"),
    [
        pytest.param("token", "t-1", {"token_id": "t-2"}, id="a token"),
        pytest.param("subject", "u-1", {"subject": "u-2"}, id="a subject"),
        pytest.param("tenant", "acme", {"tenant": "other"}, id="a tenant"),
        pytest.param("tenant", "acme", {"tenant": None}, id="a tenant, and a token without one"),
        pytest.param("key", "k-1", {"key_id": "k-2"}, id="a key"),
        pytest.param("key", "k-1", {"key_id": None}, id="a key, and a key without a name"),
        pytest.param("issued_before", str(int(NOW) - 9), {"issued_at": NOW - 9}, id="what was issued before a time"),
    ],
)
async def test_what_is_revoked_is_refused_and_nothing_else(kind: str, value: str, others: dict[str, Any]) -> None:
    world = World()
    assert await world.request() is None
    await world.revoke(kind, value)
    await world.revocations.refresh()
    assert world.judge() == Reason.TOKEN_REVOKED
    assert world.judge(**others) is None


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["token", "subject", "tenant", "key"])
async def test_one_kind_is_not_mistaken_for_another(kind: str) -> None:
    world = World()
    await world.revoke(kind, "same")
    await world.revocations.refresh()
    names = {"token": "token_id", "subject": "subject", "tenant": "tenant", "key": "key_id"}
    for other, name in names.items():
        assert world.judge(**{name: "same"}) == (Reason.TOKEN_REVOKED if other == kind else None)


@pytest.mark.anyio
async def test_values_are_compared_exactly() -> None:
    world = World()
    for value in ("ACME", "acme ", "acm", "acme:x", "*"):
        await world.revoke("tenant", value)
    await world.revocations.refresh()
    assert world.judge() is None
    assert world.judge(tenant="acme:x") == Reason.TOKEN_REVOKED


@pytest.mark.anyio
async def test_a_revocation_is_dropped_at_its_end_and_the_later_end_counts() -> None:
    world = World()
    await world.revoke("token", "t-1", 2)
    await world.revoke("token", "t-1", 3)
    await world.revoke("token", "t-1", 1)
    await world.revocations.refresh()
    world.pass_time(2.5)
    assert world.judge() == Reason.TOKEN_REVOKED
    world.pass_time(0.5)
    assert world.judge() is None


@pytest.mark.anyio
async def test_of_several_cut_offs_each_counts_until_its_end() -> None:
    world = World()
    await world.revoke("issued_before", str(int(NOW) - 5), 2)
    await world.revoke("issued_before", str(int(NOW) - 50), 4)
    await world.revoke("issued_before", str(int(NOW) - 60), 3)
    await world.revocations.refresh()
    assert (world.judge(issued_at=NOW - 10), world.judge(issued_at=NOW - 55)) == (Reason.TOKEN_REVOKED,) * 2
    world.pass_time(3.5)
    assert (world.judge(issued_at=NOW - 10), world.judge(issued_at=NOW - 55)) == (None, Reason.TOKEN_REVOKED)


@pytest.mark.anyio
async def test_a_time_of_issue_that_is_no_number_is_revoked() -> None:
    world = World()
    await world.revoke("issued_before", "1")
    await world.revocations.refresh()
    assert world.judge(issued_at=float("nan")) == Reason.TOKEN_REVOKED
    assert world.judge() is None


@pytest.mark.anyio
async def test_another_issuers_revocations_are_not_ours() -> None:
    world = World()
    await revoke(world.store, "https://other.example", Revocation(RevocationKind.TOKEN, "t-1", NOW + 60), now=NOW)
    await world.revocations.refresh()
    assert world.judge() is None


@pytest.mark.anyio
async def test_nobody_is_let_in_before_the_first_reading() -> None:
    world = World()
    assert world.judge() == Reason.STORE_UNAVAILABLE
    assert await world.request() is None


@pytest.mark.anyio
async def test_a_copy_is_renewed_after_half_the_time_and_nobody_waits_for_it() -> None:
    world = World()
    assert await world.request() is None
    assert world.store.asked == 1
    world.pass_time(STALENESS / 2 - 0.01)
    await world.request()
    await _settled()
    assert world.store.asked == 1, "younger than half of the time"
    await world.revoke("token", "t-1")
    asked = world.store.asked
    world.pass_time(0.02)
    assert await world.request() is None, "the renewal is only begun"
    await _settled()
    assert world.store.asked == asked + 1
    assert await world.request() == Reason.TOKEN_REVOKED


@pytest.mark.anyio
async def test_after_an_idle_night_the_first_request_waits_and_knows() -> None:
    world = World()
    await world.request()
    await world.revoke("token", "t-1", 9 * 3600)
    world.pass_time(8 * 3600)
    assert await world.request() == Reason.TOKEN_REVOKED


@pytest.mark.anyio
async def test_a_thousand_requests_ask_once() -> None:
    world = World()
    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(world.request)
    assert world.store.asked == 1
    assert world.judge() is None


@pytest.mark.anyio
async def test_while_the_store_hangs_the_copy_serves_until_it_is_too_old() -> None:
    world = World()
    await world.request()
    world.store.hangs = True
    world.pass_time(STALENESS / 2)
    began = time.monotonic()
    for _ in range(50):
        assert await world.request() is None
    assert time.monotonic() - began < 5, "nobody waits while the copy is good"
    world.pass_time(STALENESS / 2 + 0.01)
    began = time.monotonic()
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(world.request)
    assert time.monotonic() - began < 2.5, "a quarter second, together"
    assert world.judge() == Reason.STORE_UNAVAILABLE


@pytest.mark.anyio
async def test_a_store_that_fails_is_not_asked_by_every_request_and_recovers() -> None:
    world = World()
    world.store.error = StoreUnavailable("down")
    for _ in range(100):
        assert await world.request() == Reason.STORE_UNAVAILABLE
    assert world.store.asked == 1
    world.pass_time(1)
    await world.request()
    assert world.store.asked == 2
    world.store.error = None
    world.pass_time(1)
    assert await world.request() is None


@pytest.mark.anyio
async def test_an_error_that_no_store_should_raise_neither_escapes_nor_opens() -> None:
    world = World()
    world.store.error = RuntimeError("a bug in a store of the host's own")
    assert await world.request() == Reason.STORE_UNAVAILABLE


@pytest.mark.anyio
async def test_refresh_says_that_the_store_hangs() -> None:
    world = World()
    world.store.hangs = True
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await world.revocations.refresh()
    assert time.monotonic() - began < 5


@pytest.mark.anyio
@pytest.mark.parametrize(
    "entry",
    [
        pytest.param("2:token:1900000000:t-1", id="another schema"),
        pytest.param("1:device:1900000000:d-1", id="a kind that this version does not know"),
        pytest.param("1:token:soon:t-1", id="an end that is no time"),
        pytest.param("1:token:1900000000:", id="nothing that is revoked"),
        pytest.param("1:token:01900000000:t-1", id="not the way this version writes"),
        pytest.param("", id="empty"),
        pytest.param("1:token:1900000000:\udcff", id="bytes that are no text"),
    ],
)
async def test_an_entry_that_cannot_be_read_is_not_ignored(entry: str) -> None:
    world = World()
    assert await world.request() is None
    await world.store.revoke(ISSUER, entry)
    with pytest.raises(StoreUnavailable, match="cannot read"):
        await world.revocations.refresh()
    world.pass_time(STALENESS + 0.01)
    assert await world.request() == Reason.STORE_UNAVAILABLE
    await world.store.forget(ISSUER, [entry])
    await world.revoke("token", "other")
    world.pass_time(1)
    assert await world.request() is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("wall", "monotonic"),
    [
        pytest.param(-3600, STALENESS + 0.01, id="the wall clock was set back"),
        pytest.param(STALENESS + 0.01, 0, id="the machine slept, and its steady clock with it"),
    ],
)
async def test_a_copy_is_old_when_either_clock_says_so(wall: float, monotonic: float) -> None:
    world = World()
    await world.request()
    world.clock.now += wall
    world.monotonic.now += monotonic
    assert world.judge() == Reason.STORE_UNAVAILABLE
    assert await world.request() is None


@pytest.mark.anyio
async def test_a_late_answer_does_not_replace_a_newer_one() -> None:
    world = World()
    await world.request()
    await world.revoke("token", "t-1")
    prompt = world.store

    class Late(Store):
        async def revoked(self, issuer: str, *, since: str = "") -> tuple[str, Collection[str]] | None:
            # While this answer is on its way, a question that was asked later is answered.
            world.pass_time(0.1)
            world.revocations._store = prompt
            await world.revocations.refresh()
            return "old", ()

    world.revocations._store = Late()
    await world.revocations.refresh()
    assert world.judge() == Reason.TOKEN_REVOKED


_of_a_request: contextvars.ContextVar[str] = contextvars.ContextVar("_of_a_request", default="nobody")


@pytest.mark.anyio
async def test_the_renewal_runs_on_nobodys_behalf() -> None:
    seen = []

    class Looking(Store):
        async def revoked(self, issuer: str, *, since: str = "") -> tuple[str, Collection[str]] | None:
            seen.append(_of_a_request.get())
            return await super().revoked(issuer, since=since)

    revocations = Revocations(Looking(), issuer=ISSUER, staleness_seconds=5)
    _of_a_request.set("acme")
    await revocations.keep_fresh()
    assert seen == ["nobody"]


@pytest.mark.anyio
async def test_a_request_that_is_cancelled_does_not_cancel_the_renewal() -> None:
    world = World()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await world.revocations.keep_fresh()
    await _settled()
    assert world.judge() is None
    assert world.store.asked == 1


@pytest.mark.anyio
async def test_a_renewal_that_was_lost_with_its_event_loop_is_begun_again() -> None:
    world = World()
    world.revocations._flight = (anyio.Event(), world.monotonic(), anyio.lowlevel.current_token())
    assert await world.request() == Reason.STORE_UNAVAILABLE
    world.pass_time(6)
    assert await world.request() is None


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_another_event_loop_does_not_wait_for_a_renewal_that_is_not_its_own(backend: str) -> None:
    world = World()

    async def lost() -> None:
        world.revocations._flight = (anyio.Event(), world.monotonic(), anyio.lowlevel.current_token())

    anyio.run(lost, backend=backend)
    assert anyio.run(world.request, backend=backend) is None


class Forgetful(Store):
    """A store whose versions tell a history, and which can lose its memory."""

    version = ""

    async def revoked(self, issuer: str, *, since: str = "") -> tuple[str, Collection[str]] | None:
        answer = await super().revoked(issuer)
        assert answer is not None
        return None if since and since == self.version else (self.version, answer[1])

    async def revoke(self, issuer: str, *entries: str) -> None:
        if self.error is not None:
            raise self.error
        await super().revoke(issuer, *entries)
        self.version = next_version(self.version)

    async def forget(self, issuer: str, entries: Collection[str]) -> None:
        await super().forget(issuer, entries)
        self.version = next_version(self.version)

    def lose_everything(self) -> None:
        self._revoked.clear()
        self.version = ""


@pytest.mark.anyio
async def test_what_the_store_has_forgotten_still_counts_and_is_put_back(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    store = world.revocations._store = Forgetful()
    await revoke(store, ISSUER, Revocation(RevocationKind.TENANT, "acme", NOW + 600), now=NOW)
    await revoke(store, ISSUER, Revocation(RevocationKind.TENANT, "lifted", NOW + 600), now=NOW)
    await world.revocations.refresh()
    await store.forget(ISSUER, [Revocation(RevocationKind.TENANT, "lifted", NOW + 600).to_entry()])
    await world.revocations.refresh()
    assert world.judge(tenant="lifted") is None
    assert not caplog.records
    store.lose_everything()
    await world.revocations.refresh()
    await world.revocations.refresh()
    assert world.judge(tenant="acme") == "token_revoked"
    assert len(await _entries(store)) == 1
    assert "it has lost its memory" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("error", [StoreUnavailable("away"), None], ids=["refused", "another writer"])
async def test_what_cannot_be_put_back_counts_in_the_worker_until_its_end(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    store = world.revocations._store = Forgetful()
    await revoke(store, ISSUER, Revocation(RevocationKind.TENANT, "acme", NOW + 600), now=NOW)
    await world.revocations.refresh()

    async def refused(issuer: str, *entries: str) -> None:
        if error is not None:
            raise error

    store.revoke = refused  # type: ignore[method-assign]
    store.lose_everything()
    for _ in range(3):
        await world.revocations.refresh()
        assert world.judge(tenant="acme") == "token_revoked"
        store.version = next_version(store.version)
    assert len(caplog.records) == 1
    world.pass_time(601)
    await world.revocations.refresh()
    assert world.judge(tenant="acme") is None
    assert world.revocations._copy.known == {}  # type: ignore[union-attr]


async def _entries(store: Store) -> Collection[str]:
    answer = await store.revoked(ISSUER)
    assert answer is not None
    return answer[1]


@pytest.mark.anyio
async def test_adding_removes_what_ended_and_refuses_what_is_too_much() -> None:
    world = World()
    await world.revoke("token", "old", 10)
    await world.revoke("token", "recent", 400)
    world.pass_time(500)
    await world.revoke("token", "new")
    answer = await world.store.revoked(ISSUER)
    assert answer is not None
    assert sorted(entry.rsplit(":")[-1] for entry in answer[1]) == ["new", "recent"]
    for number in range(3):
        revocation = Revocation(RevocationKind.TOKEN, str(number), NOW + 9000)
        await revoke(world.store, ISSUER, revocation, now=NOW + 500, max_revocations=5)
    again = Revocation(RevocationKind.TOKEN, "2", NOW + 9000)
    await revoke(world.store, ISSUER, again, now=NOW + 500, max_revocations=5)
    with pytest.raises(ValueError, match="issued before a time"):
        await revoke(
            world.store, ISSUER, Revocation(RevocationKind.TOKEN, "x", NOW + 9000), now=NOW + 500, max_revocations=5
        )


@pytest.mark.anyio
async def test_a_revocation_that_has_ended_is_not_added() -> None:
    with pytest.raises(ValueError, match="end before"):
        await revoke(Store(), ISSUER, Revocation(RevocationKind.TOKEN, "t", NOW), now=NOW)


@pytest.mark.parametrize(
    ("kind", "value", "until"),
    [
        pytest.param("device", "d", NOW, id="an unknown kind"),
        pytest.param("token", "", NOW, id="nothing"),
        pytest.param("token", "x" * 8193, NOW, id="too long"),
        pytest.param("token", "\ud800", NOW, id="a lone surrogate"),
        pytest.param("token", 7, NOW, id="no text"),
        pytest.param("token", "t", float("nan"), id="an end that is not a number"),
        pytest.param("token", "t", float("inf"), id="no end"),
        pytest.param("token", "t", True, id="a boolean for an end"),
        pytest.param("token", "t", "soon", id="a text for an end"),
        pytest.param("issued_before", "yesterday", NOW, id="a time in words"),
        pytest.param("issued_before", "-1", NOW, id="a time before the epoch"),
        pytest.param("issued_before", "²", NOW, id="a digit that is none"),
        pytest.param("issued_before", "1" * 16, NOW, id="a time beyond all clocks"),
    ],
)
def test_a_revocation_of_the_wrong_shape_is_refused(kind: Any, value: Any, until: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Revocation(kind, value, until)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["token", "subject", "tenant", "key"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.integers(-(2**53), 2**53) | st.floats(-(2**53), 2**53, allow_nan=False),
)
def test_what_is_written_is_read_again(kind: str, value: str, until: float) -> None:
    revocation = Revocation(RevocationKind(kind), value, until)
    read = Revocation.from_entry(revocation.to_entry())
    assert read == revocation
    assert read is not None
    assert read.to_entry() == revocation.to_entry()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"1:(token|key):[0-9.eE+_-]{1,20}:.{0,5}", fullmatch=True))
def test_no_entry_makes_the_reader_raise(entry: str) -> None:
    read = Revocation.from_entry(entry)
    assert read is None or read.to_entry() == entry


def test_the_end_of_life_outlives_every_token_and_session() -> None:
    assert end_of_life(NOW, lifetime_seconds=3600, leeway_seconds=30) > NOW + 30 + 3600 + 30


def test_the_declared_time_is_positive() -> None:
    with pytest.raises(ConfigError, match="REVOCATION_STALENESS_SECONDS"):
        World(staleness_seconds=0)


@pytest.mark.anyio
async def test_judging_costs_the_same_however_much_is_revoked() -> None:
    async def seconds(count: int) -> float:
        world = World()
        entries = {Revocation(RevocationKind.TOKEN, f"x-{number}", NOW + 60).to_entry() for number in range(count)}
        entries |= {
            Revocation(RevocationKind.ISSUED_BEFORE, str(number), NOW + number).to_entry() for number in range(count)
        }
        world.store._revoked[ISSUER] = entries
        await world.revocations.refresh()
        claims = _claims()
        best = float("inf")
        for _ in range(5):
            began = time.thread_time()
            for _ in range(1000):
                denied: Deny | None = world.revocations.judge(claims, NOW)
            best = min(best, time.thread_time() - began)
        assert denied is None
        return best

    assert await seconds(MAX_REVOCATIONS) < 5 * await seconds(1)


@pytest.mark.anyio
async def test_what_the_copy_clears_is_what_it_would_judge_and_nobody_waits() -> None:
    world = World()
    assert not world.revocations.clears(_claims(), NOW)  # nothing was read yet
    await world.revocations.refresh()
    for seconds, asked in ((0, 1), (2.4, 1), (2.6, 2), (4.6, 2), (6, 2)):
        world.clock.now, world.monotonic.now = NOW + seconds, 100 + seconds
        # Young enough; old enough to be renewed beside; so old that the request has to wait.
        assert world.revocations.clears(_claims(), world.clock()) is (seconds <= STALENESS * 0.9)
        world.store.hangs = True
        await anyio.wait_all_tasks_blocked()
        assert world.store.asked == asked


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "value"),
    [("token", "t-1"), ("subject", "u-1"), ("tenant", "acme"), ("key", "k-1"), ("issued_before", str(int(NOW)))],
)
async def test_what_is_revoked_is_not_cleared(kind: str, value: str) -> None:
    world = World()
    await world.revoke(kind, value)
    await world.revocations.refresh()
    others = _claims(token_id="t-2", subject="u-2", tenant=None, key_id=None, issued_at=NOW)
    assert not world.revocations.clears(_claims(), NOW)
    assert world.revocations.clears(others, NOW)
    assert world.revocations.clears(_claims(), NOW + 1) is False
    world.monotonic.now += 6  # a clock that was set back hides no age
    assert not world.revocations.clears(others, NOW)
