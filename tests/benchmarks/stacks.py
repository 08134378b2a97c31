"""Requests as browsers send them, the bare app, and the stacks that answer: ours, and what people write by hand."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import count
from pathlib import Path
from typing import Any

import jwt
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from toucan_guard import Grant, GuardSettings, ToucanGuard
from toucan_guard.tokens import TokenMinter

SECRET = "a-secret-for-benchmarks-only-0123456789abcdef"
ISSUER, AUDIENCE, PORTAL = "https://host.example", "charts", "https://portal.example"
BODY = b'{"carrier":"AA","delays":[1,2,3]}'

App = Callable[..., Awaitable[None]]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The app: an answer in JSON, and nothing else."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))],
        }
    )
    await send({"type": "http.response.body", "body": BODY})


def headers(*extra: tuple[bytes, bytes], origin: str | None = PORTAL) -> list[tuple[bytes, bytes]]:
    """What Chromium sends with a cross-site fetch."""
    return [
        (b"host", b"charts.example"),
        (b"connection", b"keep-alive"),
        (b"sec-ch-ua-platform", b'"Linux"'),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0"),
        (b"accept", b"*/*"),
        *([(b"origin", origin.encode())] if origin else []),
        (b"sec-fetch-site", b"cross-site"),
        (b"sec-fetch-mode", b"cors"),
        (b"sec-fetch-dest", b"empty"),
        (b"referer", b"https://portal.example/"),
        (b"accept-encoding", b"gzip, deflate, br, zstd"),
        (b"accept-language", b"en-GB,en;q=0.9"),
        *extra,
    ]


def bearer(token: str) -> tuple[bytes, bytes]:
    return (b"authorization", b"Bearer " + token.encode())


def scope_of(request: list[tuple[bytes, bytes]], **changes: Any) -> MutableMapping[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": "/dashboards/delays",
        "raw_path": b"/dashboards/delays",
        "root_path": "",
        "query_string": b"",
        "headers": request.copy(),
        "client": ("192.0.2.7", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
        **changes,
    }


class Answers:
    """Keeps the last answer's status, as a server would write it."""

    status = 0

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            list(message["headers"])


async def receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def asking(app: App, next_request: Callable[[], list[tuple[bytes, bytes]]], expected: int) -> Callable[[], Any]:
    """One request through an app; the first answer is looked at, so that nothing else is timed than what is meant."""
    answers = Answers()
    checked = False

    async def ask() -> None:
        nonlocal checked
        await app(scope_of(next_request()), receive, answers.send)
        if not checked:
            checked = True
            if answers.status != expected:
                raise RuntimeError(f"{answers.status} in place of {expected}")

    return ask


def settings(folder: Path | None = None, **changes: Any) -> GuardSettings:
    """A guard with everything on: CORS, tokens, rows, and a record written to a file."""
    folder = folder or Path(tempfile.mkdtemp(prefix="benchmarks-"))
    given: dict[str, Any] = {
        "allowed_origins": [PORTAL],
        "public_origin": ["https://charts.example"],
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "secret": SECRET,
        "rls_columns": {"flights.carrier": "carrier"},
        "audit": str(folder / "audit.jsonl"),
        **changes,
    }
    return GuardSettings(**{name: value for name, value in given.items() if value is not None})


def guard(app: App = bare, *, folder: Path | None = None, **changes: Any) -> App:
    return ToucanGuard(app, settings=settings(folder, **changes))


def minter(key: Any = SECRET) -> TokenMinter:
    return TokenMinter(key, issuer=ISSUER, audience=AUDIENCE, lifetime_seconds=900)


def mint(maker: TokenMinter, subject: str = "user-17", **changes: Any) -> str:
    given: dict[str, Any] = {
        "tenant": "AA",
        "grants": [Grant("dashboard", "delays", ("view",))],
        "rls": {"carrier": "AA"},
        **changes,
    }
    return maker.mint(subject=subject, **given)


class Fresh:
    """Requests with a token that nobody has seen."""

    def __init__(self, maker: TokenMinter, **claims: Any) -> None:
        self._maker = maker
        self._claims = claims
        self._numbers = count()
        self._waiting: list[list[tuple[bytes, bytes]]] = []

    def prepare(self, calls: int) -> None:
        """Make so many of them, outside of what is timed."""
        self._waiting = [
            headers(bearer(mint(self._maker, subject=f"user-{next(self._numbers)}", **self._claims)))
            for _ in range(calls)
        ]

    def __call__(self) -> list[tuple[bytes, bytes]]:
        return self._waiting.pop()


class _Decoding(AuthenticationBackend):
    """What Starlette's and PyJWT's documentation say, put together."""

    def __init__(self, key: Any, algorithm: str) -> None:
        self._key = key
        self._algorithm = algorithm

    async def authenticate(self, conn: Any) -> tuple[AuthCredentials, SimpleUser] | None:
        if "Authorization" not in conn.headers:
            return None
        scheme, _, token = conn.headers["Authorization"].partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            claims = jwt.decode(token, self._key, algorithms=[self._algorithm], audience=AUDIENCE, issuer=ISSUER)
        except jwt.InvalidTokenError as error:
            raise AuthenticationError("invalid token") from error
        return AuthCredentials(["authenticated"]), SimpleUser(claims["sub"])


def cors(app: App = bare) -> App:
    return CORSMiddleware(app, allow_origins=[PORTAL], allow_methods=["GET", "POST"], allow_headers=["Authorization"])


def by_hand(key: Any = SECRET, algorithm: str = "HS256") -> App:
    """The stack that people write: hosts, CORS, and a token that is decoded each time. No rows, no record."""
    authenticated = AuthenticationMiddleware(bare, backend=_Decoding(key, algorithm))
    return TrustedHostMiddleware(cors(authenticated), allowed_hosts=["charts.example"])


def now() -> float:
    return time.time()
