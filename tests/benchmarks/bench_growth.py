"""How the cost of a request grows with what an operator adds: layers, grants, attributes, origins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import stacks as r
from measure import Contest
from rows import Row, microseconds

from toucan_guard import Allow, GateMiddleware, Grant

_SIZES = (0, 4, 16)


def growth() -> Iterator[Row]:
    yield from _compared("gates of the host's own", {n: _gated(n) for n in _SIZES})
    yield from _compared(
        "grants in the token",
        {n: (r.guard(), {"grants": [Grant("dashboard", f"d{i}", ("view",)) for i in range(n)]}) for n in (1, 4, 16)},
    )
    attributes = {
        n: (
            r.guard(rls_columns={f"flights.c{i}": f"a{i}" for i in range(n)}),
            {"rls": {f"a{i}": "AA" for i in range(n)}},
        )
        for n in (1, 4, 16)
    }
    yield from _compared("row-level attributes in the token", attributes)
    listed = {
        n: (r.guard(allowed_origins=[r.PORTAL, *(f"https://c{i}.example" for i in range(n))]), {"origins": [r.PORTAL]})
        for n in (1, 100, 10_000)
    }
    yield from _compared("origins on the list (the token names its own)", listed)


def _gated(count: int) -> tuple[r.App, dict[str, Any]]:
    app: r.App = r.bare
    for number in range(count):
        app = GateMiddleware(app, name=f"gate_{number}", decide=lambda _scope: Allow())
    return r.guard(app), {}


def _compared(what: str, sizes: dict[int, tuple[r.App, dict[str, Any]]]) -> Iterator[Row]:
    asked = {}
    for size, (app, claims) in sizes.items():
        request = r.headers(r.bearer(r.mint(r.minter(), **claims)))
        asked[str(size)] = r.asking(app, lambda q=request: q, 200)  # type: ignore[misc]
    contest = Contest(asked, rounds=21)
    smallest, *_, largest = asked
    yield Row(
        "growth",
        f"{what}: {largest} : {smallest}",
        contest.ratio(largest, smallest),
        beside={name: microseconds(contest.time(name)) for name in asked},
    )
