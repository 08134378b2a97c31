"""The whole guard and its record: a full disk in both modes, recovery, and what a process leaves at its end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toucan_guard import ToucanGuard
from toucan_guard.audit.files import read_lines
from toucan_guard.audit.verify import ChainVerifier

pytestmark = pytest.mark.anyio

DATA = b"the rows of a tenant"


@pytest.fixture
def served() -> list[str]:
    return []


@pytest.fixture
def app(served: list[str]) -> Any:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-rows", DATA)]})
        await send({"type": "http.response.body", "body": DATA, "more_body": True})
        await send({"type": "http.response.body", "body": DATA})

    return answer


@pytest.fixture
def full(tmp_path: Path) -> Callable[[bool], Path]:
    """``full(True)``: the path of the audit file leads to a full disk; ``full(False)``: to a disk with room."""

    def lead(is_full: bool) -> Path:
        path = tmp_path / "link.jsonl"
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/full" if is_full else tmp_path / "audit.jsonl")
        return path

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    return lead


def _events(path: Path) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, path.read_bytes().splitlines()) if event["event"] == "decision"]


def _findings(path: Path) -> Any:
    verifier = ChainVerifier()
    for number, line in enumerate(read_lines(path), 1):
        verifier.feed(line, file=str(path), number=number)
    return verifier.finish().findings


async def test_strict_lets_nothing_leave_that_is_not_recorded(
    app: Any, full: Callable[[bool], Path], http: Any, make_settings: Any, make_token: Any, tmp_path: Path
) -> None:
    guard = ToucanGuard(app, settings=make_settings(audit=str(full(True))))
    headers = {"authorization": f"Bearer {make_token()}"}
    for asked in (headers, {}, {**headers, "origin": "https://evil.example"}):
        answer = await http(guard, headers=asked)
        assert (answer.status, answer.reason) == (503, "audit_unavailable")
        assert answer.header("x-rows") is None
        assert DATA not in answer.body
        assert answer.header("content-security-policy") is not None
    full(False)
    answer = await http(guard, headers=headers)
    assert (answer.status, answer.body) == (200, DATA * 2)
    guard.close()
    (event,) = _events(tmp_path / "audit.jsonl")
    assert event["dropped"] == 3
    assert _findings(tmp_path / "audit.jsonl") == ()


async def test_best_effort_serves_and_says_how_many_are_missing(
    app: Any,
    full: Callable[[bool], Path],
    http: Any,
    make_settings: Any,
    make_token: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = ToucanGuard(app, settings=make_settings(audit=str(full(True)), audit_mode="best_effort"))
    headers = {"authorization": f"Bearer {make_token()}"}
    with caplog.at_level(logging.ERROR, logger="toucan_guard"):
        for _ in range(3):
            answer = await http(guard, headers=headers)
            assert (answer.status, answer.body) == (200, DATA * 2)
        assert (await http(guard)).status == 401
        guard.close()
    assert [record.message for record in caplog.records] == [
        "toucan_guard audit: an audit line could not be written (No space left on device)"
    ] * 4
    full(False)
    assert (await http(guard, headers=headers)).status == 200
    guard.close()
    (event,) = _events(tmp_path / "audit.jsonl")
    assert event["dropped"] == 4
    assert _findings(tmp_path / "audit.jsonl") == ()


async def test_a_full_queue_drops_and_counts(
    app: Any, http: Any, make_settings: Any, make_token: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toucan_guard.audit.queued.QueuedSink._write_all", lambda self, queue: None)
    settings = make_settings(audit_mode="best_effort", audit_queue_size=2)
    guard = ToucanGuard(app, settings=settings)
    headers = {"authorization": f"Bearer {make_token()}"}
    for _ in range(5):
        assert (await http(guard, headers=headers)).status == 200
    monkeypatch.undo()
    queue: Any = guard._sink._queue  # type: ignore[union-attr]
    waiting = [queue.get() for _ in range(2)]
    assert "dropped" not in json.loads(waiting[0])
    assert (await http(guard, headers=headers)).status == 200
    assert json.loads(queue.get())["dropped"] == 3


async def test_a_lifespan_ends_the_chain(
    http: Any, make_settings: Any, make_token: Any, tmp_path: Path, app: Any
) -> None:
    async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)

    guard = ToucanGuard(with_lifespan, settings=make_settings())
    await http(guard, headers={"authorization": f"Bearer {make_token()}"})

    async def nothing(*_: Any) -> Any:
        return {"type": "lifespan.shutdown"}

    await guard({"type": "lifespan"}, nothing, nothing)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_bytes().splitlines()]
    assert [line["event"] for line in lines] == ["open", "decision", "close"]
    assert "version" in lines[0]
    assert len(lines[0]["settings"]) == 16
    assert _findings(tmp_path / "audit.jsonl") == ()
