"""Admission: who is let in without another look, who is not, and what is asked each time."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from toucan_guard import Deny, GuardSettings, Reason, Refused, ToucanGuard
from toucan_guard.admission import Admission
from toucan_guard.admitted import AdmittedConnection
from toucan_guard.asgi import deny
from toucan_guard.core.decisions import ALLOW, Allow
from toucan_guard.core.errors import AuditWriteError, StoreUnavailable
from toucan_guard.core.exempt_paths import exempt_paths
from toucan_guard.core.origins import OriginAllowlist, OriginPolicy
from toucan_guard.core.tenancy import TenancyPolicy
from toucan_guard.layers import (
    AdmissionMiddleware,
    ArrivalMiddleware,
    AuditLogMiddleware,
    CorsMiddleware,
    EmbedTokenMiddleware,
    ExemptMiddleware,
    GateMiddleware,
    OriginMiddleware,
    RowFilterMiddleware,
    RowLevelSecurityMiddleware,
    TenancyMiddleware,
)
from toucan_guard.receipts import require_receipts
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.testing import TEST_SECRET, FakeClock, audit_capture, sign_token
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.key_source import StaticKeys
from toucan_guard.tokens.keys import KeyRing
from toucan_guard.tokens.revocation import Revocation, RevocationKind, revoke
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.tokens.store import MemoryStore
from toucan_guard.trail import existing_trail, trail_of

pytestmark = pytest.mark.anyio

PORTAL, OWN, EVIL = "https://portal.example", "https://charts.example", "https://evil.example"
OTHER_SECRET = "x9#kQ7!another-secret-of-another-host-Zp4"
NOW = 1_800_000_000.0
HANDLE = "a" * 26


async def receive_nothing() -> Any:
    return {"type": "http.request", "body": b""}


async def chart(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["state"]["embed"].subject.encode()})


class Store(MemoryStore):
    """The memory store, which can be down."""

    down = False

    async def revoked(self, issuer: str, *, since: str = "") -> Any:
        if self.down:
            raise StoreUnavailable("down")
        return await super().revoked(issuer, since=since)


class World:
    """The layers of a guard on a clock that stands; ``asked`` counts the requests that they have looked at."""

    def __init__(
        self,
        settings: GuardSettings,
        app: Any = chart,
        *,
        revocable: bool = False,
        fail_open: bool = False,
        verifier: CachedVerifier | None = None,
        sink: Any = None,
        in_front: Callable[[Any], Any] = lambda app: app,
        **options: Any,
    ) -> None:
        self.clock, self.asked = FakeClock(NOW), 0
        self.keys = StaticKeys(settings.key_ring)
        self.cache = TokenCache(100, max_seconds=100_000)
        self.verifier = verifier = verifier or CachedVerifier(settings.token_policy, self.keys, self.cache)
        self.store = Store(clock=self.clock)
        revocations = Revocations(
            self.store, issuer=settings.issuer, staleness_seconds=5, clock=self.clock, monotonic=self.clock
        )
        stands: dict[str, Any] = {
            "revocations": revocations if revocable else None,
            "insecure_store_fail_open": fail_open,
            "clock": self.clock,
        }
        policy = OriginPolicy(allowlist=settings.allowlist, public_origins=settings.public_origins)
        tenancy = TenancyPolicy(region=settings.region, tenant_origins=settings.tenant_origins)
        report_only = settings.report_only
        assert settings.policy is not None
        layers: Any = RowLevelSecurityMiddleware(ArrivalMiddleware(app), policy=settings.policy)
        layers = TenancyMiddleware(layers, policy=tenancy, report_only_region="region" in report_only)
        layers = EmbedTokenMiddleware(layers, verifier=verifier, carriers=settings.token_carriers, **stands)
        layers = OriginMiddleware(
            layers,
            policy=policy,
            trusted_proxies=settings.trusted_proxies,
            report_only="origin" in report_only,
        )
        layers = ExemptMiddleware(layers, bare=app, paths=settings.exempt_paths)
        layers = CorsMiddleware(self._counting(layers), policy=policy, allowlist=settings.allowlist)
        audited = AuditLogMiddleware(layers, sink=sink, clock=self.clock)
        admission = AdmissionMiddleware(
            audited,
            bare=app,
            recorder=audited.recorder,
            verifier=verifier,
            is_exempt=exempt_paths(settings.exempt_paths, settings.exempt_prefixes),
            policy=settings.policy,
            tenants_listed=bool(settings.tenant_origins),
            trusted_proxies=settings.trusted_proxies,
            **stands,
            **options,
        )
        self.admissions = admission._admissions
        self.app = in_front(admission)

    def _counting(self, app: Any) -> Any:
        async def counted(scope: Any, receive: Any, send: Any) -> None:
            self.asked += 1
            await app(scope, receive, send)

        return counted

    def token(self, **changes: Any) -> str:
        return sign_token(**{"rls": {"carrier": "AA"}, "lifetime_seconds": 1000, "now": self.clock(), **changes})


@pytest.fixture
def request_of(http: Any) -> Callable[..., Any]:
    """One request with a token; says what came back, and whether the layers were asked."""

    async def ask(world: World, token: str, headers: Any = (), **more: Any) -> tuple[Any, bool]:
        before = world.asked
        pairs = [("authorization", f"Bearer {token}"), *(headers.items() if isinstance(headers, dict) else headers)]
        answer = await http(world.app, more.pop("method", "GET"), more.pop("path", "/"), pairs, **more)
        return answer, world.asked > before

    return ask


@pytest.fixture
def admitted(request_of: Any) -> Callable[..., Any]:
    """A world and a token that has just been admitted to it, with a request of ``headers``."""

    async def admit(world: World, headers: Any = (), **changes: Any) -> str:
        token = world.token(**changes)
        assert [(await request_of(world, token, headers))[1] for _ in range(4)] == [True, False, False, False]
        return token

    return admit


async def test_the_first_request_is_kept_and_the_second_admitted(
    make_settings: Any, admitted: Any, request_of: Any
) -> None:
    world = World(make_settings())
    token = await admitted(world)
    answer, _ = await request_of(world, token)
    assert (answer.status, answer.body) == (200, b"user-1")


SAID = {"origin": PORTAL, "referer": f"{PORTAL}/", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"headers": {**SAID, "origin": OWN}}, None, id="another Origin"),
        pytest.param({"headers": {**SAID, "origin": EVIL}}, Reason.ORIGIN_NOT_ALLOWED, id="a stranger's Origin"),
        pytest.param({"headers": {**SAID, "referer": "https://evil.example/"}}, None, id="another Referer"),
        pytest.param({"headers": {**SAID, "sec-fetch-site": "none"}}, None, id="another Sec-Fetch-Site"),
        pytest.param({"headers": {**SAID, "sec-fetch-mode": "navigate"}}, None, id="another Sec-Fetch-Mode"),
        pytest.param({"headers": {**SAID, "sec-fetch-dest": "iframe"}}, None, id="a Sec-Fetch-Dest"),
        pytest.param({"headers": {}}, None, id="none of them"),
        pytest.param({"headers": [*SAID.items(), ("origin", PORTAL)]}, Reason.ORIGIN_REPEATED, id="a repeated Origin"),
        pytest.param({"headers": {**SAID, "authorization": "Basic x"}}, Reason.CREDENTIALS_REPEATED, id="also Basic"),
        pytest.param({"headers": {**SAID, "x-embed-token": "x"}}, Reason.CREDENTIALS_REPEATED, id="a second token"),
        pytest.param({"query": "embed_token=x"}, Reason.CREDENTIALS_REPEATED, id="a bootstrap token"),
        pytest.param({"headers": {**SAID, "cookie": f"__Host-embed-{HANDLE}=s"}}, None, id="a session's cookie"),
        pytest.param({"headers": {**SAID, "x-api-key": "the host's"}}, None, id="an API key"),
        pytest.param({"headers": {**SAID, "sec-websocket-protocol": "embed"}}, None, id="a subprotocol"),
        pytest.param({"headers": {**SAID, "access-control-request-method": "PUT"}}, None, id="a preflight's header"),
        pytest.param({"method": "POST"}, None, id="another method"),
        pytest.param({"method": "OPTIONS"}, None, id="OPTIONS"),
        pytest.param({"method": "HEAD"}, None, id="HEAD"),
    ],
)  # fmt: skip
async def test_a_request_that_says_something_else_is_asked_about(
    changes: dict[str, Any], reason: Reason | None, make_settings: Any, admitted: Any, request_of: Any
) -> None:
    world = World(make_settings())
    token = await admitted(world, SAID)
    answer, asked = await request_of(world, token, **{"headers": SAID, **changes})
    assert asked
    assert (answer.status == 200) if reason is None else (answer.reason == reason)
    assert not (await request_of(world, token, SAID))[1]  # what was kept is kept


@pytest.mark.parametrize(
    ("headers", "more", "left"),
    [
        pytest.param({"cookie": "theme=dark"}, {}, [(b"cookie", b"theme=dark")], id="a cookie of the host's"),
        pytest.param({"accept": "a", "x": "y"}, {}, [(b"accept", b"a"), (b"x", b"y")], id="headers that nobody reads"),
        pytest.param([("x", "y"), ("x", "z")], {}, [(b"x", b"y"), (b"x", b"z")], id="one of them twice"),
        pytest.param({"x_embed_subject": "root", "x-embed-tenant": "x"}, {}, [], id="imitations of the guard's result"),
        pytest.param([("x_embed_subject", "a"), ("x_embed_subject", "b")], {}, [], id="and again"),
        pytest.param({}, {"path": "/other", "query": "a=b"}, [], id="another path and query"),
    ],
)
async def test_what_no_layer_looks_at_changes_nothing_and_the_app_sees_what_it_may(
    headers: Any, more: Any, left: Any, make_settings: Any, admitted: Any, request_of: Any
) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])
        await chart(scope, receive, send)

    world = World(make_settings(), app)
    token = await admitted(world)
    answer, asked = await request_of(world, token, headers, **more)
    assert (answer.status, asked) == (200, False)
    assert seen == [[], [], [], [], left]


@pytest.mark.parametrize(
    "authorization",
    ["bearer {}", "Bearer  {}", "Bearer\t{}", "Bearer {} ", "Bearer {}x", "Bearer ", "Bearer", "Basic {}", "{}", ""],
)
async def test_another_spelling_of_the_token_is_asked_about(
    authorization: str, make_settings: Any, admitted: Any, http: Any
) -> None:
    world = World(make_settings())
    token = await admitted(world)
    before = world.asked
    await http(world.app, headers={"authorization": authorization.format(token)})
    assert world.asked == before + 1


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        (b"accept", bytearray(b"text/html"), 200),
        (b"x-other", memoryview(b"x"), 200),
        (b"origin", bytearray(PORTAL.encode()), 400),
        (b"authorization", memoryview(b"Bearer x"), 400),
    ],
)
async def test_a_header_that_is_no_bytes_is_answered_for_on_the_record(
    name: bytes, value: Any, status: int, make_settings: Any, make_token: Any, http: Any, audit_lines: Any
) -> None:
    async def served(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"] = [*dict([*scope["headers"], (name, value)]).items()]
        await guard(scope, receive, send)

    guard, headers = ToucanGuard(chart, settings=make_settings()), {"authorization": f"Bearer {make_token()}"}
    for _ in range(2):
        await http(guard, headers=headers)
    answer = await http(served, headers=headers)
    assert (answer.status, audit_lines()[-1]["status"], len(audit_lines())) == (status, status, 3)


NO_HEADERS = {
    "nothing": None,
    "a number": 5,
    "a text": "ab",
    "bytes": b"ab",
    "one part": [(b"a",)],
    "three parts": [(b"a", b"b", b"c")],
    "three parts that come once": lambda: iter([(b"a", b"b", b"c")]),
    "no part": [()],
    "texts of two characters": ["ab"],
    "bytes of two": [b"ab"],
    "a mapping": {b"ab": b"cd"},
    "a number among them": [5],
    "nothing among them": [None],
    "a name that is no bytes": [("origin", b"https://evil.example")],
    "a name that has no hash": [([b"origin"], b"https://evil.example")],
    "a value that is no bytes": [(b"sec-fetch-site", "cross-site")],
    "a value that is nothing": [(b"cookie", None)],
    "a request's id that is nothing": [(b"x-request-id", None)],
    "an address that is nothing": [(b"x-forwarded-for", None)],
}


@pytest.mark.parametrize("size", [100, 0], ids=["remembering", "asking each time"])
@pytest.mark.parametrize("exempt", [False, True], ids=["protected", "exempt"])
@pytest.mark.parametrize("headers", [pytest.param(headers, id=name) for name, headers in NO_HEADERS.items()])
async def test_headers_that_are_no_pairs_of_bytes_are_refused_on_the_record(
    headers: Any, exempt: bool, size: int, http: Any, websocket: Any, make_settings: Any, audit_lines: Any
) -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the app is called")

    async def served(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"] = headers() if callable(headers) else headers
        await guard(scope, receive, send)

    settings = make_settings(
        token_cache_size=size, trusted_proxies=["192.0.2.0/24"], exempt_paths=["/"] if exempt else []
    )
    guard = ToucanGuard(never, settings=settings)
    for _ in range(2):
        answer = await http(served)
        assert (answer.status, answer.reason) == (400, "request_malformed")
        assert answer.header("content-security-policy") == "frame-ancestors 'none'"
    socket = await websocket(served)
    assert (socket.messages[0]["type"], socket.status) == ("websocket.http.response.start", 400)
    lines = audit_lines()
    assert [(line["outcome"], line["reason"], line["status"]) for line in lines] == [
        ("deny", "request_malformed", 400)
    ] * 3
    assert [line["steps"] for line in lines] == [[{"layer": "headers", "decision": "deny:request_malformed"}]] * 3


async def test_what_is_admitted_behind_a_proxy_is_recorded_whatever_stands_in_other_headers(
    http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    more: list[Any] = []

    async def served(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"] = [*scope["headers"], *more]
        await guard(scope, receive, send)

    guard = ToucanGuard(chart, settings=make_settings(trusted_proxies=["192.0.2.0/24"]))
    for headers in ({"authorization": f"Bearer {make_token()}"}, {}):
        more.clear()
        statuses = {(await http(served, headers=headers)).status for _ in range(3)}
        for name in (b"x-forwarded-for", b"x-request-id", b"x-forwarded-host"):
            more[:] = [(name, None), (b"x-forwarded-proto", b"https")]
            assert {(await http(served, headers=headers)).status} <= statuses | {400}
    assert len(audit_lines()) == 12


@pytest.mark.parametrize("size", [100, 0], ids=["remembering", "asking each time"])
async def test_headers_may_be_anything_that_can_be_gone_through(
    make_settings: Any, make_token: Any, audit_lines: Any, size: int
) -> None:
    seen, sent = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])
        await chart(scope, receive, send)

    async def keep(message: Any) -> None:
        sent.append(message)

    guard = ToucanGuard(app, settings=make_settings(token_cache_size=size))
    headers = [(b"host", b"charts.example"), (b"authorization", b"Bearer " + make_token().encode())]
    for given in (headers, tuple(headers), iter(headers), (pair for pair in headers)):
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": given}
        await guard(scope, receive_nothing, keep)

    assert seen == [headers[:1]] * 4
    assert [message["status"] for message in sent if "status" in message] == [200] * 4
    assert len(audit_lines()) == 4


async def test_nobody_is_admitted_by_what_somebody_else_was(
    make_settings: Any, admitted: Any, request_of: Any, http: Any
) -> None:
    world = World(make_settings())
    await admitted(world)
    answer, asked = await request_of(world, world.token(rls={"airline": "AA"}))
    assert (answer.reason, asked) == (Reason.RLS_ATTRIBUTE_UNKNOWN, True)
    before = world.asked
    assert (await http(world.app)).reason == Reason.TOKEN_MISSING
    assert world.asked == before + 1


async def test_a_new_token_of_the_kind_is_let_in_by_what_was_found(
    make_settings: Any, admitted: Any, request_of: Any
) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        access = current_row_access.get()
        assert access is not None
        seen.append((scope["state"]["embed"], access.row_filter.fingerprint, trail_of(scope).claims.token_id))  # type: ignore[union-attr]
        await chart(scope, receive, send)

    world = World(make_settings(), app)
    await admitted(world, SAID, token_id="t-1")
    new = {"token_id": "t-2", "subject": "user-2", "tenant": "globex", "rls": {"carrier": "BB"}, "grants": ()}
    with audit_capture() as events:
        answer, asked = await request_of(world, world.token(**new), SAID)
    assert (answer.status, answer.body, asked) == (200, b"user-2", False)
    (embed, rows, token_id), (first, first_rows, _) = seen[-1], seen[0]
    assert (embed.subject, embed.tenant, embed.token_id, embed.grants, embed.embedder) == (
        "user-2", "globex", "t-2", (), PORTAL,
    )  # fmt: skip
    assert (rows != first_rows, token_id, first.subject) == (True, "t-2", "user-1")
    assert [events[0][name] for name in ("subject", "tenant", "token_id", "grants")] == ["user-2", "globex", "t-2", []]


@pytest.mark.parametrize(
    ("settings", "changes", "reason"),
    [
        pytest.param({}, {"rls": {"carrier": "AA", "airline": "AA"}}, Reason.RLS_ATTRIBUTE_UNKNOWN, id="rows"),
        pytest.param({}, {"rls": {}}, Reason.RLS_ATTRIBUTE_MISSING, id="no rows"),
        pytest.param({}, {"origins": [PORTAL]}, None, id="origins"),
        pytest.param({}, {"origins": ["https://a.customers.example"]}, Reason.TOKEN_ORIGIN_NOT_ALLOWED, id="others"),
        pytest.param({}, {"region": "eu"}, Reason.REGION_MISMATCH, id="a region"),
        pytest.param({"tenants": True}, {"tenant": "globex"}, Reason.TENANT_ORIGIN_NOT_ALLOWED, id="a tenant"),
        pytest.param({}, {"key": OTHER_SECRET}, Reason.SIGNATURE_INVALID, id="another key"),
        pytest.param({}, {"now": NOW - 2000}, Reason.TOKEN_EXPIRED, id="expired"),
        pytest.param({}, {"issuer": "https://other.example"}, Reason.ISSUER_NOT_ALLOWED, id="another issuer"),
        pytest.param({}, {"bootstrap": True}, Reason.TOKEN_TYPE_NOT_ALLOWED, id="another type"),
        pytest.param({"optional": True}, {"rls": {"carrier": "AA", "gate": "1"}}, None, id="another attribute"),
    ],
)
async def test_a_new_token_of_another_kind_is_asked_about(
    settings: Any, changes: Any, reason: Any, make_settings: Any, admitted: Any, request_of: Any, tmp_path: Path
) -> None:
    given: dict[str, Any] = {}
    if settings.get("tenants"):
        given["tenant_origins_file"] = tmp_path / "tenants.toml"
        given["tenant_origins_file"].write_text('[tenants]\nglobex = ["https://a.customers.example"]\n')
    if settings.get("optional"):
        given |= {"rls_columns": None, "rls_policy": tmp_path / "policy.toml"}
        given["rls_policy"].write_text(
            '[attributes]\ncarrier = "string"\ngate = { type = "string", required = false }\n'
            '[tables.flights]\nall = [{ column = "carrier", op = "eq", attribute = "carrier" }]\n'
        )
    world = World(make_settings(**given))
    await admitted(world, SAID)
    token = world.token(**changes)
    answer, asked = await request_of(world, token, SAID)
    assert asked
    assert (answer.status == 200) if reason is None else (answer.reason == reason)
    if reason is None:
        assert not (await request_of(world, world.token(**changes, subject="user-3"), SAID))[1]


@pytest.mark.parametrize(("count", "kinds"), [(64, 1), (65, 0)])
async def test_a_kind_of_many_origins_is_kept_beside_its_token_only(
    count: int, kinds: int, make_settings: Any, admitted: Any, request_of: Any
) -> None:
    world = World(make_settings())
    origins = [PORTAL, *(f"https://c{number}.customers.example" for number in range(1, count))]
    await admitted(world, SAID, origins=origins)
    assert sum(map(len, world.admissions._findings.values())) == kinds
    answer, asked = await request_of(world, world.token(subject="user-2", origins=origins), SAID)
    assert (answer.body, asked) == (b"user-2", kinds == 0)


async def test_the_record_tells_how_long_the_verification_of_a_new_token_took(
    make_settings: Any, admitted: Any, request_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toucan_guard.tokens import cache

    world = World(make_settings())
    await admitted(world, SAID)
    verify = cache.verify

    def slowly(*given: Any, **more: Any) -> Any:
        time.sleep(0.05)
        return verify(*given, **more)

    monkeypatch.setattr(cache, "verify", slowly)
    with audit_capture() as events:
        assert not (await request_of(world, world.token(subject="user-2"), SAID))[1]
        assert (await request_of(world, world.token(key=OTHER_SECRET), SAID))[1]
    assert all(event["first_byte_ms"] >= 50 for event in events)


async def test_tokens_of_one_kind_that_come_at_once_count_as_one(
    make_settings: Any, request_of: Any, anyio_backend: str
) -> None:
    world = World(make_settings(), revocable=True)  # the first ones wait for the list
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(request_of, world, world.token(subject=f"user-{number}"), SAID)
    assert world.admissions._findings.currsize == 1


async def test_a_new_token_that_was_revoked_is_asked_about(
    make_settings: Any, admitted: Any, request_of: Any, anyio_backend: str
) -> None:
    settings = make_settings()
    world = World(settings, revocable=True)
    await admitted(world, SAID)
    await revoke(world.store, settings.issuer, Revocation(RevocationKind("subject"), "user-2", NOW + 9999), now=NOW)
    world.clock.advance(5)
    await request_of(world, world.token(), SAID)
    answer, asked = await request_of(world, world.token(subject="user-2"), SAID)
    assert (answer.reason, asked) == (Reason.TOKEN_REVOKED, True)


async def test_a_token_is_verified_once(
    make_settings: Any, admitted: Any, request_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toucan_guard.tokens import cache

    verified: list[Any] = []
    verify = cache.verify
    monkeypatch.setattr(cache, "verify", lambda *given, **options: verified.append(given) or verify(*given, **options))
    world = World(make_settings())
    await admitted(world, SAID)
    for changes, reason in (({}, None), ({"key": OTHER_SECRET}, Reason.SIGNATURE_INVALID), ({"rls": {}}, "rls")):
        verified.clear()
        answer, _ = await request_of(world, world.token(subject="user-2", **changes), SAID)
        assert len(verified) == 1
        assert (answer.status == 200) == (reason is None)
    # What another guard's verifier has refused says nothing to this one.
    inner = World(make_settings(secret=OTHER_SECRET))
    outer = World(make_settings(exempt_paths=["/inner"]), inner.app)
    token = outer.token(key=OTHER_SECRET)
    assert (await request_of(outer, token, SAID))[0].reason == Reason.SIGNATURE_INVALID
    assert (await request_of(outer, token, SAID, path="/inner"))[0].status == 200


async def test_sockets_go_through_the_layers(make_settings: Any, admitted: Any, websocket: Any) -> None:
    world = World(make_settings())
    token = await admitted(world, {"origin": PORTAL})
    before = world.asked
    await websocket(world.app, headers={"origin": PORTAL, "authorization": f"Bearer {token}x"})
    assert world.asked == before + 1


async def test_what_the_layers_refuse_of_a_token_is_worked_out_each_time(make_settings: Any, request_of: Any) -> None:
    world = World(make_settings())
    for token, headers, reason in (
        (world.token(origins=["https://a.customers.example"]), {"origin": PORTAL}, Reason.TOKEN_ORIGIN_NOT_ALLOWED),
        (world.token(region="eu"), {}, Reason.REGION_MISMATCH),
        (world.token(rls={}), {}, Reason.RLS_ATTRIBUTE_MISSING),
    ):
        for _ in range(4):
            answer, asked = await request_of(world, token, headers)
            assert (answer.reason, asked) == (reason, True)


@pytest.mark.parametrize(
    ("settings", "token", "headers"),
    [
        pytest.param({"report_only": ["origin"]}, {}, {"origin": EVIL}, id="a stranger"),
        pytest.param({}, {}, [("cookie", "a=b"), ("cookie", "c=d")], id="a repeated header"),
        pytest.param({}, {}, [("referer", PORTAL), ("referer", PORTAL)], id="a repeated Referer"),
        pytest.param({"report_only": ["region"], "region": "eu"}, {"region": "us"}, {}, id="another region"),
        pytest.param({}, {}, {"referer": f"{PORTAL}/{'x' * 600}"}, id="what is said at length"),
    ],
)
async def test_what_is_recorded_as_refused_or_said_at_length_is_asked_about_each_time(
    settings: Any, token: Any, headers: Any, make_settings: Any, request_of: Any
) -> None:
    world = World(make_settings(**settings))
    text = world.token(**token)
    for _ in range(4):
        answer, asked = await request_of(world, text, headers)
        assert (answer.status, asked) == (200, True)


async def test_a_layer_that_only_reports_and_has_nothing_to_report_says_yes(make_settings: Any, admitted: Any) -> None:
    await admitted(World(make_settings(report_only=["origin", "region"])), SAID)


async def test_a_token_is_remembered_for_a_few_kinds_of_requests(
    make_settings: Any, admitted: Any, request_of: Any
) -> None:
    world = World(make_settings())
    token = await admitted(world)
    most = 0
    for number in range(2500):
        await request_of(world, token, {"referer": f"{PORTAL}/{number}"})
        most = max(most, sum(map(len, world.admissions._findings.values())))
    claims = next(iter(world.cache._entries.values())).claims
    assert len(claims.derived[world.admissions]) <= 4  # type: ignore[arg-type]
    assert most == 1024
    assert (await request_of(world, token))[1]
    assert not (await request_of(world, token))[1]


async def test_what_many_say_is_not_pushed_out_by_one_who_says_ever_other_things(
    make_settings: Any, admitted: Any, request_of: Any
) -> None:
    world = World(make_settings())
    await admitted(world, SAID)
    flooding = world.token(subject="user-2")
    for number in range(2500):
        await request_of(world, flooding, {"referer": f"{PORTAL}/{number}"})
        if number % 500 == 0:
            assert not (await request_of(world, world.token(subject=f"viewer-{number}"), SAID))[1]
    assert not (await request_of(world, world.token(subject="user-3"), SAID))[1]


async def test_of_requests_that_say_the_same_only_so_many_kinds_of_tokens_are_kept(
    make_settings: Any, request_of: Any
) -> None:
    world = World(make_settings())
    for number in range(600):
        token = world.token(origins=[PORTAL, f"https://c{number}.customers.example"])
        for asked in (True, False):
            assert (await request_of(world, token, SAID))[1] is asked
        assert world.admissions._findings.currsize <= 256


# What is asked each time.


@pytest.mark.parametrize(
    ("now", "asked", "reason"),
    [
        pytest.param(NOW + 1029, False, None, id="a second before its end"),
        pytest.param(NOW + 1029.5, False, None, id="in its last second"),
        pytest.param(NOW + 1030, True, Reason.TOKEN_EXPIRED, id="at its end"),
        pytest.param(NOW - 29, False, None, id="a clock that has gone back"),
        pytest.param(NOW - 31, True, Reason.TOKEN_NOT_YET_VALID, id="a clock that has gone back too far"),
    ],
)
async def test_the_time_is_asked(
    now: float, asked: bool, reason: Any, make_settings: Any, admitted: Any, request_of: Any
) -> None:
    world = World(make_settings())
    token = await admitted(world)
    world.clock.now = now
    answer, looked = await request_of(world, token)
    assert looked == asked
    assert (answer.status == 200) if reason is None else (answer.reason == reason)


async def test_the_keys_are_asked(make_settings: Any, admitted: Any, request_of: Any) -> None:
    world = World(make_settings())
    token = await admitted(world)
    world.keys.ring = KeyRing.from_secret(OTHER_SECRET)
    answer, asked = await request_of(world, token)
    assert (answer.reason, asked) == (Reason.SIGNATURE_INVALID, True)
    world.keys.ring = None
    assert (await request_of(world, token))[0].reason == Reason.KEY_UNKNOWN
    world.keys.ring = KeyRing.from_secret(TEST_SECRET)
    assert (await request_of(world, token))[0].status == 200


@pytest.mark.parametrize(
    ("kind", "value"),
    [("token", "t-1"), ("subject", "user-1"), ("tenant", "acme"), ("key", "k-1"), ("issued_before", str(int(NOW) + 1))],
)
async def test_revocations_are_asked(
    kind: str, value: str, make_settings: Any, admitted: Any, request_of: Any, anyio_backend: str
) -> None:
    key = {"kty": "oct", "kid": "k-1", "alg": "HS256", "k": secrets.token_urlsafe(48)}
    settings = make_settings(secret=None, keys={"keys": [key]})
    world = World(settings, revocable=True)
    token = await admitted(world, key=key, token_id="t-1")
    await revoke(world.store, settings.issuer, Revocation(RevocationKind(kind), value, NOW + 9999), now=NOW)
    # Within the declared time: the copy is renewed when half of it has passed, and waited for when all has.
    world.clock.advance(5)
    answer, asked = await request_of(world, token)
    assert (answer.reason, asked) == (Reason.TOKEN_REVOKED, True)


async def test_while_the_copy_of_the_revocations_is_young_it_is_enough(
    make_settings: Any, admitted: Any, request_of: Any
) -> None:
    world = World(make_settings(), revocable=True)
    token = await admitted(world)
    world.store.down = True
    for seconds, asked, status in ((2, False, 200), (2, False, 200), (0.6, True, 200), (1, True, 503)):
        world.clock.advance(seconds)
        answer, looked = await request_of(world, token)
        assert (looked, answer.status) == (asked, status)
    world.store.down = False
    world.clock.advance(5)
    assert (await request_of(world, token))[0].status == 200
    assert not (await request_of(world, token))[1]


async def test_what_only_a_switch_lets_in_is_never_kept(make_settings: Any, request_of: Any) -> None:
    world = World(make_settings(), revocable=True, fail_open=True)
    world.store.down = True
    token = world.token()
    for _ in range(4):
        with audit_capture() as events:
            answer, asked = await request_of(world, token)
        assert (answer.status, asked, events[0]["outcome"]) == (200, True, "would_deny")
    world.store.down = False
    world.clock.advance(5)
    assert [(await request_of(world, token))[1] for _ in range(3)] == [True, False, False]


async def test_exempt_paths_are_asked(make_settings: Any, request_of: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], scope["state"]["embed"] is None, current_row_access.get() is None))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    world = World(make_settings(exempt_paths=["/health"]), app)
    token = world.token()
    for path in ("/", "/", "/", "/health", "/"):
        await request_of(world, token, path=path)
    assert seen == [("/", False, False)] * 3 + [("/health", True, True), ("/", False, False)]
    assert world.asked == 2


async def test_what_a_proxy_says_of_us_is_asked(make_settings: Any, request_of: Any) -> None:
    world = World(make_settings(trusted_proxies=["10.0.0.0/8"]))
    token = world.token()
    proxy, direct = {"client": ("10.0.0.1", 1)}, {"client": ("192.0.2.7", 1)}
    ours = {"origin": OWN, "sec-fetch-site": "same-origin", "x-forwarded-proto": "https", "x-forwarded-host": OWN[8:]}
    theirs = {**ours, "x-forwarded-host": "other.example"}
    post = {"method": "POST"}
    assert [(await request_of(world, token, ours, **proxy, **post))[1] for _ in range(3)] == [True, False, False]
    for headers, client, status in ((theirs, proxy, 403), (theirs, direct, 200), (ours, proxy, 200)):
        answer, asked = await request_of(world, token, headers, **client, **post)
        assert (answer.status, asked) == (status, headers is theirs)


# Where it stands.


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda app: GateMiddleware(app, name="hours", decide=lambda scope: ALLOW), id="a gate"),
        pytest.param(lambda app: OriginMiddleware(app, allowlist=[PORTAL]), id="an origin layer"),
        pytest.param(lambda app: AuditLogMiddleware(app, sink=None), id="a record"),
        pytest.param(
            lambda app: CorsMiddleware(
                app, policy=OriginPolicy(allowlist=OriginAllowlist()), allowlist=OriginAllowlist()
            ),
            id="a layer that decides nothing",
        ),
    ],
)
async def test_behind_another_layer_everybody_is_asked_about(layer: Any, make_settings: Any, request_of: Any) -> None:
    world = World(make_settings(), in_front=layer)
    token = world.token()
    assert [(await request_of(world, token))[1] for _ in range(4)] == [True] * 4


async def test_a_guard_behind_an_exempt_path_finds_nothing_for_the_one_in_front(make_settings: Any, http: Any) -> None:
    inner = World(make_settings(allowed_origins=[EVIL]))
    # Of one verifier, so that they find each other's claims.
    outer = World(make_settings(exempt_paths=["/inner"]), inner.app, verifier=inner.verifier)
    headers = {"authorization": f"Bearer {outer.token()}", "origin": EVIL}
    for _ in range(4):
        assert (await http(outer.app, "GET", "/inner", headers)).status == 200
        assert (await http(outer.app, "GET", "/", headers)).reason == Reason.ORIGIN_NOT_ALLOWED


async def test_the_guard_behind_asks_about_whom_the_one_in_front_has_admitted(
    make_settings: Any, http: Any, make_token: Any
) -> None:
    inner = ToucanGuard(chart, settings=make_settings(rls_columns={"flights.airline": "airline"}))
    outer = ToucanGuard(inner, settings=make_settings())
    token = make_token()
    for _ in range(4):
        answer = await http(outer, headers={"authorization": f"Bearer {token}"})
        assert answer.reason == Reason.RLS_ATTRIBUTE_UNKNOWN


# What the app has, and what becomes of it.


async def test_each_request_has_rows_of_its_own_until_it_ends(make_settings: Any, request_of: Any) -> None:
    seen: list[RowAccess] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        access = current_row_access.get()
        assert access is not None
        assert not access.closed
        trail = trail_of(scope)
        assert trail.access is access
        assert scope["state"]["embed"].rls is access.row_filter
        assert await anyio.to_thread.run_sync(current_row_access.get) is access
        seen.append(access)
        if scope["path"] == "/crash":
            raise ValueError("the app fails")
        await chart(scope, receive, send)

    world = World(make_settings(), app)
    first, second = world.token(), world.token(rls={"carrier": "BB"}, subject="user-2")
    for _ in range(4):
        for token, subject in ((first, b"user-1"), (second, b"user-2")):
            assert (await request_of(world, token))[0].body == subject
            assert current_row_access.get() is None
    assert world.asked == 1
    with pytest.raises(ValueError, match="the app fails"):
        await request_of(world, first, path="/crash")
    assert current_row_access.get() is None
    assert all(access.closed for access in seen)
    assert len(set(map(id, seen))) == 9
    assert len({access.embed_key for access in seen}) == 2


async def test_without_row_level_security_there_are_no_rows(make_settings: Any, http: Any, make_token: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trail = existing_trail(scope)
        assert trail is not None
        seen.append((trail.admission is not None, trail.access, current_row_access.get(), scope["state"]["embed"].rls))
        await chart(scope, receive, send)

    guard = ToucanGuard(app, settings=make_settings(rls_columns=None, insecure_no_rls=True))
    headers = {"authorization": f"Bearer {make_token()}"}
    for _ in range(3):
        await http(guard, headers=headers)
    assert seen == [(False, None, None, None)] + [(True, None, None, None)] * 2


async def test_a_stream_is_cut_when_its_token_has_ended(make_settings: Any, admitted: Any, request_of: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one ", b"two ", b"three"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            if scope["path"] == "/long":
                world.clock.advance(600)
        await send({"type": "http.response.body", "body": b""})

    world = World(make_settings(), app)
    token = await admitted(world)
    with audit_capture() as events:
        answer, asked = await request_of(world, token, path="/long")
    assert (answer.body, asked) == (b"one two ", False)
    assert [(event["event"], event["outcome"], event["reason"]) for event in events] == [
        ("decision", "allow", None),
        ("completion", "deny", "token_expired"),
    ]


async def test_a_stream_is_held_to_the_token_that_was_admitted_whatever_a_guard_behind_has_verified(
    make_settings: Any, admitted: Any, request_of: Any
) -> None:
    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        if scope["path"] == "/long":
            world.clock.advance(1100)
        await send({"type": "http.response.body", "body": b"two", "more_body": True})

    policy = make_settings(token_lifetime_seconds=9999).token_policy
    verifier = CachedVerifier(policy, KeyRing.from_secret(TEST_SECRET), TokenCache(0))
    patient = EmbedTokenMiddleware(stream, verifier=verifier, carriers=["authorization"], clock=lambda: NOW)

    async def swapping(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"] = [(b"authorization", f"Bearer {world.token(now=NOW, lifetime_seconds=9999)}".encode())]
        await patient(scope, receive, send)

    world = World(make_settings(), swapping)
    token = await admitted(world)
    answer, asked = await request_of(world, token, path="/long")
    assert (answer.body, asked) == (b"one ", False)


async def test_the_record_names_whom_a_guard_behind_has_verified(
    make_settings: Any, http: Any, make_token: Any
) -> None:
    verifier = CachedVerifier(make_settings().token_policy, KeyRing.from_secret(TEST_SECRET), TokenCache(0))
    inner = EmbedTokenMiddleware(chart, verifier=verifier, carriers=["authorization"])
    other = make_token(subject="user-2")

    async def swapping(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"] = [(b"authorization", f"Bearer {other}".encode())]
        await inner(scope, receive, send)

    guard = ToucanGuard(swapping, settings=make_settings(rls_columns=None, insecure_no_rls=True))
    token = make_token()
    with audit_capture() as events:
        for _ in range(3):
            await http(guard, headers={"authorization": f"Bearer {token}"})
    assert [event["subject"] for event in events] == ["user-2"] * 3
    assert [len(event["steps"]) for event in events] == [5] * 3


@pytest.mark.parametrize("path", ["/", "/debug", "/noted", "/late", "/begun"])
async def test_an_answer_is_held_until_its_receipts_are_there(
    path: str, make_settings: Any, admitted: Any, request_of: Any
) -> None:
    async def filtered(scope: Any, receive: Any, send: Any) -> None:
        access = current_row_access.get()
        assert access is not None
        if scope["path"] == "/debug":
            await send({"type": "http.response.debug", "info": {}})
        if scope["path"] == "/noted":
            access.note(["flights"], "v1")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/late":
            access.note(["flights"], "v1")
        if scope["path"] == "/begun":
            require_receipts(scope, frozenset(["flights"]))
        await send({"type": "http.response.body", "body": b"rows", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/warm":
            await chart(scope, receive, send)
        elif scope["path"] == "/begun":  # too late to ask for receipts
            await filtered(scope, receive, send)
        else:
            await RowFilterMiddleware(filtered, require_row_filter=["flights"])(scope, receive, send)

    world = World(make_settings(), app)
    token = world.token()
    for _ in range(3):
        answer, asked = await request_of(world, token, path="/warm")
    assert (answer.status, asked) == (200, False)
    answer, asked = await request_of(world, token, path=path)
    assert not asked
    assert answer.status == (200 if path in ("/noted", "/late", "/begun") else 500)
    assert (answer.body == b"rows") == (path in ("/noted", "/late", "/begun"))


async def test_what_the_app_decides_afterwards_is_recorded(make_settings: Any, request_of: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        trail = trail_of(scope)
        path = scope["path"]
        if path == "/refused":
            raise Refused(Deny("x_closed"))
        if path == "/denied":
            return await deny(scope, receive, send, Deny("x_closed"))
        if path == "/yes":
            trail.add("hours", ALLOW)
        if path == "/told":
            trail.add("hours", Allow({"origin": "https://told.example"}))
        if path == "/trial":
            trail.add("hours", Deny("x_closed"), report_only=True)
        if path == "/rows":
            trail.access = None
        await send({"type": "http.response.start", "status": 500 if path == "/fails" else 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    world = World(make_settings(), app)
    token = world.token()
    expected = {
        "/": ("allow", None, "allow"),
        "/refused": ("deny", "x_closed", "deny:x_closed"),
        "/denied": ("deny", "x_closed", "allow"),
        "/yes": ("allow", None, "allow"),
        "/told": ("allow", None, "allow"),
        "/trial": ("would_deny", "x_closed", "would_deny:x_closed"),
        "/rows": ("allow", None, "allow"),
        "/fails": ("error", "app_failed", "allow"),
    }
    for path, told in [("/", expected["/"])] * 3 + list(expected.items()):
        with audit_capture() as events:
            await request_of(world, token, path=path)
        (event,) = events
        assert (event["outcome"], event["reason"], event["steps"][-1]["decision"]) == told, path
        assert event["rls_attributes"] == ([] if path == "/rows" else ["carrier"])
        assert event["origin"] == ("https://told.example" if path == "/told" else None)
    assert world.asked == 1


async def test_what_is_kept_is_freed_with_its_token(make_settings: Any, admitted: Any) -> None:
    world = World(make_settings())
    gc.collect()
    gc.disable()
    try:
        before = _admissions()
        await admitted(world)
        gc.collect()  # the connections
        assert _admissions() == before + 1
        world.cache.clear()
        assert _admissions() == before
    finally:
        gc.enable()


def _admissions() -> int:
    return sum(type(found) is Admission for found in gc.get_objects())


@pytest.mark.parametrize("path", ["/", "/stream", "/receipts", "/hint"])
async def test_an_admitted_connection_is_freed_at_its_end(
    path: str, make_settings: Any, admitted: Any, request_of: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        access = current_row_access.get()
        assert access is not None
        access.note(["flights"], "v1")
        if scope["path"] == "/receipts":
            require_receipts(scope, frozenset(["flights"]))
        if scope["path"] == "/hint":
            await send({"type": "http.response.early_hint", "links": []})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    world = World(make_settings(), app)
    token = await admitted(world)
    gc.collect()
    gc.disable()
    try:
        assert not (await request_of(world, token, path=path))[1]
        assert not any(type(found) is AdmittedConnection for found in gc.get_objects())
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [0, 1, 10_000])
async def test_without_a_token_cache_every_layer_is_asked_each_time(
    size: int, make_settings: Any, http: Any, make_token: Any
) -> None:
    admitted: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        admitted.append(trail_of(scope).admission is not None)
        await chart(scope, receive, send)

    guard = ToucanGuard(app, settings=make_settings(token_cache_size=size))
    tokens = [make_token(), make_token(subject="user-2")]
    for token in (tokens[0], tokens[0], tokens[1], tokens[0]):
        await http(guard, headers={"authorization": f"Bearer {token}"})
    assert admitted == [False, size > 0, size > 0, size > 0]


async def test_the_headers_of_an_admitted_answer_are_the_layers_own(
    make_settings: Any, http: Any, make_token: Any
) -> None:
    guard = ToucanGuard(chart, settings=make_settings())
    wide = f"frame-ancestors https://*.customers.example {PORTAL}"
    tokens = {make_token(origins=[PORTAL]): f"frame-ancestors {PORTAL}", make_token(): wide}
    for _ in range(4):
        for token, ancestors in tokens.items():
            answer = await http(guard, headers={"authorization": f"Bearer {token}", "origin": PORTAL})
            assert answer.header("content-security-policy") == ancestors
            assert answer.header("access-control-allow-origin") == PORTAL
            assert answer.header("cache-control") == "private, no-store"


async def test_a_layer_alone_passes_on(http: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert existing_trail(scope) is None
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the app's data"})

    assert (await http(ArrivalMiddleware(app))).body == b"the app's data"


class Sink:
    """Where events go; can be full."""

    full = False

    def __init__(self, *, takes_lines: bool) -> None:
        self.takes_lines = takes_lines

    def write(self, event: Any) -> None:
        if self.full:
            raise OSError("full")

    def close(self) -> None: ...


@pytest.mark.parametrize("path", ["/", "/stream"])
@pytest.mark.parametrize("takes_lines", [True, False])
async def test_an_app_that_speaks_on_is_not_heard_where_its_answer_could_not_be_recorded(
    takes_lines: bool, path: str, make_settings: Any, admitted: Any, request_of: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in (
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.body", "body": b"rows", "more_body": scope["path"] == "/stream"},
            {"type": "http.response.body", "body": b"more rows"},
        ):
            with contextlib.suppress(AuditWriteError):
                await send(message)

    sink = Sink(takes_lines=takes_lines)
    world = World(make_settings(), app, sink=sink)
    token = await admitted(world)
    sink.full = True
    answer, asked = await request_of(world, token, path=path)
    assert (answer.status, answer.reason, asked) == (503, Reason.AUDIT_UNAVAILABLE, False)
    assert [message["type"] for message in answer.messages] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("takes_lines", [True, False])
async def test_what_cannot_be_recorded_does_not_leave(
    takes_lines: bool, make_settings: Any, admitted: Any, request_of: Any
) -> None:
    sink = Sink(takes_lines=takes_lines)
    world = World(make_settings(), sink=sink)
    token = await admitted(world)
    sink.full = True
    answer, asked = await request_of(world, token)
    assert (answer.status, answer.reason, asked) == (503, Reason.AUDIT_UNAVAILABLE, False)
    sink.full = False
    assert (await request_of(world, token))[0].body == b"user-1"


async def test_what_goes_out_in_place_of_an_admitted_answer_has_the_headers_of_the_layers(
    make_settings: Any, make_token: Any, http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, token, starts = Sink(takes_lines=True), make_token(), []
    monkeypatch.setattr("toucan_guard.recording.open_sink", lambda *_, **__: sink)
    for size in (10_000, 0):
        guard = ToucanGuard(chart, settings=make_settings(token_cache_size=size))
        for sink.full in (False, False, False, True):
            headers = {"authorization": f"Bearer {token}", "origin": PORTAL, "referer": f"{PORTAL}/"}
            answer = await http(guard, headers=headers)
        assert (answer.status, answer.header("access-control-allow-origin")) == (503, PORTAL)
        assert answer.header("content-security-policy") == f"frame-ancestors {PORTAL}"
        starts.append(answer.start)
    assert starts[0] == starts[1]


async def test_who_hangs_up_or_gets_no_answer_is_recorded(make_settings: Any, admitted: Any, request_of: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/gone":
            await receive()
            await receive()
        elif scope["path"] != "/nothing":
            await chart(scope, receive, send)

    world = World(make_settings(), app)
    token = await admitted(world)
    for path, outcome, reason, status in (
        ("/gone", "error", "unanswered", None),
        ("/nothing", "error", "app_failed", 500),
        ("/", "allow", None, 200),
    ):
        with audit_capture() as events:
            _, asked = await request_of(world, token, path=path)
        (event,) = events
        assert (event["outcome"], event["reason"], event["status"], asked) == (outcome, reason, status, False)
        assert (event["subject"], event["rls_attributes"]) == ("user-1", ["carrier"])


async def test_who_hangs_up_while_nothing_has_been_said_is_recorded_as_such(
    make_settings: Any, admitted: Any, request_of: Any
) -> None:
    """Once with what the app does first being unusual, so that somebody else goes on for it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            return await chart(scope, receive, send)
        await receive()
        await send({"type": "http.response.early_hint", "links": []})
        assert (await receive())["type"] == "http.disconnect"

    world = World(make_settings(), app)
    token = await admitted(world)
    with audit_capture() as events:
        answer, asked = await request_of(world, token, path="/hint")
    assert (answer.messages, asked) == ([], False)
    assert [(event["outcome"], event["reason"], event["status"]) for event in events] == [("error", "unanswered", None)]


async def test_a_task_that_outlives_its_connection_hears_that_it_is_over(
    make_settings: Any, admitted: Any, request_of: Any
) -> None:
    kept: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept[:] = [scope, receive, send, current_row_access.get()]
        await chart(scope, receive, send)

    world = World(make_settings(), app)
    token = await admitted(world)
    answer, asked = await request_of(world, token)
    sent = len(answer.messages)
    scope, receive, send, access = kept
    assert (asked, access.closed) == (False, True)
    assert await receive() == {"type": "http.disconnect"}
    for kind in ("http.response.start", "http.response.body"):
        with pytest.raises(RuntimeError, match="the connection has ended"):
            await send({"type": kind})
    assert len(answer.messages) == sent
    # What was decided can still be read, and holds nobody.
    trail = existing_trail(scope)
    assert trail is not None
    assert (trail.embed.subject, trail.edits, trail.audit) == ("user-1", (), None)


async def test_a_connection_that_is_dropped_in_another_context_is_recorded_and_its_rows_are_closed(
    make_settings: Any, admitted: Any
) -> None:
    kept: list[Any] = []

    class Never:
        def __await__(self) -> Any:
            yield

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/never":
            kept.append(current_row_access.get())
            await Never()
        await chart(scope, receive, send)

    async def nothing(*_: Any) -> Any: ...

    world = World(make_settings(), app)
    token = await admitted(world)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/never",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
    }
    connection = world.app(scope, nothing, nothing)
    contextvars.copy_context().run(connection.send, None)
    with audit_capture() as events, pytest.raises(ValueError, match="different Context"):
        connection.close()
    assert [(event["outcome"], event["reason"]) for event in events] == [("error", "unanswered")]
    assert kept[0].closed


async def test_a_guard_behind_one_that_records_nothing_records_what_that_one_admits(
    make_settings: Any, http: Any, make_token: Any
) -> None:
    inner = ToucanGuard(chart, settings=make_settings())
    outer = ToucanGuard(inner, settings=make_settings(audit=None, insecure_no_audit=True))
    token = make_token()
    for _ in range(4):
        with audit_capture() as events:
            answer = await http(outer, headers={"authorization": f"Bearer {token}"})
        assert answer.status == 200
        assert [(event["outcome"], event["subject"]) for event in events] == [("allow", "user-1")]


HEADERS: dict[str, list[tuple[bytes, bytes]]] = {
    "/": [],
    "/type": [(b"content-type", b"text/plain")],
    "/policy": [(b"Content-Security-Policy", b"frame-ancestors 'self'")],
    "/framing": [(b"X-Frame-Options", b"DENY")],
    "/cached": [(b"Cache-Control", b"public"), (b"CDN-Cache-Control", b"public")],
    "/shared": [(b"Access-Control-Allow-Origin", b"*")],
    "/private": [(b"cache-control", b"no-store")],
}


async def test_every_admitted_answer_has_the_headers_that_it_needs_whatever_the_one_before_had(
    make_settings: Any, make_token: Any, http: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS[scope["path"]]})
        await send({"type": "http.response.body", "body": b""})

    admitting = ToucanGuard(app, settings=make_settings())
    asking = ToucanGuard(app, settings=make_settings(token_cache_size=0))
    request = {"authorization": f"Bearer {make_token()}", "origin": PORTAL}
    for path in ("/", "/", "/", *HEADERS, "/", *reversed(HEADERS), "/type", *HEADERS):
        told, expected = [(await http(guard, path=path, headers=request)).start for guard in (admitting, asking)]
        assert told == expected, path


async def test_an_app_whose_answers_have_ever_other_headers_fills_no_memory(
    make_settings: Any, make_token: Any, http: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        found = trail_of(scope).admission
        kept.append(0 if found is None else len(found.found._additions))
        headers = [(f"x-{number % 50}".encode(), b"x") for number in [len(kept)]]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    kept: list[int] = []
    guard = ToucanGuard(app, settings=make_settings())
    request = {"authorization": f"Bearer {make_token()}", "origin": PORTAL}
    policies = {(await http(guard, headers=request)).header("content-security-policy") for _ in range(100)}
    assert len(policies) == 1
    assert 10 < max(kept) <= 16


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        pytest.param({}, {"origin": PORTAL, "referer": f"{PORTAL}/"}, id="a page of a customer's"),
        pytest.param({}, {"origin": OWN}, id="our own page"),
        pytest.param({"insecure_null_origin": True}, {"origin": "null"}, id="a page without an origin"),
        pytest.param({"report_only": ["grant"]}, {}, id="grants that are only recorded"),
    ],
)
async def test_what_the_layers_note_is_noted_of_whom_they_are_not_asked_about(
    settings: Any, headers: Any, make_settings: Any, make_token: Any, http: Any
) -> None:
    noted: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trail = existing_trail(scope)
        assert trail is not None
        each_its_own = (
            "_headers",
            "_send",
            "access",
            "admission",
            "audit",
            "began_at",
            "embed",
            "presented",
            "raw",
            "request_id",
            "state",
        )
        noted.append(
            {name: getattr(trail, name) for name in trail.__slots__ if name not in each_its_own}
            | {"embed": repr(trail.embed), "admitted": trail.admission is not None}
        )
        await chart(scope, receive, send)

    guard = ToucanGuard(app, settings=make_settings(**settings))
    token = make_token(origins=[PORTAL] if headers.get("origin") == PORTAL else None)
    for _ in range(4):
        await http(guard, headers={"authorization": f"Bearer {token}", **headers})
    assert [told.pop("admitted") for told in noted] == [False, True, True, True]
    assert noted[0] == noted[1] == noted[2] == noted[3]


async def test_what_a_guard_behind_has_found_is_not_kept_for_the_one_in_front(
    make_settings: Any, make_token: Any, http: Any
) -> None:
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        access, trail = current_row_access.get(), existing_trail(scope)
        assert access is not None
        assert trail is not None
        found.append((access.row_filter.attribute_names, len(trail.steps)))
        await chart(scope, receive, send)

    inner = ToucanGuard(app, settings=make_settings(rls_columns={"flights.airline": "carrier", "x.y": "carrier"}))

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await (inner if scope["path"] == "/inner" else app)(scope, receive, send)

    guard = ToucanGuard(outer, settings=make_settings())
    token = make_token()
    for path in ("/", "/inner", "/inner", "/inner", "/", "/"):
        await http(guard, path=path, headers={"authorization": f"Bearer {token}"})
    alone, behind = found[0], found[1]
    assert behind[1] > alone[1]
    assert found == [alone, behind, behind, behind, alone, alone]


async def test_what_is_filtered_behind_a_guard_inside_another_one_is_recorded_whenever_it_is(
    make_settings: Any, make_token: Any, http: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        access = current_row_access.get()
        assert access is not None
        access.note(["flights"], "v1")
        await chart(scope, receive, send)
        access.note(["airports"], "v1")

    guard = ToucanGuard(ToucanGuard(app, settings=make_settings()), settings=make_settings())
    token = make_token()
    for _ in range(4):
        with audit_capture() as events:
            await http(guard, headers={"authorization": f"Bearer {token}"})
        assert [(event["event"], [*event["tables"]]) for event in events] == [
            ("decision", ["flights"]),
            ("completion", ["flights", "airports"]),
        ]


async def test_what_was_filtered_between_two_guards_is_recorded_with_the_rest(
    make_settings: Any, make_token: Any, http: Any
) -> None:
    def reading(table: str, app: Any) -> Any:
        async def read(scope: Any, receive: Any, send: Any) -> None:
            access = current_row_access.get()
            assert access is not None
            access.note([table], "v1")
            await app(scope, receive, send)
            access.receipts.setdefault(f"{table} too late", "v1")

        return read

    inner = ToucanGuard(reading("airports", chart), settings=make_settings())
    guard = ToucanGuard(reading("flights", inner), settings=make_settings())
    token = make_token()
    for _ in range(4):
        with audit_capture() as events:
            await http(guard, headers={"authorization": f"Bearer {token}"})
        assert [(event["event"], [*event["tables"]]) for event in events] == [
            ("decision", ["flights", "airports"]),
            ("completion", ["flights", "flights too late", "airports", "airports too late"]),
        ]


async def test_trailers_that_were_announced_and_never_came_are_told_of(
    make_settings: Any, admitted: Any, request_of: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": scope["path"] != "/"})
        await send({"type": "http.response.body", "body": b""})
        if scope["path"] == "/whole":
            await send({"type": "http.response.trailers", "headers": []})

    world = World(make_settings(), app)
    token = await admitted(world)
    for path, told in (("/whole", ["decision"]), ("/cut", ["decision", "completion"])):
        with audit_capture() as events:
            _, asked = await request_of(world, token, path=path)
        assert ([event["event"] for event in events], asked) == (told, False)


async def test_an_app_that_catches_a_refusal_or_a_failed_record_does_not_answer_in_its_place(
    make_settings: Any, admitted: Any, request_of: Any
) -> None:
    sink = Sink(takes_lines=False)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/refused":
            try:
                raise Refused(Deny("x_closed"))
            except Refused:
                await chart(scope, receive, send)
        if scope["path"] == "/full":
            sink.full = True
            with contextlib.suppress(AuditWriteError):
                await chart(scope, receive, send)
            sink.full = False
            with contextlib.suppress(AuditWriteError):
                await chart(scope, receive, send)
        elif scope["path"] == "/piecemeal":
            sink.full = True
            for message in ({"type": "http.response.start", "status": 200}, {"type": "http.response.body"}):
                with contextlib.suppress(AuditWriteError):
                    await send(message)
            sink.full = False
        elif scope["path"] == "/":
            await chart(scope, receive, send)

    world = World(make_settings(), app, sink=sink)
    token = await admitted(world)
    for path, status in (("/refused", 403), ("/full", 503), ("/piecemeal", 503), ("/", 200)):
        answer, asked = await request_of(world, token, path=path)
        assert (answer.status, asked, b"user-1" in answer.body) == (status, False, path == "/")
        assert len(answer.messages) == 2


async def test_an_answer_that_could_not_begin_is_held_all_the_same(
    make_settings: Any, make_token: Any, http: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(TypeError):
            await send({"type": "http.response.start", "status": 200, "headers": None})
        require_receipts(scope, frozenset(["flights"]))
        await send({"type": "http.response.body", "body": b"rows", "more_body": True})

    guard = ToucanGuard(app, settings=make_settings())
    for _ in range(4):
        answer = await http(guard, headers={"authorization": f"Bearer {make_token()}"})
        assert (answer.status, b"rows" in answer.body) == (500, False)
