"""An application's cache in Valkey: one embed's entries are nobody else's, sync and async."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from toucan_guard.core.errors import NoEmbedContext
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.cache import AsyncEmbedRedis, EmbedRedis
from toucan_guard.rls.context import RowAccess, current_row_access

redis = pytest.importorskip("redis", reason="the extra [redis] has the driver")
POLICY = RlsPolicy.from_columns({"flights.carrier": "carrier"})


@contextmanager
def embed(carrier: str) -> Iterator[RowAccess]:
    row_filter = POLICY.row_filter({"carrier": carrier})
    assert isinstance(row_filter, RowFilter)
    access = RowAccess(row_filter)
    token = current_row_access.set(access)
    try:
        yield access
    finally:
        current_row_access.reset(token)


@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "decoded"])
def test_entries_are_held_apart(valkey: Any, decode: bool) -> None:
    with redis.Redis.from_url(valkey.url.replace("valkey:", "redis:"), decode_responses=decode) as client:
        charts = EmbedRedis(client, prefix="charts")
        with embed("AA") as access:
            access.note(["planes"], POLICY.version)
            assert charts.get("delays") is None
            access.note(["flights"], POLICY.version)
            charts.set("delays", "zwölf\nrows of AA", seconds=60)
            assert client.ttl(charts.key("delays")) > 0
        with embed("UA"):
            assert charts.get("delays") is None
            charts.delete("delays")
            charts.set("delays", b"rows of UA", seconds=60)
        with embed("AA") as access:
            assert charts.get("delays") == "zwölf\nrows of AA".encode()
            assert access.receipts == {"flights": POLICY.version}
            charts.delete("delays")
            assert charts.get("delays") is None
        written = [lambda name: charts.set(name, b"", seconds=1), lambda name: charts.touch(name, seconds=1)]
        for use in (charts.get, charts.delete, charts.key, *written):
            with pytest.raises(NoEmbedContext):
                use("delays")
        assert all("AA" not in str(key) for key in client.keys("*"))


FOREIGN = [
    b"rows", b"{}\nrows", b"[1]\nrows", b"[", b'["a"]', b"\xff\nrows", b'{"embed": "OURS", "filtered": [1]}\nrows',
    b'{"embed": "OURS", "filtered": "flights"}\nrows', b'{"embed": "OURS", "filtered": ["flights"]}',
    b'{"embed": "OURS"}\nrows', b"[" * 100_000 + b"\nrows",
    b'{"filtered": ["flights"]}\nrows', b'{"embed": "", "filtered": ["flights"]}\nrows',
]  # fmt: skip


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda raw: raw[:20].decode("latin-1"))
def test_what_somebody_else_has_put_there_is_no_entry(valkey: Any, foreign: bytes) -> None:
    with redis.Redis.from_url(valkey.url.replace("valkey:", "redis:")) as client:
        charts = EmbedRedis(client)
        with embed("AA") as access:
            client.set(charts.key("delays"), foreign.replace(b"OURS", access.embed_key.encode()))
            assert charts.get("delays") is None
            assert access.receipts == {}


def test_another_embeds_entry_is_none_whatever_key_it_comes_under(valkey: Any) -> None:
    with redis.Redis.from_url(valkey.url.replace("valkey:", "redis:")) as client:
        charts = EmbedRedis(client)
        with embed("AA") as access:
            charts.get("delays")
            access.note(["flights"], POLICY.version)
            charts.set("delays", "rows of AA", seconds=60)
            theirs = charts.key("delays")
        with embed("UA") as access:
            # As a connection that got out of step would answer.
            client.copy(theirs, charts.key("delays"))
            assert charts.get("delays") is None
            assert access.receipts == {}
            charts.set("delays", "rows of UA", seconds=60)
            assert charts.get("delays") == b"rows of UA"
        with embed("AA") as access:
            assert charts.get("delays") == b"rows of AA"
            assert access.receipts == {"flights": POLICY.version}


def test_what_an_earlier_version_has_put_there_brings_nothing_and_is_made_anew(valkey: Any) -> None:
    with redis.Redis.from_url(valkey.url.replace("valkey:", "redis:")) as client:
        charts = EmbedRedis(client)
        with embed("AA") as access:
            client.set(charts.key("delays"), b'["airlines", "flights"]\nrows')
            assert charts.get("delays") is None
            access.note(["airlines"], POLICY.version)
            charts.set("delays", "new rows", seconds=60)
        with embed("AA") as access:
            assert charts.get("delays") == b"new rows"
            assert access.receipts == {"airlines": POLICY.version}


def test_an_entry_that_was_found_and_made_anew_brings_what_was_filtered_for_the_new_one(valkey: Any) -> None:
    url = valkey.url.replace("valkey:", "redis:")

    async def run() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            charts = AsyncEmbedRedis(client)
            with embed("AA") as access:
                assert await charts.get("delays") == b"new rows"
                access.note(["planes"], POLICY.version)
                await charts.set("delays", "newer rows", seconds=60)
            with embed("AA") as access:
                assert await charts.get("delays") == b"newer rows"
                assert access.receipts == {"planes": POLICY.version}
                await client.expire(charts.key("delays"), 10)
                assert await charts.touch("delays", seconds=60) is True
                assert await client.ttl(charts.key("delays")) > 10
            with embed("UA"):
                assert await charts.touch("delays", seconds=60) is False

    with redis.Redis.from_url(url) as client:
        charts = EmbedRedis(client)
        with embed("AA") as access:
            charts.get("delays")
            access.note(["airlines"], POLICY.version)
            charts.set("delays", "rows", seconds=60)
        with embed("AA") as access:
            assert charts.get("delays") == b"rows"
            access.note(["flights"], POLICY.version)
            charts.set("delays", "new rows", seconds=10)
            assert charts.touch("delays", seconds=60) is True
            assert client.ttl(charts.key("delays")) > 10
        with embed("AA") as access:
            assert charts.get("delays") == b"new rows"
            assert access.receipts == {"flights": POLICY.version}
            assert charts.touch("another", seconds=60) is False
    anyio.run(run)


def test_an_entry_is_bytes_or_text(valkey: Any) -> None:
    with redis.Redis.from_url(valkey.url.replace("valkey:", "redis:")) as client, embed("AA"):
        cache = EmbedRedis(client)
        for value in (5, True, 1.5, None, ["rows"], [1, 2]):
            with pytest.raises(TypeError, match="bytes or text"):
                cache.set("chart", value, seconds=60)  # type: ignore[arg-type]
        assert cache.get("chart") is None
        for kept in (b"rows", bytearray(b"rows"), memoryview(b"rows"), "rows"):
            cache.set("chart", kept, seconds=60)  # type: ignore[arg-type]
            assert cache.get("chart") == b"rows"


def test_an_entry_that_was_not_looked_for_brings_nothing(valkey: Any) -> None:
    with redis.Redis.from_url(valkey.url.replace("valkey:", "redis:")) as client:
        charts = EmbedRedis(client)
        with embed("AA") as access:
            charts.get("another")
            access.note(["flights"], POLICY.version)
            charts.set("delays", "rows", seconds=60)
        with embed("AA") as access:
            assert charts.get("delays") == b"rows"
            assert access.receipts == {}


def test_a_server_that_does_not_answer_was_asked_all_the_same(make_valkey: Any) -> None:
    valkey = make_valkey()
    url = valkey.url.replace("valkey:", "redis:")

    async def play(client: Any) -> None:
        charts = AsyncEmbedRedis(client)
        with embed("AA") as access:
            with pytest.raises(redis.ConnectionError):
                await charts.get("delays")
            access.note(["flights"], POLICY.version)
            with pytest.raises(redis.ConnectionError):
                await charts.set("delays", "rows", seconds=60)
            valkey.start()
            await charts.set("delays", "rows", seconds=60)
        with embed("AA") as access:
            assert await charts.get("delays") == b"rows"
            assert access.receipts == {"flights": POLICY.version}

    async def run() -> None:
        async with redis.asyncio.Redis.from_url(url, retry=None) as client:
            await play(client)

    with redis.Redis.from_url(url, retry=None) as client:
        charts = EmbedRedis(client)
        with embed("UA") as access:
            valkey.stop()
            with pytest.raises(redis.ConnectionError):
                charts.get("delays")
            access.note(["flights"], POLICY.version)
            valkey.start()
            charts.set("delays", "rows", seconds=60)
        with embed("UA") as access:
            assert charts.get("delays") == b"rows"
            assert access.receipts == {"flights": POLICY.version}
    valkey.stop()
    anyio.run(run)


def test_async(valkey: Any) -> None:
    async def run() -> None:
        async with redis.asyncio.Redis.from_url(valkey.url.replace("valkey:", "redis:")) as client:
            charts = AsyncEmbedRedis(client)

            async def one(carrier: str) -> None:
                for number in range(50):
                    with embed(carrier) as access:
                        assert await charts.get("delays") is None
                        access.note([carrier], POLICY.version)
                        await charts.set("delays", f"{carrier} {number}", seconds=60)
                    with embed(carrier) as access:
                        assert await charts.get("delays") == f"{carrier} {number}".encode()
                        assert access.receipts.keys() == {carrier}
                        await charts.delete("delays")
                        assert await charts.get("delays") is None

            async with anyio.create_task_group() as group:
                for carrier in ("AA", "UA", "DL"):
                    group.start_soon(one, carrier)
            with pytest.raises(NoEmbedContext):
                await charts.get("delays")

    anyio.run(run)
