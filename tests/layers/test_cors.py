"""Preflights are answered by the guard and never reach the app; listed callers can read what comes back."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from toucan_guard import Reason, ToucanGuard
from toucan_guard.core.origins import OriginAllowlist, OriginPolicy
from toucan_guard.layers import CorsMiddleware

pytestmark = pytest.mark.anyio

PORTAL = "https://portal.example"
EVIL = "https://evil.example"
PREFLIGHT = {"origin": PORTAL, "access-control-request-method": "POST"}
DATA = "the app's data"


class Endpoint(HTTPEndpoint):
    """Answers OPTIONS by itself, as a class may."""

    async def get(self, request: Request) -> Response:
        return PlainTextResponse(DATA)

    async def options(self, request: Request) -> Response:
        return PlainTextResponse(DATA)


async def _callable(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse(DATA)(scope, receive, send)


async def _route(request: Request) -> Response:
    return PlainTextResponse(
        DATA, headers={"access-control-allow-origin": "*", "access-control-allow-credentials": "true"}
    )


async def _crash(request: Request) -> Response:
    raise RuntimeError("the app fails")


def _app() -> Starlette:
    return Starlette(
        routes=[
            Route("/listed", _route, methods=["GET", "POST", "OPTIONS"]),
            Route("/class", Endpoint),
            Route("/callable", _callable),
            Route("/crash", _crash),
            Mount("/mount", app=_callable),
        ]
    )


PATHS = ["/listed", "/class", "/callable", "/mount/x", "/nowhere", "/health", "/static/a"]


@pytest.fixture
def guard(make_settings: Any) -> Any:
    def make(**changes: Any) -> ToucanGuard:
        given = {"exempt_paths": ["/health"], "exempt_prefixes": ["/static"], **changes}
        return ToucanGuard(_app(), settings=make_settings(**given))

    return make


@pytest.mark.parametrize("path", PATHS)
async def test_a_preflight_is_answered_by_the_guard_and_not_by_the_app(path: str, guard: Any, http: Any) -> None:
    headers = {**PREFLIGHT, "access-control-request-headers": "authorization, x-embed-token"}
    answer = await http(guard(), "OPTIONS", path, headers)
    assert answer.status == 200
    assert DATA.encode() not in answer.body
    assert answer.header("access-control-allow-origin") == PORTAL
    assert "POST" in str(answer.header("access-control-allow-methods"))
    assert "x-embed-token" in str(answer.header("access-control-allow-headers"))
    assert answer.header("access-control-allow-credentials") is None
    assert answer.header("access-control-max-age") == "600"
    assert "frame-ancestors" in str(answer.header("content-security-policy"))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param([("origin", EVIL)], Reason.ORIGIN_NOT_ALLOWED, id="a stranger"),
        pytest.param([("origin", f"{PORTAL}.evil.example")], Reason.ORIGIN_NOT_ALLOWED, id="a suffix"),
        pytest.param([("origin", "null")], Reason.ORIGIN_NULL, id="null"),
        pytest.param([("origin", PORTAL), ("origin", PORTAL)], Reason.ORIGIN_REPEATED, id="repeated"),
        pytest.param([("origin", f"{PORTAL}/")], Reason.ORIGIN_MALFORMED, id="malformed"),
    ],
)
async def test_a_refused_preflight_does_not_reach_the_app_either(
    headers: Any, reason: Reason, path: str, guard: Any, http: Any
) -> None:
    answer = await http(guard(), "OPTIONS", path, [*headers, ("access-control-request-method", "POST")])
    assert answer.reason == reason
    assert answer.header("access-control-allow-origin") is None


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"access-control-request-method": "BREW"}, id="an unknown method"),
        pytest.param({"access-control-request-method": ""}, id="an empty method"),
        pytest.param({"access-control-request-method": "post"}, id="a method in lower case"),
    ],
)
async def test_a_preflight_for_what_nobody_may_do_is_refused_readably(headers: Any, guard: Any, http: Any) -> None:
    answer = await http(guard(), "OPTIONS", "/listed", {**PREFLIGHT, **headers})
    assert answer.reason == Reason.PREFLIGHT_NOT_ALLOWED
    assert answer.header("access-control-allow-origin") == PORTAL


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="a bare OPTIONS"),
        pytest.param({"origin": PORTAL}, id="without the method that is asked for"),
        pytest.param({"access-control-request-method": "POST"}, id="without an origin"),
    ],
)
@pytest.mark.parametrize("path", ["/listed", "/class", "/callable", "/mount/x", "/static/a"])
async def test_any_other_options_request_needs_a_token(
    path: str, headers: Any, guard: Any, http: Any, make_token: Any
) -> None:
    assert (await http(guard(), "OPTIONS", path, headers)).reason == Reason.TOKEN_MISSING
    allowed = await http(guard(), "OPTIONS", "/listed", {**headers, "x-embed-token": make_token()})
    assert allowed.body == DATA.encode()


async def test_every_preflight_is_audited(guard: Any, http: Any, audit_lines: Any) -> None:
    await http(guard(), "OPTIONS", "/listed", PREFLIGHT)
    await http(guard(), "OPTIONS", "/listed", {**PREFLIGHT, "origin": EVIL})
    assert [(line["outcome"], line["reason"], line["origin"]) for line in audit_lines()] == [
        ("allow", None, PORTAL),
        ("deny", "origin_not_allowed", EVIL),
    ]


@pytest.mark.parametrize(
    ("origin", "readable"),
    [
        pytest.param(PORTAL, True, id="a listed caller"),
        pytest.param("https://a.customers.example", True, id="by a wildcard"),
        pytest.param(EVIL, False, id="a stranger"),
        pytest.param("null", False, id="null"),
        pytest.param("https://charts.example", False, id="our own page needs no CORS"),
    ],
)
@pytest.mark.parametrize(
    ("path", "with_token"),
    [("/listed", True), ("/listed", False), ("/nowhere", True), ("/crash", True), ("/health", False)],
)
async def test_who_can_read_an_answer(
    origin: str, readable: bool, path: str, with_token: bool, guard: Any, http: Any, make_token: Any
) -> None:
    async def served(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(RuntimeError):  # what /crash raises goes on up to the server
            await guard()(scope, receive, send)

    headers = {"origin": origin, **({"x-embed-token": make_token()} if with_token else {})}
    answer = await http(served, "GET", path, headers)
    assert answer.values("access-control-allow-origin") == ([origin] if readable else [])
    assert answer.values("access-control-allow-credentials") == []
    assert "Origin" in answer.values("vary")


async def test_the_apps_own_word_does_not_widen_ours_however_it_is_spelled(http: Any, make_settings: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"Access-Control-Allow-Origin", b"*"), (b"ACCESS-CONTROL-ALLOW-CREDENTIALS", b"true")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    policy = OriginPolicy(allowlist=OriginAllowlist.parse([PORTAL]))
    layer = CorsMiddleware(app, policy=policy, allowlist=policy.allowlist)
    answer = await http(layer, "GET", "/", {"origin": EVIL})
    assert [name for name, _ in answer.start["headers"]] == [b"vary"]


async def test_switched_off_the_app_speaks_for_itself(guard: Any, http: Any, make_token: Any) -> None:
    off = guard(cors=False)
    answer = await http(off, "GET", "/listed", {"origin": PORTAL, "x-embed-token": make_token()})
    assert answer.header("access-control-allow-origin") == "*"
    preflight = await http(off, "OPTIONS", "/listed", PREFLIGHT)
    assert preflight.reason == Reason.TOKEN_MISSING, "without our CORS a preflight is an OPTIONS like any other"


async def test_the_switch_for_null_lets_sandboxed_pages_ask_and_read(guard: Any, http: Any, make_token: Any) -> None:
    on = guard(insecure_null_origin=True)
    preflight = await http(on, "OPTIONS", "/listed", {**PREFLIGHT, "origin": "null"})
    assert (preflight.status, preflight.header("access-control-allow-origin")) == (200, "null")
    answer = await http(on, "GET", "/listed", {"origin": "null", "x-embed-token": make_token()})
    assert (answer.status, answer.header("access-control-allow-origin")) == (200, "null")
    assert answer.header("access-control-allow-credentials") is None
    refused = await http(on, "GET", "/listed", {"origin": "null"})
    assert refused.reason == Reason.TOKEN_MISSING


async def test_report_only_lets_an_unlisted_caller_ask_and_read_and_records_it(
    guard: Any, http: Any, make_token: Any, audit_lines: Any
) -> None:
    observing = guard(report_only=["origin"])
    preflight = await http(observing, "OPTIONS", "/listed", {**PREFLIGHT, "origin": EVIL})
    assert (preflight.status, preflight.header("access-control-allow-origin")) == (200, EVIL)
    assert (audit_lines()[-1]["outcome"], audit_lines()[-1]["reason"]) == ("would_deny", "origin_not_allowed")
    answer = await http(observing, "GET", "/listed", {"origin": EVIL, "x-embed-token": make_token()})
    assert (answer.status, answer.header("access-control-allow-origin")) == (200, EVIL)
    refused = await http(observing, "OPTIONS", "/listed", {**PREFLIGHT, "access-control-request-method": "BREW"})
    assert refused.reason == Reason.PREFLIGHT_NOT_ALLOWED
    malformed = await http(observing, "GET", "/listed", {"origin": f"{EVIL}/", "x-embed-token": make_token()})
    assert malformed.header("access-control-allow-origin") is None


async def test_sockets_know_no_cors(websocket: Any) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    policy = OriginPolicy(allowlist=OriginAllowlist.parse([PORTAL]))
    await websocket(CorsMiddleware(app, policy=policy, allowlist=policy.allowlist), "/", PREFLIGHT)
    assert seen == ["websocket"]


async def test_the_answer_to_a_preflight_names_no_customer(guard: Any, http: Any) -> None:
    answer = await http(guard(), "OPTIONS", "/listed", PREFLIGHT)
    assert answer.status == 200
    assert answer.header("content-security-policy") == "frame-ancestors 'none'"


async def test_callers_are_remembered_in_bounds(http: Any) -> None:
    allowlist = OriginAllowlist.parse(["https://*.customers.example"])
    layer = CorsMiddleware(_callable, policy=OriginPolicy(allowlist=allowlist), allowlist=allowlist)
    for number in range(1100):
        origin = f"https://c{number}.customers.example"
        for _ in range(2):
            answer = await http(layer, headers={"origin": origin})
            assert answer.header("access-control-allow-origin") == origin
        assert (await http(layer, headers={"origin": f"https://{number}.evil.example"})).values(
            "access-control-allow-origin"
        ) == []
    assert len(layer._readers) <= 1026
    assert not [origin for origin in layer._readers if origin is not None and b"evil" in origin]
