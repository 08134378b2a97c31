"""A guard that admits what it knows, and one that asks every layer each time: the same answers, the same record.

The second one has no token cache. Without it nothing is known of a token, so nothing is admitted, and no layer finds
what it has worked out earlier.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import secrets
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toucan_guard import Deny, Grant, GuardSettings, Reason, Refused, ToucanGuard
from toucan_guard.core.audit_line import encode_line
from toucan_guard.core.decisions import ALLOW, Allow
from toucan_guard.layers import GrantMiddleware, RowFilterMiddleware
from toucan_guard.receipts import require_receipts
from toucan_guard.rls.context import current_row_access
from toucan_guard.testing import TEST_SECRET, audit_capture, sign_token
from toucan_guard.trail import existing_trail, trail_of

PORTAL, CUSTOMER, OWN, EVIL = "https://portal.example", "https://a.customers.example", "https://charts.example", "https://evil.example"  # fmt: skip  # noqa: E501

_sign = functools.partial(sign_token, lifetime_seconds=3000, grants=[Grant("dashboard", "delays", ("view",))])
TOKENS = [
    _sign(rls={"carrier": "AA"}),
    _sign(rls={"carrier": "BB"}, subject="user-2", tenant="globex"),
    _sign(rls={"carrier": "AA"}, origins=[PORTAL]),
    _sign(rls={"carrier": "AA"}, region="eu"),
    _sign(rls={"carrier": "AA"}, grants=()),
    _sign(rls={"airline": "AA"}),
    _sign(),
    _sign(rls={"carrier": "AA"}, issuer="https://other.example"),
]
# Tokens that come once or twice, of a few kinds; of what they say, most is their own.
MANY = [
    _sign(
        "another-secret-of-the-same-length-0123456789" if number % 17 == 16 else TEST_SECRET,
        subject=f"viewer-{number}",
        token_id=f"t-{number}",
        tenant=("acme", "globex", None)[number % 3],
        rls=({"carrier": f"C{number}"}, {"carrier": f"C{number}"}, {"airline": "AA"}, {"carrier": 7})[number % 13 % 4],
        origins=(None, None, [PORTAL], [CUSTOMER], [PORTAL, CUSTOMER])[number % 5],
        region=("eu", None, None, "us")[number % 7 % 4],
        grants=[Grant("dashboard", "delays", ("view",))] if number % 2 else (),
    )
    for number in range(600)
]
API_KEY = "tgk_test_0123456789ab_" + "A" * 43

_ORIGINS = ["null", "", PORTAL, CUSTOMER, OWN, EVIL, PORTAL.upper(), f"{PORTAL}/"]
_REFERERS = [f"{PORTAL}/", PORTAL, f"{CUSTOMER}/page?x=1", f"{OWN}/", f"{EVIL}/", f"{PORTAL}/{'x' * 1200}", ""]
_HEADERS = [
    *((b"origin", value.encode()) for value in _ORIGINS),
    *((b"referer", value.encode()) for value in _REFERERS),
    *((b"sec-fetch-site", value) for value in (b"same-origin", b"same-site", b"cross-site", b"none", b"other")),
    *((b"sec-fetch-mode", value) for value in (b"navigate", b"cors", b"no-cors")),
    *((b"sec-fetch-dest", value) for value in (b"iframe", b"document", b"empty", b"script")),
    *((b"cookie", value) for value in (b"a=b", b"__Host-embed-" + b"a" * 26 + b"=s", b"c=d; __Host-embed-x=1", b"")),
    *((b"authorization", value) for value in (b"Basic dTpw", b"bearer x", b"Bearer\tx", b"", b"Bearer ", b"Bearer x")),
    *((b"authorization", value) for value in (b"Bearer a.!.c", b"Bearer \xff", b"Bearer " + b"x" * 9000)),
    *((b"authorization", f"Bearer {token}".encode()) for token in TOKENS[:3]),
    (b"x-embed-token", TOKENS[0].encode()),
    (b"x_embed_token", b"x"),
    (b"x-embed-subject", b"root"),
    (b"x_embed-grants", b"*"),
    (b"x-api-key", API_KEY.encode()),
    (b"x-api-key", b"the host's own"),
    (b"sec-websocket-protocol", b"embed, embed.token.x, chat"),
    (b"access-control-request-method", b"GET"),
    (b"access-control-request-method", b"BREW"),
    (b"access-control-request-headers", b"authorization"),
    (b"access-control-request-private-network", b"true"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-proto", b"http"),
    (b"x-forwarded-host", b"portal.example"),
    (b"x-forwarded-host", b"charts.example"),
    (b"x-forwarded-for", b"192.0.2.9"),
    (b"x-request-id", b"trace-12345678"),
    (b"x-request-id", b"as-long-as-an-id-of-our-own_012.3456"),
    *((b"accept", value) for value in (b"text/html", b"application/json", b"text/html;q=0.1, application/json")),
    (b"host", b"evil.example"),
    (b"Origin", EVIL.encode()),
    (b"Authorization", b"Bearer x"),
]
_header = st.sampled_from(_HEADERS)
_bearer = st.tuples(
    st.sampled_from([*TOKENS[:1] * 12, *TOKENS]) | st.sampled_from(MANY),
    st.sampled_from(["{}"] * 9 + [" {}", "{} ", "{}x", "{}\xa0"]),
).map(lambda token: (b"authorization", f"Bearer {token[1].format(token[0])}".encode("latin-1")))
_PATHS = [
    "/health", "/static/a.js", "/static/../", "/framed", "/stream", "/crash", "/late", "/refuse", "/unanswered",
    "/grant/delays", "/grant/other", "/receipts", "/trailers", "/inner/x", "/inner/stream", "/inner/receipts",
    "/blind", "/blind", "/blind/noted", "/blind/framed",
]  # fmt: skip
_ANSWERS: list[dict[str, Any]] = [
    {"status": 200, "headers": []},
    {"status": 200},
    {"status": 204, "headers": iter(())},
    {"status": 304, "headers": ((b"ETag", b"x"), [b"X-Frame-Options", b"DENY"])},
    {"status": 0, "headers": [(b"Cache-Control", b"public"), (b"cdn-cache-control", b"public")]},
    {"status": 503, "headers": [(b"content-security-policy", b"frame-ancestors *"), (b"vary", b"*")]},
    {"status": 200, "headers": [], "trailers": True},
    {"status": "200", "headers": None},
]
_PARTS: list[dict[str, Any]] = [
    *({"type": "http.response.start", **answer} for answer in _ANSWERS),
    {"type": "http.response.body", "body": b"the end"},
    {"type": "http.response.body"},
    {"type": "http.response.body", "body": b"more", "more_body": True},
    {"type": "http.response.body", "more_body": True},
    {"type": "http.response.trailers", "headers": [], "more_trailers": False},
    {"type": "http.response.early_hint", "links": []},
    {"type": "http.response.debug", "info": {}},
    {"type": "http.response.pathsend", "path": "/x"},
    {"type": "http.response.zerocopysend", "file": 0, "more_body": True},
]
# What an app may do besides sending.
_DEEDS = [
    "receive",
    "note",
    "require",
    "grant",
    "allow",
    "report",
    "steps",
    "raise",
    "refuse",
    "group",
    "exit",
    "strip",
]
_programs = st.lists(st.integers(0, len(_PARTS) + len(_DEEDS) - 1), max_size=6)


@st.composite
def _requests(draw: st.DrawFn) -> dict[str, Any]:
    bearer = draw(st.lists(_bearer, max_size=1) if draw(st.integers(0, 9)) == 0 else _bearer.map(lambda one: [one]))
    strange = draw(st.integers(0, 3)) == 0
    path = draw(st.sampled_from(_PATHS)) if draw(st.booleans()) else "/"
    if draw(st.integers(0, 2)) == 0:
        program = draw(_programs)
        if draw(st.booleans()):  # as apps do, and then something else
            program = [0, 8, *program]
        path = draw(st.sampled_from(["/say/", "/inner/say/", "/stubborn/", "/blind/say/"])) + ".".join(
            map(str, program)
        )
    return {
        "method": draw(st.sampled_from(["HEAD", "POST", "OPTIONS", "DELETE", "get"])) if strange else "GET",
        "path": path,
        "query_string": draw(st.sampled_from([b"a=b", b"embed=" + b"a" * 26, b"embed_token=x", b"%65mbed_token"]))
        if draw(st.integers(0, 5)) == 0
        else b"",
        "client": draw(st.sampled_from([("192.0.2.7", 1), ("10.0.0.1", 1), None])),
        "headers": draw(st.permutations([*bearer, *draw(st.lists(_header, max_size=6 if strange else 1))])),
    }


def _settings(**changes: Any) -> GuardSettings:
    given: dict[str, Any] = {
        "allowed_origins": [PORTAL, "https://*.customers.example"],
        "public_origin": [OWN],
        "issuer": "https://host.example",
        "audience": "charts",
        "secret": TEST_SECRET,
        "rls_columns": {"flights.carrier": "carrier"},
        "token_carriers": ["authorization", "x-embed-token", "websocket", "session"],
        "exempt_paths": ["/health"],
        "exempt_prefixes": ["/static"],
        "audit": "structlog",
        # Every request has an event loop of its own here: none is left to renew what it began to.
        "revocation_staleness_seconds": 3600,
        **changes,
    }
    return GuardSettings(**{name: value for name, value in given.items() if value is not None})


_FOLDER = Path(tempfile.mkdtemp())
_TENANTS = _FOLDER / "tenants.toml"
_TENANTS.write_text(f'[tenants]\nacme = ["{PORTAL}"]\n')
CONFIGURATIONS: list[dict[str, Any]] = [
    {},
    {"trusted_proxies": ["10.0.0.0/8"]},
    {"trusted_proxies": ["10.0.0.0/8"], "public_origin": None, "framing": "sole"},
    {"report_only": ["origin", "frame_ancestors", "region", "grant"]},
    {"report_only": ["grant"], "cors": False},
    {"report_only": ["region"], "region": "eu"},
    {"region": "eu"},
    {"tenant_origins_file": _TENANTS},
    {"require_token_origins": True, "report_only": ["frame_ancestors"]},
    {"rls_columns": None, "insecure_no_rls": True},
    {"insecure_null_origin": True, "token_carriers": ["authorization"]},
    {"token_carriers": ["x-embed-token"]},
    {"audit_hmac_key": secrets.token_urlsafe(32)},
    {"audit_mode": "best_effort"},
]
INNER: list[dict[str, Any]] = [
    {},
    {"report_only": ["origin", "region", "grant"]},
    {"rls_columns": {"flights.airline": "airline"}},
    {"region": "eu"},
    {"allowed_origins": [CUSTOMER], "exempt_prefixes": ["/inner"]},
    {"claim_tenant": "org", "claim_region": "land", "require_tenant": False},
    {"token_carriers": ["x-embed-token"], "environment": "development"},
]


async def _say(send: Any, *parts: bytes, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers]})
    for part in parts[:-1]:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": parts[-1]})


def _seen(scope: Any) -> bytes:
    """Everything that an app can see of what the guard has done; some do not look at its Trail, as nearly all apps."""
    if scope["path"].startswith("/blind"):
        return repr((scope["headers"], scope["query_string"], scope["state"], current_row_access.get())).encode()
    embed, access, trail = scope["state"].get("embed"), current_row_access.get(), existing_trail(scope)
    assert trail is not None
    return json.dumps(
        {
            "headers": [(bytes(name).decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
            "query": scope["query_string"].decode("latin-1"),
            "embed": repr(embed),
            "rows": None if embed is None or embed.rls is None else embed.rls.fingerprint,
            "access": None if access is None else (access.row_filter.fingerprint, access.closed, access.receipts),
            "trail": {
                "steps": [(step.layer, repr(step.decision), step.enforced) for step in trail.steps],
                "claims": None if trail.claims is None else (trail.claims.token_id, trail.claims.tenant),
                "said": [repr(part) for part in (trail.caller, trail.embedder, trail.narrowing)],
                "flags": [trail.opaque_caller, trail.own_page, trail.exempt, trail.report_only_grants],
                "edits": [type(edit).__name__ for edit in trail.edits],
                "same": trail.access is access and trail.embed is embed,
            },
        }
    ).encode()


async def chart(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"].removeprefix("/inner")
    if path == "/crash":
        raise RuntimeError("the app fails")
    if path == "/refuse":
        raise Refused(Deny("x_closed", "closed today"))
    if path == "/unanswered":
        return
    if path == "/late":
        await _say(send, b"", status=503)
        raise RuntimeError("the app fails late")
    if path.startswith(("/say/", "/stubborn/", "/blind/say/")):
        return await _run(scope, receive, send)
    access = current_row_access.get()
    if path == "/blind/noted" and access is not None:
        access.note(["flights"], "v1")
    if path == "/receipts":
        if access is not None and scope["query_string"] != b"a=b":
            access.note(["flights"], "v1")
        await RowFilterMiddleware(functools.partial(_answer), require_row_filter=["flights"])(scope, receive, send)
    elif path.startswith("/grant/"):
        scope["path_params"] = {"id": path.removeprefix("/grant/")}
        await GrantMiddleware(_answer, type="dashboard", id_param="id", action="view")(scope, receive, send)
    elif path == "/stream":
        await _say(send, _seen(scope), b"", b"more", b"end")
    elif path in ("/framed", "/blind/framed"):
        headers = [
            (b"Content-Security-Policy", b"default-src 'self'; frame-ancestors https://portal.example"),
            (b"X-Frame-Options", b"SAMEORIGIN"),
            (b"Cache-Control", b"public, max-age=60"),
            (b"access-control-allow-origin", b"*"),
            (b"vary", b"Accept"),
        ]
        await _say(send, _seen(scope), headers=headers)
    elif path == "/trailers":
        await send({"type": "http.response.debug", "info": {}})
        await send({"type": "http.response.early_hint", "links": []})
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": _seen(scope)})
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": False})
    else:
        await _answer(scope, receive, send)


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    await _say(send, _seen(scope))


async def _run(scope: Any, receive: Any, send: Any) -> None:
    """An app that does what its path says, step by step."""
    program = scope["path"].rpartition("/")[2]
    for step in map(int, filter(None, program.split("."))):
        try:
            if step < len(_PARTS):
                part = _PARTS[step]
                await send({**part, "body": part.get("body", b"") + _seen(scope)} if "body" in part else {**part})
            else:
                await _do(_DEEDS[step - len(_PARTS)], scope, receive)
        except Exception:
            if "/stubborn/" not in scope["path"]:
                raise


class _Stopped(BaseException):
    """Not an Exception, as what ends a process is."""


async def _do(deed: str, scope: Any, receive: Any) -> None:
    access = current_row_access.get()
    match deed:
        case "receive":
            await receive()
        case "note" if access is not None:
            access.note(["flights"], "v1")
        case "require" if access is not None:
            require_receipts(scope, frozenset(["flights"]))
        case "grant":
            trail_of(scope).add("grant", Deny(Reason.GRANT_MISSING, "one"), report_only=True)
        case "allow":
            trail_of(scope).add("gate", ALLOW)
        case "report":
            trail_of(scope).add("gate", Deny("x_closed", "at night"), report_only=True)
        case "steps":
            trail_of(scope).add("gate", Allow({"origin": "https://told.example", "key_id": "k"}))
        case "raise":
            raise RuntimeError("the app fails")
        case "refuse":
            raise Refused(Deny("x_closed", "closed today"))
        case "group":
            raise ExceptionGroup("tasks", [Refused(Deny("x_closed")), RuntimeError("the app fails")])
        case "exit":
            raise _Stopped
        case "strip":
            scope["headers"] = []


class Lines:
    """Keeps what is recorded, read back from its line."""

    takes_lines = True

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []
        self.full = 0  # so many more are not written

    def write(self, event: Any) -> None:
        if self.full > 0:
            self.full -= 1
            raise OSError("full")
        self.kept.append(json.loads(event if isinstance(event, bytes) else encode_line(event)))

    def close(self) -> None: ...


_LINES = Lines()


@functools.cache
def guards(configuration: int, inner: int | None) -> tuple[Any, Any]:
    """The guard, and the one that asks every layer each time. They live on from one example to the next."""

    def guard(**cache: Any) -> Any:
        app: Any = chart
        if inner is not None:
            nested = ToucanGuard(chart, settings=_settings(**INNER[inner], **cache))

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await (nested if scope["path"].startswith(("/inner", "/static")) else chart)(scope, receive, send)

        return ToucanGuard(app, settings=_settings(**CONFIGURATIONS[configuration], **cache))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toucan_guard.recording.open_sink", lambda *_, **__: _LINES)
        return guard(), guard(token_cache_size=0)


_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_PASSING = ("time", "event_id", "request_id", "decision_id", "first_byte_ms", "expires_in_seconds")


def ask(
    guard: Any, request: dict[str, Any], *, observed: bool, unwritten: int = 0, unsent: int = 0
) -> tuple[list[Any], list[Any], str, str]:
    """What a guard sends and records, without what differs from one request to the next.

    The first ``unwritten`` events cannot be written, and the client is gone when the message of the number ``unsent``
    leaves. Where somebody observes events, they are encoded one by one; else the lines of those that were admitted are
    put together from what was encoded before.
    """
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "https", "root_path": "",
        "raw_path": request["path"].encode(), "server": ("charts.example", 443), "extensions": {},
        "state": {"embed": 1},
        **request, "headers": [*request["headers"]],
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if len(sent) + 1 == unsent:
            raise OSError("gone")
        body = _ID.sub(b"an id", message["body"]) if "body" in message else b""
        sent.append({**message, **({"body": body} if "body" in message else {})})

    raised = ""
    _LINES.kept.clear()
    _LINES.full = unwritten
    with audit_capture() if observed else contextlib.nullcontext():
        try:
            anyio.run(guard, scope, receive, send)
        except (Exception, _Stopped) as error:  # noqa: BLE001 - compared
            raised = repr(error)
    assert current_row_access.get() is None
    told = [{name: value for name, value in event.items() if name not in _PASSING} for event in _LINES.kept]
    return sent, told, raised, repr(scope["state"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    requests=st.lists(_requests(), min_size=1, max_size=3),
    configuration=st.integers(0, len(CONFIGURATIONS) - 1),
    inner=st.none() | st.integers(0, len(INNER) - 1),
    observed=st.booleans(),
    unwritten=st.sampled_from([0, 0, 0, 1, 2]),
    unsent=st.sampled_from([0, 0, 0, 1, 2, 3]),
)
def test_what_is_admitted_is_answered_and_recorded_as_if_every_layer_had_been_asked(
    requests: list[dict[str, Any]], configuration: int, inner: int | None, observed: bool, unwritten: int, unsent: int
) -> None:
    admitting, asking = guards(configuration, inner)
    # The first makes its token known, the second is kept, the third is admitted; or it is refused like those before.
    for fails in ({}, {}, {"unwritten": unwritten, "unsent": unsent}):
        for request in requests:
            answers = [ask(guard, request, observed=observed, **fails) for guard in (admitting, asking)]
            assert answers[0] == answers[1]
