"""FastAPI: the embed as a dependency, grants at the endpoint, and a clear error where no guard stands in front."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.responses import Response

from toucan_guard import Embed, Grant, Refused, ToucanGuard
from toucan_guard.core.errors import GuardMissing
from toucan_guard.fastapi import CurrentEmbed, require_grant

pytestmark = pytest.mark.anyio

PORTAL = "https://portal.example"
VIEW = Annotated[Embed, Depends(require_grant("dashboard", "dashboard_id", action="view"))]


def _app() -> FastAPI:
    app = FastAPI()

    @app.get("/me")
    async def me(embed: CurrentEmbed) -> dict[str, Any]:
        return {"subject": embed.subject, "tenant": embed.tenant, "embedder": embed.embedder}

    @app.get("/me-sync")
    def me_sync(embed: CurrentEmbed) -> str:
        assert embed.rls is not None
        return ",".join(embed.rls.attribute_names)

    @app.get("/dashboards/{dashboard_id}")
    async def dashboard(dashboard_id: str, embed: VIEW) -> str:
        return embed.subject

    @app.get("/sync/{dashboard_id}")
    def dashboard_sync(dashboard_id: str, embed: VIEW) -> str:
        return embed.subject

    @app.get("/numbers/{dashboard_id}")
    def numbered(dashboard_id: int, embed: VIEW) -> int:
        return dashboard_id

    @app.get("/home", dependencies=[Depends(require_grant("dashboard", id="home", action="view"))])
    def home() -> str:
        return "home"

    @app.get("/wrong/{id}")
    def wrong(embed: VIEW) -> str:
        return "never"

    @app.get("/open")
    def open_() -> str:
        return "open"

    @app.websocket("/live/{dashboard_id}")
    async def live(websocket: WebSocket, dashboard_id: str, embed: VIEW) -> None:
        await websocket.accept()
        await websocket.send_text(embed.subject)
        await websocket.close()

    @app.websocket("/live")
    async def live_me(websocket: WebSocket, embed: CurrentEmbed) -> None:
        await websocket.accept()
        await websocket.close()

    router = APIRouter(prefix="/team", dependencies=[Depends(require_grant("team", "team_id", action="read"))])

    @router.get("/{team_id}/chart")
    def team_chart(team_id: str) -> str:
        return team_id

    app.include_router(router)
    return app


@pytest.fixture
def bearer(make_token: Any) -> Any:
    return lambda **claims: {"authorization": f"Bearer {make_token(**claims)}"}


@pytest.fixture
def guard(make_settings: Any) -> ToucanGuard:
    return ToucanGuard(_app(), settings=make_settings())


async def test_the_current_embed(guard: Any, http: Any, bearer: Any) -> None:
    answer = await http(guard, path="/me", headers={**bearer(), "origin": PORTAL})
    assert answer.body == b'{"subject":"user-1","tenant":"acme","embedder":"https://portal.example"}'
    assert (await http(guard, path="/me-sync", headers=bearer())).body == b'"carrier"'


@pytest.mark.parametrize(
    ("path", "grants", "status"),
    [
        pytest.param("/dashboards/delays", None, 200, id="an async endpoint"),
        pytest.param("/dashboards/routes", None, 403, id="an async endpoint, another object"),
        pytest.param("/sync/delays", None, 200, id="a sync endpoint"),
        pytest.param("/sync/routes", None, 403, id="a sync endpoint, another object"),
        pytest.param(
            "/numbers/7", [Grant("dashboard", "7", ("view",))], 200, id="an id that the endpoint reads as a number"
        ),
        pytest.param(
            "/numbers/007",
            [Grant("dashboard", "7", ("view",))],
            403,
            id="what stands in the path counts, not what it is read as",
        ),
        pytest.param("/home", [Grant("dashboard", "home", ("view",))], 200, id="one object"),
        pytest.param("/home", None, 403, id="one other object"),
        pytest.param("/team/red/chart", [Grant("team", "red", ("read",))], 200, id="a router's dependency"),
        pytest.param(
            "/team/blue/chart", [Grant("team", "red", ("read",))], 403, id="a router's dependency, another object"
        ),
        pytest.param("/dashboards/delays", [Grant("dashboard", "delays", ("export",))], 403, id="another action"),
    ],
)
async def test_a_grant_is_needed(
    path: str, grants: Any, status: int, guard: Any, http: Any, bearer: Any, audit_lines: Any
) -> None:
    answer = await http(guard, path=path, headers=bearer(**({} if grants is None else {"grants": grants})))
    assert answer.status == status
    if status == 403:
        assert answer.reason == "grant_missing"
        assert answer.header("content-security-policy") == "frame-ancestors 'none'"
    line = audit_lines()[0]
    assert line["reason"] == (None if status == 200 else "grant_missing")
    assert line["route"] is not None
    assert "{" in line["route"] or path == "/home"


async def test_a_grant_is_needed_for_a_socket(guard: Any, websocket: Any, bearer: Any) -> None:
    headers = {**bearer(), "origin": PORTAL}
    accepted = await websocket(guard, "/live/delays", headers)
    assert [message["type"] for message in accepted.messages] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    assert (await websocket(guard, "/live/routes", headers)).reason == "grant_missing"
    assert (await websocket(guard, "/live", headers)).messages[0]["type"] == "websocket.accept"


@pytest.mark.parametrize("path", ["/me", "/me-sync", "/dashboards/delays", "/home"])
async def test_without_a_guard_it_is_a_clear_500_and_no_way_in(path: str, http: Any, bearer: Any) -> None:
    messages: list[Any] = []
    app = _app()

    async def server(scope: Any, receive: Any, send: Any) -> None:
        async def keep(message: Any) -> None:
            messages.append(message)

        await app({**scope, "state": {"embed": object()}}, receive, keep)

    with pytest.raises(GuardMissing, match=r"no guard stands in front: mount ToucanGuard"):
        await http(server, path=path, headers=bearer())
    assert messages[0]["status"] == 500
    assert messages[1]["body"] == b"Internal Server Error"
    assert (await http(app, path="/open")).status == 200


async def test_without_a_guard_a_socket_is_not_accepted(websocket: Any, bearer: Any) -> None:
    for path in ("/live/delays", "/live"):
        with pytest.raises(GuardMissing):
            await websocket(_app(), path, bearer())


async def test_an_exempt_path_has_no_embed(http: Any, make_settings: Any, bearer: Any) -> None:
    guard = ToucanGuard(_app(), settings=make_settings(exempt_paths=["/me", "/open"]))
    with pytest.raises(GuardMissing, match="exempt"):
        await http(guard, path="/me", headers=bearer())
    assert (await http(guard, path="/open")).status == 200


async def test_a_route_without_the_parameter_is_an_error(guard: Any, http: Any, bearer: Any) -> None:
    with pytest.raises(GuardMissing, match="dashboard_id"):
        await http(guard, path="/wrong/delays", headers=bearer(grants=[Grant("dashboard", "*", ("view",))]))


@pytest.mark.parametrize("options", [{}, {"id_param": "a", "id": "b"}], ids=["neither", "both"])
async def test_either_the_object_or_its_parameter_is_named(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either id_param or id"):
        require_grant("dashboard", action="view", **options)


async def test_a_dependency_says_what_it_asks_for() -> None:
    asked: Any = require_grant("dashboard", "dashboard_id", action="view")
    assert asked.describes_grant == "dashboard:{dashboard_id}:view"


async def test_an_endpoint_can_check_more_grants_itself(http: Any, make_settings: Any, bearer: Any) -> None:
    app = FastAPI()

    @app.get("/export/{dashboard_id}")
    def export(embed: VIEW, dashboard_id: str) -> str:
        from toucan_guard.core.grants import reaches

        decision = reaches(embed.grants, "dashboard", dashboard_id, "export")
        raise Refused(decision)  # type: ignore[arg-type]

    guard = ToucanGuard(app, settings=make_settings())
    assert (await http(guard, path="/export/delays", headers=bearer())).reason == "grant_missing"


async def test_the_security_scheme_is_in_the_schema(http: Any) -> None:
    schema = _app().openapi()
    assert schema["components"]["securitySchemes"] == {
        "EmbedToken": {
            "type": "http",
            "description": "A short-lived embed token, signed by the host's own backend.",
            "scheme": "bearer",
            "bearerFormat": "JWT",
        }
    }
    for path in ("/me", "/me-sync", "/dashboards/{dashboard_id}", "/home", "/team/{team_id}/chart"):
        assert schema["paths"][path]["get"]["security"] == [{"EmbedToken": []}], path
    assert "security" not in schema["paths"]["/open"]["get"]
    assert [item["name"] for item in schema["paths"]["/dashboards/{dashboard_id}"]["get"]["parameters"]] == [
        "dashboard_id"
    ]


async def test_docs_behind_the_guard_are_protected_unless_exempt(http: Any, make_settings: Any) -> None:
    closed = ToucanGuard(_app(), settings=make_settings())
    assert (await http(closed, path="/openapi.json")).reason == "token_missing"
    exempt = ToucanGuard(_app(), settings=make_settings(exempt_paths=["/openapi.json", "/docs"]))
    assert b'"EmbedToken"' in (await http(exempt, path="/openapi.json")).body
    assert b"openapi.json" in (await http(exempt, path="/docs")).body


async def test_the_dependency_can_be_overridden_in_a_users_tests(http: Any) -> None:
    from toucan_guard.fastapi import _current_embed

    app = _app()
    app.dependency_overrides[_current_embed] = lambda: Embed("u", "t", (), None, "i", "j", 0.0)
    assert (await http(app, path="/me")).status == 200


async def test_the_app_cannot_swap_the_embed_that_grants_are_read_from(
    http: Any, make_settings: Any, bearer: Any
) -> None:
    """``request.state`` is a view: what the host writes there opens nothing."""
    inner = _app()

    async def forging(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["embed"] = Embed("root", "t", (Grant("dashboard", "*", ("view",)),), None, "i", "j", 0.0)
        await inner(scope, receive, send)

    guard = ToucanGuard(forging, settings=make_settings())
    assert (await http(guard, path="/dashboards/routes", headers=bearer())).reason == "grant_missing"


async def test_a_response_of_the_endpoints_own_is_left_alone(http: Any, make_settings: Any, bearer: Any) -> None:
    app = FastAPI()

    @app.get("/c/{dashboard_id}")
    def chart(embed: VIEW) -> Response:
        return Response("<svg/>", media_type="image/svg+xml", headers={"cache-control": "private, max-age=60"})

    answer = await http(ToucanGuard(app, settings=make_settings()), path="/c/delays", headers=bearer())
    assert (answer.body, answer.header("cache-control")) == (b"<svg/>", "private, max-age=60")
