"""FrameAncestors: on every response that leaves, narrowed to the one customer it is for."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.responses import Response

from toucan_guard import Refused, ToucanGuard
from toucan_guard.core.csp import FrameAncestors
from toucan_guard.core.decisions import Deny
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.layers import FrameAncestorsMiddleware

pytestmark = pytest.mark.anyio

PORTAL = "https://portal.example"
OTHER = "https://other.example"
WHOLE = "frame-ancestors https://*.customers.example https://portal.example"


def answering(status: int = 200, headers: dict[str, str] | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response(None if status in (204, 304) else "chart", status, headers)(scope, receive, send)

    return app


async def crashing(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("the app fails")


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    raise Refused(Deny("x_closed"))


@pytest.fixture
def bearer(make_token: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {make_token()}"}


@pytest.mark.parametrize(
    "status", [200, 201, 204, 206, 301, 303, 304, 307, 400, 401, 403, 404, 405, 410, 422, 451, 500, 503]
)
async def test_every_status_of_the_app_says_who_may_frame_it(
    status: int, http: Any, make_settings: Any, bearer: dict[str, str]
) -> None:
    answer = await http(ToucanGuard(answering(status), settings=make_settings()), headers=bearer)
    assert answer.status == status
    assert answer.values("content-security-policy") == [WHOLE]
    assert answer.values("x-frame-options") == []


async def test_a_crash_says_it_too(http: Any, make_settings: Any, bearer: dict[str, str]) -> None:
    guard = ToucanGuard(crashing, settings=make_settings())
    messages: list[Any] = []

    async def keep(message: Any) -> None:
        messages.append(message)

    async def server(scope: Any, receive: Any, send: Any) -> None:
        await guard(scope, receive, keep)

    with pytest.raises(ValueError, match="fails"):
        await http(server, headers=bearer)
    assert messages[0]["status"] == 500
    assert (b"content-security-policy", WHOLE.encode()) in messages[0]["headers"]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param({}, "token_missing", id="no token"),
        pytest.param({"authorization": "Bearer x.y.z"}, "token_malformed", id="a bad token"),
        pytest.param({"origin": "https://evil.example"}, "origin_not_allowed", id="a stranger"),
    ],
)
@pytest.mark.parametrize(
    ("referer", "reader"),
    [
        pytest.param([f"{PORTAL}/page?q"], PORTAL, id="a listed page may show the refusal"),
        pytest.param(
            ["https://a.customers.example/"], "https://a.customers.example", id="so may one of a wildcard, alone"
        ),
        pytest.param(["https://evil.example/"], "'none'", id="a stranger's page may not"),
        pytest.param([f"{PORTAL}.evil.example/"], "'none'", id="a page with a listed name in front may not"),
        pytest.param([], "'none'", id="an unknown page may not"),
        pytest.param([f"{PORTAL}/", "https://evil.example/"], "'none'", id="two Referers are none"),
        pytest.param([f"{PORTAL} https://evil.example"], "'none'", id="a Referer that would add a source is none"),
        pytest.param([f"{PORTAL};script-src *"], "'none'", id="a Referer that would add a directive is none"),
    ],
)
async def test_a_refusal_is_framable_by_the_page_that_asked_alone(
    headers: dict[str, str], reason: str, referer: list[str], reader: str, http: Any, make_settings: Any
) -> None:
    guard = ToucanGuard(answering(), settings=make_settings())
    answer = await http(guard, headers=[*headers.items(), *(("referer", value) for value in referer)])
    assert answer.reason == reason
    assert answer.values("content-security-policy") == [f"frame-ancestors {reader}"]
    assert answer.values("x-frame-options") == (["DENY"] if reader == "'none'" else [])


async def test_a_refusal_inside_the_app_names_nobody_else_either(http: Any, make_settings: Any, bearer: Any) -> None:
    guard = ToucanGuard(refusing, settings=make_settings())
    answer = await http(guard, headers={**bearer, "referer": f"{PORTAL}/"})
    assert (answer.reason, answer.header("content-security-policy")) == ("x_closed", f"frame-ancestors {PORTAL}")


@pytest.mark.parametrize(
    ("ancestors", "reader"),
    [
        pytest.param(["https://elsewhere.example"], "'none'", id="a caller that may not frame may not frame refusals"),
        pytest.param(["'self'"], "'none'", id="only ourselves"),
        pytest.param(["portal.example"], PORTAL, id="a source without a scheme"),
    ],
)
async def test_a_refusal_is_never_framable_by_more_than_the_list(
    ancestors: list[str], reader: str, http: Any, make_settings: Any
) -> None:
    guard = ToucanGuard(answering(), settings=make_settings(frame_ancestors=ancestors))
    answer = await http(guard, headers={"referer": f"{PORTAL}/"})
    assert answer.header("content-security-policy") == f"frame-ancestors {reader}"


@pytest.mark.parametrize(
    ("tenant", "origins", "sources"),
    [
        pytest.param("acme", None, PORTAL, id="the tenant's list"),
        pytest.param("acme", [PORTAL], PORTAL, id="tenant and token agree"),
        pytest.param("acme", [], "'none'", id="a token for nowhere"),
        pytest.param("acme", [OTHER], "'none'", id="a token for another customer's page"),
        pytest.param("birds", None, "https://a.customers.example https://b.customers.example", id="a tenant with two"),
        pytest.param("birds", ["https://b.customers.example"], "https://b.customers.example", id="the token takes one"),
        pytest.param(
            "birds",
            ["https://*.customers.example"],
            "https://a.customers.example https://b.customers.example",
            id="a wildcard in a token widens nothing",
        ),
        pytest.param("unlisted", [PORTAL], PORTAL, id="a tenant without a list, a token with one"),
        pytest.param("stranger", None, "'none'", id="a tenant whose list the configured one does not cover"),
    ],
)
async def test_tenant_and_token_narrow_the_header(
    tenant: str, origins: Any, sources: str, http: Any, make_settings: Any, make_token: Any, tmp_path: Any
) -> None:
    tenants = tmp_path / "tenants.toml"
    tenants.write_text(
        f'acme = ["{PORTAL}"]\nbirds = ["https://a.customers.example", "https://b.customers.example"]\n'
        'stranger = ["https://stranger.example"]\n'
    )
    guard = ToucanGuard(answering(), settings=make_settings(tenant_origins_file=str(tenants)))
    headers = {"authorization": f"Bearer {make_token(tenant=tenant, origins=origins)}"}
    for _ in range(2):  # the second time, the narrowed list comes from beside the cached claims
        answer = await http(guard, headers=headers)
        assert (answer.status, answer.header("content-security-policy")) == (200, f"frame-ancestors {sources}")
    other = await http(guard, headers={"authorization": f"Bearer {make_token(tenant='acme')}"})
    assert other.header("content-security-policy") == f"frame-ancestors {PORTAL}"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="a refusal"),
        pytest.param(
            {"origin": "https://a.customers.example", "access-control-request-method": "GET"}, id="a preflight"
        ),
    ],
)
async def test_where_tenants_are_listed_no_header_names_a_customer_before_the_token_is_verified(
    headers: dict[str, str], http: Any, make_settings: Any, tmp_path: Any
) -> None:
    tenants = tmp_path / "tenants.toml"
    tenants.write_text(f'acme = ["{PORTAL}"]\n')
    settings = make_settings(tenant_origins_file=str(tenants), exempt_paths=["/health"])
    guard = ToucanGuard(answering(), settings=settings)
    method = "OPTIONS" if headers else "GET"
    for path in ("/", "/health"):
        answer = await http(guard, method, path, headers)
        assert answer.header("content-security-policy") == "frame-ancestors 'none'", path


async def test_an_exempt_response_has_the_configured_list(http: Any, make_settings: Any) -> None:
    guard = ToucanGuard(answering(), settings=make_settings(exempt_paths=["/health"]))
    assert (await http(guard, path="/health")).header("content-security-policy") == WHOLE


@pytest.mark.parametrize(
    ("framing", "app_headers", "policies", "frame_options"),
    [
        pytest.param("narrow", {}, [WHOLE], [], id="the app says nothing"),
        pytest.param(
            "narrow", {"x-frame-options": "DENY"}, ["frame-ancestors 'none'"], ["DENY"], id="DENY stays closed"
        ),
        pytest.param(
            "narrow",
            {"x-frame-options": "SAMEORIGIN"},
            ["frame-ancestors 'none'"],
            ["DENY"],
            id="SAMEORIGIN, and we are not on our own list",
        ),
        pytest.param(
            "narrow",
            {"content-security-policy": "frame-ancestors 'self'"},
            ["frame-ancestors 'self'", WHOLE],
            [],
            id="the app's own list counts too",
        ),
        pytest.param(
            "narrow",
            {"content-security-policy": "default-src 'self'"},
            ["default-src 'self'", WHOLE],
            [],
            id="a policy about something else is left alone",
        ),
        pytest.param("sole", {"x-frame-options": "DENY"}, [WHOLE], [], id="sole removes DENY"),
        pytest.param(
            "sole",
            {"content-security-policy": "default-src 'self'; frame-ancestors 'none'"},
            ["default-src 'self'", WHOLE],
            [],
            id="sole removes the app's list and nothing else",
        ),
    ],
)
async def test_the_apps_own_headers(
    framing: str,
    app_headers: dict[str, str],
    policies: list[str],
    frame_options: list[str],
    http: Any,
    make_settings: Any,
    bearer: Any,
) -> None:
    guard = ToucanGuard(answering(headers=app_headers), settings=make_settings(framing=framing))
    answer = await http(guard, headers=bearer)
    assert answer.values("content-security-policy") == policies
    assert answer.values("x-frame-options") == frame_options


async def test_report_only_reports_and_leaves_the_app_alone(http: Any, make_settings: Any, bearer: Any) -> None:
    settings = make_settings(report_only=["frame_ancestors"], frame_report_uri="https://charts.example/csp")
    guard = ToucanGuard(answering(headers={"x-frame-options": "DENY"}), settings=settings)
    answer = await http(guard, headers=bearer)
    assert answer.values("content-security-policy") == []
    assert answer.values("x-frame-options") == ["DENY"]
    assert answer.values("content-security-policy-report-only") == [f"{WHOLE}; report-uri https://charts.example/csp"]


async def test_a_denial_response_of_a_socket_says_it_too(websocket: Any, make_settings: Any) -> None:
    guard = ToucanGuard(answering(), settings=make_settings())
    answer = await websocket(guard, headers={"referer": f"{PORTAL}/", "origin": PORTAL})
    assert (answer.reason, answer.header("content-security-policy")) == ("token_missing", f"frame-ancestors {PORTAL}")


async def test_the_layer_alone(http: Any, make_settings: Any) -> None:
    allowlist = OriginAllowlist.parse([PORTAL])
    alone = FrameAncestorsMiddleware(answering(), frame_ancestors=FrameAncestors.of(allowlist), allowlist=allowlist)
    answer = await http(alone)
    assert answer.header("content-security-policy") == f"frame-ancestors {PORTAL}"
    twice = FrameAncestorsMiddleware(alone, frame_ancestors=FrameAncestors.parse(["'self'"]), allowlist=allowlist)
    assert (await http(twice)).values("content-security-policy") == [
        f"frame-ancestors {PORTAL}",
        "frame-ancestors 'self'",
    ]


async def test_the_apps_own_header_list_is_not_changed(http: Any) -> None:
    message = {"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"DENY")]}
    bare = {"type": "http.response.start", "status": 200}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(bare if scope["path"] == "/bare" else message)
        await send({"type": "http.response.body"})

    allowlist = OriginAllowlist.parse([PORTAL])
    alone = FrameAncestorsMiddleware(app, frame_ancestors=FrameAncestors.of(allowlist), allowlist=allowlist)
    await http(alone)
    assert message["headers"] == [(b"x-frame-options", b"DENY")]
    assert (await http(alone, path="/bare")).header("content-security-policy") == f"frame-ancestors {PORTAL}"
    assert bare == {"type": "http.response.start", "status": 200}


async def test_other_scopes_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((dict(scope), send))

    layer = FrameAncestorsMiddleware(app, frame_ancestors=FrameAncestors(), allowlist=OriginAllowlist.parse([PORTAL]))
    await layer({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == [({"type": "lifespan"}, None)]


async def test_the_readers_of_refusals_are_remembered_in_bounds(http: Any) -> None:
    layer = FrameAncestorsMiddleware(
        answering(),
        frame_ancestors=FrameAncestors.parse([PORTAL]),
        allowlist=OriginAllowlist.parse([PORTAL]),
        tenants_listed=True,
    )
    for number in range(1100):
        answer = await http(layer, headers={"referer": f"{PORTAL}/{number}"})
        assert answer.header("content-security-policy") == f"frame-ancestors {PORTAL}"
    for referer in (f"{PORTAL}/{'A' * 2000}", f"{OTHER}/", "nonsense"):
        await http(layer, headers={"referer": referer})
    remembered = layer._readers
    assert 0 < len(remembered) <= 1024
    assert max(map(len, remembered)) < 100
    assert all(referer.startswith(PORTAL) for referer in remembered)
