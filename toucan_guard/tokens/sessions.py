"""Single use and embed sessions, on one small store.

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
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol
from weakref import WeakValueDictionary

from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.core.token import VerifiedClaims

SESSION_TYPE: Final = "embed-session"  # what a session's claims say in place of the token's ``typ``
_SECRET_BYTES: Final = 32


class Store(Protocol):
    """What sessions and single use need of a store. Every method may raise ``StoreUnavailable``."""

    async def spend(self, key: str, *, expires_at: float) -> bool:
        """Take a key that nobody took before; False where somebody did. Forgotten after ``expires_at``."""
        ...

    async def put(self, key: str, claims: VerifiedClaims, *, expires_at: float) -> None:
        """Keep claims under a key until ``expires_at`` (seconds since the epoch)."""
        ...

    async def get(self, key: str) -> VerifiedClaims | None:
        """The claims under a key, or None where they ended or never were."""
        ...


class MemoryStore:
    """The store of one process. Forgets nothing early: when it is full it refuses new entries.

    An LRU would reopen replay: whoever floods it would make it forget a spent token.
    """

    def __init__(self, *, max_entries: int = 100_000, clock: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self._clock = clock
        self._spent: dict[str, float] = {}
        self._sessions: dict[str, tuple[float, VerifiedClaims]] = {}

    async def spend(self, key: str, *, expires_at: float) -> bool:
        """See ``Store``."""
        if self._spent.get(key, 0.0) > self._clock():
            return False
        self._make_room()
        self._spent[key] = expires_at
        return True

    async def put(self, key: str, claims: VerifiedClaims, *, expires_at: float) -> None:
        """See ``Store``."""
        self._make_room()
        self._sessions[key] = (expires_at, claims)

    async def get(self, key: str) -> VerifiedClaims | None:
        """See ``Store``."""
        expires_at, claims = self._sessions.get(key, (0.0, None))
        return claims if expires_at > self._clock() else None

    def _make_room(self) -> None:
        if len(self._spent) + len(self._sessions) < self._max_entries:
            return
        now = self._clock()
        self._spent = {key: end for key, end in self._spent.items() if end > now}
        self._sessions = {key: entry for key, entry in self._sessions.items() if entry[0] > now}
        if len(self._spent) + len(self._sessions) >= self._max_entries:
            raise StoreUnavailable("the memory store of sessions and spent tokens is full")


_shared_stores: Final[WeakValueDictionary[tuple[object, ...], MemoryStore]] = WeakValueDictionary()


def shared_memory_store(*tokens: object, clock: Callable[[], float]) -> MemoryStore:
    """The store that all guards of this process share which take the same tokens.

    Two mounts of one app are two guards: with a store for each, a bootstrap token would be spent once at each of them.

    Args:
        tokens: What decides which tokens are taken: issuer, audiences, keys.
        clock: Seconds since the epoch, where the store is new.
    """
    store = _shared_stores.get(tokens)
    if store is None:
        store = _shared_stores[tokens] = MemoryStore(clock=clock)
    return store


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
