"""A frame's first navigation trades its bootstrap token for an embed session, once."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urljoin

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from toucan_guard import Reason, ToucanGuard
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.layers import BootstrapExchangeMiddleware
from toucan_guard.testing import TEST_SECRET
from toucan_guard.tokens.sessions import EmbedSessions
from toucan_guard.tokens.store import MemoryStore

pytestmark = pytest.mark.anyio

PORTAL = "https://portal.example"
OWN = "https://charts.example"
FRAME = {
    "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe", "referer": f"{PORTAL}/"
}  # fmt: skip


class Recorder:
    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(dict(scope))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["state"]["embed"].subject.encode()})


@pytest.fixture
def app() -> Recorder:
    return Recorder()


@pytest.fixture
def guard(app: Recorder, make_settings: Any) -> ToucanGuard:
    return ToucanGuard(app, settings=make_settings(token_carriers=["authorization", "x-embed-token", "session"]))


def _cookie(answer: Any) -> str:
    return str(answer.header("set-cookie")).partition(";")[0]


async def test_a_frame_gets_a_cookie_and_a_clean_url(
    app: Recorder, guard: Any, http: Any, make_token: Any, audit_lines: Any
) -> None:
    token = make_token(bootstrap=True, session_seconds=600)
    first = await http(guard, "GET", "/chart", FRAME, query=f"month=1&embed_token={token}")
    assert (first.status, first.body) == (303, b"")
    location = str(first.header("location"))
    handle = location.removeprefix("?month=1&embed=")
    assert len(handle) == 26
    name, _, rest = str(first.header("set-cookie")).partition("=")
    assert name == f"__Host-embed-{handle}"
    attributes = rest.split("; ")[1:]
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=None", "Partitioned"} <= set(attributes)
    assert any(attribute.startswith("Max-Age=59") or attribute == "Max-Age=600" for attribute in attributes)
    assert not any(attribute.lower().startswith("domain") for attribute in attributes), "a __Host- cookie has none"
    assert first.header("cache-control") == "no-store"
    assert first.header("referrer-policy") == "strict-origin"
    assert "frame-ancestors" in str(first.header("content-security-policy"))
    assert "access-control-allow-credentials" not in dict(first.start["headers"])
    assert not app.scopes, "a bootstrap token never reaches the app"
    assert token not in repr(first.messages)

    second = await http(guard, "GET", "/chart", {**FRAME, "cookie": _cookie(first)}, query=location[1:])
    assert (second.status, second.body) == (200, b"user-1")
    assert app.scopes[0]["query_string"] == location[1:].encode()
    assert b"__Host-embed-" not in repr(app.scopes[0]["headers"]).encode()
    assert [line["outcome"] for line in audit_lines()] == ["allow", "allow"]
    assert audit_lines()[0]["embedder"] == PORTAL
    assert handle not in repr(audit_lines()), "the handle stands in URLs and stays out of the log"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        pytest.param({}, "serve over https, or on localhost", id="nothing, as over http"),
        pytest.param(
            {**FRAME, "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, "on a frame's navigation only", id="a fetch"
        ),
    ],
)
async def test_the_detail_tells_another_request_from_a_browser_that_tells_nothing(
    headers: dict[str, str], said: str, guard: Any, http: Any, make_token: Any, audit_lines: Any
) -> None:
    refused = await http(guard, "GET", "/", headers, query=f"embed_token={make_token(bootstrap=True)}")
    assert (refused.status, refused.reason) == (401, Reason.BOOTSTRAP_NOT_NAVIGATION)
    (line,) = audit_lines()
    assert said in line["detail"]
    assert ("https" in line["detail"]) == (not headers)


@pytest.mark.parametrize(
    ("method", "headers", "reason"),
    [
        pytest.param("GET", {}, Reason.BOOTSTRAP_NOT_NAVIGATION, id="no browser"),
        pytest.param(
            "GET",
            {**FRAME, "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
            Reason.BOOTSTRAP_NOT_NAVIGATION,
            id="a fetch",
        ),
        pytest.param(
            "GET", {**FRAME, "sec-fetch-dest": "document"}, Reason.BOOTSTRAP_NOT_NAVIGATION, id="a whole page"
        ),
        pytest.param("GET", {**FRAME, "sec-fetch-dest": "image"}, Reason.DESTINATION_NOT_ALLOWED, id="an image"),
        pytest.param("HEAD", FRAME, Reason.BOOTSTRAP_NOT_NAVIGATION, id="HEAD spends nothing"),
        pytest.param("POST", {**FRAME, "origin": PORTAL}, Reason.BOOTSTRAP_NOT_NAVIGATION, id="a posted form"),
        pytest.param(
            "GET",
            {name: value for name, value in FRAME.items() if name != "referer"},
            Reason.EMBEDDER_UNKNOWN,
            id="a frame that hides its Referer",
        ),
        pytest.param("GET", {**FRAME, "referer": f"{OWN}/"}, Reason.EMBEDDER_UNKNOWN, id="our own page is not listed"),
        pytest.param(
            "GET", {**FRAME, "referer": "https://evil.example/"}, Reason.EMBEDDER_NOT_ALLOWED, id="a hostile frame"
        ),
        pytest.param(
            "GET",
            {**FRAME, "referer": "https://portal.example.evil.example/"},
            Reason.EMBEDDER_NOT_ALLOWED,
            id="a hostile frame with a listed beginning",
        ),
        pytest.param(
            "GET", {**FRAME, "authorization": "Bearer TOKEN"}, Reason.CREDENTIALS_REPEATED, id="a second credential"
        ),
    ],
)
async def test_a_bootstrap_token_is_accepted_nowhere_else_and_is_not_spent_by_it(
    method: str, headers: dict[str, str], reason: Reason, app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    token = make_token(bootstrap=True)
    given = {name: value.replace("TOKEN", make_token()) for name, value in headers.items()}
    refused = await http(guard, method, "/", given, query=f"embed_token={token}")
    assert refused.reason == reason
    assert not app.scopes
    assert refused.values("set-cookie") == []
    assert (await http(guard, "GET", "/", FRAME, query=f"embed_token={token}")).status == 303


@pytest.mark.parametrize(
    ("carrier", "bootstrap", "reason"),
    [
        pytest.param("query", False, Reason.TOKEN_TYPE_NOT_ALLOWED, id="an embed token in the query"),
        pytest.param("authorization", True, Reason.TOKEN_TYPE_NOT_ALLOWED, id="a bootstrap token in a header"),
        pytest.param("x-embed-token", True, Reason.TOKEN_TYPE_NOT_ALLOWED, id="a bootstrap token in our header"),
        pytest.param("twice", True, Reason.CREDENTIALS_REPEATED, id="the parameter repeated"),
        pytest.param("spelled twice", True, Reason.CREDENTIALS_REPEATED, id="the parameter repeated, encoded"),
    ],
)
async def test_each_kind_of_token_has_its_place(
    carrier: str, bootstrap: bool, reason: Reason, app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    token = make_token(bootstrap=bootstrap)
    queries = {
        "query": f"embed_token={token}",
        "twice": f"embed_token={token}&embed_token={token}",
        "spelled twice": f"embed_token={token}&%65mbed_token={token}",
    }
    headers = {"authorization": {"authorization": f"Bearer {token}"}, "x-embed-token": {"x-embed-token": token}}
    refused = await http(guard, "GET", "/", {**FRAME, **headers.get(carrier, {})}, query=queries.get(carrier, ""))
    assert refused.reason == reason
    assert not app.scopes


async def test_a_percent_encoded_parameter_is_the_same_parameter(guard: Any, http: Any, make_token: Any) -> None:
    answer = await http(guard, "GET", "/", FRAME, query=f"%65mbed%5ftoken={make_token(bootstrap=True)}&a=1")
    assert answer.status == 303
    assert str(answer.header("location")).startswith("?a=1&embed=")


async def test_a_socket_takes_no_bootstrap_token(app: Recorder, guard: Any, websocket: Any, make_token: Any) -> None:
    headers = {"origin": PORTAL, **FRAME}
    refused = await websocket(guard, "/live", headers, query=f"embed_token={make_token(bootstrap=True)}")
    assert refused.reason == Reason.BOOTSTRAP_NOT_NAVIGATION
    assert not app.scopes


async def test_with_the_carrier_off_a_bootstrap_token_is_refused_and_still_hidden(
    app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    guard = ToucanGuard(app, settings=make_settings(exempt_paths=["/health"]))
    token = make_token(bootstrap=True)
    refused = await http(guard, "GET", "/", FRAME, query=f"embed_token={token}")
    assert refused.reason == Reason.TOKEN_MISSING
    assert token not in refused.body.decode()
    seen: list[Any] = []

    async def health(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["query_string"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    exempt = ToucanGuard(health, settings=make_settings(exempt_paths=["/health"]))
    assert (await http(exempt, "GET", "/health", query=f"embed_token={token}&a=1")).status == 204
    assert seen == [b"a=1"]


async def test_the_token_leaves_the_servers_own_scope(guard: Any, make_token: Any) -> None:
    """A server's access log reads the scope that it made, when the response starts."""
    from starlette.types import Message

    token = make_token(bootstrap=True)
    logged: list[bytes] = []
    for query in (f"embed_token={token}", f"a=1&embed_token={token}x"):
        scope: dict[str, Any] = {
            "type": "http", "method": "GET", "path": "/", "query_string": query.encode(), "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in FRAME.items()],
        }  # fmt: skip

        async def send(message: Message, scope: dict[str, Any] = scope) -> None:
            if message["type"] == "http.response.start":
                logged.append(scope["query_string"])

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        await guard(scope, receive, send)
    assert logged == [b"", b"a=1"]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        pytest.param("//evil.example/chart", "", id="a path that looks like another host"),
        pytest.param("///evil.example", "", id="with three slashes"),
        pytest.param("/\\evil.example", "", id="with a backslash"),
        pytest.param("/@evil.example", "", id="with userinfo"),
        pytest.param("/chart", "//evil.example&", id="in the query"),
        pytest.param("/chart", "\r\nlocation: https://evil.example&", id="a line break in the query"),
        pytest.param("/chart", "#@evil.example&", id="a fragment in the query"),
    ],
)
async def test_the_redirect_leads_nowhere_else(path: str, query: str, guard: Any, http: Any, make_token: Any) -> None:
    answer = await http(guard, "GET", path, FRAME, query=f"{query}embed_token={make_token(bootstrap=True)}")
    location = str(answer.header("location"))
    assert location.startswith("?")
    assert location.isprintable()
    assert location.isascii()
    assert "#" not in location
    assert "&embed=" in location or location.startswith("?embed=")
    assert urljoin(f"{OWN}/chart", location).startswith(f"{OWN}/chart?")


async def test_the_sessions_row_filter_lasts_as_long_as_the_session(
    app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    # The token's own is judged on the way to the exchange, and ends within a minute: ``bind`` would refuse it then.
    first = await http(guard, "GET", "/chart", FRAME, query=f"embed_token={make_token(bootstrap=True)}")
    await http(guard, "GET", "/chart", {**FRAME, "cookie": _cookie(first)}, query=str(first.header("location"))[1:])
    embed = app.scopes[0]["state"]["embed"]
    assert embed.expires_at > time.time() + 120
    assert embed.rls.expires_at == embed.expires_at


async def test_the_redirect_names_one_session(guard: Any, http: Any, make_token: Any) -> None:
    token = make_token(bootstrap=True)
    answer = await http(guard, "GET", "/", FRAME, query=f"embed=old&embed_token={token}&%65mbed=older&b=2")
    location = str(answer.header("location"))
    assert location.count("embed=") == 1
    followed = await http(guard, "GET", "/", {**FRAME, "cookie": _cookie(answer)}, query=location[1:])
    assert followed.status == 200


async def test_a_reload_with_the_cookie_is_led_to_its_session_again_and_nobody_else_is(
    app: Recorder, guard: Any, http: Any, make_token: Any
) -> None:
    query = f"embed_token={make_token(bootstrap=True)}"
    first = await http(guard, "GET", "/", FRAME, query=query)
    again = await http(guard, "GET", "/", {**FRAME, "cookie": _cookie(first)}, query=query)
    assert (again.status, again.header("location")) == (303, first.header("location"))
    assert again.values("set-cookie") == [], "the secret is shown once"

    name = _cookie(first).partition("=")[0]
    for cookie in ({}, {"cookie": f"{name}=guessed"}, {"cookie": f"__Host-embed-{'a' * 26}=other"}):
        stolen = await http(guard, "GET", "/", {**FRAME, **cookie}, query=query)
        assert (stolen.status, stolen.reason) == (401, Reason.TOKEN_SPENT)
    repeated = await http(guard, "GET", "/", {**FRAME, "cookie": f"{_cookie(first)}; {name}=planted"}, query=query)
    assert repeated.reason == Reason.SESSION_AMBIGUOUS
    assert not app.scopes


async def test_all_other_checks_come_before_the_token_is_spent(guard: Any, http: Any, make_token: Any) -> None:
    for changes, reason in [
        ({"rls": {}}, Reason.RLS_ATTRIBUTE_MISSING),
        ({"region": "eu"}, Reason.REGION_MISMATCH),
        ({"origins": ["https://a.customers.example"]}, Reason.TOKEN_ORIGIN_NOT_ALLOWED),
        ({"now": 1_700_000_000}, Reason.TOKEN_EXPIRED),
    ]:
        token = make_token(bootstrap=True, **changes)
        for _ in range(2):
            refused = await http(guard, "GET", "/", FRAME, query=f"embed_token={token}")
            assert refused.reason == reason, "the second time as the first"


@pytest.mark.parametrize("full_at", ["spend", "put"])
async def test_a_store_that_is_full_is_503_and_opens_nothing(
    full_at: str, app: Recorder, guard: Any, http: Any, make_token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("full")

    monkeypatch.setattr(MemoryStore, full_at, full)
    refused = await http(guard, "GET", "/", FRAME, query=f"embed_token={make_token(bootstrap=True)}")
    assert (refused.status, refused.reason) == (503, Reason.STORE_UNAVAILABLE)
    assert refused.values("set-cookie") == []
    assert not app.scopes


async def test_a_header_token_passes_the_exchange(app: Recorder, guard: Any, http: Any, make_token: Any) -> None:
    assert (await http(guard, "GET", "/", {"x-embed-token": make_token()})).body == b"user-1"


async def test_alone_the_exchange_lets_pass_what_is_no_bootstrap_token(http: Any) -> None:
    passed: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

    sessions = EmbedSessions(MemoryStore(clock=lambda: 0.0), lifetime_seconds=60, leeway_seconds=0)
    layer = BootstrapExchangeMiddleware(app, sessions=sessions)
    await http(layer)
    await layer({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert passed == ["http", "lifespan"]


async def test_mounts_of_one_app_spend_a_token_once_and_share_its_session(
    app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    def mount(path: str) -> Mount:
        settings = make_settings(token_carriers=["session"])
        return Mount(path, app=app, middleware=[Middleware(ToucanGuard, settings=settings)])

    served = Starlette(routes=[mount("/charts"), mount("/tables")])
    query = f"embed_token={make_token(bootstrap=True, session_seconds=600)}"
    first = await http(served, "GET", "/charts/a", FRAME, query=query)
    assert first.status == 303
    assert (await http(served, "GET", "/tables/a", FRAME, query=query)).reason == "token_spent"
    followed = {**FRAME, "cookie": _cookie(first)}
    assert (await http(served, "GET", "/tables/a", followed, query=str(first.header("location"))[1:])).status == 200


async def test_guards_of_other_keys_share_no_session(
    app: Recorder, make_settings: Any, http: Any, make_token: Any
) -> None:
    ours, theirs = (
        ToucanGuard(app, settings=make_settings(token_carriers=["session"], secret=secret))
        for secret in (TEST_SECRET, "x9#kQ7!another-secret-of-another-host-Zp4")
    )
    token = make_token(bootstrap=True, session_seconds=600)
    first = await http(ours, "GET", "/chart", FRAME, query=f"embed_token={token}")
    headers = {**FRAME, "cookie": _cookie(first)}
    query = str(first.header("location"))[1:]
    assert (await http(theirs, "GET", "/chart", headers, query=query)).reason == "session_unknown"
    assert (await http(ours, "GET", "/chart", headers, query=query)).status == 200
