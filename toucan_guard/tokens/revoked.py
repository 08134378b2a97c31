"""What is revoked: every worker knows it within a declared time.

The store holds one set of revocations per issuer. Each worker judges by a copy of it, so that a request costs a few
dictionary look-ups and no round trip. The copy is read again when half of the declared time has passed, by work that a
request begins and does not wait for; only where the copy is older than the declared time, after an idle night or while
the store is down, a request waits for it, a quarter second at most, and is refused with 503 where it does not come.
A worker that serves nobody asks the store nothing. This is the same on asyncio and trio, and needs no task that
somebody has to start and stop.

Adding a revocation (``revocation.py``) changes the version of the whole in the same step, so a worker reads nothing
where nothing has changed. Where an entry is one that this release cannot read, the copy is not renewed.

A store that has lost its memory does not make a worker forget: what it knows to be in force counts on, is put back into
the store, and the log says so. A worker that begins after the loss learns of it when another one has put it back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import anyio
from anyio.lowlevel import current_token

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError, StoreUnavailable
from toucan_guard.tokens.background import spawn
from toucan_guard.tokens.history import goes_on
from toucan_guard.tokens.revocation import Revocation, RevocationKind
from toucan_guard.tokens.store import Store

_log: Final = logging.getLogger("toucan_guard")
WAIT_SECONDS: Final = 0.25

_RETRY_SECONDS: Final = 0.25
_SLICES: Final = 5
_WAITED_FOR: Final = 0.9  # of the staleness: a little early, so that a copy cannot come of age before it is judged by
_HANGS_SECONDS: Final = 1.0  # the stores that are shipped give up earlier by themselves
_LOST_SECONDS: Final = 5.0

_REVOKED: Final = Deny(Reason.TOKEN_REVOKED, "the token, its subject, its tenant or its key was revoked")
_STALE: Final = Deny(Reason.STORE_UNAVAILABLE, "the list of revocations is older than the declared time")


@dataclass(frozen=True, slots=True)
class _Copy:
    """The revocations of one moment, arranged for looking up: value to end."""

    read_at: float
    read_at_monotonic: float
    version: str
    known: Mapping[str, Revocation] = field(default_factory=dict)
    tokens: Mapping[str, float] = field(default_factory=dict)
    subjects: Mapping[str, float] = field(default_factory=dict)
    tenants: Mapping[str, float] = field(default_factory=dict)
    keys: Mapping[str, float] = field(default_factory=dict)
    issued_before: tuple[tuple[float, float], ...] = ()


class Revocations:
    """A worker's copy of the revocations of one issuer. One per event loop, like the token cache.

    Args:
        store: Where the revocations are.
        issuer: Whose tokens they end.
        staleness_seconds: How late this worker may learn of a revocation.
        clock: Seconds since the epoch.
        monotonic: Seconds that no one sets back.

    Raises:
        ConfigError: The time is not positive.
    """

    def __init__(
        self,
        store: Store,
        *,
        issuer: str,
        staleness_seconds: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not staleness_seconds > 0:
            raise ConfigError("TOUCAN_GUARD_REVOCATION_STALENESS_SECONDS must be above 0")
        self._store = store
        self._issuer = issuer
        self._staleness_seconds: Final = staleness_seconds
        self._renewed_after: Final = staleness_seconds / 2
        self._clock = clock
        self._monotonic = monotonic
        self._copy: _Copy | None = None
        self._missed = False  # the store has forgotten something, and it is not back
        self._flight: tuple[anyio.Event, float, object] | None = None
        self._failed_at: float | None = None

    @property
    def staleness_seconds(self) -> float:
        """How late this worker may learn of a revocation."""
        return self._staleness_seconds

    async def refresh(self) -> None:
        """Read the revocations now.

        Raises:
            StoreUnavailable: The store does not answer, or holds what this version cannot read.
        """
        # The copy is as old as the question, not as the answer.
        read_at, read_at_monotonic = self._clock(), self._monotonic()
        before, fresh = self._copy, None
        forgotten: tuple[str, ...] = ()
        with anyio.move_on_after(_HANGS_SECONDS):
            answer = await self._store.revoked(self._issuer, since="" if before is None else before.version)
            if answer is not None:
                version, entries = answer
                forgotten = () if before is None else _forgotten(before, version, entries, read_at)
                if before is not None and forgotten:
                    # The old version, so that the next reading is a full one and finds what is still missing.
                    version, entries = before.version, (*entries, *forgotten)
                fresh = _arranged(version, entries, {} if before is None else before.known, read_at, read_at_monotonic)
            elif before is not None:
                fresh = replace(before, read_at=read_at, read_at_monotonic=read_at_monotonic)
        if fresh is None:
            raise StoreUnavailable(f"the store does not answer within {_HANGS_SECONDS} seconds")
        if self._copy is None or self._copy.read_at_monotonic <= read_at_monotonic:
            self._copy = fresh
        await self._put_back(forgotten)

    async def _put_back(self, forgotten: tuple[str, ...]) -> None:
        if not forgotten:
            self._missed = False
            return
        if not self._missed:
            self._missed = True
            _log.error(
                "toucan_guard store: it has lost its memory, and with it %d revocations that are in force; this worker "
                "still knows them and puts them back; spent bootstrap tokens of the last minute can be used again",
                len(forgotten),
            )
        # What does not come back now is missed at the next reading, and counts in this worker until then.
        with suppress(StoreUnavailable), anyio.move_on_after(_HANGS_SECONDS):
            await self._store.revoke(self._issuer, *forgotten)

    async def keep_fresh(self) -> None:
        """Called before ``judge`` by every request, and now and then by a connection that stays open.

        Returns at once while the copy is younger than the declared time, and begins to renew it where half of that has
        passed. Waits for an older copy to be renewed, a quarter second at most. Never raises; ``judge`` refuses.
        """
        age = self._age(self._clock())
        if age < self._renewed_after:
            return
        flight = self._renewal()
        if flight is None or age <= self._staleness_seconds * _WAITED_FOR:
            return
        # In slices: what an event loop that is busy with others does not get to is not the store's fault.
        for _ in range(_SLICES):
            with anyio.move_on_after(WAIT_SECONDS / _SLICES):
                await flight.wait()
                return

    def clears(self, claims: VerifiedClaims, now: float) -> bool:
        """Whether the copy says, without waiting for a newer one, that nothing was revoked.

        False says nothing: then ``keep_fresh`` and ``judge`` are asked. Begins to renew the copy.
        Never waits and never raises.
        """
        copy = self._copy
        if copy is None:
            return False
        # As ``_age`` says it: this is asked for every request.
        if (
            now - copy.read_at >= self._renewed_after
            or self._monotonic() - copy.read_at_monotonic >= self._renewed_after
        ):
            if self._age(now) > self._staleness_seconds * _WAITED_FOR:
                return False
            self._renewal()
        return not copy.known or self.judge(claims, now) is None

    def judge(self, claims: VerifiedClaims, now: float) -> Deny | None:
        """Whether the token or session behind these claims was revoked.

        Args:
            claims: Verified claims, of this issuer.
            now: Seconds since the epoch.

        Returns:
            None where it was not; ``Deny(TOKEN_REVOKED)``; or ``Deny(STORE_UNAVAILABLE)`` where the copy is too old to
            tell.

        Never raises.
        """
        copy = self._copy
        if copy is None or self._age(now) > self._staleness_seconds:
            return _STALE
        if (
            copy.tokens.get(claims.token_id, now) > now
            or copy.subjects.get(claims.subject, now) > now
            # No revocation names an empty text, so what a token does not name is never found.
            or copy.tenants.get(claims.tenant or "", now) > now
            or copy.keys.get(claims.key_id or "", now) > now
        ):
            return _REVOKED
        for before, until in copy.issued_before:
            # Written so that a time which is not a number counts as revoked. A refreshed token is as old as the first.
            first = claims.issued_at if claims.first_issued_at is None else claims.first_issued_at
            if until > now and not (claims.issued_at >= before and first >= before):
                return _REVOKED
        return None

    def _age(self, now: float) -> float:
        """How old the copy is, by the clock that says older: one can be set back, the other may sleep."""
        if self._copy is None:
            return float("inf")
        return max(now - self._copy.read_at, self._monotonic() - self._copy.read_at_monotonic)

    def _renewal(self) -> anyio.Event | None:
        """The renewal that is under way; one is begun where there is none, unless the last one failed just now."""
        now = self._monotonic()
        loop = current_token()
        # An event loop that was thrown away may have taken a renewal with it; nobody can wait for another loop's.
        if self._flight is not None and self._flight[2] == loop and now - self._flight[1] < _LOST_SECONDS:
            return self._flight[0]
        if self._failed_at is not None and now - self._failed_at < min(_RETRY_SECONDS, self._staleness_seconds / 4):
            return None
        landed = anyio.Event()
        self._flight = (landed, now, loop)

        async def renew() -> None:
            failed_at: float | None = None
            try:
                await self.refresh()
            except Exception:  # noqa: BLE001 - of a custom store too: nobody waits here who could handle it
                failed_at = self._monotonic()
            finally:
                self._failed_at = failed_at
                if self._flight is not None and self._flight[0] is landed:
                    self._flight = None
                with suppress(RuntimeError):  # the event loop may be gone
                    landed.set()

        spawn(renew)
        return landed


def _arranged(
    version: str, entries: Iterable[str], known: Mapping[str, Revocation], read_at: float, read_at_monotonic: float
) -> _Copy:
    """Arrange entries for looking up. Those that an earlier copy knew are not read again."""
    read: dict[str, Revocation] = {}
    by_kind: dict[RevocationKind, dict[str, float]] = {kind: {} for kind in RevocationKind}
    for entry in entries:
        revocation = known.get(entry) or Revocation.from_entry(entry)
        if revocation is None:
            raise StoreUnavailable("the store holds a revocation that this version cannot read")
        read[entry] = revocation
        ends = by_kind[revocation.kind]
        ends[revocation.value] = max(revocation.until, ends.get(revocation.value, revocation.until))
    return _Copy(
        read_at,
        read_at_monotonic,
        version,
        known=read,
        tokens=by_kind[RevocationKind.TOKEN],
        subjects=by_kind[RevocationKind.SUBJECT],
        tenants=by_kind[RevocationKind.TENANT],
        keys=by_kind[RevocationKind.KEY],
        issued_before=_frontier(by_kind[RevocationKind.ISSUED_BEFORE]),
    )


def _forgotten(before: _Copy, version: str, entries: Iterable[str], now: float) -> tuple[str, ...]:
    """What is in force and no longer in the store, although nobody has taken it back."""
    if goes_on(before.version, version):
        return ()
    held = frozenset(entries)
    return tuple(entry for entry, known in before.known.items() if entry not in held and known.until > now)


def _frontier(ends: Mapping[str, float]) -> tuple[tuple[float, float], ...]:
    """The cut-offs that no other one covers: one that reaches further and lasts as long makes the rest superfluous."""
    kept: list[tuple[float, float]] = []
    for before, until in sorted(((float(value), until) for value, until in ends.items()), reverse=True):
        if not kept or until > kept[-1][1]:
            kept.append((before, until))
    return tuple(kept)
