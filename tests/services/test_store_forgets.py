"""A Valkey server that loses its memory: what the workers know to be revoked counts on, and is put back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread
import pytest

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.token_policy import EMBED
from toucan_guard.tokens.redis_store import RedisStore
from toucan_guard.tokens.revocation import Revocation, RevocationKind, revoke
from toucan_guard.tokens.revoked import Revocations

pytestmark = pytest.mark.anyio

ISSUER = "https://host.example"
NOW = time.time()
HASH = "toucan_guard:revoked:" + hashlib.sha256(ISSUER.encode()).hexdigest()


def claims(tenant: str) -> VerifiedClaims:
    return VerifiedClaims(
        issuer=ISSUER, audiences=("charts",), subject="u-1", token_id="t-1", issued_at=int(NOW),
        expires_at=int(NOW) + 600, not_before=None, tenant=tenant,
        origins=OriginAllowlist.parse(["https://portal.example"]), grants=(), rls=MappingProxyType({}), region=None,
        key_id="k-1", algorithm="HS256", token_type=EMBED, session_seconds=None,
    )  # fmt: skip


def tenant(name: str, seconds: float = 3600) -> Revocation:
    return Revocation(RevocationKind.TENANT, name, NOW + seconds)


async def held(store: RedisStore) -> list[str]:
    answer = await store.revoked(ISSUER)
    assert answer is not None
    return sorted(entry.rpartition(":")[2] for entry in answer[1])


async def restart(valkey: Any) -> None:
    """It comes back with nothing."""
    for step in (valkey.stop, valkey.start):
        await anyio.to_thread.run_sync(step)


class World:
    """A writer, and workers whose clock can be set."""

    def __init__(self, open_store: Callable[[str], RedisStore], url: str) -> None:
        self.now = NOW
        self.store = open_store(url)

    def worker(self, store: Any = None) -> Revocations:
        return Revocations(store or self.store, issuer=ISSUER, staleness_seconds=600, clock=lambda: self.now)

    async def revoke(self, *revocations: Revocation) -> None:
        for revocation in revocations:
            await revoke(self.store, ISSUER, revocation, now=NOW)

    def refuses(self, worker: Revocations, name: str) -> bool:
        refusal = worker.judge(claims(name), self.now)
        return refusal is not None and refusal.reason == "token_revoked"


@pytest.fixture
async def open_store(anyio_backend: str) -> AsyncIterator[Callable[[str], RedisStore]]:
    """``open_store(url)``: a store that is closed when the test ends."""
    opened: list[RedisStore] = []

    def open_one(url: str) -> RedisStore:
        opened.append(RedisStore(url))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.aclose()


@pytest.fixture
def world(valkey: Any, open_store: Callable[[str], RedisStore]) -> World:
    return World(open_store, valkey.url)


async def test_a_server_that_restarts_empty_is_told_again_what_a_worker_knows(
    valkey: Any, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.revoke(tenant("kept"), tenant("ends", 60))
    worker, other = world.worker(), world.worker()
    await worker.refresh()
    await other.refresh()
    await restart(valkey)
    world.now += 120
    assert await world.store.revoked(ISSUER) == ("", []), "positive control"
    await worker.refresh()
    assert world.refuses(worker, "kept")
    assert await held(world.store) == ["kept"], "what has ended is not put back"
    fresh = world.worker()
    for later in (worker, other, fresh):
        await later.refresh()
        assert world.refuses(later, "kept")
        assert not world.refuses(later, "ends")
    (record,) = caplog.records
    assert (record.levelname, "with it 1 revocation" in record.getMessage()) == ("ERROR", True)
    # Taking back is still taking back.
    await world.store.forget(ISSUER, [tenant("kept").to_entry()])
    for later in (worker, other, fresh):
        await later.refresh()
        assert not world.refuses(later, "kept")
    assert await held(world.store) == []
    assert len(caplog.records) == 1
    # The next loss is another one.
    await world.revoke(tenant("again"))
    await worker.refresh()
    await restart(valkey)
    await worker.refresh()
    assert await held(world.store) == ["again"]
    assert len(caplog.records) == 2


async def test_what_was_revoked_after_the_loss_does_not_hide_it(valkey: Any, world: World) -> None:
    await world.revoke(tenant("a"), tenant("b"))
    worker = world.worker()
    await worker.refresh()
    await restart(valkey)
    await world.revoke(tenant("c"), tenant("d"), tenant("e"))
    await worker.refresh()
    assert await held(world.store) == list("abcde")
    assert all(world.refuses(worker, name) for name in "abcde")


async def test_a_full_list_is_put_back(valkey: Any, world: World) -> None:
    names = [f"{number:04}" for number in range(5000)]
    await world.store.revoke(ISSUER, *(tenant(name).to_entry() for name in names))
    worker = world.worker()
    await worker.refresh()
    await restart(valkey)
    await worker.refresh()
    assert await held(world.store) == names


class Moving:
    """A store whose server is another one from some moment on."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


async def test_a_replica_that_lags_is_told_what_it_has_missed(
    world: World, open_store: Any, make_valkey: Callable[..., Any]
) -> None:
    """The worker's server is replaced by one that holds an earlier state of the same history."""
    await world.revoke(tenant("a"))
    behind = make_valkey()
    answer = await world.store.revoked(ISSUER)
    assert answer is not None
    behind.ask("HSET", HASH, "@version", answer[0], *(part for entry in answer[1] for part in (entry, "1")))
    await world.revoke(tenant("b"))
    moving = Moving(world.store)
    worker = world.worker(moving)
    await worker.refresh()
    moving.store = open_store(behind.url)
    await worker.refresh()
    assert world.refuses(worker, "b")
    assert await held(moving.store) == ["a", "b"]


async def test_a_worker_that_may_not_put_anything_back_still_knows(
    valkey: Any, world: World, open_store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def limit() -> None:
        valkey.ask("ACL", "SETUSER", "reader", "on", ">pw", "~toucan_guard:*", "-@all", "+hget", "+hkeys")

    limit()
    worker = world.worker(open_store(f"valkey://reader:pw@127.0.0.1:{valkey.port}"))
    await world.revoke(tenant("kept"))
    await worker.refresh()
    await restart(valkey)
    limit()
    for number in range(3):
        await worker.refresh()
        assert world.refuses(worker, "kept")
        await world.revoke(tenant(f"new {number}"))
    await worker.refresh()
    assert all(world.refuses(worker, f"new {number}") for number in range(3))
    assert len(caplog.records) == 1
    world.now += 7200  # until its end
    await worker.refresh()
    assert not world.refuses(worker, "kept")


async def test_a_server_that_forgets_when_it_restarts_is_warned_of_unless_it_has_a_replica(
    valkey: Any, world: World, make_valkey: Callable[..., Any]
) -> None:
    (told,) = await world.store.warnings()
    assert "set appendonly to yes" in told
    replica = make_valkey()
    replica.ask("CONFIG", "SET", "masterauth", unquote(str(urlsplit(valkey.url).password)))
    replica.ask("REPLICAOF", "127.0.0.1", str(valkey.port))
    with anyio.fail_after(30):
        while await world.store.warnings() != ():  # noqa: ASYNC110 - the server says nothing by itself
            await anyio.sleep(0.05)
    lonely = make_valkey("--appendonly", "yes")
    world.store = RedisStore(lonely.url)
    assert await world.store.warnings() == ()
    await world.store.aclose()
