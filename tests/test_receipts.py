"""Receipts: an answer that must come from filtered rows leaves when they were filtered, and not before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from toucan_guard import ConfigError, Deny, Grant, Refused, ToucanGuard
from toucan_guard.core.errors import GuardMissing
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.layers import GrantMiddleware, RowFilterMiddleware, RowLevelSecurityMiddleware
from toucan_guard.receipts import HeldResponse, require_receipts
from toucan_guard.rls.context import RowAccess, current_row_access, require_row_access
from toucan_guard.trail import Trail

pytestmark = pytest.mark.anyio


def ran_on(*tables: str) -> None:
    """What an adapter does."""
    require_row_access().note(tables, "version")


def _streaming(*before_each: tuple[str, ...], size: int = 5) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for tables in before_each:
            ran_on(*tables)
            yield b"x" * size

    return StreamingResponse(parts(), headers={"x-kind": "stream"})


async def _filtered(_: Request) -> Response:
    ran_on("flights", "planes")
    return PlainTextResponse("rows")


async def _other_table(_: Request) -> Response:
    ran_on("airlines")
    return PlainTextResponse("rows")


async def _half(_: Request) -> Response:
    ran_on("flights")
    return PlainTextResponse("rows")


async def _moved(_: Request) -> Response:
    return RedirectResponse("/elsewhere")


async def _not_found(_: Request) -> Response:
    raise HTTPException(404, "no such chart")


async def _closed(_: Request) -> Response:
    raise Refused(Deny("x_closed"))


async def _crash(_: Request) -> Response:
    raise RuntimeError("the app fails")


async def _late(_: Request) -> Response:
    return _streaming((), ("flights",), ("planes",), ())


async def _never(_: Request) -> Response:
    return _streaming((), ("flights",), ())


async def _far_too_late(_: Request) -> Response:
    return _streaming((), (), (), ("flights", "planes"), size=1 << 19)


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _file(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.pathsend", "path": "/etc/hostname"})


def _raw(*messages: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def _start(status: int, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [(b"etag", b'"1"')], **more}


def _part(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


HINT = {"type": "http.response.early_hint", "links": [b"</rows.css>; rel=preload"]}
PUSH = {"type": "http.response.push", "path": "/rows", "headers": []}
FILE = {"type": "http.response.pathsend", "path": "/etc/hostname"}
TRAILERS = {"type": "http.response.trailers", "headers": [(b"x-rows", b"rows")]}
WITHOUT_CONTENT = {
    "204": (_start(204), _part()),
    "304": (_start(304), _part()),
    "204 in parts": (_start(204), _part(more=True), _part(more=True), _part()),
    "a bare part": (_start(304), {"type": "http.response.body"}),
    "hints before": (HINT, PUSH, _start(304), _part()),
    "and more behind": (_start(204), _part(), _part(b"rows"), FILE, TRAILERS),
}
WITH_CONTENT = {
    "204 with content": (_start(204), _part(b"rows")),
    "304 with content in its second part": (_start(304), _part(more=True), _part(b"rows"), _part()),
    "304 with content before its end": (_start(304), _part(b"rows", more=True), _part()),
    "304 with a file": (_start(304), FILE),
    "304 with a file in parts": (_start(304), _part(more=True), FILE),
    "205": (_start(205), _part()),
    "200 without content": (_start(200), _part()),
    "302 without content": (_start(302), _part()),
    "hints and content": (HINT, _start(200), HINT, _part(b"rows", more=True), HINT, _part()),
}

BOTH = {"flights.carrier": "carrier", "planes.carrier": "carrier"}
REQUIRED = Middleware(RowFilterMiddleware, require_row_filter=["planes", "flights"])
ROUTES: dict[str, Any] = {
    "filtered": _filtered,
    "other": _other_table,
    "half": _half,
    "moved": _moved,
    "not-found": _not_found,
    "closed": _closed,
    "crash": _crash,
    "late": _late,
    "never": _never,
    "far-too-late": _far_too_late,
}


def _app() -> Starlette:
    return Starlette(
        routes=[
            *(Route(f"/{name}", endpoint, middleware=[REQUIRED]) for name, endpoint in ROUTES.items()),
            *(Mount(f"/{app.__name__}", app, middleware=[REQUIRED]) for app in (_nothing, _file)),
            Route("/free", _other_table),
        ]
    )


@pytest.fixture
def ask(http: Any, make_settings: Any, make_token: Any) -> Any:
    async def request(app: Any, path: str, **settings: Any) -> Any:
        headers = {"authorization": f"Bearer {make_token()}"}
        guard = ToucanGuard(app, settings=make_settings(**{"rls_columns": BOTH, **settings}))
        return await http(guard, "GET", path, headers)

    return request


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        pytest.param("/filtered", 200, None, id="all receipts are there"),
        pytest.param("/other", 500, "row_filter_missing", id="another table was filtered"),
        pytest.param("/half", 500, "row_filter_missing", id="one of two was filtered"),
        pytest.param("/moved", 500, "row_filter_missing", id="a redirect is an answer too"),
        pytest.param("/late", 200, None, id="a stream asks while it runs"),
        pytest.param("/never", 500, "row_filter_missing", id="a stream never asks for the second table"),
        pytest.param("/far-too-late", 500, "row_filter_missing", id="a stream asks when too much is held"),
        pytest.param("/_file/", 500, "row_filter_missing", id="a file is sent"),
        pytest.param("/_nothing/", 500, "app_failed", id="an answer that never ends"),
        pytest.param("/not-found", 404, None, id="an error is no chart"),
        pytest.param("/closed", 403, "x_closed", id="a refusal stays one"),
        pytest.param("/free", 200, None, id="a route that requires nothing"),
    ],
)
async def test_an_answer_leaves_with_its_receipts_or_not_at_all(
    path: str, status: int, reason: str | None, ask: Any, audit_lines: Any
) -> None:
    answer = await ask(_app(), path)
    (line,) = [line for line in audit_lines() if line["event"] == "decision"]
    assert (answer.status, line["status"], line["reason"]) == (status, status, reason)
    if reason is not None:
        assert answer.reason == reason
        assert b"rows" not in answer.body
        assert b"xxxxx" not in answer.body
        assert answer.header("x-kind") is None
        assert answer.header("cache-control") == "no-store"
    assert len([message for message in answer.messages if message["type"].endswith(".start")]) == 1


async def test_the_record_says_what_was_filtered_and_the_log_what_was_not(
    ask: Any, audit_lines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await ask(_app(), "/half")
    (line,) = audit_lines()
    assert line["outcome"] == "deny"
    assert line["steps"][-1] == {"layer": "row_filter", "decision": "deny:row_filter_missing"}
    assert line["tables"] == {"flights": "version"}
    (message,) = caplog.messages
    # Older Starlettes do not say which of their own routes answers.
    assert message in (
        "/half: no query was filtered on planes",
        "a route without a name: no query was filtered on planes",
    )
    assert b"planes" not in answer.body


async def test_the_log_says_why_a_table_that_is_open_to_all_has_no_receipt(
    http: Any, make_settings: Any, make_token: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[attributes]\ncarrier = "string"\n[tables.planes]\nopen = true\n[tables.flights]\n'
        'all = [{ column = "carrier", op = "eq", attribute = "carrier" }]\n'
    )
    guard = ToucanGuard(_app(), settings=make_settings(rls_columns=None, rls_policy=policy))
    answer = await http(guard, path="/other", headers={"authorization": f"Bearer {make_token()}"})
    assert answer.reason == "row_filter_missing"
    assert caplog.messages[-1].endswith(
        ": no query was filtered on flights, planes "
        "(planes: open to all, so that nothing but PostgreSQL's policies filters)"
    )


async def test_a_stream_that_asks_in_time_leaves_whole_and_in_order(ask: Any, audit_lines: Any) -> None:
    answer = await ask(_app(), "/late")
    assert answer.body == b"x" * 20
    assert answer.header("x-kind") == "stream"
    # The record is written when the first byte leaves, which is when the last receipt is there.
    assert audit_lines()[0]["tables"] == {"flights": "version", "planes": "version"}


@pytest.mark.parametrize("messages", [pytest.param(sent, id=name) for name, sent in WITHOUT_CONTENT.items()])
async def test_an_answer_that_cannot_have_content_leaves_without_receipts(
    messages: Any, ask: Any, audit_lines: Any
) -> None:
    answer = await ask(Mount("/chart", RowFilterMiddleware(_raw(*messages), require_row_filter=["flights"])), "/chart/")
    assert answer.status in {204, 304}
    assert answer.header("etag") == '"1"'
    assert [message for message in answer.messages if message not in messages] == [answer.start]
    assert {message["type"] for message in answer.messages} == {"http.response.start", "http.response.body"}
    assert not answer.messages[-1].get("more_body")
    assert answer.body == b""
    assert [(line["outcome"], line["status"]) for line in audit_lines()] == [("allow", answer.status)]


@pytest.mark.parametrize("messages", [pytest.param(sent, id=name) for name, sent in WITH_CONTENT.items()])
async def test_any_other_answer_does_not(messages: Any, ask: Any) -> None:
    answer = await ask(Mount("/chart", RowFilterMiddleware(_raw(*messages), require_row_filter=["flights"])), "/chart/")
    assert (answer.status, answer.reason) == (500, "row_filter_missing")
    assert answer.header("etag") is None
    assert not {"http.response.early_hint", "http.response.pathsend"} & {message["type"] for message in answer.messages}


@pytest.mark.parametrize("filtered", [False, True])
async def test_hints_leave_where_nothing_is_missing_and_open_nothing(filtered: bool, http: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HINT)  # before the route says what it requires
        require_receipts(scope, frozenset({"flights"}))
        await send(HINT)
        if filtered:
            ran_on("flights")
        await send(HINT)
        for message in (_start(200), _part(b"rows")):
            await send(message)

    scope_trail = Trail()
    scope_trail.access = RowAccess(RowFilter(RlsPolicy.from_columns("flights.carrier=carrier"), {}))
    token = current_row_access.set(scope_trail.access)

    async def held(scope: Any, receive: Any, send: Any) -> None:
        scope["toucan_guard.trail"] = scope_trail
        await app(scope, receive, HeldResponse(scope, receive, send, scope_trail).send)

    answer = await http(held, "GET", "/", {})
    current_row_access.reset(token)
    assert [message["type"] for message in answer.messages].count("http.response.early_hint") == 1 + filtered
    assert answer.status == (200 if filtered else 500)
    assert (b"rows" in answer.body) is filtered


async def test_a_stream_that_says_nothing_for_long_fills_no_memory(http: Any) -> None:
    trail = Trail()
    trail.required_tables = frozenset({"flights"})
    trail.access = RowAccess(RowFilter(RlsPolicy.from_columns("flights.carrier=carrier"), {}))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        held = HeldResponse(scope, receive, send, trail)
        await held.send(_start(200))
        for _ in range(10_000):
            await held.send(_part(more=True))
        assert len(held._held) == 1
        trail.access.note(["flights"], "version")  # type: ignore[union-attr]
        await held.send(_part(b"rows"))

    answer = await http(app, "GET", "/", {})
    assert (answer.status, answer.body) == (200, b"rows")


async def test_a_crash_stays_a_crash(ask: Any, audit_lines: Any) -> None:
    with pytest.raises(RuntimeError):
        await ask(_app(), "/crash")
    assert audit_lines()[-1]["reason"] == "app_failed"


async def test_a_grant_can_require_it_too(http: Any, make_settings: Any, make_token: Any) -> None:
    def requires(*tables: str) -> Middleware:
        return Middleware(GrantMiddleware, type="dashboard", id_param="id", action="view", require_row_filter=tables)

    app = Starlette(
        routes=[
            Route("/a/{id}", _half, middleware=[requires("flights")]),
            Route("/b/{id}", _half, middleware=[requires("planes"), requires("flights")]),
        ]
    )
    guard = ToucanGuard(app, settings=make_settings(rls_columns=BOTH))
    headers = {"authorization": f"Bearer {make_token(grants=[Grant('dashboard', 'delays', ('view',))])}"}
    statuses = [
        (await http(guard, "GET", path, headers)).status for path in ("/a/delays", "/b/delays", "/a/other", "/b/other")
    ]
    assert statuses == [200, 500, 403, 403]


async def test_behind_two_guards_each_holds_for_the_receipts_of_the_inner_one(ask: Any, make_settings: Any) -> None:
    inner = ToucanGuard(_app(), settings=make_settings(rls_columns=BOTH))
    assert (await ask(inner, "/filtered")).status == 200
    assert (await ask(inner, "/other")).status == 500


async def test_a_socket_may_be_accepted_but_says_nothing_unfiltered(
    websocket: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        if socket.path_params["kind"] == "filtered":
            ran_on("planes", "flights")
        await socket.send_text("rows")
        await socket.close()

    app = Starlette(routes=[WebSocketRoute("/live/{kind}", live, middleware=[REQUIRED])])
    guard = ToucanGuard(app, settings=make_settings(rls_columns=BOTH))
    headers = {"origin": "https://portal.example", "authorization": f"Bearer {make_token()}"}
    good = await websocket(guard, "/live/filtered", headers)
    assert [message["type"] for message in good.messages] == ["websocket.accept", "websocket.send", "websocket.close"]
    bad = await websocket(guard, "/live/bare", headers)
    assert [message["type"] for message in bad.messages] == ["websocket.accept", "websocket.close"]
    assert (bad.messages[-1]["code"], bad.messages[-1]["reason"]) == (1008, "row_filter_missing")
    assert [(line["event"], line["outcome"]) for line in audit_lines()] == [
        ("decision", "allow"),
        ("completion", "allow"),
        ("decision", "allow"),
        ("completion", "deny"),
    ]


async def test_without_a_record_a_socket_is_closed_all_the_same(
    websocket: Any, make_settings: Any, make_token: Any
) -> None:
    from toucan_guard.layers import EmbedTokenMiddleware
    from toucan_guard.tokens.cache import CachedVerifier, TokenCache

    async def live(scope: Any, receive: Any, send: Any) -> None:
        for message in ({"type": "websocket.accept"}, {"type": "websocket.send", "text": "a"}) * 2:
            await send(message)

    settings = make_settings()
    layered = EmbedTokenMiddleware(
        RowLevelSecurityMiddleware(RowFilterMiddleware(live, require_row_filter={"flights"}), policy=settings.policy),
        verifier=CachedVerifier(settings.token_policy, settings.key_ring, TokenCache(0)),
        carriers=["authorization"],
    )
    answer = await websocket(layered, "/live", {"authorization": f"Bearer {make_token()}"})
    assert [message["type"] for message in answer.messages] == ["websocket.accept", "websocket.close"]


@pytest.mark.parametrize("where", ["no guard", "rls is off", "exempt"])
async def test_where_nobody_could_hold_the_answer_the_endpoint_does_not_run(where: str, http: Any, ask: Any) -> None:
    asked: dict[str, Any] = {
        "no guard": lambda: http(_app(), "GET", "/filtered"),
        "exempt": lambda: ask(_app(), "/filtered", exempt_paths=["/filtered"]),
        "rls is off": lambda: ask(_app(), "/filtered", insecure_no_rls=True, rls_columns=None),
    }
    with pytest.raises(GuardMissing, match="row-level security"):
        await asked[where]()


@pytest.mark.parametrize("tables", ["flights", b"flights", 5, ["flights", ""], [5], None])
def test_a_mistake_shows_when_the_route_is_made(tables: Any) -> None:
    with pytest.raises(ConfigError, match="require_row_filter takes a list"):
        RowFilterMiddleware(_nothing, require_row_filter=tables)


async def test_lifespan_passes() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    await RowFilterMiddleware(app, require_row_filter=("flights",))({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]
