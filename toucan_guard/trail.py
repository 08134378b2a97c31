"""The Trail: the one mutable record of a connection.

Whoever needs it first makes it (``trail_of``), so that a layer works alone and a nested guard continues the
outer guard's Trail. Of an admitted connection it is made when somebody asks (``admitted.py``).
``request.state.embed``, the context variable that adapters read and the audit event are views
of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from starlette.types import Message, Scope, Send

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.credentials import TokenCredential
from toucan_guard.core.decision_line import DecisionLine
from toucan_guard.core.decisions import ALLOW, Allow, Decision, Deny
from toucan_guard.core.embed import Embed
from toucan_guard.core.origins import Origin, OriginAllowlist
from toucan_guard.headers import Header, HeaderList, are_headers, name_of
from toucan_guard.ids import new_id
from toucan_guard.query import take_bootstrap_tokens
from toucan_guard.request_headers import READ_HEADERS, RequestHeaders, list_headers
from toucan_guard.rls.context import RowAccess

RESPONSE_STARTS: Final = ("http.response.start", "websocket.http.response.start")
TRAIL: Final = "toucan_guard.trail"
"""Where it stands in the scope, or what holds it."""


class HoldsTrail(Protocol):
    """What stands in a guarded connection's scope."""

    @property
    def trail(self) -> Trail:
        """The connection's Trail."""
        ...


class InCharge(Protocol):
    """Who records a connection (``audited.py``, ``admitted.py``)."""

    def continued_by(self, recorder: Any) -> None:
        """Write with the ``Recorder`` of a guard behind this one, where this one records nothing."""
        ...


class WantsFindings(Protocol):
    """Who wants to keep what the layers find about a request (``admission.py``)."""

    def let_in(self, scope: Scope, trail: Trail) -> None:
        """All of them have let it pass; it stands in front of the app."""
        ...

    def refused(self, scope: Scope, trail: Trail) -> None:
        """One of them has refused it."""
        ...


class Findings(Protocol):
    """What the layers had found about an earlier request."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """What each of them decided."""
        ...

    @property
    def line(self) -> DecisionLine:
        """Writes the record of requests that say the same."""
        ...


class LetsIn(Protocol):
    """What lets a request in without another look (``admission.py``)."""

    @property
    def found(self) -> Findings:
        """What the layers had found."""
        ...

    @property
    def embed(self) -> Embed:
        """What the app sees."""
        ...


class HeaderEdit(ABC):
    """What a layer does to the headers of every response that leaves."""

    names = ""
    """In lower case, one on each line: the headers that ``additions`` may add."""

    def additions(self, names: str, trail: Trail) -> Sequence[Header] | None:
        """What to add to a response that says nothing about this edit's subject.

        Args:
            names: The response's header names, in lower case, one on each line.
            trail: Of the connection.

        Returns:
            Headers, or None where the response's own must be looked at.
        """
        del names, trail
        return None

    @abstractmethod
    def __call__(self, headers: HeaderList, trail: Trail) -> HeaderList:
        """The headers of a response, whatever they say, as they leave."""


class Step(NamedTuple):
    """One layer's decision. ``enforced`` is False where the layer only reports."""

    layer: str
    decision: Decision
    enforced: bool


class RefusedToken(NamedTuple):
    """A token, who has verified it, and why it was refused."""

    verifier: object
    token: str
    refusal: Deny


_NO_TABLES: Final[frozenset[str]] = frozenset()
# The step of a layer that had nothing to say but yes, which is nearly every step: made once for each layer.
_ALLOWED: Final[dict[str, Step]] = {}


class Trail(RequestHeaders):
    """Everything that is known about one connection, growing as the layers decide.

    And what its headers say: see ``RequestHeaders``.

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
        presented: The token itself, for a guard behind this one that reads tokens otherwise, or the ``Authorization``
            that it stood in; None for a session.
        narrowing: Where the token and its tenant may be embedded; None is no narrowing.
        embed: What the app sees.
        access: What the adapters see: the row filter and the receipts of filtered tables.
        refusal: The decision that answered the connection, if it was refused.
        ended: The decision that ended the connection after its answer had begun.
        malformed: The request's headers are no pairs of bytes, so that nothing was read of them.
        exempt: The path is on the list of paths that are not protected.
        report_only_grants: Missing grants are recorded, not refused.
        required_tables: Tables that have to be filtered before the answer may leave (``receipts.py``).
        audit: Who has taken charge of this connection for the audit layer.
        edits: What is done to the headers of every response that leaves, crashes included.
        admission: What the layers had found about an earlier request that said the same (``admission.py``).
        sought: Who wants to keep what the layers find about this one (``admission.py``).
        began_at: When the guard began to look at the connection, by ``time.perf_counter``, where that was before its
            record did.
        refused_token: A token that was refused by the verifier that will be asked for it.
        state: The dictionary behind ``request.state``, where it is this connection's own.
    """

    # Slots: what is looked up on every request is found without a search.
    __slots__ = (
        "_send",
        "access",
        "admission",
        "audit",
        "began_at",
        "bootstrap_tokens",
        "caller",
        "claims",
        "edits",
        "embed",
        "embedder",
        "ended",
        "exempt",
        "malformed",
        "narrowing",
        "opaque_caller",
        "own_page",
        "presented",
        "refusal",
        "refused_token",
        "report_only_grants",
        "request_id",
        "required_tables",
        "session_cookies",
        "sought",
        "state",
        "steps",
    )

    def __init__(self, request_id: str | None = None) -> None:
        super().__init__()
        self.request_id = request_id or new_id()
        self.steps: tuple[Step, ...] = ()
        self.edits: tuple[HeaderEdit, ...] = ()
        self.bootstrap_tokens: tuple[str, ...] = ()
        self.caller: Origin | None = None
        self.embedder: Origin | None = None
        self.opaque_caller = False
        self.own_page = False
        self.session_cookies: tuple[str, ...] = ()
        self.claims: VerifiedClaims | None = None
        self.presented: TokenCredential | bytes | None = None
        self.narrowing: OriginAllowlist | None = None
        self.embed: Embed | None = None
        self.access: RowAccess | None = None
        self.refusal: Deny | None = None
        self.ended: Deny | None = None
        self.malformed = False
        self.exempt = False
        self.report_only_grants = False
        self.required_tables: frozenset[str] = _NO_TABLES
        self.audit: InCharge | None = None
        self.began_at: float | None = None
        self.sought: WantsFindings | None = None
        self.refused_token: RefusedToken | None = None
        self.admission: LetsIn | None = None
        self._send: Send | None = None
        self.state: dict[str, Any] | None = None

    @property
    def trail(self) -> Trail:
        """Itself: see ``HoldsTrail``."""
        return self

    def add(self, layer: str, decision: Decision, *, report_only: bool = False) -> None:
        """Record a layer's decision; a report-only layer's refusal counts as ``would_deny``."""
        if decision is ALLOW and not report_only:
            step = _ALLOWED.get(layer)
            if step is None:
                step = _ALLOWED[layer] = Step(layer, ALLOW, enforced=True)
            self.steps += (step,)
            return
        if not isinstance(decision, Allow | Deny):
            raise TypeError(f"the layer {layer!r} decided {type(decision).__name__}, not Allow or Deny")
        self.steps += (Step(layer, decision, not report_only),)

    def decided(self, layer: str) -> bool:
        """Whether a layer of this name has decided already."""
        return layer in [step.layer for step in self.steps]

    def release(self) -> None:
        """Let go of what refers back to the connection, at its end: it is freed at once, not by the collector."""
        self.edits = ()
        self.audit = self._send = self.presented = None

    def wrap(self, send: Send) -> Send:
        """A ``send`` that edits the headers of every response; the first layer that asks is the outermost."""
        if self._send is not None:
            return self._edited_send if send == self._send else send
        self._send = send
        return self._edited_send

    def unwrapped(self, send: Send) -> Send | None:
        """The server's own ``send``, where this one does nothing but what ``edited`` does; else None."""
        return self._send if send == self._edited_send else None

    async def _edited_send(self, message: Message) -> None:
        if self._send is None:  # wrap() has set it, which alone hands this method out
            raise RuntimeError("the connection has ended")
        await self._send(self.edited(message))

    def edited(self, message: Message) -> Message:
        """A message as it leaves, with the headers of a response edited."""
        if message["type"] in RESPONSE_STARTS:
            return {**message, "headers": self._edited(list(message.get("headers", ())))}
        return message

    def additions(self, names: str) -> list[Header] | None:
        """What the edits add to a response, where none of them has to look at its own headers; else None.

        Args:
            names: The response's header names, in lower case, one on each line.
        """
        added: list[Header] = []
        # From the inside out, as the response passes the layers: the outermost has the last word.
        for edit in reversed(self.edits):
            more = edit.additions(names, self)
            if more is None:
                return None
            added += more
            names += edit.names
        return added

    def _edited(self, headers: HeaderList) -> HeaderList:
        names = _names_of(headers)
        for edit in reversed(self.edits):
            added = edit.additions(names, self)
            if added is not None:
                headers += added
                names += edit.names
            else:
                headers = edit(headers, self)
                names = _names_of(headers)
        return headers


def _names_of(headers: HeaderList) -> str:
    # As text: looking for bytes in bytes takes five times as long.
    return b"\n".join(map(name_of, headers)).lower().decode("latin-1")


def trail_of(scope: Scope) -> Trail:
    """The Trail of this connection, made at the first call.

    Making it takes bootstrap tokens out of the query string, in place: the server's access log
    reads the same scope when the response starts, refused or not.
    """
    held: HoldsTrail | None = scope.get(TRAIL)
    if held is None:
        trail = scope[TRAIL] = Trail()
        if "headers" in scope:
            trail.read(scope)  # as it arrived
        if scope.get("query_string"):
            trail.bootstrap_tokens = take_bootstrap_tokens(scope)
        return trail
    return held.trail


def arrived_trail(scope: Scope) -> Trail:
    """The Trail of a request as it arrived, whatever the server hands on.

    Headers that are no pairs of bytes are read by nobody: they are taken out, and the Trail says so.
    """
    list_headers(scope)
    if are_headers(scope["headers"]):
        return trail_of(scope)
    scope.pop(TRAIL, None)  # what was begun of it
    scope["headers"] = []
    trail = trail_of(scope)
    trail.malformed = True
    return trail


def existing_trail(scope: Scope) -> Trail | None:
    """The Trail of this connection, or None where no guard stands in front."""
    held: HoldsTrail | None = scope.get(TRAIL)
    return None if held is None else held.trail


def header_values(scope: Scope, name: bytes) -> tuple[str, ...]:
    """Every value of a header, in order: ``Headers.get`` would hide the second one."""
    if name in READ_HEADERS:
        trail = trail_of(scope)
        trail.read(scope)
        return trail.values_of(name)
    return tuple(value.decode("latin-1") for key, value in scope["headers"] if key == name)


def publish_embed(scope: Scope, trail: Trail, embed: Embed | None) -> None:
    """Set ``request.state.embed``, overwriting whatever stood there.

    The state becomes a dictionary of this connection's own: some servers hand out one for all.
    """
    trail.embed = embed
    given: dict[str, Any] = scope.get("state") or {}
    state = trail.state
    if state is None or state is not given:
        state = {**given}
    state["embed"] = embed
    scope["state"] = trail.state = state
