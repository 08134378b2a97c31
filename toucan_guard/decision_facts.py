"""What the record says of a connection, read from its Trail and its scope.

``recorder.py`` writes it; what it looks like is ``core/audit_event.py``'s and ``core/decision_line.py``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from starlette.types import Scope

from toucan_guard.core.audit_event import detail_of, step_text
from toucan_guard.core.decision_line import DecisionLine
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.rls.context import RowAccess
from toucan_guard.trail import Trail

_LONGEST_WORD: Final = 32
_LONGEST_DETAIL: Final = 256
# RFC 9110 §9, and a socket's; and Fetch Metadata, as far as browsers send it to us.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", None})
_WORDS: Final = frozenset(
    {
        "same-origin", "same-site", "cross-site", "none", "document", "embed", "empty", "fencedframe", "font", "frame",
        "iframe", "image", "json", "manifest", "object", "report", "script", "style", "track", "video", "audio",
        "worker", None,
    }
)  # fmt: skip
_SAME: Final = (
    "outcome", "reason", "detail", "steps", "kind", "method", "origin", "embedder", "fetch_site", "fetch_dest",
    "rls_attributes", "policy_version", "exempt",
)  # fmt: skip


def line_of(
    scope: Scope, trail: Trail, facts: Mapping[str, str], status: int | None, *, unanswered: bool = False
) -> DecisionLine | None:
    """Writes the lines of connections that were decided as this one was; None where it says much of its own."""
    outcome, reason = outcome_of(trail, status, unanswered=unanswered)
    detail = None if reason is None else detail_of(trail.steps, reason)
    method = scope.get("method")
    came_from = origins_of(facts, trail)
    # What a client makes up is said once, and would push out what many say.
    if len(detail or "") > _LONGEST_DETAIL or method not in _METHODS or not _WORDS.issuperset(came_from[2:]):
        return None
    steps = tuple([(layer, step_text(decision, enforced)) for layer, decision, enforced in trail.steps])
    rules = rules_of(trail.access)
    return _line_of((outcome, reason, detail, steps, scope["type"], method, *came_from, *rules, trail.exempt))


@lru_cache(maxsize=256)
def _line_of(same: tuple[Any, ...]) -> DecisionLine:
    return DecisionLine(**dict(zip(_SAME, same, strict=True)))


def as_admitted(trail: Trail, status: int | None) -> tuple[DecisionLine, tuple[tuple[str, str], ...]] | None:
    """The line that was kept with an admission and what was decided behind it, where the outcome is the same."""
    admission, access = trail.admission, trail.access
    if admission is None or trail.refusal is not None or status is None or status >= 500:
        return None
    if (None if access is None else access.row_filter) is not admission.embed.rls:
        return None  # a guard behind this one has another policy
    if trail.steps is admission.found.steps:
        return admission.found.line, ()
    later = trail.steps[len(admission.found.steps) :]
    if any(step.decision.facts or isinstance(step.decision, Deny) for step in later):
        return None
    return admission.found.line, tuple([(step.layer, "allow") for step in later])


def rules_of(access: RowAccess | None) -> tuple[tuple[str, ...], str | None]:
    """The row-level attributes that were looked at, and the version of the policy."""
    if access is None:
        return (), None
    return access.row_filter.attribute_names, access.row_filter.policy.version


def facts_of(trail: Trail) -> dict[str, str]:
    """What the layers have established on the way, by name."""
    facts: dict[str, str] = {}
    for step in reversed(trail.steps):
        if step.decision.facts:
            facts |= step.decision.facts  # the first layer that establishes a fact has the last word
    return facts


def origins_of(facts: Mapping[str, str], trail: Trail) -> tuple[str | None, str | None, str | None, str | None]:
    """Origin, embedder, and the browser's words for both."""
    return (
        facts.get("origin"),
        facts.get("embedder") or facts.get("referer_origin"),
        _fetch_metadata(trail, b"sec-fetch-site"),
        _fetch_metadata(trail, b"sec-fetch-dest"),
    )


def outcome_of(trail: Trail, status: int | None, *, unanswered: bool) -> tuple[str, str | None]:
    """What became of it, and why."""
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


def _fetch_metadata(trail: Trail, name: bytes) -> str | None:
    """A Fetch Metadata value, where it is one plain word: what was rejected is not repeated."""
    value = trail.raw.get(name)
    if value is None or len(value) > _LONGEST_WORD or (trail.said is None and len(trail.values_of(name)) != 1):
        return None
    return _plain_word(value)


@lru_cache(maxsize=64)
def _plain_word(value: bytes) -> str | None:
    word = value.decode("latin-1")
    return word if word.isascii() and word.replace("-", "").isalnum() else None
