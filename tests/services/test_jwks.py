"""Fetched keys against a real HTTP server that misbehaves, and behind a real web server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from toucan_guard import Grant, ToucanGuard
from toucan_guard.tokens import TokenMinter
from toucan_guard.tokens.jwks import JwksKeys

pytest.importorskip("httpx2", reason="the extra [jwks] has the HTTP library")

from toucan_guard.tokens.jwks_fetch import HttpFetch

ISSUER, PORTAL = "https://host.example", "https://portal.example"
FRAME = {
    "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe", "referer": f"{PORTAL}/",
}  # fmt: skip


class KeyServer:
    """``key_server.py`` as a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(Path(__file__).with_name("key_server.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{int(self._line())}/jwks"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def say(self, mode: str = "good", *keys: TokenMinter, body: str | None = None) -> None:
        """What it answers from now on; without keys, those that it answered before."""
        told = {"mode": mode}
        if keys or body is not None:
            told["body"] = body or json.dumps({"keys": [one.verification_key.public_jwk() for one in keys]})
        self._count(told)

    @property
    def fetched(self) -> int:
        return self._count({})["/jwks"]

    @property
    def led_elsewhere(self) -> int:
        return self._count({})["/elsewhere"]

    def _count(self, told: dict[str, str]) -> dict[str, int]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        counts: dict[str, int] = json.loads(self._line())
        return counts

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def keys_at() -> Iterator[KeyServer]:
    server = KeyServer()
    yield server
    server.end()


def minter(kid: str) -> TokenMinter:
    return TokenMinter(Ed25519PrivateKey.generate(), kid=kid, issuer=ISSUER, audience="charts")


def token(by: TokenMinter, **more: Any) -> str:
    return by.mint(
        subject="user-1", tenant="AA", rls={"carrier": "AA"}, grants=[Grant("dashboard", "delays", ("view",))], **more
    )


def source(server: KeyServer, **options: Any) -> JwksKeys:
    return JwksKeys(server.url, fetch=HttpFetch(), cooldown_seconds=0.001, **options)


async def until(what: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not what():  # noqa: ASYNC110 - what is waited for sets no event
            await anyio.sleep(0.02)


MISBEHAVIOUR = (
    "hang",
    "hang in the body",
    "drip",
    "drip headers",
    "endless body",
    "endless headers",
    "a huge length",
    "cut short",
    "compressed",
    "redirect",
    "not http",
    "close",
    "204 No Content",
    "404 Not Found",
    "500 Internal Server Error",
    "503 Service Unavailable",
)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", MISBEHAVIOUR)
async def test_whatever_the_endpoint_does_the_keys_stay_and_the_next_good_answer_counts(
    mode: str, keys_at: KeyServer
) -> None:
    a, b = minter("a"), minter("b")
    keys_at.say("good", a)
    keys = source(keys_at, timeout_seconds=20, wait_seconds=20)
    await keys.start()
    ring = keys.ring
    assert ring is not None
    keys_at.say(mode, a, b)
    # The time is short only where the endpoint would never end.
    keys._timeout_seconds = 0.4 if mode.startswith(("hang", "drip", "a huge")) else 20
    await keys.look_again("b")
    assert keys.ring is ring
    assert keys.problem is not None
    keys._timeout_seconds = 20
    keys_at.say("good")
    await keys.look_again("b")
    assert keys.problem is None
    assert keys.ring is not None
    assert {key.kid for key in keys.ring.keys} == {"a", "b"}
    assert keys_at.led_elsewhere == 0
    assert keys_at.fetched == 3


@pytest.mark.anyio
async def test_an_early_hint_is_no_answer(keys_at: KeyServer) -> None:
    keys_at.say("informational", minter("a"))
    keys = source(keys_at)
    await keys.start()
    assert keys.complete
    assert keys_at.led_elsewhere == 0


@pytest.mark.anyio
async def test_proxies_and_credentials_of_the_environment_do_not_count(
    keys_at: KeyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login u password secret-of-netrc")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    keys_at.say("good", minter("a"))
    keys = source(keys_at)
    await keys.start()
    assert (keys.problem, keys.complete) == (None, True)


@pytest.mark.anyio
@pytest.mark.parametrize("trusted", [False, True], ids=["that nobody vouches for", "of an authority in SSL_CERT_FILE"])
async def test_the_endpoint_s_certificate_is_checked(
    trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = _self_signed()
    (tmp_path / "server.pem").write_bytes(certificate + key)
    (tmp_path / "authority.pem").write_bytes(certificate)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    keys_text = json.dumps({"keys": [minter("a").verification_key.public_jwk()]}).encode()
    asked: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):  # the client hangs up
            plain, _ = listener.accept()
            with plain, context.wrap_socket(plain, server_side=True) as connection:
                asked.append(connection.recv(1000))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(keys_text) + keys_text)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/jwks"
        keys = JwksKeys(url, fetch=HttpFetch(), timeout_seconds=20, wait_seconds=20)
        await keys.start()
        thread.join(20)
    if trusted:
        assert (keys.problem, keys.complete) == (None, True)
        assert b"authorization" not in asked[0].lower()
        assert b"cookie" not in asked[0].lower()
    else:
        assert keys.problem == "the endpoint cannot be read (ConnectError)"
        assert asked == []


def _self_signed() -> tuple[bytes, bytes]:
    from datetime import UTC, datetime, timedelta
    from ipaddress import IPv4Address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.anyio
async def test_a_removed_key_ends_cached_tokens_and_sessions_at_the_next_request_after_the_refresh(
    keys_at: KeyServer, make_settings: Any, http: Any
) -> None:
    old, new = minter("old"), minter("new")
    keys_at.say("good", old, new)
    settings = make_settings(secret=None, jwks_url=keys_at.url, token_carriers=["authorization", "session"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"rows"})

    guard = ToucanGuard(app, settings=settings)

    async def ask(by: TokenMinter) -> tuple[int, str | None]:
        answer = await http(guard, "GET", "/d", {"authorization": f"Bearer {held[by]}"})
        return answer.status, answer.problem["reason"] if answer.status != 200 else None

    held = {by: token(by) for by in (old, new)}
    assert [await ask(by) for by in (old, old, new)] == [(200, None)] * 3

    bootstrap = old.mint_bootstrap(subject="user-1", tenant="AA", rls={"carrier": "AA"})
    opened = await http(guard, "GET", "/d", FRAME, query=f"embed_token={bootstrap}")
    assert opened.status == 303
    session = {
        "cookie": (opened.header("set-cookie") or "").partition(";")[0],
        "sec-fetch-site": "same-origin",
        "referer": f"https://charts.example{opened.header('location')}",
    }
    assert (await http(guard, "GET", "/d", session)).status == 200

    keys_at.say("good", new)
    before = guard._keys.ring
    guard._keys._refresh_at = guard._keys._wake_at = 0.0  # five minutes later
    assert await ask(old) == (200, None)  # the request that begins the refresh
    await until(lambda: guard._keys.ring is not before)
    assert await ask(old) == (401, "key_unknown")
    ended = await http(guard, "GET", "/d", session)
    assert (ended.status, ended.problem["reason"]) == (401, "key_unknown")
    assert await ask(new) == (200, None)


@pytest.mark.anyio
async def test_the_app_s_start_fetches_the_keys_and_a_dead_endpoint_does_not_stop_it(
    keys_at: KeyServer, make_settings: Any, http: Any, audit_lines: Any
) -> None:
    a = minter("a")
    keys_at.say("500 Internal Server Error", a)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"rows"})

    guard = ToucanGuard(app, settings=make_settings(secret=None, jwks_url=keys_at.url))
    # A second guard of the same process shares the keys.
    assert ToucanGuard(app, settings=make_settings(secret=None, jwks_url=keys_at.url))._keys is guard._keys
    sent: list[str] = []
    stop = anyio.Event()

    async def receive() -> dict[str, Any]:
        if sent:
            await stop.wait()
            return {"type": "lifespan.shutdown"}
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    bearer = {"authorization": f"Bearer {token(a)}"}
    async with anyio.create_task_group() as group:
        group.start_soon(guard, {"type": "lifespan"}, receive, send)
        await until(lambda: sent == ["lifespan.startup.complete"])
        assert keys_at.fetched == 1
        refused = await http(guard, "GET", "/d", bearer)
        assert (refused.status, refused.problem["reason"]) == (503, "keys_unavailable")
        assert keys_at.fetched == 1  # the cooldown counts failures
        keys_at.say("good")
        guard._keys._allowed_at = 0.0  # type: ignore[attr-defined]
        assert (await http(guard, "GET", "/d", bearer)).status == 200
        stop.set()
    decisions = [line for line in audit_lines() if line["event"] == "decision"]
    assert [(line["outcome"], line["reason"]) for line in decisions] == [("deny", "keys_unavailable"), ("allow", None)]


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["close", "hang in the body", "cut short", "not http", "500 Internal Server Error"])
async def test_a_fetch_that_fails_in_the_middle_of_a_request_ends_it_exactly_once(
    mode: str, keys_at: KeyServer, make_settings: Any, http: Any, audit_lines: Any
) -> None:
    """CVE-2025-64527, CVE-2024-45809 (Envoy): a failed fetch answered a request twice, or never."""
    a, b = minter("a"), minter("b")
    keys_at.say("good", a)
    served: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])

    guard = ToucanGuard(app, settings=make_settings(secret=None, jwks_url=keys_at.url))
    await guard._keys.start()
    guard._keys._allowed_at, guard._keys._timeout_seconds = 0.0, 0.5  # type: ignore[attr-defined]
    keys_at.say(mode)
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await http(guard, "GET", "/d", {"authorization": f"Bearer {token(b)}"}))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
    for answer in answers:
        assert answer.problem["reason"] == "key_unknown"
        assert [message["type"] for message in answer.messages] == ["http.response.start", "http.response.body"]
    assert [(line["event"], line["reason"]) for line in audit_lines()] == [("decision", "key_unknown")] * 5
    assert (served, len(answers)) == ([], 5)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, keys_at: KeyServer) -> Callable[..., Any]:
    """Run a command in an environment whose keys are fetched."""
    typer_testing = pytest.importorskip("typer.testing", reason="the extra [cli] has the command line")

    def invoke(*arguments: str, stdin: str | None = None, url: str = keys_at.url) -> Any:
        from toucan_guard.cli import app
        from toucan_guard.tokens import jwks

        jwks._shared.clear()  # each command is a process of its own
        for name, value in {**ENVIRONMENT, "TOUCAN_GUARD_JWKS_URL": url}.items():
            monkeypatch.setenv(name, value)
        return typer_testing.CliRunner().invoke(app, list(arguments), input=stdin)

    return invoke


ENVIRONMENT = {
    "TOUCAN_GUARD_ALLOWED_ORIGINS": PORTAL,
    "TOUCAN_GUARD_ISSUER": ISSUER,
    "TOUCAN_GUARD_AUDIENCE": "charts",
    "TOUCAN_GUARD_RLS_COLUMNS": "flights.carrier=carrier",
}


def test_check_fetches_the_keys_and_says_what_it_found(keys_at: KeyServer, run: Any) -> None:
    a, b = minter("a"), minter("b")
    keys_at.say("good", a, b)
    result = run("check", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (
        0,
        {"errors": [], "findings": [], "keys": [{"kid": "a", "alg": "EdDSA"}, {"kid": "b", "alg": "EdDSA"}]},
    )
    assert keys_at.fetched == 1
    secret = {"kty": "oct", "kid": "s", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}
    keys = [a.verification_key.public_jwk(), {**b.verification_key.public_jwk(), "use": "enc"}, secret]
    keys_at.say("good", body=json.dumps({"keys": keys}))
    result = run("check")
    assert result.exit_code == 1
    assert "key 2: use is not" in result.stdout
    assert "TOUCAN_GUARD_JWKS_URL: key 3: it is a private key or a secret" in result.stdout
    assert secret["k"] not in result.output


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        pytest.param("500 Internal Server Error", "the endpoint answers 500", id="an error"),
        pytest.param("redirect", "the endpoint answers 302", id="a redirect"),
        pytest.param("close", "cannot be read", id="no answer"),
        pytest.param("hang", "given up before an answer came", id="no end"),
    ],
)
def test_check_says_why_there_are_no_keys(mode: str, words: str, keys_at: KeyServer, run: Any) -> None:
    keys_at.say(mode, minter("a"))
    result = run("check")
    assert result.exit_code == 1
    assert words in result.stdout
    assert "503" in result.stdout
    assert keys_at.fetched == 1


def test_a_server_that_is_not_there_is_a_finding(run: Any) -> None:
    result = run("check", url="http://127.0.0.1:1/jwks")
    assert result.exit_code == 1
    assert "ConnectError" in result.stdout


def test_inspect_and_explain_judge_with_fetched_keys(keys_at: KeyServer, run: Any) -> None:
    a, b = minter("a"), minter("b")
    keys_at.say("good", a)
    good, unknown = token(a), token(b)
    assert run("inspect", "-", stdin=good).exit_code == 0
    assert "key_unknown" in run("inspect", "-", stdin=unknown).stdout
    assert run("explain", "/d", "--token-file", "-", stdin=good).exit_code == 0
    framed = ["--app-header", "X-Frame-Options: DENY"]
    assert "key_unknown" in run("explain", "/d", "--token-file", "-", *framed, stdin=unknown).stdout
    keys_at.say("503 Service Unavailable")
    for command in (["inspect", "-"], ["explain", "/d", "--token-file", "-"]):
        refused = run(*command, stdin=good)
        assert refused.exit_code == 2, "whether the token is good is not known"
        assert "keys_unavailable" in refused.stdout


def test_event_loops_that_come_and_go_lose_no_keys(keys_at: KeyServer, make_settings: Any) -> None:
    """``TestClient`` without ``with`` gives each request an event loop of its own."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    a, b = minter("a"), minter("b")
    keys_at.say("good", a)
    app = Starlette(routes=[Route("/d", lambda request: PlainTextResponse("rows"))])
    guard = ToucanGuard(app, settings=make_settings(secret=None, jwks_url=keys_at.url))
    guard._keys._cooldown_seconds = 0.001  # type: ignore[attr-defined]
    client = TestClient(guard, base_url="https://charts.example")

    def ask(held: str) -> int:
        return int(client.get("/d", headers={"authorization": f"Bearer {held}"}).status_code)

    good, new = token(a), token(b)
    assert [ask(good), ask(good), ask(new)] == [200, 200, 401]
    keys_at.say("good", a, b)
    assert [ask(new), ask(good)] == [200, 200]
    for _ in range(3):  # a refresh that is begun in a loop which ends at once
        guard._keys._refresh_at = guard._keys._wake_at = 0.0  # type: ignore[attr-defined]
        assert [ask(good), ask(new)] == [200, 200]


# A guard behind uvicorn, in a process of its own. The times are shortened, so that a test need not wait for them.
SERVER = """
import json, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from toucan_guard import GuardSettings, ToucanGuard

async def rows(request):
    return PlainTextResponse("rows")

async def live(socket):
    await socket.accept()
    await socket.send_text("open")
    await socket.receive()

app = Starlette(routes=[Route("/rows", rows), WebSocketRoute("/live", live)])
guard = ToucanGuard(app, settings=GuardSettings())
for name, value in json.loads(sys.argv[1]).items():
    setattr(guard._keys, name, value)

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)

Server(uvicorn.Config(guard, host="127.0.0.1", port=0, log_level="error", access_log=False)).run()
"""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """``serve(url, _cooldown_seconds=1)``: a guarded app whose keys are fetched from there; its port."""
    pytest.importorskip("uvicorn")
    started: list[subprocess.Popen[str]] = []

    def start(url: str, **times: float) -> int:
        environment = {
            **ENVIRONMENT,
            "TOUCAN_GUARD_JWKS_URL": url,
            "TOUCAN_GUARD_AUDIT": str(tmp_path / "audit.jsonl"),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, json.dumps(times)],
            env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=20)


class Client:
    """Keep-alive connections that ask with a token and take the time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._open: list[asyncio.StreamWriter] = []

    async def ask(self, held: str) -> tuple[int, float]:
        if not self._idle:
            self._idle.append(await asyncio.open_connection("127.0.0.1", self._port))
            self._open.append(self._idle[-1][1])
        reader, writer = self._idle.pop()
        began = time.perf_counter()
        writer.write(f"GET /rows HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {held}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        took = time.perf_counter() - began
        self._idle.append((reader, writer))
        return int(head.split(b" ", 2)[1]), took

    async def close(self) -> None:
        for writer in self._open:
            writer.close()
            await writer.wait_closed()


def made_up(kid: str) -> str:
    """A token that is in order but for its key and its signature; cheap enough to make ten thousand."""
    parts = ({"alg": "EdDSA", "typ": "embed+jwt", "kid": kid}, {"iss": ISSUER})
    segments = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*segments, base64.urlsafe_b64encode(secrets.token_bytes(64)).decode().rstrip("=")])


def test_ten_thousand_made_up_keys_cause_one_fetch_for_each_cooldown(
    serve: Callable[..., int], keys_at: KeyServer, audit_lines: Any
) -> None:
    known, count, cooldown = minter("known"), 10_000, 1.0
    keys_at.say("good", known)
    port = serve(keys_at.url, _cooldown_seconds=cooldown)
    assert keys_at.fetched == 1  # at the start
    began = time.monotonic()

    async def flood() -> tuple[dict[int, int], list[int]]:
        client, statuses = Client(port), dict.fromkeys((200, 401, 503), 0)
        good = token(known)
        kids = iter([secrets.token_hex(8) for _ in range(count)])
        between: list[int] = []

        async def some() -> None:
            for number, kid in enumerate(kids):
                status, _ = await client.ask(made_up(kid))
                statuses[status] += 1
                if number % 100 == 0:
                    between.append((await client.ask(good))[0])

        await asyncio.gather(*(some() for _ in range(8)))
        await client.close()
        return statuses, between

    statuses, between = asyncio.run(flood())
    seconds = time.monotonic() - began
    fetched = keys_at.fetched - 1
    _report(f"{count} made-up kids in {seconds:.1f} s: {fetched} fetches, cooldown {cooldown} s")
    assert statuses == {200: 0, 401: count, 503: 0}
    assert set(between) == {200}
    assert 1 <= fetched <= seconds / cooldown + 1
    reasons = [line["reason"] for line in audit_lines()]
    assert reasons.count("key_unknown") == count


def test_a_hanging_fetch_delays_no_token_of_a_known_key(serve: Callable[..., int], keys_at: KeyServer) -> None:
    known = minter("known")
    keys_at.say("good", known)
    # A fetch that hangs, and requests with unknown keys that wait for it, for longer than the test lasts.
    port = serve(keys_at.url, _cooldown_seconds=0.05, _timeout_seconds=3600.0, _wait_seconds=3600.0)
    good = token(known)

    async def measure() -> tuple[float, float, int]:
        client = Client(port)
        for _ in range(100):
            assert (await client.ask(good))[0] == 200
        idle = [(await client.ask(good))[1] for _ in range(1000)]
        keys_at.say("hang")
        fetched = keys_at.fetched
        waiting = [asyncio.ensure_future(client.ask(made_up(f"made-up-{number}"))) for number in range(20)]
        async with asyncio.timeout(60):
            while keys_at.fetched == fetched:  # noqa: ASYNC110 - what is waited for sets no event
                await asyncio.sleep(0.02)
        answers = [await client.ask(good) for _ in range(1000)]
        assert {status for status, _ in answers} == {200}
        still_waiting = sum(not one.done() for one in waiting)
        hanging = keys_at.fetched - fetched
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await client.close()
        assert hanging == 1
        return _percentile(idle, 99), _percentile([took for _, took in answers], 99), still_waiting

    idle, hanging, waiting = asyncio.run(measure())
    _report(f"p99 of known keys: idle {idle * 1e3:.2f} ms, during a hanging fetch {hanging * 1e3:.2f} ms")
    assert waiting == 20


def _report(line: str) -> None:
    """Shown with ``pytest -s`` or ``-rP``."""
    sys.stdout.write(f"\n{line}\n")


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[len(values) * percent // 100]


def test_an_open_socket_is_closed_soon_after_its_key_has_gone(serve: Callable[..., int], keys_at: KeyServer) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    old, new = minter("old"), minter("new")
    keys_at.say("good", old, new)
    port = serve(keys_at.url, _refresh_seconds=0.2, _cooldown_seconds=0.05)

    def opened(by: TokenMinter) -> Any:
        headers = {"Authorization": f"Bearer {token(by)}"}
        return connect(f"ws://127.0.0.1:{port}/live", origin=PORTAL, additional_headers=headers)  # type: ignore[arg-type]

    with opened(old) as first, opened(new) as second:
        assert (first.recv(20), second.recv(20)) == ("open", "open")
        keys_at.say("good", new)
        with pytest.raises(ConnectionClosed) as closed:
            first.recv(30)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "key_unknown")
        with pytest.raises(TimeoutError):
            second.recv(0)
