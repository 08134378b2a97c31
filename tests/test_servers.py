"""A guarded app on real servers: what a client on the other end of a socket sees, and what is written down of it."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import toucan_guard
from toucan_guard.testing import TEST_SECRET, sign_token

PORTAL = "https://portal.example"
GONE = ("gone in the answer", "gone before it")

SERVED = f"""
import anyio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from toucan_guard import Deny, GuardSettings, Refused, ToucanGuard
from toucan_guard.revocation import revoke
from toucan_guard.rls.context import current_row_access

async def chart(request):
    return PlainTextResponse(request.state.embed.subject)

async def context(request):
    return PlainTextResponse(str(current_row_access.get()))

async def crash(request):
    raise ValueError("hunter2")

async def refuse(request):
    raise Refused(Deny("x_closed"))

async def silent(scope, receive, send):
    return

async def stream(request):
    async def rows():
        for number in range(3):
            yield f"row {{number}} "
    return StreamingResponse(rows())

async def broken_stream(request):
    async def rows():
        yield "row 0 "
        raise ValueError("hunter2")
    return StreamingResponse(rows())

async def live(websocket):
    await websocket.accept()
    await websocket.send_text(websocket.state.embed.subject)
    await websocket.close()

async def live_crash(websocket):
    raise ValueError("hunter2")

async def live_refused(websocket):
    await websocket.accept()
    await websocket.receive_text()
    raise Refused(Deny("x_closed"))

async def endless(request):
    async def rows():
        yield "row 0 "
        await revoke(settings, subject=request.state.embed.subject)
        while True:
            await anyio.sleep(0.02)
            yield "row "
    return StreamingResponse(rows())

async def live_revoked(websocket):
    await websocket.accept()
    await revoke(settings, subject=websocket.state.embed.subject)
    await anyio.sleep_forever()

class Silent:
    __call__ = staticmethod(silent)

settings = GuardSettings(
    allowed_origins=["{PORTAL}"], issuer="https://host.example", audience="charts", secret="{TEST_SECRET}",
    rls_columns={{"flights.carrier": "carrier"}}, audit="audit.jsonl", exempt_paths=["/health"],
    token_carriers=["authorization", "websocket"], revocation_staleness_seconds=1,
)
app = ToucanGuard(
    Starlette(routes=[
        Route("/chart", chart), Route("/crash", crash), Route("/refuse", refuse), Route("/stream", stream),
        Route("/broken", broken_stream), Route("/health", context), Route("/silent", Silent()),
        WebSocketRoute("/live", live), WebSocketRoute("/live/crash", live_crash),
        WebSocketRoute("/live/refused", live_refused), WebSocketRoute("/live/revoked", live_revoked),
        Route("/endless", endless),
    ]),
    settings=settings,
)
"""

COMMANDS = {
    "uvicorn": ["uvicorn", "served:app", "--port", "{port}", "--log-level", "warning"],
    "uvicorn with h11 and websockets-sansio": [
        "uvicorn",
        "served:app",
        "--port",
        "{port}",
        "--http",
        "h11",
        "--ws",
        "websockets-sansio",
        "--log-level",
        "warning",
    ],
    "hypercorn": ["hypercorn", "served:app", "--bind", "127.0.0.1:{port}"],
    "granian": ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "served:app"],
}


@dataclass
class Served:
    """A running server."""

    name: str
    port: int
    folder: Path

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)

    def socket(self, path: str, **options: Any) -> Any:
        return connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None, open_timeout=60, **options)

    def _written(self) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]
        return [event for event in events if event["event"] not in ("open", "close")]

    def events(self) -> list[dict[str, Any]]:
        """What was written, but for what clients asked for that had hung up: that may come at any time."""
        written = self._written()
        gone = {event["request_id"] for event in written if event.get("subject") in GONE}
        return [event for event in written if event["request_id"] not in gone]

    def decisions_on(self, subject: str) -> int:
        return sum(event.get("subject") == subject for event in self._written())

    def new_events(self, seen: int, expected: int) -> list[Any]:
        """What was written since; a completion may come a moment after the answer's last byte."""
        deadline = time.monotonic() + 60
        while len(events := self.events()[seen:]) < expected and time.monotonic() < deadline:
            time.sleep(0.02)
        return [(e["event"], e["outcome"], e.get("reason"), e.get("status")) for e in events]


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    module = COMMANDS[request.param][0]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    folder = tmp_path_factory.mktemp("served")
    (folder / "served.py").write_text(SERVED)
    (folder / "audit.jsonl").touch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TOUCAN_GUARD_")},
        "PYTHONPATH": str(Path(toucan_guard.__file__).parents[1]),
    }
    command = [sys.executable, "-m", *(part.format(port=port) for part in COMMANDS[request.param])]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        _wait_for(port, process, log)
        yield Served(request.param, port, folder)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"the server does not listen: {log.read_text()}")


def _bearer(**claims: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {sign_token(rls={'carrier': 'AA'}, **claims)}"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "body", "told"),
    [
        pytest.param("GET", "/chart", True, 200, "user-1", ("allow", None), id="an answer"),
        pytest.param("HEAD", "/chart", True, 200, "", ("allow", None), id="an answer to HEAD"),
        pytest.param("GET", "/stream", True, 200, "row 0 row 1 row 2 ", ("allow", None), id="a stream"),
        pytest.param("GET", "/chart", False, 401, None, ("deny", "token_missing"), id="no token"),
        pytest.param("HEAD", "/chart", False, 401, "", ("deny", "token_missing"), id="no token for HEAD"),
        pytest.param("GET", "/refuse", True, 403, None, ("deny", "x_closed"), id="refused by the app"),
        pytest.param("GET", "/crash", True, 500, None, ("error", "app_failed"), id="a crash"),
        pytest.param("GET", "/silent", True, 500, None, ("error", "app_failed"), id="no answer"),
        pytest.param("GET", "/health", False, 200, "None", ("allow", None), id="an exempt path"),
    ],
)
def test_requests(
    method: str, path: str, headers: bool, status: int, body: str | None, told: Any, server: Served
) -> None:
    seen = len(server.events())
    with server.client() as client:
        answer = client.request(method, path, headers=_bearer() if headers else {})
    assert answer.status_code == status
    if body is None:
        assert answer.json()["reason"] == told[1]
    else:
        assert answer.text == body
    assert answer.headers.get_list("content-security-policy") == [
        "frame-ancestors " + ("'none'" if told[0] == "deny" else PORTAL)
    ]
    assert "hunter2" not in answer.text
    assert server.new_events(seen, 1) == [("decision", *told, status)]


def test_a_stream_that_breaks_is_told_afterwards(server: Served) -> None:
    seen = len(server.events())
    with server.client() as client, pytest.raises(httpx2.TransportError):
        client.get("/broken", headers=_bearer())
    assert server.new_events(seen, 2) == [
        ("decision", "allow", None, 200),
        ("completion", "error", None, None),
    ]


def test_kept_alive_connections_do_not_hand_rows_on(server: Served) -> None:
    seen = len(server.events())
    with server.client() as client:
        said = [
            client.get("/chart", headers=_bearer()).text,
            client.get("/health").text,
            client.get("/chart", headers=_bearer(subject="user-2")).text,
            client.get("/chart").json()["reason"],
            client.get("/health").text,
            client.get("/chart", headers=_bearer()).text,
        ]
    assert said == ["user-1", "None", "user-2", "token_missing", "None", "user-1"]
    assert len(server.new_events(seen, 6)) == 6


@pytest.mark.parametrize(
    ("path", "origin", "status", "told"),
    [
        pytest.param("/live", "https://evil.example", 403, ("deny", "origin_not_allowed", 403), id="a stranger's page"),
        pytest.param("/live", None, 403, ("deny", "origin_missing", 403), id="no Origin"),
        pytest.param("/live/crash", PORTAL, 500, ("error", "app_failed", 500), id="a crash before it is accepted"),
    ],
)
def test_a_refused_socket_is_never_accepted(path: str, origin: Any, status: int, told: Any, server: Served) -> None:
    seen = len(server.events())
    with pytest.raises(InvalidStatus) as refused, server.socket(path, origin=origin, additional_headers=_bearer()):
        pass
    # A server without the denial extension says 403 whatever the reason.
    assert refused.value.response.status_code in {status, 403}
    if refused.value.response.body:
        assert b"hunter2" not in refused.value.response.body
    assert server.new_events(seen, 1) == [("decision", *told)]


def test_an_allowed_socket(server: Served) -> None:
    seen = len(server.events())
    with server.socket("/live", origin=PORTAL, additional_headers=_bearer()) as live:
        assert live.recv(60) == "user-1"
        with pytest.raises(ConnectionClosed) as closed:
            live.recv(60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000
    assert server.new_events(seen, 1) == [("decision", "allow", None, 101)]


def test_a_socket_with_its_token_in_the_subprotocol(server: Served) -> None:
    token = _bearer()["authorization"].removeprefix("Bearer ")
    with server.socket("/live", origin=PORTAL, subprotocols=["embed", f"embed.token.{token}"]) as live:
        assert live.recv(60) == "user-1"
        assert live.subprotocol == "embed"


def test_a_socket_that_is_refused_later_is_closed_with_1008(server: Served) -> None:
    seen = len(server.events())
    with server.socket("/live/refused", origin=PORTAL, additional_headers=_bearer()) as live:
        live.send("more")
        with pytest.raises(ConnectionClosed) as closed:
            live.recv(60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert server.new_events(seen, 2) == [
        ("decision", "allow", None, 101),
        ("completion", "deny", "x_closed", None),
    ]


def _hangs_up(server: Served, subject: str, *, after_first_bytes: bool) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 60) as raw:
        lines = [f"{name}: {value}" for name, value in {"host": "charts.example", **_bearer(subject=subject)}.items()]
        raw.sendall(("GET /stream HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())
        if after_first_bytes:
            assert raw.recv(1)
    seen = len(server.events())
    with server.client() as client:
        assert client.get("/chart", headers=_bearer()).status_code == 200
    assert [event[0] for event in server.new_events(seen, 1)] == ["decision"]


def test_a_client_that_hangs_up_during_the_answer_is_recorded_once(server: Served) -> None:
    _hangs_up(server, GONE[0], after_first_bytes=True)
    assert server.decisions_on(GONE[0]) == 1


def test_a_client_that_hangs_up_before_the_answer_is_recorded_once_at_most(server: Served) -> None:
    # Whether a server reads a request whose sender has gone already is the server's business.
    _hangs_up(server, GONE[1], after_first_bytes=False)
    assert server.decisions_on(GONE[1]) <= 1


def test_an_endless_stream_is_cut_when_its_subject_is_revoked(server: Served) -> None:
    seen = len(server.events())
    with server.client() as client, pytest.raises(httpx2.RemoteProtocolError):
        client.get("/endless", headers=_bearer(subject="u-stream"))
    assert server.new_events(seen, 2) == [
        ("decision", "allow", None, 200), ("completion", "deny", "token_revoked", None)
    ]  # fmt: skip


def test_a_socket_is_closed_when_its_subject_is_revoked(server: Served) -> None:
    seen = len(server.events())
    token = sign_token(rls={"carrier": "AA"}, subject="u-socket")
    with (
        server.socket("/live/revoked", origin=PORTAL, subprotocols=["embed", f"embed.token.{token}"]) as live,
        pytest.raises(ConnectionClosed) as closed,
    ):
        live.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "token_revoked")
    assert server.new_events(seen, 2) == [
        ("decision", "allow", None, 101), ("completion", "deny", "token_revoked", None)
    ]  # fmt: skip
