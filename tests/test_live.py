"""Connections that stay open: closed or cut soon after their token, session or key has ended, else left alone."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.responses import StreamingResponse

from toucan_guard import Deny, Refused, ToucanGuard, admitted, live
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.layers import AuditLogMiddleware, EmbedTokenMiddleware
from toucan_guard.revocation import revoke
from toucan_guard.testing import TEST_SECRET
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.key_source import StaticKeys
from toucan_guard.tokens.keys import KeyRing
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.tokens.store import MemoryStore

pytestmark = pytest.mark.anyio

PORTAL = "https://portal.example"
OTHER_SECRET = "x9#kQ7!another-secret-of-another-host-Zp4"


@pytest.fixture(autouse=True)
def _looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look reads the revocations: when a copy is renewed is tested in tests/tokens."""

    async def keep_fresh(self: Revocations) -> None:
        try:
            await self.refresh()
        except StoreUnavailable:
            self._copy = None

    monkeypatch.setattr(Revocations, "keep_fresh", keep_fresh)
    monkeypatch.setattr(live, "_LONGEST_SECONDS", 0.01)


class Feed:
    """A WebSocket that opens, does something, and waits for ever."""

    def __init__(self, then: Callable[[], Awaitable[Any]], *, accept: bool = True) -> None:
        self._then = then
        self._accept = accept
        self.cancelled = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._accept:
            await send({"type": "websocket.accept"})
        try:
            await self._then()
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise


def _headers(token: str) -> dict[str, str]:
    return {"x-embed-token": token, "origin": PORTAL}


def _says(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(line["event"], line["outcome"], line["reason"]) for line in lines]


@pytest.mark.parametrize("kind", ["token", "subject", "tenant", "issued_before"])
async def test_a_socket_is_closed_when_what_let_it_in_is_revoked(
    kind: str, make_settings: Any, make_token: Any, websocket: Any, audit_lines: Any
) -> None:
    settings = make_settings()
    named: dict[str, Any] = {"token": "t-1", "subject": "user-1", "tenant": "acme", "issued_before": time.time() + 9}
    app = Feed(lambda: revoke(settings, **{kind: named[kind]}))
    with anyio.fail_after(20):
        answer = await websocket(ToucanGuard(app, settings=settings), "/live", _headers(make_token(token_id="t-1")))
    assert answer.messages == [
        {**answer.messages[0], "type": "websocket.accept"},
        {"type": "websocket.close", "code": 1008, "reason": "token_revoked"},
    ]
    assert app.cancelled
    assert _says(audit_lines()) == [("decision", "allow", None), ("completion", "deny", "token_revoked")]


async def test_a_socket_is_closed_when_its_key_leaves_the_ring_or_becomes_another(
    make_settings: Any, make_token: Any, websocket: Any
) -> None:
    settings = make_settings()
    for ring in (KeyRing.from_secret(OTHER_SECRET), KeyRing.from_secret(TEST_SECRET, kid="new")):
        keys = StaticKeys(settings.key_ring)
        verifier = CachedVerifier(settings.token_policy, keys, TokenCache(10))

        async def swap(ring: KeyRing = ring, keys: StaticKeys = keys) -> None:
            keys.ring = ring

        layer = EmbedTokenMiddleware(Feed(swap), verifier=verifier, carriers=["x-embed-token"])
        with anyio.fail_after(20):
            answer = await websocket(layer, "/live", _headers(make_token()))
        assert answer.messages[1:] == [{"type": "websocket.close", "code": 1008, "reason": "key_unknown"}]


async def test_a_socket_that_is_still_not_accepted_is_refused(
    make_settings: Any, make_token: Any, websocket: Any, audit_lines: Any
) -> None:
    settings = make_settings()
    app = Feed(lambda: revoke(settings, tenant="acme"), accept=False)
    with anyio.fail_after(20):
        answer = await websocket(ToucanGuard(app, settings=settings), "/live", _headers(make_token()))
    assert (answer.status, answer.reason) == (401, "token_revoked")
    assert _says(audit_lines()) == [("decision", "deny", "token_revoked")]


@pytest.mark.parametrize("fail_open", [False, True], ids=["closed", "open"])
async def test_while_nobody_knows_what_is_revoked_a_socket_is_closed_unless_the_switch_says_otherwise(
    fail_open: bool,
    make_settings: Any,
    make_token: Any,
    websocket: Any,
    audit_lines: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_often = anyio.Event()
    lookings: list[None] = []

    async def down(*_: Any, **__: Any) -> None:
        lookings.append(None)
        if len(lookings) == 5:
            looked_often.set()
        raise StoreUnavailable("down")

    async def stop() -> None:
        monkeypatch.setattr(MemoryStore, "revoked", down)
        if fail_open:
            await looked_often.wait()
            raise ConnectionError("the app has had enough")

    guard = ToucanGuard(Feed(stop), settings=make_settings(insecure_store_fail_open=fail_open))
    with anyio.fail_after(20):
        if fail_open:
            with pytest.raises(ConnectionError):
                await websocket(guard, "/live", _headers(make_token()))
        else:
            answer = await websocket(guard, "/live", _headers(make_token()))
            assert answer.messages[1:] == [{"type": "websocket.close", "code": 1013, "reason": "store_unavailable"}]
    outcome = ("completion", "error", None) if fail_open else ("completion", "deny", "store_unavailable")
    assert _says(audit_lines()) == [("decision", "allow", None), outcome]


async def test_a_socket_that_the_switch_kept_open_is_recorded_as_such(
    make_settings: Any, make_token: Any, websocket: Any, audit_lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = anyio.Event()

    async def down(*_: Any, **__: Any) -> None:
        looked.set()
        raise StoreUnavailable("down")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        monkeypatch.setattr(MemoryStore, "revoked", down)
        await looked.wait()
        await anyio.sleep(0.1)
        await send({"type": "websocket.close", "code": 1000})

    guard = ToucanGuard(app, settings=make_settings(insecure_store_fail_open=True))
    answer = await websocket(guard, "/live", _headers(make_token()))
    assert answer.messages[-1] == {"type": "websocket.close", "code": 1000}
    assert _says(audit_lines()) == [("decision", "allow", None), ("completion", "would_deny", "store_unavailable")]


async def test_an_app_that_ignores_its_cancellation_is_closed_all_the_same_and_says_nothing_more(
    make_settings: Any, make_token: Any, websocket: Any
) -> None:
    settings = make_settings()

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await revoke(settings, tenant="acme")
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await send({"type": "websocket.send", "text": "one more row"})
            # and swallows it, as no app should

    with anyio.fail_after(20):
        answer = await websocket(ToucanGuard(stubborn, settings=settings), "/live", _headers(make_token()))
    assert [message["type"] for message in answer.messages] == ["websocket.accept", "websocket.close"]


def _flood() -> Iterator[dict[str, Any]]:
    """More messages than anybody gets to the end of, but for a test that fails."""
    yield {"type": "websocket.connect"}
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        yield {"type": "websocket.receive", "text": "more"}


async def test_a_flood_of_messages_does_not_outlive_the_token(
    make_settings: Any, make_token: Any, websocket: Any, audit_lines: Any
) -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":  # which never waits, and neither does the next
            await send({"type": "websocket.send", "text": "more"})

    guard = ToucanGuard(echo, settings=make_settings(leeway_seconds=0))
    began = time.monotonic()
    answer = await websocket(guard, "/live", _headers(make_token(lifetime_seconds=2)), incoming=_flood())
    assert time.monotonic() - began < 5
    assert answer.messages[-1] == {"type": "websocket.close", "code": 1008, "reason": "token_expired"}
    assert _says(audit_lines()) == [("decision", "allow", None), ("completion", "deny", "token_expired")]


async def test_an_app_that_speaks_on_without_a_pause_is_stopped(
    make_settings: Any, make_token: Any, websocket: Any
) -> None:
    settings, said = make_settings(), 0

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        nonlocal said
        await send({"type": "websocket.accept"})
        await revoke(settings, tenant="acme")
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.5)  # the watch has noticed
        while said < 100_000:
            await send({"type": "websocket.send", "text": "one more row"})
            said += 1

    answer = await websocket(ToucanGuard(deaf, settings=settings), "/live", _headers(make_token()))
    assert [message["type"] for message in answer.messages] == ["websocket.accept", "websocket.close"]
    assert said == 0


@pytest.mark.parametrize("ending", ["returns", "closes", "raises", "refuses", "is cancelled"])
async def test_no_task_is_left_when_a_socket_ends_by_itself(
    ending: str, make_settings: Any, make_token: Any, websocket: Any, anyio_backend: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await anyio.sleep(0.02)
        match ending:
            case "closes":
                await send({"type": "websocket.close", "code": 1000})
            case "raises":
                raise LookupError("the app's own")
            case "refuses":
                raise Refused(Deny("x_closed"))
            case "is cancelled":
                life.cancel()  # as a server does whose client is gone
                await anyio.sleep_forever()

    guard = ToucanGuard(app, settings=make_settings(revocation_staleness_seconds=3600))
    before = _tasks(anyio_backend)
    with anyio.move_on_after(30) as life:
        if ending == "raises":
            with pytest.raises(LookupError, match="the app's own"):
                await websocket(guard, "/live", _headers(make_token()))
        else:
            await websocket(guard, "/live", _headers(make_token()))
    assert life.cancelled_caught == (ending == "is cancelled")
    with anyio.fail_after(30):
        while _tasks(anyio_backend) != before:  # noqa: ASYNC110 - tasks that have ended are counted for a moment
            await anyio.sleep(0.01)


def _tasks(backend: str) -> int:
    if backend == "asyncio":
        return len(asyncio.all_tasks())
    return int(sys.modules["trio"].lowlevel.current_statistics().tasks_living)


CHUNKS = [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]


class _Chunks:
    """Three chunks, and something that happens before the second. Not a generator: nobody would close it on trio."""

    def __init__(self, then: Callable[[], Awaitable[Any]]) -> None:
        self._then = then
        self._left = list(CHUNKS)

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        if len(self._left) == 2:
            await self._then()
        return self._left.pop(0)


def _stream(then: Callable[[], Awaitable[Any]]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(_Chunks(then), media_type="text/event-stream")(scope, receive, send)

    return app


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_a_stream_is_cut_at_its_next_chunk(
    spec_version: str, make_settings: Any, make_token: Any, http: Any, audit_lines: Any
) -> None:
    settings = make_settings()
    guard = ToucanGuard(_stream(lambda: revoke(settings, subject="user-1")), settings=settings)
    answer = await http(
        guard, "GET", "/", _headers(make_token()), asgi={"version": "3.0", "spec_version": spec_version}
    )
    assert answer.status == 200
    assert answer.body == CHUNKS[0]
    assert answer.messages[-1].get("more_body"), "the client sees that it is incomplete"
    assert _says(audit_lines()) == [("decision", "allow", None), ("completion", "deny", "token_revoked")]


async def test_a_stream_is_cut_when_its_token_expires(
    make_settings: Any, make_token: Any, http: Any, audit_lines: Any
) -> None:
    async def until_it_has_expired() -> None:
        while time.time() <= expires_at:  # noqa: ASYNC110 - what is waited for sets no event
            await anyio.sleep(0.05)

    guard = ToucanGuard(_stream(until_it_has_expired), settings=make_settings(leeway_seconds=0))
    expires_at = int(time.time()) + 4
    answer = await http(guard, "GET", "/", _headers(make_token(lifetime_seconds=4, now=expires_at - 4)))
    assert answer.body == CHUNKS[0]
    assert _says(audit_lines()) == [("decision", "allow", None), ("completion", "deny", "token_expired")]


async def test_a_stream_of_a_good_token_is_whole(
    make_settings: Any, make_token: Any, http: Any, audit_lines: Any
) -> None:
    guard = ToucanGuard(_stream(anyio.lowlevel.checkpoint), settings=make_settings())
    answer = await http(guard, "GET", "/", _headers(make_token()))
    assert answer.body == b"".join(CHUNKS)
    assert _says(audit_lines()) == [("decision", "allow", None)]


async def test_an_app_that_speaks_on_says_nothing_more(
    make_settings: Any, make_token: Any, http: Any, audit_lines: Any
) -> None:
    settings = make_settings()

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await revoke(settings, tenant="acme")
        for more in (True, True, False):
            try:
                await send({"type": "http.response.body", "body": b"one more row", "more_body": more})
            except Refused:
                continue

    answer = await http(ToucanGuard(stubborn, settings=settings), "GET", "/", _headers(make_token()))
    assert answer.body == b"first"
    assert len(answer.messages) == 2
    assert _says(audit_lines()) == [("decision", "allow", None), ("completion", "deny", "token_revoked")]


@pytest.mark.parametrize(
    ("bodies", "whole"),
    [
        pytest.param([(b"everything", False)], True, id="one piece is untouched"),
        pytest.param([(b"everything", True), (b"", False)], True, id="an empty end lets a whole answer end"),
        pytest.param([(b"first", True), (b"last", False)], False, id="a last chunk with content is a chunk"),
    ],
)
async def test_what_was_complete_is_not_cut(
    bodies: list[tuple[bytes, bool]], whole: bool, make_settings: Any, make_token: Any, http: Any, audit_lines: Any
) -> None:
    settings = make_settings()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, (body, more) in enumerate(bodies):
            if number == len(bodies) - 1:
                await revoke(settings, tenant="acme")
            await send({"type": "http.response.body", "body": body, "more_body": more})

    answer = await http(ToucanGuard(app, settings=settings), "GET", "/", _headers(make_token()))
    assert (answer.body == b"".join(body for body, _ in bodies)) is whole
    assert [line["event"] for line in audit_lines()] == ["decision"] + ["completion"] * (not whole)


async def test_the_layer_alone_ends_a_stream_quietly(make_settings: Any, make_token: Any, http: Any) -> None:
    settings = make_settings()
    layer = EmbedTokenMiddleware(
        _stream(lambda: revoke(settings, tenant="acme")),
        verifier=CachedVerifier(settings.token_policy, settings.key_ring, TokenCache(10)),
        carriers=["x-embed-token"],
        revocations=Revocations(settings.store, issuer=settings.issuer, staleness_seconds=5),
    )
    answer = await http(layer, "GET", "/", _headers(make_token()))
    assert answer.body == CHUNKS[0]


async def test_a_refusal_of_the_apps_own_in_a_stream_is_still_a_crash(
    make_settings: Any, make_token: Any, http: Any, audit_lines: Any
) -> None:
    async def refuse() -> None:
        raise Refused(Deny("x_closed"))

    with pytest.raises(Refused):
        await http(ToucanGuard(_stream(refuse), settings=make_settings()), "GET", "/", _headers(make_token()))
    assert _says(audit_lines()) == [("decision", "allow", None), ("completion", "error", None)]


async def test_a_guard_inside_a_guard_ends_a_socket_and_a_stream_once(
    make_settings: Any, make_token: Any, websocket: Any, http: Any, audit_lines: Any
) -> None:
    settings = make_settings()

    def guarded(app: Any) -> ToucanGuard:
        return ToucanGuard(ToucanGuard(app, settings=settings), settings=settings)

    with anyio.fail_after(20):
        answer = await websocket(
            guarded(Feed(lambda: revoke(settings, token="t-1"))), "/live", _headers(make_token(token_id="t-1"))
        )
    assert [message["type"] for message in answer.messages] == ["websocket.accept", "websocket.close"]
    app = guarded(_stream(lambda: revoke(settings, token="t-2")))
    assert (await http(app, "GET", "/", _headers(make_token(token_id="t-2")))).body == CHUNKS[0]
    assert _says(audit_lines()) == [("decision", "allow", None), ("completion", "deny", "token_revoked")] * 2


async def test_a_stream_that_several_tasks_write_is_cut_in_all_of_them(
    make_settings: Any, make_token: Any, http: Any, audit_lines: Any
) -> None:
    settings = make_settings()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await revoke(settings, tenant="acme")
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(send, {"type": "http.response.body", "body": b"one more row", "more_body": True})

    answer = await http(ToucanGuard(app, settings=settings), "GET", "/", _headers(make_token()))
    assert answer.body == b"first"
    assert _says(audit_lines()) == [("decision", "allow", None), ("completion", "deny", "token_revoked")]


class NoError(BaseException):
    """What a library raises that means to be caught by nobody."""


@pytest.mark.parametrize("error", [NoError(), SystemExit(3), BaseExceptionGroup("two", [NoError(), ValueError()])])
async def test_what_is_no_exception_is_answered_like_a_crash(
    error: BaseException, make_settings: Any, make_token: Any, http: Any, audit_lines: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    async def server(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(type(error)):
            await ToucanGuard(app, settings=make_settings())(scope, receive, send)

    answer = await http(server, "GET", "/", _headers(make_token()))
    assert (answer.status, answer.reason) == (500, "app_failed")
    assert answer.header("content-security-policy") is not None
    assert _says(audit_lines()) == [("decision", "error", "app_failed")]


async def test_a_record_in_front_of_the_layer_says_why(make_settings: Any, make_token: Any, http: Any) -> None:
    settings = make_settings()
    events: list[dict[str, Any]] = []

    class Sink:
        def write(self, event: dict[str, Any]) -> None:
            events.append(event)

        def close(self) -> None:
            """Nothing to close."""

    layer = EmbedTokenMiddleware(
        _stream(lambda: revoke(settings, tenant="acme")),
        verifier=CachedVerifier(settings.token_policy, settings.key_ring, TokenCache(10)),
        carriers=["x-embed-token"],
        revocations=Revocations(settings.store, issuer=settings.issuer, staleness_seconds=5),
    )
    await http(AuditLogMiddleware(layer, sink=Sink()), "GET", "/", _headers(make_token()))
    assert _says(events) == [("decision", "allow", None), ("completion", "deny", "token_revoked")]


async def _reads(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await _answers(send, body)


async def _reads_what_it_can(scope: Any, receive: Any, send: Any) -> None:
    try:
        body = (await receive())["body"]
    except Exception:  # noqa: BLE001 - as careless apps do
        body = b"nothing"
    await _answers(send, body)


async def _reads_and_answers_for_it(scope: Any, receive: Any, send: Any) -> None:
    try:
        body = (await receive())["body"]
    except Exception as error:  # noqa: BLE001 - as careless apps do
        try:
            raise ValueError("no body") from error
        except ValueError:
            return await _answers(send, b"an error")
    await _answers(send, body)


async def _reads_while_it_answers(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = (await receive())["body"]
    await send({"type": "http.response.body", "body": body})


async def _answers(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def _post(app: Any, token: str, meanwhile: Callable[[], Awaitable[Any]] | None = None) -> tuple[Any, bytes]:
    """Send a request of which the body comes after something else has happened."""
    headers = [(b"authorization", f"Bearer {token}".encode()), (b"origin", PORTAL.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers, "client": None}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if meanwhile is not None:
            await meanwhile()
        return {"type": "http.request", "body": b"rows", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"] if sent else None, b"".join(message.get("body", b"") for message in sent)


@pytest.mark.parametrize("known", [False, True], ids=["a new token", "a known one"])
@pytest.mark.parametrize("app", [_reads, _reads_what_it_can, _reads_and_answers_for_it])
async def test_a_body_that_was_held_back_until_the_token_had_ended_gets_no_answer(
    app: Any, known: bool, make_settings: Any, make_token: Any, audit_lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (live, admitted):
        monkeypatch.setattr(module, "DAWDLES_SECONDS", -1.0)
    settings = make_settings()
    guard, token = ToucanGuard(app, settings=settings), make_token(token_id="t-1")
    for _ in range(3 * known):
        assert await _post(guard, token) == (200, b"rows")
    seen = len(audit_lines())
    status, body = await _post(guard, token, lambda: revoke(settings, token="t-1"))
    assert status == 401
    assert b"token_revoked" in body
    told = audit_lines()[seen:]
    assert _says(told) == [("decision", "deny", "token_revoked")]
    assert told[0]["steps"][-1] == {"layer": "embed_token", "decision": "deny:token_revoked"}


@pytest.mark.parametrize("known", [False, True], ids=["a new token", "a known one"])
async def test_an_answer_that_began_before_its_request_was_there_is_cut(
    known: bool, make_settings: Any, make_token: Any, audit_lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (live, admitted):
        monkeypatch.setattr(module, "DAWDLES_SECONDS", -1.0)
    settings = make_settings()
    guard, token = ToucanGuard(_reads_while_it_answers, settings=settings), make_token(token_id="t-1")
    for _ in range(3 * known):
        assert await _post(guard, token) == (200, b"rows")
    seen = len(audit_lines())
    assert await _post(guard, token, lambda: revoke(settings, token="t-1")) == (200, b"")
    assert _says(audit_lines()[seen:]) == [("decision", "allow", None), ("completion", "deny", "token_revoked")]


@pytest.mark.parametrize("known", [False, True], ids=["a new token", "a known one"])
async def test_a_body_that_comes_at_once_is_not_looked_at_again(
    known: bool, make_settings: Any, make_token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live.Standing, "ended", None)
    guard, token = ToucanGuard(_reads, settings=make_settings()), make_token()
    for _ in range(3 if known else 1):
        assert await _post(guard, token) == (200, b"rows")


async def test_the_layer_alone_answers_nothing_that_was_held_back(
    make_settings: Any, make_token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "DAWDLES_SECONDS", -1.0)
    settings = make_settings()
    keys = StaticKeys(settings.key_ring)
    verifier = CachedVerifier(settings.token_policy, keys, TokenCache(10))
    layer = EmbedTokenMiddleware(_reads_what_it_can, verifier=verifier, carriers=["authorization"])

    async def swap() -> None:
        keys.ring = KeyRing.from_secret(OTHER_SECRET)

    assert await _post(layer, make_token()) == (200, b"rows")
    assert await _post(layer, make_token(), swap) == (None, b"")
