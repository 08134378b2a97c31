"""Who does what for an entry, where tasks and threads run beside each other."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.cache import EmbedCache
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.earnings import Earnings, _lanes

POLICY = RlsPolicy.from_columns({"flights.carrier": "carrier"})
Cache = EmbedCache[str]
Play = Callable[[Cache], Awaitable[object]]


def connect() -> RowAccess:
    row_filter = POLICY.row_filter({"carrier": "AA"})
    assert isinstance(row_filter, RowFilter)
    access = RowAccess(row_filter)
    current_row_access.set(access)
    return access


def ran_on(*tables: str) -> None:
    """What an adapter does."""
    current_row_access.get().note(tables, POLICY.version)  # type: ignore[union-attr]


def earned(play: Play, *, backend: str = "asyncio") -> dict[str, list[str]]:
    """What each entry brings, after one connection has filled the cache."""
    cache: Cache = EmbedCache({})

    async def run() -> dict[str, list[str]]:
        connect()
        await play(cache)
        found = {}
        for key in list(cache):
            access = connect()
            cache[key]
            found[key] = sorted(access.receipts)
        return found

    return copy_context().run(anyio.run, run, backend=backend)


async def pause() -> None:
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


async def ask(*tables: str) -> str:
    await pause()
    ran_on(*tables)
    await pause()
    return "rows"


async def chart(cache: Cache, key: str, *tables: str) -> str:
    if (known := cache.get(key)) is not None:
        return known
    cache[key] = await ask(*tables)
    return cache[key]


async def beside_a_query(cache: Cache) -> None:
    await asyncio.gather(chart(cache, "fleet", "planes"), ask("flights"), chart(cache, "delays", "flights"))


async def beside_a_query_that_began_before(cache: Cache) -> None:
    query = asyncio.create_task(ask("flights"))
    await chart(cache, "fleet", "planes")
    await query


async def asked_by_tasks_of_its_own(cache: Cache) -> None:
    async def both() -> None:
        if cache.get("both") is None:
            async with asyncio.TaskGroup() as group:
                group.create_task(ask("planes"))
                group.create_task(chart(cache, "delays", "flights"))
            cache["both"] = "rows"

    await asyncio.gather(both(), ask("fares"))


async def asked_by_threads_of_its_own(cache: Cache) -> None:
    async def both() -> None:
        if cache.get("both") is None:
            await asyncio.gather(asyncio.to_thread(ran_on, "planes"), anyio.to_thread.run_sync(ran_on, "flights"))
            cache["both"] = "rows"

    await asyncio.gather(both(), ask("fares"))


async def looked_for_by_a_task_that_is_over(cache: Cache) -> None:
    async def look(key: str) -> str | None:
        return cache.get(key)

    assert await asyncio.gather(*map(look, ["fleet", "delays"])) == [None, None]
    assert await asyncio.create_task(look("both")) is None
    await ask("planes")
    cache["fleet"] = "rows"
    await ask("flights")
    cache["both"] = "rows"


async def looked_for_by_a_thread(cache: Cache) -> None:
    assert await anyio.to_thread.run_sync(cache.get, "fleet") is None
    await anyio.to_thread.run_sync(ran_on, "planes")
    cache["fleet"] = "rows"


async def looked_for_again_before_it_is_kept(cache: Cache) -> None:
    async def look() -> str | None:
        return cache.get("fleet")

    assert await asyncio.create_task(look()) is None
    await ask("planes")
    if "fleet" not in cache:
        cache["fleet"] = "rows"


async def kept_by_another_task(cache: Cache) -> None:
    async def keep() -> None:
        cache["fleet"] = "rows"

    assert cache.get("fleet") is None
    await ask("planes")
    await asyncio.create_task(keep())


async def two_make_the_same_entry(cache: Cache) -> None:
    first, second = anyio.Event(), anyio.Event()

    async def one(mine: anyio.Event, other: anyio.Event | None) -> None:
        assert cache.get("fleet") is None
        await pause()
        if other is not None:
            await other.wait()
        ran_on("planes")
        cache["fleet"] = "rows"
        mine.set()

    await asyncio.gather(one(first, second), one(second, None), ask("flights"))


async def one_after_the_other(cache: Cache) -> None:
    ran_on("fares")
    for key, table in (("fleet", "planes"), ("delays", "flights"), ("fleet", "staff")):
        cache.pop(key, None)
        await chart(cache, key, table)


async def tasks_that_start_each_other(cache: Cache) -> None:
    async def tick(left: int) -> None:
        await chart(cache, f"tick {left}", f"t{left}")
        if left:
            tasks.append(asyncio.create_task(tick(left - 1)))

    tasks = [asyncio.create_task(tick(2))]
    for task in tasks:
        await task


async def refreshed_beside_another(cache: Cache) -> None:
    """Each of two tasks finds the entry too old and makes it anew; what a third one asks serves neither."""
    looked = anyio.Event()

    async def one(*tables: str, waits: bool) -> None:
        assert cache["fleet"] == "rows"
        if waits:
            await looked.wait()
        looked.set()
        cache["fleet"] = await ask(*tables)

    cache["fleet"] = "rows"
    await asyncio.gather(one("planes", waits=True), one("planes", waits=False), chart(cache, "delays", "flights"))


async def refreshed_by_a_task_of_its_own(cache: Cache) -> None:
    async def refresh() -> None:
        cache["fleet"] = await ask("planes")

    async def one() -> str:
        known = cache["fleet"]
        tasks.append(asyncio.create_task(refresh()))  # stale while it revalidates
        return known

    tasks: list[asyncio.Task[None]] = []
    cache["fleet"] = "rows"
    await asyncio.gather(one(), ask("fares"))
    await asyncio.gather(*tasks, ask("flights"))


async def refreshed_by_a_thread_of_its_own(cache: Cache) -> None:
    def refresh() -> None:
        ran_on("planes")
        cache["fleet"] = "rows"

    async def one() -> None:
        assert cache["fleet"] == "rows"
        await anyio.to_thread.run_sync(refresh)

    cache["fleet"] = "rows"
    await asyncio.gather(one(), ask("flights"))


async def refreshed_by_who_found_it_in_a_thread(cache: Cache) -> None:
    cache["fleet"] = "rows"
    assert await anyio.to_thread.run_sync(cache.get, "fleet") == "rows"
    cache["fleet"] = await ask("planes")


async def refreshed_by_who_found_it_in_a_task_that_is_over(cache: Cache) -> None:
    async def look() -> str | None:
        return cache.get("fleet")

    cache["fleet"] = "rows"
    await ask("fares")
    assert await asyncio.create_task(look()) == "rows"
    cache["fleet"] = await ask("planes")


async def found_long_before(cache: Cache) -> None:
    """What is found again counts from then on."""
    cache["fleet"] = "rows"
    assert cache["fleet"] == "rows"
    await ask("flights")
    assert cache["fleet"] == "rows"
    cache["fleet"] = await ask("planes")


async def found_before_it_was_missed(cache: Cache) -> None:
    async def make() -> None:
        await chart(cache, "fleet", "planes")

    cache["fleet"] = "rows"
    assert cache["fleet"] == "rows"
    await ask("flights")
    del cache["fleet"]
    await asyncio.create_task(make())
    del cache["fleet"]
    await chart(cache, "fleet", "staff")


async def found_by_others_while_it_is_made(cache: Cache) -> None:
    async def look() -> None:
        assert cache["fleet"] == "rows"
        await ask("flights")

    async def make(seen: anyio.Event, first: str) -> None:
        assert cache.get("fleet") is None
        await ask(first)
        seen.set()
        await pause()
        cache["fleet"] = "rows"

    async def second() -> None:
        assert cache.get("fleet") is None
        await seen.wait()
        cache["fleet"] = "rows"
        await look()

    seen = anyio.Event()
    await asyncio.gather(make(seen, "planes"), second())


async def found_by_a_task_and_replaced_by_another(cache: Cache) -> None:
    async def look() -> None:
        assert cache["fleet"] == "rows"
        await asked.wait()

    async def replace() -> None:
        await ask("flights")
        cache["fleet"] = "rows"
        asked.set()

    asked = anyio.Event()
    cache["fleet"] = "rows"
    await asyncio.gather(look(), replace())


async def looked_for_twice_and_kept_twice(cache: Cache) -> None:
    assert "fleet" not in cache
    assert cache.get("fleet") is None
    cache["fleet"] = await ask("planes")
    await ask("flights")
    cache["fleet"] = "rows"


async def one_works_and_the_others_wait(cache: Cache) -> None:
    """The way to make an entry once: a lock, and a second look under it."""

    async def one() -> str:
        if (known := cache.get("fleet")) is not None:
            return known
        async with lock:
            return await chart(cache, "fleet", "planes")

    lock = asyncio.Lock()
    assert await asyncio.gather(one(), ask("flights"), one(), one()) == ["rows"] * 4


async def a_future_kept_first(cache: Cache) -> None:
    futures: EmbedCache[asyncio.Task[str]] = EmbedCache(cache._cache)
    if futures.get("fleet") is None:
        futures["fleet"] = asyncio.create_task(ask("planes"))
    assert await futures["fleet"] == "rows"


@pytest.mark.parametrize(
    ("play", "found"),
    [
        pytest.param(play, found, id=play.__name__.replace("_", " "))
        for play, found in (
            (beside_a_query, {"fleet": ["planes"], "delays": ["flights"]}),
            (beside_a_query_that_began_before, {"fleet": ["planes"]}),
            (asked_by_tasks_of_its_own, {"both": ["flights", "planes"], "delays": ["flights"]}),
            (asked_by_threads_of_its_own, {"both": ["flights", "planes"]}),
            (looked_for_by_a_task_that_is_over, {"fleet": ["planes"], "both": ["flights", "planes"]}),
            (looked_for_by_a_thread, {"fleet": ["planes"]}),
            (looked_for_again_before_it_is_kept, {"fleet": ["planes"]}),
            (kept_by_another_task, {"fleet": ["planes"]}),
            (two_make_the_same_entry, {"fleet": ["planes"]}),
            (one_after_the_other, {"fleet": ["staff"], "delays": ["flights"]}),
            (refreshed_beside_another, {"fleet": ["planes"], "delays": ["flights"]}),
            (refreshed_by_a_task_of_its_own, {"fleet": ["planes"]}),
            (refreshed_by_a_thread_of_its_own, {"fleet": ["planes"]}),
            (refreshed_by_who_found_it_in_a_thread, {"fleet": ["planes"]}),
            (refreshed_by_who_found_it_in_a_task_that_is_over, {"fleet": ["planes"]}),
            (found_long_before, {"fleet": ["planes"]}),
            (found_before_it_was_missed, {"fleet": ["staff"]}),
            (found_by_others_while_it_is_made, {"fleet": ["planes"]}),
            (found_by_a_task_and_replaced_by_another, {"fleet": []}),
            (looked_for_twice_and_kept_twice, {"fleet": []}),
            (one_works_and_the_others_wait, {"fleet": ["planes"]}),
            (a_future_kept_first, {"fleet": []}),
            (tasks_that_start_each_other, {"tick 2": ["t2"], "tick 1": ["t1"], "tick 0": ["t0"]}),
        )
    ],
)
def test_an_entry_earns_what_was_done_for_it(play: Play, found: dict[str, list[str]]) -> None:
    assert earned(play) == found


def test_on_trio_what_runs_beside_it_counts_too() -> None:
    pytest.importorskip("trio")

    async def play(cache: Cache) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(chart, cache, "fleet", "planes")
            group.start_soon(ask, "flights")

    async def again(cache: Cache) -> None:
        await play(cache)
        assert cache["fleet"] == "rows"
        cache["fleet"] = await ask("staff")

    assert earned(play, backend="trio") == {"fleet": ["flights", "planes"]}
    assert earned(again, backend="trio") == {"fleet": ["staff"]}


def test_a_socket_that_finds_one_entry_for_days_keeps_an_account_of_living_tasks_alone() -> None:
    cache: Cache = EmbedCache({})

    async def look() -> None:
        assert cache["fleet"] == "rows"

    async def run() -> None:
        access = connect()
        cache["fleet"] = "rows"
        for _ in range(50):
            await asyncio.create_task(look())
        ((_, hits),) = access.earnings._hits.items()
        assert len(hits) == 1

    anyio.run(run)


def test_a_context_that_serves_one_connection_after_the_other_keeps_nothing_of_them() -> None:
    """As a server does with keep-alive."""
    cache: Cache = EmbedCache({})

    class Key:
        pass

    async def run() -> None:
        kept: list[weakref.ref[Any]] = []
        for number in range(50):
            connect()
            key: Any = Key()
            kept.append(weakref.ref(key))
            await asyncio.create_task(chart(cache, f"fleet {number}", "planes"))
            assert cache.get(key) is None
            await ask("flights")
            cache[f"delays {number}"] = "rows"
            assert len(_lanes.get()) == 1
            del key
        connect()
        gc.collect()
        assert [left for left in kept if left() is not None] == []

    anyio.run(run)


def test_a_connection_that_asks_no_cache_keeps_no_account() -> None:
    access = copy_context().run(connect)
    access.note(["flights"], POLICY.version)
    assert access._earnings is None
    assert isinstance(access.earnings, Earnings)
    assert access.earnings is access.earnings
