"""A queue in front of a sink, for ``best_effort``: a slow pipe or disk does not stall the event loop.

The queue has a bound. When it is full, the newest event is the one that is dropped, and the next one that is
written says how many were. At the end what is in the queue is written, for a few seconds at most.
"""

from __future__ import annotations

import logging
import os
import threading
from queue import SimpleQueue
from typing import Final

from toucan_guard.audit.forks import tell_of_forks
from toucan_guard.audit.sinks import LineSink
from toucan_guard.core.audit_event import Event
from toucan_guard.core.errors import AuditWriteError

_log: Final = logging.getLogger("toucan_guard")
_SECONDS_TO_END: Final = 5.0


class QueuedSink:
    """Takes events at once, and lets a thread of its own write them.

    Args:
        sink: Where they are written; it counts what it drops.
        size: How many may wait.
    """

    takes_lines: Final = True

    def __init__(self, sink: LineSink, *, size: int) -> None:
        self._sink = sink
        self._size = size
        self._process: int | None = None
        self._starting = threading.Lock()
        tell_of_forks(self)
        self._refused = 0  # events that found the queue full since the last one that did not

    def write(self, event: Event | bytes) -> None:
        """See ``Sink``. What fails later is counted in the next event."""
        if self._process != os.getpid():
            with self._starting:
                if self._process != os.getpid():
                    self._start()
        if self._queue.qsize() >= self._size:
            self._refused += 1
            raise AuditWriteError("the queue of events is full")
        self._refused = 0
        self._queue.put(event)

    def close(self) -> None:
        """Write what waits, and see ``Sink``."""
        if self._process != os.getpid():
            return
        self._process = None
        self._queue.put(None)
        self._thread.join(_SECONDS_TO_END)
        if self._thread.is_alive():
            # The thread hangs in a write; closing under its hands would cut a line.
            _log.error("toucan_guard audit: about %d events were not written in time", self._queue.qsize())
        else:
            self._sink.close(dropped=self._refused)

    def _start(self) -> None:
        """Begin in this process: a thread does not come along through a fork."""
        self._refused = 0
        self._queue: SimpleQueue[Event | bytes | None] = SimpleQueue()
        self._thread = threading.Thread(
            target=self._write_all, args=(self._queue,), name="toucan_guard audit", daemon=True
        )
        self._thread.start()
        self._process = os.getpid()

    def after_fork(self) -> None:
        """Begin with a lock that nobody holds."""
        self._starting = threading.Lock()

    def _write_all(self, queue: SimpleQueue[Event | bytes | None]) -> None:
        while (event := queue.get()) is not None:
            try:
                self._sink.write(event)
            except AuditWriteError as error:
                _log.error("toucan_guard audit: %s", error)
