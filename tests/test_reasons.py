"""Every published reason, caused by a request through the whole guard. A member without a case fails."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from toucan_guard import Grant, GuardSettings, Reason, ToucanGuard, token_service
from toucan_guard.audit.open import open_sink
from toucan_guard.core.api_key import format_api_key
from toucan_guard.core.api_key_limits import ApiKeyLimits
from toucan_guard.core.decisions import EXPLANATIONS
from toucan_guard.core.errors import AuditWriteError, StoreUnavailable
from toucan_guard.layers import AuditLogMiddleware, EmbedTokenMiddleware, GrantMiddleware, RowFilterMiddleware
from toucan_guard.testing import TEST_SECRET
from toucan_guard.tokens.api_key_book import ApiKeyEntry
from toucan_guard.tokens.api_key_store import change_book
from toucan_guard.tokens.api_keys import api_key_digest
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.revocation import Revocation, RevocationKind
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.tokens.store import MemoryStore

PORTAL = "https://portal.example"
OWN = "https://charts.example"
FRAME = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}


async def _chart(request: Request) -> JSONResponse:
    return JSONResponse({"subject": request.state.embed.subject})


async def _crash(_: Request) -> JSONResponse:
    raise RuntimeError("the app fails")


def _app() -> Starlette:
    grant = Middleware(GrantMiddleware, type="dashboard", id_param="id", action="view")
    return Starlette(
        routes=[
            Route("/dashboards/{id}", _chart, methods=["GET", "POST"], middleware=[grant]),
            Route("/crash", _crash),
            Route("/unfiltered", _chart, middleware=[Middleware(RowFilterMiddleware, require_row_filter=("flights",))]),
        ]
    )


class World:
    """One guard, its token maker, and a client."""

    def __init__(self, http: Any, make_settings: Any, make_token: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._http = http
        self.make_settings: Callable[..., GuardSettings] = make_settings
        self.token: Callable[..., str] = make_token
        self.monkeypatch = monkeypatch

    async def ask(
        self,
        method: str = "GET",
        path: str = "/dashboards/delays",
        headers: Any = (),
        *,
        query: str = "",
        **settings: Any,
    ) -> str:
        guard = ToucanGuard(_app(), settings=self.make_settings(**settings))
        return await self.ask_guard(guard, method, path, headers, query=query)

    async def ask_guard(
        self,
        guard: Any,
        method: str = "GET",
        path: str = "/dashboards/delays",
        headers: Any = (),
        *,
        query: str = "",
        body: bytes = b"",
    ) -> str:
        answer = await self._http(guard, method, path, headers, query=query, body=body)
        assert answer.status == EXPLANATIONS[Reason(answer.reason)].status
        return str(answer.reason)

    async def with_token(self, token: str, **settings: Any) -> str:
        return await self.ask(headers={"authorization": f"Bearer {token}"}, **settings)

    def bearer(self, **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(**claims)}"}

    def signed(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token whose signature holds, whatever its header and claims say."""
        genuine = self.token()
        head, payload, _ = (_decoded(part) for part in genuine.split("."))
        merged = {**json.loads(payload), **claims}
        kept = {name: value for name, value in merged.items() if value is not ...}
        signing_input = f"{_encoded({**json.loads(head), **(header or {})})}.{_encoded(kept)}"
        signature = hmac.digest(TEST_SECRET.encode(), signing_input.encode(), hashlib.sha256)
        return f"{signing_input}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def _spent(world: World) -> str:
    guard = ToucanGuard(_app(), settings=world.make_settings(token_carriers=["session"]))
    query = f"embed_token={world.token(bootstrap=True)}"
    frame = {**FRAME, "referer": f"{PORTAL}/"}
    first = await world._http(guard, "GET", "/dashboards/delays", frame, query=query)
    assert first.status == 303
    return await world.ask_guard(guard, headers=frame, query=query)


async def _store_down(world: World) -> str:
    async def down(*_: Any, **__: Any) -> bool:
        raise StoreUnavailable("down")

    world.monkeypatch.setattr(MemoryStore, "spend", down)
    return await world.ask(
        headers={**FRAME, "referer": f"{PORTAL}/"},
        query=f"embed_token={world.token(bootstrap=True)}",
        token_carriers=["session"],
    )


async def _no_headers(world: World) -> str:
    guard = ToucanGuard(_app(), settings=world.make_settings())

    async def server(scope: Any, receive: Any, send: Any) -> None:
        await guard({**scope, "headers": [(b"host", b"charts.example", b"and more")]}, receive, send)

    return await world.ask_guard(server)


async def _audit_down(world: World) -> str:
    from toucan_guard.audit.sinks import LineSink

    def full(*_: Any) -> None:
        raise AuditWriteError("full")

    world.monkeypatch.setattr(LineSink, "write", full)
    return await world.ask(headers=world.bearer())


async def _tenant_origin(world: World) -> str:
    settings = world.make_settings()
    path = settings.audit.replace("audit.jsonl", "tenants.toml")
    await anyio.Path(path).write_text(f'acme = ["{PORTAL}"]\n')
    return await world.ask(
        headers={**world.bearer(), "origin": "https://a.customers.example"}, tenant_origins_file=path
    )


async def _revoked(world: World) -> str:
    settings, store = world.make_settings(), MemoryStore(clock=time.time)
    revoked = Revocation(RevocationKind.SUBJECT, "user-1", until=time.time() + 600)
    await store.revoke(settings.issuer, revoked.to_entry())
    layer = EmbedTokenMiddleware(
        _app(),
        verifier=CachedVerifier(settings.token_policy, settings.key_ring, TokenCache(10)),
        carriers=settings.token_carriers,
        revocations=Revocations(store, issuer=settings.issuer, staleness_seconds=5),
    )
    others = await world._http(layer, "GET", "/dashboards/delays", world.bearer(subject="user-2"))
    assert others.status == 200
    audited = AuditLogMiddleware(layer, sink=open_sink(settings.audit))
    return await world.ask_guard(audited, headers=world.bearer())


async def _keys_down(world: World) -> str:
    async def down(url: str) -> bytes:
        raise OSError(url)

    settings = world.make_settings(secret=None, jwks_url="https://login.example/jwks.json")
    return await world.ask_guard(ToucanGuard(_app(), settings=settings, fetch_keys=down), headers=world.bearer())


async def _service(
    world: World,
    body: object = None,
    *,
    presented: bool = True,
    refresh: bool = False,
    limits: ApiKeyLimits | None = None,
    headers: dict[str, str] | None = None,
) -> str:
    """Ask the token service, with the API key that it knows or without."""
    pepper, key = TEST_SECRET[::-1], format_api_key("live", "0123456789ab", bytes(32))
    path = Path(world.make_settings().audit).with_name("keys.json")
    entry = ApiKeyEntry(key.key_id, "live", api_key_digest(pepper.encode(), key.text), limits=limits or ApiKeyLimits())
    change_book(path, lambda book: book.with_entry(entry), pepper=pepper.encode())
    settings = world.make_settings(
        secret=None,
        api_keys_file=path,
        api_key_pepper=pepper,
        token_service_key=TEST_SECRET[1:],
        token_refresh_seconds=0,
    )
    app = Starlette(routes=token_service.routes(settings))
    given = {"content-type": "application/json", **({"x-api-key": key.text} if presented else {}), **(headers or {})}
    raw = json.dumps(body).encode()
    try:
        if not refresh:
            return await world.ask_guard(app, "POST", "/embed/generate-token", given, body=raw)
        minted = await world._http(app, "POST", "/embed/generate-token", given, body=raw)
        bearer = {"authorization": f"Bearer {json.loads(minted.body)['token']}"}
        return await world.ask_guard(app, "POST", "/embed/refresh-token", bearer)
    finally:
        assert settings.api_keys is not None
        settings.api_keys.close()


def _embed_cookie(handle: str) -> str:
    return f"__Host-embed-{handle}=secret"


_SECRET = base64.urlsafe_b64encode(b"k" * 31 + b"9").decode().rstrip("=")
JWKS = json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "kid": "current", "k": _SECRET}]})
MINTABLE = {"user": {"distinctId": "u-1", "attributes": {"carrier": "AA"}}, "tenant": "acme"}
HANDLE = "a" * 26
OTHER = "b" * 26

Case = Callable[[World], Awaitable[str]]

CASES: dict[Reason, Case] = {
    Reason.ORIGIN_REPEATED: lambda w: w.ask(headers=[("origin", PORTAL), ("origin", PORTAL)]),
    Reason.ORIGIN_MALFORMED: lambda w: w.ask(headers={"origin": f"{PORTAL}/"}),
    Reason.ORIGIN_NULL: lambda w: w.ask(headers={"origin": "null"}),
    Reason.ORIGIN_NOT_ALLOWED: lambda w: w.ask(headers={"origin": "https://portal.example.evil.example"}),
    Reason.ORIGIN_MISSING: lambda w: w.ask("POST", headers={"sec-fetch-site": "cross-site"}),
    Reason.FETCH_SITE_CONFLICT: lambda w: w.ask("POST", headers={"sec-fetch-site": "same-origin", "origin": PORTAL}),
    Reason.EMBEDDER_NOT_ALLOWED: lambda w: w.ask(headers={**FRAME, "referer": "https://evil.example/"}),
    Reason.EMBEDDER_UNKNOWN: lambda w: w.ask(
        headers=FRAME, query=f"embed_token={w.token(bootstrap=True)}", token_carriers=["session"]
    ),
    Reason.DESTINATION_NOT_ALLOWED: lambda w: w.ask(headers={"sec-fetch-mode": "navigate", "sec-fetch-dest": "script"}),
    Reason.PREFLIGHT_NOT_ALLOWED: lambda w: w.ask(
        "OPTIONS", headers={"origin": PORTAL, "access-control-request-method": "BREW"}
    ),
    Reason.TOKEN_MISSING: lambda w: w.ask(),
    Reason.CREDENTIALS_REPEATED: lambda w: w.ask(headers={**w.bearer(), "x-embed-token": w.token()}),
    Reason.TOKEN_TOO_LARGE: lambda w: w.with_token("a" * 8193),
    Reason.TOKEN_MALFORMED: lambda w: w.with_token("a.b"),
    Reason.TOKEN_TYPE_NOT_ALLOWED: lambda w: w.with_token(w.signed({"typ": "JWT"})),
    Reason.ALGORITHM_NOT_ALLOWED: lambda w: w.with_token(w.signed({"alg": "HS512"})),
    Reason.KEY_UNKNOWN: lambda w: w.with_token(w.signed({"kid": "retired"}), secret=None, keys=JWKS),
    Reason.SIGNATURE_INVALID: lambda w: w.with_token(w.token()[:-10] + "AAAAAAAAAA"),
    Reason.TOKEN_EXPIRED: lambda w: w.with_token(w.token(now=1_700_000_000)),
    Reason.TOKEN_NOT_YET_VALID: lambda w: w.with_token(w.token(now=4_000_000_000)),
    Reason.TOKEN_LIFETIME_TOO_LONG: lambda w: w.with_token(w.token(lifetime_seconds=7200)),
    Reason.ISSUER_NOT_ALLOWED: lambda w: w.with_token(w.token(issuer="https://other.example")),
    Reason.AUDIENCE_NOT_ALLOWED: lambda w: w.with_token(w.token(audience="elsewhere")),
    Reason.CLAIM_MISSING: lambda w: w.with_token(w.signed(jti=...)),
    Reason.CLAIM_INVALID: lambda w: w.with_token(w.signed(exp="soon")),
    Reason.TOKEN_REVOKED: _revoked,
    Reason.BOOTSTRAP_NOT_NAVIGATION: lambda w: w.ask(
        query=f"embed_token={w.token(bootstrap=True)}", token_carriers=["session"]
    ),
    Reason.TOKEN_SPENT: _spent,
    Reason.SESSION_UNKNOWN: lambda w: w.ask(
        headers={"sec-fetch-site": "same-origin", "cookie": _embed_cookie(HANDLE)}, token_carriers=["session"]
    ),
    Reason.SESSION_AMBIGUOUS: lambda w: w.ask(
        headers={"sec-fetch-site": "same-origin", "cookie": f"{_embed_cookie(HANDLE)}; {_embed_cookie(OTHER)}"},
        token_carriers=["session"],
    ),
    Reason.SESSION_NOT_SAME_ORIGIN: lambda w: w.ask(
        headers={"sec-fetch-site": "cross-site", "cookie": _embed_cookie(HANDLE)}, token_carriers=["session"]
    ),
    Reason.ORIGINS_MISSING: lambda w: w.with_token(w.token(), require_token_origins=True),
    Reason.TOKEN_ORIGIN_NOT_ALLOWED: lambda w: w.ask(
        headers={**w.bearer(origins=[PORTAL]), "origin": "https://a.customers.example"}
    ),
    Reason.TENANT_ORIGIN_NOT_ALLOWED: _tenant_origin,
    Reason.REGION_MISMATCH: lambda w: w.with_token(w.token(region="eu"), region="us"),
    Reason.RLS_MISSING: lambda w: w.with_token(w.token(rls=None)),
    Reason.RLS_ATTRIBUTE_UNKNOWN: lambda w: w.with_token(w.token(rls={"carrier": "AA", "carier": "UA"})),
    Reason.RLS_ATTRIBUTE_MISSING: lambda w: w.with_token(w.token(rls={})),
    Reason.RLS_ATTRIBUTE_INVALID: lambda w: w.with_token(w.token(rls={"carrier": {"not": "a value"}})),
    Reason.ROW_FILTER_MISSING: lambda w: w.ask(path="/unfiltered", headers=w.bearer()),
    Reason.GRANT_MISSING: lambda w: w.ask(
        headers=w.bearer(grants=[Grant("dashboard", "routes", ("view",))]),
    ),
    Reason.API_KEY_MISSING: lambda w: _service(w, presented=False),
    Reason.API_KEY_INVALID: lambda w: _service(w, headers={"x-api-key": "tgk_live_nobody"}),
    Reason.API_KEY_EXPOSED: lambda w: _service(w, headers={"origin": PORTAL}),
    Reason.API_KEY_LIMIT: lambda w: _service(w, MINTABLE, limits=ApiKeyLimits(tenants=("other",))),
    Reason.TOKEN_REQUEST_INVALID: lambda w: _service(w, {**MINTABLE, "tenat": "acme"}),
    Reason.REFRESH_NOT_ALLOWED: lambda w: _service(w, MINTABLE, refresh=True),
    Reason.STORE_UNAVAILABLE: _store_down,
    Reason.AUDIT_UNAVAILABLE: _audit_down,
    Reason.KEYS_UNAVAILABLE: _keys_down,
    Reason.REQUEST_MALFORMED: _no_headers,
}


@pytest.fixture
def world(http: Any, make_settings: Any, make_token: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(http, make_settings, make_token, monkeypatch)


@pytest.mark.anyio
@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.APP_FAILED])
async def test_every_reason_has_a_request_that_causes_it(reason: Reason, world: World, audit_lines: Any) -> None:
    assert await CASES[reason](world) == reason
    if reason is not Reason.AUDIT_UNAVAILABLE:
        last = audit_lines()[-1]
        assert (last["outcome"], last["reason"]) == ("deny", reason)


@pytest.mark.anyio
async def test_app_failed_is_a_socket_that_crashes_before_it_is_accepted(
    websocket: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    async def crashing(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("the app fails")

    guard = ToucanGuard(crashing, settings=make_settings())
    headers = {"origin": PORTAL, "authorization": f"Bearer {make_token()}"}
    with pytest.raises(RuntimeError):
        await websocket(guard, "/live", headers)
    assert [(line["outcome"], line["reason"], line["status"]) for line in audit_lines()] == [
        ("error", "app_failed", 500)
    ]


@pytest.mark.anyio
async def test_the_request_that_the_cases_change_is_allowed(world: World, http: Any) -> None:
    guard = ToucanGuard(_app(), settings=world.make_settings())
    answer = await http(guard, "GET", "/dashboards/delays", {**world.bearer(), "origin": PORTAL})
    assert (answer.status, json.loads(answer.body)) == (200, {"subject": "user-1"})


def test_every_reason_is_explained_in_everyday_words() -> None:
    assert set(EXPLANATIONS) == set(Reason)
    for reason, told in EXPLANATIONS.items():
        assert told.title, reason
        assert told.title[0].isupper(), reason
        assert told.advice.endswith("."), reason
        assert not told.title.endswith("."), reason


def test_every_reason_has_a_case() -> None:
    assert set(CASES) == set(Reason) - {Reason.APP_FAILED}
