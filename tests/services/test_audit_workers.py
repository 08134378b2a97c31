"""Four uvicorn workers on one audit file, one of them killed: every answered request has its event, and the chains
say who was killed and nothing else.

4,000 requests by default; ``TOUCAN_LONG=1`` sends 100,000.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from toucan_guard.audit.files import read_lines
from toucan_guard.audit.verify import ChainVerifier
from toucan_guard.testing import TEST_SECRET, sign_token

pytest.importorskip("uvicorn")

REQUESTS = 100_000 if os.environ.get("TOUCAN_LONG") else 4_000
CLIENTS = 8
CHAIN_KEY = "correct-horse-battery-staple-0123456789"


class Server:
    def __init__(self, folder: Path, **settings: str) -> None:
        self.audit = folder / "audit.jsonl"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        environment = {
            "ALLOWED_ORIGINS": "https://portal.example", "ISSUER": "https://host.example", "AUDIENCE": "charts",
            "SECRET": TEST_SECRET, "RLS_COLUMNS": "flights.carrier=carrier", "TRUSTED_PROXIES": "127.0.0.1",
            "AUDIT": str(self.audit), "WORKERS": "4", **settings,
        }  # fmt: skip
        with (folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "audit_app:app", "--app-dir", str(Path(__file__).parent),
                 "--workers", "4", "--host", "127.0.0.1", "--port", str(self.port), "--no-access-log",
                 "--timeout-worker-healthcheck", "120"],
                env={**os.environ, **{f"TOUCAN_GUARD_{name}": value for name, value in environment.items()},
                     "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                assert self.process.poll() is None, "the server has ended"
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise

    def events(self) -> Iterator[dict[str, Any]]:
        for line in read_lines(self.audit):
            yield json.loads(line)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, AUDIT_CHAIN_KEY=CHAIN_KEY)
    try:
        server.wait()
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


class Client(threading.Thread):
    """Sends its share of requests over connections that stay open, and notes which were answered."""

    def __init__(self, port: int, name: int, count: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.share = name
        self.count = count
        self.answered: dict[str, int] = {}
        self.failed = 0
        token = sign_token(rls={"carrier": "AA"}, lifetime_seconds=3000)
        self.kinds = [
            ("GET", "/charts/1", f"Authorization: Bearer {token}", 200),
            ("GET", "/stream", f"X-Embed-Token: {token}", 200),
            ("GET", "/charts/1", "X-Nothing: 1", 401),
            ("GET", "/charts/1", f"Authorization: Bearer {token}\r\nOrigin: https://evil.example", 403),
            ("POST", "/charts/1", f"Authorization: Bearer {token}", 405),
            ("GET", "/nothing", f"Authorization: Bearer {token}", 404),
            ("GET", "/charts/1", f"Authorization: Bearer {token}\r\nX-Embed-Token: {token}", 400),
            ("GET", "/charts/2", f"Authorization: Bearer {token[:-3]}AAA", 401),
        ]
        self.wrong: list[tuple[int, int]] = []

    def run(self) -> None:
        connection: socket.socket | None = None
        for number in range(self.count):
            method, path, header, status = self.kinds[number % len(self.kinds)]
            if number % 500 == 499:
                path, header, status = "/crash", self.kinds[0][2], 500
                method = "GET"
            request_id = f"request-{self.share}-{number}"
            message = (
                f"{method} {path} HTTP/1.1\r\nHost: charts.example\r\nX-Request-ID: {request_id}\r\n{header}\r\n"
                "Content-Length: 0\r\n\r\n"
            )
            try:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", self.port), 60)
                connection.sendall(message.encode())
                told, rest = _read(connection)
            except (OSError, ValueError):
                self.failed += 1
                if connection is not None:
                    connection.close()
                connection = None
                continue
            self.answered[request_id] = told
            if told != status:
                self.wrong.append((told, status))
            if b"connection: close" in rest or number % 200 == 0:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


def _read(connection: socket.socket) -> tuple[int, bytes]:
    """The status of one answer, which is read to its end."""
    text = b""
    while True:
        part = connection.recv(65536)
        if not part:
            raise ValueError("the connection was closed")
        text += part
        head, separator, body = text.partition(b"\r\n\r\n")
        if not separator:
            continue
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            if body.endswith(b"0\r\n\r\n"):
                break
        else:
            length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(body) >= length:
                break
    return int(head[9:12]), lower


def test_every_answered_request_has_its_event_although_a_worker_is_killed(server: Server) -> None:
    clients = [Client(server.port, name, REQUESTS // CLIENTS) for name in range(CLIENTS)]
    for client in clients:
        client.start()
    deadline = time.monotonic() + 120
    while sum(len(client.answered) for client in clients) < REQUESTS // 4:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed = next(event["process"] for event in server.events() if event["event"] == "open")
    os.kill(killed, signal.SIGKILL)
    for client in clients:
        client.join(600)
        assert not client.is_alive()
    server.stop()

    verifier = ChainVerifier(CHAIN_KEY.encode())
    decisions: dict[str, int] = {}
    for number, line in enumerate(read_lines(server.audit), 1):
        verifier.feed(line, file=server.audit.name, number=number)
        if b'"event":"decision"' in line:  # but for the half line that the killed worker may have left
            event = json.loads(line)
            decisions[event["request_id"]] = decisions.get(event["request_id"], 0) + 1
    answered = {name: status for client in clients for name, status in client.answered.items()}
    assert [client.wrong for client in clients] == [[]] * CLIENTS
    assert len(answered) > REQUESTS - 100 * CLIENTS
    missing = answered.keys() - decisions.keys()
    assert not missing
    assert {name for name, count in decisions.items() if count > 1} == set()

    verdict = verifier.finish()
    assert not verdict.tampered, verdict.findings
    kinds = [finding.kind for finding in verdict.findings if finding.kind != "cut"]
    assert kinds == ["open_ended"], verdict.findings
    (finding,) = [finding for finding in verdict.findings if finding.kind == "open_ended"]
    assert {chain.chain for chain in verdict.chains if chain.process == killed} == {finding.chain}
    assert len(verdict.chains) >= 4
