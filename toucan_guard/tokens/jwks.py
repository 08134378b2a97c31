"""Keys that are fetched from a URL (``JWKS_URL``): always at hand, renewed in the background, dropped when too old.

Whoever asks for the ring gets the one that is there; a renewal that is due is begun on the way and waited for by
nobody. So an endpoint that hangs delays no token whose key is known. A token with an unknown key waits for one fetch
that it shares with all others like it, and after a fetch, failed or not, there is none for a while: a flood of made-up
key names is answered out of memory.

There is no task to start and stop. Each fetch that ends sets an alarm for the next one, so that a worker which serves
nobody does not judge its first request after an idle hour by the keys of an hour ago. Where an alarm was lost with its
event loop, or came late because the machine slept, whoever asks for the ring finds that a fetch is due.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final
from weakref import WeakMethod, WeakValueDictionary

import anyio
from anyio.lowlevel import current_token

from toucan_guard.core.errors import ConfigError, KeysUnavailable
from toucan_guard.tokens.background import after, spawn
from toucan_guard.tokens.jwks_text import KeySet, read_key_set
from toucan_guard.tokens.jwks_url import jwks_url_problem
from toucan_guard.tokens.keys import KeyRing

Fetch = Callable[[str], Awaitable[bytes]]
"""Gets the body of a key set from a URL. It may raise anything and take its time: both are bounded here."""

REFRESH_SECONDS: Final = 300.0
COOLDOWN_SECONDS: Final = 10.0
TIMEOUT_SECONDS: Final = 5.0
WAIT_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 0.02

_log: Final = logging.getLogger("toucan_guard")

# The clock that goes on while the machine sleeps: a set that was fetched before the lid was closed is old.
_elapsed: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """One fetch, for all who wait for it."""

    landed: anyio.Event
    loop: object


class JwksKeys:
    """A ``KeySource`` that fetches one issuer's key set. One per event loop.

    Args:
        url: https, or http on loopback.
        fetch: Gets the body.
        max_stale_seconds: How long a set stays good while it cannot be fetched again.
        refresh_seconds: About how long until it is fetched again; never longer than half of the former.
        cooldown_seconds: From the start of one fetch to the next that an unknown key may cause.
        timeout_seconds: How long a fetch may take in all.
        wait_seconds: How long a request with an unknown key waits for it.
        elapsed: Seconds that no one sets back.
        jitter: A number from 0 to 1, so that workers which started together do not fetch together.

    Attributes:
        dropped: Keys of the set that were left out; see ``KeySet``.
        exposed: Those of them that are private keys or secrets.
        problem: Why the last fetch failed, or None.

    Raises:
        ConfigError: The URL or a time is not one that protects.
    """

    def __init__(
        self,
        url: str,
        *,
        fetch: Fetch,
        max_stale_seconds: float = 3600,
        refresh_seconds: float = REFRESH_SECONDS,
        cooldown_seconds: float = COOLDOWN_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        elapsed: Callable[[], float] = _elapsed,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        problem = jwks_url_problem(url)
        if problem:
            raise ConfigError(f"the address of the key set {problem}")
        if not min(max_stale_seconds, refresh_seconds, cooldown_seconds, timeout_seconds, wait_seconds) > 0:
            raise ConfigError("every time of a fetched key set must be above 0 seconds")
        self._url = url
        self._fetch = fetch
        self._max_stale_seconds = max_stale_seconds
        self._refresh_seconds = min(refresh_seconds, max_stale_seconds / 2)
        self._cooldown_seconds = min(cooldown_seconds, self._refresh_seconds / 2)
        self._timeout_seconds = timeout_seconds
        self._wait_seconds = wait_seconds
        self._elapsed = elapsed
        self._jitter = jitter

        self._ring: KeyRing | None = None
        self._read: tuple[bytes, KeySet] | tuple[None, None] = None, None
        self.dropped: tuple[str, ...] = ()
        self.exposed: tuple[str, ...] = ()
        self.problem: str | None = None
        self._flight: _Flight | None = None
        self._lost_at = 0.0  # when a fetch that has not ended was lost with its event loop
        self._allowed_at = self._refresh_at = elapsed()
        self._stale_at = self._wake_at = self._allowed_at

    @property
    def ring(self) -> KeyRing | None:
        """See ``KeySource``."""
        if self._elapsed() >= self._wake_at:
            self._wake()
        return self._ring

    @property
    def complete(self) -> bool:
        """See ``KeySource``."""
        return self._ring is not None

    async def start(self) -> None:
        """See ``KeySource``."""
        if self.ring is None:
            await self.look_again(None)

    async def look_again(self, kid: str | None) -> None:
        """See ``KeySource``."""
        ring = self.ring
        if ring is not None and kid is not None and any(key.kid == kid for key in ring.keys):
            return  # somebody else has waited for it
        flight = self._renewal(may_begin=self._elapsed() >= self._allowed_at)
        if flight is not None:
            with anyio.move_on_after(self._wait_seconds):
                await self._landing(flight)

    async def _landing(self, flight: _Flight) -> None:
        if flight.loop == current_token():
            return await flight.landed.wait()
        # Another event loop of this process fetches: its events cannot be waited for here.
        while self._flight is flight:  # noqa: ASYNC110
            await anyio.sleep(_LOOK_SECONDS)

    def _wake(self) -> None:
        now = self._elapsed()
        if now >= self._stale_at and self._ring is not None:
            self._ring = None
            _log.error("toucan_guard keys: the key set is older than %g seconds and ends", self._max_stale_seconds)
        if now >= self._refresh_at:
            self._renewal(may_begin=True)
        self._set_alarm()

    def _set_alarm(self) -> None:
        self._wake_at = self._refresh_at if self._ring is None else min(self._refresh_at, self._stale_at)

    def _renewal(self, *, may_begin: bool) -> _Flight | None:
        """The fetch that is under way, or one that is begun now."""
        began = self._elapsed()
        if self._flight is not None and began < self._lost_at:
            return self._flight
        if not may_begin:
            return None
        try:
            flight = _Flight(anyio.Event(), current_token())
        except RuntimeError:  # asked outside of an event loop: nothing is begun, and it stays due
            return None

        async def renew() -> None:
            ended = "it was given up before an answer came"
            try:
                ended = await self._renew(began)
            finally:
                self._land(flight, ended)

        # Should this fetch never end, because its event loop was thrown away, the next one is due then.
        self._flight = flight
        self._lost_at = self._refresh_at = began + 2 * self._timeout_seconds
        self._allowed_at = began + self._cooldown_seconds
        self._set_alarm()
        spawn(renew)  # with asyncio's eager tasks it may have ended when this returns
        return flight

    async def _renew(self, began: float) -> str:
        """Fetch once; an empty text, or what went wrong."""
        try:
            with anyio.fail_after(self._timeout_seconds):
                body = await self._fetch(self._url)
            if not isinstance(body, bytes):
                raise KeysUnavailable(f"the fetcher gave {type(body).__name__} and not bytes")
            # Most answers are the one before. Reading a large set takes milliseconds, in which nothing else runs.
            if body != self._read[0]:
                self._read = body, read_key_set(body)
            self._take(self._read[1], began)
        except TimeoutError:
            return f"the endpoint does not answer within {self._timeout_seconds:g} seconds"
        except KeysUnavailable as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - of a fetcher of the host's: nobody waits here who could handle it
            return f"the fetcher raised {type(error).__name__}"
        return ""

    def _take(self, fresh: KeySet, began: float) -> None:
        stale_at = began + self._max_stale_seconds  # the set is as old as the question, not as the answer
        if self._ring is not None and stale_at < self._stale_at:
            return  # a fetch that was given up, and a later one has answered
        self._stale_at, self.dropped = stale_at, fresh.dropped
        if fresh.exposed != self.exposed:
            self.exposed = fresh.exposed
            for sentence in fresh.exposed:
                _log.error("toucan_guard keys: %s", sentence)
        if self._ring is None or self._ring.generation != fresh.ring.generation:
            self._ring = fresh.ring
            _log.info("toucan_guard keys: the key set is now %r", fresh.ring)

    def _land(self, flight: _Flight, problem: str) -> None:
        if not problem:
            delay = self._refresh_seconds * (1 - self._jitter() / 5)
        else:
            delay = self._cooldown_seconds * (1 + self._jitter() / 2)
            kept = (
                "no token is accepted" if self._ring is None else "the keys that were fetched before stay for a while"
            )
            # An outage of hours is one line, and not one for each attempt.
            level = logging.DEBUG if problem == self.problem and self._ring is not None else logging.WARNING
            _log.log(level, "toucan_guard keys: %s; %s", problem, kept)
        self.problem = problem or None
        self._refresh_at = self._elapsed() + delay
        if self._flight is flight:
            self._flight = None
        self._set_alarm()
        with suppress(RuntimeError):  # the event loop may be gone
            flight.landed.set()
            after(delay, _Alarm(self).sound)


class _Alarm:
    """Looks whether a fetch is due, as long as somebody still uses the keys."""

    def __init__(self, keys: JwksKeys) -> None:
        self._wake = WeakMethod(keys._wake)  # noqa: SLF001 - the other half of it

    async def sound(self) -> None:
        wake = self._wake()
        if wake is not None:
            wake()


_shared: Final[WeakValueDictionary[tuple[object, ...], JwksKeys]] = WeakValueDictionary()


def shared_jwks(url: str, *, fetch: Fetch | None, max_stale_seconds: float) -> JwksKeys:
    """The keys that all guards of this process share which fetch from one URL: two mounts ask the endpoint once.

    Args:
        url: See ``JwksKeys``.
        fetch: The host's own way to fetch; None is ``HttpFetch``.
        max_stale_seconds: See ``JwksKeys``.
    """
    same = (url, fetch, max_stale_seconds)
    keys = _shared.get(same)
    if keys is None:
        if fetch is None:
            from toucan_guard.tokens.jwks_fetch import HttpFetch

            fetch = HttpFetch(timeout_seconds=TIMEOUT_SECONDS)
        keys = _shared[same] = JwksKeys(url, fetch=fetch, max_stale_seconds=max_stale_seconds)
    return keys
