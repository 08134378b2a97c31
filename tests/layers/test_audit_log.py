"""AuditLog: exactly one decision per connection, before its first byte, whatever the app does."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from contextlib import nullcontext
from http import HTTPStatus
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from toucan_guard import Deny, Reason, Refused, ToucanGuard
from toucan_guard.core.errors import AuditWriteError
from toucan_guard.layers import AuditLogMiddleware
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.testing import FakeClock, audit_capture
from toucan_guard.trail import trail_of

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
BODY = {"type": "http.response.body", "body": b"the rows"}
MORE = {**BODY, "more_body": True}
ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close", "code": 1000}
DENIAL_START = {"type": "websocket.http.response.start", "status": 404, "headers": []}
DENIAL_BODY = {"type": "websocket.http.response.body", "body": b"no such socket"}


class Record:
    """A sink in memory, whose writes fail where the test says so."""

    def __init__(self, failing: Callable[[dict[str, Any]], bool] = lambda event: False) -> None:
        self.events: list[dict[str, Any]] = []
        self.failing = failing

    def write(self, event: dict[str, Any]) -> None:
        if self.failing(event):
            raise AuditWriteError("the disk is full")
        self.events.append(dict(event))

    def close(self) -> None:
        return

    def told(self, *names: str) -> list[Any]:
        names = names or ("event", "outcome", "reason", "status")
        return [tuple(event.get(name) for name in names) for event in self.events]


def app_of(*steps: Any) -> Any:
    """An app that sends messages, raises errors, and calls functions, one after the other."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            if isinstance(step, BaseException):
                raise step
            if callable(step):
                await step(scope, receive, send)
            else:
                await send(step)

    return app


async def receive_once(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def receive_all(scope: Any, receive: Any, send: Any) -> None:
    while "disconnect" not in (await receive())["type"]:
        pass


def says(
    outcome: str, reason: str | None, status: int | None, completion: str | None = None, why: str | None = None
) -> list[Any]:
    told: list[Any] = [("decision", outcome, reason, status)]
    return told if completion is None else [*told, ("completion", completion, why, None)]


@pytest.mark.parametrize(
    ("steps", "told", "raised"),
    [
        pytest.param([START, BODY], says("allow", None, 200), None, id="an answer"),
        pytest.param([{**START, "status": 404}, BODY], says("allow", None, 404), None, id="an answer of the app's own"),
        pytest.param([{**START, "status": 503}, BODY], says("error", "app_failed", 503), None, id="the app's own 503"),
        pytest.param([START, MORE, MORE, BODY], says("allow", None, 200), None, id="a stream"),
        pytest.param([START, MORE], says("allow", None, 200, "error"), None, id="a stream that stops halfway"),
        pytest.param([START], says("allow", None, 200, "error"), None, id="a head without a body"),
        pytest.param([ValueError()], says("error", "app_failed", 500), ValueError, id="an exception before the start"),
        pytest.param(
            [START, MORE, ValueError()], says("allow", None, 200, "error"), ValueError, id="an exception in the stream"
        ),
        pytest.param(
            [START, BODY, ValueError()], says("allow", None, 200), ValueError, id="an exception in a background task"
        ),
        pytest.param([], says("error", "app_failed", 500), None, id="no answer at all"),
        pytest.param(
            [receive_all], says("error", "unanswered", None), None, id="no answer, because the client hung up"
        ),
        pytest.param(
            [receive_all, START, MORE], says("allow", None, 200, "error"), None, id="a stream cut by the client"
        ),
        pytest.param([Refused(Deny("x_closed"))], says("deny", "x_closed", 403), None, id="a refusal before the start"),
        pytest.param(
            [Refused(Deny("x_closed", status=410))], says("deny", "x_closed", 410), None, id="a refusal says its status"
        ),
        pytest.param(
            [Refused(Deny(Reason.GRANT_MISSING))], says("deny", "grant_missing", 403), None, id="a reason of the guard"
        ),
        pytest.param(
            [START, MORE, Refused(Deny("x_closed"))],
            says("allow", None, 200, "error"),
            Refused,
            id="a refusal in the stream cuts it",
        ),
        pytest.param(
            [START, BODY, Refused(Deny("x_closed"))],
            says("allow", None, 200),
            Refused,
            id="a refusal in a background task comes too late",
        ),
        pytest.param(
            [ExceptionGroup("tasks", [Refused(Deny("x_closed"))])],
            says("deny", "x_closed", 403),
            None,
            id="a refusal in a task group",
        ),
        pytest.param(
            [ExceptionGroup("outer", [ExceptionGroup("inner", [Refused(Deny("x_closed"))])])],
            says("deny", "x_closed", 403),
            None,
            id="a refusal in nested task groups",
        ),
        pytest.param(
            [ExceptionGroup("tasks", [Refused(Deny("x_closed")), ValueError()])],
            says("error", "app_failed", 500),
            ExceptionGroup,
            id="a refusal beside a crash is a crash",
        ),
        pytest.param(
            [AuditWriteError("the app's own")],
            says("error", "app_failed", 500),
            AuditWriteError,
            id="an AuditWriteError of the app's own is a crash",
        ),
        pytest.param(
            [{**START, "trailers": True}, BODY, {"type": "http.response.trailers", "headers": []}],
            says("allow", None, 200),
            None,
            id="trailers",
        ),
        pytest.param(
            [
                {**START, "trailers": True},
                BODY,
                {"type": "http.response.trailers", "headers": [], "more_trailers": True},
                {"type": "http.response.trailers", "headers": []},
                ValueError(),
            ],
            says("allow", None, 200),
            ValueError,
            id="trailers in two parts, and a background task that fails",
        ),
        pytest.param(
            [{**START, "trailers": True}, BODY],
            says("allow", None, 200, "error"),
            None,
            id="trailers that never come",
        ),
        pytest.param(
            [START, {"type": "http.response.pathsend", "path": "/x"}, ValueError()],
            says("allow", None, 200),
            ValueError,
            id="a file that the server sends, and a background task that fails",
        ),
        pytest.param(
            [START, {"type": "http.response.zerocopysend", "file": 3, "more_body": True}],
            says("allow", None, 200, "error"),
            None,
            id="half a file",
        ),
    ],
)
async def test_one_decision_for_every_end_of_a_request(steps: Any, told: Any, raised: Any, http: Any) -> None:
    sink = Record()
    audited = AuditLogMiddleware(app_of(*steps), sink=sink)
    if raised is None:
        await http(audited)
    else:
        with pytest.raises(raised):
            await http(audited)
    assert sink.told() == told


@pytest.mark.parametrize(
    ("steps", "told", "sent", "raised"),
    [
        pytest.param(
            [receive_once, ACCEPT, receive_all],
            says("allow", None, 101),
            ["websocket.accept"],
            None,
            id="accepted, and the client leaves",
        ),
        pytest.param(
            [receive_once, ACCEPT, CLOSE],
            says("allow", None, 101),
            ["websocket.accept", "websocket.close"],
            None,
            id="accepted and closed",
        ),
        pytest.param(
            [receive_once, ACCEPT], says("allow", None, 101), ["websocket.accept"], None, id="accepted, no more"
        ),
        pytest.param(
            [receive_once, ACCEPT, receive_all, ValueError()],
            says("allow", None, 101),
            ["websocket.accept"],
            ValueError,
            id="an exception after the client has left cuts nothing",
        ),
        pytest.param(
            [receive_once, ACCEPT, ValueError()],
            says("allow", None, 101, "error"),
            ["websocket.accept"],
            ValueError,
            id="an exception in the conversation",
        ),
        pytest.param(
            [receive_once, CLOSE], says("allow", None, 403), ["websocket.close"], None, id="closed by the app"
        ),
        pytest.param(
            [receive_once, DENIAL_START, DENIAL_BODY],
            says("allow", None, 404),
            ["websocket.http.response.start", "websocket.http.response.body"],
            None,
            id="a denial response of the app's own",
        ),
        pytest.param(
            [Refused(Deny("x_closed"))],
            says("deny", "x_closed", 403),
            ["websocket.http.response.start", "websocket.http.response.body"],
            None,
            id="refused before it is accepted",
        ),
        pytest.param(
            [receive_once, ACCEPT, Refused(Deny("x_closed"))],
            says("allow", None, 101, "deny", "x_closed"),
            ["websocket.accept", "websocket.close"],
            None,
            id="refused after it was accepted",
        ),
        pytest.param(
            [receive_once, ACCEPT, CLOSE, Refused(Deny("x_closed"))],
            says("allow", None, 101),
            ["websocket.accept", "websocket.close"],
            None,
            id="refused after it was closed",
        ),
        pytest.param(
            [receive_once, ACCEPT, receive_all, Refused(Deny("x_closed"))],
            says("allow", None, 101),
            ["websocket.accept"],
            None,
            id="refused after the client has left",
        ),
        pytest.param(
            [ValueError()],
            says("error", "app_failed", 500),
            ["websocket.http.response.start", "websocket.http.response.body"],
            ValueError,
            id="an exception before it is accepted",
        ),
        pytest.param(
            [receive_all, ValueError()],
            says("error", "unanswered", None),
            [],
            ValueError,
            id="an exception after the client gave up waiting",
        ),
        pytest.param(
            [],
            says("error", "app_failed", 500),
            ["websocket.http.response.start", "websocket.http.response.body"],
            None,
            id="no answer at all",
        ),
    ],
)
async def test_one_decision_for_every_end_of_a_socket(
    steps: Any, told: Any, sent: list[str], raised: Any, websocket: Any
) -> None:
    sink = Record()
    audited = AuditLogMiddleware(app_of(*steps), sink=sink)
    messages: list[Any] = []
    if raised is None:
        messages = (await websocket(audited)).messages
        assert [message["type"] for message in messages] == sent
    else:
        with pytest.raises(raised):
            await websocket(audited)
    assert sink.told() == told


@pytest.mark.parametrize("extensions", [{}, None], ids=["an empty offer", "no offer"])
async def test_without_the_denial_extension_a_socket_is_closed_with_1008(extensions: Any, websocket: Any) -> None:
    sink = Record()
    audited = AuditLogMiddleware(app_of(Refused(Deny("x_closed"))), sink=sink)

    async def as_server(scope: Any, receive: Any, send: Any) -> None:
        await audited({**scope, "extensions": extensions}, receive, send)

    answer = await websocket(as_server)
    assert answer.messages == [{"type": "websocket.close", "code": 1008, "reason": "x_closed"}]
    assert sink.told() == says("deny", "x_closed", 403)


async def test_a_refused_conversation_is_closed_with_1008(websocket: Any) -> None:
    audited = AuditLogMiddleware(app_of(ACCEPT, Refused(Deny(Reason.TOKEN_EXPIRED))), sink=Record())
    answer = await websocket(audited)
    assert answer.messages[-1] == {"type": "websocket.close", "code": 1008, "reason": "token_expired"}


async def test_a_refusal_is_answered_and_not_a_crash(http: Any) -> None:
    answer = await http(AuditLogMiddleware(app_of(Refused(Deny("x_closed"))), sink=Record()))
    assert (answer.status, answer.reason) == (403, "x_closed")


async def test_what_the_app_raises_goes_up_as_it_was(http: Any) -> None:
    cause = KeyError("why")
    error = ValueError("what")
    error.__cause__ = cause
    with pytest.raises(ValueError, match="what") as raised:
        await http(AuditLogMiddleware(app_of(error), sink=Record()))
    assert raised.value is error
    assert raised.value.__cause__ is cause


@pytest.mark.parametrize("steps", [[], [START, MORE]], ids=["before the start", "in the stream"])
async def test_a_cancelled_connection_is_recorded(steps: Any, http: Any) -> None:
    async def forever(scope: Any, receive: Any, send: Any) -> None:
        connection.cancel()
        await anyio.sleep_forever()

    sink = Record()
    with anyio.CancelScope() as connection:
        await http(AuditLogMiddleware(app_of(*steps, forever), sink=sink))
    assert connection.cancelled_caught
    assert sink.told() == (says("allow", None, 200, "error") if steps else says("error", "unanswered", None))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("steps", [[], [START, MORE]], ids=["before the start", "in the stream"])
async def test_the_cancellation_of_something_that_the_app_waits_for_is_a_crash(steps: Any, http: Any) -> None:
    async def waits(scope: Any, receive: Any, send: Any) -> None:
        # As one of many that wait for one query, when the first of them has hung up.
        shared = asyncio.get_running_loop().create_future()
        shared.cancel()
        await shared

    sink, raised = Record(), []
    audited = AuditLogMiddleware(app_of(*steps, waits), sink=sink)

    async def served(scope: Any, receive: Any, send: Any) -> None:
        try:
            await audited(scope, receive, send)
        except asyncio.CancelledError:
            raised.append("and the server hears of it")

    answer = await http(served)
    assert sink.told() == (says("allow", None, 200, "error") if steps else says("error", "app_failed", 500))
    assert answer.status == sink.events[0]["status"]
    assert len(raised) == 1


async def test_an_early_hint_does_not_leave_before_the_decision(http: Any) -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</secret.css>; rel=preload"]}
    sink = Record()
    answer = await http(AuditLogMiddleware(app_of(hint, Refused(Deny("x_closed"))), sink=sink))
    assert (answer.status, answer.messages[0]["type"]) == (403, "http.response.start")
    assert sink.told() == says("deny", "x_closed", 403)
    late = await http(AuditLogMiddleware(app_of(START, hint, BODY), sink=sink))
    assert late.messages == [START, BODY]  # a hint behind the answer's head is none


async def test_a_message_for_test_clients_is_no_answer(http: Any) -> None:
    debug = {"type": "http.response.debug", "info": {"template": "t"}}
    sink = Record()
    answer = await http(AuditLogMiddleware(app_of(debug, {**START, "status": 201}, BODY), sink=sink))
    assert answer.messages[0] == debug
    assert sink.told() == says("allow", None, 201)


async def test_the_decision_is_written_before_the_first_byte(http: Any) -> None:
    sink = Record()
    written: list[int] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        async def watch(message: Any) -> None:
            written.append(len(sink.events))
            await send(message)

        await AuditLogMiddleware(app_of(START, MORE, BODY), sink=sink)(scope, receive, watch)

    await http(server)
    assert written == [1, 1, 1]


# Strict and best effort.


reached: list[str] = []


async def reach(scope: Any, receive: Any, send: Any) -> None:
    reached.append("the app goes on")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([START, BODY], id="an answer"),
        pytest.param([START, MORE, MORE, reach], id="a stream"),
        pytest.param([Refused(Deny("x_closed"))], id="a refusal"),
    ],
)
async def test_in_strict_mode_nothing_leaves_without_a_record(
    steps: Any, http: Any, caplog: pytest.LogCaptureFixture
) -> None:
    reached.clear()
    audited = AuditLogMiddleware(app_of(*steps), sink=Record(lambda event: True))
    with caplog.at_level(logging.ERROR, "toucan_guard"):
        answer = await http(audited)
    assert (answer.status, answer.reason) == (503, "audit_unavailable")
    assert len(answer.messages) == 2
    assert b"the rows" not in answer.body
    assert reached == []
    assert "disk is full" in caplog.text


@pytest.mark.parametrize("fails_again", [True, False], ids=["its handler fails too", "its handler answers"])
async def test_a_crash_that_cannot_be_recorded_is_503_as_well(fails_again: bool, http: Any) -> None:
    async def handler(request: Request, error: Exception) -> PlainTextResponse:
        if fails_again:
            raise KeyError("the handler")
        return PlainTextResponse("the rows", 500)

    async def route(request: Request) -> None:
        raise ValueError("the app")

    app = Starlette(routes=[Route("/", route)], exception_handlers={500: handler})
    app.add_middleware(AuditLogMiddleware, sink=Record(lambda event: True))
    messages: list[Any] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        async def keep(message: Any) -> None:
            messages.append(message)

        await app(scope, receive, keep)

    with pytest.raises((ValueError, KeyError)):
        await http(server)
    assert [message.get("status") for message in messages] == [503, None]
    assert b"the rows" not in messages[1]["body"]


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
async def test_whatever_a_sink_raises_the_event_was_not_written(
    mode: Any, http: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def foreign(event: Any) -> bool:
        raise ConnectionError(f"cannot send {event['request_id']} of user-1")

    sink = Record(foreign)
    audited = AuditLogMiddleware(app_of(START, BODY), sink=sink, mode=mode)
    assert (await http(audited)).status == (503 if mode == "strict" else 200)
    assert "ConnectionError" in caplog.text
    assert "user-1" not in caplog.text
    sink.failing = lambda event: False
    await http(audited)
    assert sink.told("status", "dropped") == [(200, 1)]


async def test_an_app_that_ignores_the_failed_record_still_says_nothing(http: Any) -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        for message in (START, MORE, BODY):
            try:
                await send(message)
            except Exception:  # noqa: BLE001 - this app swallows everything
                continue

    answer = await http(AuditLogMiddleware(stubborn, sink=Record(lambda event: True)))
    assert (answer.status, len(answer.messages)) == (503, 2)
    assert b"the rows" not in answer.body


async def test_a_socket_is_not_accepted_without_a_record(websocket: Any) -> None:
    sink = Record(lambda event: True)
    answer = await websocket(AuditLogMiddleware(app_of(ACCEPT, {"type": "websocket.send", "text": "rows"}), sink=sink))
    assert (answer.status, answer.reason) == (503, "audit_unavailable")
    assert [message["type"] for message in answer.messages] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
async def test_events_that_were_dropped_are_told_by_the_next_one(mode: Any, http: Any) -> None:
    sink = Record(lambda event: True)
    audited = AuditLogMiddleware(app_of(START, BODY), sink=sink, mode=mode)
    statuses = [(await http(audited)).status, (await http(audited)).status]
    assert statuses == ([503, 503] if mode == "strict" else [200, 200])
    sink.failing = lambda event: False
    assert [(await http(audited)).status, (await http(audited)).status] == [200, 200]
    assert [event.get("dropped") for event in sink.events] == [2, None]


async def test_a_completion_does_not_swallow_the_count(http: Any) -> None:
    sink = Record()
    stream = AuditLogMiddleware(app_of(START, MORE), sink=sink, mode="best_effort")
    sink.failing = lambda event: event["event"] == "decision"
    await http(stream)
    assert sink.told("event", "dropped") == [("completion", 1)]
    sink.failing = lambda event: event["event"] == "completion"
    await http(stream)
    sink.failing = lambda event: False
    await http(stream)
    assert sink.told("event", "dropped")[1:] == [("decision", None), ("decision", 1), ("completion", None)]


async def test_a_completion_that_cannot_be_written_breaks_nothing(http: Any) -> None:
    sink = Record(lambda event: event["event"] == "completion")
    answer = await http(AuditLogMiddleware(app_of(START, MORE), sink=sink))
    assert answer.status == 200


async def test_without_a_sink_refusals_and_crashes_still_end_here(http: Any) -> None:
    with audit_capture() as events:
        assert (await http(AuditLogMiddleware(app_of(Refused(Deny("x_closed"))), sink=None))).reason == "x_closed"
        with pytest.raises(ValueError, match="boom"):
            await http(AuditLogMiddleware(app_of(ValueError("boom")), sink=None))
    assert [(event["outcome"], event["status"]) for event in events] == [("deny", 403), ("error", 500)]


# What an event says.


async def test_other_scopes_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    sink = Record()
    scope = {"type": "lifespan"}
    await AuditLogMiddleware(app, sink=sink)(scope, None, None)  # type: ignore[arg-type]
    assert seen == [(scope, None, None)]
    assert scope == {"type": "lifespan"}
    assert sink.events == []


async def test_nested_audit_layers_write_one_event(http: Any) -> None:
    outer, inner = Record(), Record()
    await http(AuditLogMiddleware(AuditLogMiddleware(app_of(START, BODY), sink=inner), sink=outer))
    assert (len(outer.events), inner.events) == (1, [])


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        pytest.param([START, BODY], "allow", id="answered"),
        pytest.param([Refused(Deny("x_closed"))], "deny", id="refused"),
    ],
)
async def test_a_record_behind_a_layer_that_keeps_none_is_kept(steps: Any, outcome: str, http: Any) -> None:
    inner = Record()
    await http(AuditLogMiddleware(AuditLogMiddleware(app_of(*steps), sink=inner, region="eu"), sink=None))
    assert [(event["outcome"], event["region"]) for event in inner.events] == [(outcome, "eu")]


async def test_a_record_behind_a_layer_that_keeps_none_is_as_strict_as_it_says(http: Any) -> None:
    inner = AuditLogMiddleware(app_of(START, BODY), sink=Record(lambda event: True))
    assert (await http(AuditLogMiddleware(inner, sink=None))).status == 503


@pytest.mark.parametrize(
    ("client", "sent", "taken"),
    [
        pytest.param("10.0.0.1", ["req-12345678"], True, id="a trusted proxy's"),
        pytest.param("192.0.2.7", ["req-12345678"], False, id="a stranger's"),
        pytest.param("10.0.0.1", ["req-12345678", "req-87654321"], False, id="two of them"),
        pytest.param("10.0.0.1", ["short"], False, id="a short one"),
        pytest.param("10.0.0.1", ["x" * 65], False, id="a long one"),
        pytest.param("10.0.0.1", ['"},{"outcome":"allow'], False, id="one that imitates an event"),
        pytest.param("10.0.0.1", ["req-1234\u00ff"], False, id="one outside ASCII"),
        pytest.param("proxy.internal", ["req-12345678"], False, id="a peer without an address"),
        pytest.param(None, ["req-12345678"], False, id="no peer"),
    ],
)
async def test_request_ids_come_from_trusted_proxies(
    client: str | None, sent: list[str], taken: bool, http: Any
) -> None:
    sink = Record()
    audited = AuditLogMiddleware(
        app_of(Refused(Deny("x_closed"))), sink=sink, trusted_proxies=[ip_network("10.0.0.0/8")]
    )
    answer = await http(
        audited, headers=[("x-request-id", value) for value in sent], client=None if client is None else (client, 1)
    )
    request_id = sink.events[0]["request_id"]
    assert answer.problem["request_id"] == request_id
    assert (request_id == sent[0]) is taken
    assert sink.events[0]["client"] == client


@pytest.mark.parametrize("headers", [None, [("x", "text")], 5], ids=["none", "text", "a number"])
async def test_headers_that_are_none_are_a_crash_of_the_apps(
    headers: Any, http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    guard = ToucanGuard(app_of({**START, "headers": headers}, BODY), settings=make_settings())
    request = {"authorization": f"Bearer {make_token()}"}
    messages: list[Any] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        async def keep(message: Any) -> None:
            messages.append(message)

        await guard(scope, receive, keep)

    for _ in range(4):
        messages.clear()
        with pytest.raises(TypeError):
            await http(server, headers=request)
        start, _ = messages
        assert start["status"] == 500
        assert b"content-security-policy" in dict(start["headers"])
    assert [(event["outcome"], event["status"]) for event in audit_lines()] == [("error", 500)] * 4


async def test_the_route_is_the_template_and_never_the_path(http: Any) -> None:
    sink = Record()

    async def route(request: Request) -> JSONResponse:
        return JSONResponse({})

    app = Starlette(routes=[Mount("/t", routes=[Route("/customers/{name}", route)])])
    app.add_middleware(AuditLogMiddleware, sink=sink)
    await http(app, path="/t/customers/secret-customer")
    await http(app, path="/nothing/secret-path")
    assert sink.told("status") == [(200,), (404,)]
    assert sink.events[0]["route"] == "/t/customers/{name}"
    assert sink.events[1]["route"] is None
    assert "secret" not in json.dumps(sink.events)


@pytest.mark.parametrize(
    ("route", "tables", "status", "told"),
    [
        pytest.param('/a"\n\ud800', {}, 200, ("allow", 200, '/a"\n\ud800'), id="a route that is odd text"),
        pytest.param(re.compile("/x"), {}, 200, ("allow", 200, "re.compile('/x')"), id="a route that is no text"),
        pytest.param(["/x"], {}, 200, ("allow", 200, "['/x']"), id="a route that is a list"),
        pytest.param("/x", {"flights": ["v1"]}, 200, ("allow", 200, "/x"), id="a version that is no text"),
        pytest.param("/x", {}, 0, ("allow", 0, "/x"), id="no status that there is"),
        pytest.param("/x", {}, -(10**5000), ("allow", None, "/x"), id="a status that nobody can write"),
        pytest.param("/x", {}, HTTPStatus.OK, ("allow", 200, "/x"), id="a status with a name"),
        pytest.param("/x", {}, True, ("allow", True, "/x"), id="a status that is a truth"),
        pytest.param("/x", {}, "200", ("error", 500, "/x"), id="a status that is text is a crash"),
    ],
)
async def test_what_is_odd_about_an_answer_is_recorded_as_far_as_it_can_be(
    route: Any, tables: Any, status: Any, told: Any, http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["endpoint"], scope["route"] = app, SimpleNamespace(path=route)
        access = current_row_access.get()
        assert access is not None
        access.receipts.update(tables)
        await send({**START, "status": status})
        await send(BODY)

    guard = ToucanGuard(app, settings=make_settings())
    token = make_token()
    for _ in range(4):  # the last two are admitted
        with nullcontext() if status != "200" else pytest.raises(TypeError):
            answer = await http(guard, headers={"authorization": f"Bearer {token}"})
            assert answer.header("content-security-policy") is not None
    assert [(event["outcome"], event["status"], event["route"]) for event in audit_lines()] == [told] * 4


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        pytest.param(
            [("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "iframe")], ("cross-site", "iframe"), id="words"
        ),
        pytest.param([("sec-fetch-site", "a b"), ("sec-fetch-dest", "x" * 33)], (None, None), id="no words"),
        pytest.param([("sec-fetch-site", ""), ("sec-fetch-dest", "ifräme")], (None, None), id="empty, outside ASCII"),
        pytest.param([("sec-fetch-site", "none"), ("sec-fetch-site", "none")], (None, None), id="repeated"),
        pytest.param([], (None, None), id="absent"),
    ],
)
async def test_fetch_metadata_is_told_where_it_is_a_plain_word(headers: Any, told: Any, http: Any) -> None:
    sink = Record()
    await http(AuditLogMiddleware(app_of(START, BODY), sink=sink), headers=headers)
    assert sink.told("fetch_site", "fetch_dest") == [told]


async def test_times_come_from_the_clock(http: Any) -> None:
    sink = Record()
    await http(AuditLogMiddleware(app_of(START, BODY), sink=sink, region="eu", clock=FakeClock(0.0)))
    assert sink.told("time", "region") == [("1970-01-01T00:00:00.000Z", "eu")]


async def test_a_table_that_is_filtered_late_is_told_afterwards(http: Any) -> None:
    row_filter: Any = SimpleNamespace(attribute_names=("carrier",), policy=SimpleNamespace(version="v1"))
    access = RowAccess(row_filter)
    access.note(["flights"], "v1")

    async def early(scope: Any, receive: Any, send: Any) -> None:
        trail_of(scope).access = access

    async def late(scope: Any, receive: Any, send: Any) -> None:
        access.note(["airports"], "v1")

    sink = Record()
    await http(AuditLogMiddleware(app_of(early, START, MORE, late, BODY), sink=sink))
    assert sink.told("event", "outcome", "tables") == [
        ("decision", "allow", {"flights": "v1"}),
        ("completion", "allow", {"flights": "v1", "airports": "v1"}),
    ]
    assert sink.events[1]["decision_id"] == sink.events[0]["event_id"]
    assert sink.events[1]["request_id"] == sink.events[0]["request_id"]
    await http(AuditLogMiddleware(app_of(early, START, BODY), sink=sink))
    assert len(sink.events) == 3


async def test_the_trace_is_named_where_the_process_traces(http: Any) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    sink = Record()
    audited = AuditLogMiddleware(app_of(START, BODY), sink=sink)
    await http(audited)
    with TracerProvider().get_tracer("test").start_as_current_span("request") as span:
        await http(audited)
    assert sink.told("trace_id") == [(None,), (f"{span.get_span_context().trace_id:032x}",)]


async def test_starlettes_own_responses(http: Any, tmp_path: Any) -> None:
    ran: list[str] = []
    path = tmp_path / "chart.svg"
    await anyio.Path(path).write_text("<svg/>")

    def slow() -> Any:
        yield "a"
        yield "b"

    async def stream(_: Request) -> StreamingResponse:
        return StreamingResponse(slow(), background=BackgroundTask(ran.append, "stream"))

    async def file(_: Request) -> FileResponse:
        return FileResponse(path, background=BackgroundTask(ran.append, "file"))

    async def broken(_: Request) -> PlainTextResponse:
        return PlainTextResponse("x", background=BackgroundTask(lambda: 1 / 0))

    sink = Record()
    app = Starlette(routes=[Route("/stream", stream), Route("/file", file), Route("/broken", broken)])
    app.add_middleware(AuditLogMiddleware, sink=sink)
    assert (await http(app, path="/stream")).body == b"ab"
    assert (await http(app, path="/file")).body == b"<svg/>"
    assert (await http(app, "HEAD", "/file")).status == 200
    pathsend = await http(app, path="/file", extensions={"http.response.pathsend": {}})
    assert pathsend.messages[-1]["type"] == "http.response.pathsend"
    with pytest.raises(ZeroDivisionError):
        await http(app, path="/broken")
    assert sink.told() == says("allow", None, 200) * 5
    assert ran == ["stream", "file", "file", "file"]


async def test_the_whole_guard_does_not_block_the_loop(
    http: Any, make_settings: Any, make_token: Any, anyio_backend_name: str
) -> None:
    from blockbuster import blockbuster_ctx

    guard = ToucanGuard(app_of(START, BODY), settings=make_settings())
    headers = {"authorization": f"Bearer {make_token()}"}
    with blockbuster_ctx() as buster:
        # The one write that is meant to block: the record is on its way before the answer is.
        buster.functions["os.write"].can_block_in("toucan_guard/audit/writers.py", "info")
        buster.functions["os.stat"].can_block_in("toucan_guard/audit/writers.py", "info")
        assert (await http(guard, headers=headers)).status == 200
        assert (await http(guard)).status == 401
