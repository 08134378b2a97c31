"""The token service behind uvicorn with two workers: keys rotate with an overlap, a retired one is refused by all."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the group `test` has the server")

WORKERS = 2
DEADLINE_SECONDS = 30
APP = """
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from toucan_guard import GuardSettings, ToucanGuard, token_service

settings = GuardSettings()

async def chart(request):
    return PlainTextResponse(request.state.embed.subject)

routed = Starlette(routes=[
    *token_service.routes(settings),
    Mount("/", app=ToucanGuard(Starlette(routes=[Route("/chart", chart)]), settings=settings)),
])

async def app(scope, receive, send):
    # Says which worker answers, refusals too.
    async def named(message):
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"x-worker", str(os.getpid()).encode())]}
        await send(message)
    await routed(scope, receive, named)
"""
BODY = {"user": {"distinctId": "u-1", "attributes": {"carrier": "AA"}}, "tenant": "AA"}


class Service:
    """A running server and the command line that stands beside it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.file = folder / "keys.json"
        self.log = folder / "server.log"
        (folder / "served.py").write_text(APP)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TOUCAN_GUARD_")},
            "TOUCAN_GUARD_ALLOWED_ORIGINS": "https://portal.example",
            "TOUCAN_GUARD_ISSUER": "https://host.example",
            "TOUCAN_GUARD_AUDIENCE": "charts",
            "TOUCAN_GUARD_RLS_COLUMNS": "flights.carrier=carrier",
            "TOUCAN_GUARD_API_KEYS_FILE": str(self.file),
            "TOUCAN_GUARD_API_KEY_PEPPER": "a pepper of this test, 32 bytes long",
            "TOUCAN_GUARD_TOKEN_SERVICE_KEY": "a service key of this test, 32 bytes",
            "TOUCAN_GUARD_AUDIT": str(folder / "audit.jsonl"),
            "TOUCAN_GUARD_WORKERS": str(WORKERS),
            **{f"TOUCAN_GUARD_{name.upper()}": value for name, value in settings.items()},
        }
        self._server: subprocess.Popen[bytes] | None = None
        self.port = 0

    def command(self, *arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "toucan_guard", *arguments, "--json"],
            env=self._environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def apikey(self, *arguments: str) -> dict[str, Any]:
        return dict(self.command("apikey", *arguments))

    def start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "served:app", "--host", "127.0.0.1", "--port", str(self.port),
                 "--workers", str(WORKERS), "--no-access-log"],
                env=self._environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.until(lambda: len(self.everywhere("GET", "/chart")) == WORKERS)

    def stop(self) -> None:
        if self._server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGTERM)
            try:
                self._server.wait(10)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(self._server.pid, signal.SIGKILL)
                self._server.wait(10)

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            raw = None if body is None else json.dumps(body)
            connection.request(method, path, raw, {"connection": "close", **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.read(), response.getheader("x-worker", "?"))
        finally:
            connection.close()

    def everywhere(self, method: str, path: str, headers: dict[str, str] | None = None) -> dict[str, Answer]:
        """One answer of every worker; of fewer where the server does not run yet."""
        answers: dict[str, Answer] = {}
        for _ in range(400):
            try:
                answer = self.ask(method, path, headers)
            except OSError:
                return answers
            answers[answer.worker] = answer
            if len(answers) == WORKERS:
                break
        return answers

    def mint(self, key: str) -> Answer:
        return self.ask("POST", "/embed/generate-token", {"x-api-key": key, "content-type": "application/json"}, BODY)

    def verdicts(self, token: str, method: str = "GET", path: str = "/chart") -> set[tuple[int, str | None]]:
        answers = self.everywhere(method, path, {"authorization": f"Bearer {token}"})
        assert len(answers) == WORKERS
        return {(answer.status, answer.reason) for answer in answers.values()}

    def decisions(self) -> list[dict[str, Any]]:
        lines = (self.folder / "audit.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == "decision"]

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.05)


class Answer:
    def __init__(self, status: int, body: bytes, worker: str) -> None:
        self.status = status
        self.body = body
        self.worker = worker

    @property
    def reason(self) -> str | None:
        return json.loads(self.body)["reason"] if self.status >= 400 else None

    @property
    def token(self) -> str:
        assert self.status == 200, self.body
        return str(json.loads(self.body)["token"])


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path)
    try:
        yield running
    finally:
        running.stop()


OPEN = {(200, None)}
GONE = {(401, "key_unknown")}


def test_keys_rotate_with_an_overlap_and_a_retired_one_is_refused_by_every_worker(service: Service) -> None:
    old = service.apikey("create", "--label", "old")
    service.start()
    of_the_old = service.mint(old["key"]).token
    assert service.verdicts(of_the_old) == OPEN  # every worker remembers it now

    new = service.apikey("create", "--label", "new")
    service.until(lambda: all(service.mint(new["key"]).status == 200 for _ in range(10)))
    of_the_new = service.mint(new["key"]).token
    service.until(lambda: service.verdicts(of_the_new) == OPEN)
    # Both work while the host changes from one to the other.
    assert service.mint(old["key"]).status == 200
    assert service.verdicts(of_the_old) == OPEN
    refreshed = service.ask("POST", "/embed/refresh-token", {"authorization": f"Bearer {of_the_old}"}).token
    assert service.verdicts(refreshed) == OPEN

    service.apikey("retire", old["id"])
    service.until(lambda: service.verdicts(of_the_old) == GONE)
    assert service.verdicts(refreshed) == GONE
    assert service.verdicts(of_the_old, "POST", "/embed/refresh-token") == GONE
    assert {service.mint(old["key"]).reason for _ in range(10)} == {"api_key_invalid"}
    assert service.verdicts(of_the_new) == OPEN
    assert service.mint(new["key"]).status == 200

    lines = service.decisions()
    retired = [line for line in lines if line["reason"] == "api_key_invalid" and "retired" in line["detail"]]
    assert {line["key_id"] for line in retired} == {old["id"]}
    # "Last use" of a key is read from the record.
    used = {line["key_id"] for line in lines if line["outcome"] == "allow" and "generate" in str(line["route"])}
    assert used == {old["id"], new["id"]}
    everything = (service.folder / "audit.jsonl").read_text() + service.log.read_text() + service.file.read_text()
    for secret in (old["key"], new["key"], of_the_old, of_the_new):
        assert secret not in everything
        assert secret.split("_")[-2 if secret.startswith("tgk") else 0] not in everything


def test_a_broken_file_changes_nothing_for_any_worker_and_is_reported(service: Service) -> None:
    key = service.apikey("create", "--label", "x")
    service.start()
    token = service.mint(key["key"]).token
    good = service.file.read_text()
    service.file.write_text(good[: len(good) // 2])
    service.until(lambda: service.log.read_text().count("the keys stay as they were") >= WORKERS)
    assert service.verdicts(token) == OPEN
    assert service.mint(key["key"]).status == 200
    service.file.write_text(good)
    service.apikey("retire", key["id"])
    service.until(lambda: service.verdicts(token) == GONE)


def test_whatever_a_stranger_sends_is_refused_and_recorded(service: Service) -> None:
    key = service.apikey("create", "--label", "x")["key"]
    service.start()
    body = json.dumps(BODY).encode()
    head = b"POST /embed/generate-token HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    typed = head + b"Content-Type: application/json\r\n"
    known = typed + b"X-API-Key: " + key.encode() + b"\r\n"
    sized = b"Content-Length: %d\r\n\r\n%s"
    requests = {
        "bytes that are no text": (401, typed + b"X-API-Key: \xff\xfe\x80\r\n" + sized % (len(body), body)),
        "an endless key": (401, typed + b"X-API-Key: " + b"tgk_" * 4_000 + b"\r\n" + sized % (len(body), body)),
        "a key with a tail": (401, typed + b"X-API-Key: " + key.encode() + b" x\r\n" + sized % (len(body), body)),
        "two keys in one": (401, typed + f"X-API-Key: {key},{key}\r\n".encode() + sized % (len(body), body)),
        "no type": (415, head + b"X-API-Key: " + key.encode() + b"\r\n" + sized % (len(body), body)),
        "two types": (415, known + b"Content-Type: text/plain\r\n" + sized % (len(body), body)),
        "compressed": (400, known + b"Content-Encoding: gzip\r\n" + sized % (4, b"\x1f\x8b\x08\x00")),
        "no body": (400, known + b"Content-Length: 0\r\n\r\n"),
        "a large body": (413, known + sized % (20_000, b" " * 20_000)),
        "an endless chunked body": (
            413, known + b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b" " * 4096 + b"\r\n"
            + (b"1000\r\n" + b" " * 4096 + b"\r\n") * 5 + b"0\r\n\r\n",
        ),
        "a page": (403, known + b"Origin: null\r\n" + sized % (len(body), body)),
        "a key in the query": (401, head.replace(b"token ", f"token?x-api-key={key} ".encode()) + b"\r\n"),
        "an embed token": (401, head + b"Authorization: Bearer a.b.c\r\n\r\n"),
        "a good request": (200, known + sized % (len(body), body)),
    }  # fmt: skip
    got = {}
    for name, (_, raw) in requests.items():
        with socket.create_connection(("127.0.0.1", service.port), 20) as connection:
            connection.sendall(raw)
            answer = b""
            while b"\r\n" not in answer and (part := connection.recv(4096)):
                answer += part
            got[name] = int(answer.split(b" ", 2)[1])
    assert got == {name: status for name, (status, _) in requests.items()}
    lines = service.decisions()
    asked = [line for line in lines if line["route"] == "/embed/generate-token"]
    assert [line["status"] for line in asked] == list(got.values())
    assert "Traceback" not in service.log.read_text()
    assert key.split("_")[3] not in (service.folder / "audit.jsonl").read_text()


def test_a_revoked_key_gets_no_token_from_any_worker(tmp_path: Path, valkey: Any) -> None:
    service = Service(tmp_path, store_url=valkey.url, revocation_staleness_seconds="1")
    try:
        leaked, other = service.apikey("create", "--label", "leaked"), service.apikey("create", "--label", "other")
        service.start()
        assert service.verdicts(service.mint(leaked["key"]).token) == OPEN
        service.command("revoke", "--key", leaked["id"])
        service.until(lambda: {service.mint(leaked["key"]).reason for _ in range(10)} == {"token_revoked"})
        assert service.mint(leaked["key"]).status == 403
        assert service.mint(other["key"]).status == 200
        refused = [line for line in service.decisions() if line["reason"] == "token_revoked"]
        assert {(line["status"], line["key_id"]) for line in refused} == {(403, leaked["id"])}
        service.command("revoke", "--key", leaked["id"], "--undo")
        service.until(lambda: all(service.mint(leaked["key"]).status == 200 for _ in range(10)))

        valkey.stop()
        service.until(lambda: {service.mint(other["key"]).reason for _ in range(10)} == {"store_unavailable"})
        valkey.start()
        service.until(lambda: all(service.mint(other["key"]).status == 200 for _ in range(10)))
    finally:
        service.stop()
