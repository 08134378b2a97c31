"""A cache of the application's own: one embed's entries are nobody else's, and a hit brings its receipts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from inspect import signature
from typing import Any

import anyio
import anyio.lowlevel
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
    ("touch", lambda cache: cache.touch("chart")),
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


@pytest.mark.parametrize("decorator", [
    lambda: cached(EmbedCache(LRUCache(10))),
    lambda: cached(LRUCache(10), key=embed_key),
], ids=["mapping", "key function"])  # fmt: skip
def test_cachetools_decorates_with_it(decorator: Callable[[], Any]) -> None:
    calls: list[tuple[str, Any, Any]] = []

    @decorator()
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


V = POLICY.version
CHARTS = "charts.example"  # any key


def made_by(fill: Callable[[EmbedCache[str]], object]) -> dict[str, str]:
    """The receipts that an entry brings to the next connection, once this one has filled the cache."""
    cache: EmbedCache[str] = EmbedCache({})
    with embed() as access:
        access.note(["planes"], V)  # before, and for something else
        fill(cache)
    with embed() as access:
        assert CHARTS in cache
        assert access.receipts == {}  # nothing was read yet
        assert cache[CHARTS] == "rows"
        return access.receipts


def ran_on(*tables: str) -> None:
    """What an adapter does."""
    current_row_access.get().note(tables, V)  # type: ignore[union-attr]


def looked_by(look: Callable[[EmbedCache[str]], object]) -> Callable[[EmbedCache[str]], object]:
    def fill(cache: EmbedCache[str]) -> None:
        look(cache)
        ran_on("flights")
        cache[CHARTS] = "rows"

    return fill


def _with_item(cache: EmbedCache[str]) -> None:
    with pytest.raises(KeyError):
        cache[CHARTS]


def _decorated(**options: Any) -> Callable[[EmbedCache[str]], object]:
    def fill(cache: EmbedCache[str]) -> None:
        @cached(cache, key=lambda: CHARTS, **options)
        def chart() -> str:
            ran_on("flights")
            return "rows"

        assert (chart(), chart()) == ("rows", "rows")

    return fill


def _in_a_thread(step: Callable[[], object]) -> None:
    thread = threading.Thread(target=copy_context().run, args=(step,))
    thread.start()
    thread.join()


def _looked_elsewhere(cache: EmbedCache[str]) -> None:
    """A thread looks, another one asks the database, and a third keeps what it found."""
    for step in (lambda: cache.get(CHARTS), lambda: ran_on("flights"), lambda: cache.__setitem__(CHARTS, "rows")):
        _in_a_thread(step)


def _nested(cache: EmbedCache[str]) -> None:
    inner: EmbedCache[str] = EmbedCache(LRUCache(10))

    @cached(inner)
    def flights() -> str:
        ran_on("flights")
        return "flights"

    flights()  # is there before: the outer one finds it

    @cached(cache, key=lambda: CHARTS)
    def chart() -> str:
        flights()
        return "rows"

    chart()


def _failed_before(cache: EmbedCache[str]) -> None:
    @cached(cache, key=lambda: CHARTS)
    def chart(fails: bool) -> str:
        if fails:
            raise ValueError
        ran_on("flights")
        return "rows"

    with pytest.raises(TypeError):
        chart()
    cache.get(CHARTS)
    looked_by(lambda cache: cache.get(CHARTS))(cache)


async def _several_tasks(cache: EmbedCache[str]) -> None:
    async def chart() -> None:
        if cache.get(CHARTS) is None:
            await anyio.lowlevel.checkpoint()
            ran_on("flights")
            await anyio.lowlevel.checkpoint()
            cache[CHARTS] = "rows"

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(chart)


def _refreshed(look: Callable[[EmbedCache[str]], object]) -> Callable[[EmbedCache[str]], object]:
    """An entry that another table has made is found, too old, and made anew."""

    def fill(cache: EmbedCache[str]) -> None:
        cache.get(CHARTS)
        ran_on("airports")
        cache[CHARTS] = "old rows"
        ran_on("fares")
        looked_by(look)(cache)

    return fill


FILLS: list[tuple[str, Callable[[EmbedCache[str]], object]]] = [
    ("looked for as an item", looked_by(_with_item)),
    ("looked for with get", looked_by(lambda cache: cache.get(CHARTS))),
    ("looked for with in", looked_by(lambda cache: CHARTS in cache)),
    ("looked for with pop", looked_by(lambda cache: cache.pop(CHARTS, None))),
    ("looked for twice", looked_by(lambda cache: CHARTS in cache or cache.get(CHARTS))),
    ("decorated", _decorated()),
    ("decorated, with a lock", _decorated(lock=threading.Lock())),
    ("other threads", _looked_elsewhere),
    ("several tasks make one entry", lambda cache: anyio.run(_several_tasks, cache)),
    ("found by another cache", _nested),
    ("a look-up before that failed", _failed_before),
    ("found, too old and made anew", _refreshed(lambda cache: cache[CHARTS])),
    ("found with get and made anew", _refreshed(lambda cache: cache.get(CHARTS))),
    ("found with in and made anew", _refreshed(lambda cache: CHARTS in cache)),
    ("found often and made anew", _refreshed(lambda cache: [cache[CHARTS] for _ in range(3)])),
    ("found by a thread and made anew", _refreshed(lambda cache: _in_a_thread(lambda: cache[CHARTS]))),
    ("found and touched", lambda cache: (_decorated()(cache), cache.touch(CHARTS))),
    ("not found by who touches it", lambda cache: (_decorated()(cache), cache.touch("other"), cache.touch(CHARTS))),
    ("deleted and made anew", lambda cache: (_decorated()(cache), cache.pop(CHARTS), _decorated()(cache))),
]
if "condition" in signature(cached).parameters:
    FILLS.append(("decorated, one at a time", _decorated(condition=threading.Condition())))


@pytest.mark.parametrize("fill", [pytest.param(fill, id=name) for name, fill in FILLS])
def test_an_entry_brings_what_was_filtered_between_the_look_up_and_its_making(fill: Any) -> None:
    assert made_by(fill) == {"flights": V}


def test_what_was_filtered_before_and_again_counts() -> None:
    def fill(cache: EmbedCache[str]) -> None:
        ran_on("flights")
        looked_by(lambda cache: cache.get(CHARTS))(cache)

    assert made_by(fill) == {"flights": V}


def test_what_comes_from_another_cache_is_filtered_too() -> None:
    inner: EmbedCache[str] = EmbedCache({})
    with embed():
        inner.get("airports")
        ran_on("airports")
        inner["airports"] = "rows"

    def fill(cache: EmbedCache[str]) -> None:
        cache.get(CHARTS)
        assert inner["airports"] == "rows"
        cache[CHARTS] = "rows"

    assert made_by(fill) == {"airports": V}


def _set(cache: EmbedCache[str]) -> None:
    cache[CHARTS] = "rows"


def _ran_and_set(cache: EmbedCache[str]) -> None:
    ran_on("flights")
    _set(cache)


def _in_another(cache: EmbedCache[str]) -> None:
    other: EmbedCache[str] = EmbedCache({})
    _set(other)
    assert other[CHARTS] == "rows"
    _set(cache)


UNEARNED: list[tuple[str, Callable[[EmbedCache[str]], object]]] = [
    ("not looked for", lambda cache: (ran_on("flights"), _set(cache))),
    ("updated", lambda cache: (ran_on("flights"), cache.update({CHARTS: "rows"}))),
    ("by setdefault", lambda cache: (ran_on("flights"), cache.setdefault(CHARTS, "rows"))),
    ("filtered before the look-up", lambda cache: (ran_on("flights"), cache.get(CHARTS), _set(cache))),
    ("another key was looked for", lambda cache: (cache.get("other"), ran_on("flights"), _set(cache))),
    ("in another cache", lambda cache: (EmbedCache({}).get(CHARTS), ran_on("flights"), _set(cache))),
    ("put there again", lambda cache: (looked_by(lambda c: c.get(CHARTS))(cache), _set(cache))),
    ("nothing ran", lambda cache: (cache.get(CHARTS), _set(cache))),
    ("found, and nothing ran", lambda cache: (looked_by(lambda c: c.get(CHARTS))(cache), cache[CHARTS], _set(cache))),
    ("what was found, put there again", lambda c: (looked_by(lambda c: c.get(CHARTS))(c), c.update({**c}))),
    (
        "found, made anew, and put there again",
        lambda cache: (_refreshed(lambda c: c[CHARTS])(cache), _set(cache)),
    ),
    ("another key was found", lambda cache: (_set(cache), cache.update(other=""), cache["other"], _ran_and_set(cache))),
    ("found in another cache", lambda cache: (_in_another(cache), _ran_and_set(cache))),
]


@pytest.mark.parametrize("fill", [pytest.param(fill, id=name) for name, fill in UNEARNED])
def test_an_entry_brings_nothing_that_it_did_not_earn(fill: Any) -> None:
    assert made_by(fill) == {}


def test_a_look_up_counts_in_its_own_connection_alone() -> None:
    cache: EmbedCache[str] = EmbedCache({})
    with embed():
        cache.get("chart")
        with embed():
            ran_on("flights")
            cache["chart"] = "rows"
    with embed() as access:
        assert (cache["chart"], access.receipts) == ("rows", {})


def test_a_value_that_the_cache_does_not_take_leaves_the_look_up_to_the_next() -> None:
    cache: EmbedCache[str] = EmbedCache(LRUCache(5, getsizeof=lambda pair: len(pair[0])))
    with embed():
        cache.get("chart")
        ran_on("flights")
        with pytest.raises(ValueError, match="too large"):
            cache["chart"] = "too long"
        cache["chart"] = "rows"
    with embed() as access:
        assert (cache["chart"], access.receipts) == ("rows", {"flights": V})


def test_an_entry_that_is_touched_lives_longer() -> None:
    now = 0.0
    cache: EmbedCache[str] = EmbedCache(TTLCache(10, 60, timer=lambda: now))
    with embed():
        looked_by(lambda cache: cache.get(CHARTS))(cache)
        now = 59.0
        assert cache.touch(CHARTS) is True
    with embed("UA"):
        assert cache.touch(CHARTS) is False
    now = 118.0
    with embed() as access:
        assert (cache[CHARTS], access.receipts) == ("rows", {"flights": V})
        now = 120.0
        assert cache.touch(CHARTS) is False


def test_forgetting_reads_nothing() -> None:
    cache: EmbedCache[str] = EmbedCache({})
    with embed():
        looked_by(lambda cache: cache.get(CHARTS))(cache)
        cache["other"] = "rows"
    with embed("UA"):
        cache["other"] = "rows of UA"
    with embed() as access:
        del cache["other"]
        cache.clear()
        assert (len(cache), access.receipts) == (0, {})
    with embed("UA"):
        assert list(cache) == ["other"]


def test_a_connection_that_looks_for_very_much_forgets_the_oldest() -> None:
    cache: EmbedCache[int] = EmbedCache({})
    with embed() as access:
        for number in range(10_000):
            cache.get(number)
        assert len(access.earnings._misses) == 4096
        ran_on("flights")
        cache[0] = cache[9_999] = 1
        assert len(access.earnings._misses) == 4095
    with embed() as access:
        assert (cache[0], access.receipts) == (1, {})
        assert (cache[9_999], access.receipts) == (1, {"flights": V})
        cache.update(dict.fromkeys(range(10_000), 0))
        assert sum(cache.values()) == 0
        assert len(access.earnings._hits) == 4096


def test_threads_of_one_connection_do_not_disturb_each_other() -> None:
    cache: EmbedCache[str] = EmbedCache({})
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(300):
                key = f"{number % 2} {turn}"
                if cache.get(key) is None:
                    ran_on("flights", f"t{number}")
                    cache[key] = "rows"
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test tells
            failed.append(error)

    with embed() as access:
        threads = [threading.Thread(target=copy_context().run, args=(work, number)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert access.earnings._misses == {}
    with embed() as access:
        for key in list(cache):
            access.receipts.clear()
            assert cache[key] == "rows"
            assert "flights" in access.receipts


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
