"""Writes what the record says of a connection, as one event or as its line.

What that is, is ``decision_facts.py``'s, and what it looks like ``core/audit_event.py``'s. When it is written, and what
follows where it cannot be, is ``audited.py``'s.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from starlette.types import ASGIApp, Scope

from toucan_guard.audit.forks import tell_of_forks
from toucan_guard.audit.metrics import Metrics
from toucan_guard.audit.sinks import Sink, observers
from toucan_guard.core.audit_event import Event, decision_event
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decision_line import DecisionLine, identity_text, nobody_text
from toucan_guard.core.errors import AuditWriteError
from toucan_guard.core.pseudonyms import Pseudonyms
from toucan_guard.decision_facts import as_admitted, facts_of, line_of, origins_of, outcome_of, rules_of
from toucan_guard.proxies import Networks, client_address
from toucan_guard.templates import RouteTemplates
from toucan_guard.trail import Trail

_log: Final = logging.getLogger("toucan_guard")
_NO_TABLES: Final[Mapping[str, str]] = {}


class Recorder:
    """Writes the events of connections.

    Events that could not be written are counted, and the next one that can says how many.

    Args:
        sink: Where events go; None records nothing.
        mode: ``strict`` raises where an event cannot be written; ``best_effort`` counts it as dropped.
        region: The region of this deployment.
        trusted_proxies: Whose X-Request-ID and X-Forwarded-For are taken over.
        pseudonyms: Hides who somebody is, in every event.
        metrics: Counts every event.
        routes_of: The app whose route templates are recorded, where the scope does not name one.
        clock: Seconds since the epoch.

    Attributes:
        records: Whether there is a sink.
        dropped: Events that could not be written since the last one that could.
    """

    def __init__(
        self,
        *,
        sink: Sink | None,
        mode: Literal["strict", "best_effort"] = "strict",
        region: str | None = None,
        trusted_proxies: Networks = (),
        pseudonyms: Pseudonyms | None = None,
        metrics: Metrics | None = None,
        routes_of: ASGIApp,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.records = sink is not None
        self._sink = sink
        self._strict = mode == "strict"
        self._region = region
        self.clock = clock
        self.dropped = 0
        self.trusted_proxies = tuple(trusted_proxies)
        self._pseudonyms = pseudonyms
        self._metrics = metrics
        self._templates = RouteTemplates()
        self.routes_of = routes_of
        self._takes_lines = getattr(sink, "takes_lines", False) and metrics is None
        tell_of_forks(self)

    def after_fork(self) -> None:
        """Begin without what the parent has counted, which tells of it itself."""
        self.dropped = 0

    @property
    def takes_lines(self) -> bool:
        """Whether a line will do, because nobody looks into each event; or nothing is recorded at all."""
        return not observers and (self._takes_lines or (self._sink is None and self._metrics is None))

    def write_line(
        self,
        scope: Scope,
        line: DecisionLine,
        *,
        event_id: str,
        request_id: str,
        status: int | None,
        seconds_to_first_byte: float,
        identity: str,
        expires_at: float | None,
        root: Any,
        root_path: str,
        more_steps: tuple[tuple[str, str], ...] = (),
        tables: Mapping[str, str] = _NO_TABLES,
    ) -> bool:
        """Write the ``decision`` event of a connection that was decided as another one, as a line.

        Args:
            scope: The connection.
            line: Writes the lines of those that were decided alike; see it for the rest, and ``decide``.

        Returns:
            Whether it was written, or need not be; else ``decide`` does it: somebody looks into each event, or this one
            says what a line cannot.

        Raises:
            AuditWriteError: See ``record``.
        """
        if observers or not self._takes_lines:
            return self._sink is None and self._metrics is None and not observers
        try:
            client = client_address(scope, self.trusted_proxies)
            if client is not None and self._pseudonyms is not None:
                client = self._pseudonyms.of("client", client)
            written = line.of(
                now=self.clock(),
                event_id=event_id,
                request_id=request_id,
                trace_id=_trace_id(),
                more_steps=more_steps,
                route=self._templates.find(scope, root, root_path) if "endpoint" in scope else None,
                status=status,
                seconds_to_first_byte=seconds_to_first_byte,
                identity=identity,
                expires_at=expires_at,
                tables=tables,
                region=self._region,
                client=client,
                dropped=self.dropped,
            )
        except (TypeError, ValueError):
            return False  # no text where a text belongs
        if written is None:
            return False
        self._write(written)
        return True

    def identity_of(self, claims: VerifiedClaims) -> str:
        """Who a token speaks for, as lines say it: written out once for each token, and kept beside its claims."""
        kept = claims.derived.get(self)
        if isinstance(kept, str):
            return kept
        identity = claims.derived[self] = identity_text(claims, self._pseudonyms)
        return identity

    def decide(
        self,
        scope: Scope,
        trail: Trail,
        status: int | None,
        *,
        event_id: str,
        seconds_to_first_byte: float,
        root: Any,
        root_path: str,
        unanswered: bool = False,
    ) -> None:
        """Write the ``decision`` event of a connection whose answer is about to leave.

        Args:
            scope: The connection.
            trail: What is known about it.
            status: The answer's status; None where there is no answer.
            event_id: Of the event.
            seconds_to_first_byte: How long the answer took.
            root: The app whose routes are meant, or a middleware around it.
            root_path: The ``root_path`` with which the root was called.
            unanswered: The connection ended before anybody answered.

        Raises:
            AuditWriteError: See ``record``.
        """
        if self._sink is None and self._metrics is None and not observers:
            return
        claims, access = trail.claims, trail.access
        tables = _NO_TABLES if access is None else access.tables
        # Where nobody looks into an event, its line is enough, of which most is the same each time.
        if self._takes_lines and not observers:
            known = as_admitted(trail, status)
            facts = {} if known is not None else facts_of(trail)
            try:
                line, more_steps = known or (line_of(scope, trail, facts, status, unanswered=unanswered), ())
                identity = nobody_text(facts.get("key_id")) if claims is None else self.identity_of(claims)
            except (TypeError, ValueError):
                line = None  # no text where a text belongs: the encoder of events makes something of it
            if line is not None and self.write_line(
                scope,
                line,
                event_id=event_id,
                request_id=trail.request_id,
                status=status,
                seconds_to_first_byte=seconds_to_first_byte,
                identity=identity,
                expires_at=None if claims is None else claims.expires_at,
                root=root,
                root_path=root_path,
                more_steps=more_steps,
                tables=tables,
            ):
                return
        outcome, reason = outcome_of(trail, status, unanswered=unanswered)
        facts = facts_of(trail)
        origin, embedder, fetch_site, fetch_dest = origins_of(facts, trail)
        rls_attributes, policy_version = rules_of(access)
        self.record(
            decision_event(
                now=self.clock(),
                event_id=event_id,
                request_id=trail.request_id,
                trace_id=_trace_id(),
                outcome=outcome,
                reason=reason,
                steps=trail.steps,
                kind=scope["type"],
                method=scope.get("method"),
                route=self._templates.find(scope, root, root_path),
                status=status,
                seconds_to_first_byte=seconds_to_first_byte,
                origin=origin,
                embedder=embedder,
                fetch_site=fetch_site,
                fetch_dest=fetch_dest,
                claims=claims,
                rls_attributes=rls_attributes,
                policy_version=policy_version,
                tables=tables,
                region=self._region,
                client=client_address(scope, self.trusted_proxies),
                exempt=trail.exempt,
                dropped=self.dropped,
                key_id=facts.get("key_id"),
            )
        )

    def record(self, event: Event) -> None:
        """Write an event; raises ``AuditWriteError`` in ``strict`` mode where that fails."""
        if self._pseudonyms is not None:
            self._pseudonyms.hide(event)
        for observe in observers:
            observe(event)
        if self._metrics is not None:
            self._metrics.count(event)
        self._write(event)

    def _write(self, event: Event | bytes) -> None:
        if self._sink is None:
            return
        try:
            self._sink.write(event)
        except Exception as error:  # noqa: BLE001 - whatever a sink of the host's raises, the event was not written
            # The text of a foreign error may quote what could not be written.
            _log.error("toucan_guard audit: %s", error if isinstance(error, AuditWriteError) else type(error).__name__)
            self.dropped += 1
            if self._metrics is not None:
                self._metrics.count_dropped()
            if self._strict:
                raise AuditWriteError("the event was not written") from None
        else:
            self.dropped = 0


def _trace_id() -> str | None:
    """The trace that this process has open, if it traces at all."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
