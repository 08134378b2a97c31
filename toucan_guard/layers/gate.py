"""Gate: any ``fn(scope) -> Decision`` as a layer, with the same Trail, denial and audit."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from toucan_guard.asgi import GUARDED_SCOPES, deny
from toucan_guard.core.decisions import Allow, Decision, Deny
from toucan_guard.trail import trail_of


class GateMiddleware:
    """A layer of the host's own: ``GateMiddleware(app, name="office_hours", decide=fn)``.

    Args:
        app: The next layer.
        name: How the audit record calls it.
        decide: Judges the connection's scope, sync or async. What it raises is a crash (500), not a way in.
        report_only: Record ``would_deny`` and let pass.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        name: str,
        decide: Callable[[Scope], Decision | Awaitable[Decision]],
        report_only: bool = False,
    ) -> None:
        self.app = app
        self._name = name
        self._decide = decide
        self._report_only = report_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED_SCOPES:
            return await self.app(scope, receive, send)
        trail = trail_of(scope)
        decision = self._decide(scope)
        if not isinstance(decision, Allow | Deny) and inspect.isawaitable(decision):
            decision = await decision
        trail.add(self._name, decision, report_only=self._report_only)
        if isinstance(decision, Deny) and not self._report_only:
            return await deny(scope, receive, send, decision)
        await self.app(scope, receive, send)
