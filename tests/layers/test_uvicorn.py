"""With a real server: nothing of one request is left for the next, and no token in what server or tracer write."""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from toucan_guard import ToucanGuard
from toucan_guard.rls.context import current_row_access
from toucan_guard.trail import existing_trail

uvicorn = pytest.importorskip("uvicorn")

FRAME = {
    "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe",
    "Referer": "https://portal.example/",
}  # fmt: skip

Serve = Callable[[Any], int]


@pytest.fixture(params=["h11", "httptools"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Serve an app on a loopback port until the test ends."""
    running: list[tuple[Any, threading.Thread]] = []

    def start(app: Any) -> int:
        config = uvicorn.Config(app, host="127.0.0.1", port=0, http=request.param, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.01)
        return int(server.servers[0].sockets[0].getsockname()[1])

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(10)


def _get(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.body = response.read()  # type: ignore[attr-defined]
    return response


async def _rows(request: Request) -> JSONResponse:
    access = current_row_access.get()
    return JSONResponse(
        {
            "rows": None if access is None else access.row_filter.attribute_names,
            "embed": getattr(getattr(request.state, "embed", None), "subject", None),
        }
    )


def test_the_next_request_of_a_connection_finds_nothing_of_the_one_before(
    serve: Serve, make_settings: Any, make_token: Any
) -> None:
    guard = Middleware(ToucanGuard, settings=make_settings(exempt_paths=["/embed/health"]))
    routes = [Route("/rows", _rows), Route("/health", _rows)]
    app = Starlette(routes=[Mount("/embed", routes=routes, middleware=[guard]), Route("/open", _rows)])
    connection = http.client.HTTPConnection("127.0.0.1", serve(app))
    bodies = []
    for path, headers in [
        ("/embed/rows", {"X-Embed-Token": make_token()}),
        ("/open", {}),
        ("/embed/rows", {"X-Embed-Token": make_token(subject="two")}),
        ("/embed/health", {}),
        ("/open", {}),
    ]:
        response = _get(connection, path, headers)
        assert response.status == 200
        bodies.append(response.body)  # type: ignore[attr-defined]
    nothing = b'{"rows":null,"embed":null}'
    assert bodies == [
        b'{"rows":["carrier"],"embed":"user-1"}', nothing, b'{"rows":["carrier"],"embed":"two"}', nothing, nothing
    ]  # fmt: skip
    refused = _get(connection, "/embed/rows", {})
    assert refused.status == 401
    connection.close()


def _in_a_thread(request: Request) -> JSONResponse:
    access, trail = current_row_access.get(), existing_trail(request.scope)
    return JSONResponse(
        {
            "subject": getattr(getattr(request.state, "embed", None), "subject", None),
            "own rows": None if access is None else access.row_filter is request.state.embed.rls and not access.closed,
            "admitted": trail is not None and trail.admission is not None,
            "headers": [name for name in ("authorization", "x-embed-token", "x_embed_x") if name in request.headers],
        }
    )


def test_two_tokens_that_are_admitted_in_turns_on_one_connection_share_nothing(
    serve: Serve, make_settings: Any, make_token: Any
) -> None:
    guard = Middleware(ToucanGuard, settings=make_settings())
    rows = Route("/rows", _in_a_thread)
    app = Starlette(routes=[Mount("/embed", routes=[rows], middleware=[guard]), Route("/open", _in_a_thread)])
    connection = http.client.HTTPConnection("127.0.0.1", serve(app))
    tokens = {subject: f"Bearer {make_token(subject=subject)}" for subject in ("one", "two")}
    for turn in range(5):
        for subject, bearer in tokens.items():
            headers = {"Authorization": bearer, "X_Embed_X": "forged", "Cookie": f"turn={turn}"}
            assert json.loads(_get(connection, f"/embed/rows?turn={turn}", headers).body) == {  # type: ignore[attr-defined]
                "subject": subject, "own rows": True, "admitted": (turn, subject) != (0, "one"), "headers": []
            }  # fmt: skip
            assert json.loads(_get(connection, "/open", {}).body) == {  # type: ignore[attr-defined]
                "subject": None, "own rows": None, "admitted": False, "headers": []
            }  # fmt: skip
    assert _get(connection, "/embed/rows", {}).status == 401
    assert _get(connection, "/embed/rows", {"Authorization": tokens["one"] + "x"}).status == 401
    connection.close()


@pytest.mark.parametrize("placing", ["wrapped from outside", "add_middleware", "mounted"])
def test_the_access_log_shows_no_token(
    placing: str, serve: Serve, make_settings: Any, make_token: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(token_carriers=["session"])
    inner = Starlette(routes=[Route("/chart", _rows)])
    app: Any
    if placing == "wrapped from outside":
        app = ToucanGuard(Starlette(routes=[Mount("/embed", app=inner)]), settings=settings)
    elif placing == "add_middleware":
        app = Starlette(routes=[Mount("/embed", app=inner)])
        app.add_middleware(ToucanGuard, settings=settings)
    else:
        app = Starlette(
            routes=[
                Mount("/embed", routes=inner.routes, middleware=[Middleware(ToucanGuard, settings=settings)]),
            ]
        )
    token = make_token(bootstrap=True)
    with caplog.at_level(logging.INFO, logger="uvicorn.access"):
        connection = http.client.HTTPConnection("127.0.0.1", serve(app))
        opened = _get(connection, f"/embed/chart?month=1&embed_token={token}", FRAME)
        spent = _get(connection, f"/embed/chart?%65mbed_token={token}&month=2", FRAME)
        connection.close()
    assert (opened.status, spent.status) == (303, 401)
    logged = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    requests = [line.partition('"')[2] for line in logged]
    assert requests == ['GET /embed/chart?month=1 HTTP/1.1" 303', 'GET /embed/chart?month=2 HTTP/1.1" 401']
    assert token[:20] not in caplog.text


def test_no_token_in_the_spans_of_a_traced_app(serve: Serve, make_settings: Any, make_token: Any) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    guard = ToucanGuard(Starlette(routes=[Route("/chart", _rows)]), settings=make_settings(token_carriers=["session"]))

    async def traced(scope: Any, receive: Any, send: Any) -> None:
        """What an instrumentation does: reads the URL before anybody else, and writes it into the server's span."""
        query = scope["query_string"].decode()
        attributes = {"url.query": query, "http.target": f"{scope['path']}?{query}", "url.path": scope["path"]}
        with tracer.start_as_current_span("GET", attributes=attributes):
            await guard(scope, receive, send)

    token = make_token(bootstrap=True)
    connection = http.client.HTTPConnection("127.0.0.1", serve(traced))
    assert _get(connection, f"/chart?month=1&embed_token={token}", FRAME).status == 303
    assert _get(connection, f"/chart?embed_token={token}", {}).status == 401
    connection.close()
    # A span ends when the app has returned, which may be after its answer arrived.
    give_up = time.monotonic() + 60
    while len(exporter.get_finished_spans()) < 2 and time.monotonic() < give_up:
        time.sleep(0.01)
    provider.shutdown()
    spans = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]
    assert spans == [
        {"url.query": "month=1", "http.target": "/chart?month=1", "url.path": "/chart"},
        {"url.query": "", "http.target": "/chart", "url.path": "/chart"},
    ]


def test_a_socket_is_closed_by_the_server_when_its_token_expires(
    serve: Serve, make_settings: Any, make_token: Any
) -> None:
    client = pytest.importorskip("websockets.sync.client")
    from websockets.exceptions import ConnectionClosed

    async def live(socket: WebSocket) -> None:
        await socket.accept()
        async for message in socket.iter_text():
            await socket.send_text(message)

    guard = ToucanGuard(
        Starlette(routes=[WebSocketRoute("/live", live)]),
        settings=make_settings(leeway_seconds=0, token_carriers=["websocket"]),
    )
    token = make_token(lifetime_seconds=6, now=time.time() - 1)
    with client.connect(
        f"ws://127.0.0.1:{serve(guard)}/live",
        origin="https://portal.example",
        subprotocols=["embed", f"embed.token.{token}"],
    ) as socket:
        assert socket.subprotocol == "embed"
        socket.send("hello")
        assert socket.recv(timeout=20) == "hello"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "token_expired")
