"""Exempt paths: exact, or by whole segments; without an embed, and with nothing that looks like one."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from toucan_guard import Deny, Reason, Refused, ToucanGuard
from toucan_guard.core.errors import ConfigError, GuardMissing
from toucan_guard.layers import ExemptMiddleware, GrantMiddleware
from toucan_guard.rls.context import current_row_access

pytestmark = pytest.mark.anyio

PORTAL = "https://portal.example"


class Recorder:
    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.access: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(dict(scope))
        self.access.append(current_row_access.get())
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the app's data"})


@pytest.fixture
def app() -> Recorder:
    return Recorder()


@pytest.fixture
def guard(app: Recorder, make_settings: Any) -> ToucanGuard:
    return ToucanGuard(app, settings=make_settings(exempt_paths=["/health"], exempt_prefixes=["/static", "/a/b/"]))


@pytest.mark.parametrize(
    ("method", "path", "exempt"),
    [
        pytest.param("GET", "/health", True, id="an exact path"),
        pytest.param("POST", "/health", True, id="an exact path, by any method"),
        pytest.param("GET", "/health/", False, id="with a slash it is another path"),
        pytest.param("GET", "/healthz", False, id="a longer name"),
        pytest.param("GET", "/HEALTH", False, id="another case"),
        pytest.param("GET", "/health/admin", False, id="below an exact path"),
        pytest.param("GET", "//health", False, id="two slashes"),
        pytest.param("GET", "/static/app.js", True, id="below a prefix"),
        pytest.param("HEAD", "/static/app.js", True, id="HEAD below a prefix"),
        pytest.param("GET", "/static/", True, id="the folder itself"),
        pytest.param("GET", "/a/b/c/d", True, id="deep below a prefix of two segments"),
        pytest.param("POST", "/static/app.js", False, id="a prefix is for reading"),
        pytest.param("OPTIONS", "/static/app.js", False, id="OPTIONS below a prefix"),
        pytest.param("get", "/static/app.js", False, id="a method in lower case"),
        pytest.param("GET", "/static", False, id="a prefix without its slash"),
        pytest.param("GET", "/staticfiles/app.js", False, id="no segment boundary"),
        pytest.param("GET", "/static-private", False, id="no segment boundary, with a dash"),
        pytest.param("GET", "/x/static/app.js", False, id="in the middle"),
        pytest.param("GET", "/static/../dashboards", False, id="up and out"),
        pytest.param("GET", "/static/x/../../dashboards", False, id="down, up and out"),
        pytest.param("GET", "/static/..", False, id="up at the end"),
        pytest.param("GET", "/static/./app.js", False, id="a dot"),
        pytest.param("GET", "/static//app.js", False, id="an empty segment"),
        pytest.param("GET", "/static/..\\dashboards", False, id="up with a backslash"),
        pytest.param("GET", "/static\\app.js", False, id="a backslash for the slash"),
        pytest.param("GET", "/a/b", False, id="part of a prefix"),
        pytest.param("GET", "", False, id="an empty path"),
    ],
)
async def test_which_requests_are_exempt(
    method: str, path: str, exempt: bool, app: Recorder, guard: Any, http: Any
) -> None:
    answer = await http(guard, method, path)
    assert (b"the app's data" in answer.body) == exempt == bool(app.scopes)
    if not exempt:
        assert answer.reason == Reason.TOKEN_MISSING


@pytest.mark.parametrize(
    ("headers", "more"),
    [
        pytest.param({"host": "charts.example/health?x="}, {}, id="a Host with a path"),
        pytest.param({"host": "charts.example/static/"}, {}, id="a Host with a folder"),
        pytest.param({"x-forwarded-prefix": "/health", "x-original-url": "/health"}, {}, id="forwarded paths"),
        pytest.param({}, {"query": "/health"}, id="the path in the query"),
        pytest.param({}, {"raw_path": b"/health"}, id="a raw path that says otherwise"),
    ],
)
async def test_nothing_but_the_path_is_judged(headers: Any, more: Any, app: Recorder, guard: Any, http: Any) -> None:
    refused = await http(guard, "GET", "/dashboards/delays", headers, **more)
    assert refused.reason == Reason.TOKEN_MISSING
    assert not app.scopes
    assert (await http(guard, "GET", "/health", headers)).status == 200


async def test_a_socket_is_never_exempt(app: Recorder, guard: Any, websocket: Any) -> None:
    for path in ("/health", "/static/app.js"):
        assert (await websocket(guard, path, {"origin": PORTAL})).reason == Reason.TOKEN_MISSING
    assert not app.scopes


async def test_an_exempt_request_has_no_embed_and_cannot_pretend_to_one(
    app: Recorder, guard: Any, http: Any, make_token: Any, audit_lines: Any
) -> None:
    headers = {
        "x-embed-token": make_token(),
        "x_embed_subject": "admin",
        "x-embed-tenant": "acme",
        "authorization": "Bearer of-the-hosts-own",
        "cookie": f"__Host-embed-{'a' * 26}=s; theme=dark",
    }
    answer = await http(guard, "GET", "/health", headers, state={"embed": "forged", "kept": 1})
    assert answer.status == 200
    assert app.scopes[0]["state"] == {"embed": None, "kept": 1}
    assert app.scopes[0]["headers"] == [(b"authorization", b"Bearer of-the-hosts-own"), (b"cookie", b"theme=dark")]
    assert app.access == [None]
    assert "frame-ancestors" in str(answer.header("content-security-policy"))
    (line,) = audit_lines()
    assert (line["outcome"], line["exempt"], line["subject"]) == ("allow", True, None)


async def test_an_endpoint_that_asks_for_the_embed_says_that_its_path_is_exempt(
    app: Recorder, make_settings: Any, http: Any
) -> None:
    asks = GrantMiddleware(app, type="dashboard", id="delays", action="view")
    guard = ToucanGuard(asks, settings=make_settings(exempt_paths=["/health"]))
    with pytest.raises(GuardMissing, match="exempt"):
        await http(guard, "GET", "/health")
    assert not app.scopes


async def test_a_refusal_in_an_exempt_app_is_a_refusal(make_settings: Any, http: Any, audit_lines: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise Refused(Deny("x_closed", status=423))

    guard = ToucanGuard(app, settings=make_settings(exempt_paths=["/health"]))
    answer = await http(guard, "GET", "/health")
    assert (answer.status, answer.reason) == (423, "x_closed")
    assert [line["outcome"] for line in audit_lines()] == ["deny"]


async def test_the_row_access_of_an_outer_guard_does_not_reach_an_exempt_path(
    app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    inner = ToucanGuard(app, settings=make_settings(exempt_paths=["/health"]))
    nested = ToucanGuard(inner, settings=make_settings())
    assert (await http(nested, "GET", "/health")).reason == Reason.TOKEN_MISSING, "the outer guard protects"
    assert (await http(nested, "GET", "/health", {"x-embed-token": make_token()})).status == 200
    assert app.access == [None]
    assert app.scopes[0]["state"]["embed"] is None


async def test_an_outer_exemption_does_not_open_an_inner_guard(
    app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    nested = ToucanGuard(
        ToucanGuard(app, settings=make_settings()), settings=make_settings(exempt_prefixes=["/static"])
    )
    assert (await http(nested, "GET", "/static/app.js")).reason == Reason.TOKEN_MISSING
    # Our own header is taken out in front of the exempt path; the host's Authorization passes.
    allowed = await http(nested, "GET", "/static/app.js", {"authorization": f"Bearer {make_token()}"})
    assert allowed.status == 200
    assert app.scopes[0]["state"]["embed"].subject == "user-1"


async def test_behind_a_mount_the_whole_path_counts(make_settings: Any, http: Any) -> None:
    async def answer(request: Request) -> Response:
        return PlainTextResponse("the app's data")

    inner = Middleware(ToucanGuard, settings=make_settings(exempt_paths=["/embed/health"]))
    routes = [Mount("/embed", routes=[Route("/health", answer), Route("/embed/health", answer)], middleware=[inner])]
    app = Starlette(routes=routes)
    assert (await http(app, "GET", "/embed/health")).status == 200
    assert (await http(app, "GET", "/embed/embed/health")).reason == Reason.TOKEN_MISSING


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"prefixes": ["/"]}, id="the root"),
        pytest.param({"prefixes": ["/static", ""]}, id="empty"),
        pytest.param({"prefixes": ["//"]}, id="two slashes"),
        pytest.param({"paths": "/health"}, id="one text of paths"),
        pytest.param({"prefixes": "/static"}, id="one text of prefixes"),
    ],
)
def test_an_exemption_of_everything_does_not_start(options: Any, app: Recorder) -> None:
    with pytest.raises(ConfigError):
        ExemptMiddleware(app, bare=app, **options)
