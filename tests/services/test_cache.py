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
            access.receipts["flights"] = POLICY.version
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
        for use in (charts.get, charts.delete, charts.key, lambda name: charts.set(name, b"", seconds=1)):
            with pytest.raises(NoEmbedContext):
                use("delays")
        assert all("AA" not in str(key) for key in client.keys("*"))


@pytest.mark.parametrize("foreign", [b"rows", b"{}\nrows", b"[1]\nrows", b"[", b'["a"]', b"\xff\nrows"])
def test_what_somebody_else_has_put_there_is_no_entry(valkey: Any, foreign: bytes) -> None:
    with redis.Redis.from_url(valkey.url.replace("valkey:", "redis:")) as client:
        charts = EmbedRedis(client)
        with embed("AA") as access:
            client.set(charts.key("delays"), foreign)
            assert charts.get("delays") is None
            assert access.receipts == {}


def test_async(valkey: Any) -> None:
    async def run() -> None:
        async with redis.asyncio.Redis.from_url(valkey.url.replace("valkey:", "redis:")) as client:
            charts = AsyncEmbedRedis(client)

            async def one(carrier: str) -> None:
                with embed(carrier):
                    for number in range(50):
                        await charts.set("delays", f"{carrier} {number}", seconds=60)
                        assert await charts.get("delays") == f"{carrier} {number}".encode()
                    await charts.delete("delays")
                    assert await charts.get("delays") is None

            async with anyio.create_task_group() as group:
                for carrier in ("AA", "UA", "DL"):
                    group.start_soon(one, carrier)
            with pytest.raises(NoEmbedContext):
                await charts.get("delays")

    anyio.run(run)
