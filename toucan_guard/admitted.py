"""The connection of a request that was let in without another look: recorded, edited and sent in one step.

That is all of it as long as the app does what nearly every app does: it begins an answer, and sends its body in one
piece. Whatever else happens, a ``Connection`` goes on from there, with receipts and streams looked at as the layers
would. Its Trail is made when somebody asks for it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from starlette.types import Message, Receive, Scope, Send

from toucan_guard.admission import Admission
from toucan_guard.asgi import Refused, alone
from toucan_guard.audited import Arrival, Connection
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.errors import AuditWriteError
from toucan_guard.crashes import answered_by_starlette
from toucan_guard.headers import Header, name_of
from toucan_guard.ids import new_id
from toucan_guard.live import DAWDLES_SECONDS, Standing
from toucan_guard.proxies import inherited_request_id
from toucan_guard.receipts import HeldResponse
from toucan_guard.recorder import Recorder
from toucan_guard.rls.context import RowAccess
from toucan_guard.trail import TRAIL, Step, Trail

_NO_TABLES: Final[Mapping[str, str]] = {}
_NO_SCOPE: Final[Scope] = {}


def _is_for_another() -> bool:
    """Whether an error handler inside the guard is about to answer what is answered by ``Connection``."""
    return isinstance(alone(sys.exception()), Refused) or answered_by_starlette() is not None


async def _over() -> Message:
    return {"type": "http.disconnect"}


class AdmittedConnection:
    """One connection that was admitted. Making it publishes ``request.state.embed``, and takes charge.

    Args:
        recorder: Writes its events.
        scope: The connection, without the credentials that let it in.
        receive: The server's.
        send: The server's.
        admission: What lets it in.
        claims: What its token says.
        headers: The request's, as they arrived.
        began: When it arrived, by ``time.perf_counter``.
        standing: Says whether the admission still holds, while a stream lasts.

    Attributes:
        access: What the adapters see.
        complete: The last byte of a usual answer went out: there is nothing to say when the app returns.
    """

    __slots__ = (
        "_admission",
        "_began",
        "_careful",
        "_claims",
        "_connection",
        "_decision_id",
        "_gone",
        "_headers",
        "_host",
        "_receive",
        "_recorder",
        "_request_id",
        "_root",
        "_root_path",
        "_scope",
        "_server",
        "_standing",
        "_state",
        "_steps",
        "_tables",
        "_trail",
        "_trailers",
        "access",
        "complete",
    )

    def __init__(
        self,
        recorder: Recorder,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        admission: Admission,
        claims: VerifiedClaims,
        headers: Sequence[Header],
        began: float,
        standing: Standing,
    ) -> None:
        self._recorder = recorder
        self._scope = scope
        self._receive = receive
        self._server: Send | None = send
        self._admission = admission
        self._claims = claims
        self._headers = headers
        self._began = began
        self._standing = standing
        app = scope.get("app")
        self._host: Any = app if "router" in scope else None
        self._root: Any = app or recorder.routes_of
        self._root_path: str = scope.get("root_path", "")
        self._request_id = new_id()
        if recorder.trusted_proxies:
            self._request_id = inherited_request_id(scope, recorder.trusted_proxies) or self._request_id
        embed = admission.embed
        self.access = None if embed.rls is None else RowAccess(embed.rls)
        # Of this connection's own: some servers hand out one for all.
        self._state: dict[str, Any] = {**(scope.get("state") or {}), "embed": embed}
        scope["state"] = self._state
        scope[TRAIL] = self
        self._trail: Trail | None = None
        self._decision_id: str | None = None
        self._steps: tuple[Step, ...] = ()  # what stood on the Trail when the decision was written
        self._tables: Collection[str] = ()  # what had been filtered by then
        self.complete = False
        self._gone = False  # the client has hung up
        self._trailers = False  # the app has announced trailers, which come behind the body
        self._connection: Connection | None = None
        self._careful: Send | None = None

    async def receive(self) -> Message:
        """The app's ``receive``."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone = True
            if self._connection is not None:
                self._connection.gone = True
        elif time.perf_counter() - self._began > DAWDLES_SECONDS and message["type"] == "http.request":
            await self._standing.came_late(self._claims, self.trail)
        return message

    async def send(self, message: Message) -> None:
        """The app's ``send``."""
        kind, server = message["type"], self._server
        if self._careful is not None or server is None:
            pass
        elif self._decision_id is not None:
            if kind == "http.response.body" and not message.get("more_body", False):
                await server(message)
                self.complete = not self._trailers
                return
        elif (
            kind == "http.response.start"
            and self._connection is None
            and (self._trail is None or (not self._trail.required_tables and self._trail.ended is None))
            and (sys.exception() is None or not _is_for_another())
        ):
            try:
                edited = self._begun(message)
            except AuditWriteError:
                connection = self._general()
                self._careful = connection.send  # nothing else of it leaves
                await connection.withhold()
                raise
            return await server(edited)
        await self._carefully(message)

    async def _carefully(self, message: Message) -> None:
        if self._server is None:
            raise RuntimeError("the connection has ended")
        if self._careful is None:
            connection = self._general()
            careful = self._standing.cutting(connection.send, self._claims, self.trail)
            if self._decision_id is None and self.access is not None:
                careful = HeldResponse(self._scope, self.receive, careful, self.trail).send
            self._careful = careful
        await self._careful(message)

    def _begun(self, message: Message) -> Message:
        """The beginning of an answer as it leaves; its decision is written now."""
        admission, recorder = self._admission, self._recorder
        found = admission.found
        # Before the decision is written: headers that are none are a crash of the app's, which is answered as such.
        headers = list(message.get("headers", ()))
        names = b"\n".join(map(name_of, headers))
        added = found.usual_additions(names) if self._trail is None else None
        if added is None:
            added = found.additions(names, self.trail)
        edited: Message = {**message, "headers": [*headers, *(added or ())]}
        if added is None:
            edited = self.trail.edited(edited)
        self._trailers = bool(message.get("trailers", False))

        status, trail = message.get("status"), self._trail
        # A guard inside this one has put its own in the place of ours.
        access = self.access if trail is None else trail.access
        tables = _NO_TABLES if access is None else access.tables
        if tables:
            self._tables = tuple(tables)
        self._steps = found.steps if trail is None else trail.steps
        event_id = new_id()
        try:
            # The outcome of an answer below 500 is the admission's, where nobody has noted more.
            if (
                trail is not None
                or status.__class__ is not int
                or status >= 500
                or not recorder.write_line(
                    self._scope,
                    found.line,
                    event_id=event_id,
                    request_id=self._request_id,
                    status=status,
                    seconds_to_first_byte=time.perf_counter() - self._began,
                    identity=admission.identity,
                    expires_at=self._claims.expires_at,
                    root=self._root,
                    root_path=self._root_path,
                    tables=tables,
                )
            ):
                recorder.decide(
                    self._scope,
                    self.trail,
                    status,
                    event_id=event_id,
                    seconds_to_first_byte=time.perf_counter() - self._began,
                    root=self._root,
                    root_path=self._root_path,
                )
        except AuditWriteError:
            self._decision_id = event_id
            raise
        self._decision_id = event_id  # not before: whatever else went wrong, the answer to that is recorded
        return edited

    @property
    def trail(self) -> Trail:
        """What the layers would have noted."""
        if self._trail is None:
            trail = self._trail = Trail(self._request_id)
            trail.read_headers(self._headers)
            trail.claims, trail.admission, trail.access = self._claims, self._admission, self.access
            trail.presented = trail.raw.get(b"authorization")
            self._admission.found.put_on(trail)
            trail.embed, trail.state = self._admission.embed, self._state
            if self._server is None:  # the connection is over
                trail.release()
            else:
                trail.audit = self
                trail.wrap(self._server)
        return self._trail

    def continued_by(self, recorder: Recorder) -> None:
        """See ``Connection``."""
        if not self._recorder.records:
            self._recorder = recorder

    def _general(self) -> Connection:
        """Who goes on where something else happens."""
        if self._connection is None:
            trail, server = self.trail, self._server
            assert server is not None  # noqa: S101 - until the end
            self._connection = Connection(
                self._recorder,
                self._scope,
                self._receive,
                trail.wrap(server),
                trail,
                server=server,
                arrived=Arrival(self._host, self._root, self._root_path, self._began),
            )
            self._connection.resume(
                self._decision_id,
                steps=len(self._steps),
                tables=self._tables,
                complete=self.complete,
                gone=self._gone,
                trailers=self._trailers,
            )
            self.complete = False  # from here on that is the other's to say
        return self._connection

    async def returned(self) -> None:
        """The app has returned before its answer was complete, or after an unusual one."""
        await self._general().returned()

    async def settled(self, error: BaseException) -> bool:
        """Answer for what the app raised; False where the server must hear of it too."""
        return await self._general().settled(error)

    def finish(self) -> None:
        """The connection is over."""
        trail = self._trail
        access = self.access if trail is None else trail.access  # as above
        if self.access is not None:
            # A task that outlives the connection still holds this object, and finds it closed.
            self.access.closed = True
        # Nearly every connection: nothing has changed since the decision was written.
        if (
            self._connection is not None
            or self._decision_id is None
            or (trail is not None and (trail.steps is not self._steps or trail.ended is not None))
            or (access is not None and len(access.tables) != len(self._tables))
        ):
            self._general().finish()
        # What refers back to us is let go of: we are freed at once, not by the collector. A task that outlives the
        # connection hears that it is over, and sends nothing.
        self._server = self._careful = self._connection = None
        self._receive, self._scope = _over, _NO_SCOPE
        if self._trail is not None:
            self._trail.release()
