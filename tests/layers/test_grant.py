"""Grant: the object comes from the path and from nowhere else, and without a guard there is no way in."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from toucan_guard import ConfigError, Grant, ToucanGuard
from toucan_guard.core.errors import GuardMissing
from toucan_guard.layers import GrantMiddleware

pytestmark = pytest.mark.anyio

PORTAL = "https://portal.example"


def _requires(**options: Any) -> Middleware:
    return Middleware(GrantMiddleware, **{"type": "dashboard", "action": "view", **options})


def _app() -> Starlette:
    async def chart(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.embed.subject)

    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return Starlette(
        routes=[
            Route("/d/{id}", chart, methods=["GET", "POST"], middleware=[_requires(id_param="id")]),
            Route("/n/{id:int}", chart, middleware=[_requires(id_param="id")]),
            Route("/p/{id:path}", chart, middleware=[_requires(id_param="id")]),
            Route("/home", chart, middleware=[_requires(id="home")]),
            Route("/wrong", chart, middleware=[_requires(id_param="missing")]),
            WebSocketRoute("/live/{id}", live, middleware=[_requires(id_param="id")]),
            Mount("/m/{id}", routes=[Route("/chart", chart, middleware=[_requires(id_param="id")])]),
        ]
    )


VIEW = Grant("dashboard", "delays", ("view",))


@pytest.mark.parametrize(
    ("path", "grants", "status"),
    [
        pytest.param("/d/delays", [VIEW], 200, id="the grant names the object"),
        pytest.param("/d/routes", [VIEW], 403, id="the grant names another object"),
        pytest.param("/d/Delays", [VIEW], 403, id="another case is another object"),
        pytest.param("/d/delays ", [VIEW], 403, id="a space makes another object"),
        pytest.param("/d/delays", [Grant("chart", "delays", ("view",))], 403, id="a grant on another type"),
        pytest.param("/d/delays", [Grant("dashboard", "delays", ("export",))], 403, id="a grant for another action"),
        pytest.param("/d/delays", [], 403, id="no grant at all"),
        pytest.param("/d/*", [VIEW], 403, id="an asterisk in the path is no wildcard"),
        pytest.param("/d/routes", [Grant("dashboard", "*", ("view",))], 200, id="an asterisk in the grant is one"),
        pytest.param(
            "/d/routes",
            [Grant("dashboard", "routes", ("edit",)), Grant("dashboard", "routes", ("view",))],
            200,
            id="the second grant reaches",
        ),
        pytest.param("/n/7", [Grant("dashboard", "7", ("view",))], 200, id="a number in the path is its text"),
        pytest.param(
            "/n/007", [Grant("dashboard", "7", ("view",))], 200, id="the converted number counts, as in the app"
        ),
        pytest.param("/p/a/b", [Grant("dashboard", "a/b", ("view",))], 200, id="a path of several segments"),
        pytest.param("/p/a/../b", [Grant("dashboard", "b", ("view",))], 403, id="dots are not resolved"),
        pytest.param("/home", [Grant("dashboard", "home", ("view",))], 200, id="a route that serves one object"),
        pytest.param("/home", [VIEW], 403, id="a route that serves one other object"),
        pytest.param("/m/delays/chart", [VIEW], 200, id="the id stands in the mount's path"),
        pytest.param("/m/routes/chart", [VIEW], 403, id="another id stands in the mount's path"),
    ],
)
async def test_a_grant_is_needed(
    path: str, grants: list[Grant], status: int, http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    guard = ToucanGuard(_app(), settings=make_settings())
    answer = await http(guard, path=path, headers={"authorization": f"Bearer {make_token(grants=grants)}"})
    assert answer.status == status
    if status == 403:
        assert answer.reason == "grant_missing"
        assert path.removeprefix("/d/") not in answer.problem["detail"]
    expected = ("deny", "grant_missing") if status == 403 else ("allow", None)
    assert [(line["outcome"], line["reason"]) for line in audit_lines()] == [expected]


async def test_query_and_body_do_not_decide_what_is_asked_for(http: Any, make_settings: Any, make_token: Any) -> None:
    guard = ToucanGuard(_app(), settings=make_settings())
    headers = {"authorization": f"Bearer {make_token(grants=[VIEW])}", "id": "delays", "x-id": "delays"}
    assert (await http(guard, path="/d/routes", headers=headers, query="id=delays")).reason == "grant_missing"
    assert (await http(guard, path="/d/delays", headers=headers, query="id=routes")).status == 200


async def test_a_socket_needs_it_too(websocket: Any, make_settings: Any, make_token: Any) -> None:
    guard = ToucanGuard(_app(), settings=make_settings())
    headers = {"authorization": f"Bearer {make_token(grants=[VIEW])}", "origin": PORTAL}
    assert (await websocket(guard, "/live/delays", headers)).messages[0]["type"] == "websocket.accept"
    assert (await websocket(guard, "/live/routes", headers)).reason == "grant_missing"


async def test_report_only_records_and_lets_pass(
    http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    guard = ToucanGuard(_app(), settings=make_settings(report_only=["grant"]))
    answer = await http(guard, path="/d/routes", headers={"authorization": f"Bearer {make_token()}"})
    assert answer.status == 200
    assert [(line["outcome"], line["reason"]) for line in audit_lines()] == [("would_deny", "grant_missing")]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        pytest.param("/d/delays", "no guard stands in front", id="no guard"),
        pytest.param("/exempt", "exempt", id="the path is exempt"),
        pytest.param("/wrong", "path parameter", id="the route has no such parameter"),
    ],
)
async def test_a_mistake_of_the_hosts_is_an_error_and_no_way_in(
    path: str, why: str, http: Any, make_settings: Any, make_token: Any
) -> None:
    app: Any = _app()
    if path == "/exempt":
        path = "/d/delays"
        app = ToucanGuard(app, settings=make_settings(exempt_paths=[path]))
    elif path == "/wrong":
        app = ToucanGuard(app, settings=make_settings())
    with pytest.raises(GuardMissing, match=why):
        await http(app, path=path, headers={"authorization": f"Bearer {make_token()}"})


async def test_a_forged_state_does_not_stand_in_for_the_guard(http: Any) -> None:
    with pytest.raises(GuardMissing):
        await http(_app(), path="/d/delays", state={"embed": object()}, headers={"x-embed-subject": "user-1"})


@pytest.mark.parametrize("options", [{}, {"id": "a", "id_param": "b"}], ids=["neither", "both"])
async def test_either_the_object_or_its_parameter_is_named(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="either id_param or id"):
        GrantMiddleware(_app(), type="dashboard", action="view", **options)


async def test_a_layer_says_what_it_asks_for() -> None:
    app = _app()
    assert GrantMiddleware(app, type="dashboard", action="view", id_param="id").describes == "dashboard:{id}:view"
    assert GrantMiddleware(app, type="dashboard", action="view", id="home").describes == "dashboard:home:view"


async def test_other_scopes_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    layer = GrantMiddleware(app, type="dashboard", action="view", id="home")
    await layer({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]
