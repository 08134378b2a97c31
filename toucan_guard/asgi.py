"""Where ASGI meets the cores: which connections are guarded, and the one way to refuse one."""

from __future__ import annotations

from typing import Any, Final

from starlette.types import Receive, Scope, Send

from toucan_guard.core.decisions import Deny
from toucan_guard.refusals import refusal_response
from toucan_guard.trail import trail_of

GUARDED_SCOPES: Final = ("http", "websocket")


class Refused(Exception):
    """Raised inside the app to refuse the connection: ``raise Refused(Deny("x_closed"))``.

    The audit layer turns it into the same answer as any other refusal.
    """

    def __init__(self, decision: Deny) -> None:
        if not isinstance(decision, Deny):
            raise TypeError("Refused takes a Deny")
        self.decision = decision
        super().__init__(decision.reason)


def alone(error: BaseException | None) -> BaseException | None:
    """What was raised, without the groups that an app's task groups have put around it, where it is the only one."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def deny(scope: Scope, receive: Receive, send: Send, decision: Deny) -> None:
    """Refuse the connection: the only place that knows how.

    HTTP gets problem details or a page (``refusals.py``). A WebSocket is refused before it is
    accepted: with the same answer where the server offers the denial extension, else with 1008.
    """
    trail = trail_of(scope)
    trail.refusal = decision
    response = refusal_response(scope, decision, trail.request_id)
    if scope["type"] == "http":
        await response(scope, receive, send)
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        await _send_as_denial(response, send)
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": str(decision.reason)})


def close_code(decision: Deny) -> int:
    """How an accepted WebSocket is closed: policy violation, or try again later (RFC 6455 §7.4.1, and its registry)."""
    return 1013 if decision.explanation.status == 503 else 1008


async def _send_as_denial(response: Any, send: Send) -> None:
    await send(
        {
            "type": "websocket.http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": response.body})
