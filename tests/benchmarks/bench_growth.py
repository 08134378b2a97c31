"""How the cost of a request grows with what an operator adds: layers, grants, attributes, origins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import stacks as r
from measure import Contest, Figure
from rows import Curve, Row, microseconds

from toucan_guard import Allow, GateMiddleware, Grant

_ROUNDS = 15
# An app and what its tokens say.
Made = tuple[r.App, dict[str, Any]]


def growth() -> Iterator[Row]:
    yield from _over("gates of the host's own", _gated, (0, 1, 2, 4, 8, 16))
    yield from _over("grants in the token", _granted, (1, 2, 4, 8, 16))
    yield from _over("row-level attributes in the token", _attributed, (1, 2, 4, 8, 16))
    yield from _over("origins on the list (the token names its own)", _listed, (1, 10, 100, 1000, 10_000))


def _gated(count: int) -> Made:
    app: r.App = r.bare
    for number in range(count):
        app = GateMiddleware(app, name=f"gate_{number}", decide=lambda _scope: Allow())
    return r.guard(app), {}


def _granted(count: int) -> Made:
    return r.guard(), {"grants": [Grant("dashboard", f"d{number}", ("view",)) for number in range(count)]}


def _attributed(count: int) -> Made:
    columns = {f"flights.c{number}": f"a{number}" for number in range(count)}
    return r.guard(rls_columns=columns), {"rls": dict.fromkeys(columns.values(), "AA")}


def _listed(count: int) -> Made:
    listed = [r.PORTAL, *(f"https://c{number}.example" for number in range(1, count))]
    return r.guard(allowed_origins=listed), {"origins": [r.PORTAL]}


def _over(what: str, make: Callable[[int], Made], sizes: tuple[int, ...]) -> Iterator[Row]:
    """The smallest beside the largest, with a token that is in the cache, and with a new one for each request."""
    asked: dict[str, Any] = {"bare": r.asking(r.bare, list, 200)}
    before = {}
    for size in sizes:
        app, claims = make(size)
        request = r.headers(r.bearer(r.mint(r.minter(), **claims)))
        asked[f"token in cache, {size}"] = r.asking(app, lambda q=request: q, 200)  # type: ignore[misc]
        fresh = r.Fresh(r.minter(), **claims)
        asked[f"token new, {size}"] = r.asking(app, fresh, 200)
        before[f"token new, {size}"] = fresh.prepare
    contest = Contest(asked, rounds=_ROUNDS, before=before)
    for series in ("token in cache", "token new"):
        times = {size: contest.time(f"{series}, {size}", minus="bare") for size in sizes}
        yield Row(
            "growth",
            f"{what}, {series}: {sizes[-1]} : {sizes[0]}",
            contest.ratio(f"{series}, {sizes[-1]}", f"{series}, {sizes[0]}", minus="bare"),
            beside={str(size): microseconds(time) for size, time in times.items()},
            curve=Curve(what, series, {size: _in_microseconds(time) for size, time in times.items()}),
        )


def _in_microseconds(figure: Figure) -> Figure:
    return Figure(figure.median * 1e6, figure.low * 1e6, figure.high * 1e6)
