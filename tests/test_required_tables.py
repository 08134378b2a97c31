"""A table that the policy does not know stops the start; what shows later is refused, with words in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from unittest.mock import AsyncMock

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

from toucan_guard import ConfigError, Embed, Grant, GuardSettings, ToucanGuard
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.fastapi import require_grant, require_row_filter
from toucan_guard.layers import EmbedTokenMiddleware, GrantMiddleware, RowFilterMiddleware, RowLevelSecurityMiddleware
from toucan_guard.lifespan import guard_lifespan
from toucan_guard.receipts import require_receipts
from toucan_guard.required_tables import check_required_tables
from toucan_guard.rls.context import require_row_access

pytestmark = pytest.mark.anyio

PROBLEM = (
    "{} requires a row filter on the table 'fligths', which the policy does not name (did you mean flights?): "
    "write it as the policy does, or add its rules to TOUCAN_GUARD_RLS_POLICY or TOUCAN_GUARD_RLS_COLUMNS"
)
MISTYPED = Middleware(RowFilterMiddleware, require_row_filter=["flights", "fligths"])
KNOWN = Middleware(RowFilterMiddleware, require_row_filter=["flights"])
Make = Callable[[GuardSettings], Any]


async def page(request: Any) -> PlainTextResponse:
    return PlainTextResponse("rows")


def guard(settings: GuardSettings) -> Middleware:
    return Middleware(ToucanGuard, settings=settings)


def a_route_s_layer(settings: GuardSettings) -> Any:
    return Starlette(routes=[Route("/x", page, middleware=[MISTYPED])], middleware=[guard(settings)])


def wrapped_from_outside(settings: GuardSettings) -> Any:
    return ToucanGuard(Starlette(routes=[Route("/x", page, middleware=[MISTYPED])]), settings=settings)


def a_socket(settings: GuardSettings) -> Any:
    return ToucanGuard(Router([WebSocketRoute("/x", page, middleware=[MISTYPED])]), settings=settings)


def a_grant_s_layer(settings: GuardSettings) -> Any:
    asks = Middleware(GrantMiddleware, type="chart", id="x", action="view", require_row_filter=("fligths",))
    return Starlette(routes=[Route("/x", page, middleware=[asks])], middleware=[guard(settings)])


def a_layer_around_the_whole_app(settings: GuardSettings) -> Any:
    return Starlette(routes=[Route("/x", page)], middleware=[guard(settings), MISTYPED])


def a_layer_around_a_mount(settings: GuardSettings) -> Any:
    return ToucanGuard(Router([Mount("/x", app=page, middleware=[MISTYPED])]), settings=settings)


def a_host(settings: GuardSettings) -> Any:
    at_host = Host("a.example", Router([Route("/x", page, middleware=[MISTYPED])]))
    return ToucanGuard(Router([at_host]), settings=settings)


def a_function_between(settings: GuardSettings) -> Any:
    def hiding(app: Any) -> Any:
        async def hidden(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)

        return hidden

    return Starlette(
        routes=[Route("/x", page, middleware=[MISTYPED])], middleware=[guard(settings), Middleware(hiding)]
    )


def a_dependency(settings: GuardSettings) -> Any:
    app = FastAPI(openapi_url=None)

    @app.get("/x")
    def chart(embed: Annotated[Embed, Depends(require_row_filter("fligths"))]) -> None: ...

    app.add_middleware(ToucanGuard, settings=settings)
    return app


Rows = Annotated[Embed, Depends(require_grant("a", id="x", action="b", require_row_filter=["fligths"]))]


def _viewer(rows: Rows) -> str:
    return rows.subject


def a_dependency_of_a_dependency(settings: GuardSettings) -> Any:
    app = FastAPI(openapi_url=None)

    @app.get("/x")
    def chart(viewer: Annotated[str, Depends(_viewer)]) -> None: ...

    app.add_middleware(ToucanGuard, settings=settings)
    return app


def a_router_of_a_router(settings: GuardSettings) -> Any:
    inner, outer, app = APIRouter(), APIRouter(), FastAPI(openapi_url=None)

    @inner.websocket("/x")
    async def live(socket: WebSocket) -> None: ...

    outer.include_router(inner)
    app.include_router(outer, dependencies=[Depends(require_row_filter("flights", "fligths"))])
    app.add_middleware(ToucanGuard, settings=settings)
    return app


def a_router_s_own_layers(settings: GuardSettings) -> Any:
    return Router([Route("/x", page, middleware=[MISTYPED])], middleware=[guard(settings)])


WHOLE: list[tuple[Make, str]] = [
    (a_router_s_own_layers, "/x"),
    (a_route_s_layer, "/x"),
    (wrapped_from_outside, "/x"),
    (a_socket, "/x"),
    (a_grant_s_layer, "/x"),
    (a_layer_around_the_whole_app, "/x"),
    (a_layer_around_a_mount, "/x/…"),
    (a_host, "a.example/x"),
    (a_function_between, "/x"),
    (a_dependency, "/x"),
    (a_dependency_of_a_dependency, "/x"),
    (a_router_of_a_router, "/x"),
]


async def start(app: Any) -> list[dict[str, Any]]:
    """What a server hears when it starts an app, and ends it."""
    heard: list[dict[str, Any]] = []
    says = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, Any]:
        return {"type": next(says)}

    async def send(message: Any) -> None:
        heard.append(message)

    try:
        await app({"type": "lifespan", "state": {}}, receive, send)
    except ConfigError as error:
        heard.append({"type": "raised", "problems": error.problems})
    return heard


@pytest.mark.parametrize(("make", "path"), WHOLE, ids=[make.__name__.replace("_", " ") for make, _ in WHOLE])
async def test_a_mistyped_table_stops_the_start(make: Make, path: str, make_settings: Any) -> None:
    failed, raised = await start(make(make_settings()))
    assert failed["type"] == "lifespan.startup.failed"
    assert PROBLEM.format(path) in failed["message"]
    assert raised == {"type": "raised", "problems": (PROBLEM.format(path),)}


@pytest.mark.parametrize(("make", "path"), WHOLE, ids=[make.__name__.replace("_", " ") for make, _ in WHOLE])
async def test_a_table_that_the_policy_knows_does_not(make: Make, path: str, make_settings: Any) -> None:
    both = {"flights.carrier": "carrier", "fligths.carrier": "carrier"}
    heard = await start(make(make_settings(rls_columns=both)))
    assert [message["type"] for message in heard] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_nothing_is_started_then(make_settings: Any) -> None:
    started: list[str] = []

    async def fetch(url: str) -> bytes:
        started.append(url)
        return b""

    settings = make_settings(secret=None, jwks_url="https://host.example/jwks")
    await start(
        ToucanGuard(Starlette(routes=[Route("/x", page, middleware=[MISTYPED])]), settings=settings, fetch_keys=fetch)
    )
    with pytest.raises(ConfigError, match="fligths"):
        await ToucanGuard(RowFilterMiddleware(page, require_row_filter=["fligths"]), settings=settings).start()
    assert started == []


def in_a_mount(settings: GuardSettings) -> Any:
    return Mount("/embed", routes=[Route("/x", page, middleware=[MISTYPED])], middleware=[guard(settings)])


def around_a_route(settings: GuardSettings) -> Any:
    return Route("/embed/x", page, middleware=[guard(settings), MISTYPED])


def in_an_app_that_is_mounted(settings: GuardSettings) -> Any:
    return Mount("/embed", app=a_route_s_layer(settings))


def around_an_app_that_is_mounted(settings: GuardSettings) -> Any:
    return Mount("/embed", routes=[Mount("/", app=wrapped_from_outside(settings))])


SOME: list[Make] = [in_a_mount, around_a_route, in_an_app_that_is_mounted, around_an_app_that_is_mounted]


@pytest.mark.parametrize("make", SOME, ids=[make.__name__.replace("_", " ") for make in SOME])
async def test_around_some_routes_the_apps_lifespan_tells_all_of_them(make: Make, make_settings: Any) -> None:
    other = Route(
        "/y", page, middleware=[guard(make_settings()), Middleware(RowFilterMiddleware, require_row_filter=["z"])]
    )
    app = Starlette(routes=[make(make_settings()), other], lifespan=guard_lifespan)
    failed, raised = await start(app)
    assert failed["type"] == "lifespan.startup.failed"
    first, second = raised["problems"]
    assert first == PROBLEM.format("/embed/x")
    assert second.startswith("/y requires a row filter on the table 'z', which the policy does not name: write")


async def test_each_endpoint_is_judged_by_the_policy_that_judges_its_rows(make_settings: Any) -> None:
    other = make_settings(rls_columns={"fligths.carrier": "carrier"})
    inner = [
        Mount("/a", routes=[Route("/x", page, middleware=[MISTYPED])], middleware=[guard(other)]),
        Mount("/b", app=ToucanGuard(Router([Route("/x", page, middleware=[KNOWN])]), settings=other)),
        Mount("/c", app=Starlette(routes=[Route("/x", page, middleware=[KNOWN])], middleware=[guard(other)])),
        # A guard that has no policy of its own leaves the rows to the one in front.
        Mount(
            "/d",
            app=Starlette(
                routes=[Route("/x", page, middleware=[MISTYPED])],
                middleware=[guard(make_settings(rls_columns=None, insecure_no_rls=True))],
            ),
        ),
    ]
    with pytest.raises(ConfigError) as raised:
        check_required_tables(ToucanGuard(Starlette(routes=inner), settings=make_settings()))
    assert [(problem.split()[0], problem.split("'")[1]) for problem in raised.value.problems] == [
        ("/a/x", "flights"),
        ("/b/x", "flights"),
        ("/c/x", "flights"),
        ("/d/x", "fligths"),
    ]


async def test_layers_alone_are_looked_at_as_well(make_settings: Any) -> None:
    policy = RlsPolicy.from_columns("flights.carrier=carrier")
    routes = [Route("/x", page, middleware=[MISTYPED])]
    for app in (
        RowLevelSecurityMiddleware(Router(routes), policy=policy),
        Starlette(routes=routes, middleware=[Middleware(RowLevelSecurityMiddleware, policy=policy)]),
    ):
        with pytest.raises(ConfigError, match="/x requires a row filter on the table 'fligths'"):
            check_required_tables(app)


async def test_where_row_level_security_is_switched_off_nothing_could_be_required(make_settings: Any) -> None:
    settings = make_settings(rls_columns=None, insecure_no_rls=True)
    problem = (
        "/x requires a row filter on flights, fligths, but no row-level security stands in front of it: "
        "give the guard a policy (TOUCAN_GUARD_INSECURE_NO_RLS switches it off), or require nothing"
    )
    for app in (wrapped_from_outside(settings), a_route_s_layer(settings)):
        failed, raised = await start(app)
        assert (failed["type"], raised["problems"]) == ("lifespan.startup.failed", (problem,))


def foreign_app() -> Any:
    """An app whose routes lead back to it, behind one that calls a method of its own ``routes``."""

    class Looping:
        def __init__(self) -> None:
            self.app = self
            self.routes = [self] * 30
            self.path = "/x"

    class Foreign:
        def __init__(self) -> None:
            self.app = Looping()

        def routes(self) -> list[str]:
            return []

    return Starlette(routes=[Mount("/a", app=Foreign()), Mount("/b", app=Looping())])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda settings: Router([Route("/x", page, middleware=[MISTYPED])]), id="a guard further out"),
        pytest.param(
            lambda settings: Starlette(routes=[Route("/x", page)], middleware=[MISTYPED]), id="or a whole app"
        ),
        pytest.param(lambda settings: ToucanGuard(page, settings=settings), id="no routes at all"),
        pytest.param(lambda settings: ToucanGuard(Starlette(), settings=settings), id="no route yet"),
        pytest.param(
            lambda settings: Starlette(
                routes=[Route("/x", page)], middleware=[Middleware(RowFilterMiddleware, require_row_filter="flights")]
            ),
            id="what fails when it is made",
        ),
        pytest.param(
            lambda settings: Starlette(
                routes=[Route("/x", page, middleware=[MISTYPED])], middleware=[Middleware(ToucanGuard, settings=None)]
            ),
            id="a guard that will read the environment",
        ),
        pytest.param(
            lambda settings: Starlette(
                routes=[Route("/x", page, middleware=[MISTYPED])],
                middleware=[Middleware(lambda app, settings: app, settings={"policy": "of the host's own"})],
            ),
            id="a layer of the host's own that has settings too",
        ),
        pytest.param(lambda settings: ToucanGuard(foreign_app(), settings=settings), id="another framework's app"),
        pytest.param(lambda settings: ToucanGuard(AsyncMock(), settings=settings), id="what has every attribute"),
        pytest.param(lambda settings: None, id="nothing"),
    ],
)
async def test_what_cannot_be_known_stops_nothing(make: Any, make_settings: Any) -> None:
    check_required_tables(make(make_settings()))


class BuiltAtItsStart:
    """An app of the host's own, of which nothing can be said before it has started."""

    def __init__(self, app: Any) -> None:
        self.built: Any = None
        self.to_build = app

    def __getattr__(self, name: str) -> Any:
        if self.built is None:
            raise RuntimeError(f"{name}: not built yet")
        return getattr(self.built, name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            self.built = self.to_build
        await self.built(scope, receive, send)


@pytest.mark.parametrize("lies", ["bare", "in a mount", "behind the lifespan of the app around it"])
async def test_an_app_that_is_built_at_its_start_is_started(
    lies: str, make_settings: Any, make_token: Any, http: Any, audit_lines: Any
) -> None:
    built = BuiltAtItsStart(Starlette(routes=[Route("/x", page)]))
    mounted = Mount("/", app=built, middleware=[guard(make_settings())])
    app: Any = {
        "bare": ToucanGuard(built, settings=make_settings()),
        "in a mount": ToucanGuard(Starlette(routes=[Mount("/", app=built)]), settings=make_settings()),
        "behind the lifespan of the app around it": Starlette(routes=[mounted], lifespan=guard_lifespan),
    }[lies]
    heard = await start(app)
    assert [message["type"] for message in heard] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    built.built = built.to_build  # Starlette starts no app that is mounted
    assert (await http(app, path="/x", headers={"authorization": f"Bearer {make_token()}"})).status == 200
    assert audit_lines()[0]["route"] == "/x"


def by_a_layer(ran: list[str]) -> Any:
    return Route("/chart/{id}", page, middleware=[MISTYPED])


def by_a_grant(ran: list[str]) -> Any:
    asks = Middleware(GrantMiddleware, type="dashboard", id="delays", action="view", require_row_filter=("fligths",))
    return Route("/chart/{id}", page, middleware=[asks])


def as_it_goes(ran: list[str]) -> Any:
    async def chart(request: Any) -> PlainTextResponse:
        require_receipts(request.scope, frozenset(["flights", "fligths"]))
        ran.append("further")
        return PlainTextResponse("rows")

    return Route("/chart/{id}", chart)


LATE = [by_a_layer, by_a_grant, as_it_goes]


@pytest.mark.parametrize("late", LATE, ids=[late.__name__.replace("_", " ") for late in LATE])
async def test_what_shows_later_is_refused_and_the_log_names_the_mend(
    late: Any, http: Any, make_settings: Any, make_token: Any, audit_lines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []
    app = Starlette()
    app.add_middleware(ToucanGuard, settings=make_settings())
    assert next(iter(await start(app)))["type"] == "lifespan.startup.complete"
    app.router.routes.append(late(ran))
    headers = {"authorization": f"Bearer {make_token(grants=[Grant('dashboard', 'delays', ('view',))])}"}
    for _ in range(3):
        answer = await http(app, path="/chart/1", headers=headers)
        assert (answer.status, answer.reason) == (500, "row_filter_missing")
        assert b"fligths" not in answer.body
    assert ran == []
    lines = audit_lines()
    assert [(line["outcome"], line["reason"], line["status"]) for line in lines] == [
        ("deny", "row_filter_missing", 500)
    ] * 3
    assert lines[0]["steps"][-1] == {"layer": "row_filter", "decision": "deny:row_filter_missing"}
    # Older Starlettes do not say which of their own routes answers.
    assert caplog.messages[0] in (PROBLEM.format("/chart/{id}"), PROBLEM.format("a route without a name"))


async def test_a_dependency_that_asks_late_is_refused_as_well(
    http: Any, websocket: Any, make_settings: Any, make_token: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()

    @app.get("/x")
    def chart(embed: Annotated[Embed, Depends(require_row_filter("fligths"))]) -> str:
        raise AssertionError("the endpoint runs")

    @app.websocket("/live")
    async def live(socket: WebSocket, embed: Annotated[Embed, Depends(require_row_filter("fligths"))]) -> None:
        raise AssertionError("the endpoint runs")

    guarded = ToucanGuard(app, settings=make_settings())  # whose server knows no lifespan
    headers = {"authorization": f"Bearer {make_token()}", "origin": "https://portal.example"}
    assert (await http(guarded, path="/x", headers=headers)).reason == "row_filter_missing"
    answer = await websocket(guarded, path="/live", headers=headers)
    assert (answer.messages[0]["type"], answer.status) == ("websocket.http.response.start", 500)
    assert caplog.messages == [PROBLEM.format("/x"), PROBLEM.format("/live")]


async def test_layers_without_a_record_refuse_it_themselves(http: Any, make_settings: Any, make_token: Any) -> None:
    from toucan_guard.tokens.cache import CachedVerifier, TokenCache

    settings = make_settings()

    async def answered(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(f"{require_row_access()}")(scope, receive, send)

    for layer in (
        RowFilterMiddleware(answered, require_row_filter=["fligths"]),
        GrantMiddleware(answered, type="dashboard", id="delays", action="view", require_row_filter=["fligths"]),
    ):
        rows = RowLevelSecurityMiddleware(layer, policy=settings.policy)
        verifier = CachedVerifier(settings.token_policy, settings.key_ring, TokenCache(0))
        app = EmbedTokenMiddleware(rows, verifier=verifier, carriers=settings.token_carriers)
        answer = await http(app, headers={"authorization": f"Bearer {make_token()}"})
        assert (answer.status, answer.reason) == (500, "row_filter_missing")
