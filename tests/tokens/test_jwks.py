"""Fetched keys: always at hand, renewed in the background, one fetch for all who wait, none for a flood."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import hmac
import json
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.jws import encode_segment
from toucan_guard.core.token_policy import TokenPolicy
from toucan_guard.tokens import jwks as jwks_module
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.jwks import JwksKeys, shared_jwks
from toucan_guard.tokens.mint import TokenMinter

NOW = 1_800_000_000.0
URL = "https://login.example/jwks.json"

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Endpoint:
    """Answers each fetch with what ``answer`` says: a body, an exception, or something to wait for first."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.fetched = 0
        self.cancelled = 0

    async def __call__(self, url: str) -> bytes:
        assert url == URL
        self.fetched += 1
        try:
            answer = self.answer
            if isinstance(answer, anyio.Event):
                await answer.wait()
                answer = self.answer
            else:
                await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]


def minter(kid: str) -> TokenMinter:
    key = Ed25519PrivateKey.generate()
    return TokenMinter(key, kid=kid, issuer="https://host.example", audience="charts", clock=lambda: NOW)


def body(*minters: TokenMinter) -> bytes:
    return json.dumps({"keys": [one.verification_key.public_jwk() for one in minters]}).encode()


def source(endpoint: Endpoint, clock: Clock, **options: Any) -> JwksKeys:
    # No test but those that say so is about how long a request waits: on a busy machine a thousand take their time.
    return JwksKeys(URL, fetch=endpoint, elapsed=clock, jitter=lambda: 0.0, **{"wait_seconds": 60, **options})


def verifier(keys: JwksKeys) -> CachedVerifier:
    return CachedVerifier(TokenPolicy("https://host.example", ("charts",)), keys, TokenCache(100))


async def verdict(one: CachedVerifier, token: str) -> str:
    """As the layer does: judged, looked at again where a key is wanting, and judged again."""
    result = one.verify(token, now=NOW)
    if one.lacks_key(result) and await one.look_again(token):
        result = one.verify(token, now=NOW)
    return str(result.reason) if isinstance(result, Deny) else "accepted"


async def settled(until: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not until():  # noqa: ASYNC110 - what is waited for sets no event
            await anyio.sleep(0.001)


async def test_the_first_token_fetches_the_keys() -> None:
    a = minter("a")
    endpoint = Endpoint(body(a))
    one = verifier(source(endpoint, Clock()))
    assert await verdict(one, a.mint(subject="u", tenant="AA")) == "accepted"
    assert endpoint.fetched == 1


async def test_keys_that_were_fetched_at_the_start_are_there_for_the_first_token() -> None:
    a = minter("a")
    endpoint = Endpoint(body(a))
    keys = source(endpoint, Clock())
    assert not keys.complete
    await keys.start()
    assert keys.complete
    assert isinstance(verifier(keys).verify(a.mint(subject="u", tenant="AA"), now=NOW), VerifiedClaims)
    await keys.start()
    assert endpoint.fetched == 1


async def test_a_thousand_first_requests_share_one_fetch() -> None:
    a = minter("a")
    gate = anyio.Event()
    endpoint = Endpoint(gate)
    one = verifier(source(endpoint, Clock(), timeout_seconds=60))
    token = a.mint(subject="u", tenant="AA")
    verdicts: list[str] = []

    async def ask() -> None:
        verdicts.append(await verdict(one, token))

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(ask)
        await settled(lambda: endpoint.fetched == 1)
        endpoint.answer = body(a)
        gate.set()
    assert verdicts == ["accepted"] * 1000
    assert endpoint.fetched == 1


async def test_a_flood_of_made_up_keys_is_one_fetch_for_each_cooldown() -> None:
    """CVE-2026-48524 (PyJWT): each unknown ``kid`` caused a fetch."""
    a = minter("a")
    clock, endpoint = Clock(), Endpoint(body(a))
    one = verifier(source(endpoint, clock, cooldown_seconds=10))
    good = a.mint(subject="u", tenant="AA")
    assert await verdict(one, good) == "accepted"
    forged = [minter(f"made-up-{number}").mint(subject="u", tenant="AA") for number in range(50)]
    for token in forged:
        assert await verdict(one, token) == "key_unknown"
    assert endpoint.fetched == 1
    for cooldown in range(1, 4):
        clock.now += 10
        for token in forged:
            assert await verdict(one, token) == "key_unknown"
        assert endpoint.fetched == 1 + cooldown
    assert await verdict(one, good) == "accepted"


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(OSError("refused"), id="no connection"),
        pytest.param(ValueError("\x1b[31mgarbage"), id="an error of the fetcher's"),
        pytest.param(b"<html>", id="garbage"),
        pytest.param(b'{"keys": []}', id="an empty set"),
        pytest.param("text", id="no bytes"),
        pytest.param(None, id="nothing"),
    ],
)
async def test_a_failure_counts_for_the_cooldown_and_keeps_the_keys(failure: object) -> None:
    a, b = minter("a"), minter("b")
    clock, endpoint = Clock(), Endpoint(body(a))
    keys = source(endpoint, clock, cooldown_seconds=10, max_stale_seconds=3600)
    one = verifier(keys)
    good, new = (each.mint(subject="u", tenant="AA") for each in (a, b))
    assert await verdict(one, good) == "accepted"
    ring = keys.ring
    endpoint.answer = failure
    clock.now += 100
    for _ in range(5):
        assert await verdict(one, new) == "key_unknown"
        assert await verdict(one, good) == "accepted"
    assert endpoint.fetched == 2
    assert keys.ring is ring
    assert keys.problem is not None
    assert "\x1b" not in keys.problem
    endpoint.answer = body(a, b)
    clock.now += 10
    assert await verdict(one, new) == "accepted"
    assert keys.problem is None


async def test_a_set_that_grows_too_old_ends_and_its_tokens_are_told_to_come_again() -> None:
    a = minter("a")
    clock, endpoint = Clock(), Endpoint(body(a))
    keys = source(endpoint, clock, max_stale_seconds=600, refresh_seconds=300)
    one = verifier(keys)
    good = a.mint(subject="u", tenant="AA")
    assert await verdict(one, good) == "accepted"
    claims = one.verify(good, now=NOW)
    assert isinstance(claims, VerifiedClaims)
    endpoint.answer = OSError("down")
    clock.now += 599
    assert await verdict(one, good) == "accepted"
    clock.now += 1
    assert await verdict(one, good) == "keys_unavailable"
    kept = one.recheck(claims, now=NOW)
    assert isinstance(kept, Deny)
    assert kept.reason == "keys_unavailable"
    assert one.ring is None
    endpoint.answer = body(a)
    clock.now += 10
    assert await verdict(one, good) == "accepted"


async def test_a_token_of_a_known_key_never_waits_whatever_the_endpoint_does() -> None:
    a = minter("a")
    clock, endpoint = Clock(), Endpoint(body(a))
    one = verifier(source(endpoint, clock, refresh_seconds=300))
    good = a.mint(subject="u", tenant="AA")
    assert await verdict(one, good) == "accepted"
    hanging = anyio.Event()
    endpoint.answer = hanging
    clock.now += 400
    # Not awaited: the answer comes from the first look, and the fetch has begun in the background.
    for _ in range(100):
        assert isinstance(one.verify(good, now=NOW), VerifiedClaims)
    await settled(lambda: endpoint.fetched == 2)
    assert isinstance(one.verify(good, now=NOW), VerifiedClaims)
    endpoint.answer = body(a)
    hanging.set()
    await settled(lambda: one.source._flight is None)  # type: ignore[attr-defined]
    assert endpoint.fetched == 2


async def test_a_key_that_disappears_ends_its_remembered_tokens_after_the_refresh() -> None:
    old, new = minter("old"), minter("new")
    clock, endpoint = Clock(), Endpoint(body(old, new))
    keys = source(endpoint, clock, refresh_seconds=300)
    one = verifier(keys)
    tokens = [each.mint(subject="u", tenant="AA") for each in (old, new)]
    for token in tokens:
        assert await verdict(one, token) == "accepted"
    session = one.verify(tokens[0], now=NOW)
    assert isinstance(session, VerifiedClaims)
    endpoint.answer = body(new)
    clock.now += 300
    assert await verdict(one, tokens[0]) == "accepted"  # the request that begins the refresh
    before = keys.ring
    await settled(lambda: keys.ring is not before)
    assert await verdict(one, tokens[0]) == "key_unknown"
    assert isinstance(one.recheck(session, now=NOW), Deny)
    assert await verdict(one, tokens[1]) == "accepted"


async def test_a_key_that_is_replaced_under_its_name_ends_its_remembered_tokens() -> None:
    before, after = minter("k"), minter("k")
    clock, endpoint = Clock(), Endpoint(body(before))
    keys = source(endpoint, clock, refresh_seconds=300)
    one = verifier(keys)
    token = before.mint(subject="u", tenant="AA")
    assert await verdict(one, token) == "accepted"
    endpoint.answer = body(after)
    clock.now += 300
    first = keys.ring
    await settled(lambda: keys.ring is not first)
    assert await verdict(one, token) == "signature_invalid"


async def test_a_set_that_comes_back_unchanged_is_the_same_ring() -> None:
    a, b = minter("a"), minter("b")
    clock, endpoint = Clock(), Endpoint(body(a, b))
    keys = source(endpoint, clock, refresh_seconds=300)
    await keys.start()
    ring = keys.ring
    endpoint.answer = body(b, a)
    clock.now += 300
    assert keys.ring is ring
    await settled(lambda: endpoint.fetched == 2 and keys._flight is None)
    assert keys.ring is ring


async def test_an_unchanged_answer_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, endpoint = Clock(), Endpoint(body(minter("a")))
    keys = source(endpoint, clock)
    await keys.start()

    def unread(body: bytes) -> None:
        raise AssertionError(body)

    monkeypatch.setattr(jwks_module, "read_key_set", unread)
    for _ in range(3):
        clock.now += 3000
        await keys.look_again("b")
        assert (keys.problem, keys.complete) == (None, True)
    assert endpoint.fetched == 4


async def test_a_published_key_is_never_a_secret_for_hmac() -> None:
    """CVE-2022-29217, CVE-2026-48523 (PyJWT): what is public was taken for a secret."""
    a = minter("a")
    published = a.verification_key.public_jwk()
    one = verifier(source(Endpoint(body(a)), Clock()))
    for text in (published["x"], json.dumps(published), json.dumps({"keys": [published]})):
        header, payload = ({"alg": "HS256", "typ": "embed+jwt", "kid": "a"}, {"iss": "https://host.example"})
        signing_input = b".".join(encode_segment(json.dumps(part).encode()) for part in (header, payload))
        forged = signing_input + b"." + encode_segment(hmac.digest(text.encode(), signing_input, "sha256"))
        assert await verdict(one, forged.decode()) == "algorithm_not_allowed"


async def test_a_request_that_is_cancelled_does_not_cancel_the_fetch() -> None:
    a = minter("a")
    gate = anyio.Event()
    endpoint = Endpoint(gate)
    keys = source(endpoint, Clock())
    async with anyio.create_task_group() as group:
        group.start_soon(keys.look_again, "a")
        await settled(lambda: endpoint.fetched == 1)
        group.cancel_scope.cancel()
    endpoint.answer = body(a)
    gate.set()
    await settled(lambda: keys.complete)
    assert (endpoint.fetched, endpoint.cancelled) == (1, 0)


async def test_a_request_waits_for_a_hanging_endpoint_no_longer_than_stated() -> None:
    hanging = anyio.Event()
    endpoint = Endpoint(hanging)
    keys = source(endpoint, Clock(), wait_seconds=0.01, timeout_seconds=60)
    with anyio.fail_after(10):
        await keys.look_again("a")
    assert (endpoint.fetched, keys.complete) == (1, False)
    endpoint.answer = body(minter("a"))
    hanging.set()
    await settled(lambda: keys.complete)


async def test_a_fetch_that_hangs_is_ended_and_counted() -> None:
    clock, endpoint = Clock(), Endpoint(anyio.Event())
    keys = source(endpoint, clock, timeout_seconds=0.01)
    await keys.look_again("a")
    assert (endpoint.fetched, endpoint.cancelled) == (1, 1)
    await keys.look_again("b")
    assert endpoint.fetched == 1
    assert keys.problem == "the endpoint does not answer within 0.01 seconds"


async def test_a_worker_that_serves_nobody_learns_of_a_removed_key_too() -> None:
    old, new = minter("old"), minter("new")
    endpoint = Endpoint(body(old, new))
    keys = JwksKeys(URL, fetch=endpoint, refresh_seconds=0.02)
    await keys.start()
    endpoint.answer = body(new)
    # Nobody asks for the ring: what was fetched is looked at from outside.
    await settled(lambda: keys._ring is not None and [key.kid for key in keys._ring.keys] == ["new"])
    endpoint.answer = OSError("down")
    await settled(lambda: keys.problem is not None)
    endpoint.answer = body(old)
    await settled(lambda: keys._ring is not None and [key.kid for key in keys._ring.keys] == ["old"])


async def test_keys_that_nobody_uses_any_more_are_not_fetched() -> None:
    endpoint = Endpoint(body(minter("a")))

    async def used_for_a_while() -> weakref.ref[JwksKeys]:
        keys = JwksKeys(URL, fetch=endpoint, refresh_seconds=0.02)
        await keys.start()
        await settled(lambda: endpoint.fetched > 1 and keys._flight is None)
        return weakref.ref(keys)

    gone = await used_for_a_while()
    # A fetch that has just begun ends first.
    await settled(lambda: gc.collect() >= 0 and gone() is None)
    fetched = endpoint.fetched
    await anyio.sleep(0.1)
    assert endpoint.fetched == fetched


async def test_the_fetch_runs_on_nobody_s_behalf() -> None:
    viewer: contextvars.ContextVar[str] = contextvars.ContextVar("viewer", default="nobody")
    seen: list[str] = []

    async def fetch(url: str) -> bytes:
        seen.append(viewer.get())
        return body(minter("a"))

    viewer.set("u-1")
    await JwksKeys(URL, fetch=fetch).start()
    assert seen == ["nobody"]


async def test_an_answer_that_was_given_up_does_not_replace_a_later_one() -> None:
    a, b = minter("a"), minter("b")
    clock = Clock()
    first, second = anyio.Event(), anyio.Event()
    second.set()
    answers = iter([(first, body(a)), (second, body(b))])

    async def fetch(url: str) -> bytes:
        gate, answer = next(answers)
        await gate.wait()
        return answer

    keys = JwksKeys(URL, fetch=fetch, elapsed=clock, jitter=lambda: 0.0, wait_seconds=0.01, timeout_seconds=5)
    await keys.look_again("a")
    clock.now += 10  # by this clock, the first fetch was lost
    await keys.look_again("b")
    await settled(lambda: keys.ring is not None)
    assert keys.ring is not None
    assert [key.kid for key in keys.ring.keys] == ["b"]
    first.set()
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
    assert [key.kid for key in keys.ring.keys] == ["b"]


async def test_workers_that_started_together_do_not_fetch_together() -> None:
    due = []
    for share in (0.0, 0.5, 1.0):
        clock = Clock()
        keys = JwksKeys(URL, fetch=Endpoint(body(minter("a"))), elapsed=clock, jitter=lambda share=share: share)  # type: ignore[misc]
        await keys.start()
        due.append(keys._refresh_at - clock.now)
    assert due == [300, 270, 240]


async def test_a_failed_fetch_is_tried_again_after_the_cooldown_and_a_short_age_shortens_everything() -> None:
    clock, endpoint = Clock(), Endpoint(OSError("down"))
    keys = JwksKeys(URL, fetch=endpoint, elapsed=clock, jitter=lambda: 1.0)
    await keys.start()
    assert keys._refresh_at == clock.now + 15
    keys = source(Endpoint(body(minter("a"))), clock, max_stale_seconds=12)
    await keys.start()
    assert (keys._refresh_at, keys._allowed_at) == (clock.now + 6, clock.now + 3)


async def test_a_set_is_as_old_as_the_question_and_not_as_the_answer() -> None:
    a, clock, gate = minter("a"), Clock(), anyio.Event()
    endpoint = Endpoint(gate)
    keys = source(endpoint, clock, max_stale_seconds=600, timeout_seconds=1000)
    async with anyio.create_task_group() as group:
        group.start_soon(keys.start)
        await settled(lambda: endpoint.fetched == 1)
        clock.now += 100
        endpoint.answer = body(a)
        gate.set()
    endpoint.answer = OSError("down")
    clock.now += 499
    assert keys.ring is not None
    clock.now += 1
    assert keys.ring is None


async def test_a_key_that_has_come_meanwhile_is_not_fetched_again() -> None:
    clock, endpoint = Clock(), Endpoint(body(minter("a")))
    keys = source(endpoint, clock)
    await keys.start()
    clock.now += 100
    await keys.look_again("a")
    assert endpoint.fetched == 1


async def test_what_happens_is_logged_without_foreign_words(caplog: pytest.LogCaptureFixture) -> None:
    clock, endpoint = Clock(), Endpoint(body(minter("a\r\nERROR forged line")))
    keys = source(endpoint, clock, max_stale_seconds=600)
    with caplog.at_level(logging.INFO, "toucan_guard"):
        await keys.start()
        endpoint.answer = ValueError("secret words of the answer")
        clock.now += 400
        await keys.look_again("b")
        clock.now += 400
        assert keys.ring is None
        await settled(lambda: keys._flight is None)
    told = [record.getMessage() for record in caplog.records]
    assert [record.levelname for record in caplog.records][:3] == ["INFO", "WARNING", "ERROR"]
    assert "secret words" not in "".join(told)
    assert not any("\n" in line or "\r" in line for line in told)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        pytest.param("file:///etc/keys.json", {}, id="a file"),
        pytest.param("http://login.example/keys", {}, id="http"),
        pytest.param(URL, {"max_stale_seconds": 0}, id="no age"),
        pytest.param(URL, {"cooldown_seconds": -1}, id="no cooldown"),
        pytest.param(URL, {"timeout_seconds": 0}, id="no time"),
    ],
)
async def test_a_mistaken_source_is_refused(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        JwksKeys(url, fetch=Endpoint(b""), **options)


async def test_guards_of_one_process_share_what_they_fetch() -> None:
    endpoint: Callable[[str], Awaitable[bytes]] = Endpoint(body(minter("a")))
    one = shared_jwks(URL, fetch=endpoint, max_stale_seconds=60)
    assert shared_jwks(URL, fetch=endpoint, max_stale_seconds=60) is one
    assert shared_jwks(URL, fetch=endpoint, max_stale_seconds=61) is not one
    assert shared_jwks(URL, fetch=Endpoint(b""), max_stale_seconds=60) is not one


def test_event_loops_of_one_process_share_a_fetch() -> None:
    fetched: list[str] = []
    both = threading.Barrier(2)
    answered: list[bool] = []

    async def slow(url: str) -> bytes:
        fetched.append(url)
        await anyio.to_thread.run_sync(both.wait, 60)
        return body(minter("a"))

    async def ask() -> None:
        await keys.look_again("a")
        answered.append(keys.complete)

    async def ask_while_it_is_fetched() -> None:
        await settled(lambda: bool(fetched))
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(both.wait, 60)

    keys = JwksKeys(URL, fetch=slow, wait_seconds=60, timeout_seconds=60)
    other = threading.Thread(target=anyio.run, args=(ask_while_it_is_fetched,), kwargs={"backend": "trio"})
    other.start()
    anyio.run(ask)
    other.join(120)
    assert (answered, len(fetched)) == ([True, True], 1)


def test_an_event_loop_with_eager_tasks_loses_no_fetch() -> None:
    factory = getattr(asyncio, "eager_task_factory", None)  # Python 3.12
    if factory is None:
        pytest.skip("this Python has no eager tasks")

    async def at_once(url: str) -> bytes:
        return body(minter("a"))

    async def run() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        keys = JwksKeys(URL, fetch=at_once)
        await keys.look_again("a")
        assert keys.complete
        assert keys._flight is None

    asyncio.run(run())


def test_asked_outside_of_an_event_loop_it_has_nothing_and_fetches_nothing() -> None:
    a = minter("a")
    endpoint = Endpoint(body(a))
    keys = source(endpoint, Clock())
    assert keys.ring is None
    assert keys.ring is None
    anyio.run(keys.start)
    assert keys.ring is not None
    assert endpoint.fetched == 1
