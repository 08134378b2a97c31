"""Every string of the Big List of Naughty Strings, in every place that a client controls: one well-formed line each.

Source: https://github.com/minimaxir/big-list-of-naughty-strings (MIT).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from toucan_guard import Deny, Grant, GuardSettings, Refused, ToucanGuard
from toucan_guard.audit.files import read_lines
from toucan_guard.audit.verify import ChainVerifier
from toucan_guard.core.errors import MintError
from toucan_guard.testing import TEST_SECRET, sign_token


class Report(Protocol):
    def add(self, corpus: str, rows: int, agreed: int, deviations: list[tuple[str, str]]) -> None: ...


_HEADERS = (
    "origin", "referer", "authorization", "x-embed-token", "cookie", "host", "accept", "user-agent", "x-request-id",
    "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest",
    "sec-websocket-protocol", "access-control-request-method", "access-control-request-headers", "x-api-key",
    "traceparent",
)  # fmt: skip


async def _chart(request: Any) -> PlainTextResponse:
    if request.path_params["id"] == "refused":
        raise Refused(Deny("x_closed", request.headers.get("user-agent", "")))
    return PlainTextResponse("chart")


async def _ask(guard: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    first = {"type": "websocket.connect" if scope["type"] == "websocket" else "http.request", "body": b""}

    async def receive() -> dict[str, Any]:
        return first

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await guard(scope, receive, send)
    return sent


def _scope(kind: str = "http", headers: Any = (), path: str = "/charts/1", query: bytes = b"", **more: Any) -> Any:
    return {
        "type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "https", "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"), "root_path": "", "query_string": query,
        "headers": [(name.encode(), value) for name, value in headers], "client": ("10.0.0.1", 1),
        "server": ("charts.example", 443), "method": "GET", "extensions": {}, **more,
    }  # fmt: skip


def _connections(naughty: str) -> Iterator[dict[str, Any]]:
    raw = naughty.encode("utf-8", "surrogatepass")
    good = ("authorization", b"Bearer " + _token().encode())
    for name in _HEADERS:
        yield _scope(headers=[(name, raw)])
        yield _scope(headers=[good, (name, raw)])
        yield _scope("websocket", headers=[("origin", b"https://portal.example"), (name, raw)], subprotocols=[naughty])
    yield _scope(headers=[good], path=f"/charts/{naughty}")
    yield _scope(headers=[good, ("user-agent", raw)], path="/charts/refused")
    yield _scope(headers=[good], path=naughty)
    yield _scope(headers=[good], method=naughty)
    yield _scope(headers=[good], query=b"embed_token=" + quote(raw).encode() + b"&embed=" + raw)
    yield _scope(headers=[good], client=(naughty, 1))
    if naughty.strip():
        for changes in (
            {"subject": naughty}, {"tenant": naughty}, {"token_id": naughty}, {"rls": {"carrier": naughty}},
            {"grants": naughty},
        ):  # fmt: skip
            token = _signed(**changes)
            if token is not None:
                yield _scope(headers=[("authorization", b"Bearer " + token.encode())])


def _token() -> str:
    return sign_token(rls={"carrier": "AA"})


def _signed(**changes: Any) -> str | None:
    given: dict[str, Any] = {"rls": {"carrier": "AA"}, **changes}
    try:
        if "grants" in given:
            given["grants"] = [Grant("chart", given["grants"], ("view",))]
        return sign_token(**given)
    except MintError:  # what cannot be minted cannot be sent
        return None


@pytest.mark.parametrize("key", [None, "correct-horse-battery-staple-0123456789"], ids=["plain", "pseudonyms"])
def test_every_string_in_every_place_is_one_line(
    key: str | None, load_corpus: Callable[[str], Any], conformance_report: Report, tmp_path: Path
) -> None:
    strings: list[str] = load_corpus("blns.json")
    if key is not None:
        strings = strings[::10]
    path = tmp_path / "audit.jsonl"
    settings: dict[str, Any] = {"audit_hmac_key": key, "audit_chain_key": key} if key else {}
    guard = ToucanGuard(
        Starlette(routes=[Route("/charts/{id}", _chart)]),
        settings=GuardSettings(
            allowed_origins=["https://portal.example"], issuer="https://host.example", audience="charts",
            secret=TEST_SECRET, rls_columns={"flights.carrier": "carrier"}, audit=str(path),
            token_carriers=["authorization", "x-embed-token", "websocket", "session"], trusted_proxies=["10.0.0.0/8"],
            **settings,
        ),
    )  # fmt: skip

    async def ask_all() -> int:
        asked = 0
        for naughty in strings:
            for scope in _connections(naughty):
                await _ask(guard, scope)
                asked += 1
        return asked

    asked = anyio.run(ask_all)
    guard.close()
    verifier = ChainVerifier(key.encode() if key else None)
    decisions = 0
    for number, line in enumerate(read_lines(path), 1):
        verifier.feed(line, file=str(path), number=number)
        assert line.isascii()
        assert len(line) <= 4096
        assert all(0x20 <= byte < 0x7F for byte in line[:-1]), line
        event = json.loads(line)
        decisions += event["event"] == "decision"
    verdict = verifier.finish()
    assert (verdict.findings, decisions) == ((), asked)
    conformance_report.add("Big List of Naughty Strings", len(strings), len(strings), [])
