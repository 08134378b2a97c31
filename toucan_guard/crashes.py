"""What a crash of the app is answered with: the host's own answer, where it has one; else the guard's page.

Starlette answers for an app that has no handler for crashes, in plain text. Whoever sits in front of the chart then
has nothing to tell support but that it failed. The guard's answer has the reference under which the crash is on record.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.refusals import RefusalResponse, refusal_response

_CATCHES: Final = "ServerErrorMiddleware.__call__"
_log: Final = logging.getLogger("toucan_guard")


def answers_to(error: Exception, *, app: Any, host: Any, request_id: str) -> Iterator[ASGIApp]:
    """What may answer a crash, in order: the next one is for where the one before has failed itself.

    Each answers as Starlette does, and raises the error again if it was a crash.

    Args:
        error: What the app raised.
        app: The app that was called last, as the scope names it.
        host: The app around our routes, whose other handlers stand outside of our headers; None where that is ours.
        request_id: The reference.
    """

    async def raising(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    async def page(request: Request, _error: Exception) -> Any:
        return crash_page(request.scope, error, request_id)

    crashed: ASGIApp = raising
    if host is not None:
        # An unknown path is their 404.
        crashed = ExceptionMiddleware(raising, _without_crashes(getattr(host, "exception_handlers", {})))
    handlers = getattr(app, "exception_handlers", {})
    own = handlers.get(500) or handlers.get(Exception)
    debug = bool(getattr(app, "debug", False))
    if debug or own is not None:
        yield ServerErrorMiddleware(crashed, handler=own, debug=debug)
    yield ServerErrorMiddleware(crashed, handler=page)


def crash_page(scope: Scope, error: BaseException, request_id: str) -> RefusalResponse:
    """The guard's own answer to a crash; the log says which one has this reference."""
    _log.error("toucan_guard: the app raised %s; its answer has the reference %s", type(error).__name__, request_id)
    try:
        return refusal_response(scope, Deny(Reason.APP_FAILED), request_id)
    except Exception:  # noqa: BLE001 - an app that fails may have left anything in the place of the headers
        return refusal_response({**scope, "headers": []}, Deny(Reason.APP_FAILED), request_id)


def answered_by_starlette() -> ServerErrorMiddleware | None:
    """Who is answering a crash, inside this layer, and raises it again when the answer has left."""
    error = sys.exception()
    if not isinstance(error, Exception) or error.__traceback__ is None:
        return None
    # Whoever has caught the exception last stands where its traceback begins.
    frame = error.__traceback__.tb_frame
    if frame.f_code.co_qualname != _CATCHES:
        return None
    names = frame.f_locals
    catching = names.get("self")
    if isinstance(names, dict):
        names.clear()  # before Python 3.13 a copy that the frame keeps: the crash would keep itself alive
    return catching if isinstance(catching, ServerErrorMiddleware) else None


def left_to_starlette(message: Message) -> Exception | None:
    """The crash that Starlette itself is about to answer, inside this layer, for an app that has no handler for it.

    Args:
        message: What is about to leave.

    Returns:
        The crash; None where the answer is somebody's own.
    """
    if message.get("status") != 500:
        return None
    error, catching = sys.exception(), answered_by_starlette()
    if type(catching) is not ServerErrorMiddleware or catching.handler is not None or catching.debug:
        return None
    is_plain = any(
        name == b"content-type" and value.startswith(b"text/plain") for name, value in message.get("headers") or ()
    )
    return error if is_plain and isinstance(error, Exception) else None


def _without_crashes(handlers: Mapping[Any, Any]) -> dict[Any, Any]:
    """The handlers that stand around the router; those for crashes stand outermost, as in Starlette."""
    return {error: handler for error, handler in handlers.items() if error not in (500, Exception)}
