"""AuditLog: no byte leaves unrecorded, and no crash escapes. How that is done is ``audited.py``'s."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, deny
from toucan_guard.audit.metrics import Metrics
from toucan_guard.audit.sinks import Sink
from toucan_guard.audited import Connection
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.pseudonyms import Pseudonyms
from toucan_guard.proxies import Networks
from toucan_guard.recorder import Recorder
from toucan_guard.trail import TRAIL, arrived_trail, trail_of

_MALFORMED: Final = Deny(Reason.REQUEST_MALFORMED, "the request's headers are no pairs of bytes")


class AuditLogMiddleware:
    """Writes one ``decision`` event per connection, and one ``completion`` where something changed afterwards.

    Args:
        app: The next layer.
        sink: Where events go; None records nothing, and still ends refusals and crashes.
        mode: ``strict`` answers 503 where the event cannot be written; ``best_effort`` counts it as dropped.
        region: The region of this deployment.
        trusted_proxies: Whose X-Request-ID is taken over.
        pseudonyms: Hides who somebody is, in every event.
        metrics: Counts every event.
        routes_of: The app whose route templates are recorded, where the scope does not name one.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        sink: Sink | None,
        mode: Literal["strict", "best_effort"] = "strict",
        region: str | None = None,
        trusted_proxies: Networks = (),
        pseudonyms: Pseudonyms | None = None,
        metrics: Metrics | None = None,
        routes_of: ASGIApp | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self.recorder = Recorder(
            sink=sink,
            mode=mode,
            region=region,
            trusted_proxies=trusted_proxies,
            pseudonyms=pseudonyms,
            metrics=metrics,
            routes_of=app if routes_of is None else routes_of,
            clock=clock,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES:
            return await self.app(scope, receive, send)
        trail = trail_of(scope) if TRAIL in scope else arrived_trail(scope)
        if trail.audit is not None:
            trail.audit.continued_by(self.recorder)
            return await self.app(scope, receive, send)
        connection = Connection(self.recorder, scope, receive, send, trail, server=trail.unwrapped(send))
        await connection.run(_refuse_malformed if trail.malformed else self.app)


async def _refuse_malformed(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse what no layer can read; no path is exempt from that."""
    trail_of(scope).add("headers", _MALFORMED)
    await deny(scope, receive, send, _MALFORMED)
