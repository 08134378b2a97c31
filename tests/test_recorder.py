"""The recorder: what it puts together as a line says what the event of the same connection says."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from toucan_guard import Deny, Grant, Refused, ToucanGuard
from toucan_guard.audit.metrics import Metrics
from toucan_guard.core.audit_line import encode_line
from toucan_guard.core.decisions import ALLOW, Allow
from toucan_guard.core.pseudonyms import Pseudonyms
from toucan_guard.layers import AuditLogMiddleware
from toucan_guard.recorder import Recorder
from toucan_guard.rls.context import current_row_access
from toucan_guard.testing import audit_capture, sign_token
from toucan_guard.trail import existing_trail, trail_of

pytestmark = pytest.mark.anyio


class Lines:
    """A sink that takes lines, and remembers whether what it was given was one."""

    takes_lines = True

    def __init__(self) -> None:
        self.kept: list[tuple[bool, dict[str, Any]]] = []

    def write(self, event: Any) -> None:
        is_line = isinstance(event, bytes)
        self.kept.append((is_line, json.loads(event if is_line else encode_line(event))))

    def close(self) -> None: ...

    def take(self) -> tuple[bool, dict[str, Any]]:
        """The one that was kept since the last time, without what differs each time."""
        ((is_line, event),) = self.kept
        self.kept.clear()
        passing = ("time", "event_id", "request_id", "first_byte_ms", "expires_in_seconds")
        return is_line, {name: value for name, value in event.items() if name not in passing}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    kept = Lines()
    monkeypatch.setattr("toucan_guard.recording.open_sink", lambda *_, **__: kept)
    return kept


async def _answer(send: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _app(rows: Any) -> Any:
    """An app that does what its path says, after it was let in."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/health":
            return await _answer(send)
        trail, access, deed = existing_trail(scope), current_row_access.get(), scope["path"]
        assert trail is not None
        assert access is not None
        if deed == "/rows":
            await rows(scope, receive, send)
            return None
        if deed == "/refused":
            raise Refused(Deny("x_closed", "closed today"))
        if deed == "/crash":
            raise RuntimeError("the app fails")
        if deed == "/silent":
            return None
        if deed == "/table":
            access.note(["flights"], "v1")
        if deed == "/allowed":
            trail.add("gate", ALLOW)
        if deed == "/told":
            trail.add("gate", Allow({"origin": "https://told.example"}))
        if deed == "/reported":
            trail.add("gate", Deny("x_closed", "at night"), report_only=True)
        if deed == "/route":
            scope["endpoint"], scope["route"] = app, SimpleNamespace(path="/route/{id}")
        return await _answer(send, 503 if deed == "/failed" else 200)

    return app


@pytest.mark.parametrize("key", [None, secrets.token_urlsafe(32)], ids=["names", "pseudonyms"])
@pytest.mark.parametrize(
    "path",
    [
        "/", "/refused", "/crash", "/silent", "/table", "/allowed", "/told", "/reported", "/route", "/failed", "/rows",
        "/health",
    ],
)  # fmt: skip
async def test_a_line_says_what_the_event_says(
    path: str, key: str | None, lines: Lines, make_settings: Callable[..., Any], http: Any
) -> None:
    async def of_another_policy(scope: Any, receive: Any, send: Any) -> None:
        await _answer(send)

    region = None if path == "/rows" else "eu"  # a layer that tells the region would be looked at for that
    settings = {"region": region, "audit_hmac_key": key}
    inner = ToucanGuard(
        of_another_policy, settings=make_settings(rls_columns={"flights.airline": "carrier"}, **settings)
    )
    guard = ToucanGuard(_app(inner), settings=make_settings(exempt_paths=["/health"], **settings))
    token = sign_token(rls={"carrier": "AA"}, region=region, grants=[Grant("dashboard", "delays", ("view",))])

    async def ask(path: str) -> tuple[bool, dict[str, Any]]:
        try:
            await http(guard, path=path, headers={"authorization": f"Bearer {token}"})
        except RuntimeError:
            assert path == "/crash"
        return lines.take()

    for _ in range(3):  # from the third request on, it is admitted
        is_line, told = await ask(path)
        with audit_capture():
            observed, expected = await ask(path)
        assert (is_line, observed) == (True, False)
        assert told == expected
        await ask("/")


async def test_where_events_are_counted_each_is_one(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []
    monkeypatch.setattr(Metrics, "__init__", lambda self: None)
    monkeypatch.setattr(Metrics, "count", lambda self, event: counted.append(event["outcome"]))
    sink = Lines()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trail_of(scope).add("gate", ALLOW)
        await _answer(send)

    await http(AuditLogMiddleware(app, sink=sink, metrics=Metrics()))
    assert counted == ["allow"]
    assert sink.take()[0] is False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_process_that_is_forked_does_not_tell_what_its_parent_has_dropped() -> None:
    class Full:
        def write(self, event: Any) -> None:
            raise OSError

        def close(self) -> None: ...

    recorder = Recorder(sink=Full(), mode="best_effort", routes_of=_app(None))
    recorder.record({"event": "decision"})
    child = os.fork()
    if not child:
        os._exit(recorder.dropped)
    assert (os.waitpid(child, 0)[1], recorder.dropped) == (0, 1)


async def test_two_records_of_one_token_have_their_own_pseudonyms(make_settings: Any, http: Any) -> None:
    claims: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await _answer(send)

    async def verified(scope: Any, receive: Any, send: Any) -> None:
        trail_of(scope).add("gate", ALLOW)
        trail_of(scope).claims = claims[0]
        await app(scope, receive, send)

    async def keep(scope: Any, receive: Any, send: Any) -> None:
        trail = existing_trail(scope)
        assert trail is not None
        claims.append(trail.claims)
        await app(scope, receive, send)

    token = sign_token(rls={"carrier": "AA"})
    await http(ToucanGuard(keep, settings=make_settings()), headers={"authorization": f"Bearer {token}"})
    told = []
    for pseudonyms in (None, Pseudonyms(b"a" * 32), Pseudonyms(b"b" * 32)):
        sink = Lines()
        for _ in range(2):
            await http(AuditLogMiddleware(verified, sink=sink, pseudonyms=pseudonyms))
            is_line, event = sink.take()
            assert is_line
        told.append(event["subject"])
    assert told[0] == "user-1"
    assert len({*told}) == 3
