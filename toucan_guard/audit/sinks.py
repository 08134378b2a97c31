"""Where audit events go: stdout, a file, or the host's own structlog pipeline.

A write means that ``write(2)`` returned with the whole line: one ``os.write`` for each
event. What could not be written whole raises ``AuditWriteError``, and the audit layer
decides what that means for the response. The library never calls ``structlog.configure``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from toucan_guard.audit.chain import Chain
from toucan_guard.audit.forks import tell_of_forks
from toucan_guard.audit.writers import LineCut, Writer
from toucan_guard.core.audit_event import Event, close_event
from toucan_guard.core.errors import AuditWriteError

_LOGGER_NAME: Final = "toucan_guard.audit"

# Observers see every event before it is written; ``toucan_guard.testing.audit_capture`` is one.
observers: Final[list[Callable[[Event], None]]] = []


class Sink(Protocol):
    """Takes one event at a time.

    A sink that has an attribute ``takes_lines``, and it is true, also takes one JSON line in the event's place, its
    newline included: an event that somebody has encoded already.
    """

    def write(self, event: Any) -> None:
        """Write the event; raises ``AuditWriteError`` where it could not be written whole."""
        ...

    def close(self) -> None:
        """Give back what the sink holds. Writing after it opens it again."""
        ...


class LineSink:
    """Chained JSON lines through structlog, one ``os.write`` each.

    Args:
        writer: Where lines go.
        chain: Links them.
        counts: Put into each event how many were dropped here since the last one that was written; else whoever
            writes does so, who hears of every failure.
    """

    takes_lines: Final = True

    def __init__(self, writer: Writer, chain: Chain, *, counts: bool = False) -> None:
        # Imported where the stack is built: structlog loads rich where that is installed.
        import structlog

        self._writer = writer
        self._chain = chain
        self._counts = counts
        self._dropped = 0
        self._lock = threading.Lock()
        tell_of_forks(self)

        class Logger(structlog.BoundLoggerBase):
            """Has one method and no context: an event comes here whole, and linking it is all that is done."""

            def info(self, event: Event | bytes) -> None:
                line = chain.link(event)
                try:
                    self._logger.info(line)
                except BaseException as error:  # whatever it was, the line is taken back
                    chain.cut(error.written if isinstance(error, LineCut) else 0)
                    raise

        self._log: Any = structlog.wrap_logger(writer, processors=[], wrapper_class=Logger, context_class=dict).bind()

    def write(self, event: Event | bytes) -> None:
        """See ``Sink``."""
        with self._lock:
            if self._dropped and self._counts:
                event = _event(event)
                event = {**event, "dropped": event.get("dropped", 0) + self._dropped}
            try:
                if not self._chain.begun:
                    self._begin()
                self._log.info(event)
            except OSError as error:
                self._dropped = _event(event).get("dropped", 0) + 1
                raise AuditWriteError(f"an audit line could not be written ({error.strerror})") from None
            self._dropped = 0

    def close(self, *, dropped: int = 0) -> None:
        """End the chain, and see ``Sink``.

        Args:
            dropped: Events that did not come as far as this sink since the last one that did.
        """
        if self._chain.begun:
            with self._lock:
                with suppress(OSError):  # a chain without its last line is reported as what it is
                    self._log.info(close_event(now=self._chain.now(), dropped=self._dropped + dropped))
                    self._dropped = 0
                self._chain.end()
        self._writer.close()

    def after_fork(self) -> None:
        """Begin without what the parent has counted, and with a lock that nobody holds."""
        self._dropped = 0
        self._lock = threading.Lock()

    def _begin(self) -> None:
        opened = self._chain.begin()
        try:
            self._log.info(opened)
        except OSError:
            self._chain.end()  # nothing can follow a first line that is not there
            raise


def _event(event: Event | bytes) -> Event:
    if isinstance(event, bytes):
        read: Event = json.loads(event)
        return read
    return event


class StructlogSink:
    """The host's own structlog pipeline, configured by the host: what that filters out is not recorded.

    Events are not chained: what becomes of the bytes is the pipeline's.
    """

    def __init__(self) -> None:
        import structlog

        self._log = structlog.get_logger(_LOGGER_NAME)

    def write(self, event: Event) -> None:
        """See ``Sink``. Whatever the host's processors raise means that the event was not written."""
        try:
            self._log.info(event["event"], **{name: value for name, value in event.items() if name != "event"})
        except Exception as error:  # noqa: BLE001 - the pipeline is the host's, so is what it may raise
            raise AuditWriteError(f"the host's structlog pipeline failed ({type(error).__name__})") from None

    def close(self) -> None:
        """Nothing to give back: the pipeline is the host's."""
