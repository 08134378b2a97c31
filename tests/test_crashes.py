"""Whose answer to a crash it is that is about to leave: Starlette's, for an app that has none, or somebody's own."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from toucan_guard.crashes import left_to_starlette

pytestmark = pytest.mark.anyio


class Boom(Exception):
    """What the app raises."""


class OwnText(ServerErrorMiddleware):
    def error_response(self, request: Request, exc: Exception) -> Response:
        return PlainTextResponse("ours", 500)


async def _crashing(scope: Any, receive: Any, send: Any) -> None:
    raise Boom


async def _answering(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("the app's own", 500)(scope, receive, send)


async def _handled(scope: Any, receive: Any, send: Any) -> None:
    try:
        raise Boom
    except Boom:
        await PlainTextResponse("Internal Server Error", 500)(scope, receive, send)


def _handler(request: Request, error: Exception) -> Response:
    return PlainTextResponse("handled", 500)


async def _told_by(app: Any, http: Any) -> list[BaseException | None]:
    told: list[BaseException | None] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        async def keep(message: Any) -> None:
            told.append(left_to_starlette(message))
            await send(message)

        try:
            await app(scope, receive, keep)
        except Boom:
            return

    await http(server)
    return told


async def test_starlettes_own_answer_is_known_by_who_caught_the_crash(http: Any) -> None:
    first, second = await _told_by(ServerErrorMiddleware(_crashing), http)
    assert isinstance(first, Boom)
    assert second is None  # its body


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(_answering, id="an answer of the app's"),
        pytest.param(_handled, id="a crash that the app has handled"),
        pytest.param(ServerErrorMiddleware(_answering), id="an answer of the app's inside of it"),
        pytest.param(ServerErrorMiddleware(_crashing, handler=_handler), id="a handler's"),
        pytest.param(ServerErrorMiddleware(_crashing, debug=True), id="the debug page"),
        pytest.param(OwnText(_crashing), id="a subclass with words of its own"),
        pytest.param(JSONResponse({}, 500), id="no crash at all"),
    ],
)
async def test_whatever_else_is_somebodys_own(app: Any, http: Any) -> None:
    assert await _told_by(app, http) == [None, None]
