"""What a decision is about: a request for a chart, or a step beside it that shows nothing and is counted apart.

Who opens a frame once would otherwise be counted two or three times: the browser asks beforehand whether it may ask
(a preflight), trades the frame's token for a session and is sent on (a redirect), and asks for the chart. So a step
that was let in is counted apart, since what it leads to is counted by itself. One that was refused, or failed, leads
to nothing: it stands for the chart that was asked for, and counts as a request.

Who was turned away because the store, the keys or the record did not answer was not refused: nobody has decided. Such a
request has failed, as one has that the app could not answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from toucan_guard.core.audit_event import Event
from toucan_guard.core.decisions import EXPLANATIONS, Reason

UNREADY: Final = frozenset(reason for reason, told in EXPLANATIONS.items() if told.status == 503)
"""What the guard needs did not answer, so that nothing could be decided."""

_FAULTS: Final = frozenset(reason for reason, told in EXPLANATIONS.items() if told.status >= 500)
_REASONS: Final = frozenset(Reason)
_BESIDE: Final = frozenset({"api_key", "cors", "token_service"})  # who answers without a chart
_TRIAL: Final = "would_deny:"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})  # 304 shows a chart that the browser has kept


class Steps(NamedTuple):
    """What the layers decided, as far as it matters what a decision is about.

    Attributes:
        trials: For which reasons a request would have been refused, each once; in the order of the layers.
        decided: What was decided by the layers that answer without a chart; where one did twice, the first time.
    """

    trials: tuple[str, ...]
    decided: Mapping[str, str]


_USUAL: Final = Steps((), {})


def is_fault(event: Event, reason: str) -> bool:
    """Whether whoever was turned away for this reason did nothing that is not allowed: the fault is on our side.

    A reason of the app's own (``x_…``) says so by its status: 500 and above (RFC 9110 §15.6).
    """
    if reason in _REASONS:
        return reason in _FAULTS
    status = event.get("status")
    return isinstance(status, int) and status >= 500


def is_preflight(event: Event, steps: Steps) -> bool:
    """Whether a browser asked beforehand, and the guard itself answered."""
    return event.get("method") == "OPTIONS" and bool(steps.decided.get("cors"))


def gives_token(steps: Steps) -> bool:
    """Whether this is the token service giving a token away to a server with an API key."""
    return steps.decided.get("api_key") == "allow"


def step_beside(event: Event, steps: Steps) -> str | None:
    """As what a decision that let somebody in is counted apart: a name in ``Totals``; None for a request."""
    if steps.decided and is_preflight(event, steps):
        return "preflights"
    status = event.get("status")
    if isinstance(status, int) and status in _REDIRECTS:
        return "redirects"
    if not steps.decided:
        return None
    if gives_token(steps):
        return "issued"
    return "renewed" if steps.decided.get("token_service") == "allow" else None


def steps_of(event: Event) -> Steps:
    """Read what the layers decided."""
    steps: Any = event.get("steps")
    trials: dict[str, None] = {}
    decided: dict[str, str] = {}
    for step in steps if isinstance(steps, list) else ():
        if not isinstance(step, dict):
            continue
        layer, decision = step.get("layer"), step.get("decision")
        if decision != "allow" and isinstance(decision, str) and decision.startswith(_TRIAL):
            trials[decision.removeprefix(_TRIAL) or "unknown"] = None
        if isinstance(layer, str) and layer in _BESIDE and isinstance(decision, str):
            decided.setdefault(layer, decision)
    return Steps(tuple(trials), decided) if trials or decided else _USUAL
