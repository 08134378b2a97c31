"""Metrics of decisions, through the OpenTelemetry API (extra ``[otel]``): counts, and the time to the first byte.

Attributes have few values: outcome, layer, reason, and the kind of connection. Reasons of the host's own (``x_…``)
count by name up to a bound and as ``x_other`` beyond it.
"""

from __future__ import annotations

from typing import Any, Final

from toucan_guard.core.audit_event import Event
from toucan_guard.core.errors import ConfigError

_MOST_OWN_REASONS: Final = 50
_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counts every ``decision`` event that it is shown.

    Raises:
        ConfigError: The OpenTelemetry API is not installed.
    """

    def __init__(self) -> None:
        try:
            from opentelemetry.metrics import get_meter
        except ImportError:
            raise ConfigError(
                "TOUCAN_GUARD_METRICS: the OpenTelemetry API is not installed; pip install 'toucan-guard[otel]'"
            ) from None
        meter = get_meter("toucan_guard")
        self._decisions = meter.create_counter(
            "toucan_guard.decisions", unit="{decision}", description="Connections by outcome, layer and reason."
        )
        self._dropped = meter.create_counter(
            "toucan_guard.audit.dropped", unit="{event}", description="Audit events that could not be written."
        )
        self._first_byte = meter.create_histogram(
            "toucan_guard.first_byte.duration",
            unit="s",
            description="From the connection's start to its decision's record.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._own_reasons: set[str] = set()

    def count(self, event: Event) -> None:
        """Count an event."""
        if event["event"] != "decision":
            return
        attributes: dict[str, Any] = {
            "outcome": event["outcome"],
            "layer": _layer_of(event),
            "reason": self._bounded(event["reason"] or "none"),
            "kind": event["kind"],
        }
        self._decisions.add(1, attributes)
        self._first_byte.record(event["first_byte_ms"] / 1000, attributes)

    def count_dropped(self) -> None:
        """Count an event that could not be written."""
        self._dropped.add(1)

    def _bounded(self, reason: str) -> str:
        if not reason.startswith("x_") or reason in self._own_reasons:
            return reason
        if len(self._own_reasons) >= _MOST_OWN_REASONS:
            return "x_other"
        self._own_reasons.add(reason)
        return reason


def _layer_of(event: Event) -> str:
    """The layer whose decision is the event's reason; ``none`` where all have allowed."""
    reason = event["reason"]
    if reason is None:
        return "none"
    for step in event["steps"]:
        if step["decision"].endswith(f":{reason}"):
            return str(step["layer"])
    return "app"
