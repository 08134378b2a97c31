"""What the record says of a connection: its Trail and its scope, read into one ``decision`` event.

When it is written, and what follows where it cannot be, is ``layers/audit_log.py``'s; what the event looks like is
``core/audit_event.py``'s.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from starlette.types import Scope

from toucan_guard.asgi import Step, Trail
from toucan_guard.core.audit_event import AdmittedEvents, Event, decision_event
from toucan_guard.core.decisions import ALLOW, Deny, Reason
from toucan_guard.core.pseudonyms import Pseudonyms
from toucan_guard.ids import new_id
from toucan_guard.proxies import Networks, client_address


def recorded_decision(
    scope: Scope,
    trail: Trail,
    status: int | None,
    *,
    unanswered: bool,
    now: float,
    seconds_to_first_byte: float,
    region: str | None,
    trusted_proxies: Networks,
    dropped: int,
    route: str | None,
    pseudonyms: Pseudonyms | None,
) -> Event:
    """The event of a connection whose answer is about to leave.

    Args:
        scope: The connection.
        trail: What is known about it.
        status: The answer's status; None where there is no answer.
        unanswered: The connection ended before anybody answered.
        now: Seconds since the epoch.
        seconds_to_first_byte: How long the answer took.
        region: The region of this deployment.
        trusted_proxies: Who may say for whom they ask.
        dropped: Events that could not be written since the last one that could.
        route: The template of the route that answers.
        pseudonyms: Hides who somebody is.
    """
    access = trail.access
    tables = {} if access is None else access.receipts
    later, claims = _admitted(trail, status), trail.claims
    if later is not None and claims is not None:
        event: Event = trail.admission.events.event(
            now=now,
            event_id=new_id(),
            request_id=trail.request_id,
            trace_id=_trace_id(),
            more_steps=later,
            method=scope["method"],
            route=route,
            status=status,
            seconds_to_first_byte=seconds_to_first_byte,
            claims=claims,
            tables=tables,
            region=region,
            client=client_address(scope, trusted_proxies),
            dropped=dropped,
        )
    else:
        outcome, reason = _outcome(trail, status, unanswered=unanswered)
        facts = _facts(trail)
        row_filter = None if access is None else access.row_filter
        event = decision_event(
            now=now,
            event_id=new_id(),
            request_id=trail.request_id,
            trace_id=_trace_id(),
            outcome=outcome,
            reason=reason,
            steps=trail.steps,
            kind=scope["type"],
            method=scope.get("method"),
            route=route,
            status=status,
            seconds_to_first_byte=seconds_to_first_byte,
            **_from_where(facts, trail),
            claims=claims,
            rls_attributes=() if row_filter is None else row_filter.attribute_names,
            policy_version=None if row_filter is None else row_filter.policy.version,
            tables=tables,
            region=region,
            client=client_address(scope, trusted_proxies),
            exempt=trail.exempt,
            dropped=dropped,
            key_id=facts.get("key_id"),
        )
    if pseudonyms is not None:
        pseudonyms.hide(event)
    return event


def events_of(scope: Scope, trail: Trail) -> AdmittedEvents:
    """Writes the events of connections that are admitted as this one was: all that was decided is yes."""
    row_filter = None if trail.access is None else trail.access.row_filter
    return _events_of(
        tuple(step.layer for step in trail.steps),
        kind=scope["type"],
        **_from_where(_facts(trail), trail),
        rls_attributes=() if row_filter is None else row_filter.attribute_names,
        policy_version=None if row_filter is None else row_filter.policy.version,
    )


@lru_cache(maxsize=256)
def _events_of(layers: tuple[str, ...], **same: Any) -> AdmittedEvents:
    # The same for every token, and several times as large as what is kept for each.
    return AdmittedEvents(steps=[Step(layer, ALLOW, enforced=True) for layer in layers], **same)


def _facts(trail: Trail) -> dict[str, str]:
    facts: dict[str, str] = {}
    for step in reversed(trail.steps):
        if step.decision.facts:
            facts |= step.decision.facts  # the first layer that establishes a fact has the last word
    return facts


def _from_where(facts: Mapping[str, str], trail: Trail) -> dict[str, str | None]:
    return {
        "origin": facts.get("origin"),
        "embedder": facts.get("embedder") or facts.get("referer_origin"),
        "fetch_site": _one_word(trail.values_of(b"sec-fetch-site")),
        "fetch_dest": _one_word(trail.values_of(b"sec-fetch-dest")),
    }


def _admitted(trail: Trail, status: int | None) -> Sequence[Step] | None:
    """What was decided after an admission, if that and the answer are all that the record adds to it; else None."""
    admission = trail.admission
    if admission is None or trail.refusal is not None or status is None or status >= 500:
        return None
    if (None if trail.access is None else trail.access.row_filter) is not admission.embed.rls:
        return None  # a guard behind this one has another policy
    later = trail.steps[len(admission.steps) :]
    for step in later:
        if step.decision.facts or isinstance(step.decision, Deny):
            return None
    return later


def _outcome(trail: Trail, status: int | None, *, unanswered: bool) -> tuple[str, str | None]:
    if trail.refusal is not None:
        crashed = trail.refusal.reason == Reason.APP_FAILED
        return ("error" if crashed else "deny"), str(trail.refusal.reason)
    if unanswered:
        return "error", "unanswered"
    if status is not None and status >= 500:
        return "error", str(Reason.APP_FAILED)
    for step in trail.steps:
        if isinstance(step.decision, Deny) and not step.enforced:
            return "would_deny", str(step.decision.reason)
    return "allow", None


def _one_word(values: tuple[str, ...]) -> str | None:
    """A Fetch Metadata value, where it is one plain word: what was rejected is not repeated."""
    if len(values) == 1 and len(values[0]) <= 32 and values[0].replace("-", "").isalnum() and values[0].isascii():
        return values[0]
    return None


def _trace_id() -> str | None:
    """The trace that this process has open, if it traces at all."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
