"""The token service: an API key in, an embed token out; and a token that runs out, renewed.

``POST /embed/generate-token`` is for the host's backend. It stands beside the guard, with the audit layer alone around
it: there is no token yet. What it may mint is in ``core/token_request.py``, who asks in ``tokens/api_keys.py``.

``POST /embed/refresh-token`` is for the page that holds a token of this service, and stands behind a guard of its own::

    app = Starlette(routes=[*token_service.routes(settings), Mount("/", app=charts)], lifespan=guard_lifespan)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toucan_guard.asgi import deny
from toucan_guard.audit.sinks import Sink
from toucan_guard.core.api_key import BROWSER_HEADERS, HEADER, exposed_api_key
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import ALLOW, Allow, Deny, Reason
from toucan_guard.core.errors import ConfigError, GuardMissing
from toucan_guard.core.token_policy import EMBED
from toucan_guard.core.token_request import MAX_BODY_BYTES, Mistake, TokenRequest, read_token_request
from toucan_guard.layers import AuditLogMiddleware
from toucan_guard.recording import audit_options
from toucan_guard.settings import GuardSettings
from toucan_guard.stack import ToucanGuard
from toucan_guard.token_issue import Issued, TokenIssuer
from toucan_guard.tokens.api_key_book import ApiKeyEntry
from toucan_guard.tokens.api_key_file import written_time
from toucan_guard.tokens.jwks import Fetch
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.trail import Trail, header_values, trail_of

GENERATE_PATH: Final = "/embed/generate-token"
REFRESH_PATH: Final = "/embed/refresh-token"

_NO_KEY: Final = Deny(Reason.API_KEY_MISSING, f"the request has no header {HEADER}")
_SEVERAL: Final = Deny(
    Reason.API_KEY_INVALID, "the API key is not valid", facts={"cause": f"the header {HEADER} is repeated"}
)
_NOT_POST: Final = Deny(Reason.TOKEN_REQUEST_INVALID, "ask with POST", status=405)
_NOT_JSON: Final = Deny(Reason.TOKEN_REQUEST_INVALID, "the body must be application/json", status=415)
_TOO_LARGE: Final = Deny(Reason.TOKEN_REQUEST_INVALID, f"the body must have {MAX_BODY_BYTES} bytes at most", status=413)
_DEAD: Final = Deny(
    Reason.TOKEN_REVOKED,
    "the guard would refuse this token: its subject, its tenant or what the API key signs with was revoked",
    status=403,
)
_NOT_EMPTY: Final = Deny(Reason.TOKEN_REQUEST_INVALID, "a token is renewed as it is: send no body")


def routes(
    settings: GuardSettings | None = None,
    *,
    fetch_keys: Fetch | None = None,
    clock: Callable[[], float] = time.time,
) -> list[BaseRoute]:
    """The routes of the token service, for a router that no guard stands around.

    Within a guarded app, ``/embed/generate-token`` must be one of ``TOUCAN_GUARD_EXEMPT_PATHS``.

    Args:
        settings: The configuration; ``None`` reads ``TOUCAN_GUARD_…`` from the environment now.
        fetch_keys: See ``ToucanGuard``; give it here too where the guard of the charts has it, and they fetch once.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: The configuration is wrong, or has no API keys.
    """
    settings = GuardSettings() if settings is None else settings
    keys = settings.api_keys
    problems = []
    if keys is None:
        problems.append("TOUCAN_GUARD_API_KEYS_FILE is required for the token service: make a first API key")
    if settings.api_key_pepper is None:
        problems.append(
            "TOUCAN_GUARD_API_KEY_PEPPER is required for the token service: give what its keys were made with"
        )
    if keys is None or problems:
        raise ConfigError(problems)
    issuer = TokenIssuer(settings, keys)
    revocations = None
    if settings.revocable:
        revocations = Revocations(
            settings.store, issuer=settings.issuer, staleness_seconds=settings.revocation_staleness_seconds
        )
    generate = RecordedGenerate(
        GenerateToken(
            issuer,
            revocations=revocations,
            insecure_store_fail_open=settings.insecure_store_fail_open,
            clock=clock,
        ),
        **audit_options(settings),
    )
    refresh = ToucanGuard(RefreshToken(issuer, clock=clock), settings=settings, fetch_keys=fetch_keys)
    return [
        Route(GENERATE_PATH, generate, name="embed_generate_token"),
        Route(REFRESH_PATH, refresh, name="embed_refresh_token"),
    ]


class RecordedGenerate(AuditLogMiddleware):
    """The audit layer around ``GenerateToken``, with a record of its own to close."""

    def __init__(self, app: ASGIApp, *, sink: Sink | None, **options: Any) -> None:
        super().__init__(app, sink=sink, **options)
        self._record = sink

    async def start(self) -> None:
        """Nothing: the guard in front of ``refresh-token`` has the same store."""

    async def aclose(self) -> None:
        """Close the record."""
        if self._record is not None:
            self._record.close()


class GenerateToken:
    """``POST /embed/generate-token``: every decision stands on the Trail, and with it in the record.

    Args:
        issuer: Makes the tokens.
        revocations: What the guard refuses, so that no such token is handed out; None where nothing can be revoked.
        insecure_store_fail_open: As for the guard: a list that is too old to tell stops nobody, and is recorded.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        issuer: TokenIssuer,
        *,
        revocations: Revocations | None = None,
        insecure_store_fail_open: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._revocations = revocations
        self._fail_open = insecure_store_fail_open
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trail = trail_of(scope)
        presented = self._presented(scope)
        entry = self._caller(presented)
        trail.add("api_key", entry if isinstance(entry, Deny) else Allow({"key_id": entry.key_id}))
        if isinstance(entry, Deny):
            return await deny(scope, receive, send, entry)

        body = await self._asked(scope, receive)
        if body is None:
            return  # the host has hung up
        issued = body if isinstance(body, Deny) else self._issued(presented, body)
        dead = None if isinstance(issued, Deny) else await self._revoked(issued.claims, trail)
        issued = issued if dead is None else dead
        trail.add("token_service", issued if isinstance(issued, Deny) else ALLOW)
        if isinstance(issued, Deny):
            return await deny(scope, receive, send if issued is not _NOT_POST else _allowing_post(send), issued)
        trail.claims = issued.claims  # the record says what was given away
        await _answer(issued)(scope, receive, send)

    async def _revoked(self, claims: VerifiedClaims, trail: Trail) -> Deny | None:
        """Whether the guard would refuse the token that was just made, because of what was revoked before."""
        if self._revocations is None:
            return None
        await self._revocations.keep_fresh()
        refusal = self._revocations.judge(claims, self._clock())
        if refusal is None or refusal.reason != Reason.STORE_UNAVAILABLE:
            return None if refusal is None else _DEAD
        if not self._fail_open:
            return refusal
        trail.add("revocation", refusal, report_only=True)
        return None

    def _presented(self, scope: Scope) -> str | Deny:
        """The API key; it is taken out of the request, where nobody else can find it."""
        presented = header_values(scope, HEADER.encode())
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != HEADER.encode()]
        evidence = [value for name in BROWSER_HEADERS for value in header_values(scope, name)]
        wished = ",".join(header_values(scope, b"access-control-request-headers")).lower().replace(" ", "").split(",")
        exposed = exposed_api_key(presented, evidence, named=HEADER in wished)
        if exposed is not None:
            return exposed
        if len(presented) != 1:
            return _SEVERAL if presented else _NO_KEY
        return presented[0]

    def _caller(self, presented: str | Deny) -> ApiKeyEntry | Deny:
        if isinstance(presented, Deny):
            return presented
        return self._issuer.keys.authenticate(presented, now=self._clock())

    async def _asked(self, scope: Scope, receive: Receive) -> bytes | Deny | None:
        if scope["method"] != "POST":
            return _NOT_POST
        types = header_values(scope, b"content-type")
        if len(types) != 1 or types[0].partition(";")[0].strip().lower() != "application/json":
            return _NOT_JSON
        return await _body(scope, receive)

    def _issued(self, presented: str | Deny, body: bytes) -> Issued | Deny:
        # The body may have taken hours to come: what the key may do now counts, and not what it might when they began.
        entry = self._caller(presented)
        if isinstance(entry, Deny):
            return entry
        asked = read_token_request(body, self._issuer.rules(entry))
        if not isinstance(asked, TokenRequest):
            return _mistaken(asked)
        return self._issuer.issue(entry, asked, now=self._clock())


class RefreshToken:
    """``POST /embed/refresh-token``, behind the guard: the same token again, with a later end."""

    def __init__(self, issuer: TokenIssuer, *, clock: Callable[[], float] = time.time) -> None:
        self._issuer = issuer
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise GuardMissing("a token is renewed over HTTP")
        trail = trail_of(scope)
        if trail.claims is None:
            raise GuardMissing("a token is renewed behind ToucanGuard, which verifies it")
        body: bytes | Deny | None = _NOT_POST if scope["method"] != "POST" else await _body(scope, receive)
        if body is None:
            return
        issued: Issued | Deny
        if isinstance(body, Deny):
            issued = body
        elif body.strip() not in (b"", b"{}"):
            issued = _NOT_EMPTY
        elif any(
            isinstance(step.decision, Deny) and step.decision.reason == Reason.STORE_UNAVAILABLE for step in trail.steps
        ):
            # INSECURE_STORE_FAIL_OPEN lets requests pass for a while, and not a revoked token renew itself for ever.
            issued = Deny(Reason.STORE_UNAVAILABLE, "nobody can say whether the token was revoked")
        elif trail.claims.token_type != EMBED:
            issued = Deny(Reason.REFRESH_NOT_ALLOWED, "an embed session ends with its time: open the frame anew")
        else:
            issued = self._issuer.renew(trail.claims, now=self._clock())
        trail.add("token_service", issued if isinstance(issued, Deny) else ALLOW)
        if isinstance(issued, Deny):
            return await deny(scope, receive, send if issued is not _NOT_POST else _allowing_post(send), issued)
        await _answer(issued)(scope, receive, send)


def _answer(issued: Issued) -> JSONResponse:
    content: dict[str, Any] = {
        "token": issued.token,
        "expiresIn": issued.expires_in,
        "expiresAt": written_time(issued.claims.expires_at),
    }
    if issued.bootstrap is not None:
        content |= {
            "bootstrapToken": issued.bootstrap,
            "bootstrapExpiresIn": issued.bootstrap_expires_in,
            "sessionSeconds": issued.session_seconds,
        }
    return JSONResponse(content, headers={"cache-control": "no-store", "x-content-type-options": "nosniff"})


def _mistaken(mistakes: tuple[Mistake, ...]) -> Deny:
    """One refusal that tells every mistake; where the key's limits are hurt, that is its reason."""
    beyond = any(mistake.beyond_limits for mistake in mistakes)
    places = ", ".join(dict.fromkeys(mistake.pointer or "the body" for mistake in mistakes[:8]))
    number = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    return Deny(
        Reason.API_KEY_LIMIT if beyond else Reason.TOKEN_REQUEST_INVALID,
        f"the body has {number}: {places}",
        errors=tuple((mistake.pointer, mistake.detail) for mistake in mistakes),
    )


async def _body(scope: Scope, receive: Receive) -> bytes | Deny | None:
    """The body, unless it is too large; None where the client has hung up before its end."""
    announced = header_values(scope, b"content-length")
    if any(length.isdecimal() and (len(length) > 9 or int(length) > MAX_BODY_BYTES) for length in announced):
        return _TOO_LARGE
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            return _TOO_LARGE
        if not message.get("more_body", False):
            return b"".join(parts)


def _allowing_post(send: Send) -> Send:
    """A 405 says what is allowed (RFC 9110 §15.5.6)."""

    async def allowing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"allow", b"POST")]}
        await send(message)

    return allowing
