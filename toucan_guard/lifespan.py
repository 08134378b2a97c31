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

from toucan_guard.endpoints import layers_of
from toucan_guard.required_tables import check_required_tables
from toucan_guard.stack import ToucanGuard
from toucan_guard.templates import flat_routes, shown
from toucan_guard.token_service import RecordedGenerate

_DEEPEST: Final = 20  # mounts in mounts

_Part = ToucanGuard | RecordedGenerate


@asynccontextmanager
async def guard_lifespan(app: Any) -> AsyncIterator[None]:
    """Start every guard below the routes of a Starlette or FastAPI app, and close it at the end.

    At the start keys are fetched and the store is asked what it would forget; at the end the record is closed, and the
    connections to the store are given back.

    Raises:
        ConfigError: An endpoint requires a row filter on a table that the policy in front of it does not name.
    """
    check_required_tables(app)
    for part in _parts(app):
        await part.start()
    try:
        yield
    finally:
        async with AsyncExitStack() as closing:
            # Looked for again: Starlette makes the middleware of a mounted app at its first request.
            for part in _parts(app):
                closing.push_async_callback(part.aclose)


def _parts(app: Any) -> list[_Part]:
    """What has to be told, each once."""
    return list({id(part): part for part in _below(app, _DEEPEST)}.values())


def _below(app: Any, depth: int) -> Iterator[_Part]:
    for route in flat_routes(app):
        for layer in layers_of(shown(route, "app")):
            if isinstance(layer, _Part):
                yield layer
            elif depth and shown(layer, "routes") is not None:
                yield from (it for it in layers_of(shown(layer, "middleware_stack")) if isinstance(it, _Part))
                yield from _below(layer, depth - 1)
