"""A cache of the application's own, made safe: what one embed put in, no other embed finds.

Cached charts are filtered rows. Here every key begins with the current embed's fingerprint, so a cache
hit is always one of the same issuer, tenant, attributes and policy, and a look-up on nobody's behalf
raises. An entry keeps what it earned: the tables that this connection filtered between the look-up for it
and the moment it was put there. A hit brings these receipts along, so an endpoint that requires a row filter
(``receipts.py``) is answered from the cache as well, and from no other entry.

So look for an entry first, ask the database then, and keep what is finished:

- An entry that was not looked for brings no receipts. One that was found and is replaced, because it is too old, brings
  what was filtered since it was found. The same value, put there again to live longer, was not made anew and brings
  none: ``touch`` it.
- A future that is kept first and filled later brings none, because nothing was filtered when it was kept; and the
  queries behind it end with the connection that began them, for everybody who waits. Where one shall work while others
  wait, take a lock for each ``embed_key``, look again under it, and keep the rows.
- Whose filtering counts where tasks and threads run beside each other says ``earnings.py``. A transaction of
  ``rls.postgres`` may have begun before the look-up: where ``bind_each_transaction`` binds, each statement counts, and
  where the app calls ``bind`` itself, it calls it again after the look-up.

::

    @cached(EmbedCache(TTLCache(maxsize=1000, ttl=60)))     # cachetools; any mapping will do
    def delays_by_month(): ...

    charts = EmbedRedis(redis.Redis(), prefix="charts")     # redis-py; AsyncEmbedRedis for redis.asyncio
    charts.set("delays", svg, seconds=60)

    async with lock_of(embed_key("delays")):                # one works while the others wait, and look again
        if "delays" not in cache:
            cache["delays"] = await draw()
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Collection, Hashable, Iterator, MutableMapping
from typing import Any, Final, Protocol, TypeVar

from toucan_guard.core.errors import ConfigError
from toucan_guard.rls.context import RowAccess, require_row_access

_T = TypeVar("_T")
_PREFIX: Final = "toucan_guard:cache"
_EARNED: Final = "filtered"
_OWNER: Final = "embed"


def embed_key(*args: Hashable, **kwargs: Hashable) -> tuple[Hashable, ...]:
    """A cache key that belongs to the current embed; a key function for ``cachetools.cached``.

    A hit under such a key brings no receipts along: with ``require_row_filter``, use ``EmbedCache``.

    Raises:
        NoEmbedContext: There is no embed, or its connection has ended.
    """
    return (require_row_access().embed_key, args, tuple(sorted(kwargs.items(), key=lambda item: item[0])))


class EmbedCache(MutableMapping[Any, _T]):
    """A mapping that holds each embed's entries apart.

    Args:
        cache: Where entries are kept, such as a ``cachetools.TTLCache``. Its values are pairs of a value and
            the tables that were filtered, so a ``getsizeof`` of its own is given such a pair.

    Every use on nobody's behalf raises ``NoEmbedContext``.
    """

    def __init__(self, cache: MutableMapping[Any, Any]) -> None:
        given: object = cache
        if not isinstance(given, MutableMapping) or isinstance(given, EmbedCache):
            raise ConfigError("EmbedCache takes a mapping to keep its entries in, such as a cachetools.TTLCache")
        self._cache = cache

    def __getitem__(self, key: Hashable) -> _T:
        access = require_row_access()
        try:
            value = self._found(access, key)
        except KeyError:
            access.earnings.missed(self._sought(key))
            raise
        access.earnings.found(self._sought(key))  # after the receipts that it brings: they are not the next one's
        return value

    def __setitem__(self, key: Hashable, value: _T) -> None:
        access = require_row_access()
        self._cache[access.embed_key, key] = value, access.earnings.of(self._sought(key))
        access.earnings.made(self._sought(key))

    def __delitem__(self, key: Hashable) -> None:
        del self._cache[require_row_access().embed_key, key]

    def __contains__(self, key: object) -> bool:
        access = require_row_access()
        found = (access.embed_key, key) in self._cache
        looked = access.earnings.found if found else access.earnings.missed
        looked(self._sought(key))
        return found

    def setdefault(self, key: Hashable, default: Any = None) -> Any:
        """The entry, made of ``default`` if there is none; which was filled before, so this look-up is not the one."""
        try:
            return self._found(require_row_access(), key)
        except KeyError:
            self[key] = default
            return default

    def touch(self, key: Hashable) -> bool:
        """Put an entry there again as it is, receipts and all, so that it lives longer. Whether there is one."""
        own = require_row_access().embed_key, key
        try:
            self._cache[own] = self._cache[own]
        except KeyError:
            return False
        return True

    def clear(self) -> None:
        """Forget the current embed's entries, without reading them."""
        for key in self:
            self._cache.pop((require_row_access().embed_key, key), None)

    def _found(self, access: RowAccess, key: Hashable) -> _T:
        value: _T
        value, tables = self._cache[access.embed_key, key]
        _bring(access, tables)
        return value

    def _sought(self, key: object) -> Hashable:
        return id(self._cache), key

    def __iter__(self) -> Iterator[Any]:
        own = require_row_access().embed_key
        return iter([key for owner, key in self._cache if owner == own])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"EmbedCache({type(self._cache).__name__})"


class RedisClient(Protocol):
    """What is asked of ``redis.Redis`` and of ``redis.asyncio.Redis``."""

    def get(self, name: str) -> Any:
        """The value of a key, or None."""

    def set(self, name: str, value: bytes, *, ex: int) -> Any:
        """Set a key for some seconds."""

    def expire(self, name: str, time: int) -> Any:
        """Let a key live for some seconds from now on."""

    def delete(self, name: str) -> Any:
        """Delete a key."""


class _EmbedRedis:
    def __init__(self, client: RedisClient, *, prefix: str = _PREFIX) -> None:
        self._client = client
        self._prefix = prefix

    def key(self, name: str) -> str:
        """The key of the current embed's entry, for commands that are not here.

        Raises:
            NoEmbedContext: There is no embed, or its connection has ended.
        """
        return self._key(require_row_access(), name)

    def _key(self, access: RowAccess, name: str) -> str:
        return f"{self._prefix}:{access.embed_key}:{name}"


class EmbedRedis(_EmbedRedis):
    """Entries in Redis or Valkey, held apart by embed. Every use on nobody's behalf raises ``NoEmbedContext``.

    Args:
        client: A ``redis.Redis``.
        prefix: What every key begins with.
    """

    def get(self, name: str) -> bytes | None:
        """The current embed's entry, or None."""
        access = require_row_access()
        key, found = self._key(access, name), None
        try:
            found = _opened(access, self._client.get(key))
        finally:
            # A server that does not answer has not found it either.
            (access.earnings.missed if found is None else access.earnings.found)(key)
        return found

    def set(self, name: str, value: bytes | str, *, seconds: int) -> None:
        """Keep an entry of the current embed for some seconds."""
        access = require_row_access()
        key = self._key(access, name)
        self._client.set(key, _packed(access, access.earnings.of(key), value), ex=seconds)
        access.earnings.made(key)

    def touch(self, name: str, *, seconds: int) -> bool:
        """Let the current embed's entry live for some seconds from now on. Whether there is one."""
        return bool(self._client.expire(self.key(name), seconds))

    def delete(self, name: str) -> None:
        """Forget the current embed's entry."""
        self._client.delete(self.key(name))


class AsyncEmbedRedis(_EmbedRedis):
    """``EmbedRedis`` for a ``redis.asyncio.Redis``."""

    async def get(self, name: str) -> bytes | None:
        """The current embed's entry, or None."""
        access = require_row_access()
        key, found = self._key(access, name), None
        try:
            found = _opened(access, await self._client.get(key))
        finally:
            # A server that does not answer has not found it either.
            (access.earnings.missed if found is None else access.earnings.found)(key)
        return found

    async def set(self, name: str, value: bytes | str, *, seconds: int) -> None:
        """Keep an entry of the current embed for some seconds."""
        access = require_row_access()
        key = self._key(access, name)
        done: Awaitable[Any] = self._client.set(key, _packed(access, access.earnings.of(key), value), ex=seconds)
        await done
        access.earnings.made(key)

    async def touch(self, name: str, *, seconds: int) -> bool:
        """Let the current embed's entry live for some seconds from now on. Whether there is one."""
        return bool(await self._client.expire(self.key(name), seconds))

    async def delete(self, name: str) -> None:
        """Forget the current embed's entry."""
        await self._client.delete(self.key(name))


def _bring(access: RowAccess, tables: Collection[str]) -> None:
    # The fingerprint has the policy's version in it, so the entry was filtered by this very policy.
    access.note(tables, access.row_filter.policy.version)


def _packed(access: RowAccess, earned: tuple[str, ...], value: bytes | str) -> bytes:
    """One line that says whose entry it is, with the filtered tables; then the value."""
    given: object = value
    if not isinstance(given, str | bytes | bytearray | memoryview):
        # Of a number, bytes() would make so many zeros.
        raise TypeError(f"an entry is bytes or text, not {type(given).__name__}: write it as one of them")
    raw = value.encode() if isinstance(value, str) else bytes(value)
    return json.dumps({_OWNER: access.embed_key, _EARNED: earned}).encode() + b"\n" + raw


def _opened(access: RowAccess, stored: Any) -> bytes | None:
    raw = stored.encode() if isinstance(stored, str) else stored
    if not isinstance(raw, bytes):
        return None
    line, newline, value = raw.partition(b"\n")
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        return None
    # Somebody else's value under our key is no entry, and neither is one of an earlier version, which does not say
    # whose it is: a connection that got out of step answers with what another embed has asked for.
    tables = head.get(_EARNED) if isinstance(head, dict) and head.get(_OWNER) == access.embed_key else None
    if not newline or not isinstance(tables, list) or not all(isinstance(table, str) for table in tables):
        return None
    _bring(access, tables)
    return value
