"""What every test may lean on: a clean environment, settings that work, and a bare ASGI client."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import anyio.lowlevel
import pytest
from hypothesis import settings as examples

from toucan_guard import Grant, GuardSettings
from toucan_guard.testing import TEST_SECRET, sign_token
from toucan_guard.tokens import store as memory

PORTAL = "https://portal.example"
OWN = "https://charts.example"

# Hypothesis tries the same examples every time, however slow the machine is; ``TOUCAN_LONG=1`` draws new ones.
examples.register_profile("new", examples.get_profile("ci"), derandomize=False)
examples.load_profile("new" if os.environ.get("TOUCAN_LONG") else "ci")


@pytest.hookimpl(trylast=True)  # pytest itself has its colours by then
def pytest_configure() -> None:
    """Commands print as on a terminal of 80 columns without colours, wherever the tests run."""
    for name in (
        "COLUMNS", "LINES", "TERMINAL_WIDTH", "FORCE_COLOR", "PY_COLORS", "NO_COLOR", "GITHUB_ACTIONS",
        "TTY_COMPATIBLE", "TTY_INTERACTIVE",
    ):  # fmt: skip
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in list(os.environ):
        if name.upper().startswith("TOUCAN_GUARD_") or name == "WEB_CONCURRENCY":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _a_memory_store_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards of one process that take the same tokens share a store, and so would the tests.
    monkeypatch.setattr(memory, "_shared_stores", WeakValueDictionary())


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The layers run on both event loops."""
    return str(request.param)


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., GuardSettings]:
    """Settings that work, and whatever a test changes about them."""

    def make(**changes: Any) -> GuardSettings:
        given: dict[str, Any] = {
            "allowed_origins": [PORTAL, "https://*.customers.example"],
            "public_origin": [OWN],
            "issuer": "https://host.example",
            "audience": "charts",
            "secret": TEST_SECRET,
            "rls_columns": {"flights.carrier": "carrier"},
            "audit": str(tmp_path / "audit.jsonl"),
            **changes,
        }
        return GuardSettings(**{name: value for name, value in given.items() if value is not None})

    return make


@pytest.fixture
def make_token() -> Callable[..., str]:
    """A token that the settings of ``make_settings`` accept, and whatever a test changes about it."""

    def make(**changes: Any) -> str:
        given: dict[str, Any] = {
            "grants": [Grant("dashboard", "delays", ("view",))],
            "rls": {"carrier": "AA"},
            **changes,
        }
        return sign_token(**given)

    return make


@pytest.fixture
def audit_lines(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """The audit file of ``make_settings``, parsed, but for the lines that begin and end a chain."""

    def read() -> list[dict[str, Any]]:
        path = tmp_path / "audit.jsonl"
        events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [event for event in events if event["event"] not in ("open", "close")]

    return read


@dataclass
class Answer:
    """What an ASGI app sent."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def start(self) -> dict[str, Any]:
        return next(message for message in self.messages if message["type"].endswith("response.start"))

    @property
    def status(self) -> int:
        return int(self.start["status"])

    def values(self, name: str) -> list[str]:
        return [value.decode("latin-1") for key, value in self.start["headers"] if key == name.encode()]

    def header(self, name: str) -> str | None:
        values = self.values(name)
        assert len(values) <= 1, f"{name} occurs {len(values)} times"
        return values[0] if values else None

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages if message["type"].endswith("body"))

    @property
    def problem(self) -> dict[str, Any]:
        assert self.header("content-type") == "application/problem+json", self.body
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def reason(self) -> str:
        return str(self.problem["reason"])


def http_scope(
    method: str = "GET", path: str = "/", headers: Iterable[tuple[str, str]] = (), query: str = "", **more: Any
) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode("latin-1"),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": ("192.0.2.7", 4711),
        "server": ("charts.example", 443),
        "extensions": {},
        **more,
    }


def websocket_scope(
    path: str = "/live", headers: Iterable[tuple[str, str]] = (), subprotocols: Iterable[str] = (), **more: Any
) -> dict[str, Any]:
    offered = list(subprotocols)
    sent = [*headers, *([("sec-websocket-protocol", ", ".join(offered))] if offered else [])]
    scope = http_scope(path=path, headers=sent, **more)
    del scope["method"]
    return {
        **scope,
        "type": "websocket",
        "scheme": "wss",
        "subprotocols": offered,
        "extensions": {"websocket.http.response": {}, **more.get("extensions", {})},
    }


async def drive(app: Any, scope: dict[str, Any], incoming: Iterable[dict[str, Any]] = ()) -> Answer:
    """Run one connection against an ASGI app without any server, and return what it sent."""
    answer = Answer()
    first = {"type": "http.request", "body": b"", "more_body": False}
    queue: Iterator[dict[str, Any]] = iter(
        incoming or ([{"type": "websocket.connect"}] if scope["type"] == "websocket" else [first])
    )

    async def receive() -> dict[str, Any]:
        for message in queue:
            return message
        if scope["type"] == "websocket":
            return {"type": "websocket.disconnect", "code": 1001}
        await anyio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        answer.messages.append(message)

    await app(scope, receive, send)
    return answer


@pytest.fixture
def http() -> Callable[..., Any]:
    """``await http(app, method, path, headers, …)``: one HTTP request, and its answer."""

    async def request(
        app: Any,
        method: str = "GET",
        path: str = "/",
        headers: Any = (),
        *,
        query: str = "",
        body: Any = b"",
        **more: Any,
    ) -> Answer:
        pairs = headers.items() if isinstance(headers, dict) else headers
        parts = [body] if isinstance(body, bytes) else list(body)
        incoming = [
            {"type": "http.request", "body": part, "more_body": number < len(parts)}
            for number, part in enumerate(parts, 1)
        ]
        return await drive(app, http_scope(method, path, pairs, query, **more), incoming)

    return request


@pytest.fixture
def websocket() -> Callable[..., Any]:
    """``await websocket(app, path, headers, …)``: one WebSocket, and what was sent on it."""

    async def connect(app: Any, path: str = "/live", headers: Any = (), **more: Any) -> Answer:
        incoming = more.pop("incoming", ())
        pairs = headers.items() if isinstance(headers, dict) else headers
        return await drive(app, websocket_scope(path, pairs, **more), incoming)

    return connect


@pytest.fixture(scope="session")
def traffic() -> Any:
    """The module ``tests/traffic.py``: a month in the life of a guard, made up."""
    spec = importlib.util.spec_from_file_location("traffic", Path(__file__).with_name("traffic.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
