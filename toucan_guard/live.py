"""A connection that stays open is judged again while it lives: the time, the key and the list of revocations.

A WebSocket is watched, and closed soon after what let it in has ended. A streaming answer is cut at its next chunk. An
answer that is one piece pays for neither: it was judged when its request was there. A request whose body takes its time
is judged again when it comes: else somebody could hold it open until long after the token.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import anyio
import anyio.lowlevel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toucan_guard.asgi import Refused, close_code
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.token_policy import EMBED
from toucan_guard.tokens.cache import CachedVerifier
from toucan_guard.tokens.revoked import Revocations
from toucan_guard.trail import Trail, trail_of

DAWDLES_SECONDS: Final = 1.0  # a body that has not come by then comes late
_LAYER: Final = "revocation"
_LONGEST_SECONDS: Final = 5.0  # between two looks, whatever the declared time of revocations
_EXPIRED: Final = Deny(Reason.TOKEN_EXPIRED, "the token or session has run out while the connection was open")
_SOCKET_ENDS: Final = ("websocket.disconnect", "websocket.close", "websocket.http.response.start")


def _stands(claims: VerifiedClaims, now: float) -> bool:
    del claims, now
    return True  # nothing can be revoked


class Standing:
    """Whether what let a connection in still holds.

    Args:
        verifier: Knows the policy and the keys of now.
        revocations: What was withdrawn before its end; None where nothing can be.
        insecure_store_fail_open: A list of revocations that is too old to tell refuses nobody. Recorded each time.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        verifier: CachedVerifier,
        revocations: Revocations | None,
        *,
        insecure_store_fail_open: bool,
        clock: Callable[[], float],
    ) -> None:
        self._verifier = verifier
        self._revocations = revocations
        self.holds: Final[Callable[[VerifiedClaims, float], bool]] = (
            _stands if revocations is None else revocations.clears
        )
        """Whether nothing was revoked, as far as that can be said at once. False says nothing: ask ``revoked``."""
        self._fail_open = insecure_store_fail_open
        self._clock = clock
        staleness = _LONGEST_SECONDS * 4 if revocations is None else revocations.staleness_seconds
        # A copy is renewed when it is half as old as it may be; by the look after that, the news are here.
        self._every_seconds = min(staleness / 4, _LONGEST_SECONDS)

    async def revoked(self, claims: VerifiedClaims, trail: Trail) -> Deny | None:
        """Whether the token or session behind these claims was revoked."""
        if self._revocations is None:
            return None
        await self._revocations.keep_fresh()
        refusal = self._revocations.judge(claims, self._clock())
        if refusal is None or refusal.reason != Reason.STORE_UNAVAILABLE or not self._fail_open:
            return refusal
        if not any(step.decision is refusal for step in trail.steps):
            trail.add(_LAYER, refusal, report_only=True)
        return None

    async def ended(self, claims: VerifiedClaims, trail: Trail) -> Deny | None:
        """Whether a connection that these claims let in must end now.

        Args:
            claims: What was verified when the connection began.
            trail: Of the connection.
        """
        now = self._clock()
        if claims.token_type != EMBED and not claims.expires_at > now:
            return _EXPIRED
        checked = self._verifier.recheck(claims, now=now)
        if self._verifier.lacks_key(checked) and await self._verifier.look_again(claims):
            checked = self._verifier.recheck(claims, now=self._clock())
        if isinstance(checked, Deny):
            return _EXPIRED if checked.reason == Reason.TOKEN_EXPIRED else checked
        return await self.revoked(claims, trail)

    def arriving(self, receive: Receive, claims: VerifiedClaims, trail: Trail) -> Receive:
        """A ``receive`` that hands no more of a body over once the token or session has ended."""
        began = time.perf_counter()

        async def arrived() -> Message:
            message = await receive()
            if message["type"] == "http.request" and time.perf_counter() - began > DAWDLES_SECONDS:
                await self.came_late(claims, trail)
            return message

        return arrived

    async def came_late(self, claims: VerifiedClaims, trail: Trail) -> None:
        """Judge a request again of which a part came late.

        Raises:
            Refused: The token or session has ended. ``cutting`` lets no answer of the app's begin then.
        """
        if trail.ended is None:
            trail.ended = await self.ended(claims, trail)
            if trail.ended is not None:
                trail.add("embed_token", trail.ended)
        if trail.ended is not None:
            raise Refused(trail.ended)

    def cutting(self, send: Send, claims: VerifiedClaims, trail: Trail) -> Send:
        """A ``send`` that lets no further chunk of a stream pass once the token or session has ended.

        It raises ``Refused``, so that the app stops; what an app says on in spite of it is not sent either. The client
        sees that the answer is incomplete, because its last chunk never comes.
        """
        streaming = False

        async def cut(message: Message) -> None:
            nonlocal streaming
            if message["type"] == "http.response.body":
                more = message.get("more_body", False)
                # The last chunk of a stream is often empty: then everything was sent.
                if trail.ended is None and (more or (streaming and message.get("body"))):
                    trail.ended = await self.ended(claims, trail)
                if trail.ended is not None:
                    raise Refused(trail.ended)
                streaming = more
            elif trail.ended is not None and message["type"] == "http.response.start":
                raise Refused(trail.ended)
            await send(message)

        return cut

    async def while_it_holds(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, claims: VerifiedClaims
    ) -> None:
        """Run a WebSocket until its token or session ends, and then refuse it (1008, RFC 6455 §7.4.1).

        The app runs in the task that called; what watches it ends with it, or with the socket.
        """
        trail = trail_of(scope)
        until = self._end_in_time(claims)
        life, watching = anyio.CancelScope(), anyio.CancelScope()
        failed: BaseException | None = None
        over = False

        def noticed(message: Message) -> None:
            nonlocal over
            if message["type"] in _SOCKET_ENDS:
                over = True
                watching.cancel()  # what the app does afterwards is no longer a connection

        async def in_time() -> None:
            # Messages that come or go without a pause keep the event loop from the watch: for many seconds, or, where
            # what is said in vain never waits, for ever.
            if over:
                return
            if trail.ended is None and self._clock() >= until:
                trail.ended = _EXPIRED
                life.cancel()
            if trail.ended is not None:
                await anyio.lowlevel.checkpoint()

        async def watched_receive() -> Message:
            message = await receive()
            noticed(message)
            await in_time()
            return message

        async def watched_send(message: Message) -> None:
            noticed(message)
            await in_time()
            if over or trail.ended is None:
                await send(message)
            # Otherwise the app has been told to stop, and speaks on.

        async def watch() -> None:
            with watching:
                trail.ended = await self._end_of(claims, trail)
                life.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            with life:
                try:
                    await app(scope, watched_receive, watched_send)
                except anyio.get_cancelled_exc_class():
                    raise
                except BaseException as error:  # noqa: BLE001 - raised below: a task group would wrap it
                    failed = error
            watching.cancel()
        if failed is not None:
            raise failed
        if trail.ended is None or over:
            return
        if trail.audit is not None:
            raise Refused(trail.ended)
        await send({"type": "websocket.close", "code": close_code(trail.ended), "reason": str(trail.ended.reason)})

    def _end_in_time(self, claims: VerifiedClaims) -> float:
        """When these claims run out, in seconds since the epoch."""
        return claims.expires_at + (self._verifier.policy.leeway_seconds if claims.token_type == EMBED else 0)

    async def _end_of(self, claims: VerifiedClaims, trail: Trail) -> Deny:
        """Wait until what these claims let in must end."""
        # By the steady clock too: the other one may be set back.
        last = anyio.current_time() + self._end_in_time(claims) - self._clock()
        while True:
            left = last - anyio.current_time()
            if left <= 0:
                return _EXPIRED
            await anyio.sleep(min(left, self._every_seconds))
            ended = await self.ended(claims, trail)
            if ended is not None:
                return ended
