"""The audit layer as the configuration asks for it: for the guard, and for whatever stands beside it."""

from __future__ import annotations

from typing import Any

from toucan_guard.audit.metrics import Metrics
from toucan_guard.audit.open import open_sink
from toucan_guard.settings import GuardSettings
from toucan_guard.settings_audit import settings_digest


def audit_options(settings: GuardSettings) -> dict[str, Any]:
    """What ``AuditLogMiddleware`` is given. Whoever asks closes the ``sink`` at the end, where it is not None."""
    sink = None
    if not settings.insecure_no_audit:
        sink = open_sink(
            settings.audit,
            mode=settings.audit_mode,
            queue_size=settings.audit_queue_size,
            chain_key=settings.chain_key,
            settings=settings_digest(settings),
        )
    return {
        "sink": sink,
        "mode": settings.audit_mode,
        "region": settings.region,
        "trusted_proxies": settings.trusted_proxies,
        "pseudonyms": settings.pseudonyms,
        "metrics": Metrics() if settings.metrics else None,
    }
