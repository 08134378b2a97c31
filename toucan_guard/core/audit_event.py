"""The audit event: what is written down of every decision, and how it becomes one line.

Never in it: tokens, cookies, query strings, values of row-level attributes, raw headers that
were rejected. Every string is capped and marked, so that a line stays under 4,096 bytes:
longer writes of several processes into one pipe would interleave (POSIX PIPE_BUF).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from toucan_guard.core.decisions import Decision, Deny
from toucan_guard.core.grants import Grant
from toucan_guard.core.token import VerifiedClaims

SCHEMA_VERSION: Final = 1
MAX_LINE_BYTES: Final = 4096

Event = dict[str, Any]

_MARK: Final = "…"
_encode: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
# Tried in turn until the line fits: characters of a string, entries of a list.
_CAPS: Final = ((256, 32), (96, 12), (32, 4))
# Short by construction; cut, they would no longer find each other.
_IDS: Final = frozenset({"event_id", "request_id", "decision_id"})
# What stays of an event that no cap could make fit.
_ESSENTIAL: Final = _IDS | frozenset(
    {"schema", "event", "time", "outcome", "reason", "status", "method", "subject", "tenant", "dropped"}
)
_LARGEST: Final = 2**63  # more than any number that is recorded, and than readers of JSON take


def decision_event(
    *,
    now: float,
    event_id: str,
    request_id: str,
    trace_id: str | None,
    outcome: str,
    reason: str | None,
    steps: Iterable[tuple[str, Decision, bool]],
    kind: str,
    method: str | None,
    route: str | None,
    status: int | None,
    seconds_to_first_byte: float,
    origin: str | None,
    embedder: str | None,
    fetch_site: str | None,
    fetch_dest: str | None,
    claims: VerifiedClaims | None,
    rls_attributes: Sequence[str],
    policy_version: str | None,
    tables: Mapping[str, str],
    region: str | None,
    client: str | None,
    exempt: bool,
    dropped: int,
    key_id: str | None = None,
) -> Event:
    """The ``decision`` event of one connection. Absent values are null, never left out.

    Args:
        now: Seconds since the epoch.
        outcome: ``allow``, ``deny``, ``would_deny`` or ``error``.
        steps: Each layer's name, its decision, and whether it was enforced.
        kind: ``http`` or ``websocket``.
        route: The route's template, never the path that was asked for.
        seconds_to_first_byte: From the connection's start to this event.
        tables: Tables that were filtered, and by which rule.
        dropped: Events that could not be written since the last one that could.
        key_id: The API key that was named, where there are no claims.
    """
    steps = list(steps)
    denials = [decision for _, decision, _ in steps if isinstance(decision, Deny)]
    event: Event = {
        "schema": SCHEMA_VERSION,
        "event": "decision",
        "time": timestamp(now),
        "event_id": event_id,
        "request_id": request_id,
        "trace_id": trace_id,
        "outcome": outcome,
        "reason": reason,
        # The sentence that belongs to the reason: a report-only refusal on the way has another one.
        "detail": next((told for denial in denials if denial.reason == reason and (told := _told(denial))), None),
        "steps": [
            {"layer": layer, "decision": _name_of(decision, enforced=enforced)} for layer, decision, enforced in steps
        ],
        "kind": kind,
        "method": method,
        "route": route,
        "status": status,
        "first_byte_ms": round(seconds_to_first_byte * 1000, 3),
        "origin": origin,
        "embedder": embedder,
        "fetch_site": fetch_site,
        "fetch_dest": fetch_dest,
        "issuer": None,
        "key_id": key_id,
        "token_id": None,
        "subject": None,
        "tenant": None,
        "grants": [],
        "expires_in_seconds": None,
        "rls_attributes": list(rls_attributes),
        "policy_version": policy_version,
        "tables": dict(tables),
        "region": region,
        "client": client,
        "exempt": exempt,
    }
    if claims is not None:
        event.update(
            issuer=claims.issuer,
            key_id=claims.key_id,
            token_id=claims.token_id,
            subject=claims.subject,
            tenant=claims.tenant,
            grants=[grant_text(grant) for grant in claims.grants],
            expires_in_seconds=round(claims.expires_at - now, 3),
        )
    if dropped:
        event["dropped"] = dropped
    return event


def completion_event(
    *,
    now: float,
    request_id: str,
    event_id: str,
    decision_id: str,
    outcome: str,
    reason: str | None,
    tables: Mapping[str, str],
    dropped: int,
) -> Event:
    """What changed after the ``decision`` event of ``decision_id`` was written.

    Args:
        outcome: ``error`` for an answer that broke off, ``deny`` for a socket that was closed or a stream that was cut,
            ``would_deny`` where a switch kept it open, ``allow`` for the rest.
        reason: Why it was closed or cut; None otherwise.
        tables: All tables that were filtered, and by which rule.
        dropped: See ``decision_event``.
    """
    event: Event = {
        "schema": SCHEMA_VERSION,
        "event": "completion",
        "time": timestamp(now),
        "event_id": event_id,
        "request_id": request_id,
        "decision_id": decision_id,
        "outcome": outcome,
        "reason": reason,
        "tables": dict(tables),
    }
    if dropped:
        event["dropped"] = dropped
    return event


def grant_text(grant: Grant) -> str:
    """A grant on one line: ``dashboard:delays:view,export``."""
    return f"{grant.type}:{grant.id}:{','.join(grant.actions)}"


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode_line(event: Mapping[str, Any]) -> bytes:
    """The event as one JSON line of ASCII bytes, its newline included, at most 4,096 bytes.

    Control characters, lone surrogates and everything outside ASCII are escaped; NaN and infinities become null.
    """
    if all(map(_is_short, event.values())):
        line = _dump(event)
        if len(line) <= MAX_LINE_BYTES:
            return line
    for characters, entries in _CAPS:
        line = _dump(_capped_event(event, characters, entries))
        if len(line) <= MAX_LINE_BYTES:
            return line
    essential = {name: value for name, value in event.items() if name in _ESSENTIAL}
    return _dump({**_capped_event(essential, *_CAPS[-1]), "truncated": True})


def _told(denial: Deny) -> str:
    """What the record says of a refusal: the cause, where the client was told less."""
    return denial.facts.get("cause", denial.detail)


def _name_of(decision: Decision, *, enforced: bool) -> str:
    if not isinstance(decision, Deny):
        return "allow"
    return f"{'deny' if enforced else 'would_deny'}:{decision.reason}"


def _dump(event: Mapping[str, Any]) -> bytes:
    return _encode(event).encode("ascii") + b"\n"


def _is_short(value: object) -> bool:
    """Whether nothing in a value needs a cap, which is so for nearly every event."""
    characters, entries = _CAPS[0]
    match value:
        case str():
            return len(value) <= characters
        case None | bool():
            return True
        case int():
            return -_LARGEST <= value < _LARGEST
        case float():
            return math.isfinite(value)
        case list():
            return len(value) <= entries and all(map(_is_short, value))
        case dict():
            return len(value) <= entries and all(map(_is_short, (*value, *value.values())))
    return False


def _capped_event(event: Mapping[str, Any], characters: int, entries: int) -> Event:
    return {name: value if name in _IDS else _capped(value, characters, entries) for name, value in event.items()}


def _capped(value: Any, characters: int, entries: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= characters else value[:characters] + _MARK
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        kept = {
            _capped(str(name), characters, entries): _capped(item, characters, entries)
            for name, item in list(value.items())[:entries]
        }
        return kept if len(value) <= entries else {**kept, _MARK: len(value) - entries}
    if isinstance(value, list | tuple):
        kept_items = [_capped(item, characters, entries) for item in value[:entries]]
        return kept_items if len(value) <= entries else [*kept_items, f"{_MARK} {len(value) - entries} more"]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -_LARGEST <= value < _LARGEST else None
    if value is None or isinstance(value, bool):
        return value
    return _capped(str(value), characters, entries)
