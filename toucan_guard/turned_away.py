"""A request that is refused as one before it was: the same answer with a reference of its own, and its own record.

Whoever asks in vain asks again: an expired token in a page that reloads, a stranger's page, a scanner. Refusing must
not cost more than serving. Kept is a refusal that follows from the configuration, from what the request's headers say,
and from what the verifier has just said of its token, and from nothing else: an origin that is not listed, no token, a
token that does not verify. The token is verified each time.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from starlette.types import Receive, Scope, Send

from toucan_guard.audited import Connection
from toucan_guard.core.decision_line import DecisionLine, nobody_text
from toucan_guard.core.decisions import Allow, Deny, Reason
from toucan_guard.core.errors import AuditWriteError
from toucan_guard.decision_facts import facts_of, line_of
from toucan_guard.headers import Header
from toucan_guard.ids import new_id
from toucan_guard.proxies import inherited_request_id
from toucan_guard.recorder import Recorder
from toucan_guard.refusals import refusal_response
from toucan_guard.trail import HeaderEdit, Step, Trail, trail_of

_MOST: Final = 256
_MOST_HEARD: Final = 1024
_LONGEST: Final = 1024  # bytes of what a request says
_ORIGIN, _TOKEN = "origin", "embed_token"  # the layers whose refusals are kept

Verdict = tuple[str, str] | None
"""What is known of the token: why it does not verify, as reason and detail; or nothing."""

NO_TOKEN: Final[Verdict] = (str(Reason.TOKEN_MISSING), "")
"""There is no token, nor anything else that could be one."""


class Refusal(NamedTuple):
    """An answer that can be given again.

    Attributes:
        status: Its status.
        headers: Its headers, as they left.
        before: Its body, in front of the request's id.
        after: And behind it.
        line: Writes the record.
        identity: See ``DecisionLine.of``.
        published: Whether ``request.state.embed`` was overwritten.
        steps: What the layers had decided.
        edits: What they do to the headers of an answer.
    """

    status: int
    headers: tuple[Header, ...]
    before: bytes
    after: bytes
    line: DecisionLine
    identity: str
    published: bool
    steps: tuple[Step, ...]
    edits: tuple[HeaderEdit, ...]

    async def answer(self, recorder: Recorder, scope: Scope, receive: Receive, send: Send, *, began: float) -> bool:
        """Refuse a request; False where that has to be worked out, because its record is a special one.

        Args:
            recorder: Writes the decision.
            scope: The request.
            receive: The server's.
            send: The server's.
            began: When the request arrived, by ``time.perf_counter``.
        """
        request_id, event_id = new_id(), new_id()
        if recorder.trusted_proxies:
            request_id = inherited_request_id(scope, recorder.trusted_proxies) or request_id
        if self.published:
            scope["state"] = {**(scope.get("state") or {}), "embed": None}
        try:
            recorded = recorder.write_line(
                scope,
                self.line,
                event_id=event_id,
                request_id=request_id,
                status=self.status,
                seconds_to_first_byte=time.perf_counter() - began,
                identity=self.identity,
                expires_at=None,
                root=scope.get("app") or recorder.routes_of,
                root_path=scope.get("root_path", ""),
            )
        except AuditWriteError:
            connection = self._connection(recorder, scope, receive, send, event_id=event_id, request_id=request_id)
            try:
                await connection.withhold()  # 503 in its place
            finally:
                connection.finish()
                trail_of(scope).release()
            return True
        if not recorded:
            return False
        body = b"%b%b%b" % (self.before, request_id.encode(), self.after)
        length = b"%d" % len(body)
        headers = [(name, length if name == b"content-length" else value) for name, value in self.headers]
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        except BaseException as error:
            connection = self._connection(recorder, scope, receive, send, event_id=event_id, request_id=request_id)
            await connection.settled(error)
            connection.finish()  # the record tells that the answer was cut
            trail_of(scope).release()
            raise
        return True

    def _connection(
        self, recorder: Recorder, scope: Scope, receive: Receive, send: Send, *, event_id: str, request_id: str
    ) -> Connection:
        """Who goes on where the refusal could not be recorded, or not be sent."""
        trail = trail_of(scope)
        trail.steps, trail.edits = self.steps, self.edits
        connection = Connection(recorder, scope, receive, trail.wrap(send), trail, server=send)
        trail.request_id = request_id
        connection.resume(event_id, steps=len(self.steps), tables=(), complete=False, gone=False, trailers=False)
        return connection


class Refusals:
    """The refusals that one guard can give again: few, and all are forgotten where there are more.

    Kept is what comes a second time: whoever says something else each time pushes nobody out, and costs little more.
    """

    def __init__(self) -> None:
        self._known: dict[object, Refusal] = {}
        self._heard: set[int] = set()  # hashes of what came once

    def of(self, said: object, accept: bytes | None, verdict: Verdict) -> Refusal | None:
        """How a request like this was refused, if one was.

        Args:
            said: What the request's headers say.
            accept: What it wants to read.
            verdict: What is known of its token.
        """
        known = self._known.get((said, accept))
        if known is None and verdict is not None:
            known = self._known.get((said, accept, verdict))
        return known

    def keep(self, scope: Scope, trail: Trail, said: object, accept: bytes | None, verdict: Verdict) -> None:
        """Keep the refusal of a request, if nothing else has led to it. See ``of``."""
        refusal = trail.refusal
        if refusal is None or not trail.steps or trail.claims is not None or trail.exempt or trail.said is None:
            return
        if len(trail.raw) != len(scope["headers"]):
            return  # what it wants to read may be said twice
        *before, last = trail.steps
        if (
            last.decision is not refusal
            or not last.enforced
            or not all(isinstance(step.decision, Allow) for step in before)
            or refusal.errors
            or refusal.explanation.status >= 500
            or len(accept or b"") + len(scope["method"]) + sum(map(len, filter(None, trail.said))) > _LONGEST
        ):
            return
        key: tuple[object, ...]
        if last.layer == _ORIGIN:
            key = said, accept
        elif last.layer == _TOKEN and verdict is not None and verdict == verdict_of(refusal):
            key = said, accept, verdict
        else:
            return
        if key in self._known or not self._comes_again(hash(key)):
            return
        facts = facts_of(trail)
        response = refusal_response(scope, refusal, trail.request_id)
        line = line_of(scope, trail, facts, response.status_code)
        around_id = response.body.split(trail.request_id.encode())
        if line is None or len(around_id) != 2:
            return
        before_id, after_id = around_id
        start = trail.edited({"type": "http.response.start", "headers": response.raw_headers})
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key] = Refusal(
            response.status_code,
            tuple(start["headers"]),
            before_id,
            after_id,
            line,
            nobody_text(facts.get("key_id")),
            trail.state is not None,
            trail.steps,
            trail.edits,
        )

    def _comes_again(self, heard: int) -> bool:
        if heard in self._heard:
            return True
        if len(self._heard) >= _MOST_HEARD:
            self._heard.clear()
        self._heard.add(heard)
        return False


def verdict_of(refusal: Deny) -> Verdict:
    """Why a token does not verify; None where that says too much of its own to be kept."""
    if refusal.facts or refusal.errors or refusal.status is not None:
        return None
    if refusal.reason == Reason.TOKEN_MISSING:
        return NO_TOKEN
    return str(refusal.reason), refusal.detail
