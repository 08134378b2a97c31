"""A guard behind another one, with settings of its own: it judges by those, and takes over no other reading."""

from __future__ import annotations

import hmac
import json
import time
from typing import Any

import pytest

from toucan_guard import Reason, ToucanGuard
from toucan_guard.asgi import trail_of
from toucan_guard.core.jws import encode_segment
from toucan_guard.testing import TEST_SECRET

pytestmark = pytest.mark.anyio
PORTAL = "https://portal.example"
OURS = {"claim_tenant": "org", "claim_rls": "rows", "claim_grants": "may", "claim_origins": "sites"}
FRAME = {
    "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe", "referer": f"{PORTAL}/",
}  # fmt: skip


def token(typ: str = "embed+jwt", **changes: Any) -> str:
    """A token that says one thing under the usual names, and another one under ``OURS``."""
    now = int(time.time())
    claims = {
        "iss": "https://host.example", "aud": "charts", "sub": "user-1", "jti": "t-1", "iat": now, "exp": now + 300,
        "tenant": "acme", "rls": {"carrier": "AA"}, "org": "globex", "rows": {"carrier": "BB"}, "may": [], **changes,
    }  # fmt: skip
    signing_input = b".".join(
        encode_segment(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": typ}, claims)
    )
    return (signing_input + b"." + encode_segment(hmac.digest(TEST_SECRET.encode(), signing_input, "sha256"))).decode()


async def chart(scope: Any, receive: Any, send: Any) -> None:
    embed = scope["state"]["embed"]
    said = json.dumps([embed.tenant, *embed.rls.attributes["carrier"]]).encode()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return await send({"type": "websocket.close", "code": 1000, "reason": said.decode()})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-token", _tokens(scope))]})
    await send({"type": "http.response.body", "body": said})


def _tokens(scope: Any) -> bytes:
    return b"|".join(value for _, value in scope["headers"] if b"eyJ" in value)


async def _ask_thrice(http: Any, guard: Any, headers: dict[str, str]) -> list[Any]:
    """Through the layers, through them again, and admitted."""
    return [await http(guard, "GET", "/", headers) for _ in range(3)]


@pytest.mark.parametrize("carrier", ["authorization", "x-embed-token"])
async def test_an_inner_guard_reads_a_token_under_its_own_names(
    carrier: str, make_settings: Any, http: Any, audit_lines: Any
) -> None:
    guard = ToucanGuard(ToucanGuard(chart, settings=make_settings(**OURS)), settings=make_settings())
    sent = token() if carrier == "x-embed-token" else f"Bearer {token()}"
    for answer in await _ask_thrice(http, guard, {carrier: sent}):
        assert json.loads(answer.body) == ["globex", "BB"]
        assert answer.header("x-token") == "", "neither guard lets the token through"
    assert {line["tenant"] for line in audit_lines()} == {"globex"}, "the record says whose rows were shown"


async def test_what_an_inner_guard_requires_is_not_fulfilled_by_the_names_of_the_outer_one(
    make_settings: Any, http: Any
) -> None:
    guard = ToucanGuard(ToucanGuard(chart, settings=make_settings(**OURS)), settings=make_settings())
    for answer in await _ask_thrice(http, guard, {"authorization": f"Bearer {token(org=7)}"}):
        assert answer.reason == Reason.CLAIM_INVALID
    narrowed = {"authorization": f"Bearer {token(sites=['https://a.customers.example'])}", "origin": PORTAL}
    for answer in await _ask_thrice(http, guard, narrowed):
        assert answer.reason == Reason.TOKEN_ORIGIN_NOT_ALLOWED, "the token may be embedded elsewhere only"


async def test_an_inner_guard_that_takes_no_other_type_of_token_refuses_it(make_settings: Any, http: Any) -> None:
    strict, loose = make_settings(), make_settings(insecure_typ_jwt=True)
    for answer in await _ask_thrice(
        http,
        ToucanGuard(ToucanGuard(chart, settings=strict), settings=loose),
        {"authorization": f"Bearer {token('JWT')}"},
    ):
        assert answer.reason == Reason.TOKEN_TYPE_NOT_ALLOWED
    for inner, typ in ((loose, "JWT"), (strict, "embed+jwt")):
        guard = ToucanGuard(ToucanGuard(chart, settings=inner), settings=loose)
        for answer in await _ask_thrice(http, guard, {"authorization": f"Bearer {token(typ)}"}):
            assert answer.status == 200


async def test_an_inner_guard_in_production_refuses_origins_of_a_development(make_settings: Any, http: Any) -> None:
    local = {"authorization": f"Bearer {token(origins=['http://localhost:8000'])}"}
    guard = ToucanGuard(ToucanGuard(chart, settings=make_settings()), settings=make_settings(environment="development"))
    for answer in await _ask_thrice(http, guard, local):
        assert answer.reason == Reason.CLAIM_INVALID


async def test_an_inner_guard_takes_a_token_from_where_it_reads_one(make_settings: Any, http: Any) -> None:
    inner = ToucanGuard(chart, settings=make_settings(token_carriers=["x-embed-token"]))
    guard = ToucanGuard(inner, settings=make_settings())
    for answer in await _ask_thrice(http, guard, {"authorization": f"Bearer {token()}"}):
        assert answer.reason == Reason.TOKEN_MISSING
    for answer in await _ask_thrice(http, guard, {"x-embed-token": token()}):
        assert answer.status == 200


async def test_a_socket_is_read_by_the_inner_guard_as_well(make_settings: Any, websocket: Any) -> None:
    carriers = {"token_carriers": ["websocket"]}
    inner = ToucanGuard(chart, settings=make_settings(**OURS, **carriers))
    guard = ToucanGuard(inner, settings=make_settings(**carriers))
    answer = await websocket(guard, headers={"origin": PORTAL}, subprotocols=["embed", f"embed.token.{token()}"])
    assert json.loads(answer.messages[-1]["reason"]) == ["globex", "BB"]


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        pytest.param({}, None, id="of the same settings"),
        pytest.param({"insecure_typ_jwt": True}, None, id="that would read a pass alike"),
        pytest.param(OURS, Reason.SESSION_UNKNOWN, id="that reads tokens under other names"),
        pytest.param({"token_carriers": ["authorization"]}, Reason.TOKEN_MISSING, id="that takes no sessions"),
    ],
)
@pytest.mark.parametrize("behind", [True, False], ids=["behind", "beside"])
async def test_an_embed_session_is_for_guards(
    inner: Any, reason: Reason | None, behind: bool, make_settings: Any, http: Any, make_token: Any
) -> None:
    sessions = {"token_carriers": ["session"]}
    outer = ToucanGuard(chart, settings=make_settings(**sessions))
    opened = await http(outer, "GET", "/", FRAME, query=f"embed_token={make_token(bootstrap=True)}")
    assert opened.status == 303
    other = ToucanGuard(chart, settings=make_settings(**{**sessions, **inner}))
    guard = ToucanGuard(other, settings=make_settings(**sessions)) if behind else other
    cookie = {"cookie": opened.values("set-cookie")[0].partition(";")[0], "sec-fetch-site": "same-origin"}
    for answer in await _ask_thrice(http, guard, cookie):
        assert answer.status == 200 if reason is None else answer.reason == reason


async def test_nobody_keeps_a_token_when_its_connection_is_over(make_settings: Any, http: Any) -> None:
    trails = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trails.append(trail_of(scope))
        await chart(scope, receive, send)

    guard = ToucanGuard(app, settings=make_settings())
    await _ask_thrice(http, guard, {"authorization": f"Bearer {token()}"})
    assert [trail.presented for trail in trails] == [None] * 3
