"""The connection of a request that was let in without another look: recorded, edited and sent in one step.

Where receipts or a stream are concerned, what the app sends is looked at as the layers would.
"""

from __future__ import annotations

import sys

from starlette.types import Message, Receive, Scope, Send

from toucan_guard.admission import Admission
from toucan_guard.asgi import Refused
from toucan_guard.audited import Connection
from toucan_guard.core.errors import AuditWriteError
from toucan_guard.headers import name_of
from toucan_guard.live import Standing
from toucan_guard.receipts import HeldResponse
from toucan_guard.recorder import Recorder
from toucan_guard.trail import Trail


class AdmittedConnection(Connection):
    """See ``Connection``.

    Args:
        send: The server's.
        trail: Has the admission on it.
        standing: Says whether that still holds, while a stream lasts.
    """

    __slots__ = ("_admission", "_begun", "_careful", "_claims", "_standing")

    def __init__(
        self,
        recorder: Recorder,
        scope: Scope,
        receive: Receive,
        send: Send,
        trail: Trail,
        *,
        standing: Standing,
    ) -> None:
        super().__init__(recorder, scope, receive, trail.wrap(send), trail, server=send)
        assert trail.claims is not None  # noqa: S101 - put there with the admission
        self._claims = trail.claims  # a guard behind this one may verify others
        self._admission: Admission = trail.admission
        self._standing = standing
        self._begun = False
        self._careful: Send | None = None

    async def send(self, message: Message) -> None:
        """The app's ``send``."""
        kind, server = message["type"], self._server
        if self._careful is not None or server is None:
            pass
        elif self._begun:
            if kind == "http.response.body" and not message.get("more_body", False):
                await server(message)
                self._complete = not self._trailers
                return
        elif (
            kind == "http.response.start"
            and self._decision_id is None
            and not self._trail.required_tables
            and not isinstance(sys.exception(), Refused)
        ):
            edited = self._edited(message)
            try:
                self._decide(message.get("status"))
            except AuditWriteError:
                await self._withhold()
                raise
            self._begun = True
            self._trailers = bool(message.get("trailers", False))
            return await server(edited)
        await self._carefully(message)

    async def _carefully(self, message: Message) -> None:
        if self._careful is None:
            careful = self._standing.cutting(self._audited_send, self._claims, self._trail)
            if not self._begun and self._admission.embed.rls is not None:
                careful = HeldResponse(self._scope, self._receive, careful, self._trail).send
            self._careful = careful
        await self._careful(message)

    def _finish(self) -> None:
        super()._finish()
        self._careful = None  # it refers back to us

    def _edited(self, message: Message) -> Message:
        """The beginning of an answer as it leaves."""
        headers = list(message.get("headers", ()))
        added = self._admission.found.additions(b"\n".join(map(name_of, headers)), self._trail)
        if added is None:
            return self._trail.edited({**message, "headers": headers})
        return {**message, "headers": [*headers, *added]}
