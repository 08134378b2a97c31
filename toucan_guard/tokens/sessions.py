"""Single use and embed sessions.

A frame's first navigation cannot carry a header, so it carries a bootstrap token in
its URL. That token is spent once and exchanged for an embed session: a cookie of 256
random bits whose digest the store maps to the verified claims (DESIGN section 5).

The session's public handle is derived from the token's identity, so that a spent
token still leads the browser that holds its session (and nobody else) to it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, replace
from typing import Final

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.tokens.store import Store

SESSION_TYPE: Final = "embed-session"  # what a session's claims say in place of the token's ``typ``
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A session that a bootstrap token was exchanged for.

    Attributes:
        handle: Public name of the session; stands in the frame's URL.
        secret: The cookie's value, or None where the browser holds it already.
        expires_at: Seconds since the epoch.
    """

    handle: str
    secret: str | None
    expires_at: float

    def __repr__(self) -> str:
        return f"OpenedSession(handle={self.handle!r})"


class EmbedSessions:
    """Opens embed sessions and finds them again."""

    def __init__(self, store: Store, *, lifetime_seconds: int, leeway_seconds: int) -> None:
        self._store = store
        self._lifetime_seconds = lifetime_seconds
        self._leeway_seconds = leeway_seconds

    async def exchange(self, claims: VerifiedClaims, cookies: dict[str, str], *, now: float) -> OpenedSession | Deny:
        """Spend a verified bootstrap token and open its session.

        Called after every other check. A spent token leads the browser whose cookie opens its
        session there again (a reload of the frame); from anybody else it is refused.
        """
        handle = handle_of(claims)
        # The token is dead at exp + leeway, and remembered until then.
        spent_until = claims.expires_at + self._leeway_seconds + 1
        expires_at = min(
            claims.issued_at + (claims.session_seconds or 0),
            claims.issued_at + self._lifetime_seconds,
        )
        session = replace(claims, expires_at=expires_at, token_type=SESSION_TYPE)
        if not await self._store.spend(f"spent:{handle}", expires_at=spent_until):
            held = await self.find(handle, cookies.get(handle, ""), now=now)
            # A host that gives two tokens one ``jti`` must not lead one viewer into the other's session.
            if isinstance(held, Deny) or held != session:
                return Deny(Reason.TOKEN_SPENT, "the bootstrap token was used already")
            return OpenedSession(handle, None, held.expires_at)
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        await self._store.put(_session_key(handle, secret), session, expires_at=expires_at)
        return OpenedSession(handle, secret, expires_at)

    async def find(self, handle: str, secret: str, *, now: float) -> VerifiedClaims | Deny:
        """The claims of the session that this cookie opens."""
        claims = await self._store.get(_session_key(handle, secret))
        if claims is None or claims.expires_at <= now:
            return Deny(Reason.SESSION_UNKNOWN, "the embed session has ended")
        return claims


def handle_of(claims: VerifiedClaims) -> str:
    """The session handle of a bootstrap token: a digest of issuer, audience and ``jti``.

    Length-prefixed, so that no two identities have the same digest by moving a boundary.
    """
    digest = hashlib.sha256()
    for part in (claims.issuer, *claims.audiences, claims.token_id):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(encoded) + encoded)
    return base64.b32encode(digest.digest()[:16]).decode().rstrip("=").lower()


def _session_key(handle: str, secret: str) -> str:
    # The store keeps a digest: whoever reads the store cannot open a session with it.
    return "session:" + hashlib.sha256(f"{handle}:{secret}".encode("utf-8", "surrogatepass")).hexdigest()
