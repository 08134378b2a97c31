"""Route templates: the whole one, under mounts and routers, and None rather than a guess; never the path."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

from toucan_guard import ToucanGuard
from toucan_guard.templates import RouteTemplates

pytestmark = pytest.mark.anyio


async def chart(request: Any) -> PlainTextResponse:
    return PlainTextResponse("chart")


async def other(request: Any) -> PlainTextResponse:
    return PlainTextResponse("other")


async def socket(connection: Any) -> None:
    await connection.accept()
    await connection.close()


class Endpoint:
    """A callable of the host's own, which cannot be hashed."""

    __hash__ = None  # type: ignore[assignment]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("x")(scope, receive, send)


INNER = [
    Route("/charts/{id:int}", chart),
    Route("/twice/{id}", other),
    Route("/again/{id}", other),
    WebSocketRoute("/live/{id}", socket),
]


def _apps() -> dict[str, tuple[Any, str]]:
    plain = Starlette(routes=INNER)
    mounted = Starlette(routes=[Mount("/embed/{tenant}", app=Starlette(routes=INNER))])
    deep = Starlette(routes=[Mount("/a", routes=[Mount("/b", app=Router(routes=INNER)), Route("/x", chart)])])
    return {"plain": (plain, ""), "mounted": (mounted, "/embed/{tenant}"), "deep": (deep, "/a/b")}


@pytest.mark.parametrize("name", ["plain", "mounted", "deep"])
@pytest.mark.parametrize("placing", ["inside", "outside"])
async def test_the_whole_template_is_recorded(
    name: str, placing: str, http: Any, websocket: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    app, prefix = _apps()[name]
    settings = make_settings(token_carriers=["authorization", "websocket"])
    if placing == "inside":
        app.add_middleware(ToucanGuard, settings=settings)
    else:
        app = ToucanGuard(app, settings=settings)
    headers = {"authorization": f"Bearer {make_token()}"}
    path = prefix.replace("{tenant}", "acme")
    for tail in ("/charts/7", "/twice/7", "/again/7", "/nothing", "/charts/seven"):
        await http(app, path=path + tail, headers=headers)
    await websocket(app, path + "/live/1", {"origin": "https://portal.example", **headers})
    behind = f"{prefix}/{{path:path}}" if prefix else None
    assert [line["route"] for line in audit_lines()] == [
        f"{prefix}/charts/{{id:int}}", f"{prefix}/twice/{{id}}", f"{prefix}/again/{{id}}", behind, behind,
        f"{prefix}/live/{{id}}",
    ]  # fmt: skip


async def test_a_guard_around_some_routes_names_its_own_mount(
    http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    guard = Middleware(ToucanGuard, settings=make_settings())
    app = Starlette(routes=[Mount("/embed", routes=INNER, middleware=[guard]), Route("/charts/{id}", chart)])
    headers = {"authorization": f"Bearer {make_token()}"}
    await http(app, path="/embed/charts/3", headers=headers)
    await http(app, path="/embed/charts/3")
    await http(app, path="/embed/again/3", headers=headers)
    # What is refused has not reached a route of its own, only the mount.
    assert [line["route"] for line in audit_lines()] == [
        "/embed/charts/{id:int}", "/embed/{path:path}", "/embed/again/{id}"
    ]  # fmt: skip


async def test_a_root_path_of_the_server_is_no_part_of_it(
    http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    app = ToucanGuard(Starlette(routes=[Mount("/m", routes=INNER)]), settings=make_settings())
    headers = {"authorization": f"Bearer {make_token()}"}
    await http(app, path="/proxy/m/again/3", headers=headers, root_path="/proxy")
    assert [line["route"] for line in audit_lines()] == ["/m/again/{id}"]


async def test_routers_of_fastapi_are_followed(
    http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    fastapi = pytest.importorskip("fastapi")
    router = fastapi.APIRouter(prefix="/r/{x}")

    @router.get("/y/{z}")
    def endpoint(x: str, z: str) -> str:
        return x + z

    between = fastapi.APIRouter(prefix="/between")
    between.include_router(router)
    inner = fastapi.FastAPI()
    inner.include_router(between, prefix="/api")

    @inner.get("/own/{x}")
    def own(x: str) -> str:
        return x

    app = fastapi.FastAPI()
    app.mount("/sub/{t}", inner)
    app.include_router(router, prefix="/direct")
    guard = ToucanGuard(app, settings=make_settings())
    headers = {"authorization": f"Bearer {make_token()}"}
    for path in ("/sub/1/api/between/r/2/y/3", "/sub/1/own/2", "/direct/r/2/y/3"):
        assert (await http(guard, path=path, headers=headers)).status == 200
    assert [line["route"] for line in audit_lines()] == [
        "/sub/{t}/api/between/r/{x}/y/{z}", "/sub/{t}/own/{x}", "/direct/r/{x}/y/{z}"
    ]  # fmt: skip


def find(app: Any, **scope: Any) -> str | None:
    return RouteTemplates().find({"type": "http", "path": "/", "root_path": "", **scope}, app, "")


def test_where_it_cannot_be_told_there_is_none() -> None:
    twins = Starlette(routes=[Route("/{a}/x", chart), Route("/x/{a}", chart)])
    assert find(twins, endpoint=chart, path_params={"a": "x"}, path="/x/x") is None
    assert find(twins, endpoint=chart, path_params={"a": "y"}, path="/x/y") == "/x/{a}"
    assert find(twins, endpoint=chart, path_params={"b": "y"}, path="/x/y") is None
    assert find(twins, endpoint=other, path_params={}) is None
    assert find(twins) is None
    assert find(Endpoint(), endpoint=chart) is None
    endpoint = Endpoint()
    route = Route("/known/{a}", chart)
    assert find(twins, endpoint=endpoint, path_params={}) is None
    assert find(twins, endpoint=endpoint, path_params={}, route=route) == "/known/{a}"


def test_parameters_of_the_same_name_on_the_way() -> None:
    app = Starlette(routes=[Mount("/t/{id}", routes=[Route("/c/{id}", chart)])])
    assert find(app, endpoint=chart, path_params={"id": "2"}, path="/t/1/c/2") == "/t/{id}/c/{id}"


def test_an_app_that_makes_endpoints_as_it_goes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toucan_guard.templates._MOST_UNKNOWN", 3)
    app = Starlette(routes=[Route("/a", chart)])
    templates = RouteTemplates()
    made = [Endpoint() for _ in range(9)]
    for endpoint in made:
        assert templates.find({"type": "http", "path": "/", "endpoint": endpoint}, app, "") is None
    assert templates.find({"type": "http", "path": "/a", "endpoint": chart}, app, "") == "/a"


def test_a_route_that_is_added_later_is_found() -> None:
    app = Starlette(routes=[Route("/a", chart)])
    templates = RouteTemplates()
    scope = {"type": "http", "path": "/b", "endpoint": other, "path_params": {}}
    assert templates.find(scope, app, "") is None
    assert templates.find({**scope, "endpoint": chart}, app, "") == "/a"
    app.router.routes.append(Route("/late/{x}", socket))
    assert templates.find({**scope, "endpoint": socket, "path_params": {"x": "1"}}, app, "") == "/late/{x}"


def test_hosts_and_middleware_are_looked_through() -> None:
    class Around:
        def __init__(self, app: Any) -> None:
            self.app = app

    app = Starlette(routes=[Host("{who}.example", app=Starlette(routes=[Route("/a/{b}", chart)]))])
    found = find(Around(Around(app)), endpoint=chart, path_params={"who": "x", "b": "1"}, path="/a/1")
    assert found in ("/a/{b}", None)


async def test_an_app_that_does_not_show_its_routes_is_answered_and_recorded(
    http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    class Hidden:
        def __init__(self, app: Any) -> None:
            self.inner = app

        @property
        def routes(self) -> Any:
            raise RuntimeError("outside of its context")

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.inner(scope, receive, send)

    told: list[str | None] = []

    async def telling(request: Any) -> PlainTextResponse:
        told.append(getattr(request.scope.get("route"), "path", None))  # older versions of Starlette do not say
        return await chart(request)

    app = ToucanGuard(Hidden(Starlette(routes=[Route("/x/{id}", telling)])), settings=make_settings())
    for _ in range(2):
        answer = await http(app, path="/x/1", headers={"authorization": f"Bearer {make_token()}"})
        assert answer.body == b"chart"
    assert [line["route"] for line in audit_lines()] == told
