"""Where ASGI meets the cores: headers as lists, the Trail of a connection, and the one way to refuse.

The Trail is the one mutable record of a connection. Whoever needs it first makes
it (``trail_of``), so that a layer works alone and a nested guard continues the
outer guard's Trail. ``request.state.embed``, the context variable that adapters
read and the audit event are views of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from uuid import UUID

from starlette.types import Message, Receive, Scope, Send

from toucan_guard.core.decisions import Allow, Decision, Deny
from toucan_guard.core.embed import Embed
from toucan_guard.core.origins import Origin, OriginAllowlist
from toucan_guard.core.token import VerifiedClaims
from toucan_guard.query import take_bootstrap_tokens
from toucan_guard.refusals import refusal_response
from toucan_guard.rls.context import RowAccess
from toucan_guard.tokens.keys import KeyRing

GUARDED_SCOPES: Final = ("http", "websocket")
RESPONSE_STARTS: Final = ("http.response.start", "websocket.http.response.start")
_TRAIL: Final = "toucan_guard.trail"

HeaderList = list[tuple[bytes, bytes]]
HeaderEdit = Callable[[HeaderList], HeaderList]


class Refused(Exception):
    """Raised inside the app to refuse the connection: ``raise Refused(Deny("x_closed"))``.

    The audit layer turns it into the same answer as any other refusal.
    """

    def __init__(self, decision: Deny) -> None:
        if not isinstance(decision, Deny):
            raise TypeError("Refused takes a Deny")
        self.decision = decision
        super().__init__(decision.reason)


class Step(NamedTuple):
    """One layer's decision. ``enforced`` is False where the layer only reports."""

    layer: str
    decision: Decision
    enforced: bool


class Trail:
    """Everything that is known about one connection, growing as the layers decide.

    Attributes:
        request_id: Shown in refusals and in the audit event.
        steps: What each layer decided, in order.
        bootstrap_tokens: Values of ``embed_token`` that were taken out of the query string.
        caller: The listed origin that calls us (its Origin header), where it is not our own.
        embedder: The listed origin that frames us (its Referer), where the browser named it.
        opaque_caller: The Origin header is ``null``, which a switch let in; no list names it.
        own_page: The Origin header names our own public origin.
        session_cookies: Cookie headers with embed sessions, which the app does not see.
        claims: The verified token or embed session.
        ring: The keys that verified the claims.
        narrowing: Where the token and its tenant may be embedded; None is no narrowing.
        embed: What the app sees.
        access: What the adapters see: the row filter and the receipts of filtered tables.
        refusal: The decision that answered the connection, if it was refused.
        exempt: The path is on the list of paths that are not protected.
        report_only_grants: Missing grants are recorded, not refused.
        required_tables: Tables that have to be filtered before the answer may leave (``receipts.py``).
        audit: What an audit layer that has taken charge of this connection keeps of it.
        edits: What is done to the headers of every response that leaves, crashes included.
    """

    __slots__ = (
        "_send",
        "access",
        "audit",
        "bootstrap_tokens",
        "caller",
        "claims",
        "edits",
        "embed",
        "embedder",
        "exempt",
        "narrowing",
        "opaque_caller",
        "own_page",
        "refusal",
        "report_only_grants",
        "request_id",
        "required_tables",
        "ring",
        "session_cookies",
        "steps",
    )

    def __init__(self) -> None:
        self.request_id = new_id()
        self.steps: list[Step] = []
        self.bootstrap_tokens: tuple[str, ...] = ()
        self.caller: Origin | None = None
        self.embedder: Origin | None = None
        self.opaque_caller = False
        self.own_page = False
        self.session_cookies: tuple[str, ...] = ()
        self.claims: VerifiedClaims | None = None
        self.ring: KeyRing | None = None
        self.narrowing: OriginAllowlist | None = None
        self.embed: Embed | None = None
        self.access: RowAccess | None = None
        self.refusal: Deny | None = None
        self.exempt = False
        self.report_only_grants = False
        self.required_tables: frozenset[str] = frozenset()
        self.audit: Any = None
        self.edits: list[HeaderEdit] = []
        self._send: Send | None = None

    def add(self, layer: str, decision: Decision, *, report_only: bool = False) -> None:
        """Record a layer's decision; a report-only layer's refusal counts as ``would_deny``."""
        if not isinstance(decision, Allow | Deny):
            raise TypeError(f"the layer {layer!r} decided {type(decision).__name__}, not Allow or Deny")
        self.steps.append(Step(layer, decision, not report_only))

    def decided(self, layer: str) -> bool:
        """Whether a layer of this name has decided already."""
        return any(step.layer == layer for step in self.steps)

    def wrap(self, send: Send) -> Send:
        """A ``send`` that edits the headers of every response; the first layer that asks is the outermost."""
        if self._send is not None:
            return send
        self._send = send
        return self._edited_send

    async def _edited_send(self, message: Message) -> None:
        assert self._send is not None  # noqa: S101 - set by wrap(), which alone hands this method out
        if message["type"] in RESPONSE_STARTS:
            headers: HeaderList = list(message.get("headers", ()))
            # From the inside out, as the response passes the layers: the outermost has the last word.
            for edit in reversed(self.edits):
                headers = edit(headers)
            message = {**message, "headers": headers}
        await self._send(message)


def trail_of(scope: Scope) -> Trail:
    """The Trail of this connection, made at the first call.

    Making it takes bootstrap tokens out of the query string, in place: the server's access log
    reads the same scope when the response starts, refused or not.
    """
    trail: Trail | None = scope.get(_TRAIL)
    if trail is None:
        trail = scope[_TRAIL] = Trail()
        if scope.get("query_string"):
            trail.bootstrap_tokens = take_bootstrap_tokens(scope)
    return trail


def existing_trail(scope: Scope) -> Trail | None:
    """The Trail of this connection, or None where no guard stands in front."""
    return scope.get(_TRAIL)


def header_values(scope: Scope, name: bytes) -> list[str]:
    """Every value of a header, in order: ``Headers.get`` would hide the second one."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def publish_embed(scope: Scope, trail: Trail, embed: Embed | None) -> None:
    """Set ``request.state.embed``, overwriting whatever stood there.

    The state becomes a dictionary of this connection's own: some servers hand out one for all.
    """
    trail.embed = embed
    scope["state"] = {**(scope.get("state") or {}), "embed": embed}


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


async def _send_as_denial(response: Any, send: Send) -> None:
    await send(
        {
            "type": "websocket.http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": response.body})


def new_id() -> str:
    """A UUIDv7 (RFC 9562 §5.7): sorts by time, and its random part does not repeat between workers."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    return str(
        UUID(
            int=(milliseconds & 0xFFFFFFFFFFFF) << 80
            | 0x7 << 76
            | (random >> 68 & 0xFFF) << 64
            | 0b10 << 62
            | random & 0x3FFFFFFFFFFFFFFF
        )
    )
