"""Tenancy in a request: tenant's and token's origins and the region, through the whole guard and alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toucan_guard import Reason, ToucanGuard
from toucan_guard.core.errors import GuardMissing
from toucan_guard.core.tenancy import TenancyPolicy
from toucan_guard.layers import TenancyMiddleware
from toucan_guard.trail import trail_of

pytestmark = pytest.mark.anyio

PORTAL = "https://portal.example"
CUSTOMER = "https://a.customers.example"
FRAME = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the app's data"})


@pytest.fixture
def guard(make_settings: Any, tmp_path: Path) -> Callable[..., ToucanGuard]:
    def make(tenants: str = "", **changes: Any) -> ToucanGuard:
        if tenants:
            path = tmp_path / "tenants.toml"
            path.write_text(tenants)
            changes["tenant_origins_file"] = str(path)
        return ToucanGuard(_app, settings=make_settings(**changes))

    return make


def _reason(answer: Any) -> str | None:
    return None if answer.status == 200 else answer.reason


@pytest.mark.parametrize(
    ("tenants", "origins", "headers", "reason"),
    [
        pytest.param("", None, {"origin": PORTAL}, None, id="no list: the configured one counts"),
        pytest.param(f'acme = ["{PORTAL}"]', None, {"origin": PORTAL}, None, id="on the tenant's list"),
        pytest.param(
            f'acme = ["{PORTAL}"]', None, {"origin": CUSTOMER}, Reason.TENANT_ORIGIN_NOT_ALLOWED, id="not on it"
        ),
        pytest.param(f'other = ["{PORTAL}"]', None, {"origin": CUSTOMER}, None, id="another tenant's list"),
        pytest.param("acme = []", None, {"origin": PORTAL}, Reason.TENANT_ORIGIN_NOT_ALLOWED, id="an empty list"),
        pytest.param("", [PORTAL], {"origin": PORTAL}, None, id="among the token's origins"),
        pytest.param("", [PORTAL], {"origin": CUSTOMER}, Reason.TOKEN_ORIGIN_NOT_ALLOWED, id="not among them"),
        pytest.param("", [], {"origin": PORTAL}, Reason.TOKEN_ORIGIN_NOT_ALLOWED, id="an empty claim is nobody"),
        pytest.param(
            "", ["https://evil.example"], {"origin": "https://evil.example"}, Reason.ORIGIN_NOT_ALLOWED,
            id="a token never widens the configured list",
        ),
        pytest.param(
            'acme = ["https://evil.example"]', None, {"origin": "https://evil.example"}, Reason.ORIGIN_NOT_ALLOWED,
            id="nor does a tenant's list",
        ),
        pytest.param(
            "", [PORTAL], {**FRAME, "referer": f"{CUSTOMER}/"}, Reason.TOKEN_ORIGIN_NOT_ALLOWED, id="the embedder"
        ),
        pytest.param("", [PORTAL], {**FRAME, "referer": f"{PORTAL}/"}, None, id="the named embedder"),
        pytest.param("", [PORTAL], {}, None, id="a server names no origin: the token decides"),
    ],
)  # fmt: skip
async def test_where_a_token_may_be_used(
    tenants: str, origins: Any, headers: dict[str, str], reason: Reason | None, guard: Any, http: Any, make_token: Any
) -> None:
    token = make_token(origins=origins)
    answer = await http(guard(tenants), "GET", "/", {**headers, "x-embed-token": token})
    assert _reason(answer) == reason
    assert (b"the app's data" in answer.body) == (reason is None)


@pytest.mark.parametrize(
    ("origins", "reason"),
    [
        pytest.param(None, None, id="a token that names no origins"),
        pytest.param([PORTAL], Reason.TOKEN_ORIGIN_NOT_ALLOWED, id="null is not among the token's origins"),
    ],
)
async def test_null_is_on_nobodys_list_even_where_its_switch_is_on(
    origins: Any, reason: Reason | None, guard: Any, http: Any, make_token: Any
) -> None:
    headers = {"origin": "null", "x-embed-token": make_token(origins=origins)}
    assert _reason(await http(guard(insecure_null_origin=True), "GET", "/", headers)) == reason
    assert _reason(await http(guard(), "GET", "/", headers)) == Reason.ORIGIN_NULL


@pytest.mark.parametrize(
    ("deployment", "token", "reason"),
    [
        pytest.param("eu", "eu", None, id="the same region"),
        pytest.param("eu", "us", Reason.REGION_MISMATCH, id="another region"),
        pytest.param("eu", None, Reason.REGION_MISMATCH, id="the token names none"),
        pytest.param(None, "eu", Reason.REGION_MISMATCH, id="the deployment names none"),
    ],
)
async def test_region(
    deployment: Any, token: Any, reason: Reason | None, guard: Any, http: Any, make_token: Any, audit_lines: Any
) -> None:
    headers = {"x-embed-token": make_token(**({"region": token} if token else {}))}
    assert _reason(await http(guard(region=deployment), "GET", "/", headers)) == reason
    observed = await http(guard(region=deployment, report_only=["region"]), "GET", "/", headers)
    assert observed.status == 200
    line = audit_lines()[-1]
    assert (line["outcome"], line["reason"]) == (("would_deny", reason) if reason else ("allow", None))


async def test_report_only_origins_let_the_tenants_and_the_tokens_pass_and_record_it(
    guard: Any, http: Any, make_token: Any, audit_lines: Any
) -> None:
    observing = guard(report_only=["origin"])
    headers = {"origin": CUSTOMER, "x-embed-token": make_token(origins=[PORTAL])}
    assert (await http(observing, "GET", "/", headers)).status == 200
    assert (audit_lines()[-1]["outcome"], audit_lines()[-1]["reason"]) == ("would_deny", "token_origin_not_allowed")
    assert (await http(observing, "GET", "/", {**headers, "origin": PORTAL})).status == 200
    assert audit_lines()[-1]["outcome"] == "allow"


@pytest.mark.parametrize(
    ("tenants", "origins", "reason"),
    [
        pytest.param("", None, Reason.ORIGINS_MISSING, id="neither names any"),
        pytest.param("", [PORTAL], None, id="the token does"),
        pytest.param(f'acme = ["{PORTAL}"]', None, None, id="the tenant does"),
    ],
)
async def test_required_origins(
    tenants: str, origins: Any, reason: Reason | None, guard: Any, http: Any, make_token: Any
) -> None:
    headers = {"origin": PORTAL, "x-embed-token": make_token(origins=origins)}
    assert _reason(await http(guard(tenants, require_token_origins=True), "GET", "/", headers)) == reason


async def test_a_nested_guard_takes_nothing_back_from_the_outer_one(
    make_settings: Any, http: Any, make_token: Any, tmp_path: Path
) -> None:
    path = tmp_path / "tenants.toml"
    path.write_text(f'acme = ["{PORTAL}"]\n')
    inner = ToucanGuard(_app, settings=make_settings())
    nested = ToucanGuard(inner, settings=make_settings(tenant_origins_file=str(path)))
    headers = {"x-embed-token": make_token()}
    for _ in range(2):
        answer = await http(nested, "GET", "/", headers)
        assert answer.status == 200
        assert f"frame-ancestors {PORTAL}" in answer.values("content-security-policy")
    # The same token in front of the inner guard alone is not narrowed by what was worked out before.
    (alone,) = (await http(inner, "GET", "/", headers)).values("content-security-policy")
    assert "customers.example" in alone


async def test_what_a_nested_guard_narrowed_is_not_kept_for_other_paths(
    make_settings: Any, http: Any, make_token: Any, tmp_path: Path
) -> None:
    path = tmp_path / "tenants.toml"
    path.write_text(f'acme = ["{CUSTOMER}"]\n')
    inner = ToucanGuard(_app, settings=make_settings(tenant_origins_file=str(path)))

    async def router(scope: Any, receive: Any, send: Any) -> None:
        await (inner if scope["path"] == "/inner" else _app)(scope, receive, send)

    outer = ToucanGuard(router, settings=make_settings())
    headers = {"x-embed-token": make_token(origins=[PORTAL, CUSTOMER])}
    for path_asked, expected in [
        ("/outer", f"frame-ancestors {CUSTOMER} {PORTAL}"),
        ("/inner", f"frame-ancestors {CUSTOMER}"),
        ("/outer", f"frame-ancestors {CUSTOMER} {PORTAL}"),
    ]:
        answer = await http(outer, "GET", path_asked, headers)
        assert set(answer.values("content-security-policy")) == {expected}


async def test_both_guards_narrow(make_settings: Any, http: Any, make_token: Any, tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer.toml", tmp_path / "inner.toml"
    outer.write_text(f'acme = ["{PORTAL}", "{CUSTOMER}"]\n')
    inner.write_text(f'acme = ["{CUSTOMER}", "https://b.customers.example"]\n')
    nested = ToucanGuard(
        ToucanGuard(_app, settings=make_settings(tenant_origins_file=str(inner))),
        settings=make_settings(tenant_origins_file=str(outer)),
    )
    answer = await http(nested, "GET", "/", {"x-embed-token": make_token()})
    assert set(answer.values("content-security-policy")) == {f"frame-ancestors {CUSTOMER}"}


async def test_alone_it_needs_the_token_layer_in_front(http: Any) -> None:
    with pytest.raises(GuardMissing):
        await http(TenancyMiddleware(_app, policy=TenancyPolicy()))


async def test_other_kinds_of_connections_pass() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    await TenancyMiddleware(app, policy=TenancyPolicy())({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]


async def test_the_narrowing_is_worked_out_once_for_each_token(http: Any, make_settings: Any, make_token: Any) -> None:
    narrowings: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        narrowings.append(trail_of(scope).narrowing)
        await _app(scope, receive, send)

    guard = ToucanGuard(app, settings=make_settings())
    token = make_token(origins=[PORTAL])
    for _ in range(2):
        await http(guard, "GET", "/", {"x-embed-token": token})
    assert narrowings[0].entries == (PORTAL,)
    assert narrowings[0] is narrowings[1]
