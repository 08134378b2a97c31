"""Whatever secret goes in, wherever: it is not in the record. With a key, nobody's name or address is either."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from toucan_guard import Deny, Grant, GuardSettings, Refused, ToucanGuard
from toucan_guard.testing import TEST_SECRET, sign_token

PORTAL = "https://portal.example"
CHAIN_KEY = "chain-horse-battery-staple-0123456789"
HMAC_KEY = "hmac-horse-battery-staple-98765432109"

bounded = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)

# Nothing that could stand in a line by chance, or be part of another one.
_secret = st.integers(0, 2**64).map(lambda seed: "S" + hashlib.sha256(str(seed).encode()).hexdigest()[:30])
_numbers = st.integers(0, 2**32 - 1)


async def _chart(request: Any) -> PlainTextResponse:
    if "boom" in request.path_params["id"]:
        raise RuntimeError(request.headers["cookie"])
    if "closed" in request.path_params["id"]:
        raise Refused(Deny("x_closed"))
    return PlainTextResponse(request.headers.get("x-api-key", ""))


class World:
    def __init__(self, folder: Path, **more: Any) -> None:
        self.audit = folder / "audit.jsonl"
        self.guard = ToucanGuard(
            Starlette(routes=[Route("/charts/{id}", _chart, methods=["GET", "POST"])]),
            settings=GuardSettings(
                allowed_origins=[PORTAL], public_origin=["https://charts.example"], issuer="https://host.example",
                audience="charts", secret=TEST_SECRET, rls_columns={"flights.carrier": "carrier"},
                token_carriers=["authorization", "x-embed-token", "websocket", "session"],
                trusted_proxies=["10.0.0.0/8"], audit=str(self.audit), **more,
            ),
        )  # fmt: skip

    def lines(self, scope: dict[str, Any]) -> str:
        before = self.audit.stat().st_size

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            return

        with suppress(RuntimeError):
            anyio.run(self.guard, scope, receive, send)
        return self.audit.read_bytes()[before:].decode("ascii")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, World]]:
    plain = World(tmp_path_factory.mktemp("plain"))
    hidden = World(tmp_path_factory.mktemp("hidden"), audit_hmac_key=HMAC_KEY, audit_chain_key=CHAIN_KEY)
    yield plain, hidden
    plain.guard.close()
    hidden.guard.close()


def _scope(path: str, query: str, headers: list[tuple[str, str]], client: str, kind: str) -> dict[str, Any]:
    return {
        "type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "https", "path": path,
        "raw_path": path.encode(), "root_path": "", "query_string": query.encode(), "client": (client, 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers], "server": ("charts.example", 443),
        "method": "GET", "subprotocols": [], "extensions": {},
    }  # fmt: skip


@bounded
@given(st.data())
def test_no_secret_is_in_the_record(worlds: tuple[World, World], data: Any) -> None:
    secrets = data.draw(st.lists(_secret, min_size=9, max_size=9, unique=True))
    subject, jti, row, cookie, api_key, query, bad_token, header, path = secrets
    number = data.draw(_numbers)
    address = f"203.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    token = sign_token(
        subject=subject, token_id=jti, rls={"carrier": row}, grants=[Grant("chart", "1", ("view",))],
        bootstrap=data.draw(st.booleans()),
    )  # fmt: skip
    headers = data.draw(
        st.lists(
            st.sampled_from(
                [
                    ("authorization", f"Bearer {token}"), ("authorization", f"Basic {bad_token}"),
                    ("authorization", f"Bearer {bad_token}.{bad_token}.{bad_token}"), ("x-embed-token", token),
                    ("x-embed-token", bad_token), ("cookie", f"__Host-embed-{'a' * 26}={cookie}; s={cookie}"),
                    ("x-api-key", f"tgk_live_1_{api_key}"), ("x-forwarded-for", address), ("user-agent", header),
                    ("referer", f"{PORTAL}/{header}?t={query}"), ("referer", f"https://{header}.example/?{query}"),
                    ("origin", PORTAL), ("origin", f"https://{header} {header}"), ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe"), ("sec-fetch-site", f"{header} x"),
                    ("x-request-id", f"{header}\n{header}"), ("x-embed-subject", header),
                    ("sec-websocket-protocol", f"embed, embed.token.{token}"), ("accept", f"text/html;{header}"),
                ]
            ),
            max_size=8,
        )
    )  # fmt: skip
    asked = data.draw(st.sampled_from(["", f"embed_token={token}", f"embed_token={bad_token}", f"q={query}", query]))
    target = data.draw(st.sampled_from([f"/charts/{path}", f"/charts/boom{path}", f"/charts/closed{path}", f"/{path}"]))
    kind = data.draw(st.sampled_from(["http", "websocket"]))
    scopes = [_scope(target, asked, [*headers, ("cookie", cookie)], "10.0.0.1", kind) for _ in range(2)]
    plain, hidden = (world.lines(scope) for world, scope in zip(worlds, scopes, strict=True))
    never = [token, row, cookie, api_key, query, bad_token, path, TEST_SECRET, HMAC_KEY, CHAIN_KEY]
    for secret in [*never, *token.split(".")]:
        assert secret not in plain
        assert secret not in hidden
    # A listed or well-formed origin is recorded; the rest of these headers is not.
    assert header.lower() not in re.sub(r'"(?:origin|embedder)":"[^"]*"', "", plain).lower()
    for name in (subject, jti, address):
        assert name not in hidden
    for told, shown in ((plain, False), (hidden, True)):
        event = json.loads(told.splitlines()[-1])
        for field in ("subject", "token_id", "client"):
            assert event[field] is None or event[field].startswith("hmac:") is shown
