"""AuditLog around real apps, however it is mounted: refusals are answered, crashes are recorded."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from toucan_guard import Deny, Embed, GateMiddleware, GuardSettings, Refused, ToucanGuard
from toucan_guard.fastapi import require_grant

pytestmark = pytest.mark.anyio

MOUNTS = ["add_middleware", "wrapped", "mounted"]
SECRET = "postgresql://app:hunter2@db"


class Boom(Exception):
    """What the app raises."""


def mounted(how: str, app: Starlette, settings: GuardSettings) -> Any:
    if how == "add_middleware":
        app.add_middleware(ToucanGuard, settings=settings)
        return app
    if how == "wrapped":
        return ToucanGuard(app, settings=settings)
    return Starlette(routes=[Mount("/", app=app, middleware=[Middleware(ToucanGuard, settings=settings)])])


@pytest.fixture
def bearer(make_token: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {make_token()}"}


def told(lines: list[dict[str, Any]]) -> list[Any]:
    return [(line["event"], line["outcome"], line.get("reason"), line.get("status")) for line in lines]


def fastapi_app(**options: Any) -> FastAPI:
    app = FastAPI(**options)

    def refusing_dependency() -> None:
        raise Refused(Deny("x_dependency"))

    async def refusing_after_setup() -> Any:
        try:
            yield
        finally:
            await _nothing()

    @app.get("/dependency", dependencies=[Depends(refusing_dependency)])
    def dependency() -> str:
        return "the rows"

    @app.get("/grant/{id}")
    async def grant(embed: Annotated[Embed, Depends(require_grant("dashboard", "id", action="view"))]) -> str:
        return embed.subject

    @app.get("/endpoint", dependencies=[Depends(refusing_after_setup)])
    def endpoint() -> str:
        raise Refused(Deny("x_endpoint", "closed at night"))

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def rows() -> Any:
            yield "row 1"
            raise Refused(Deny("x_stream"))

        return StreamingResponse(rows())

    @app.get("/boom")
    def boom() -> str:
        raise Boom(SECRET)

    @app.get("/caught")
    def caught() -> JSONResponse:
        try:
            raise Refused(Deny("x_caught"))
        except Refused:
            return JSONResponse({"fallback": True}, 200)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        raise Refused(Deny("x_socket"))

    return app


async def _nothing() -> None:
    return


def _sync(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"handler": type(error).__name__}, 500)


async def _async(request: Request, error: Exception) -> JSONResponse:
    return _sync(request, error)


async def _failing(request: Request, error: Exception) -> JSONResponse:
    raise KeyError(SECRET)


HANDLERS: dict[str, dict[str, Any]] = {
    "no handler": {},
    "an async handler for Exception": {"exception_handlers": {Exception: _async}},
    "a sync handler for 500": {"exception_handlers": {500: _sync}},
    "a handler for Refused": {"exception_handlers": {Refused: _async}},
    "debug": {"debug": True},
}


@pytest.mark.parametrize("how", MOUNTS)
@pytest.mark.parametrize("options", HANDLERS.values(), ids=HANDLERS.keys())
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        pytest.param("/dependency", "x_dependency", id="in a dependency"),
        pytest.param("/grant/routes", "grant_missing", id="by require_grant"),
        pytest.param("/endpoint", "x_endpoint", id="in an endpoint behind a dependency with yield"),
    ],
)
async def test_a_refusal_in_the_app_is_answered_like_any_other(
    how: str,
    options: dict[str, Any],
    path: str,
    reason: str,
    http: Any,
    make_settings: Any,
    bearer: dict[str, str],
    audit_lines: Any,
) -> None:
    app = mounted(how, fastapi_app(**options), make_settings())
    answer = await http(app, path=path, headers={**bearer, "referer": "https://portal.example/page"})
    assert (answer.status, answer.reason) == (403, reason)
    assert answer.header("content-security-policy") == "frame-ancestors https://portal.example"
    assert "no-store" in (answer.header("cache-control") or "")
    assert told(audit_lines()) == [("decision", "deny", reason, 403)]
    steps = [step["decision"] for step in audit_lines()[0]["steps"]]
    assert steps.count(f"deny:{reason}") == 1
    assert audit_lines()[0]["request_id"] == answer.problem["request_id"]
    allowed = await http(app, path="/grant/delays", headers=bearer)
    assert (allowed.status, allowed.body) == (200, b'"user-1"')


@pytest.mark.parametrize("how", MOUNTS)
async def test_a_refusal_that_the_app_catches_is_the_apps_business(
    how: str, http: Any, make_settings: Any, bearer: dict[str, str], audit_lines: Any
) -> None:
    answer = await http(mounted(how, fastapi_app(), make_settings()), path="/caught", headers=bearer)
    assert answer.body == b'{"fallback":true}'
    assert told(audit_lines()) == [("decision", "allow", None, 200)]


@pytest.mark.parametrize("how", MOUNTS)
async def test_a_refusal_in_a_stream_cuts_it(
    how: str, http: Any, make_settings: Any, bearer: dict[str, str], audit_lines: Any
) -> None:
    app = mounted(how, fastapi_app(), make_settings())
    with pytest.raises(Refused):
        await http(app, path="/stream", headers=bearer)
    assert told(audit_lines()) == [("decision", "allow", None, 200), ("completion", "error", None, None)]


@pytest.mark.parametrize("how", MOUNTS)
async def test_a_refusal_in_a_socket_route(
    how: str, websocket: Any, make_settings: Any, bearer: dict[str, str], audit_lines: Any
) -> None:
    app = mounted(how, fastapi_app(), make_settings())
    answer = await websocket(app, "/socket", {**bearer, "origin": "https://portal.example"})
    assert (answer.status, answer.reason) == (403, "x_socket")
    assert told(audit_lines()) == [("decision", "deny", "x_socket", 403)]


@pytest.mark.parametrize("how", MOUNTS)
@pytest.mark.parametrize(
    ("options", "body"),
    [
        pytest.param({"exception_handlers": {Exception: _async}}, '{"handler":"Boom"}', id="async for Exception"),
        pytest.param({"exception_handlers": {Exception: _sync}}, '{"handler":"Boom"}', id="sync for Exception"),
        pytest.param({"exception_handlers": {500: _async}}, '{"handler":"Boom"}', id="async for 500"),
        pytest.param({"exception_handlers": {500: _sync}}, '{"handler":"Boom"}', id="sync for 500"),
        pytest.param({"debug": True}, None, id="the debug page"),
    ],
)
async def test_a_crash_keeps_the_hosts_answer_and_gets_the_guards_headers(
    how: str,
    options: dict[str, Any],
    body: str | None,
    http: Any,
    make_settings: Any,
    bearer: dict[str, str],
    audit_lines: Any,
) -> None:
    app = mounted(how, fastapi_app(**options), make_settings())
    answer = await _crash(http, app, "/boom", bearer)
    assert answer.status == 500
    if body is None:
        assert b"Traceback" in answer.body
    else:
        assert answer.body.decode() == body
        assert SECRET.encode() not in answer.body
    assert (answer.header("content-security-policy") or "").startswith("frame-ancestors https://")
    assert answer.header("cache-control") == "private, no-store"
    assert told(audit_lines()) == [("decision", "error", "app_failed", 500)]
    assert SECRET not in str(audit_lines())


@pytest.mark.parametrize("how", MOUNTS)
@pytest.mark.parametrize("handlers", [{}, {Exception: _failing}], ids=["no handler", "a handler that fails itself"])
async def test_a_crash_that_nobody_answers_is_answered_with_a_reference(
    how: str, handlers: Any, http: Any, make_settings: Any, make_token: Any, audit_lines: Any, caplog: Any
) -> None:
    app = mounted(how, fastapi_app(exception_handlers=handlers), make_settings())
    # A new person, the same again (without a Referer, as from a link within the frame), and a program on another site.
    person = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
    program = {"origin": "https://portal.example"}
    for number, headers in enumerate([person, person, program, program]):
        caplog.clear()
        bearer = {"authorization": f"Bearer {make_token(origins=['https://portal.example'])}"}
        answer = await _crash(http, app, "/boom", {**bearer, **headers})
        line = audit_lines()[number]
        assert answer.status == 500
        assert SECRET.encode() not in answer.body
        policies = answer.values("content-security-policy")
        assert "frame-ancestors https://portal.example" in policies[-1]
        if headers is person:
            page = answer.body.decode()
            assert answer.header("content-type") == "text/html; charset=utf-8"
            assert "Please try again in a minute" in page
            assert f"<dd>app_failed</dd><dt>Reference</dt><dd>{line['request_id']}</dd>" in page
        else:
            assert (answer.reason, answer.problem["request_id"]) == ("app_failed", line["request_id"])
            assert answer.header("access-control-allow-origin") == "https://portal.example"
        assert answer.header("cache-control") == "no-store"
        raised = "Boom" if not handlers or how == "add_middleware" else "KeyError"
        assert caplog.messages[-1] == (
            f"toucan_guard: the app raised {raised}; its answer has the reference {line['request_id']}"
        )
    assert told(audit_lines()) == [("decision", "error", "app_failed", 500)] * 4


@pytest.mark.parametrize("how", MOUNTS)
async def test_a_crash_that_the_debug_page_cannot_show_is_answered(
    how: str, http: Any, make_settings: Any, bearer: dict[str, str], audit_lines: Any
) -> None:
    async def reads(request: Request) -> None:
        raise FileNotFoundError("half a letter, as in a file's name that is no UTF-8: \udc80")

    app = Starlette(debug=True, routes=[Route("/boom", reads)])
    with pytest.raises((FileNotFoundError, UnicodeEncodeError)):
        await http(mounted(how, app, make_settings()), "GET", "/boom", bearer)
    assert told(audit_lines()) == [("decision", "error", "app_failed", 500)]


@pytest.mark.parametrize("how", MOUNTS)
async def test_a_refusal_in_a_task_of_the_apps_is_one_however_the_guard_is_mounted(
    how: str, http: Any, make_settings: Any, bearer: dict[str, str], audit_lines: Any
) -> None:
    async def refuse() -> None:
        raise Refused(Deny("x_task"))

    async def tasks(request: Request) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(refuse)

    app = mounted(how, Starlette(routes=[Route("/tasks", tasks)]), make_settings())
    for _ in range(3):
        assert (await http(app, path="/tasks", headers=bearer)).reason == "x_task"
    assert told(audit_lines()) == [("decision", "deny", "x_task", 403)] * 3


@pytest.mark.parametrize("how", MOUNTS)
@pytest.mark.parametrize("answers", ["a middleware of the host's", "an error middleware of the host's", "an endpoint"])
async def test_an_answer_of_the_hosts_own_is_left_as_it_is(
    how: str, answers: str, http: Any, make_settings: Any, bearer: dict[str, str], audit_lines: Any
) -> None:
    plain = PlainTextResponse("Internal Server Error", 500)

    class Answering:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await self.app(scope, receive, send)
            except Boom:
                await plain(scope, receive, send)

    class OwnErrors(ServerErrorMiddleware):
        def error_response(self, request: Request, exc: Exception) -> Any:
            return plain

    def boom(request: Request) -> PlainTextResponse:
        try:
            raise Boom
        except Boom:
            if answers == "an endpoint":
                return plain
            raise

    layers = {"a middleware of the host's": [Answering], "an error middleware of the host's": [OwnErrors]}
    app = Starlette(routes=[Route("/boom", boom)], middleware=[Middleware(kind) for kind in layers.get(answers, [])])
    guarded = mounted(how, app, make_settings())
    for _ in range(2):
        with pytest.raises(Boom) if answers.startswith("an error") else nullcontext():
            await http(_server(guarded, messages := []), path="/boom", headers=bearer)
        assert [message.get("body") for message in messages] == [None, b"Internal Server Error"]
    assert told(audit_lines()) == [("decision", "error", "app_failed", 500)] * 2


def _server(app: Any, messages: list[Any]) -> Any:
    """An app whose messages are kept, also where it raises."""

    async def server(scope: Any, receive: Any, send: Any) -> None:
        async def keep(message: Any) -> None:
            messages.append(message)

        await app(scope, receive, keep)

    return server


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("how", MOUNTS)
@pytest.mark.parametrize("options", HANDLERS.values(), ids=HANDLERS.keys())
async def test_the_server_hears_of_a_crash_also_where_its_record_cannot_be_written(
    how: str, options: dict[str, Any], http: Any, make_settings: Any, make_token: Any
) -> None:
    app = mounted(how, fastapi_app(**options), make_settings(audit="/dev/full"))
    known = {"authorization": f"Bearer {make_token()}"}
    for headers in (known, known, {"authorization": f"Bearer {make_token()}"}):
        answer = await _crash(http, app, "/boom", headers)
        assert (answer.status, answer.reason) == (503, "audit_unavailable")
        assert [message["type"] for message in answer.messages] == ["http.response.start", "http.response.body"]
        assert (await http(app, path="/endpoint", headers=headers)).reason == "audit_unavailable"


@pytest.mark.parametrize("how", MOUNTS)
@pytest.mark.parametrize("handlers", [{}, {Exception: _async}], ids=["no handler", "a handler"])
async def test_a_crash_is_freed_at_once_with_all_that_the_app_had_in_hand(
    how: str, handlers: Any, http: Any, make_settings: Any, bearer: dict[str, str]
) -> None:
    class Rows:
        pass

    kept: list[weakref.ref[Rows]] = []

    async def boom() -> None:
        rows = Rows()
        kept.append(weakref.ref(rows))
        raise Boom

    app = fastapi_app(exception_handlers=handlers)
    app.add_api_route("/rows", boom)
    guarded = mounted(how, app, make_settings())
    for _ in range(2):
        await _crash(http, guarded, "/rows", bearer)
    gc.collect()
    gc.disable()
    try:
        await _crash(http, guarded, "/rows", bearer)
        assert kept[-1]() is None
    finally:
        gc.enable()


async def test_an_app_in_an_app_answers_its_crashes_itself_as_ever(
    http: Any, make_settings: Any, bearer: dict[str, str], audit_lines: Any
) -> None:
    """Starlette asks the inner one: without a handler there, the outer one's hears of the crash, and is not sent."""
    inner = [fastapi_app(), fastapi_app(exception_handlers={500: _async}), fastapi_app(debug=True)]
    app = Starlette(
        routes=[Mount(f"/{number}", app=one) for number, one in enumerate(inner)], exception_handlers={500: _sync}
    )
    app.add_middleware(ToucanGuard, settings=make_settings())
    assert (await _crash(http, app, "/0/boom", bearer)).reason == "app_failed"
    assert (await _crash(http, app, "/1/boom", bearer)).body == b'{"handler":"Boom"}'
    assert b"Traceback" in (await _crash(http, app, "/2/boom", bearer)).body
    assert told(audit_lines()) == [("decision", "error", "app_failed", 500)] * 3


async def test_an_app_that_breaks_the_requests_headers_and_crashes_is_answered(
    http: Any, make_settings: Any, bearer: dict[str, str], audit_lines: Any
) -> None:
    async def breaking(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"] = None
        raise Boom

    for _ in range(2):
        answer = await _crash(http, ToucanGuard(breaking, settings=make_settings()), "/", bearer)
        assert (answer.status, answer.reason) == (500, "app_failed")
    assert told(audit_lines()) == [("decision", "error", "app_failed", 500)] * 2


async def _crash(http: Any, app: Any, path: str, headers: dict[str, str]) -> Any:
    """The answer to a request whose exception goes on up to the server, which hears of it."""
    heard: list[type[BaseException]] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except (Boom, KeyError) as error:
            heard.append(type(error))

    answer = await http(server, path=path, headers=headers)
    assert len(heard) == 1
    return answer


@pytest.mark.parametrize("how", MOUNTS)
async def test_behind_a_base_http_middleware(
    how: str, http: Any, make_settings: Any, bearer: dict[str, str], audit_lines: Any
) -> None:
    async def passing(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app = fastapi_app()
    app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
    guarded = mounted(how, app, make_settings())
    refused = await http(guarded, path="/endpoint", headers=bearer)
    assert (refused.status, refused.reason) == (403, "x_endpoint")
    assert (await http(guarded, path="/grant/delays", headers=bearer)).status == 200
    assert (await _crash(http, guarded, "/boom", bearer)).status == 500
    assert told(audit_lines()) == [
        ("decision", "deny", "x_endpoint", 403),
        ("decision", "allow", None, 200),
        ("decision", "error", "app_failed", 500),
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        pytest.param("GET", "/embed/nowhere", 404, b"no such page", id="no such path, answered by the host's handler"),
        pytest.param("DELETE", "/embed/chart", 405, b"Method Not Allowed", id="no such method"),
        pytest.param("GET", "/embed/busy", 409, b"busy", id="a middleware of the route raises what the host handles"),
    ],
)
async def test_around_some_routes_the_app_around_them_answers_as_ever(
    method: str,
    path: str,
    status: int,
    body: bytes,
    http: Any,
    make_settings: Any,
    bearer: dict[str, str],
    audit_lines: Any,
) -> None:
    class Busy(Exception):
        pass

    class Raising:
        def __init__(self, app: Any) -> None: ...

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            raise Busy

    async def chart(request: Request) -> PlainTextResponse:
        return PlainTextResponse("chart")

    async def not_found(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("no such page", 404)

    async def busy(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("busy", 409)

    routes = [Route("/chart", chart), Route("/busy", chart, middleware=[Middleware(Raising)])]
    app = Starlette(
        routes=[Mount("/embed", routes=routes, middleware=[Middleware(ToucanGuard, settings=make_settings())])],
        exception_handlers={404: not_found, Busy: busy},
    )
    answer = await http(app, path=path, method=method, headers=bearer)
    assert (answer.status, answer.body) == (status, body)
    assert (answer.header("content-security-policy") or "").startswith("frame-ancestors https://")
    assert told(audit_lines()) == [("decision", "allow", None, status)]


async def test_nested_guards_write_one_event_and_enforce_both(
    http: Any, make_settings: Any, bearer: dict[str, str], audit_lines: Any
) -> None:
    async def chart(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.embed.subject, headers={"content-security-policy": "frame-ancestors *"})

    inner = make_settings(frame_ancestors=["https://inner.example", "https://portal.example"], framing="sole")
    app = Starlette(
        routes=[Mount("/embed", routes=[Route("/", chart)], middleware=[Middleware(ToucanGuard, settings=inner)])]
    )
    app.add_middleware(ToucanGuard, settings=make_settings())
    answer = await http(app, path="/embed/", headers=bearer)
    assert answer.body == b"user-1"
    assert answer.values("content-security-policy") == [
        "frame-ancestors https://inner.example https://portal.example",
        "frame-ancestors https://*.customers.example https://portal.example",
    ]
    assert told(audit_lines()) == [("decision", "allow", None, 200)]
    assert (await http(app, path="/embed/")).reason == "token_missing"
    assert len(audit_lines()) == 2


async def test_a_gate_in_the_app_refuses_through_the_guard(
    websocket: Any, http: Any, make_settings: Any, bearer: dict[str, str], audit_lines: Any
) -> None:
    gate = Middleware(GateMiddleware, name="office_hours", decide=lambda scope: Deny("x_office_hours"))

    async def never(request: Any) -> Any:
        raise AssertionError("the gate is closed")

    app = Starlette(routes=[Route("/", never), WebSocketRoute("/live", never)], middleware=[gate])
    guard = ToucanGuard(app, settings=make_settings())
    assert (await http(guard, headers=bearer)).reason == "x_office_hours"
    socket = await websocket(guard, "/live", {**bearer, "origin": "https://portal.example"})
    assert socket.reason == "x_office_hours"
    assert told(audit_lines()) == [("decision", "deny", "x_office_hours", 403)] * 2
