"""The record of one connection: no byte leaves unrecorded, and no crash escapes.

The ``decision`` event is written when the first message of the response is about to
leave. In ``strict`` mode a failed write answers 503 in its place. What the app raises
ends here as well: ``Refused`` becomes a refusal, anything else a 500 (``crashes.py``), and
goes on up. Around some routes only, what the host's other handlers answer (404 for an
unknown path) is answered here too.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final, NamedTuple, cast

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toucan_guard.asgi import Refused, alone, close_code, deny
from toucan_guard.core.audit_event import completion_event
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import AuditWriteError
from toucan_guard.crashes import answered_by_starlette, answers_to, crash_page, left_to_starlette
from toucan_guard.ids import new_id
from toucan_guard.proxies import inherited_request_id
from toucan_guard.recorder import Recorder
from toucan_guard.trail import Trail

_WEBSOCKET_STATUS: Final = {"websocket.accept": 101, "websocket.close": 403}
_LAST: Final = frozenset(
    {
        "http.response.body",
        "http.response.zerocopysend",
        "http.response.pathsend",
        "websocket.http.response.body",
        "websocket.close",
    }
)
_TRAILERS: Final = "http.response.trailers"
_NOT_A_BYTE: Final = "http.response.debug"  # tells a test client about templates; nothing leaves
# They would leave before anybody knows what the answer is, and nobody relies on a hint.
_HINTS: Final = frozenset({"http.response.early_hint", "http.response.push"})


class Arrival(NamedTuple):
    """How a connection arrived, before a router has seen it.

    Attributes:
        host: The app whose router has called us, where the guard stands around some of its routes; else None.
        root: The app whose routes are recorded, or a middleware around it.
        root_path: Where that is mounted.
        began: When, by ``time.perf_counter``.
    """

    host: Any
    root: Any
    root_path: str
    began: float


class Connection:
    """The record of one connection. Making it takes charge of the connection.

    Args:
        recorder: Writes its events.
        scope: The connection, as the server sent it.
        receive: The server's.
        send: The next layer's in front.
        trail: Of this connection, which has read the request's headers.
        server: The server's, where the one in front of us only edits headers. That is done here then: a step less for
            every message.
        arrived: How it arrived, where that was told before; else the scope says it now.
    """

    __slots__ = (
        "_answered",
        "_changed",
        "_complete",
        "_decision_id",
        "_held_back",
        "_host",
        "_receive",
        "_recorder",
        "_root",
        "_root_path",
        "_scope",
        "_send",
        "_server",
        "_start",
        "_steps",
        "_tables",
        "_trail",
        "_trailers",
        "gone",
    )

    def __init__(
        self,
        recorder: Recorder,
        scope: Scope,
        receive: Receive,
        send: Send,
        trail: Trail,
        *,
        server: Send | None,
        arrived: Arrival | None = None,
    ) -> None:
        self._decision_id: str | None = None
        self._steps = 0  # so many stood on the Trail when the decision was written
        self._tables: Collection[str] = ()  # what had been filtered by then
        self._changed: str | None = None  # what became of the answer after its decision was written
        self._held_back = False  # the event could not be written: 503 went out, nothing else may
        self._complete = False  # the last byte went out: what happens afterwards cuts nothing
        self._answered = False  # a refusal went out in place of what the app is still saying
        self.gone = False  # the client has hung up
        self._trailers = False  # the app has announced trailers, which come behind the body
        trail.audit = self
        self._recorder = recorder
        self._scope = scope
        self._receive = receive
        self._send = send
        self._server = server
        self._trail = trail
        if arrived is None:
            if recorder.trusted_proxies:
                trail.request_id = inherited_request_id(scope, recorder.trusted_proxies) or trail.request_id
            began = time.perf_counter() if trail.began_at is None else trail.began_at
            app = scope.get("app")
            host = app if "router" in scope else None
            arrived = Arrival(host, app or recorder.routes_of, scope.get("root_path", ""), began)
        self._host, self._root, self._root_path, self._start = arrived

    async def run(self, app: ASGIApp) -> None:
        """Call the app; see the module's docstring for what may come back."""
        try:
            await app(self._scope, self.receive, self.send)
            await self.returned()
        except BaseException as error:
            if not await self.settled(error):
                raise
        finally:
            self.finish()

    def resume(
        self,
        decision_id: str | None,
        *,
        steps: int,
        tables: Collection[str],
        complete: bool,
        gone: bool,
        trailers: bool,
    ) -> None:
        """Go on where somebody else has recorded and sent the beginning.

        Args:
            decision_id: The id of the ``decision`` event, where that is written.
            steps: So many stood on the Trail then.
            tables: What had been filtered by then.
            complete: The last byte went out.
            gone: The client has hung up.
            trailers: The app has announced trailers.
        """
        self._decision_id, self._steps, self._tables = decision_id, steps, tables
        self._complete, self.gone, self._trailers = complete, gone, trailers

    async def returned(self) -> None:
        """The app has returned."""
        if self._decision_id is None and not self.gone:
            # Left to the server, this would be a 500 without the guard's headers.
            await self._refuse(Deny(Reason.APP_FAILED, "the app returned without an answer"))
        elif self._scope["type"] == "http" and not self._complete:
            self._changed = "error"

    def continued_by(self, recorder: Recorder) -> None:
        """Write where a guard behind this one records, if this one was told to record nothing."""
        if not self._recorder.records:
            self._recorder = recorder

    async def settled(self, error: BaseException) -> bool:
        """Answer for what the app raised; False where the server must hear of it too."""
        if not isinstance(error, Exception):
            if self._decision_id is None and not self.gone and not _is_cancellation(error):
                # The server's own answer would be a 500 without the guard's headers.
                await self._refuse(Deny(Reason.APP_FAILED))
            else:
                self._changed = None if self._complete else "error"
            return False
        error = cast("Exception", alone(error))  # groups that are exceptions hold nothing else
        if self._held_back:
            return isinstance(error, AuditWriteError | Refused)
        if isinstance(error, Refused):
            if self._decision_id is None:
                await self._refuse(error.decision)
                return True
            if self._answered:
                return True
            if self._scope["type"] == "websocket":
                await self._close(error.decision)
                return True
        if self._decision_id is None:
            return await self._answer_crash(error)
        if self._trail.ended is not None and _says_only(error, self._trail.ended):
            return True  # the server sees that the answer is incomplete, and closes the connection
        if not self._complete:
            self._changed = "error"
        return False

    async def receive(self) -> Message:
        """The app's ``receive``."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
        elif message["type"] == "websocket.disconnect":
            self.gone = self._complete = True  # how every socket ends: nothing was cut
        return message

    async def send(self, message: Message) -> None:
        """The app's ``send``."""
        kind, server = message["type"], self._server
        # Before the decision is written: headers that are none are a crash of the app's, which is answered as such.
        edited = message if server is None or kind == "http.response.body" else self._trail.edited(message)
        if self._decision_id is None or self._held_back or self._answered:
            if not await self._begins(message, kind):
                return
        elif kind in _HINTS:
            return
        await (self._send if server is None else server)(edited)
        if kind in _LAST:
            self._complete = not message.get("more_body", False) and not self._trailers
        elif kind == _TRAILERS:
            self._complete = not message.get("more_trailers", False)

    async def _begins(self, message: Message, kind: str) -> bool:
        """Record the decision before the first message leaves; False where it must not leave."""
        if self._answered or kind in _HINTS:
            return False
        if self._held_back:
            raise AuditWriteError("the response is held back")
        if kind == _NOT_A_BYTE:
            return True
        refused = alone(sys.exception())
        if isinstance(refused, Refused) and self._trail.refusal is None:
            # An error handler of the host, inside this layer, is about to answer 500 for a refusal.
            await self._refuse(refused.decision)
            self._answered = True
            return False
        if refused is not None and kind == "http.response.start" and (crash := left_to_starlette(message)) is not None:
            # What it says itself is dropped; the crash goes on up from there.
            with suppress(AuditWriteError):  # then 503 has gone out in its place
                await crash_page(self._scope, crash, self._trail.request_id)(self._scope, self._receive, self.send)
            self._answered = True
            return False
        raises_again = refused is not None and answered_by_starlette() is not None
        try:
            self._decide(message.get("status", _WEBSOCKET_STATUS.get(kind)))
        except AuditWriteError:
            await self.withhold()
            if not raises_again:
                raise
            self._answered = True  # the server hears of the crash, not of this
            return False
        if "trailers" in message:
            self._trailers = bool(message["trailers"])
        return True

    async def withhold(self) -> None:
        """Say 503 in place of an answer whose decision could not be written."""
        self._held_back = True
        await deny(self._scope, self._receive, self._send, Deny(Reason.AUDIT_UNAVAILABLE))

    async def _refuse(self, decision: Deny) -> None:
        # What require_grant raises stands on the Trail already.
        if not any(step.decision is decision for step in self._trail.steps):
            self._trail.add("app", decision)
        with suppress(AuditWriteError):  # then 503 has gone out in its place
            await deny(self._scope, self._receive, self.send, decision)

    async def _close(self, decision: Deny) -> None:
        """Refuse a WebSocket that has been accepted already, unless it has ended."""
        if self._complete:
            return
        self._trail.ended = decision
        await self._send({"type": "websocket.close", "code": close_code(decision), "reason": str(decision.reason)})

    async def _answer_crash(self, error: Exception) -> bool:
        """Answer what the app raised, with the host's handlers or our page; False for a crash."""
        if self._scope["type"] == "websocket":
            if not self.gone:
                await self._refuse(Deny(Reason.APP_FAILED))
            return False
        request_id, traceback = self._trail.request_id, error.__traceback__
        try:
            for answer in answers_to(error, app=self._scope.get("app"), host=self._host, request_id=request_id):
                try:
                    await answer(self._scope, self._receive, self.send)
                except Exception:  # noqa: BLE001 - whatever the handler raised, the app's own error goes up
                    if self._decision_id is not None:
                        return False
                else:
                    return True
            return False
        finally:
            error.__traceback__ = traceback  # what it has passed here leads back to it, and would keep it alive

    def finish(self) -> None:
        """Record a connection that nobody answered, or what changed after its decision was written."""
        self._server = None  # a task that outlives the connection finds its Trail released
        try:
            if self._decision_id is None:
                return self._decide(None, unanswered=True)
            trail, access = self._trail, self._trail.access
            if (
                self._changed is None
                and trail.ended is None
                and len(trail.steps) == self._steps
                and (access is None or len(access.tables) == len(self._tables))
            ):
                return None  # nearly every connection: nothing has changed
            late = {} if access is None else dict(access.tables)
            outcome, reason = self._afterwards()
            if not self._held_back and (outcome or late.keys() - set(self._tables)):
                self._recorder.record(
                    completion_event(
                        now=self._recorder.clock(),
                        request_id=trail.request_id,
                        event_id=new_id(),
                        decision_id=self._decision_id,
                        outcome=outcome or "allow",
                        reason=reason,
                        tables=late,
                        dropped=self._recorder.dropped,
                    )
                )
        except AuditWriteError:
            return None  # nothing is left to hold back, and the operator has been told

    def _afterwards(self) -> tuple[str | None, str | None]:
        """What became of the connection after its decision was written, and why."""
        if self._trail.ended is not None and self._trail.refusal is None:
            return "deny", str(self._trail.ended.reason)
        if self._changed is None:
            for step in self._trail.steps[self._steps :]:
                if isinstance(step.decision, Deny) and not step.enforced:
                    return "would_deny", str(step.decision.reason)
        return self._changed, None

    def _decide(self, status: int | None, *, unanswered: bool = False) -> None:
        """Write the decision."""
        trail = self._trail
        self._steps = len(trail.steps)
        if trail.access is not None:
            self._tables = tuple(trail.access.tables)
        event_id = new_id()
        try:
            self._recorder.decide(
                self._scope,
                trail,
                status,
                event_id=event_id,
                seconds_to_first_byte=time.perf_counter() - self._start,
                root=self._root,
                root_path=self._root_path,
                unanswered=unanswered,
            )
        except AuditWriteError:
            self._decision_id = event_id
            raise
        self._decision_id = event_id  # not before: whatever else went wrong, the answer to that is recorded


def _is_cancellation(error: BaseException) -> bool:
    """Whether the client hung up or the server stops, and nobody waits for an answer."""
    if isinstance(error, BaseExceptionGroup):  # a task group of the app's wraps what its tasks have raised
        return any(map(_is_cancellation, error.exceptions))
    if isinstance(error, anyio.get_cancelled_exc_class()):
        return _is_being_cancelled()
    return isinstance(error, GeneratorExit)


def _is_being_cancelled() -> bool:
    """Whether this task was told to stop. Who waits for something that another one has cancelled hears the same, and
    somebody waits for the answer."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # trio, where nobody can say so but who stops the task; or the loop is gone
        return True
    return task is None or task.cancelling() > 0


def _says_only(error: BaseException, decision: Deny) -> bool:
    """Whether every task of the app that raised has heard of this refusal, and of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(_says_only(inner, decision) for inner in error.exceptions)
    return isinstance(error, Refused) and error.decision is decision
