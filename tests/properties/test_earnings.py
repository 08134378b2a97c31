"""What an entry earns, against a model that is too simple to be wrong: one task, whatever other connections do."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.cache import EmbedCache
from toucan_guard.rls.context import RowAccess, current_row_access

POLICY = RlsPolicy.from_columns({"flights.carrier": "carrier"})
KEYS = st.sampled_from("aaab")
TABLES = st.sampled_from(["flights", "planes", "staff"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("look"), KEYS, st.sampled_from(["get", "in", "item"])),
        st.tuples(st.just("ask"), TABLES, st.just("")),
        st.tuples(st.just("keep"), KEYS, st.just("")),
        st.tuples(st.just("drop"), KEYS, st.just("")),
        st.tuples(st.just("somebody keeps"), KEYS, TABLES),
        st.tuples(st.just("somebody drops"), KEYS, st.just("")),
    ),
    min_size=10,
    max_size=30,
)


class Model:
    """A key's account begins at the first look-up that does not find it, and anew at every one that does. It ends when
    something is kept."""

    def __init__(self) -> None:
        self.now = 0
        self.asked: dict[str, int] = {}
        self.since: dict[str, tuple[str, int]] = {}
        self.entries: dict[str, list[str]] = {}

    def look(self, key: str) -> None:
        if key in self.entries:
            self.since[key] = "found", self.now
        elif self.since.get(key, ("found", 0))[0] == "found":
            self.since[key] = "missed", self.now

    def ask(self, *tables: str) -> None:
        self.asked |= dict.fromkeys(tables, self.now)

    def keep(self, key: str) -> None:
        _, since = self.since.pop(key, ("", self.now))
        self.entries[key] = sorted(table for table, moment in self.asked.items() if moment > since)


@settings(max_examples=500)
@given(STEPS)
def test_an_entry_earns_what_the_model_says(steps: list[tuple[str, str, str]]) -> None:
    copy_context().run(asyncio.run, _play(steps))


async def _play(steps: list[tuple[str, str, str]]) -> None:
    row_filter = POLICY.row_filter({"carrier": "AA"})
    assert isinstance(row_filter, RowFilter)
    access, kept, model = RowAccess(row_filter), dict[Any, Any](), Model()
    current_row_access.set(access)
    cache: EmbedCache[str] = EmbedCache(kept)
    for what, name, more in steps:
        model.now += 2
        own = access.embed_key, name
        if what == "ask":
            access.note([name], POLICY.version)
            model.ask(name)
        elif what == "look":
            found = name in model.entries
            if more == "in":
                assert (name in cache) is found
            else:
                assert (cache.get(name) if more == "get" or not found else cache[name]) == ("rows" if found else None)
                model.now -= 1  # what the entry brings is filtered, before it counts as found
                model.ask(*model.entries.get(name, ()))
                model.now += 1
            model.look(name)
        elif what == "keep":
            cache[name] = "rows"
            model.keep(name)
        elif what == "somebody keeps":
            kept[own] = "rows", (more,)
            model.entries[name] = [more]
        elif name in model.entries:
            del model.entries[name]
            if what == "drop":
                del cache[name]
            else:
                del kept[own]
        assert {key: sorted(tables) for (_, key), (_, tables) in kept.items()} == model.entries
