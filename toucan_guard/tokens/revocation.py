"""Revocation: what ends a token or a session before its time, and how the store says it.

An entry of the store is one text that says everything about a revocation and is never changed, so two workers cannot
overwrite each other. An entry that this release cannot read is no reason to ignore it. How workers learn of them is
``revoked.py``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from toucan_guard.core.errors import StoreUnavailable
from toucan_guard.tokens.store import Store

SCHEMA: Final = 1
MAX_REVOCATIONS: Final = 5_000

_MAX_TIME: Final = 2**53
_MAX_VALUE_LENGTH: Final = 8192
# Clocks that are further apart than this refuse each other's tokens, so no worker still counts an entry that ended
# this long ago.
_KEPT_SECONDS: Final = 300


class RevocationKind(StrEnum):
    """What a revocation names."""

    TOKEN = "token"  # noqa: S105 - the kind, not a secret
    SUBJECT = "subject"
    TENANT = "tenant"
    KEY = "key"
    ISSUED_BEFORE = "issued_before"


@dataclass(frozen=True, slots=True)
class Revocation:
    """One revocation. Sessions end with the token, subject, tenant or key that they were opened by.

    Attributes:
        kind: What ``value`` names.
        value: A ``jti``, ``sub``, tenant or ``kid``, compared exactly; for ``issued_before`` the seconds since the
            epoch before which a token must not be issued (``iat``), in decimal digits.
        until: Seconds since the epoch after which the revocation is dropped. What it names is accepted again from then
            on, if it still lives: see ``end_of_life``.

    Raises:
        ValueError: A part is not of the right shape.
    """

    kind: RevocationKind
    value: str
    until: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", RevocationKind(self.kind))
        value: object = self.value
        if not isinstance(value, str) or not value or len(value) > _MAX_VALUE_LENGTH:
            raise ValueError(f"a revocation names something, in at most {_MAX_VALUE_LENGTH} characters")
        value.encode("utf-8")  # a lone surrogate, which no token can hold either, could not be written to the store
        if not _is_time(self.until):
            raise ValueError("the end of a revocation is a number of seconds since the epoch")
        if self.kind is RevocationKind.ISSUED_BEFORE and not (value.isascii() and value.isdigit() and len(value) <= 15):
            raise ValueError("the time before which tokens are revoked is a whole number of seconds since the epoch")

    def to_entry(self) -> str:
        """The revocation as an entry of the store: schema, kind, end and value, which may hold colons itself."""
        return f"{SCHEMA}:{self.kind.value}:{self.until!r}:{self.value}"

    @classmethod
    def from_entry(cls, entry: str) -> Revocation | None:
        """Read an entry of the store; None where it is not exactly what ``to_entry`` of this version writes."""
        schema, _, rest = entry.partition(":")
        kind, _, rest = rest.partition(":")
        until, _, value = rest.partition(":")
        try:
            revocation = cls(RevocationKind(kind), value, float(until) if "." in until or "e" in until else int(until))
        except ValueError:
            return None
        return revocation if schema == str(SCHEMA) and revocation.to_entry() == entry else None


def end_of_life(now: float, *, lifetime_seconds: float, leeway_seconds: float, staleness_seconds: float = 0) -> float:
    """When everything that was issued up to now has ended, sessions included: the right ``until`` for a revocation.

    A worker that has not heard of it yet may refresh a token meanwhile, so the time that it may take counts too.
    """
    return now + lifetime_seconds + 2 * leeway_seconds + 1 + staleness_seconds


async def revoke(
    store: Store, issuer: str, revocation: Revocation, *, now: float, max_revocations: int = MAX_REVOCATIONS
) -> None:
    """Add a revocation, and remove those that ended a while ago.

    Every worker reads the whole set again and again, so it is bounded. Whoever revokes more than that by ``jti`` means
    a subject, a tenant, a key or a time.

    Raises:
        ValueError: The revocation has ended already, or too many are in force.
        StoreUnavailable: The store does not answer; whether it has the revocation is not known.
    """
    if not revocation.until > now:
        raise ValueError("the revocation would end before it begins")
    answer = await store.revoked(issuer)
    if answer is None:
        raise StoreUnavailable("the store compares with a version that was not given")
    entries = answer[1]
    ended = [entry for entry in entries if _ended_long_ago(entry, now)]
    if len(entries) - len(ended) >= max_revocations and revocation.to_entry() not in entries:
        raise ValueError(
            f"{max_revocations} revocations are in force already; revoke a subject, a tenant, a key, or whatever was "
            "issued before a time"
        )
    await store.revoke(issuer, revocation.to_entry())
    await store.forget(issuer, ended)


def _ended_long_ago(entry: str, now: float) -> bool:
    revocation = Revocation.from_entry(entry)
    return revocation is not None and revocation.until < now - _KEPT_SECONDS


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MAX_TIME <= value <= _MAX_TIME
