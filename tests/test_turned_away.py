"""A refusal that is given again: the layers' own answer and record, and nothing of somebody else's.

What it has to equal is the answer of a guard that keeps nothing.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from toucan_guard import Deny, GuardSettings, Reason, Refused, ToucanGuard
from toucan_guard.core.audit_line import encode_line
from toucan_guard.testing import TEST_SECRET, FakeClock, audit_capture
from toucan_guard.tokens import cache
from toucan_guard.tokens.keys import KeyRing
from toucan_guard.tokens.revocation import Revocation, RevocationKind, revoke
from toucan_guard.trail import Trail, existing_trail

pytestmark = pytest.mark.anyio

PORTAL, EVIL = "https://portal.example", "https://evil.example"
OTHER_SECRET = "x9#kQ7!another-secret-of-another-host-Zp4"
INHERITED = "0123456789-abcdef_0123456789.ABCDEF0"  # as long as an id of our own
PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate"}
ASKED = (True, True, False)  # what comes a second time is kept
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_PASSING = ("time", "event_id", "decision_id", "request_id", "first_byte_ms", "expires_in_seconds")


class Sink:
    """Keeps lines, read back; can be full."""

    takes_lines = True

    def __init__(self) -> None:
        self.full = False
        self.kept: list[dict[str, Any]] = []

    def write(self, event: Any) -> None:
        if self.full:
            raise OSError("full")
        self.kept.append(json.loads(event if isinstance(event, bytes) else encode_line(event)))

    def close(self) -> None: ...


async def chart(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/closed":
        raise Refused(Deny("x_closed", "closed today"))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["state"]["embed"].subject.encode()})


class World:
    """A guard whose record is looked into; ``asked`` counts the requests that its layers have looked at."""

    def __init__(self, settings: GuardSettings, http: Any) -> None:
        self.sink, self.asked, self._http = Sink(), 0, http
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("toucan_guard.recording.open_sink", lambda *_, **__: self.sink)
            self.guard = ToucanGuard(chart, settings=settings)
        layers = self.guard.app.app

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            self.asked += 1
            await layers(scope, receive, send)

        self.guard.app.app = counted

    async def ask(self, headers: Any = (), method: str = "GET", path: str = "/", **more: Any) -> tuple[Any, bool]:
        """What came back, and whether the layers were asked."""
        before = self.asked
        answer = await self._http(self.guard, method, path, headers, **more)
        return answer, self.asked > before

    def recorded(self) -> list[dict[str, Any]]:
        """What was recorded since the last time."""
        kept, self.sink.kept = self.sink.kept, []
        return kept


@pytest.fixture
def worlds(make_settings: Any, http: Any) -> Callable[..., tuple[World, World]]:
    """A guard that keeps refusals, and one that keeps nothing."""

    def make(**changes: Any) -> tuple[World, World]:
        keeps, asks = make_settings(**changes), make_settings(**changes, token_cache_size=0)
        return World(keeps, http), World(asks, http)

    return make


def _answered(answer: Any) -> list[Any]:
    """What was sent, without the ids of our own."""
    return [
        {**message, **({"body": _ID.sub(b"an id", message["body"])} if "body" in message else {})}
        for message in answer.messages
    ]


def _told(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in event.items() if name not in _PASSING} for event in events]


async def _same(keeps: World, asks: World, *, asked: bool, headers: Any = (), **request: Any) -> Any:
    """The answer of the first world, which is the second one's, as its record is."""
    answer, looked = await keeps.ask(headers, **request)
    expected, _ = await asks.ask(headers, **request)
    assert looked == asked
    assert _answered(answer) == _answered(expected)
    assert _told(keeps.recorded()) == _told(asks.recorded())
    return answer


def _bearer(token: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", **more}


KEPT = [
    pytest.param({}, Reason.TOKEN_MISSING, id="no token"),
    pytest.param({"origin": EVIL}, Reason.ORIGIN_NOT_ALLOWED, id="a stranger's Origin"),
    pytest.param({"origin": PORTAL}, Reason.TOKEN_MISSING, id="no token from a listed caller"),
    pytest.param({"referer": f"{PORTAL}/", "sec-fetch-dest": "iframe"}, Reason.TOKEN_MISSING, id="a listed embedder"),
]


@pytest.mark.parametrize("page", [False, True], ids=["JSON", "a page"])
@pytest.mark.parametrize(("headers", "reason"), KEPT)
async def test_a_refusal_is_given_again_with_an_id_and_a_record_of_its_own(
    headers: Any, reason: Reason, page: bool, worlds: Any, make_token: Any
) -> None:
    keeps, asks = worlds()
    headers = {**headers, **(PAGE if page else {})}
    ids = []
    for asked in (*ASKED, False):
        answer, looked = await keeps.ask(headers)
        (event,) = keeps.recorded()
        assert (looked, answer.status, event["reason"], event["outcome"]) == (asked, event["status"], reason, "deny")
        assert (answer.header("content-type") == "text/html; charset=utf-8") == page
        assert _ID.findall(answer.body) == [event["request_id"].encode()]
        ids += [event["request_id"], event["event_id"]]
    assert len(set(ids)) == len(ids)
    await _same(keeps, asks, asked=False, headers=headers)
    # With a token the Origin is refused all the same, and nothing else is.
    await _same(keeps, asks, asked=reason == Reason.TOKEN_MISSING, headers={**headers, **_bearer(make_token())})


async def test_tokens_that_do_not_verify_are_refused_again_each_for_its_own_reason(
    worlds: Any, make_token: Any
) -> None:
    keeps, asks = worlds()
    good = make_token()
    refused = {
        make_token(now=1): Reason.TOKEN_EXPIRED,
        make_token(key=OTHER_SECRET): Reason.SIGNATURE_INVALID,
        make_token(issuer="https://other.example"): Reason.ISSUER_NOT_ALLOWED,
        make_token(audience="maps"): Reason.AUDIENCE_NOT_ALLOWED,
        make_token(bootstrap=True): Reason.TOKEN_TYPE_NOT_ALLOWED,
        "a.!.c": Reason.TOKEN_MALFORMED,
        "x" * 9000: Reason.TOKEN_TOO_LARGE,
        "x": Reason.TOKEN_MALFORMED,
    }
    # Until one was let in with such a request, its tokens are the layers' to verify.
    for token in refused:
        for _ in range(2):
            await _same(keeps, asks, asked=True, headers=_bearer(token))
    for asked in (True, False, False):
        await _same(keeps, asks, asked=asked, headers=_bearer(good))
    for token, reason in refused.items():
        answers = [await _same(keeps, asks, asked=asked, headers=_bearer(token)) for asked in ASKED]
        assert {answer.reason for answer in answers} == {reason}
    # Another token that is refused for the same reason is refused by what was kept.
    await _same(keeps, asks, asked=False, headers=_bearer(make_token(now=2)))
    await _same(keeps, asks, asked=False, headers=_bearer(good))
    await _same(keeps, asks, asked=False, headers=_bearer(make_token(subject="user-2")))


async def test_a_page_and_problem_details_are_kept_apart(worlds: Any) -> None:
    keeps, asks = worlds()
    for asked in ASKED:
        for accept in ("text/html", "application/json", "text/html;q=0.5, application/json", "*/*"):
            await _same(keeps, asks, asked=asked, headers={"accept": accept})


@pytest.mark.parametrize(
    ("headers", "method", "more"),
    [
        pytest.param({"cookie": "theme=dark"}, "GET", {}, id="a cookie"),
        pytest.param({"cookie": "theme=dark"}, "POST", {}, id="a cookie that changes something"),
        pytest.param({"authorization": "Basic dTpw"}, "GET", {}, id="Basic"),
        pytest.param({"authorization": "bearer x"}, "GET", {}, id="another spelling"),
        pytest.param({"authorization": ""}, "GET", {}, id="no credentials at all"),
        pytest.param({"x-embed-token": "x"}, "GET", {}, id="another carrier"),
        pytest.param({"x-api-key": "x"}, "GET", {}, id="an API key"),
        pytest.param({"sec-websocket-protocol": "embed"}, "GET", {}, id="a subprotocol"),
        pytest.param({}, "GET", {"query": "embed=" + "a" * 26}, id="the handle of a session"),
        pytest.param({}, "GET", {"query": "%65mbed=" + "a" * 26}, id="the handle in another spelling"),
        pytest.param({}, "GET", {"query": "embed_token=x"}, id="a bootstrap token"),
        pytest.param({"authorization": "Bearer x"}, "GET", {"query": "embed_token=x"}, id="two tokens"),
        pytest.param([("origin", EVIL), ("origin", EVIL)], "GET", {}, id="a repeated Origin"),
        pytest.param([("accept", "text/html"), ("accept", "application/json")], "GET", {}, id="a repeated Accept"),
        pytest.param([("x", "y"), ("x", "y")], "GET", {}, id="anything that is repeated"),
        pytest.param({"origin": EVIL, "access-control-request-method": "PUT"}, "OPTIONS", {}, id="a preflight"),
        pytest.param({"origin": EVIL, "accept": "x" * 1024}, "GET", {}, id="a long Accept"),
        pytest.param({"referer": f"{EVIL}/{'x' * 1024}"}, "GET", {}, id="a long Referer"),
        pytest.param({}, "BREW", {}, id="a method that nobody knows"),
    ],
)
async def test_what_may_be_refused_for_something_else_is_asked_about_each_time(
    headers: Any, method: str, more: Any, worlds: Any
) -> None:
    keeps, asks = worlds(token_carriers=["authorization", "x-embed-token", "session"])
    for _ in range(3):
        await _same(keeps, asks, asked=True, headers=headers, method=method, **more)
    # And what was kept of simpler requests does not answer it.
    for simple in ({}, {"origin": EVIL}, {"accept": "application/json"}):
        for _ in ASKED:
            await keeps.ask(simple, method)
    keeps.recorded()
    await _same(keeps, asks, asked=True, headers=headers, method=method, **more)


async def test_the_detail_about_another_scheme_is_nobody_else_s(worlds: Any) -> None:
    keeps, asks = worlds()
    for _ in range(3):
        await _same(keeps, asks, asked=True, headers={"authorization": "Token a.b.c"})
    for asked in ASKED:
        await _same(keeps, asks, asked=asked)
    answer, _ = await keeps.ask({"authorization": "Token a.b.c"})
    assert answer.reason == Reason.TOKEN_MISSING
    (line,) = keeps.recorded()
    assert "has not the scheme Bearer" in line["detail"]
    await keeps.ask()
    assert "Bearer" not in keeps.recorded()[0]["detail"]


async def test_what_a_repeated_accept_has_led_to_is_not_given_to_others(worlds: Any) -> None:
    keeps, asks = worlds()
    for _ in ASKED:
        await _same(keeps, asks, asked=True, headers=[("accept", "text/html"), ("accept", "application/json")])
    answer = await _same(keeps, asks, asked=True, headers={"accept": "application/json"})
    assert answer.reason == Reason.TOKEN_MISSING


@pytest.mark.parametrize("authorization", ["Bearer  {}", "Bearer {} ", "Bearer {}\t", "Bearer {}\xa0"])
async def test_white_space_around_a_token_does_not_make_it_the_malformed_one_of_somebody_else(
    authorization: str, worlds: Any, make_token: Any
) -> None:
    keeps, asks = worlds()
    token = make_token()
    for credentials in (token, "a.!.c", "\xff"):
        for _ in ASKED:
            await keeps.ask(_bearer(credentials))
            await asks.ask(_bearer(credentials))
    keeps.recorded(), asks.recorded()
    answer = await _same(keeps, asks, asked=True, headers={"authorization": authorization.format(token)})
    assert (answer.status, answer.body) == (200, b"user-1")


@pytest.mark.parametrize("headers", [{}, PAGE], ids=["JSON", "a page"])
@pytest.mark.parametrize(
    "request_id",
    [
        pytest.param(INHERITED, id="as long as our own"),
        pytest.param("trace-12345678", id="shorter"),
        pytest.param("x" * 64, id="longer"),
        pytest.param("no id at all", id="not an id"),
    ],
)
async def test_the_id_of_a_trusted_proxy_is_shown_and_recorded(request_id: str, headers: Any, worlds: Any) -> None:
    keeps, asks = worlds(trusted_proxies=["10.0.0.0/8"])
    for _ in range(2):
        await keeps.ask(headers, client=("10.0.0.1", 1))
    keeps.recorded()
    sent = {**headers, "x-request-id": request_id, "x-forwarded-for": "192.0.2.9"}
    for client in (("10.0.0.1", 1), ("10.0.0.1", 1)):
        answer, looked = await keeps.ask(sent, client=client)
        (event,) = keeps.recorded()
        assert (looked, event["client"]) == (False, "192.0.2.9")
        assert (event["request_id"] == request_id) == (" " not in request_id)
        assert answer.body.count(event["request_id"].encode()) == 1
        assert int(answer.header("content-length")) == len(answer.body)
    await _same(keeps, asks, asked=False, headers=sent, client=("10.0.0.1", 1))
    # From anybody else it counts for nothing.
    answer, _ = await keeps.ask(sent, client=("192.0.2.7", 1))
    assert request_id.encode() not in answer.body


@pytest.mark.parametrize("first", ["trace-12345678", INHERITED, "x" * 64, "request_id", "token_missing"])
async def test_what_was_refused_under_one_id_is_given_again_under_any_other(first: str, worlds: Any) -> None:
    keeps, asks = worlds(trusted_proxies=["10.0.0.0/8"])
    client = ("10.0.0.1", 1)
    for _ in range(2):
        await keeps.ask({"x-request-id": first}, client=client)
        await asks.ask({"x-request-id": first}, client=client)
    keeps.recorded(), asks.recorded()
    # What stands twice in the answer does not tell where an id belongs.
    asked = first in ("request_id", "token_missing")
    for request_id in ("another-id-of-this-proxy", first, "y" * 64, "z" * 8):
        answer = await _same(keeps, asks, asked=asked, headers={"x-request-id": request_id}, client=client)
        assert answer.problem["request_id"] == request_id
        asked = False


@pytest.mark.parametrize("headers", [{}, {"origin": EVIL, "referer": f"{PORTAL}/"}, PAGE])
async def test_a_refusal_that_cannot_be_recorded_does_not_leave(headers: Any, worlds: Any) -> None:
    keeps, asks = worlds()
    for asked in ASKED:
        await _same(keeps, asks, asked=asked, headers=headers)
    keeps.sink.full = asks.sink.full = True
    answer = await _same(keeps, asks, asked=False, headers={**headers, "x-request-id": INHERITED})
    assert answer.status == 503
    assert b"audit_unavailable" in answer.body
    assert answer.header("x-frame-options") == ("DENY" if "referer" not in headers else None)
    keeps.sink.full = asks.sink.full = False
    await _same(keeps, asks, asked=False, headers=headers)


async def test_the_answer_to_what_cannot_be_recorded_bears_the_id_of_the_proxy(worlds: Any) -> None:
    keeps, _ = worlds(trusted_proxies=["10.0.0.0/8"])
    for _ in range(2):
        await keeps.ask(client=("10.0.0.1", 1))
    keeps.sink.full = True
    answer, asked = await keeps.ask({"x-request-id": INHERITED}, client=("10.0.0.1", 1))
    assert (answer.status, answer.problem["request_id"], asked) == (503, INHERITED, False)


async def test_with_best_effort_a_refusal_leaves_unrecorded_and_the_next_record_says_so(worlds: Any) -> None:
    keeps, asks = worlds(audit_mode="best_effort")
    for asked in ASKED:
        await _same(keeps, asks, asked=asked)
    keeps.sink.full = asks.sink.full = True
    for _ in range(2):
        assert (await _same(keeps, asks, asked=False)).reason == Reason.TOKEN_MISSING
    keeps.sink.full = asks.sink.full = False
    await keeps.ask()
    (event,) = keeps.recorded()
    assert (event["reason"], event["dropped"]) == (Reason.TOKEN_MISSING, 2)


async def test_a_record_that_says_more_than_a_line_holds_is_worked_out(worlds: Any) -> None:
    keeps, asks = worlds()
    for asked in ASKED:
        await _same(keeps, asks, asked=asked)
    answer = await _same(keeps, asks, asked=True, client=("x" * 4000, 1))
    assert answer.reason == Reason.TOKEN_MISSING
    await _same(keeps, asks, asked=False)


@pytest.mark.parametrize("phase", ["http.response.start", "http.response.body"])
@pytest.mark.parametrize("error", [OSError("gone"), KeyboardInterrupt()], ids=["an error", "what ends the process"])
async def test_a_refusal_that_was_cut_is_recorded_as_such(phase: str, error: BaseException, worlds: Any) -> None:
    async def request(world: World) -> list[dict[str, Any]]:
        async def send(message: Any) -> None:
            if message["type"] == phase:
                raise error

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        with pytest.raises(type(error)):
            await world.guard(scope, receive, send)
        return world.recorded()

    keeps, asks = worlds()
    for asked in ASKED:
        await _same(keeps, asks, asked=asked)
    before, told = keeps.asked, await request(keeps)
    assert keeps.asked == before
    decision, completion = told
    assert (completion["event"], completion["outcome"]) == ("completion", "error")
    assert completion["decision_id"] == decision["event_id"]
    assert completion["request_id"] == decision["request_id"]
    assert [event["event"] for event in await request(asks)] == ["decision", "completion"]


async def test_who_observes_events_sees_each_refusal(worlds: Any) -> None:
    keeps, asks = worlds()
    for asked in ASKED:
        await _same(keeps, asks, asked=asked)
    with audit_capture() as events:
        for _ in range(2):
            answer, asked = await keeps.ask()
            assert (answer.reason, asked) == (Reason.TOKEN_MISSING, True)
    assert [event["reason"] for event in events] == [Reason.TOKEN_MISSING] * 2
    assert len(keeps.recorded()) == 2
    await _same(keeps, asks, asked=False)


async def test_a_token_that_is_refused_is_verified_once_whoever_looks_into_the_record(
    worlds: Any, make_token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeps, _ = worlds()
    bad = _bearer(make_token(now=1))
    for headers in (_bearer(make_token()), bad, bad):
        await keeps.ask(headers)
    verified: list[str] = []

    def verify(token: str, **how: Any) -> Any:
        verified.append(token)
        return real(token, **how)

    real = cache.verify
    monkeypatch.setattr(cache, "verify", verify)
    with audit_capture():
        answer, asked = await keeps.ask(bad)
    assert (answer.reason, asked, len(verified)) == (Reason.TOKEN_EXPIRED, True, 1)
    answer, asked = await keeps.ask(bad)
    assert (answer.reason, asked, len(verified)) == (Reason.TOKEN_EXPIRED, False, 2)


async def test_where_nothing_is_recorded_refusals_are_given_again_too(make_settings: Any, http: Any) -> None:
    world = World(make_settings(audit=None, insecure_no_audit=True), http)
    for asked in ASKED:
        answer, looked = await world.ask()
        assert (answer.reason, looked) == (Reason.TOKEN_MISSING, asked)


async def test_few_are_kept(worlds: Any) -> None:
    keeps, asks = worlds()
    for number in range(256):
        for _ in range(2):
            await keeps.ask({"origin": f"https://evil-{number}.example"})
    assert not (await keeps.ask({"origin": "https://evil-0.example"}))[1]
    for _ in range(2):
        await keeps.ask({"origin": "https://evil-256.example"})  # one too many
    assert (await keeps.ask({"origin": "https://evil-0.example"}))[1]
    keeps.recorded()
    await _same(keeps, asks, asked=False, headers={"origin": "https://evil-256.example"})


async def test_whoever_says_something_else_each_time_pushes_nobody_out(worlds: Any) -> None:
    keeps, asks = worlds()
    for asked in ASKED:
        await _same(keeps, asks, asked=asked)
    for number in range(2000):
        assert (await keeps.ask({"origin": f"https://evil-{number}.example"}))[1]
    keeps.recorded()
    await _same(keeps, asks, asked=False)
    assert len(keeps.guard.app._refusals._known) == 1
    assert len(keeps.guard.app._refusals._heard) <= 1024


async def test_one_caller_never_gets_the_headers_of_another(worlds: Any) -> None:
    keeps, asks = worlds()
    origins = [PORTAL, "https://a.customers.example", "https://b.customers.example", EVIL, "null", "https://x.example"]
    for asked in ASKED:
        for origin in origins:
            for referer in (f"{PORTAL}/", "https://b.customers.example/", f"{EVIL}/"):
                headers = {"origin": origin, "referer": referer}
                answer = await _same(keeps, asks, asked=asked, headers=headers)
                assert answer.header("access-control-allow-origin") in (None, origin)


async def test_nothing_that_was_put_on_an_answer_outside_is_put_on_the_next(worlds: Any, http: Any) -> None:
    keeps, asks = worlds()
    for asked in (*ASKED, False):
        answer = await _same(keeps, asks, asked=asked)
        assert answer.header("set-cookie") is None
        answer.start["headers"].append((b"set-cookie", b"a=b"))


@pytest.mark.parametrize(("headers", "embed"), [({}, None), ({"origin": EVIL}, "forged")])
async def test_what_the_server_calls_an_embed_is_overwritten_as_the_layers_do(
    headers: Any, embed: Any, worlds: Any, http: Any
) -> None:
    for world in worlds():
        for _ in range(3):
            shared = {"embed": "forged", "pool": 1}
            scopes: list[Any] = []

            async def seen(scope: Any, receive: Any, send: Any, world: World = world, scopes: Any = scopes) -> None:
                scopes.append(scope)
                await world.guard(scope, receive, send)

            await http(seen, headers=headers, state=shared)
            assert scopes[0]["state"] == {"embed": embed, "pool": 1}
            assert shared == {"embed": "forged", "pool": 1}  # some servers hand out one for all


async def test_what_the_app_or_a_later_layer_refuses_is_worked_out_each_time(worlds: Any, make_token: Any) -> None:
    keeps, asks = worlds(region="eu")
    closed = _bearer(make_token(region="eu"))
    for asked in (True, False, False):  # it was let in, and is so again
        await _same(keeps, asks, asked=asked, headers=closed, path="/closed")
    for token in (make_token(region="us"), make_token(region="eu", rls={"airline": "AA"})):
        for _ in range(3):
            await _same(keeps, asks, asked=True, headers=_bearer(token))
    assert (await _same(keeps, asks, asked=False, headers=closed)).status == 200


async def test_what_is_only_reported_is_asked_about_each_time(worlds: Any) -> None:
    keeps, asks = worlds(report_only=["origin"])
    for _ in range(3):
        assert (await _same(keeps, asks, asked=True, headers={"origin": EVIL})).reason == Reason.TOKEN_MISSING


async def test_exempt_paths_are_never_refused_by_what_was_kept(worlds: Any) -> None:
    keeps, asks = worlds(exempt_paths=["/closed"])
    for asked in ASKED:
        await _same(keeps, asks, asked=asked)
    for _ in range(2):
        assert (await _same(keeps, asks, asked=True, path="/closed")).reason == "x_closed"


async def test_keys_are_asked_about_each_time(worlds: Any, make_token: Any) -> None:
    keeps, asks = worlds()
    token = make_token()
    for _ in range(2):
        await keeps.ask(_bearer(token))
        await asks.ask(_bearer(token))
    keeps.recorded(), asks.recorded()
    for ring, reason in (
        (None, Reason.KEY_UNKNOWN),
        (KeyRing.from_secret(OTHER_SECRET), Reason.SIGNATURE_INVALID),
        (None, Reason.KEY_UNKNOWN),
    ):
        for world in (keeps, asks):
            world.guard._keys.ring = ring  # type: ignore[misc] # what a fetch of keys would do
        for _ in range(3):
            answer, asked = await keeps.ask(_bearer(token))
            assert answer.reason == reason
            assert asked or reason != Reason.KEY_UNKNOWN
        assert asked == (reason == Reason.KEY_UNKNOWN)
    keeps.guard._keys.ring = KeyRing.from_secret(TEST_SECRET)  # type: ignore[misc] # as above
    assert (await keeps.ask(_bearer(token)))[0].status == 200


async def test_what_was_revoked_is_asked_about_each_time(worlds: Any, make_token: Any, make_settings: Any) -> None:
    keeps, _ = worlds()
    token, issuer = make_token(token_id="t-1"), make_settings().issuer
    clock = FakeClock()
    await revoke(keeps.guard._store, issuer, Revocation(RevocationKind("token"), "t-1", clock() + 999), now=clock())
    for _ in range(3):
        answer, asked = await keeps.ask(_bearer(token))
        assert (answer.reason, asked) == (Reason.TOKEN_REVOKED, True)
    assert {event["subject"] for event in keeps.recorded()} == {"user-1"}


@pytest.mark.parametrize("fails", ["", "full", "gone"])
async def test_a_connection_that_was_turned_away_is_freed_at_its_end(fails: str, worlds: Any, http: Any) -> None:
    keeps, _ = worlds()
    for _ in range(2):
        await keeps.ask()
    trails: list[Trail | None] = []

    async def outside(scope: Any, receive: Any, send: Any) -> None:
        async def cut(message: Any) -> None:
            if fails == "gone":
                raise OSError("gone")
            await send(message)

        try:
            await keeps.guard(scope, receive, cut)
        finally:
            trails.append(existing_trail(scope))

    keeps.sink.full = fails == "full"
    gc.collect()
    gc.disable()
    try:
        before = _trails()
        if fails == "gone":
            with pytest.raises(OSError, match="gone"):
                await http(outside)
        else:
            await http(outside)
        assert [trail is None or (trail.audit, trail.edits) == (None, ()) for trail in trails] == [True]
        trails.clear()
        assert _trails() == before
    finally:
        gc.enable()


def _trails() -> int:
    return sum(type(found) is Trail for found in gc.get_objects())
