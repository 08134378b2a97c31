"""What a decision is about: a request for a chart, or a step beside it that shows nothing and is counted apart.

Who opens a frame once would otherwise be counted two or three times: the browser asks beforehand whether it may ask
(a preflight), trades the frame's token for a session and is sent on (a redirect), and asks for the chart. So a step
that was let in is counted apart, since what it leads to is counted by itself. One that was refused, or failed, leads
to nothing: it stands for the chart that was asked for, and counts as a request.

Who was turned away because the store, the keys or the record did not answer was not refused: nobody has decided. Such a
request has failed, as one has that the app could not answer.
"""

from __future__ import annotations

from typing import Any, Final

from toucan_guard.core.audit_event import Event
from toucan_guard.core.decisions import EXPLANATIONS, Reason

UNREADY: Final = frozenset(reason for reason, told in EXPLANATIONS.items() if told.status == 503)
"""What the guard needs did not answer, so that nothing could be decided."""

_FAULTS: Final = frozenset(reason for reason, told in EXPLANATIONS.items() if told.status >= 500)
_REASONS: Final = frozenset(Reason)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})  # 304 shows a chart that the browser has kept


def is_fault(event: Event, reason: str) -> bool:
    """Whether whoever was turned away for this reason did nothing that is not allowed: the fault is on our side.

    A reason of the app's own (``x_…``) says so by its status: 500 and above (RFC 9110 §15.6).
    """
    if reason in _REASONS:
        return reason in _FAULTS
    status = event.get("status")
    return isinstance(status, int) and status >= 500


def is_preflight(event: Event) -> bool:
    """Whether a browser asked beforehand, and the guard itself answered."""
    return event.get("method") == "OPTIONS" and bool(_decided(event, "cors"))


def gives_token(event: Event, line: bytes) -> bool:
    """Whether this is the token service giving a token away to a server with an API key."""
    return b'"api_key"' in line and _decided(event, "api_key") == "allow"


def step_beside(event: Event, line: bytes) -> str | None:
    """As what a decision that let somebody in is counted apart: a name in ``Totals``; None for a request."""
    if event.get("method") == "OPTIONS" and is_preflight(event):
        return "preflights"
    status = event.get("status")
    if isinstance(status, int) and status in _REDIRECTS:
        return "redirects"
    if gives_token(event, line):
        return "issued"
    if b'"token_service"' in line and _decided(event, "token_service") == "allow":
        return "renewed"
    return None


def trials_of(event: Event) -> tuple[str, ...]:
    """For which reasons a request would have been refused, each once; in the order of the layers."""
    steps: Any = event.get("steps")
    reasons: dict[str, None] = {}
    for step in steps if isinstance(steps, list) else ():
        decided = step.get("decision") if isinstance(step, dict) else None
        if isinstance(decided, str) and decided.startswith("would_deny:"):
            reasons[decided.partition(":")[2] or "unknown"] = None
    return tuple(reasons)


def _decided(event: Event, layer: str) -> str | None:
    """What a layer decided, where it was asked."""
    steps: Any = event.get("steps")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict) and step.get("layer") == layer and isinstance(step.get("decision"), str):
            decision: str = step["decision"]
            return decision
    return None
