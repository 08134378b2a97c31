"""Guards around some routes: the app's own lifespan tells them of its start and end."""

from __future__ import annotations

import gc
import json
import time
import weakref
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from toucan_guard import ToucanGuard
from toucan_guard.lifespan import guard_lifespan
from toucan_guard.tokens.store import MemoryStore

pytestmark = pytest.mark.anyio


async def page(request: Any) -> PlainTextResponse:
    return PlainTextResponse("page")


def _guard(settings: Any) -> list[Any]:
    return [Middleware(ToucanGuard, settings=settings)]


def _mounted(settings: Any) -> Any:
    return Starlette(routes=[Mount("/embed", routes=[Route("/x", page)], middleware=_guard(settings))])


def _around_a_route(settings: Any) -> Any:
    return Starlette(routes=[Route("/embed/x", page, middleware=_guard(settings))])


def _wrapped_and_mounted(settings: Any) -> Any:
    return Starlette(
        routes=[Mount("/embed", app=ToucanGuard(Starlette(routes=[Route("/x", page)]), settings=settings))]
    )


def _app_that_is_mounted(settings: Any) -> Any:
    inner = FastAPI()
    inner.add_route("/x", page)
    inner.add_middleware(ToucanGuard, settings=settings)
    return Starlette(routes=[Mount("/", routes=[Mount("/embed", app=inner)])])


def _router_of_a_router(settings: Any) -> Any:
    inner, outer, app = APIRouter(), APIRouter(), FastAPI()
    inner.routes.append(Mount("/embed", routes=[Route("/x", page)], middleware=_guard(settings)))
    outer.include_router(inner)
    app.include_router(outer)
    return app


APPS = [_mounted, _around_a_route, _wrapped_and_mounted, _app_that_is_mounted, _router_of_a_router]
NAMES = [make.__name__.strip("_").replace("_", " ") for make in APPS]


def _events(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("make", APPS, ids=NAMES)
async def test_the_record_is_closed_at_the_end(
    make: Callable[[Any], Any], make_settings: Any, http: Any, tmp_path: Path
) -> None:
    app = make(make_settings())
    path = tmp_path / "audit.jsonl"
    async with guard_lifespan(app):
        assert (await http(app, path="/embed/x")).reason == "token_missing"
        assert _events(path) == ["open", "decision"]
    assert _events(path) == ["open", "decision", "close"]
    async with guard_lifespan(app):  # nothing was asked
        pass
    assert _events(path) == ["open", "decision", "close"]
    assert (await http(app, path="/embed/x")).reason == "token_missing"  # a request that comes late is still recorded
    assert _events(path) == ["open", "decision", "close", "open", "decision"]


async def test_it_is_a_lifespan_of_its_own_and_part_of_another(make_settings: Any, http: Any, tmp_path: Path) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def own(app: Any) -> Any:
        async with guard_lifespan(app):
            told.append("started")
            yield
        told.append("ended")

    async def sent(message: Any) -> None:
        told.append(message["type"])

    routes = [Mount("/embed", routes=[Route("/x", page)], middleware=_guard(make_settings()))]
    for lifespan in (guard_lifespan, own):
        app: Any = Starlette(routes=routes, lifespan=lifespan)
        kinds = iter(["lifespan.startup", "lifespan.shutdown"])

        async def received(app: Any = app, kinds: Any = kinds) -> Any:
            kind = next(kinds)
            if kind == "lifespan.shutdown":
                await http(app, path="/embed/x")
            return {"type": kind}

        await app({"type": "lifespan", "state": {}}, received, sent)
    assert _events(tmp_path / "audit.jsonl") == ["open", "decision", "close"] * 2
    assert told == [
        *("lifespan.startup.complete", "lifespan.shutdown.complete"),
        *("started", "lifespan.startup.complete", "ended", "lifespan.shutdown.complete"),
    ]


class _Store(MemoryStore):
    def __init__(self) -> None:
        super().__init__(clock=time.time)
        self.closed = 0

    async def warnings(self) -> tuple[str, ...]:
        return ("it forgets",)

    async def aclose(self) -> None:
        self.closed += 1
        if self.closed == 1:
            raise OSError("of the test")


@pytest.mark.parametrize("make", [_mounted, _router_of_a_router], ids=["mounted", "router of a router"])
async def test_the_store_is_looked_at_and_given_back(
    make: Callable[[Any], Any], make_settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings()
    store = vars(settings)["store"] = _Store()
    store.closed = 5
    async with guard_lifespan(make(settings)):
        assert [record.getMessage() for record in caplog.records] == ["toucan_guard store: it forgets"]
    assert store.closed == 6


async def test_every_guard_is_told_once(make_settings: Any, http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, ToucanGuard]] = []

    async def start(guard: ToucanGuard) -> None:
        told.append(("start", guard))

    async def aclose(guard: ToucanGuard) -> None:
        told.append(("aclose", guard))

    monkeypatch.setattr(ToucanGuard, "start", start)
    monkeypatch.setattr(ToucanGuard, "aclose", aclose)
    settings = make_settings()
    shared = ToucanGuard(Starlette(routes=[Route("/x", page)]), settings=settings)
    outer: Any = FastAPI(
        routes=[Mount("/once", app=shared), Mount("/twice", app=ToucanGuard(shared, settings=settings))]
    )
    for _ in range(4):
        outer.add_middleware(ToucanGuard, settings=settings)
        outer = FastAPI(routes=[Mount("/in", app=outer)])
    async with guard_lifespan(outer):
        assert [name for name, _ in told] == ["start"] * 2, "what is there"
        assert (await http(outer, path="/in/in/in/in/once/x")).reason == "token_missing"
        told.clear()
    assert [name for name, _ in told] == ["aclose"] * 3, "what one request has made besides"
    assert len({id(guard) for _, guard in told}) == 3


async def test_what_fails_at_the_end_of_one_guard_leaves_no_other_open(
    make_settings: Any, http: Any, tmp_path: Path
) -> None:
    failing, sound = make_settings(), make_settings(issuer="https://other.example")
    vars(failing)["store"] = _Store()
    guarded = [
        Mount(f"/{name}", routes=[Route("/x", page)], middleware=_guard(settings))
        for name, settings in (("a", sound), ("b", failing), ("c", sound))
    ]
    app = Starlette(routes=guarded)

    async def live() -> None:
        async with guard_lifespan(app):
            for name in "abc":
                await http(app, path=f"/{name}/x")

    with pytest.raises(OSError, match="of the test"):
        await live()
    assert sorted(_events(tmp_path / "audit.jsonl")) == ["close"] * 3 + ["decision"] * 3 + ["open"] * 3


async def test_whatever_the_app_raises(make_settings: Any, http: Any, tmp_path: Path) -> None:
    app = _mounted(make_settings())

    async def live() -> None:
        async with guard_lifespan(app):
            await http(app, path="/embed/x")
            raise RuntimeError("of the app")

    with pytest.raises(RuntimeError, match="of the app"):
        await live()
    assert _events(tmp_path / "audit.jsonl") == ["open", "decision", "close"]


async def test_it_keeps_no_guard_alive_and_needs_none(make_settings: Any) -> None:
    app = _mounted(make_settings())
    guard = weakref.ref(app.routes[0].app)
    assert isinstance(guard(), ToucanGuard)
    async with guard_lifespan(app):
        pass
    del app
    gc.collect()
    assert guard() is None
    for bare in (Starlette(), FastAPI(), object()):
        async with guard_lifespan(bare):
            pass
