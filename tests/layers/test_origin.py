"""Origin in a request: header lists, ambient credentials, forwarded origins, report-only, and what is noted of it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from toucan_guard import ConfigError, Reason, ToucanGuard
from toucan_guard.core.origins import OriginAllowlist, OriginPolicy, parse_origin
from toucan_guard.layers import OriginMiddleware
from toucan_guard.trail import trail_of

pytestmark = pytest.mark.anyio

PORTAL = "https://portal.example"
OWN = "https://charts.example"
FRAME = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}


class Recorder:
    """An app that answers 200 and remembers what the layer noted."""

    def __init__(self) -> None:
        self.noted: list[tuple[str | None, str | None, bool, bool]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        trail = trail_of(scope)
        self.noted.append(
            (
                None if trail.caller is None else str(trail.caller),
                None if trail.embedder is None else str(trail.embedder),
                trail.own_page,
                trail.opaque_caller,
            )
        )
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the app's data"})


@pytest.fixture
def app() -> Recorder:
    return Recorder()


def _layer(app: Any, **options: Any) -> OriginMiddleware:
    own = parse_origin(OWN)
    assert own is not None
    policy: dict[str, Any] = {"public_origins": frozenset({own}), **options.pop("policy", {})}
    allowlist = OriginAllowlist.parse([PORTAL, "https://*.customers.example"])
    return OriginMiddleware(app, policy=OriginPolicy(allowlist=allowlist, **policy), **options)


@pytest.mark.parametrize(
    ("method", "headers", "reason"),
    [
        pytest.param("GET", [], None, id="a request without any of it"),
        pytest.param("GET", [("origin", PORTAL)], None, id="a listed origin"),
        pytest.param("GET", [("origin", PORTAL), ("origin", PORTAL)], Reason.ORIGIN_REPEATED, id="repeated"),
        pytest.param("GET", [("origin", "https://evil.example")], Reason.ORIGIN_NOT_ALLOWED, id="a stranger"),
        pytest.param("GET", [("origin", f"{PORTAL}.evil.example")], Reason.ORIGIN_NOT_ALLOWED, id="a suffix match"),
        pytest.param("GET", [("origin", f"{PORTAL}@evil.example")], Reason.ORIGIN_MALFORMED, id="userinfo"),
        pytest.param("GET", [("origin", "https://port\xe4l.example")], Reason.ORIGIN_MALFORMED, id="latin-1"),
        pytest.param("GET", [("origin", "")], Reason.ORIGIN_MALFORMED, id="empty"),
        pytest.param("POST", [("origin", PORTAL), ("sec-fetch-site", "cross-site")], None, id="a listed site posts"),
        pytest.param("POST", [("sec-fetch-site", "cross-site")], Reason.ORIGIN_MISSING, id="a hidden site posts"),
        pytest.param("POST", [("sec-fetch-site", "same-origin"), ("origin", "null")], None, id="a no-referrer form"),
        pytest.param("post", [("sec-fetch-site", "cross-site")], Reason.ORIGIN_MISSING, id="a method in lower case"),
        pytest.param("POST", [], None, id="no browser and no cookie: the token decides"),
        pytest.param("POST", [("cookie", "a=b")], Reason.ORIGIN_MISSING, id="a cookie and no word of the page"),
        pytest.param("POST", [("authorization", "Basic dTpw")], Reason.ORIGIN_MISSING, id="Basic is ambient too"),
        pytest.param("POST", [("cookie", "a=b"), ("authorization", "Bearer t")], None, id="a token beside the cookie"),
        pytest.param("POST", [("cookie", "a=b"), ("authorization", "Bearer\tt")], None, id="a token behind a tab"),
        pytest.param("POST", [("cookie", "a=b"), ("x-embed-token", "t")], None, id="our header beside the cookie"),
        pytest.param("POST", [("cookie", "a=b"), ("x_embed_token", "t")], Reason.ORIGIN_MISSING, id="with underscores"),
        pytest.param("GET", [*FRAME.items(), ("referer", f"{PORTAL}/a")], None, id="a listed page frames us"),
        pytest.param(
            "GET", [*FRAME.items(), ("referer", "https://evil.example/")], Reason.EMBEDDER_NOT_ALLOWED, id="a stranger"
        ),
        pytest.param(
            "GET",
            [*FRAME.items(), ("referer", f"{PORTAL}/"), ("referer", f"{PORTAL}/")],
            Reason.EMBEDDER_NOT_ALLOWED,
            id="two Referers",
        ),
    ],
)  # fmt: skip
async def test_decisions(method: str, headers: Any, reason: Reason | None, app: Recorder, http: Any) -> None:
    answer = await http(_layer(app), method, "/", headers)
    assert (None if answer.status == 200 else answer.reason) == reason
    assert (b"the app's data" in answer.body) == (reason is None) == bool(app.noted)


async def test_a_bootstrap_token_is_no_ambient_credential(app: Recorder, http: Any) -> None:
    headers = {"cookie": "a=b"}
    assert (await http(_layer(app), "POST", "/", headers)).reason == Reason.ORIGIN_MISSING
    assert (await http(_layer(app), "POST", "/", headers, query="embed_token=t")).status == 200


@pytest.mark.parametrize(
    ("headers", "offers", "options", "reason"),
    [
        pytest.param({"origin": PORTAL}, [], {}, None, id="a listed origin"),
        pytest.param({"origin": OWN}, [], {}, None, id="our own origin"),
        pytest.param({}, [], {}, Reason.ORIGIN_MISSING, id="no Origin"),
        pytest.param({"origin": PORTAL, "cookie": "a=b"}, [], {}, Reason.ORIGIN_NOT_ALLOWED, id="with a cookie"),
        pytest.param({"origin": PORTAL, "cookie": "a=b"}, ["embed.token.t"], {}, None, id="with a cookie and a token"),
        pytest.param({"origin": OWN, "cookie": "a=b"}, [], {}, None, id="our own, with a cookie"),
        pytest.param({}, ["embed.token.t"], {"insecure_websocket_without_origin": True}, None, id="the switch"),
        pytest.param(
            {"cookie": "a=b"}, [], {"insecure_websocket_without_origin": True}, Reason.ORIGIN_MISSING,
            id="the switch does not open the door to cookies",
        ),
    ],
)  # fmt: skip
async def test_sockets(
    headers: Any, offers: list[str], options: Any, reason: Reason | None, app: Recorder, websocket: Any
) -> None:
    answer = await websocket(_layer(app, policy=options), "/live", headers, subprotocols=offers)
    if reason is None:
        assert answer.messages == [{"type": "websocket.accept"}]
    else:
        assert answer.reason == reason
        assert not app.noted


@pytest.mark.parametrize(
    ("headers", "noted"),
    [
        pytest.param({}, (None, None, False, False), id="nothing"),
        pytest.param({"origin": PORTAL}, (PORTAL, None, False, False), id="a listed caller"),
        pytest.param({"origin": OWN}, (None, None, True, False), id="our own page"),
        pytest.param({"sec-fetch-site": "same-origin"}, (None, None, False, False), id="our own page, without Origin"),
        pytest.param({"origin": "null"}, (None, None, False, True), id="null, by its switch"),
        pytest.param({**FRAME, "referer": f"{PORTAL}/x"}, (None, PORTAL, False, False), id="a listed embedder"),
        pytest.param({**FRAME, "referer": f"{OWN}/x"}, (None, None, False, False), id="we frame ourselves"),
        pytest.param({"referer": f"{PORTAL}/x"}, (None, None, False, False), id="a Referer outside a frame"),
    ],
)
async def test_what_the_next_layers_learn(headers: Any, noted: Any, app: Recorder, http: Any) -> None:
    layer = _layer(app, policy={"insecure_allow_null": True})
    assert (await http(layer, "GET", "/", headers)).status == 200
    assert app.noted == [noted]


async def test_a_nested_guard_forgets_whom_the_outer_one_took_for_its_own_page(app: Recorder, websocket: Any) -> None:
    portal = parse_origin(PORTAL)
    outer = _layer(_layer(app), policy={"public_origins": frozenset({portal})})
    await websocket(outer, "/live", {"origin": PORTAL})
    assert app.noted == [(PORTAL, None, False, False)], "for the inner guard it is a listed caller, not itself"


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        pytest.param(("10.0.0.1", 1), None, id="a named proxy"),
        pytest.param(("192.0.2.7", 1), Reason.ORIGIN_NOT_ALLOWED, id="a stranger"),
    ],
)
async def test_forwarded_headers_count_from_named_proxies(
    client: Any, reason: Reason | None, app: Recorder, http: Any
) -> None:
    layer = _layer(app, trusted_proxies=[ip_network("10.0.0.0/8")])
    headers = {"origin": "https://alias.example", "x-forwarded-proto": "https", "x-forwarded-host": "alias.example"}
    answer = await http(layer, "POST", "/", headers, client=client)
    assert (None if answer.status == 200 else answer.reason) == reason


async def test_without_named_proxies_nobodys_forwarded_headers_count(app: Recorder, http: Any) -> None:
    headers = {"origin": "https://alias.example", "x-forwarded-proto": "https", "x-forwarded-host": "alias.example"}
    assert (await http(_layer(app), "POST", "/", headers)).reason == Reason.ORIGIN_NOT_ALLOWED


async def test_a_host_header_makes_nobody_our_own_page(app: Recorder, http: Any) -> None:
    headers = {"origin": "https://evil.example", "host": "evil.example"}
    assert (await http(_layer(app), "POST", "/", headers)).reason == Reason.ORIGIN_NOT_ALLOWED


async def test_report_only_lets_a_stranger_pass_and_vouches_for_nothing(
    app: Recorder, http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    guard = ToucanGuard(
        app, settings=make_settings(report_only=["origin"], token_carriers=["authorization", "session"])
    )
    bearer = {"authorization": f"Bearer {make_token()}"}
    assert (await http(guard, "POST", "/", {**bearer, "origin": "https://evil.example"})).status == 200
    assert app.noted == [(None, None, False, False)]
    assert (audit_lines()[-1]["outcome"], audit_lines()[-1]["reason"]) == ("would_deny", "origin_not_allowed")
    # The bootstrap exchange still demands a listed Referer, or a hostile frame could plant its session.
    hostile = {**FRAME, "referer": "https://evil.example/"}
    refused = await http(guard, "GET", "/", hostile, query=f"embed_token={make_token(bootstrap=True)}")
    assert refused.reason == Reason.EMBEDDER_UNKNOWN
    # And a token is still needed.
    assert (await http(guard, "GET", "/", {"origin": "https://evil.example"})).reason == Reason.TOKEN_MISSING


async def test_other_kinds_of_connections_pass() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    await _layer(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]


async def test_alone_it_takes_a_list_of_origins(http: Any, app: Recorder) -> None:
    layer = OriginMiddleware(app, allowlist=[PORTAL])
    assert (await http(layer, headers={"origin": PORTAL})).status == 200
    assert (await http(layer, headers={"origin": "https://evil.example"})).reason == "origin_not_allowed"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"policy": OriginPolicy(allowlist=OriginAllowlist()), "allowlist": []}, id="both"),
        pytest.param({"allowlist": PORTAL}, id="one text where a list belongs"),
        pytest.param({"allowlist": ["http://portal.example"]}, id="an origin that is refused"),
    ],
)
def test_alone_it_refuses_what_it_cannot_use(app: Recorder, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        OriginMiddleware(app, **options)


async def test_a_referer_that_stands_in_for_the_origin_is_the_caller(http: Any, app: Recorder) -> None:
    assert (await http(_layer(app), method="POST", headers={"referer": f"{PORTAL}/page"})).status == 200
    assert app.noted == [(PORTAL, None, False, False)]


async def test_what_is_remembered_is_bounded_and_holds_no_credential(app: Any, http: Any) -> None:
    layer = OriginMiddleware(app, allowlist=[PORTAL])
    secrets = {"cookie": "a=s3cret", "x-embed-token": "s3cret", "x-api-key": "s3cret", "authorization": "Bearer s3cret"}
    for number in range(1100):
        await http(layer, headers={**secrets, "origin": PORTAL, "referer": f"{PORTAL}/{number}"})
    await http(layer, "A" * 2000)
    await http(layer, headers={"referer": f"{PORTAL}/{'A' * 2000}"})
    await http(layer, headers=[("referer", PORTAL), ("referer", PORTAL)])
    assert 0 < len(layer._judged) <= 1024
    assert "s3cret" not in repr(layer._judged)
    assert "AAAA" not in repr(layer._judged)
    assert not [said for said in layer._judged if isinstance(said, tuple) and said[0] is None]
