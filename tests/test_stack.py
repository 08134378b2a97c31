"""ToucanGuard: what it passes on, what it gives back, and that it starts closed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.responses import PlainTextResponse

from toucan_guard import ConfigError, GuardSettings, ToucanGuard
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.testing import TEST_SECRET, audit_capture
from toucan_guard.tokens.store import MemoryStore

pytestmark = pytest.mark.anyio


async def chart(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse(scope["state"]["embed"].subject)(scope, receive, send)


def _open_files(path: Path) -> int:
    found = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    return sum(link.exists() and link.resolve() == path.resolve() for link in found)


async def test_without_settings_the_environment_is_read_at_once(monkeypatch: pytest.MonkeyPatch, http: Any) -> None:
    with pytest.raises(ConfigError, match="TOUCAN_GUARD_ALLOWED_ORIGINS"):
        ToucanGuard(chart)
    with pytest.raises(ConfigError, match="settings takes a GuardSettings"):
        ToucanGuard(chart, settings=GuardSettings)  # type: ignore[arg-type]
    for name, value in {
        "ALLOWED_ORIGINS": "https://portal.example",
        "ISSUER": "https://host.example",
        "AUDIENCE": "charts",
        "SECRET": TEST_SECRET,
        "RLS_COLUMNS": "flights.carrier=carrier",
        "INSECURE_NO_AUDIT": "true",
    }.items():
        monkeypatch.setenv(f"TOUCAN_GUARD_{name}", value)
    assert (await http(ToucanGuard(chart))).reason == "token_missing"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not list open files")
async def test_the_end_of_the_lifespan_closes_the_record(
    make_settings: Any, http: Any, tmp_path: Path, audit_lines: Any
) -> None:
    opened: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        opened.append(_open_files(tmp_path / "audit.jsonl"))

    guard = ToucanGuard(app, settings=make_settings())
    await guard({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert opened == [1]
    assert _open_files(tmp_path / "audit.jsonl") == 0
    assert (await http(guard)).reason == "token_missing"  # a request that comes late is still recorded
    assert len(audit_lines()) == 1
    guard.close()
    assert _open_files(tmp_path / "audit.jsonl") == 0


async def test_the_end_of_the_lifespan_closes_the_record_whatever_the_app_raises(make_settings: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("shutdown fails")

    guard = ToucanGuard(app, settings=make_settings())
    with pytest.raises(ValueError, match="shutdown fails"):
        await guard({"type": "lifespan"}, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["lifespan", "webtransport", "x"])
async def test_every_other_scope_passes_untouched(kind: str, make_settings: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    scope = {"type": kind, "state": {"a": 1}}
    with audit_capture() as events:
        await ToucanGuard(app, settings=make_settings())(scope, None, None)  # type: ignore[arg-type]
    assert seen == [(scope, None, None)]
    assert scope == {"type": kind, "state": {"a": 1}}
    assert events == []


async def test_cors_can_be_left_to_the_app(make_settings: Any, make_token: Any, http: Any) -> None:
    headers = {"authorization": f"Bearer {make_token()}", "origin": "https://portal.example"}
    ours = await http(ToucanGuard(chart, settings=make_settings()), headers=headers)
    theirs = await http(ToucanGuard(chart, settings=make_settings(cors=False)), headers=headers)
    assert ours.header("access-control-allow-origin") == "https://portal.example"
    assert theirs.values("access-control-allow-origin") == []
    assert ours.body == theirs.body == b"user-1"


async def test_a_guard_without_a_record_guards_all_the_same(make_settings: Any, http: Any, tmp_path: Path) -> None:
    guard = ToucanGuard(chart, settings=make_settings(audit=None, insecure_no_audit=True))
    assert (await http(guard)).reason == "token_missing"
    guard.close()
    assert not (tmp_path / "audit.jsonl").exists()


class _Store(MemoryStore):
    """A memory store that says what a server would."""

    def __init__(self, *warnings: str, error: str = "") -> None:
        super().__init__(clock=time.time)
        self._warnings = warnings
        self._error = error
        self.closed = 0

    async def warnings(self) -> tuple[str, ...]:
        if self._error:
            raise StoreUnavailable(self._error)
        return self._warnings

    async def aclose(self) -> None:
        self.closed += 1
        if self._error:
            await anyio.sleep_forever()


@pytest.mark.parametrize(
    ("store", "logged"),
    [
        pytest.param(_Store(), [], id="a sound store"),
        pytest.param(_Store("it evicts"), ["toucan_guard store: it evicts"], id="a store that forgets"),
        pytest.param(
            _Store(error="it does not answer"),
            ["toucan_guard store: it does not answer; whatever needs it is refused until it answers"],
            id="a store that is down does not stop the start, nor the end",
        ),
    ],
)
async def test_the_lifespan_looks_at_the_store_and_closes_it(
    store: _Store, logged: list[str], make_settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert [record.getMessage() for record in caplog.records] == logged, "before the app starts"

    monkeypatch.setattr("toucan_guard.stack._CLOSING_SECONDS", 0.01)
    settings = make_settings()
    vars(settings)["store"] = store
    closed = store.closed
    await ToucanGuard(app, settings=settings)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert store.closed == closed + 1


@pytest.mark.anyio
async def test_what_an_app_says_after_the_end_does_not_leave_without_the_guard_s_headers(
    http: Any, make_settings: Any, make_token: Any
) -> None:
    kept: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept.append(send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"rows"})

    headers = {"authorization": f"Bearer {make_token()}"}
    guard = ToucanGuard(app, settings=make_settings())
    for _ in range(3):  # through the layers, and admitted
        answer = await http(guard, headers=headers)
        sent = len(answer.messages)
        with pytest.raises(RuntimeError, match="the connection has ended"):
            await kept.pop()({"type": "http.response.start", "status": 200, "headers": []})
        assert len(answer.messages) == sent
