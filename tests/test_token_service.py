"""The token service: what a host gets, what it does not get, and what stands in the record."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limited
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from toucan_guard import Grant, GuardSettings, Reason, ToucanGuard, token_service
from toucan_guard.core.api_key import ApiKey, format_api_key
from toucan_guard.core.api_key_limits import ApiKeyLimits
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny
from toucan_guard.core.errors import ConfigError, GuardMissing, StoreUnavailable
from toucan_guard.core.origins import OriginAllowlist
from toucan_guard.core.token import verify
from toucan_guard.core.token_policy import BOOTSTRAP
from toucan_guard.layers import GrantMiddleware
from toucan_guard.lifespan import guard_lifespan
from toucan_guard.revocation import lift, revoke
from toucan_guard.token_issue import Issued, TokenIssuer
from toucan_guard.tokens import TokenMinter
from toucan_guard.tokens.api_key_book import ApiKeyBook, ApiKeyEntry
from toucan_guard.tokens.api_key_file import entry_members
from toucan_guard.tokens.api_key_store import change_book
from toucan_guard.tokens.api_keys import api_key_digest
from toucan_guard.tokens.keys import KeyRing
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.tokens.store import MemoryStore

PEPPER = "a pepper of this test, 32 bytes long"
SERVICE_KEY = "a service key of this test, 32 bytes"
PORTAL = "https://portal.example"
KEY = format_api_key("live", "0123456789ab", bytes(range(32)))
SECOND = format_api_key("live", "ba9876543210", bytes(range(1, 33)))
VIEW = Grant("dashboard", "delays", ("view",))
BODY: dict[str, Any] = {
    "user": {"distinctId": "u-1", "attributes": {"carrier": "AA"}},
    "permissions": [VIEW.to_claim()],
    "tenant": "AA",
}
GENERATE, REFRESH = "/embed/generate-token", "/embed/refresh-token"


def entry(key: ApiKey = KEY, **changes: Any) -> ApiKeyEntry:
    return replace(ApiKeyEntry(key.key_id, key.environment, api_key_digest(PEPPER.encode(), key.text)), **changes)


async def dawdle(app: Any, path: str, headers: Any, body: bytes, meanwhile: Callable[[], Any]) -> tuple[Any, bytes]:
    """Send a request, and its body only after something else has happened."""
    pairs = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": pairs, "client": None}
    parts = iter([b"", body])
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        part = next(parts)
        if part:
            meanwhile()
        return {"type": "http.request", "body": part, "more_body": not part}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0], b"".join(message.get("body", b"") for message in sent)


class World:
    """One deployment: its API keys, its token service, and a guarded chart."""

    def __init__(self, http: Any, settings: GuardSettings) -> None:
        self._http = http
        self.settings = settings
        grant = GrantMiddleware(_chart, type="dashboard", id_param="id", action="view")
        charts = ToucanGuard(Starlette(routes=[Route("/dashboards/{id}", grant)]), settings=settings)
        self.app = Starlette(routes=[*token_service.routes(settings), Mount("/", app=charts)])
        self.issuer = TokenIssuer(settings, self.keys)

    @property
    def keys(self) -> Any:
        assert self.settings.api_keys is not None
        return self.settings.api_keys

    async def ask(
        self, body: Any = BODY, *, key: str | None = KEY.text, headers: Any = (), method: str = "POST"
    ) -> Any:
        raw = body if isinstance(body, bytes | list) else json.dumps(body).encode()
        own = [("content-type", "application/json"), *([] if key is None else [("x-api-key", key)])]
        pairs = [*(pair for pair in own if pair[0] not in dict(headers)), *headers]
        return await self._http(self.app, method, GENERATE, pairs, body=raw)

    async def token(self, **changes: Any) -> str:
        answer = await self.ask({**BODY, **changes})
        assert answer.status == 200, answer.body
        return str(json.loads(answer.body)["token"])

    async def refresh(self, token: str, *, method: str = "POST", body: bytes = b"", headers: Any = ()) -> Any:
        pairs = [("authorization", f"Bearer {token}"), *headers]
        return await self._http(self.app, method, REFRESH, pairs, body=body)

    async def chart(self, token: str) -> Any:
        return await self._http(self.app, "GET", "/dashboards/delays", {"authorization": f"Bearer {token}"})

    def claims(self, token: str, token_type: str = "embed+jwt") -> VerifiedClaims:
        kid = json.loads(_decoded(token.split(".", maxsplit=1)[0]))["kid"]
        ring = KeyRing([self.keys.signing_key(kid).verification_key()])
        found = verify(token, policy=self.settings.token_policy, keys=ring, now=time.time(), token_type=token_type)
        assert isinstance(found, VerifiedClaims), found
        return found

    def change(self, *entries: ApiKeyEntry) -> None:
        def put(book: ApiKeyBook) -> ApiKeyBook:
            for each in entries:
                book = book.with_entry(each)
            return book

        change_book(self.settings.api_keys_file, put)  # type: ignore[arg-type]
        self.keys.look()  # unless whoever follows the file was faster
        assert all(entry_members(self.keys.entry(each.key_id)) == entry_members(each) for each in entries)


async def _chart(scope: Any, receive: Any, send: Any) -> None:
    request = Request(scope)
    shown = {"subject": request.state.embed.subject, "headers": sorted(request.headers)}
    await JSONResponse(shown)(scope, receive, send)


def _decoded(part: str) -> bytes:
    from base64 import urlsafe_b64decode

    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.fixture
def make_world(http: Any, make_settings: Any, tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(*entries: ApiKeyEntry, **changes: Any) -> World:
        path = tmp_path / "keys.json"
        book = ApiKeyBook.empty(PEPPER.encode())
        for each in entries or (entry(),):
            book = book.with_entry(each)
        change_book(path, lambda _: book, pepper=PEPPER.encode())
        options = {
            "secret": None,
            "api_keys_file": path,
            "api_key_pepper": PEPPER,
            "token_service_key": SERVICE_KEY,
            **changes,
        }
        made.append(World(http, make_settings(**options)))
        return made[-1]

    yield make
    for world in made:
        world.keys.close()


@pytest.mark.anyio
class TestGenerating:
    async def test_a_host_gets_a_token_that_opens_what_it_asked_for(self, make_world: Any, audit_lines: Any) -> None:
        world = make_world()
        answer = await world.ask()
        given_away = json.loads(answer.body)
        assert answer.status == 200
        assert set(given_away) == {"token", "expiresIn", "expiresAt"}
        assert given_away["expiresIn"] == 300
        assert answer.header("cache-control") == "no-store"
        claims = world.claims(given_away["token"])
        assert (claims.subject, claims.tenant, claims.grants, dict(claims.rls)) == (
            "u-1", "AA", (VIEW,), {"carrier": "AA"}
        )  # fmt: skip
        assert (claims.key_id, claims.algorithm, claims.first_issued_at) == (KEY.key_id, "EdDSA", claims.issued_at)
        assert (await world.chart(given_away["token"])).status == 200
        minted, seen = audit_lines()
        assert (minted["outcome"], minted["key_id"], minted["subject"], minted["token_id"]) == (
            "allow", KEY.key_id, "u-1", claims.token_id
        )  # fmt: skip
        assert (seen["key_id"], seen["token_id"]) == (KEY.key_id, claims.token_id)

    async def test_a_frame_gets_a_bootstrap_token_of_the_same_id(self, make_world: Any) -> None:
        world = make_world(token_carriers=["authorization", "session"])
        answer = json.loads((await world.ask({**BODY, "frame": True, "sessionSeconds": 600})).body)
        bootstrap = world.claims(answer["bootstrapToken"], BOOTSTRAP)
        assert (answer["bootstrapExpiresIn"], answer["sessionSeconds"], bootstrap.session_seconds) == (60, 600, 600)
        assert bootstrap.token_id == world.claims(answer["token"]).token_id
        assert replace(bootstrap, expires_at=0, token_type="", session_seconds=None, first_issued_at=None) == replace(
            world.claims(answer["token"]), expires_at=0, token_type="", session_seconds=None, first_issued_at=None
        )

    async def test_a_body_may_come_in_pieces(self, make_world: Any) -> None:
        raw = json.dumps(BODY).encode()
        assert (await make_world().ask([raw[:9], b"", raw[9:]])).status == 200

    @pytest.mark.parametrize(
        ("changes", "key", "status", "reason", "cause"),
        [
            pytest.param({}, None, 401, "api_key_missing", "no header", id="no key"),
            pytest.param({}, "nonsense", 401, "api_key_invalid", "not well-formed", id="no key at all"),
            pytest.param({}, SECOND.text, 401, "api_key_invalid", "no API key has this id", id="an unknown key"),
            pytest.param({"retired": 1}, KEY.text, 401, "api_key_invalid", "was retired", id="a retired key"),
            pytest.param({"not_after": 1}, KEY.text, 401, "api_key_invalid", "has expired", id="an expired key"),
            pytest.param({"not_before": 2**34}, KEY.text, 401, "api_key_invalid", "not valid yet", id="an early key"),
        ],
    )
    async def test_a_key_that_does_not_hold(
        self, changes: Any, key: str | None, status: int, reason: str, cause: str, make_world: Any, audit_lines: Any
    ) -> None:
        answer = await make_world(entry(**changes)).ask(b"never read", key=key)
        told = json.loads(answer.body)
        assert (answer.status, told["reason"]) == (status, reason)
        assert answer.header("www-authenticate") == "ApiKey"
        (line,) = audit_lines()
        assert (line["outcome"], line["reason"]) == ("deny", reason)
        assert cause in line["detail"]
        if reason == "api_key_invalid":
            assert told["detail"] == "the API key is not valid"
        named = {KEY.text: KEY.key_id, SECOND.text: SECOND.key_id}.get(key or "")
        assert line["key_id"] == named
        assert KEY.text not in json.dumps(line) + answer.body.decode()

    async def test_a_key_that_is_sent_twice_is_none(self, make_world: Any, audit_lines: Any) -> None:
        answer = await make_world().ask(headers=[("x-api-key", KEY.text), ("x-api-key", KEY.text)])
        assert (answer.status, answer.reason) == (401, Reason.API_KEY_INVALID)
        assert "repeated" in audit_lines()[0]["detail"]

    @pytest.mark.parametrize(
        "headers",
        [
            pytest.param([("authorization", f"Bearer {KEY.text}")], id="as a bearer token"),
            pytest.param([("x_api_key", KEY.text)], id="with underscores"),
            pytest.param([("cookie", f"x-api-key={KEY.text}")], id="in a cookie"),
        ],
    )
    async def test_a_key_counts_in_its_header_only(self, headers: Any, make_world: Any) -> None:
        assert (await make_world().ask(key=None, headers=headers)).reason == Reason.API_KEY_MISSING

    @pytest.mark.parametrize(
        ("headers", "exposed"),
        [
            pytest.param([("origin", PORTAL)], True, id="Origin"),
            pytest.param([("origin", "null")], True, id="Origin null"),
            pytest.param([("sec-fetch-site", "same-origin")], True, id="Sec-Fetch-Site"),
            pytest.param([("sec-fetch-dest", "empty")], True, id="Sec-Fetch-Dest"),
            pytest.param([("sec-fetch-mode", "cors")], False, id="Node's fetch"),
        ],
    )
    async def test_a_key_in_a_browser_is_refused_and_recorded(
        self, headers: Any, exposed: bool, make_world: Any, audit_lines: Any
    ) -> None:
        answer = await make_world().ask(headers=headers)
        (line,) = audit_lines()
        if exposed:
            assert (answer.status, answer.reason) == (403, Reason.API_KEY_EXPOSED)
            assert (line["reason"], line["key_id"]) == ("api_key_exposed", KEY.key_id)
        else:
            assert answer.status == 200

    async def test_a_preflight_that_asks_for_the_header_betrays_the_page(
        self, make_world: Any, audit_lines: Any
    ) -> None:
        wish = [("origin", PORTAL), ("access-control-request-method", "POST")]
        asking = [*wish, ("access-control-request-headers", "Content-Type, X-API-Key")]
        world = make_world()
        answer = await world.ask(b"", key=None, method="OPTIONS", headers=asking)
        assert (answer.status, answer.reason) == (403, Reason.API_KEY_EXPOSED)
        assert answer.values("access-control-allow-origin") == []
        assert (await world.ask(b"", key=None, method="OPTIONS", headers=wish)).reason == Reason.API_KEY_MISSING

    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW"])
    async def test_another_method_is_told_which_one(self, method: str, make_world: Any, audit_lines: Any) -> None:
        answer = await make_world().ask(method=method)
        assert (answer.status, answer.header("allow")) == (405, "POST")
        assert audit_lines()[0]["status"] == 405

    @pytest.mark.parametrize("type_", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
    async def test_another_type_of_body_is_not_read(self, type_: str, make_world: Any) -> None:
        answer = await make_world().ask(headers=[("content-type", type_)])
        assert (answer.status, answer.reason) == (415, Reason.TOKEN_REQUEST_INVALID)

    async def test_the_type_may_have_parameters(self, make_world: Any) -> None:
        assert (await make_world().ask(headers=[("content-type", "Application/JSON; charset=utf-8")])).status == 200

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            pytest.param(b" " * 16_385, [], id="too much"),
            pytest.param([b" " * 9_000] * 2, [], id="too much in pieces"),
            pytest.param(b"{}", [("content-length", "16385")], id="too much announced"),
            pytest.param(b"{}", [("content-length", "9" * 5_000)], id="an endless number"),
        ],
    )
    async def test_a_large_body_is_not_kept(self, body: Any, headers: Any, make_world: Any) -> None:
        answer = await make_world().ask(body, headers=headers)
        assert (answer.status, answer.reason) == (413, Reason.TOKEN_REQUEST_INVALID)

    async def test_every_mistake_is_in_one_answer(self, make_world: Any, audit_lines: Any) -> None:
        answer = await make_world().ask({"user": {"distinctId": 7}, "tenat": "AA", "lifetimeSeconds": 0})
        told = json.loads(answer.body)
        assert (answer.status, told["reason"]) == (400, "token_request_invalid")
        assert answer.header("content-type") == "application/problem+json"
        assert {error["pointer"] for error in told["errors"]} == {
            "/user/distinctId", "/user/attributes", "/tenant", "/lifetimeSeconds", ""
        }  # fmt: skip
        assert all(set(error) == {"pointer", "detail"} for error in told["errors"])
        (line,) = audit_lines()
        assert line["detail"].startswith("the body has 5 mistakes: /user/distinctId")
        assert line["key_id"] == KEY.key_id

    async def test_what_the_key_may_not_give_is_a_reason_of_its_own(self, make_world: Any, audit_lines: Any) -> None:
        world = make_world(entry(limits=ApiKeyLimits(tenants=("UA",), lifetime_seconds=60)))
        answer = await world.ask({**BODY, "lifetimeSeconds": 61, "frame": 7})
        told = json.loads(answer.body)
        assert (answer.status, told["reason"]) == (403, "api_key_limit")
        assert {error["pointer"] for error in told["errors"]} == {"/tenant", "/lifetimeSeconds", "/frame"}
        assert audit_lines()[0]["reason"] == "api_key_limit"

    async def test_a_host_that_hangs_up_is_recorded(self, make_world: Any, audit_lines: Any) -> None:
        world = make_world()
        route = next(each for each in world.app.routes if each.path == GENERATE)
        scope = {
            "type": "http", "method": "POST", "path": GENERATE, "query_string": b"", "client": None,
            "headers": [(b"x-api-key", KEY.text.encode()), (b"content-type", b"application/json")],
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await route.app(scope, receive, send)
        assert sent == []
        assert [(line["outcome"], line["reason"]) for line in audit_lines()] == [("error", "unanswered")]

    @pytest.mark.parametrize(
        ("changes", "status", "reason"),
        [
            pytest.param({"retired": 1}, 401, "api_key_invalid", id="retired"),
            pytest.param({"not_after": 1}, 401, "api_key_invalid", id="expired"),
            pytest.param({"digest": bytes(32)}, 401, "api_key_invalid", id="made anew"),
            pytest.param({"limits": ApiKeyLimits(tenants=("UA",))}, 403, "api_key_limit", id="narrowed"),
        ],
    )
    async def test_whoever_dawdles_over_the_body_gets_what_the_key_may_give_at_its_end(
        self, changes: Any, status: int, reason: str, make_world: Any, audit_lines: Any
    ) -> None:
        world = make_world()
        headers = [("x-api-key", KEY.text), ("content-type", "application/json")]
        start, body = await dawdle(
            world.app, GENERATE, headers, json.dumps(BODY).encode(), lambda: world.change(entry(**changes))
        )
        assert (start["status"], json.loads(body)["reason"]) == (status, reason)
        assert [line["reason"] for line in audit_lines()] == [reason]

    async def test_what_the_guard_would_refuse_is_not_handed_out(self, make_world: Any) -> None:
        world = make_world(require_token_origins=True)
        answer = await world.ask()
        told = json.loads(answer.body)
        assert (answer.status, told["reason"]) == (400, "token_request_invalid")
        assert "origins_missing" in told["detail"]
        assert (await world.ask({**BODY, "origins": [PORTAL]})).status == 200

    async def test_a_token_for_origins_that_its_tenant_has_not_is_not_handed_out(
        self, make_world: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "tenants.toml").write_text('AA = ["https://a.customers.example"]\n')
        world = make_world(tenant_origins_file=tmp_path / "tenants.toml")
        answer = await world.ask({**BODY, "origins": [PORTAL]})
        assert "tenant_origin_not_allowed" in json.loads(answer.body)["detail"]
        for origins in (None, [], ["https://*.customers.example"]):
            assert (await world.ask({**BODY, "origins": origins})).status == 200

    async def test_a_token_that_would_be_too_long_is_a_mistake(self, make_world: Any) -> None:
        many = [{"type": "dashboard", "id": f"{n:060}", "actions": ["view"]} for n in range(100)]
        answer = await make_world().ask({**BODY, "permissions": many})
        assert answer.status == 400
        assert "bytes" in json.loads(answer.body)["errors"][0]["detail"]

    async def test_no_token_outlives_its_key(self, make_world: Any) -> None:
        ending = int(time.time()) + 50
        world = make_world(entry(not_after=ending), token_carriers=["authorization", "session"])
        answer = json.loads((await world.ask({**BODY, "frame": True})).body)
        assert world.claims(answer["token"]).expires_at <= ending
        assert answer["expiresIn"] <= 50
        assert answer["sessionSeconds"] <= 50
        assert world.issuer.issue(entry(not_after=ending), _asked(world), now=ending - 0.5) == Deny(
            Reason.API_KEY_INVALID, "the API key is not valid", facts={"cause": "the API key has expired"}
        )

    async def test_the_region_of_the_deployment_is_the_token_s(self, make_world: Any) -> None:
        world = make_world(region="eu")
        token = await world.token()
        assert world.claims(token).region == "eu"
        assert (await world.chart(token)).status == 200

    async def test_several_audiences_and_other_claim_names(self, make_world: Any) -> None:
        world = make_world(audience=["charts", "tables"], claim_tenant="https://h.example/org", claim_rls="rows")
        token = await world.token()
        assert world.claims(token).audiences == ("charts", "tables")
        assert (await world.refresh(token)).status == 200

    async def test_without_row_rules_there_are_no_rows_to_ask_for(self, make_world: Any) -> None:
        world = make_world(rls_columns=None, insecure_no_rls=True)
        assert (await world.ask({**BODY, "user": {"distinctId": "u"}})).status == 200

    async def test_a_record_that_cannot_be_written_holds_the_token_back(
        self, make_world: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from toucan_guard.audit.sinks import LineSink
        from toucan_guard.core.errors import AuditWriteError

        def full(*_: Any) -> None:
            raise AuditWriteError("full")

        world = make_world()
        monkeypatch.setattr(LineSink, "write", full)
        answer = await world.ask()
        assert (answer.status, answer.reason) == (503, Reason.AUDIT_UNAVAILABLE)

    async def test_behind_a_guard_the_refusal_names_the_mend(self, make_world: Any, http: Any) -> None:
        world = make_world()
        app = Starlette(routes=token_service.routes(world.settings))
        app.add_middleware(ToucanGuard, settings=world.settings)
        for _ in range(4):  # one that comes again is refused without asking
            for key, told in ((KEY.text, "TOUCAN_GUARD_EXEMPT_PATHS"), ("the host's own", "carries no embed token")):
                problem = json.loads((await http(app, "POST", GENERATE, {"x-api-key": key})).body)
                assert (problem["reason"], told in problem["detail"]) == ("token_missing", True)

    async def test_within_a_guarded_app_it_is_an_exempt_path(
        self, make_world: Any, http: Any, audit_lines: Any
    ) -> None:
        world = make_world(exempt_paths=[GENERATE])
        app = Starlette(routes=token_service.routes(world.settings))
        app.add_middleware(ToucanGuard, settings=world.settings)
        headers = {"x-api-key": KEY.text, "content-type": "application/json"}
        answer = await http(app, "POST", GENERATE, headers, body=json.dumps(BODY).encode())
        assert answer.status == 200
        token = json.loads(answer.body)["token"]
        assert (await http(app, "POST", REFRESH, {"authorization": f"Bearer {token}"})).status == 200
        minted, renewed = audit_lines()
        assert (minted["exempt"], minted["key_id"], renewed["key_id"]) == (True, KEY.key_id, KEY.key_id)


def _asked(world: World) -> Any:
    from toucan_guard.core.token_request import TokenRequest, read_token_request

    found = read_token_request(json.dumps(BODY).encode(), world.issuer.rules(entry()))
    assert isinstance(found, TokenRequest)
    return found


@pytest.mark.anyio
class TestRefreshing:
    async def test_the_same_token_with_a_later_end(self, make_world: Any) -> None:
        world = make_world()
        token = await world.token(origins=[PORTAL])
        answer = await world.refresh(token, headers=[("origin", PORTAL)])
        renewed = json.loads(answer.body)
        assert (answer.status, set(renewed)) == (200, {"token", "expiresIn", "expiresAt"})
        before, after = world.claims(token), world.claims(renewed["token"])
        assert replace(after, issued_at=0, expires_at=0) == replace(before, issued_at=0, expires_at=0)
        assert after.expires_at >= before.expires_at
        assert (await world.chart(renewed["token"])).status == 200

    async def test_an_empty_object_is_no_body(self, make_world: Any) -> None:
        world = make_world()
        assert (await world.refresh(await world.token(), body=b" {} ")).status == 200

    @pytest.mark.parametrize(
        ("method", "body", "status"),
        [
            pytest.param("GET", b"", 405, id="GET"),
            pytest.param("POST", b'{"lifetimeSeconds": 9999}', 400, id="a wish"),
            pytest.param("POST", b" " * 20_000, 413, id="too much"),
        ],
    )
    async def test_nothing_can_be_wished_for(self, method: str, body: bytes, status: int, make_world: Any) -> None:
        world = make_world()
        answer = await world.refresh(await world.token(), method=method, body=body)
        assert (answer.status, answer.reason) == (status, Reason.TOKEN_REQUEST_INVALID)
        assert (answer.header("allow") == "POST") is (status == 405)

    async def test_without_a_token_there_is_nothing_to_renew(self, make_world: Any, http: Any) -> None:
        world = make_world()
        for headers in ({}, {"x-api-key": KEY.text}, {"authorization": "Bearer nonsense"}):
            answer = await http(world.app, "POST", REFRESH, headers)
            assert answer.status == 401
            assert answer.reason in {Reason.TOKEN_MISSING, Reason.TOKEN_MALFORMED}

    async def test_a_token_of_a_retired_key_is_refused(self, make_world: Any, audit_lines: Any) -> None:
        world = make_world()
        token = await world.token()
        assert (await world.chart(token)).status == 200  # remembered
        world.change(entry(retired=time.time()))
        for answer in (await world.refresh(token), await world.chart(token)):
            assert (answer.status, answer.reason) == (401, Reason.KEY_UNKNOWN)

    async def test_the_other_key_s_tokens_live_on(self, make_world: Any) -> None:
        world = make_world(entry(), entry(SECOND))
        first = await world.token()
        second = json.loads((await world.ask(key=SECOND.text)).body)["token"]
        world.change(entry(retired=time.time()))
        assert (await world.chart(second)).status == 200
        assert (await world.refresh(second)).status == 200
        assert (await world.chart(first)).status == 401

    async def test_an_embed_session_ends_with_its_time(self, make_world: Any, http: Any) -> None:
        world = make_world(token_carriers=["authorization", "session"])
        bootstrap = json.loads((await world.ask({**BODY, "frame": True})).body)["bootstrapToken"]
        frame = {
            "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe",
            "referer": f"{PORTAL}/",
        }  # fmt: skip
        opened = await http(world.app, "GET", "/dashboards/delays", frame, query=f"embed_token={bootstrap}")
        assert opened.status == 303
        cookie = str(opened.header("set-cookie")).partition(";")[0]
        own = {"sec-fetch-site": "same-origin", "cookie": cookie}
        assert (await http(world.app, "GET", "/dashboards/delays", own)).status == 200
        answer = await http(world.app, "POST", REFRESH, own)
        assert (answer.status, answer.reason) == (403, Reason.REFRESH_NOT_ALLOWED)

    async def test_a_token_that_the_host_signed_itself_is_its_own_to_renew(self, make_world: Any) -> None:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

        private = generate_private_key(SECP256R1())
        minter = TokenMinter(private, kid="own", issuer="https://host.example", audience="charts")
        world = make_world(keys={"keys": [minter.verification_key.public_jwk()]})
        token = minter.mint(
            subject="u", tenant="AA", rls={"carrier": "AA"}, grants=[VIEW], extra_claims={"first_iat": 1}
        )
        assert (await world.chart(token)).status == 200
        answer = await world.refresh(token)
        assert (answer.status, answer.reason) == (403, Reason.REFRESH_NOT_ALLOWED)
        assert (await world.chart(await world.token())).status == 200


def _renewed(world: World, now: float, **changes: Any) -> Issued | Deny:
    issued = world.issuer.issue(entry(), _asked(world), now=time.time())
    assert isinstance(issued, Issued)
    return world.issuer.renew(replace(issued.claims, **changes), now=now)


class TestRenewing:
    def test_no_longer_than_before(self, make_world: Any) -> None:
        now = time.time()
        renewed = _renewed(make_world(), now)
        assert isinstance(renewed, Issued)
        assert renewed.expires_in == 300

    @pytest.mark.parametrize(("age", "left"), [(0, 300), (600, 300), (899, 1), (900, None), (10_000, None)])
    def test_the_whole_age_is_capped(self, age: int, left: int | None, make_world: Any) -> None:
        now = int(time.time())
        renewed = _renewed(make_world(token_refresh_seconds=900), now, first_issued_at=now - age)
        assert (renewed.expires_in if isinstance(renewed, Issued) else None) == left
        if isinstance(renewed, Issued):
            assert renewed.claims.first_issued_at == now - age

    def test_zero_switches_it_off(self, make_world: Any) -> None:
        renewed = _renewed(make_world(token_refresh_seconds=0), time.time())
        assert isinstance(renewed, Deny)
        assert renewed.reason is Reason.REFRESH_NOT_ALLOWED

    @pytest.mark.parametrize(
        "limits",
        [
            pytest.param(ApiKeyLimits(tenants=("UA",)), id="another tenant"),
            pytest.param(ApiKeyLimits(origins=OriginAllowlist.parse([PORTAL])), id="origins that it does not name"),
            pytest.param(ApiKeyLimits(grants=()), id="no grants"),
            pytest.param(ApiKeyLimits(attributes=MappingProxyType({"carrier": ("UA",)})), id="other values"),
        ],
    )
    def test_limits_that_became_narrower_end_it(self, limits: ApiKeyLimits, make_world: Any) -> None:
        world = make_world()
        claims = world.issuer.issue(entry(), _asked(world), now=time.time())
        assert isinstance(claims, Issued)
        world.change(entry(limits=limits))
        renewed = world.issuer.renew(claims.claims, now=time.time())
        assert isinstance(renewed, Deny)
        assert renewed.reason is Reason.REFRESH_NOT_ALLOWED

    def test_origins_that_one_limit_covers_twice_end_nothing(self, make_world: Any) -> None:
        limits = ApiKeyLimits(origins=OriginAllowlist.parse(["https://*.customers.example"]))
        world = make_world(entry(limits=limits))
        origins = ("https://*.customers.example", "https://a.customers.example")
        asked = replace(_asked(world), origins=origins)
        issued = world.issuer.issue(entry(limits=limits), asked, now=time.time())
        assert isinstance(issued, Issued)
        renewed = world.issuer.renew(issued.claims, now=time.time())
        assert isinstance(renewed, Issued), renewed
        assert renewed.claims.origins == issued.claims.origins

    def test_a_shorter_limit_shortens_it(self, make_world: Any) -> None:
        world = make_world()
        issued = world.issuer.issue(entry(), _asked(world), now=time.time())
        assert isinstance(issued, Issued)
        world.change(entry(limits=ApiKeyLimits(lifetime_seconds=20)))
        renewed = world.issuer.renew(issued.claims, now=time.time())
        assert isinstance(renewed, Issued)
        assert renewed.expires_in == 20

    @pytest.mark.parametrize(("late", "renewed"), [(329, True), (330, False), (7000, False)])
    def test_a_token_that_has_run_out_while_its_request_was_read_is_not_renewed(
        self, late: int, renewed: bool, make_world: Any
    ) -> None:
        now = int(time.time())
        found = _renewed(make_world(), now + late, expires_at=now + 300, issued_at=now)
        assert isinstance(found, Issued) is renewed
        assert renewed or "expired" in found.detail

    @pytest.mark.parametrize("changes", [{"not_after": 1}, {"not_before": 2**34}, {"retired": 1}])
    def test_a_key_that_does_not_work_renews_nothing(self, changes: Any, make_world: Any) -> None:
        world = make_world()
        issued = world.issuer.issue(entry(), _asked(world), now=time.time())
        assert isinstance(issued, Issued)
        world.change(entry(**changes))
        renewed = world.issuer.renew(issued.claims, now=time.time())
        assert isinstance(renewed, Deny)
        assert renewed.facts["cause"]

    @pytest.mark.parametrize("changes", [{"key_id": None}, {"key_id": "x" * 12}, {"first_issued_at": None}])
    def test_a_token_of_somebody_else_is_not_renewed(self, changes: Any, make_world: Any) -> None:
        renewed = _renewed(make_world(), time.time(), **changes)
        assert isinstance(renewed, Deny)
        assert "token service" in renewed.detail

    def test_a_policy_that_changed_meanwhile_is_held(self, make_world: Any) -> None:
        renewed = _renewed(make_world(), time.time(), rls=MappingProxyType({"elsewhere": "x"}))
        assert isinstance(renewed, Deny)
        assert renewed.errors


@pytest.mark.anyio
async def test_a_limit_that_is_misspelt_while_it_serves_opens_nothing(make_world: Any, caplog: Any) -> None:
    limited = entry(limits=ApiKeyLimits(attributes=MappingProxyType({"carrier": ("UA",)})))
    world = make_world(limited)
    misspelt = replace(limited, limits=ApiKeyLimits(attributes=MappingProxyType({"carier": ("UA",)})))
    change_book(world.settings.api_keys_file, lambda book: book.with_entry(misspelt))
    world.keys.look()
    answer = await world.ask()
    assert (answer.status, json.loads(answer.body)["reason"]) == (403, "api_key_limit")
    assert "limits.attributes.carier is no attribute of the row-level policy" in caplog.text


@pytest.mark.anyio
async def test_nothing_blocks_the_loop(make_world: Any, anyio_backend_name: str) -> None:
    from blockbuster import blockbuster_ctx

    world = make_world()
    with blockbuster_ctx() as buster:
        # The one write that is meant to block: the record is on its way before the answer is.
        buster.functions["os.write"].can_block_in("toucan_guard/audit/writers.py", "info")
        buster.functions["os.stat"].can_block_in("toucan_guard/audit/writers.py", "info")
        token = await world.token()
        assert (await world.refresh(token)).status == 200
        assert (await world.chart(token)).status == 200
        await world.keys.look_again("x" * 12)


@pytest.mark.anyio
async def test_a_fastapi_app_has_it_among_its_own_routes(make_world: Any, http: Any) -> None:
    fastapi = pytest.importorskip("fastapi")
    world = make_world(exempt_paths=[GENERATE])
    app = fastapi.FastAPI()
    app.router.routes += token_service.routes(world.settings)
    app.add_middleware(ToucanGuard, settings=world.settings)
    headers = {"x-api-key": KEY.text, "content-type": "application/json"}
    answer = await http(app, "POST", GENERATE, headers, body=json.dumps(BODY).encode())
    token = json.loads(answer.body)["token"]
    assert (await http(app, "POST", REFRESH, {"authorization": f"Bearer {token}"})).status == 200
    assert (await http(app, "POST", REFRESH, {})).status == 401


@pytest.mark.anyio
class TestRevoking:
    async def test_a_revoked_token_ends_all_that_came_from_it(self, make_world: Any) -> None:
        world = make_world(revocation_staleness_seconds=1)
        token = await world.token()
        renewed = json.loads((await world.refresh(token)).body)["token"]
        await revoke(world.settings, token=world.claims(token).token_id)
        for ask in (world.chart, world.refresh):
            with anyio.fail_after(30):
                while (answer := await ask(renewed)).status == 200:  # noqa: ASYNC110 - each asks anew
                    await anyio.sleep(0.05)
            assert answer.reason == Reason.TOKEN_REVOKED

    @pytest.mark.parametrize(
        "named",
        [
            pytest.param({"key": KEY.key_id}, id="what the API key signs with"),
            pytest.param({"subject": "u-1"}, id="the subject"),
            pytest.param({"tenant": "AA"}, id="the tenant"),
        ],
    )
    async def test_what_was_revoked_gets_no_token_that_the_guard_would_refuse(
        self, named: dict[str, Any], make_world: Any, audit_lines: Any
    ) -> None:
        world = make_world(entry(), entry(SECOND))
        await revoke(world.settings, **named)
        answer = await world.ask()
        assert (answer.status, answer.reason) == (403, Reason.TOKEN_REVOKED)
        (line,) = audit_lines()
        assert (line["outcome"], line["reason"], line["key_id"]) == ("deny", "token_revoked", KEY.key_id)
        assert line["subject"] is None  # nothing was given away
        others = await world.ask(
            {**BODY, "tenant": "UA", "user": {**BODY["user"], "distinctId": "u-2"}}, key=SECOND.text
        )
        assert others.status == 200
        await lift(world.settings, **named)
        fresh = World(world._http, world.settings)
        assert (await fresh.ask()).status == 200

    async def test_a_worker_that_serves_hears_of_it_within_the_declared_time(self, make_world: Any) -> None:
        world = make_world(revocation_staleness_seconds=1)
        assert (await world.ask()).status == 200
        await revoke(world.settings, key=KEY.key_id)
        with anyio.fail_after(30):
            while (answer := await world.ask()).status == 200:  # noqa: ASYNC110 - each asks anew
                await anyio.sleep(0.05)
        assert answer.reason == Reason.TOKEN_REVOKED

    @pytest.mark.parametrize("fail_open", [False, True])
    async def test_nobody_gets_a_token_while_nobody_knows_what_was_revoked(
        self, fail_open: bool, make_world: Any, monkeypatch: pytest.MonkeyPatch, audit_lines: Any
    ) -> None:
        async def down(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("down")

        world = make_world(insecure_store_fail_open=fail_open)
        monkeypatch.setattr(MemoryStore, "revoked", down)
        answer = await world.ask()
        (line,) = audit_lines()
        if fail_open:
            assert (answer.status, line["outcome"], line["reason"]) == (200, "would_deny", "store_unavailable")
        else:
            assert (answer.status, answer.reason) == (503, Reason.STORE_UNAVAILABLE)
            assert (line["outcome"], line["reason"]) == ("deny", "store_unavailable")

    async def test_where_nothing_can_be_revoked_nobody_asks(self, make_world: Any) -> None:
        world = make_world(workers=2)
        assert not world.settings.revocable
        assert (await world.ask()).status == 200

    async def test_a_cut_off_ends_what_was_refreshed_after_it(self, make_world: Any) -> None:
        world = make_world()
        claims = world.claims(await world.token())
        later = replace(claims, issued_at=claims.issued_at + 100)
        assert later.first_issued_at == claims.issued_at
        revocations = Revocations(world.settings.store, issuer=world.settings.issuer, staleness_seconds=5)
        await revoke(world.settings, issued_before=claims.issued_at + 50)
        await revocations.refresh()
        refused = revocations.judge(later, time.time())
        assert refused is not None
        assert refused.reason is Reason.TOKEN_REVOKED
        fresh = replace(later, first_issued_at=later.issued_at)
        assert revocations.judge(fresh, time.time()) is None

    @pytest.mark.parametrize(("staleness", "leeway"), [(5, 30), (60, 0), (3600, 60)])
    async def test_no_refresh_outlives_a_revocation_that_its_worker_has_not_heard_of(
        self, staleness: int, leeway: int, make_world: Any
    ) -> None:
        world = make_world(revocation_staleness_seconds=staleness, leeway_seconds=leeway)
        now = time.time()
        (revocation,) = await revoke(world.settings, subject="u-1", now=now)
        last_refresh = now + staleness
        assert revocation.until > last_refresh + world.settings.token_lifetime_seconds + leeway

    async def test_nobody_renews_while_nobody_knows_what_was_revoked(
        self, make_world: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def down(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("down")

        world = make_world(insecure_store_fail_open=True)
        token = await world.token()
        monkeypatch.setattr(MemoryStore, "revoked", down)
        fresh = World(world._http, world.settings)
        assert (await fresh.chart(token)).status == 200
        answer = await fresh.refresh(token)
        assert (answer.status, answer.reason) == (503, Reason.STORE_UNAVAILABLE)


@pytest.mark.anyio
class TestPlacing:
    async def test_refreshing_without_a_guard_is_no_open_door(self, make_world: Any, http: Any) -> None:
        world = make_world()
        with pytest.raises(GuardMissing):
            await http(token_service.RefreshToken(world.issuer), "POST", REFRESH, {})

    async def test_the_host_s_own_way_to_fetch_keys_is_the_only_one(
        self, make_world: Any, make_settings: Any, http: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("httpx2", reason="the settings look for the HTTP library")
        asked: list[str] = []

        async def through_the_proxy(url: str) -> bytes:
            asked.append("through the proxy")
            raise OSError(url)

        async def past_it(_: Any, url: str) -> bytes:
            asked.append("past it")
            raise OSError(url)

        monkeypatch.setattr("toucan_guard.tokens.jwks_fetch.HttpFetch.__call__", past_it)
        world = make_world()
        names = ("api_keys_file", "api_key_pepper", "token_service_key")
        settings = make_settings(
            secret=None,
            jwks_url="https://login.example/keys",
            **{name: getattr(world.settings, name) for name in names},
        )
        app = Starlette(routes=token_service.routes(settings, fetch_keys=through_the_proxy))
        answer = await http(app, "POST", REFRESH, {"authorization": f"Bearer {await world.token()}"})
        assert answer.status == 200
        with anyio.fail_after(20):
            while not asked:  # noqa: ASYNC110 - the fetch runs in the background
                await anyio.sleep(0.01)
        assert asked == ["through the proxy"]
        settings.api_keys.close()

    async def test_a_socket_is_not_renewed(self, make_world: Any, websocket: Any) -> None:
        with pytest.raises(GuardMissing):
            await websocket(token_service.RefreshToken(make_world().issuer))

    async def test_a_key_that_comes_to_the_guard_is_taken_away(self, make_world: Any, http: Any) -> None:
        world = make_world()
        token = await world.token()
        bearer = ("authorization", f"Bearer {token}")
        own = await http(world.app, "GET", "/dashboards/delays", [bearer, ("x-api-key", "the host's own")])
        ours = await http(world.app, "GET", "/dashboards/delays", [bearer, ("x-api-key", KEY.text)])
        assert ("x-api-key" in json.loads(own.body)["headers"], own.status) == (True, 200)
        assert ("x-api-key" in json.loads(ours.body)["headers"], ours.status) == (False, 200)

    async def test_a_browser_that_sends_one_to_the_guard_is_recorded(
        self, make_world: Any, http: Any, audit_lines: Any
    ) -> None:
        world = make_world()
        token = await world.token()
        sent = [("authorization", f"Bearer {token}"), ("x-api-key", KEY.text), ("origin", PORTAL)]
        answer = await http(world.app, "GET", "/dashboards/delays", sent)
        assert (answer.status, answer.reason) == (403, Reason.API_KEY_EXPOSED)
        assert audit_lines()[-1]["key_id"] == KEY.key_id
        sent[1] = ("x-api-key", "the host's own")
        assert (await http(world.app, "GET", "/dashboards/delays", sent)).status == 200


def test_it_wants_api_keys_and_their_pepper(make_settings: Any, make_world: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        token_service.routes(make_settings())
    assert len(caught.value.problems) == 2
    world = make_world()
    with pytest.raises(ConfigError, match="API_KEY_PEPPER"):
        token_service.routes(world.settings.model_copy(update={"api_key_pepper": None}))


def test_it_reads_the_environment(make_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCAN_GUARD_ISSUER", "https://host.example")
    with pytest.raises(ConfigError, match="AUDIENCE"):
        token_service.routes()


KEY_BYTES = st.one_of(
    st.binary(max_size=120).map(lambda raw: raw.decode("latin-1")),
    st.text("0123456789abcdefghijklmnopqrstuvwxyzABCXYZ_", max_size=120).map(lambda text: f"tgk_live_{text}"),
    st.just(KEY.text),
)
BODIES = st.binary(max_size=200) | st.dictionaries(
    st.sampled_from(["user", "tenant", "permissions", "origins", "frame", "x"]), st.none() | st.text() | st.integers()
).map(lambda body: json.dumps(body).encode())


def test_any_bytes_give_a_refusal_and_a_line(make_world: Any, audit_lines: Any) -> None:
    world = make_world()

    @limited(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(key=KEY_BYTES, body=BODIES)
    def refused(key: str, body: bytes) -> None:
        before = len(audit_lines())
        answer = anyio.run(lambda: world.ask(body, key=key))
        assert 400 <= answer.status < 500
        assert answer.reason in {"api_key_invalid", "token_request_invalid", "api_key_limit"}
        assert len(audit_lines()) == before + 1

    refused()


@pytest.mark.anyio
@pytest.mark.parametrize("hidden", [False, True], ids=["by name", "by pseudonym"])
async def test_the_record_of_it_all_tells_no_secret(hidden: bool, make_world: Any, http: Any, tmp_path: Path) -> None:
    world = make_world(entry(), audit_hmac_key="the key of pseudonyms, 32 bytes long" if hidden else None)
    secret = "row-value-that-is-nobodys-business"
    body = {**BODY, "user": {"distinctId": "person-of-interest", "attributes": {"carrier": secret}}}
    answers = [await world.ask(body)]
    token = json.loads(answers[0].body)["token"]
    token_id = world.claims(token).token_id
    for key in (None, SECOND.text, KEY.text[:-1] + "x", "x" * 5000, KEY.text.upper()):
        answers.append(await world.ask(body, key=key))
    answers += [
        await world.ask(body, headers=[("x-api-key", KEY.text), ("cookie", f"a={KEY.text}")]),
        await world.ask(body, headers=[("origin", f"https://{KEY.text}.example"), ("referer", f"https://{KEY.text}/")]),
        await world.ask({**body, "user": {"distinctId": secret, "attributes": {"carrier": [secret], "no": secret}}}),
        await world.ask({**body, "permissions": [{"type": secret, "id": secret, "actions": secret}]}),
        await world.ask(b"[" * 5000),
        await world.ask(method="GET"),
        await world.refresh(token),
        await world.refresh(token[:-4]),
        await world.refresh(token, body=secret.encode()),
        await world.refresh(KEY.text),
        await world.chart(token),
        await world.chart(token + "x"),
    ]
    other = await http(world.app, "GET", "/dashboards/none", {"x-embed-token": token}, query=f"q={secret}")
    answers.append(other)

    record = (tmp_path / "audit.jsonl").read_text("ascii")
    lines = [json.loads(line) for line in record.splitlines()]
    decisions = [line for line in lines if line["event"] == "decision"]
    assert [line["status"] for line in decisions] == [answer.status for answer in answers]
    told = [KEY.text, KEY.text[-20:], SECOND.text[-20:], secret, token, token.rsplit(".", 1)[1], PEPPER]
    told += ["person-of-interest", token_id] if hidden else []
    assert [word for word in told if word in record] == []


@pytest.mark.anyio
async def test_the_app_s_lifespan_closes_the_record_of_both_routes(make_world: Any, http: Any, tmp_path: Path) -> None:
    world = make_world()
    async with guard_lifespan(world.app):
        await http(world.app, "POST", token_service.GENERATE_PATH)
        await http(world.app, "POST", token_service.REFRESH_PATH)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert sorted(line["event"] for line in lines) == ["close", "close", "decision", "decision", "open", "open"]
