"""For guards around some routes, which hear nothing of the app's start and end: its own lifespan tells them.

A server tells the app, and the app tells nobody below its router. A guard there closes its record at the interpreter's
exit, and uvicorn does not come so far at SIGTERM: the chain then ends without its last line. So give it the lifespan::

    app = Starlette(
        routes=[Mount("/embed", routes=[…], middleware=[Middleware(ToucanGuard, settings=settings)])],
        lifespan=guard_lifespan,
    )

or, where the app has a lifespan of its own, ``async with guard_lifespan(app): yield`` in it. The routes of the token
service, and guards of apps that are mounted, are told as well. A guard around the whole app needs none of this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from toucan_guard.stack import ToucanGuard
from toucan_guard.templates import flat_routes
from toucan_guard.token_service import RecordedGenerate

_DEEPEST: Final = 20  # mounts in mounts, and middleware around an app


@asynccontextmanager
async def guard_lifespan(app: Any) -> AsyncIterator[None]:
    """Start every guard below the routes of a Starlette or FastAPI app, and close it at the end.

    At the start keys are fetched and the store is asked what it would forget; at the end the record is closed, and the
    connections to the store are given back.
    """
    for part in _below_routes(app, _DEEPEST):
        await part.start()
    try:
        yield
    finally:
        async with AsyncExitStack() as closing:
            # Looked for again: Starlette makes the middleware of a mounted app at its first request.
            for part in _below_routes(app, _DEEPEST):
                closing.push_async_callback(part.aclose)


def _below_routes(app: Any, depth: int) -> Iterator[ToucanGuard | RecordedGenerate]:
    for route in flat_routes(getattr(app, "routes", None) or ()):
        layer: Any = getattr(route, "app", None)
        for _ in range(depth):
            if isinstance(layer, ToucanGuard | RecordedGenerate):
                yield layer
            if hasattr(layer, "routes"):
                yield from _below_routes(layer, depth - 1)
                layer = getattr(layer, "middleware_stack", None)
            else:
                layer = getattr(layer, "app", None)
