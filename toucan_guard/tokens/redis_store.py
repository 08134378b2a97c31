"""The store of many workers and machines: Redis or Valkey, through redis-py (extra ``[redis]``).

Every command names one key, so that a cluster works, and every call ends after a quarter of a second at the latest:
with an answer, or with ``StoreUnavailable``, which repeats neither the driver's words nor the URL.

What the server must promise: it does not evict (``maxmemory-policy noeviction``), and it does not forget what it has
acknowledged. One that restarts without its data, or fails over to a replica that lags, forgets tokens that were spent
within the last minute or so; what it forgets of revocations, the workers that are running put back (``revocation.py``).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection
from typing import Final

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.tokens.claims_text import claims_from_text, claims_to_text
from toucan_guard.tokens.history import next_version
from toucan_guard.tokens.redis_driver import CAUSES, UNEXPECTED, RedisConnections
from toucan_guard.tokens.store_url import StoreAddress, parse_store_url

PREFIX: Final = "toucan_guard:"
_LONGEST_SECONDS: Final = 2**31  # the server refuses an end that its clock cannot hold
_VERSION: Final = b"@version"  # no entry begins like this
_AT_ONCE: Final = 500
_UNTOLD: Final = "the store does not tell its maxmemory-policy; make sure that it is noeviction"
_EVICTS: Final = (
    "the store's maxmemory-policy is not noeviction: when its memory is full it forgets revocations and spent tokens, "
    "which can then be used again; set maxmemory-policy to noeviction"
)
_FORGETS: Final = (
    "the store writes no append-only file and has no replica: one that restarts forgets revocations and spent tokens, "
    "which can then be used again; set appendonly to yes"
)


class RedisStore:
    """Sessions, spent tokens and revocations in Redis or Valkey.

    Opens its connections when it is first used, and anew on every event loop.

    Args:
        url: See ``parse_store_url``; or what it has read.
        clock: Seconds since the epoch, to turn an end into a remaining life.

    Raises:
        ConfigError: The URL is wrong, or redis-py is not installed.
    """

    def __init__(self, url: str | StoreAddress, *, clock: Callable[[], float] = time.time) -> None:
        self._address: Final = url if isinstance(url, StoreAddress) else parse_store_url(url)
        self._clock = clock
        self._connections: Final = RedisConnections(self._address)

    @property
    def address(self) -> StoreAddress:
        """Which server this is."""
        return self._address

    def __repr__(self) -> str:
        return f"RedisStore({self._address})"

    async def spend(self, key: str, *, expires_at: float) -> bool:
        """See ``Store``: one winner over all workers."""
        answer = await self._connections.run("SET", _name(key), b"1", "NX", "EX", self._remaining(expires_at))
        # Exactly the two answers that there are: whatever else came back did not win.
        if answer is None:
            return False
        if answer is not True:
            raise StoreUnavailable(UNEXPECTED)
        return True

    async def put(self, key: str, claims: VerifiedClaims, *, expires_at: float) -> None:
        """See ``Store``."""
        try:
            text = claims_to_text(claims)
        except ValueError:
            raise StoreUnavailable("the claims are of a shape that the store cannot keep") from None
        answer = await self._connections.run(
            "SET", _name(key), _bound_to(key) + text, "EX", self._remaining(expires_at)
        )
        if answer is not True:
            raise StoreUnavailable(UNEXPECTED)

    async def get(self, key: str) -> VerifiedClaims | None:
        """See ``Store``. A text of another version, a damaged one and one that belongs to another key are none."""
        answer = await self._connections.run("GET", _name(key))
        if answer is None:
            return None
        if not isinstance(answer, bytes):
            raise StoreUnavailable(UNEXPECTED)
        # A connection that got out of step answers with what somebody else asked for: somebody else's session.
        bound_to = _bound_to(key)
        return claims_from_text(answer[len(bound_to) :]) if answer.startswith(bound_to) else None

    async def revoked(self, issuer: str, *, since: str = "") -> tuple[str, Collection[str]] | None:
        """See ``Store``."""
        # The version first: what is added between the two questions makes the next reading a full one.
        version = await self._version(issuer)
        if since and version == since:
            return None
        answer = await self._connections.run("HKEYS", _hash_of(issuer))
        if not isinstance(answer, list) or not all(isinstance(entry, bytes) for entry in answer):
            raise StoreUnavailable(UNEXPECTED)
        # Bytes that are no UTF-8 stay unreadable, and whoever reads the entry refuses it.
        entries = [entry.decode("utf-8", "surrogateescape") for entry in answer if entry != _VERSION]
        return version, entries

    async def revoke(self, issuer: str, *entries: str) -> None:
        """See ``Store``."""
        for first in range(0, len(entries), _AT_ONCE):
            added = [part for entry in entries[first : first + _AT_ONCE] for part in (_raw(entry), b"1")]
            # One command: an entry whose version is not announced, because the writer died in between, would not be
            # read.
            await self._connections.run("HSET", _hash_of(issuer), *added, _VERSION, await self._next_version(issuer))

    async def forget(self, issuer: str, entries: Collection[str]) -> None:
        """See ``Store``."""
        if entries:
            await self._connections.run("HDEL", _hash_of(issuer), *map(_raw, entries))
            # A writer who dies in between leaves the entries in the workers' copies: too much is refused then.
            await self._connections.run("HSET", _hash_of(issuer), _VERSION, await self._next_version(issuer))

    async def warnings(self) -> tuple[str, ...]:
        """What is wrong with the server although it answers, in sentences; for start-up and ``check``.

        Raises:
            StoreUnavailable: It does not answer.
        """
        try:
            answer = await self._connections.run("INFO")
        except StoreUnavailable as error:
            if error.args[0] not in (CAUSES["NoPermissionError"], CAUSES["ResponseError"]):
                raise
            answer = None
        told = answer if isinstance(answer, dict) else {}
        policy, found = told.get("maxmemory_policy"), []
        if policy != "noeviction":
            found.append(_UNTOLD if policy is None else _EVICTS)
        if told.get("aof_enabled") == 0 and told.get("connected_slaves") == 0 and told.get("role") == "master":
            found.append(_FORGETS)
        return tuple(found)

    async def aclose(self) -> None:
        """Close the connections of this event loop. A store that is used again opens new ones."""
        await self._connections.aclose()

    async def _version(self, issuer: str) -> str:
        answer = await self._connections.run("HGET", _hash_of(issuer), _VERSION)
        return answer.decode("ascii", "replace") if isinstance(answer, bytes) else ""

    async def _next_version(self, issuer: str) -> str:
        return next_version(await self._version(issuer))

    def _remaining(self, expires_at: float) -> int:
        # Rounded up: a spent token must not be forgotten before its end, and a session says its end itself.
        return max(1, math.ceil(min(expires_at - self._clock(), _LONGEST_SECONDS)))


def _name(key: str) -> bytes:
    return (PREFIX + key).encode("utf-8", "surrogatepass")


def _raw(entry: str) -> bytes:
    return entry.encode("utf-8", "surrogateescape")


def _hash_of(issuer: str) -> bytes:
    return _name("revoked:" + hashlib.sha256(issuer.encode("utf-8", "surrogatepass")).hexdigest())


def _bound_to(key: str) -> bytes:
    return hashlib.sha256(_name(key)).hexdigest().encode() + b"\n"
