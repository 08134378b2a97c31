"""Any bytes through the whole guard: an answer, a frame-ancestors header, and one line in the audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toucan_guard import GuardSettings, Reason, ToucanGuard
from toucan_guard.testing import TEST_SECRET, sign_token

PORTAL = "https://portal.example"
OWN = "https://charts.example"
DAY = 86_400  # nobody knows when the tests of this file have their turn
TOKEN = sign_token(rls={"carrier": "AA"}, lifetime_seconds=DAY)
MISPLACED = sign_token(rls={"carrier": "AA"}, lifetime_seconds=DAY)  # of the wrong type for the query
HANDLE = "a" * 26

bounded = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)

_NAMES = [
    b"origin", b"referer", b"authorization", b"x-embed-token", b"x_embed_token", b"x-embed-subject", b"cookie", b"host",
    b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-websocket-protocol", b"accept", b"x-request-id",
    b"x-forwarded-host", b"x-forwarded-proto", b"access-control-request-method", b"access-control-request-headers",
    b"access-control-request-private-network", b"content-type",
]  # fmt: skip
_VALUES = [
    b"", b"null", PORTAL.encode(), OWN.encode(), b"https://evil.example", f"Bearer {TOKEN}".encode(), TOKEN.encode(),
    b"Bearer", b"Bearer\t.", b"Basic dTpw", f"__Host-embed-{HANDLE}=s".encode(), b"same-origin", b"cross-site", b"none",
    b"navigate", b"cors", b"iframe", b"document", b"empty", b"embed, embed.token.x", b"text/html", b"*/*;q=\xff",
    b"POST", b"GET", b"true", f"{PORTAL}/?embed={HANDLE}".encode(), b"trace-12345678",
]  # fmt: skip
_name = st.sampled_from(_NAMES) | st.binary(max_size=12).map(bytes.lower)
_value = st.sampled_from(_VALUES) | st.binary(max_size=40)
_headers = st.lists(st.tuples(_name, _value), max_size=12)
_query = st.lists(
    st.sampled_from(
        [b"embed_token=", b"%65mbed_token=", b"embed=", MISPLACED.encode(), HANDLE.encode(), b"&", b"%", b"="]
    )
    | st.binary(max_size=8),
    max_size=6,
).map(b"".join)
_path = st.sampled_from(["/", "/health", "/static/x", "/crash", "//evil.example"]) | st.text(max_size=12)
_method = st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "TRACE", "get", ""]) | st.text(max_size=6)
_client = st.sampled_from([None, ("192.0.2.7", 1), ("10.0.0.1", 1), ("::ffff:10.0.0.1", 2), ("", 0), ("\udcff", 0)])


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Answers 299, a status that no refusal has; accepts sockets."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 299, "headers": [(b"cache-control", b"public")]})
    await send({"type": "http.response.body", "body": b"the app's data"})


class World:
    def __init__(self, folder: Path) -> None:
        self._audit = folder / "audit.jsonl"
        self.guard = ToucanGuard(
            _app,
            settings=GuardSettings(
                allowed_origins=[PORTAL, "https://*.customers.example"],
                public_origin=[OWN],
                issuer="https://host.example",
                audience="charts",
                secret=TEST_SECRET,
                token_lifetime_seconds=DAY,
                rls_columns={"flights.carrier": "carrier"},
                token_carriers=["authorization", "x-embed-token", "websocket", "session"],
                trusted_proxies=["10.0.0.0/8"],
                exempt_paths=["/health"],
                exempt_prefixes=["/static"],
                audit=str(self._audit),
            ),
        )

    def ask(self, scope: dict[str, Any]) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        before = self._audit.stat().st_size

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        anyio.run(self.guard, scope, receive, send)
        written = self._audit.read_bytes()[before:]
        assert written.endswith(b"\n")
        *first, line = written[:-1].split(b"\n")
        assert [json.loads(part)["event"] for part in first] in ([], ["open"])
        assert len(line) < 4096
        event = json.loads(line)
        assert event["event"] == "decision"
        for secret in (TOKEN, MISPLACED):
            assert secret not in line.decode()
        return sent


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("requests"))
    yield world
    world.guard.close()


def _scope(kind: str, headers: Any, query: bytes, path: str, client: Any, **more: Any) -> dict[str, Any]:
    return {
        "type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "https", "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"), "root_path": "", "query_string": query, "headers": headers,
        "client": client, "server": ("charts.example", 443), **more,
    }  # fmt: skip


def _is_refusal(body: bytes) -> bool:
    text = body.decode()
    if text.startswith("<!doctype html>"):
        return any(f"<dd>{reason}</dd>" in text for reason in Reason)
    return json.loads(text)["reason"] in set(Reason)


def _says_who_may_frame(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-security-policy" and b"frame-ancestors" in value for name, value in headers)


@bounded
@given(_headers, _query, _path, _method, _client)
def test_any_request_is_answered_framed_and_recorded(
    world: World, headers: Any, query: bytes, path: str, method: str, client: Any
) -> None:
    start, *rest = world.ask(_scope("http", headers, query, path, client, method=method))
    assert start["type"] == "http.response.start"
    assert _says_who_may_frame(start["headers"])
    body = b"".join(message.get("body", b"") for message in rest)
    preflight = method == "OPTIONS" and start["status"] == 200
    if start["status"] == 299:
        assert body == b"the app's data"
    elif not preflight:
        assert start["status"] in {400, 401, 403, 503}
        assert _is_refusal(body)
        assert (b"cache-control", b"no-store") in start["headers"]
    for name, value in start["headers"]:
        assert b"\r" not in value, name
        assert b"\n" not in value, name
        assert name != b"access-control-allow-credentials"


@bounded
@given(_headers, _query, _path, _client, st.lists(st.text(max_size=6) | st.just(f"embed.token.{TOKEN}"), max_size=3))
@pytest.mark.parametrize("extensions", [{"websocket.http.response": {}}, {}, None], ids=["denial", "none", "null"])
def test_any_socket_is_answered_and_recorded(
    world: World, extensions: Any, headers: Any, query: bytes, path: str, client: Any, offers: list[str]
) -> None:
    scope = _scope("websocket", headers, query, path, client, subprotocols=offers, extensions=extensions)
    start, *rest = world.ask(scope)
    if start["type"] == "websocket.http.response.start":
        assert extensions
        assert _says_who_may_frame(start["headers"])
        assert _is_refusal(rest[0]["body"])
    elif start["type"] == "websocket.close":
        assert not extensions
        assert start["code"] == 1008
        assert start["reason"] in set(Reason)
    else:
        assert start["type"] == "websocket.accept"


def test_the_controls_of_these_properties_are_let_in(world: World) -> None:
    bearer = (b"authorization", f"Bearer {TOKEN}".encode())
    assert world.ask(_scope("http", [bearer], b"", "/", None, method="GET"))[0]["status"] == 299
    socket = _scope("websocket", [bearer, (b"origin", PORTAL.encode())], b"", "/", None)
    assert world.ask(socket)[0]["type"] == "websocket.accept"


@bounded
@given(query=_query)
def test_no_query_keeps_a_bootstrap_token(query: bytes) -> None:
    from urllib.parse import parse_qsl

    from toucan_guard.query import take_bootstrap_tokens

    scope = {"query_string": query}
    taken = take_bootstrap_tokens(scope)
    left = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    assert "embed_token" not in [name for name, _ in left]
    before = [
        value for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if name == "embed_token"
    ]
    # Of two, which are refused as such, the second is not worth decoding.
    assert (len(taken), list(taken[:1])) == (len(before), before[:1])
