"""The apps behind ``test_lifespan``: guards around some routes, served by uvicorn, configured from the environment."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from toucan_guard import GuardSettings, ToucanGuard
from toucan_guard.layers import RowFilterMiddleware
from toucan_guard.lifespan import guard_lifespan


async def page(request: Any) -> PlainTextResponse:
    return PlainTextResponse("page")


settings = GuardSettings()
guarded = [
    Mount(f"/{name}", routes=[Route("/x", page)], middleware=[Middleware(ToucanGuard, settings=settings)])
    for name in ("a", "b")
]
told = Starlette(routes=guarded, lifespan=guard_lifespan)
untold = Starlette(routes=guarded)

unfiltered = [Route("/x", page, middleware=[Middleware(RowFilterMiddleware, require_row_filter=["fligths"])])]
mistaken = Starlette(routes=unfiltered, middleware=[Middleware(ToucanGuard, settings=settings)])
mistaken_in_a_mount = Starlette(
    routes=[Mount("/a", routes=unfiltered, middleware=[Middleware(ToucanGuard, settings=settings)])],
    lifespan=guard_lifespan,
)
