"""The audit events: what is written down of every decision, of what changed after it, and of a chain's two ends.

Never in them: tokens, cookies, query strings, values of row-level attributes, raw headers that
were rejected. How an event becomes one line is ``core/audit_line.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeGuard

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Decision, Deny
from toucan_guard.core.grants import Grant

SCHEMA_VERSION: Final = 1
KINDS: Final = frozenset({"decision", "completion", "open", "close"})

Event = dict[str, Any]


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
    steps = tuple(steps)
    return {
        "schema": SCHEMA_VERSION,
        "event": "decision",
        "time": timestamp(now),
        "event_id": event_id,
        "request_id": request_id,
        "trace_id": trace_id,
        "outcome": outcome,
        "reason": reason,
        "detail": None if reason is None else detail_of(steps, reason),
        "steps": rendered_steps([(layer, step_text(decision, enforced)) for layer, decision, enforced in steps]),
        "kind": kind,
        "method": method,
        "route": route,
        "status": status,
        "first_byte_ms": _to_thousandths(seconds_to_first_byte * 1000),
        "origin": origin,
        "embedder": embedder,
        "fetch_site": fetch_site,
        "fetch_dest": fetch_dest,
        "issuer": None if claims is None else claims.issuer,
        "key_id": key_id if claims is None else claims.key_id,
        "token_id": None if claims is None else claims.token_id,
        "subject": None if claims is None else claims.subject,
        "tenant": None if claims is None else claims.tenant,
        "grants": [] if claims is None else list(map(grant_text, claims.grants)),
        "expires_in_seconds": None if claims is None else _to_thousandths(claims.expires_at - now),
        "rls_attributes": list(rls_attributes),
        "policy_version": policy_version,
        "tables": dict(tables),
        "region": region,
        "client": client,
        "exempt": exempt,
        **({"dropped": dropped} if dropped else {}),
    }


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


def is_event(value: object) -> TypeGuard[Event]:
    """Whether a value that was read as JSON says that it is one of these events."""
    if not isinstance(value, dict) or "schema" not in value:
        return False
    kind = value.get("event")
    return isinstance(kind, str) and kind in KINDS


def open_event(*, now: float, version: str | None, process: int, settings: str | None, chain_key: str | None) -> Event:
    """The first line of a chain: a process has begun to record.

    Args:
        now: Seconds since the epoch.
        version: The version of this package.
        process: The number of the process on its machine.
        settings: A digest of the configuration, without its secrets: it differs where the configuration does.
        chain_key: The name of the key that the chain was made with (``core/audit_chain.py``), or None for none.
    """
    return {
        "schema": SCHEMA_VERSION,
        "event": "open",
        "time": timestamp(now),
        "version": version,
        "process": process,
        "settings": settings,
        "chain_key": chain_key,
    }


def close_event(*, now: float, dropped: int) -> Event:
    """The last line of a chain: its process has stopped recording in good order.

    Args:
        now: Seconds since the epoch.
        dropped: See ``decision_event``.
    """
    event: Event = {"schema": SCHEMA_VERSION, "event": "close", "time": timestamp(now)}
    if dropped:
        event["dropped"] = dropped
    return event


def grant_text(grant: Grant) -> str:
    """A grant on one line: ``dashboard:delays:view,export``."""
    return f"{grant.type}:{grant.id}:{','.join(grant.actions)}"


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    milliseconds = int(seconds * 1000)
    return f"{to_the_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


def _to_thousandths(number: float) -> float:
    return int(number * 1000) / 1000  # a fifth of what round() takes


@lru_cache(maxsize=2)
def to_the_second(seconds: int) -> str:
    """``timestamp`` without its fraction: the same for all requests of a second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def step_text(decision: Decision, enforced: bool) -> str:  # noqa: FBT001 - as it stands in a step
    """A layer's decision: ``allow``, ``deny:reason``, or ``would_deny:reason`` where it only reports."""
    if not isinstance(decision, Deny):
        return "allow"
    return f"{'deny' if enforced else 'would_deny'}:{decision.reason}"


def rendered_steps(steps: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """What each layer decided: its name, and ``step_text``."""
    return [{"layer": layer, "decision": text} for layer, text in steps]


def detail_of(steps: Iterable[tuple[str, Decision, bool]], reason: str) -> str | None:
    """The sentence that belongs to the reason: a report-only refusal on the way has another one."""
    for _, decision, _ in steps:
        if isinstance(decision, Deny) and decision.reason == reason and (told := _told(decision)):
            return told
    return None


def _told(denial: Deny) -> str:
    """What the record says of a refusal: the cause, where the client was told less."""
    return denial.facts.get("cause", denial.detail)
