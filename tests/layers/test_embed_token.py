"""Who is asking: carriers, embed sessions, what the app sees, and for how long."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from toucan_guard import Grant, Reason, ToucanGuard, live
from toucan_guard.core.errors import ConfigError, NoEmbedContext, StoreUnavailable
from toucan_guard.core.origins import parse_origin
from toucan_guard.layers import (
    AdmissionMiddleware,
    BootstrapExchangeMiddleware,
    EmbedTokenMiddleware,
    GrantMiddleware,
    RowLevelSecurityMiddleware,
)
from toucan_guard.rls.context import current_row_access, require_row_access
from toucan_guard.testing import TEST_SECRET, FakeClock
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.sessions import EmbedSessions
from toucan_guard.tokens.store import MemoryStore
from toucan_guard.trail import trail_of

pytestmark = pytest.mark.anyio

PORTAL = "https://portal.example"
OWN = "https://charts.example"
FRAME = {
    "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe", "referer": f"{PORTAL}/"
}  # fmt: skip
OWN_FETCH = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}


class Recorder:
    """An app that answers 200 and remembers what it saw."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.embeds: list[Any] = []
        self.access: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(dict(scope))
        self.embeds.append(scope["state"]["embed"])
        self.access.append(current_row_access.get())
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the app's data"})


class Browser:
    """Keeps the cookies of embed sessions, as a browser does for one page."""

    def __init__(self, guard: Any, http: Any) -> None:
        self._guard = guard
        self._http = http
        self.cookies: dict[str, str] = {}

    async def get(self, path: str = "/", headers: Any = (), *, query: str = "", method: str = "GET") -> Any:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await self._http(
            self._guard, method, path, {**dict(headers), **({"cookie": cookie} if cookie else {})}, query=query
        )
        for line in answer.values("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    async def open(self, token: str) -> str:
        """Open a frame with a bootstrap token; returns the session's handle."""
        answer = await self.get(headers=FRAME, query=f"embed_token={token}")
        assert answer.status == 303, answer.body
        return str(answer.header("location")).partition("embed=")[2]


@pytest.fixture
def app() -> Recorder:
    return Recorder()


@pytest.fixture
def guard(app: Recorder, make_settings: Any) -> Callable[..., ToucanGuard]:
    def make(**changes: Any) -> ToucanGuard:
        every = ["authorization", "x-embed-token", "websocket", "session"]
        return ToucanGuard(app, settings=make_settings(**{"token_carriers": every, **changes}))

    return make


def _jwk(kid: str, seed: str) -> dict[str, str]:
    material = base64.urlsafe_b64encode(hashlib.sha512(seed.encode()).digest()).decode().rstrip("=")
    return {"kty": "oct", "kid": kid, "alg": "HS256", "k": material}


def _passed(app: Recorder, answer: Any) -> bool:
    """Whether the app was asked; a refusal never shows a byte of it."""
    assert (b"the app's data" in answer.body) == bool(app.scopes)
    return bool(app.scopes)


@pytest.mark.parametrize("carrier", ["authorization", "x-embed-token"])
async def test_a_token_in_a_header_is_an_embed_and_does_not_reach_the_app(
    carrier: str, app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    token = make_token()
    value = f"Bearer {token}" if carrier == "authorization" else token
    answer = await http(guard(), "GET", "/", {carrier: value, "origin": PORTAL, "accept": "*/*"})
    assert answer.status == 200
    assert [name for name, _ in app.scopes[0]["headers"]] == [b"origin", b"accept"]
    assert token not in repr(app.scopes[0]["headers"])
    (embed,) = app.embeds
    assert (embed.subject, embed.tenant, embed.embedder) == ("user-1", "acme", PORTAL)
    assert embed.grants == (Grant("dashboard", "delays", ("view",)),)
    assert embed.rls.attribute_names == ("carrier",)
    assert answer.header("cache-control") == "private, no-store"
    assert answer.header("referrer-policy") == "same-origin"


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        pytest.param({}, "", id="no credential"),
        pytest.param({"authorization": "Basic dTpw"}, "", id="somebody else's credential"),
        pytest.param({"cookie": "session=app"}, "", id="a cookie of the app"),
        pytest.param({"x_embed_token": "TOKEN"}, "", id="a header with underscores"),
        pytest.param({"cookie": "embed_token=TOKEN"}, "", id="a token in a cookie"),
        pytest.param({}, "token=TOKEN", id="a token in a parameter of another name"),
    ],
)
async def test_without_a_credential_nothing_opens(
    headers: dict[str, str], query: str, app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    token = make_token()
    answer = await http(
        guard(),
        "GET",
        "/",
        {name: value.replace("TOKEN", token) for name, value in headers.items()},
        query=query.replace("TOKEN", token),
    )
    assert (answer.status, answer.reason) == (401, Reason.TOKEN_MISSING)
    assert answer.header("www-authenticate") == "Bearer"
    assert not _passed(app, answer)


@pytest.mark.parametrize(
    ("authorization", "told"),
    [
        pytest.param("TOKEN", True, id="the token alone"),
        pytest.param("Token TOKEN", True, id="another scheme"),
        pytest.param("", True, id="an empty one"),
        pytest.param(None, False, id="none"),
    ],
)
async def test_the_detail_tells_of_an_authorization_without_the_scheme_and_not_what_it_says(
    authorization: str | None, told: bool, guard: Any, http: Any, make_token: Any, audit_lines: Any
) -> None:
    token = make_token()
    headers = {} if authorization is None else {"authorization": authorization.replace("TOKEN", token)}
    await http(guard(), "GET", "/", headers)
    (line,) = audit_lines()
    assert line["reason"] == Reason.TOKEN_MISSING
    assert ("has not the scheme Bearer" in line["detail"]) == told
    assert token not in repr(line)


async def test_an_options_request_needs_a_token_like_any_other(
    app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    refused = await http(guard(), "OPTIONS", "/", {"origin": PORTAL})
    assert refused.reason == Reason.TOKEN_MISSING
    assert not _passed(app, refused)
    assert (await http(guard(), "OPTIONS", "/", {"x-embed-token": make_token()})).status == 200


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param("Bearer EXPIRED", id="expired"),
        pytest.param("Bearer\tEXPIRED", id="expired, behind a tab"),
        pytest.param("Bearer", id="empty"),
        pytest.param("bearer a.b.c", id="malformed"),
    ],
)
async def test_a_bad_token_does_not_fall_through_to_the_browsers_session(
    authorization: str, app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    browser = Browser(guard(), http)
    handle = await browser.open(make_token(bootstrap=True))
    value = authorization.replace("EXPIRED", make_token(now=1_700_000_000))
    refused = await browser.get(headers={**OWN_FETCH, "authorization": value}, query=f"embed={handle}")
    assert (refused.status, _passed(app, refused)) == (401, False)
    assert refused.header("www-authenticate") == 'Bearer error="invalid_token"'
    assert (await browser.get(headers=OWN_FETCH, query=f"embed={handle}")).status == 200


async def test_a_stray_cookie_does_not_fight_the_token_in_the_header(
    app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    cookies = "; ".join(f"__Host-embed-{letter * 26}=stray" for letter in "ab")
    headers = {**OWN_FETCH, "cookie": f"{cookies}; theme=dark", "authorization": f"Bearer {make_token()}"}
    answer = await http(guard(), "GET", "/", headers)
    assert answer.status == 200
    assert (b"cookie", b"theme=dark") in app.scopes[0]["headers"]


async def test_two_identities_in_one_page_do_not_mix(app: Recorder, guard: Any, http: Any, make_token: Any) -> None:
    browser = Browser(guard(), http)
    one = await browser.open(make_token(bootstrap=True, subject="one", rls={"carrier": "AA"}))
    two = await browser.open(make_token(bootstrap=True, subject="two", rls={"carrier": "UA"}))
    assert one != two
    for headers, query in [
        (OWN_FETCH, f"embed={one}"),
        ({**OWN_FETCH, "referer": f"{OWN}/?embed={two}"}, ""),
        ({**OWN_FETCH, "referer": f"{OWN}/?embed={two}"}, f"embed={one}"),
        (FRAME, f"embed={two}"),
    ]:
        assert (await browser.get(headers=headers, query=query)).status == 200
    assert [embed.subject for embed in app.embeds] == ["one", "two", "one", "two"]
    assert len({embed.rls.fingerprint for embed in app.embeds}) == 2
    ambiguous = await browser.get(headers=OWN_FETCH)
    assert (ambiguous.status, ambiguous.reason) == (400, Reason.SESSION_AMBIGUOUS)


@pytest.mark.parametrize(
    "referer",
    [
        pytest.param(f"{OWN}/?embed={{}}", id="the usual form"),
        pytest.param(f"{OWN}/a?x=1&%65mbed={{}}#embed=zzz", id="a percent-encoded name, and a fragment"),
    ],
)
async def test_a_referer_of_our_own_page_says_which_session(
    referer: str, app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    browser = Browser(guard(), http)
    one = await browser.open(make_token(bootstrap=True, subject="one"))
    await browser.open(make_token(bootstrap=True, subject="two"))
    await browser.get(headers={**OWN_FETCH, "referer": referer.format(one)})
    assert [embed.subject for embed in app.embeds] == ["one"]


async def test_the_referer_of_another_site_does_not_choose_a_session(
    app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    browser = Browser(guard(), http)
    one = await browser.open(make_token(bootstrap=True, subject="one"))
    await browser.open(make_token(bootstrap=True, subject="two"))
    refused = await browser.get(headers={**FRAME, "referer": f"{PORTAL}/?embed={one}"})
    assert refused.reason == Reason.SESSION_AMBIGUOUS
    assert not _passed(app, refused)


async def test_a_copied_url_opens_nothing_in_another_browser(
    app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    shared = guard()
    victim, thief, bystander = (Browser(shared, http) for _ in range(3))
    handle = await victim.open(make_token(bootstrap=True))
    await bystander.open(make_token(bootstrap=True))
    for browser in (thief, bystander):
        refused = await browser.get(headers=FRAME, query=f"embed={handle}")
        assert (refused.status, refused.reason) == (401, Reason.SESSION_UNKNOWN)
        assert not _passed(app, refused)
    assert (await victim.get(headers=FRAME, query=f"embed={handle}")).status == 200


async def test_a_second_page_view_with_the_old_cookie_is_the_second_identity(
    app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    browser = Browser(guard(), http)
    await browser.open(make_token(bootstrap=True, subject="before logout"))
    second = await browser.open(make_token(bootstrap=True, subject="after login"))
    await browser.get(headers=FRAME, query=f"embed={second}")
    await browser.get(headers={**OWN_FETCH, "referer": f"{OWN}/?embed={second}"})
    assert [embed.subject for embed in app.embeds] == ["after login", "after login"]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param({"sec-fetch-site": "cross-site", "origin": PORTAL}, Reason.SESSION_NOT_SAME_ORIGIN, id="fetch"),
        pytest.param({"sec-fetch-site": "same-site"}, Reason.SESSION_NOT_SAME_ORIGIN, id="a sibling site"),
        pytest.param({}, Reason.SESSION_NOT_SAME_ORIGIN, id="a browser without Fetch Metadata"),
        pytest.param(
            {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
            Reason.SESSION_NOT_SAME_ORIGIN,
            id="typed into the address bar",
        ),
        pytest.param({**FRAME, "referer": "https://evil.example/"}, Reason.EMBEDDER_NOT_ALLOWED, id="a hostile frame"),
    ],
)
async def test_a_session_cookie_is_not_read_for_anybody(
    headers: dict[str, str], reason: Reason, app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    browser = Browser(guard(), http)
    handle = await browser.open(make_token(bootstrap=True))
    refused = await browser.get(headers=headers, query=f"embed={handle}")
    assert refused.reason == reason
    assert not _passed(app, refused)


async def test_a_listed_site_cannot_post_a_form_into_another_customers_frame(
    app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    browser = Browser(guard(), http)
    handle = await browser.open(make_token(bootstrap=True))
    other = {**FRAME, "origin": "https://a.customers.example", "referer": "https://a.customers.example/"}
    refused = await browser.get(headers=other, query=f"embed={handle}", method="POST")
    assert refused.reason == Reason.SESSION_NOT_SAME_ORIGIN
    assert not _passed(app, refused)
    own = {**OWN_FETCH, "origin": OWN}
    assert (await browser.get(headers=own, query=f"embed={handle}", method="POST")).status == 200


async def test_a_planted_second_cookie_is_refused(app: Recorder, guard: Any, http: Any, make_token: Any) -> None:
    shared = guard()
    browser = Browser(shared, http)
    handle = await browser.open(make_token(bootstrap=True))
    ((name, value),) = browser.cookies.items()
    for cookies in (f"{name}=planted; {name}={value}", f"{name}={value}; {name}={value}"):
        refused = await http(shared, "GET", "/", {**OWN_FETCH, "cookie": cookies}, query=f"embed={handle}")
        assert refused.reason == Reason.SESSION_AMBIGUOUS
    assert not app.scopes
    assert (await browser.get(headers=OWN_FETCH, query=f"embed={handle}")).status == 200


def _with_sessions(app: Any, settings: Any, clock: FakeClock) -> tuple[Any, CachedVerifier]:
    """The two layers that sessions take, behind an origin layer that has found the portal listed."""
    sessions = EmbedSessions(MemoryStore(clock=clock), lifetime_seconds=3600, leeway_seconds=30)
    verifier = CachedVerifier(settings.token_policy, settings.key_ring, TokenCache(10))
    exchange = BootstrapExchangeMiddleware(app, sessions=sessions, clock=clock)
    layer = EmbedTokenMiddleware(exchange, verifier=verifier, carriers=["session"], sessions=sessions, clock=clock)

    async def listed(scope: Any, receive: Any, send: Any) -> None:
        trail_of(scope).embedder = parse_origin(PORTAL)
        await layer(scope, receive, send)

    return listed, verifier


async def test_a_session_ends_with_its_claims(app: Recorder, make_settings: Any, http: Any, make_token: Any) -> None:
    clock = FakeClock()
    listed, _ = _with_sessions(app, make_settings(), clock)
    browser = Browser(listed, http)
    handle = await browser.open(make_token(bootstrap=True, now=clock(), session_seconds=600))
    clock.advance(599)
    assert (await browser.get(headers=OWN_FETCH, query=f"embed={handle}")).status == 200
    clock.advance(2)
    over = await browser.get(headers=OWN_FETCH, query=f"embed={handle}")
    assert over.reason == Reason.SESSION_UNKNOWN


async def test_a_session_ends_with_the_key_that_vouched_for_it(
    app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    def keys(kid: str) -> str:
        octets = base64.urlsafe_b64encode(TEST_SECRET.encode()).rstrip(b"=").decode()
        return json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "kid": kid, "k": octets}]})

    clock = FakeClock()
    listed, verifier = _with_sessions(app, make_settings(secret=None, keys=keys("old")), clock)
    browser = Browser(listed, http)
    handle = await browser.open(make_token(bootstrap=True, now=clock()))
    assert (await browser.get(headers=OWN_FETCH, query=f"embed={handle}")).status == 200
    verifier.source.ring = make_settings(secret=None, keys=keys("new")).key_ring
    over = await browser.get(headers=OWN_FETCH, query=f"embed={handle}")
    assert over.reason == Reason.KEY_UNKNOWN


async def test_a_store_that_does_not_answer_is_503(
    app: Recorder, guard: Any, http: Any, make_token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser(guard(), http)
    handle = await browser.open(make_token(bootstrap=True))

    async def down(*_: Any) -> None:
        raise StoreUnavailable("down")

    monkeypatch.setattr(MemoryStore, "get", down)
    refused = await browser.get(headers=OWN_FETCH, query=f"embed={handle}")
    assert (refused.status, refused.reason) == (503, Reason.STORE_UNAVAILABLE)
    assert not _passed(app, refused)


async def test_the_state_is_always_overwritten_and_never_shared(
    app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    shared = {"embed": "forged", "pool": object()}
    guarded = guard(exempt_paths=["/health"])
    await http(guarded, "GET", "/", {"x-embed-token": make_token()}, state=shared)
    await http(guarded, "GET", "/health", {"x-embed-subject": "admin"}, state=shared)
    await http(guarded, "GET", "/", {"x-embed-token": make_token(subject="two")}, state=None)
    assert [getattr(embed, "subject", embed) for embed in app.embeds] == ["user-1", None, "two"]
    assert shared["embed"] == "forged", "the server's own dictionary is left alone"
    assert app.scopes[0]["state"]["pool"] is shared["pool"]


async def test_a_socket_offers_its_token_as_a_subprotocol(
    app: Recorder, guard: Any, websocket: Any, make_token: Any
) -> None:
    token = make_token()
    answer = await websocket(guard(), "/live", {"origin": PORTAL}, subprotocols=["embed", f"embed.token.{token}"])
    assert answer.messages[0] == {"type": "websocket.accept", "subprotocol": "embed"}
    assert app.scopes[0]["subprotocols"] == ["embed"]
    assert (b"sec-websocket-protocol", b"embed") in app.scopes[0]["headers"]
    assert token not in repr(app.scopes[0]["headers"])


@pytest.mark.parametrize(
    ("headers", "offers", "reason"),
    [
        pytest.param({}, ["embed"], Reason.TOKEN_MISSING, id="no token"),
        pytest.param({}, ["embed", "embed.token.a.b.c"], Reason.TOKEN_MALFORMED, id="a bad token"),
        pytest.param({}, ["embed.token.TOKEN", "embed.token.TOKEN"], Reason.CREDENTIALS_REPEATED, id="two tokens"),
        pytest.param({"x-embed-token": "TOKEN"}, ["embed.token.TOKEN"], Reason.CREDENTIALS_REPEATED, id="two carriers"),
        pytest.param({"origin": "https://evil.example"}, ["embed.token.TOKEN"], Reason.ORIGIN_NOT_ALLOWED, id="origin"),
        pytest.param({"origin": "null"}, ["embed.token.TOKEN"], Reason.ORIGIN_NULL, id="a sandboxed page"),
    ],
)
async def test_a_socket_is_refused_before_it_is_accepted(
    headers: dict[str, str], offers: list[str], reason: Reason,
    app: Recorder, guard: Any, websocket: Any, make_token: Any,
) -> None:  # fmt: skip
    token = make_token()
    given = {"origin": PORTAL, **{name: value.replace("TOKEN", token) for name, value in headers.items()}}
    offered = [offer.replace("TOKEN", token) for offer in offers]
    answer = await websocket(guard(), "/live", given, subprotocols=offered)
    assert [message["type"] for message in answer.messages] == [
        "websocket.http.response.start", "websocket.http.response.body"
    ]  # fmt: skip
    assert answer.reason == reason
    assert not app.scopes


@pytest.mark.parametrize("extensions", [{}, None], ids=["without extensions", "extensions of None"])
async def test_a_server_without_denial_responses_closes_with_1008(
    extensions: Any, app: Recorder, guard: Any, websocket: Any
) -> None:
    async def served(scope: Any, receive: Any, send: Any) -> None:
        await guard()({**scope, "extensions": extensions}, receive, send)

    answer = await websocket(served, "/live", {"origin": PORTAL})
    assert answer.messages == [{"type": "websocket.close", "code": 1008, "reason": "token_missing"}]
    assert not app.scopes


async def test_an_app_that_chooses_a_subprotocol_keeps_its_choice(
    make_settings: Any, websocket: Any, make_token: Any
) -> None:
    async def choosing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "subprotocol": "graphql-ws"})
        await send({"type": "websocket.close"})

    guard = ToucanGuard(choosing, settings=make_settings(token_carriers=["websocket"]))
    answer = await websocket(
        guard, "/", {"origin": PORTAL}, subprotocols=["embed", "graphql-ws", f"embed.token.{make_token()}"]
    )
    assert answer.messages[0]["subprotocol"] == "graphql-ws"


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        pytest.param(OWN, None, id="our own page"),
        pytest.param(PORTAL, Reason.ORIGIN_NOT_ALLOWED, id="a listed site has no session"),
        pytest.param("https://charts.example.evil.example", Reason.ORIGIN_NOT_ALLOWED, id="a stranger"),
        pytest.param(None, Reason.ORIGIN_MISSING, id="no Origin"),
    ],
)
async def test_a_socket_with_an_embed_session_comes_from_our_own_page(
    origin: str | None, reason: Reason | None, app: Recorder, guard: Any, http: Any, websocket: Any, make_token: Any
) -> None:
    shared = guard()
    browser = Browser(shared, http)
    handle = await browser.open(make_token(bootstrap=True))
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    headers = {"cookie": cookie, **({"origin": origin} if origin else {})}
    answer = await websocket(shared, "/live", headers, query=f"embed={handle}")
    if reason is None:
        assert answer.messages[0]["type"] == "websocket.accept"
        assert app.embeds[0].subject == "user-1"
    else:
        assert answer.reason == reason
        assert not app.scopes


async def test_a_forged_host_does_not_make_a_stranger_our_own_page(
    app: Recorder, guard: Any, http: Any, websocket: Any, make_token: Any
) -> None:
    shared = guard(trusted_proxies=["10.0.0.0/8"])
    browser = Browser(shared, http)
    await browser.open(make_token(bootstrap=True))
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    forwarded = {"x-forwarded-proto": "https", "x-forwarded-host": "evil.example", "host": "evil.example"}
    headers = {"cookie": cookie, "origin": "https://evil.example", **forwarded}
    refused = await websocket(shared, "/live", headers)
    assert refused.reason == Reason.ORIGIN_NOT_ALLOWED
    # A named proxy may say so; then its word replaces the configured origin.
    named = await websocket(shared, "/live", headers, client=("10.0.0.1", 1))
    assert named.messages[0]["type"] == "websocket.accept"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """What the guard's layers look at, often while a connection is open."""
    clock = FakeClock()
    for layer in (AdmissionMiddleware, EmbedTokenMiddleware):
        monkeypatch.setitem(layer.__init__.__kwdefaults__, "clock", clock)
    monkeypatch.setattr(live, "_LONGEST_SECONDS", 0.01)
    return clock


class Socket:
    """A WebSocket app that stays open until it is told that the client has gone; ``then`` happens meanwhile."""

    def __init__(self, then: Callable[[], None] = lambda: None, *, accept: bool = True) -> None:
        self._then = then
        self._accept = accept
        self.cancelled = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._accept:
            await send({"type": "websocket.accept"})
        self._then()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise


async def test_a_socket_is_closed_when_its_token_expires(
    make_settings: Any, websocket: Any, make_token: Any, audit_lines: Any, clock: FakeClock
) -> None:
    app = Socket(lambda: clock.advance(4))
    guard = ToucanGuard(app, settings=make_settings(leeway_seconds=0))
    token = make_token(lifetime_seconds=3, now=clock())
    with anyio.fail_after(30):
        answer = await websocket(guard, "/live", {"origin": PORTAL, "x-embed-token": token})
    assert [message["type"] for message in answer.messages] == ["websocket.accept", "websocket.close"]
    assert (answer.messages[1]["code"], answer.messages[1]["reason"]) == (1008, "token_expired")
    assert app.cancelled
    assert [(line["event"], line["outcome"]) for line in audit_lines()] == [
        ("decision", "allow"), ("completion", "deny")
    ]  # fmt: skip


async def test_what_an_app_says_on_after_the_end_of_its_token_does_not_leave(
    make_settings: Any, websocket: Any, make_token: Any, clock: FakeClock
) -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        clock.advance(4)
        try:
            await anyio.sleep(30)
        finally:
            with anyio.CancelScope(shield=True):
                await send({"type": "websocket.send", "text": "one more row"})

    guard = ToucanGuard(stubborn, settings=make_settings(leeway_seconds=0))
    token = make_token(lifetime_seconds=3, now=clock())
    answer = await websocket(guard, "/live", {"origin": PORTAL, "x-embed-token": token})
    assert [message["type"] for message in answer.messages] == ["websocket.accept", "websocket.close"]


async def test_a_socket_that_is_still_not_accepted_is_refused_when_its_token_expires(
    make_settings: Any, websocket: Any, make_token: Any, audit_lines: Any, clock: FakeClock
) -> None:
    app = Socket(lambda: clock.advance(4), accept=False)
    guard = ToucanGuard(app, settings=make_settings(leeway_seconds=0))
    token = make_token(lifetime_seconds=3, now=clock())
    with anyio.fail_after(30):
        answer = await websocket(guard, "/live", {"origin": PORTAL, "x-embed-token": token})
    assert answer.reason == Reason.TOKEN_EXPIRED
    assert [(line["event"], line["outcome"]) for line in audit_lines()] == [("decision", "deny")]


@pytest.mark.parametrize("ended_by", ["the app closes", "the client leaves"])
async def test_what_an_app_does_after_the_socket_is_not_cut_short(
    ended_by: str, make_settings: Any, websocket: Any, make_token: Any, clock: FakeClock
) -> None:
    finished = False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal finished
        await receive()
        await send({"type": "websocket.accept"})
        await anyio.wait_all_tasks_blocked()  # the guard watches
        if ended_by == "the app closes":
            await send({"type": "websocket.close"})
        else:
            await receive()
        clock.advance(4)
        await anyio.sleep(0.1)  # ten looks
        finished = True

    guard = ToucanGuard(app, settings=make_settings(leeway_seconds=0))
    token = make_token(lifetime_seconds=3, now=clock())
    answer = await websocket(guard, "/live", {"origin": PORTAL, "x-embed-token": token})
    assert finished
    assert all(message.get("code") != 1008 for message in answer.messages)


async def test_a_socket_has_the_same_leeway_as_a_request(
    make_settings: Any, websocket: Any, make_token: Any, clock: FakeClock
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        clock.advance(4)
        await anyio.sleep(0.1)  # ten looks
        await send({"type": "websocket.close", "code": 1000})

    guard = ToucanGuard(app, settings=make_settings(leeway_seconds=30))
    token = make_token(lifetime_seconds=3, now=clock())
    answer = await websocket(guard, "/live", {"origin": PORTAL, "x-embed-token": token})
    assert answer.messages[-1] == {"type": "websocket.close", "code": 1000}


async def test_the_layer_alone_closes_an_expired_socket_too(
    make_settings: Any, websocket: Any, make_token: Any
) -> None:
    layer = _alone(Socket(), make_settings(leeway_seconds=0))
    token = make_token(lifetime_seconds=3)  # by the clock on the wall, without a look before its end
    with anyio.fail_after(30):
        answer = await websocket(layer, "/live", {"x-embed-token": token})
    assert answer.messages[-1] == {"type": "websocket.close", "code": 1008, "reason": "token_expired"}


def _alone(app: Any, settings: Any, **more: Any) -> EmbedTokenMiddleware:
    verifier = CachedVerifier(settings.token_policy, settings.key_ring, TokenCache(10))
    return EmbedTokenMiddleware(app, **{"verifier": verifier, "carriers": ["x-embed-token"], **more})


async def test_the_layer_works_alone(app: Recorder, make_settings: Any, http: Any, make_token: Any) -> None:
    layer = _alone(app, make_settings())
    assert (await http(layer, "GET", "/", {"x-embed-token": make_token()})).status == 200
    assert app.embeds[0].subject == "user-1"
    assert app.embeds[0].rls is None
    refused = await http(layer, "GET", "/", {})
    assert refused.reason == Reason.TOKEN_MISSING
    assert len(app.scopes) == 1


async def test_a_refused_connection_has_no_embed_either(make_settings: Any, http: Any) -> None:
    left: list[Any] = []

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await _alone(Recorder(), make_settings())(scope, receive, send)
        left.append(scope["state"]["embed"])

    refused = await http(served, "GET", "/", state={"embed": "forged"})
    assert (refused.reason, left) == (Reason.TOKEN_MISSING, [None])


async def test_a_bootstrap_token_is_never_an_embed(
    app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    sessions = EmbedSessions(MemoryStore(clock=time.time), lifetime_seconds=3600, leeway_seconds=30)
    layer = _alone(app, make_settings(), carriers=["session"], sessions=sessions)
    await http(layer, "GET", "/", FRAME, query=f"embed_token={make_token(bootstrap=True)}")
    assert app.embeds == [None]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"carriers": ["session"]}, id="the carrier session without sessions"),
        pytest.param({"carriers": ["cookie"]}, id="an unknown carrier"),
        pytest.param({"carriers": "authorization"}, id="one text"),
    ],
)
def test_a_layer_that_could_not_hold_does_not_start(options: Any, make_settings: Any) -> None:
    with pytest.raises(ConfigError):
        _alone(Recorder(), make_settings(), **options)


async def test_other_kinds_of_connections_pass_untouched(make_settings: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    guard = ToucanGuard(app, settings=make_settings())
    for kind in ("lifespan", "email"):
        await guard({"type": kind}, None, None)  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}, {"type": "email"}]


async def test_nested_guards_agree_on_one_identity(
    make_settings: Any, http: Any, make_token: Any, audit_lines: Any
) -> None:
    async def chart(request: Request) -> JSONResponse:
        return JSONResponse([request.state.embed.subject, current_row_access.get() is not None])

    inner = Middleware(ToucanGuard, settings=make_settings())
    app = Starlette(routes=[Mount("/embed", routes=[Route("/chart", chart)], middleware=[inner])])
    app.add_middleware(ToucanGuard, settings=make_settings())
    headers = {"authorization": f"Bearer {make_token()}", "origin": PORTAL}
    answer = await http(app, "GET", "/embed/chart", headers)
    assert json.loads(answer.body) == ["user-1", True]
    assert answer.header("access-control-allow-origin") == PORTAL
    assert len(audit_lines()) == 1
    refused = await http(app, "GET", "/embed/chart", {"origin": PORTAL})
    assert refused.reason == Reason.TOKEN_MISSING
    assert len(audit_lines()) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"issuer": "https://other.example"}, Reason.ISSUER_NOT_ALLOWED, id="another issuer"),
        pytest.param({"audience": "other"}, Reason.AUDIENCE_NOT_ALLOWED, id="another audience"),
        pytest.param({"secret": "x9#kQ7!another-secret-of-another-host-Zp4"}, Reason.KEY_UNKNOWN, id="another key"),
        pytest.param({"token_lifetime_seconds": 60}, Reason.TOKEN_LIFETIME_TOO_LONG, id="a shorter lifetime"),
    ],
)
async def test_a_nested_guard_of_other_settings_does_not_believe_the_outer_one(
    changes: Any, reason: Reason, app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    nested = ToucanGuard(ToucanGuard(app, settings=make_settings(**changes)), settings=make_settings())
    refused = await http(nested, "GET", "/", {"x-embed-token": make_token()})
    assert refused.reason == reason
    assert not _passed(app, refused)


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        pytest.param([_jwk("k1", "ours")], None, id="the same key in a ring of its own"),
        pytest.param([_jwk("k1", "ours"), _jwk("k2", "more")], None, id="the same key beside others"),
        pytest.param([_jwk("k1", "theirs"), _jwk("k2", "more")], Reason.KEY_UNKNOWN, id="another key of the same name"),
    ],
)
async def test_a_nested_guard_compares_the_key_and_not_its_name(
    inner: Any, reason: Reason | None, app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    ours = _jwk("k1", "ours")
    guards = [make_settings(secret=None, keys=json.dumps({"keys": keys})) for keys in (inner, [ours])]
    nested = ToucanGuard(ToucanGuard(app, settings=guards[0]), settings=guards[1])
    answer = await http(nested, "GET", "/", {"x-embed-token": make_token(key=ours)})
    assert _passed(app, answer) == (reason is None)
    assert reason is None or answer.reason == reason


async def test_a_nested_guard_that_requires_a_tenant_gets_one(
    app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    inner = ToucanGuard(app, settings=make_settings())
    nested = ToucanGuard(inner, settings=make_settings(require_tenant=False))
    refused = await http(nested, "GET", "/", {"x-embed-token": make_token(tenant=None)})
    assert refused.reason == Reason.CLAIM_MISSING
    assert not _passed(app, refused)


async def test_what_a_nested_guard_verifies_is_recorded_as_verified(
    app: Recorder, make_settings: Any, http: Any, make_token: Any, audit_lines: Any
) -> None:
    nested = ToucanGuard(ToucanGuard(app, settings=make_settings()), settings=make_settings(exempt_paths=["/chart"]))
    assert (await http(nested, "GET", "/chart", {"authorization": f"Bearer {make_token()}"})).status == 200
    assert [(line["exempt"], line["subject"]) for line in audit_lines()] == [(False, "user-1")]


@pytest.mark.parametrize(("outer", "inner"), [(True, False), (False, True), (True, True)])
async def test_grants_are_report_only_where_every_guard_in_front_says_so(
    outer: bool, inner: bool, app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    def settings(report_only: bool) -> Any:
        return make_settings(report_only=["grant"] if report_only else [])

    asks = GrantMiddleware(app, type="dashboard", id="elsewhere", action="view")
    nested = ToucanGuard(ToucanGuard(asks, settings=settings(inner)), settings=settings(outer))
    answer = await http(nested, "GET", "/", {"x-embed-token": make_token()})
    assert answer.status == (200 if outer and inner else 403)


async def test_the_row_access_lives_exactly_as_long_as_its_connection(
    make_settings: Any, http: Any, make_token: Any
) -> None:
    inside: list[Any] = []
    outlived: list[str] = []

    async with anyio.create_task_group() as group:
        gone = anyio.Event()

        async def straggler() -> None:
            await gone.wait()
            try:
                require_row_access()
            except NoEmbedContext as error:
                outlived.append(str(error))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            inside.append(require_row_access())
            group.start_soon(straggler)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

        guard = ToucanGuard(app, settings=make_settings())
        assert (await http(guard, "GET", "/", {"x-embed-token": make_token()})).status == 200
        assert current_row_access.get() is None
        assert inside[0].closed
        gone.set()
    assert len(outlived) == 1
    assert "after the end" in outlived[0]


async def test_the_row_access_is_closed_when_the_app_crashes(make_settings: Any, http: Any, make_token: Any) -> None:
    inside: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside.append(require_row_access())
        raise RuntimeError("the app fails")

    guard = ToucanGuard(app, settings=make_settings())
    with pytest.raises(RuntimeError):
        await http(guard, "GET", "/", {"x-embed-token": make_token()})
    assert inside[0].closed
    assert current_row_access.get() is None


async def test_a_guard_without_row_rules_begins_with_nobodys_rows(
    app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    from toucan_guard.rls.context import RowAccess

    rows = make_settings().policy.row_filter({"carrier": "UA"})
    guard = ToucanGuard(app, settings=make_settings(rls_columns=None, insecure_no_rls=True))
    left = current_row_access.set(RowAccess(rows))  # what the request before has left in a reused context
    try:
        assert (await http(guard, "GET", "/", {"x-embed-token": make_token()})).status == 200
    finally:
        current_row_access.reset(left)
    assert app.access == [None]
    assert app.embeds[0].rls is None


async def test_rows_need_the_token_layer_in_front(app: Recorder, make_settings: Any, http: Any) -> None:
    from toucan_guard.core.errors import GuardMissing

    with pytest.raises(GuardMissing):
        await http(RowLevelSecurityMiddleware(app, policy=make_settings().policy))


@pytest.mark.parametrize("room", [0, 9_000, 70_000])
@pytest.mark.parametrize("twice", [False, True])
async def test_what_stands_far_behind_a_token_is_not_overlooked(
    room: int, twice: bool, make_settings: Any, make_token: Any, http: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    guard = ToucanGuard(app, settings=make_settings())
    headers = [
        ("authorization", f"Bearer {make_token()}{' ' * room}, Bearer x"),
        *[("cookie", "a=b")] * (2 if twice else 0),
    ]
    assert (await http(guard, headers=headers)).status == 401
    assert (await http(guard, headers=[("x-embed-token", headers[0][1][7:]), *headers[1:]])).status == 401
