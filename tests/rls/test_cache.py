"""A cache of the application's own: one embed's entries are nobody else's, and a hit brings its receipts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cachetools import LRUCache, TTLCache, cached

from toucan_guard.core.errors import ConfigError, NoEmbedContext
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.cache import EmbedCache, EmbedRedis, embed_key
from toucan_guard.rls.context import RowAccess, current_row_access

POLICY = RlsPolicy.from_columns({"flights.carrier": "carrier"})
OTHER = RlsPolicy.from_columns({"flights.carrier": "carrier", "planes.carrier": "carrier"})


@contextmanager
def embed(
    carrier: str = "AA", *, policy: RlsPolicy = POLICY, tenant: str = "T", issuer: str = "I"
) -> Iterator[RowAccess]:
    row_filter = policy.row_filter({"carrier": carrier}, tenant=tenant, issuer=issuer)
    assert isinstance(row_filter, RowFilter)
    access = RowAccess(row_filter)
    token = current_row_access.set(access)
    try:
        yield access
    finally:
        access.closed = True
        current_row_access.reset(token)


OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("other rows", {"carrier": "UA"}),
    ("another tenant", {"tenant": "U"}),
    ("another issuer", {"issuer": "J"}),
    ("another policy", {"policy": OTHER}),
]


@pytest.mark.parametrize("other", [pytest.param(other, id=name) for name, other in OTHERS])
def test_an_entry_is_found_by_the_same_embed_alone(other: dict[str, Any]) -> None:
    cache: EmbedCache[str] = EmbedCache(TTLCache(10, 60))
    with embed():
        cache["chart"] = "rows of AA"
    with embed(**other):
        assert "chart" not in cache
        assert (list(cache), len(cache), cache.get("chart")) == ([], 0, None)
        with pytest.raises(KeyError):
            cache["chart"]
        with pytest.raises(KeyError):
            del cache["chart"]
        cache.clear()
        cache["chart"] = "rows of another"
    with embed():  # another connection of the same embed
        assert "chart" in cache
        assert (list(cache), len(cache), cache["chart"]) == (["chart"], 1, "rows of AA")
        del cache["chart"]
        assert cache.setdefault("chart", "made anew") == "made anew"


USES: list[tuple[str, Callable[[EmbedCache[str]], Any]]] = [
    ("get", lambda cache: cache.get("chart")),
    ("item", lambda cache: cache["chart"]),
    ("in", lambda cache: "chart" in cache),
    ("set", lambda cache: cache.__setitem__("chart", "rows")),
    ("delete", lambda cache: cache.__delitem__("chart")),
    ("iteration", list),
    ("length", len),
    ("values", lambda cache: list(cache.values())),
    ("clear", lambda cache: cache.clear()),
    ("setdefault", lambda cache: cache.setdefault("chart", "rows")),
    ("key function", lambda _: embed_key("chart")),
    ("redis key", lambda _: EmbedRedis(None).key("chart")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("use", [pytest.param(use, id=name) for name, use in USES])
def test_on_nobody_s_behalf_every_use_raises(use: Callable[[EmbedCache[str]], Any]) -> None:
    cache: EmbedCache[str] = EmbedCache({})
    with embed() as access:
        cache["chart"] = "rows"
    with pytest.raises(NoEmbedContext, match="outside a guarded connection"):
        use(cache)
    token = current_row_access.set(access)
    try:
        with pytest.raises(NoEmbedContext, match="after the end"):
            use(cache)
    finally:
        current_row_access.reset(token)


@pytest.mark.parametrize("decorate", [
    cached(EmbedCache(LRUCache(10))),
    cached(LRUCache(10), key=embed_key),
], ids=["mapping", "key function"])  # fmt: skip
def test_cachetools_decorates_with_it(decorate: Any) -> None:
    calls: list[tuple[str, Any, Any]] = []

    @decorate
    def chart(name: str, *, month: int = 1) -> str:
        carrier = str(current_row_access.get().row_filter.attributes["carrier"])  # type: ignore[union-attr]
        calls.append((carrier, name, month))
        return f"{name} of {carrier}"

    for carrier in ("AA", "UA", "AA"):
        with embed(carrier):
            for month in (1, 2, 1):
                assert carrier in chart("delays", month=month)
    assert len(calls) == 4
    with pytest.raises(NoEmbedContext):
        chart("delays", month=1)


def test_a_hit_brings_the_receipts_of_what_it_was_made_from() -> None:
    cache: EmbedCache[str] = EmbedCache({})
    with embed() as access:
        access.receipts["flights"] = POLICY.version
        cache["chart"] = "rows"
    with embed() as access:
        assert "chart" in cache
        assert access.receipts == {}  # nothing was read yet
        assert cache["chart"] == "rows"
        assert access.receipts == {"flights": POLICY.version}


@pytest.mark.parametrize("wrong", [None, "cache", [], EmbedCache({})])
def test_it_keeps_entries_in_a_mapping(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="takes a mapping"):
        EmbedCache(wrong)


def test_it_shows_no_entry() -> None:
    assert repr(EmbedCache({})) == "EmbedCache(dict)"


def test_a_key_s_parts_are_not_mixed_up() -> None:
    with embed():
        assert embed_key("a", ("month", 1)) != embed_key("a", month=1)
        assert embed_key("a", x=1, y=2) == embed_key("a", y=2, x=1)
