"""The nearest package for FastAPI, ``fastapi-oidc-guard``, on the same route: it verifies each token anew."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import stacks as r
from bench_requests import written
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI
from fastapi_oidc_guard import Authenticated, OidcAuthenticator, OidcConfig, VerifiedToken
from measure import Contest
from rows import Row, microseconds
from starlette.testclient import TestClient

from toucan_guard.fastapi import CurrentEmbed


@contextmanager
def _provider(key: Any) -> Iterator[str]:
    """An identity provider on loopback: its description and its keys."""
    jwk = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())), "kid": "k", "alg": "RS256", "use": "sig"}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer = f"http://127.0.0.1:{self.server.server_address[1]}"
            told = {"keys": [jwk]} if self.path == "/keys" else {"issuer": issuer, "jwks_uri": f"{issuer}/keys"}
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


async def _resolve(token: VerifiedToken) -> str | None:
    return str(token.claims["sub"])


def in_fastapi() -> Iterator[Row]:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with _provider(key) as issuer:
        authenticator = OidcAuthenticator.jwt_only(
            OidcConfig(issuer=issuer, audience=r.AUDIENCE, openapi_authorization_code=False, allow_insecure_http=True),
            _resolve,
        )
        bare, theirs, ours = FastAPI(), FastAPI(lifespan=authenticator.lifespan), FastAPI()

        @bare.get("/dashboards/delays")
        async def plain() -> dict[str, str]:
            return {"subject": "u"}

        @theirs.get("/dashboards/delays")
        async def checked(user: Authenticated[str]) -> dict[str, str]:
            return {"subject": user}

        @ours.get("/dashboards/delays")
        async def guarded(embed: CurrentEmbed) -> dict[str, str]:
            return {"subject": embed.subject}

        app = r.guard(ours, secret=None, keys_file=written(pem))
        ordinary = {
            "iss": issuer,
            "aud": r.AUDIENCE,
            "sub": "u",
            "iat": int(time.time()),
            "exp": int(time.time()) + 900,
        }
        foreign = jwt.encode(ordinary, key, algorithm="RS256", headers={"kid": "k"})
        own = r.headers(r.bearer(r.mint(r.minter(key))))
        with TestClient(theirs):  # begins its lifespan: keys are fetched before the first request
            contest = Contest(
                {
                    "bare": r.asking(bare, r.headers, 200),
                    "fastapi-oidc-guard": r.asking(theirs, lambda: r.headers(r.bearer(foreign)), 200),
                    "guard": r.asking(app, lambda: own, 200),
                },
                rounds=21,
            )
    yield Row(
        "request",
        "guard, token in cache : fastapi-oidc-guard, RS256, on a FastAPI route",
        contest.ratio("guard", "fastapi-oidc-guard", minus="bare"),
        beside={name: microseconds(contest.time(name, minus="bare")) for name in ("guard", "fastapi-oidc-guard")},
    )
