"""Where a guarded app may ask: in whatever runs inside its connection, background tasks included; nowhere else."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import anyio
import anyio.to_thread
import pytest
from cachetools import TTLCache, cached

pytest.importorskip("fastapi", reason="the extra [fastapi]")

from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.testclient import TestClient

from toucan_guard import Embed, Grant, ToucanGuard
from toucan_guard.core.errors import NoEmbedContext
from toucan_guard.fastapi import require_grant, require_row_filter
from toucan_guard.rls.cache import EmbedCache
from toucan_guard.rls.sqlalchemy import protect

Filtered = Annotated[Embed, Depends(require_row_filter("planes"))]


class App:
    """A guarded FastAPI app over the small airport.

    Attributes:
        late: What was found, or raised, by work that the endpoint had left behind.
    """

    def __init__(self, world: Any, make_settings: Any, make_token: Any) -> None:
        self.world = world
        self.late: list[Any] = []
        self.token = make_token(rls={"carrier": "AA"}, grants=[Grant("dashboard", "delays", ("view",))])
        settings = make_settings(rls_columns={"planes.carrier": "carrier", "flights.carrier": "carrier"})
        self.policy = settings.policy
        from sqlalchemy import create_engine
        from sqlalchemy.orm import sessionmaker

        self.engine = create_engine(world.url)
        self.sessions = protect(sessionmaker(self.engine), self.policy)
        self.async_engine = create_async_engine(world.url.replace("sqlite:", "sqlite+aiosqlite:"))
        self.async_sessions = protect(async_sessionmaker(self.async_engine), self.policy)
        self.app = FastAPI()
        self.guard = ToucanGuard(self.app, settings=settings)

    def count(self) -> int:
        with self.sessions() as session:
            return int(session.scalar(select(func.count()).select_from(self.world.Plane)) or 0)

    async def count_async(self) -> int:
        session: AsyncSession
        async with self.async_sessions() as session:
            return int(await session.scalar(select(func.count()).select_from(self.world.Plane)) or 0)

    def note(self, work: Callable[[], Any]) -> None:
        """Keep what some work gives or raises."""
        try:
            self.late.append(work())
        except NoEmbedContext:
            self.late.append("NoEmbedContext")

    def get(self, path: str) -> Any:
        with TestClient(self.guard, base_url="https://charts.example") as client:
            return client.get(path, headers={"Authorization": f"Bearer {self.token}"})


@pytest.fixture
def app(world: Any, make_settings: Any, make_token: Any) -> Any:
    made = App(world, make_settings, make_token)
    yield made
    made.engine.dispose()
    asyncio.run(made.async_engine.dispose())


OWN = 3  # of six planes


def test_everywhere_in_the_connection(app: App) -> None:
    @app.app.get("/thread-pool")
    def in_the_thread_pool(_: Filtered) -> int:
        return app.count()

    @app.app.get("/await")
    async def awaited(_: Filtered) -> int:
        await asyncio.sleep(0)
        return await app.count_async()

    @app.app.get("/to-thread")
    async def to_thread(_: Filtered) -> list[int]:
        return [await asyncio.to_thread(app.count), await anyio.to_thread.run_sync(app.count)]

    @app.app.get("/tasks")
    async def tasks(_: Filtered) -> list[int]:
        return list(await asyncio.gather(app.count_async(), asyncio.create_task(app.count_async())))

    @app.app.get("/stream")
    async def stream(_: Filtered) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "["
            yield str(await app.count_async())
            yield "]"

        return StreamingResponse(parts())

    for path, found in (
        ("/thread-pool", OWN), ("/await", OWN), ("/to-thread", [OWN, OWN]), ("/tasks", [OWN, OWN]), ("/stream", [OWN]),
    ):  # fmt: skip
        answer = app.get(path)
        assert (answer.status_code, answer.json()) == (200, found), path


def test_a_background_task_belongs_to_its_connection(app: App, audit_lines: Any) -> None:
    @app.app.get("/report")
    async def report(later: BackgroundTasks) -> str:
        later.add_task(lambda: app.note(app.count))  # in the thread pool, after the answer
        return "soon"

    assert app.get("/report").json() == "soon"
    assert app.late == [OWN]
    # The answer had left already: what was filtered afterwards stands in the completion.
    decision, completion = audit_lines()
    assert (decision["tables"], completion["event"], completion["tables"]) == (
        {}, "completion", {"planes": app.policy.version},
    )  # fmt: skip


def test_what_outlives_the_connection_is_refused(app: App) -> None:
    kept: list[Any] = []

    @app.app.get("/leave")
    async def leave() -> str:
        kept.append(contextvars.copy_context())
        return "left"

    assert app.get("/leave").json() == "left"
    kept[0].run(app.note, app.count)
    assert app.late == ["NoEmbedContext"]


def test_a_thread_without_the_context_is_refused(app: App) -> None:
    @app.app.get("/thread")
    def thread() -> str:
        other = threading.Thread(target=app.note, args=(app.count,))
        other.start()
        other.join()
        return "done"

    @app.app.get("/executor")
    async def executor() -> str:
        await asyncio.get_running_loop().run_in_executor(None, app.note, app.count)
        return "done"

    for path in ("/thread", "/executor"):
        assert app.get(path).status_code == 200
    assert app.late == ["NoEmbedContext", "NoEmbedContext"]


def test_outside_of_any_connection_a_query_is_refused(app: App) -> None:
    app.note(app.count)
    assert app.late == ["NoEmbedContext"]


def test_an_endpoint_that_requires_a_filter_is_answered_after_a_query_or_a_hit(app: App, audit_lines: Any) -> None:
    cache: EmbedCache[int] = EmbedCache({})
    view = require_grant("dashboard", "name", action="view", require_row_filter=("planes",))

    @app.app.get("/dashboards/{name}", dependencies=[Depends(view)])
    def dashboard(name: str, ask: bool = True) -> int | None:
        if ask and "planes" not in cache:
            cache["planes"] = app.count()
        return cache["planes"] if ask else None

    assert app.get("/dashboards/delays").json() == OWN
    assert app.get("/dashboards/delays").json() == OWN
    refused = app.get("/dashboards/delays?ask=false")
    assert (refused.status_code, refused.json()["reason"]) == (500, "row_filter_missing")
    assert app.get("/dashboards/other").status_code == 403
    assert [line["reason"] for line in audit_lines()] == [None, None, "row_filter_missing", "grant_missing"]
    assert [line["tables"] for line in audit_lines()][:3] == [{"planes": app.policy.version}] * 2 + [{}]


def test_an_entry_answers_for_the_tables_that_it_was_made_from_and_for_no_other(app: App, audit_lines: Any) -> None:
    charts: EmbedCache[int] = EmbedCache({})

    @cached(EmbedCache(TTLCache(10, 60)))
    def fleet() -> int:
        return app.count()

    def kept() -> int | None:  # FastAPI runs it in a thread of its own
        return charts.get("flights")

    requires_flights = [Depends(require_row_filter("flights"))]

    @app.app.get("/fleet")
    def just_the_fleet() -> int:
        with app.sessions() as session:  # the same request filters flights, for something else
            session.scalar(select(func.count()).select_from(app.world.Flight))
        return fleet()

    @app.app.get("/mistaken", dependencies=requires_flights)
    def mistaken() -> int:
        return fleet()

    @app.app.get("/flights", dependencies=requires_flights)
    def flights(known: int | None = Depends(kept)) -> int:
        if known is None:
            fleet()
            with app.sessions() as session:
                known = charts["flights"] = session.scalar(select(func.count()).select_from(app.world.Flight)) or 0
        return known

    assert app.get("/fleet").json() == OWN
    refused = app.get("/mistaken")
    assert (refused.status_code, refused.json()["reason"]) == (500, "row_filter_missing")
    first, second = app.get("/flights"), app.get("/flights")
    assert (first.status_code, second.status_code, first.json()) == (200, 200, second.json())
    assert first.json() > 0
    assert [sorted(line["tables"]) for line in audit_lines()] == [
        ["flights", "planes"],
        ["planes"],
        ["flights", "planes"],
        ["flights", "planes"],
    ]


def test_what_runs_beside_it_is_not_what_an_entry_was_made_from(app: App) -> None:
    charts: EmbedCache[int] = EmbedCache({})

    async def flights() -> int:
        async with app.async_sessions() as session:
            return await session.scalar(select(func.count()).select_from(app.world.Flight)) or 0

    async def chart(key: str, ask: Callable[[], Any]) -> int:
        known = charts.get(key)
        if known is None:
            known = charts[key] = await ask()
        return known

    @app.app.get("/board")
    async def board() -> list[int]:
        return list(await asyncio.gather(chart("fleet", app.count_async), flights(), chart("flights", flights)))

    @app.app.get("/charts/{key}", dependencies=[Depends(require_row_filter("flights"))])
    async def one(key: str) -> int:
        return charts[key]

    @app.app.get("/in-a-session", dependencies=[Depends(require_row_filter("flights"))])
    async def in_a_session() -> int:
        def ask(session: Any) -> int:  # in a greenlet
            known = charts.get("in a session")
            if known is None:
                known = charts["in a session"] = session.scalar(select(func.count()).select_from(app.world.Flight))
            return known

        async with app.async_sessions() as session:
            return await session.run_sync(ask)

    fleet, number, same = app.get("/board").json()
    assert (fleet, number) == (OWN, same)
    assert app.get("/charts/flights").json() == same
    refused = app.get("/charts/fleet")
    assert (refused.status_code, refused.json()["reason"]) == (500, "row_filter_missing")
    for _ in range(2):
        assert app.get("/in-a-session").json() == same


def test_a_middleware_of_the_app_s_may_keep_the_whole_answer(app: App, audit_lines: Any) -> None:
    pages: EmbedCache[bytes] = EmbedCache({})

    class Kept(BaseHTTPMiddleware):  # runs the rest of the app in a task of its own
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            path = request.url.path
            known = pages.get(path)
            if known is None:
                answer = await call_next(request)
                known = pages[path] = b"".join([part async for part in answer.body_iterator])
            return Response(known)

    @app.app.get("/page", dependencies=[Depends(require_row_filter("planes"))])
    def page() -> int:
        return app.count()

    app.app.add_middleware(Kept)
    for _ in range(2):
        assert app.get("/page").json() == OWN
    assert [line["tables"].keys() for line in audit_lines()] == [{"planes"}] * 2


def test_tasks_and_threads_of_a_request_fill_one_entry(app: App) -> None:
    charts: EmbedCache[int] = EmbedCache(TTLCache(10, 60))

    async def one() -> int:
        known = charts.get("planes")
        if known is None:
            known = charts["planes"] = await anyio.to_thread.run_sync(app.count)
        return known

    @app.app.get("/gathered", dependencies=[Depends(require_row_filter("planes"))])
    async def gathered() -> list[int]:
        return await asyncio.gather(*(one() for _ in range(5)))

    for _ in range(2):
        assert app.get("/gathered").json() == [OWN] * 5
