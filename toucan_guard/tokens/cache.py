"""Remember what a signature vouches for.

Verifying a signature costs 20 to 200 microseconds, and a chart asks many times with one token. What is kept is the
frozen claims of a token that verified. Everything that can change meanwhile is looked at again on every hit: the time
here, revocation and grants in their layers. What layers keep beside the claims (``derived``) follows from them and from
the configuration; a refusal is never kept.

An entry's key is a SHA-256 over the token *and* over everything else that the verification depended on: the ring's
generation, the policy and the token type. So a token stops being known at the moment in which its key leaves the ring.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.jws import KeyFinder, parse_compact
from toucan_guard.core.token import recheck, steady_between, verify
from toucan_guard.core.token_policy import EMBED, TokenPolicy
from toucan_guard.tokens.key_source import KeySource, StaticKeys
from toucan_guard.tokens.keys import KeyRing

# Claims as Python objects, and what layers keep beside them, take several times the room of the token.
_BYTES_PER_ENTRY: Final = 4096
_BYTES_PER_TOKEN_BYTE: Final = 4


_NEVER: Final = float("inf")


@dataclass(slots=True)
class _Entry:
    claims: VerifiedClaims
    charge: int
    until: float
    # When nothing has to be looked at (see ``steady_between``); worked out for those that come again.
    first: float = _NEVER
    last: float = -_NEVER


class TokenCache:
    """Verified claims, bounded in entries and in bytes: the least used makes room. Not thread-safe: one per event loop.

    Args:
        size: The most entries; 0 switches the cache off.
        max_bytes: About the most memory that the entries may take.
        max_seconds: No entry is kept longer than this, however long its token lives.
    """

    def __init__(self, size: int, max_bytes: int = 64 * 1024 * 1024, *, max_seconds: float = 300.0) -> None:
        if size < 0 or max_bytes < 1 or max_seconds <= 0:
            raise ConfigError("the token cache needs a size of 0 or more, and a positive limit of bytes and of seconds")
        self.size: Final = size
        self._max_seconds = max_seconds
        # One bound does the work of two: an entry is charged for its bytes, and at least for its share of them. So the
        # entries never exceed the size, nor their bytes the limit.
        self._share = -(-max_bytes // size) if size else 0
        self._limit = self._share * size
        self._charged = 0
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # the least used first

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: bytes) -> _Entry | None:
        """What is kept under a key, its time over or not; None where nothing is."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def entry(self, key: bytes, *, now: float) -> _Entry | None:
        """What is kept under a key, or None."""
        entry = self.find(key)
        if entry is None or now < entry.until:
            return entry
        self._forget(key)
        return None

    def put(self, key: bytes, claims: VerifiedClaims, *, token_bytes: int, policy: TokenPolicy, now: float) -> None:
        """Keep claims until their token ends, or at most for ``max_seconds``."""
        charge = max(self._share, _BYTES_PER_ENTRY + _BYTES_PER_TOKEN_BYTE * token_bytes)
        if charge > self._limit:  # everything is, where the size is 0
            return
        entries = self._entries
        if key in entries:
            self._forget(key)
        self._charged += charge
        while self._charged > self._limit:
            self._charged -= entries.popitem(last=False)[1].charge
        entries[key] = _Entry(claims, charge, min(claims.expires_at + policy.leeway_seconds, now + self._max_seconds))

    def _forget(self, key: bytes) -> None:
        self._charged -= self._entries.pop(key).charge

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._charged = 0


class CachedVerifier:
    """Verifies tokens, cache first.

    Args:
        policy: What a token must say. It does not change; another policy is another verifier.
        keys: The keys, or where they come from. Tokens of keys that are gone are refused from the next look on,
            remembered or not.
        cache: May be shared with other verifiers of the same event loop.
    """

    def __init__(self, policy: TokenPolicy, keys: KeyRing | KeySource, cache: TokenCache) -> None:
        self._policy: Final = policy
        self._cache: Final = cache
        self._source: Final[KeySource] = StaticKeys(keys) if isinstance(keys, KeyRing) else keys
        self._follow(self._source.ring)

    @property
    def policy(self) -> TokenPolicy:
        """What a token must say."""
        return self._policy

    @property
    def source(self) -> KeySource:
        """Where the keys come from."""
        return self._source

    @property
    def ring(self) -> KeyRing | None:
        """The keys that verify tokens now; None where there are none."""
        ring = self._source.ring
        if ring is not self._ring:
            self._follow(ring)
        return ring

    def _follow(self, ring: KeyRing | None) -> None:
        self._ring = ring
        self._finder: KeyFinder = _NO_KEYS if ring is None else ring
        policy = repr(self._policy).encode("utf-8", "backslashreplace")
        self._missed = _NOTHING
        # Nothing is ever kept under the prefix of no ring, and what was kept under a ring's is found when it is back.
        self._prefix = _digest((b"" if ring is None else ring.generation, policy, EMBED.encode()))

    def remembered(self, credentials: bytes, *, scheme: bytes, now: float) -> VerifiedClaims | None:
        """The claims of an embed token that was verified before and is still good; None says nothing: ``verify`` it.

        Args:
            credentials: The token, with what stands in front of it.
            scheme: What that has to be, such as ``b"Bearer "``.
            now: Seconds since the epoch.

        Never raises.
        """
        ring = self._source.ring
        if ring is not self._ring:
            self._follow(ring)
        if len(credentials) > self._policy.max_token_bytes + len(scheme) or not credentials.startswith(scheme):
            return None
        token = credentials[len(scheme) :]
        key = hashlib.sha256(self._prefix + token).digest()
        entry = self._cache.find(key)
        if entry is None:
            self._missed = (token, key)
            return None
        return entry.claims if entry.first <= now <= entry.last else self._looked_at(key, token, now)

    def _looked_at(self, key: bytes, token: bytes, now: float) -> VerifiedClaims | None:
        """An entry that comes again for the first time, or near its end."""
        entry = self._cache.entry(key, now=now)
        if entry is None:
            self._missed = (token, key)
            return None
        first, last = steady_between(entry.claims, policy=self._policy)
        entry.first, entry.last = first, min(last, math.nextafter(entry.until, -_NEVER))
        return entry.claims if entry.first <= now <= entry.last else None

    def verify(self, token: str | bytes, *, now: float, token_type: str = EMBED) -> VerifiedClaims | Deny:
        """Verify a token as ``core.token.verify`` does, remembering those that are valid, as text and bytes alike.

        Never raises.
        """
        policy = self._policy
        ring = self._source.ring
        if ring is not self._ring:
            self._follow(ring)
        given: object = token  # typed as text or bytes, but hosts may give anything
        # A bootstrap token is spent at its first use, so remembering it would only push others out. What is no text,
        # too large or not ASCII is refused without being hashed.
        if (
            token_type != EMBED
            or not isinstance(given, (str, bytes))
            or len(given) > policy.max_token_bytes
            or not given.isascii()
        ):
            return self._told(verify(token, policy=policy, keys=self._finder, now=now, token_type=token_type))
        raw = given.encode("ascii") if isinstance(given, str) else given
        missed, key = self._missed
        self._missed = _NOTHING
        if raw != missed:
            key = hashlib.sha256(self._prefix + raw).digest()
            entry = self._cache.entry(key, now=now)
            if entry is not None:
                refusal = recheck(entry.claims, policy=policy, now=now)
                return entry.claims if refusal is None else refusal
        result = verify(raw, policy=policy, keys=self._finder, now=now)
        if isinstance(result, Deny):
            return self._told(result)
        self._cache.put(key, result, token_bytes=len(raw), policy=policy, now=now)
        return result

    def recheck(self, claims: VerifiedClaims, *, now: float) -> VerifiedClaims | Deny:
        """Look again at claims that were verified earlier and kept elsewhere, in an embed session for example.

        Returns:
            The claims, or a refusal: the time has run out, the key that vouched for them left the ring, or whoever
            verified them read tokens otherwise.
        """
        ring = self.ring
        if ring is None or not ring.holds(claims.key_id, claims.algorithm, claims.key_mark):
            return self._told(_KEY_GONE)
        if not self._policy.reads_alike(claims.reading):
            return _READ_OTHERWISE
        refusal = recheck(claims, policy=self._policy, now=now)
        return claims if refusal is None else refusal

    def lacks_key(self, refusal: VerifiedClaims | Deny) -> bool:
        """Whether a token or session was refused for want of a key: then ask ``look_again``."""
        return isinstance(refusal, Deny) and refusal.reason in _FOR_WANT_OF_A_KEY

    async def look_again(self, kid_of: str | bytes | VerifiedClaims) -> bool:
        """Whether a token or session that lacks a key deserves another look, after the keys had one.

        Args:
            kid_of: The token or the claims.

        Never raises. Waits for a fetch of keys where one is allowed, a few seconds at most.
        """
        before = self._source.ring
        await self._source.look_again(_kid_of(kid_of, self._policy.max_token_bytes))
        return self._source.ring is not before

    def _told(self, result: VerifiedClaims | Deny) -> VerifiedClaims | Deny:
        """A key that nobody has is unknown only where all keys are at hand."""
        if isinstance(result, Deny) and result.reason is Reason.KEY_UNKNOWN and not self._source.complete:
            return _KEYS_UNAVAILABLE
        return result


# A token that was looked for in vain, and its key: whoever verifies it next need not look again. Let go of then.
_NOTHING: Final[tuple[bytes | None, bytes]] = (None, b"")


class _NoKeys:
    """The ring of a source that has no keys."""

    def find(self, kid: str | None, algorithm: str) -> Deny:
        return Deny(Reason.KEY_UNKNOWN, "there is no key at all")


_NO_KEYS: Final = _NoKeys()
_KEY_GONE: Final = Deny(Reason.KEY_UNKNOWN, "the key that signed the token is no longer in use")
_READ_OTHERWISE: Final = Deny(
    Reason.SESSION_UNKNOWN, "the embed session was opened by a guard whose settings read tokens otherwise"
)
_KEYS_UNAVAILABLE: Final = Deny(Reason.KEYS_UNAVAILABLE, "the keys that verify tokens cannot be had at this moment")
_FOR_WANT_OF_A_KEY: Final = (Reason.KEY_UNKNOWN, Reason.KEYS_UNAVAILABLE)


def _kid_of(subject: str | bytes | VerifiedClaims, max_bytes: int) -> str | None:
    if isinstance(subject, VerifiedClaims):
        return subject.key_id
    jws = parse_compact(subject, max_bytes=max_bytes)
    kid = None if isinstance(jws, Deny) else jws.header.get("kid")
    return kid if isinstance(kid, str) else None


def _digest(parts: Sequence[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.digest()
