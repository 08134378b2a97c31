"""EmbedToken: who is asking? A token or an embed session, verified, or a refusal.

``core/credentials.py`` says which credential counts, ``core/token.py`` what a token
must be, ``tokens/cache.py`` what is remembered of it, ``tokens/sessions.py`` what a
session is. An explicit credential that fails never falls through to an ambient one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, Refused, deny
from toucan_guard.core.api_key import BROWSER_HEADERS, exposed_api_key, parse_api_key
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.credentials import (
    AUTHORIZATION,
    CARRIERS,
    SESSION,
    SUBPROTOCOL,
    SessionCredential,
    TokenCredential,
    bearer_token,
    explicit_credential,
    session_cookies,
    session_credential,
    session_readable,
    switched_off,
)
from toucan_guard.core.decisions import ALLOW, Deny, Reason
from toucan_guard.core.embed import Embed, make_embed
from toucan_guard.core.errors import ConfigError, StoreUnavailable
from toucan_guard.core.token_policy import BOOTSTRAP, EMBED
from toucan_guard.headers import strip_credentials
from toucan_guard.live import Standing
from toucan_guard.query import handle_values
from toucan_guard.response_headers import keep_private
from toucan_guard.tokens.cache import CachedVerifier
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.tokens.sessions import SESSION_TYPE, EmbedSessions
from toucan_guard.trail import Trail, header_values, publish_embed, trail_of

_LAYER: Final = "embed_token"
_MOST_IN_FRONT: Final = 1024
_NO_TOKEN: Final = Deny(Reason.TOKEN_MISSING, "the request carries no embed token")
_AN_API_KEY: Final = Deny(
    Reason.TOKEN_MISSING,
    "the request carries an API key and no embed token: the path of the token service is named in "
    "TOUCAN_GUARD_EXEMPT_PATHS",
)
_NO_BEARER: Final = Deny(
    Reason.TOKEN_MISSING, "the request carries no embed token: its Authorization header has not the scheme Bearer"
)


class EmbedTokenMiddleware:
    """Verifies the credential of a connection and publishes ``request.state.embed``.

    Args:
        app: The next layer.
        verifier: Verifies tokens, cache first.
        carriers: Where a token may stand.
        sessions: Embed sessions, where the carrier ``session`` is on. ``BootstrapExchangeMiddleware`` stands behind
            this layer then: a bootstrap token passes here without an embed.
        revocations: What was withdrawn before its end, where the host keeps such a list.
        insecure_store_fail_open: While the store does not answer, tokens pass that may have been revoked.
        report_only_grants: Missing grants are recorded as ``would_deny`` only.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: An unknown carrier, or ``session`` without sessions.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        verifier: CachedVerifier,
        carriers: Collection[str],
        sessions: EmbedSessions | None = None,
        revocations: Revocations | None = None,
        insecure_store_fail_open: bool = False,
        report_only_grants: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self._verifier = verifier
        self._carriers = frozenset(carriers)
        if isinstance(carriers, str) or not self._carriers.issubset(CARRIERS):
            raise ConfigError(f"the token carriers are a list of {', '.join(CARRIERS)}")
        if SESSION in self._carriers and sessions is None:
            raise ConfigError("the token carrier 'session' needs sessions")
        self._sessions = sessions if SESSION in self._carriers else None
        self._standing = Standing(verifier, revocations, insecure_store_fail_open=insecure_store_fail_open, clock=clock)
        self._report_only_grants = report_only_grants
        # Enough to see that a token is too large, whatever stands in front of it.
        self._longest = verifier.policy.max_token_bytes + _MOST_IN_FRONT
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES:
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        send = trail.wrap(send)
        trail.edits += (keep_private,)
        publish_embed(scope, trail, None)
        # A guard in front that enforces grants is not overruled by one behind it, nor the other way round.
        trail.report_only_grants = self._report_only_grants and (trail.report_only_grants or not trail.decided(_LAYER))

        claims = await self._authenticate(scope, trail)
        if not isinstance(claims, Deny) and not self._standing.holds(claims, self._clock()):
            revoked = await self._standing.revoked(claims, trail)
            if revoked is not None:
                trail.claims, claims = claims, revoked  # the record says whose token it was
        trail.add(_LAYER, claims if isinstance(claims, Deny) else ALLOW)
        if isinstance(claims, Deny):
            return await deny(scope, receive, send, claims)

        trail.claims = claims
        trail.exempt = False  # whatever a guard in front says: here it was verified
        if claims.token_type != BOOTSTRAP:
            # A bootstrap token opens a session and nothing else: the app has no embed to serve.
            publish_embed(scope, trail, _embed_of(claims, trail))
        offered = scope.get("subprotocols") or ()
        trail.session_cookies = trail.values_of(b"cookie")
        strip_credentials(scope, trail.raw)
        if scope["type"] == "websocket":
            send = _selecting_subprotocol(send) if SUBPROTOCOL in offered else send
            return await self._standing.while_it_holds(self.app, scope, receive, send, claims=claims)
        try:
            standing = self._standing
            await self.app(scope, standing.arriving(receive, claims, trail), standing.cutting(send, claims, trail))
        except Refused:
            # Without a record in front, nobody else knows what it means that the answer was cut.
            if trail.ended is None or trail.audit is not None:
                raise

    async def _authenticate(self, scope: Scope, trail: Trail) -> VerifiedClaims | Deny:
        now = self._clock()
        trail.read(scope)
        authorization = trail.values_of(b"authorization", longest=self._longest)
        credential = explicit_credential(
            self._carriers,
            authorization=authorization,
            x_embed_token=trail.values_of(b"x-embed-token", longest=self._longest),
            subprotocols=scope.get("subprotocols") or (),
            bootstrap_tokens=trail.bootstrap_tokens,
        )
        exposed = _exposed_api_key(trail) if b"x-api-key" in trail.raw else None
        if exposed is not None:
            return exposed
        if isinstance(credential, Deny):
            return credential
        if isinstance(credential, TokenCredential):
            if credential.carrier != "bootstrap":
                trail.presented = credential
            return await self._verified(credential, trail, now)
        if trail.claims is not None:
            return await self._vouched_for(trail.claims, trail, now)
        nothing = _NO_BEARER if authorization else _NO_TOKEN
        if b"x-api-key" in trail.raw and _api_keys(trail):
            nothing = _AN_API_KEY
        if self._sessions is None:
            return nothing
        session = self._session_credential(scope, trail)
        if session is None:
            return nothing
        if isinstance(session, SessionCredential):
            try:
                found = await self._sessions.find(session.handle, session.secret, now=now)
            except StoreUnavailable:
                return Deny(Reason.STORE_UNAVAILABLE, "the store of embed sessions does not answer")
            return found if isinstance(found, Deny) else await self._rechecked(found)
        return session

    async def _verified(self, credential: TokenCredential, trail: Trail, now: float) -> VerifiedClaims | Deny:
        token, token_type = credential.token, BOOTSTRAP if credential.carrier == "bootstrap" else EMBED
        refused, trail.refused_token = trail.refused_token, None
        if refused is not None and refused[:2] == (self._verifier, token) and token_type == EMBED:
            verified: VerifiedClaims | Deny = refused.refusal
        else:
            verified = self._verifier.verify(token, now=now, token_type=token_type)
        if self._verifier.lacks_key(verified) and await self._verifier.look_again(token):
            verified = self._verifier.verify(token, now=self._clock(), token_type=token_type)
        return verified

    async def _vouched_for(self, claims: VerifiedClaims, trail: Trail, now: float) -> VerifiedClaims | Deny:
        """What a guard in front of this one has verified and taken away, by the settings of this one.

        It is believed as far as it verifies with the same key (its name, or none, may stand for another key here) and
        would be read alike; else the token is verified anew.
        """
        presented = trail.presented
        if isinstance(presented, bytes):
            presented = TokenCredential(bearer_token(presented.decode("latin-1")) or "", AUTHORIZATION)
        carrier: str | None = None if presented is None else presented.carrier
        if claims.token_type == SESSION_TYPE:
            carrier = SESSION
        if carrier is not None and carrier not in self._carriers:
            return switched_off(carrier)
        if presented is None or self._verifier.policy.reads_alike(claims.reading):
            return await self._rechecked(claims)
        return await self._verified(presented, trail, now)

    async def _rechecked(self, claims: VerifiedClaims) -> VerifiedClaims | Deny:
        rechecked = self._verifier.recheck(claims, now=self._clock())
        if self._verifier.lacks_key(rechecked) and await self._verifier.look_again(claims):
            rechecked = self._verifier.recheck(claims, now=self._clock())
        return rechecked

    def _session_credential(self, scope: Scope, trail: Trail) -> SessionCredential | Deny | None:
        cookies = session_cookies(header_values(scope, b"cookie"))
        if isinstance(cookies, Deny):
            return cookies
        query_handles = handle_values(scope.get("query_string", b""))
        if not cookies and not query_handles:
            return None
        fetch_site = header_values(scope, b"sec-fetch-site")
        unreadable = session_readable(
            websocket=scope["type"] == "websocket",
            method=scope.get("method", ""),
            origin_is_self=trail.own_page,
            fetch_site=fetch_site,
            fetch_dest=header_values(scope, b"sec-fetch-dest"),
        )
        if unreadable is not None:
            return unreadable
        referers = header_values(scope, b"referer") if fetch_site == ("same-origin",) else []
        referer_handles = handle_values(referers[0].partition("#")[0].partition("?")[2]) if len(referers) == 1 else []
        return session_credential(cookies, query_handles=query_handles, referer_handles=referer_handles)


def _exposed_api_key(trail: Trail) -> Deny | None:
    """A refusal where a browser sends an API key of the token service here; the host's own ``x-api-key`` may pass."""
    return exposed_api_key(_api_keys(trail), [value for name in BROWSER_HEADERS for value in trail.values_of(name)])


def _api_keys(trail: Trail) -> list[str]:
    return [key for key in trail.values_of(b"x-api-key") if parse_api_key(key) is not None]


def _embed_of(claims: VerifiedClaims, trail: Trail) -> Embed:
    """What the app sees of a token at one embedder, but for its rows."""
    origin = trail.embedder or trail.caller
    return make_embed(
        claims.subject,
        claims.tenant,
        claims.grants,
        None,
        claims.issuer,
        claims.token_id,
        claims.expires_at,
        None if origin is None else str(origin),
    )


def _selecting_subprotocol(send: Send) -> Send:
    """Select ``embed`` where the app chose none: a browser fails a handshake that selects nothing it offered."""

    async def select(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message = {**message, "subprotocol": SUBPROTOCOL}
        await send(message)

    return select
