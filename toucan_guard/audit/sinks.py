"""Where audit events go: stdout, a file, or the host's own structlog pipeline.

A write means that ``write(2)`` returned with the whole line: one ``os.write`` for each
event. What could not be written whole raises ``AuditWriteError``, and the audit layer
decides what that means for the response. The library never calls ``structlog.configure``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from toucan_guard.core.audit_event import Event, encode_line
from toucan_guard.core.errors import AuditWriteError, ConfigError

_LOGGER_NAME: Final = "toucan_guard.audit"

# Observers see every event before it is written; ``toucan_guard.testing.audit_capture`` is one.
observers: Final[list[Callable[[Event], None]]] = []


class Sink(Protocol):
    """Takes one event at a time."""

    def write(self, event: Event) -> None:
        """Write the event; raises ``AuditWriteError`` where it could not be written whole."""
        ...

    def close(self) -> None:
        """Give back what the sink holds. Writing after it opens it again."""
        ...


def open_sink(target: str) -> Sink:
    """The sink that ``TOUCAN_GUARD_AUDIT`` names: ``stdout``, ``structlog``, or a file's path."""
    if target == "stdout":
        return LineSink(_DescriptorWriter(_stdout_descriptor()))
    if target == "structlog":
        return StructlogSink()
    try:
        return LineSink(_FileWriter(Path(target)))
    except OSError as error:
        raise ConfigError(
            f"TOUCAN_GUARD_AUDIT: the file {target!r} cannot be opened for appending ({error.strerror})"
        ) from None


class LineSink:
    """JSON lines through structlog, one ``os.write`` each."""

    def __init__(self, writer: _DescriptorWriter | _FileWriter) -> None:
        # Imported where the stack is built: structlog loads rich where that is installed.
        import structlog

        self._writer = writer
        self._log = structlog.wrap_logger(
            writer, processors=[_render_line], wrapper_class=structlog.BoundLogger, context_class=dict
        )

    def write(self, event: Event) -> None:
        """See ``Sink``."""
        try:
            self._log.info(**event)
        except OSError as error:
            raise AuditWriteError(f"an audit line could not be written ({error.strerror})") from None

    def close(self) -> None:
        """See ``Sink``."""
        self._writer.close()


class StructlogSink:
    """The host's own structlog pipeline, configured by the host: what that filters out is not recorded."""

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


def _render_line(_logger: Any, _method: str, event: Any) -> bytes:
    return encode_line(event)


class _DescriptorWriter:
    """Writes lines to an open descriptor. ``info`` is the method that structlog calls."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._cut = False

    def info(self, line: bytes) -> None:
        if self._cut:
            # The line before was cut; it must not swallow this one.
            line = b"\n" + line
        written = os.write(self._descriptor, line)
        if written:
            self._cut = written != len(line)
        if written != len(line):
            raise OSError(0, "the line was cut")

    def close(self) -> None:
        """The descriptor is not ours to close."""


class _FileWriter(_DescriptorWriter):
    """Appends lines to a file, opened at once so that a mistake shows at start-up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = False
        super().__init__(self._open())

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def info(self, line: bytes) -> None:
        if self._closed:
            self._descriptor = self._open()
            self._closed = False
        super().info(line)

    def close(self) -> None:
        if not self._closed:
            os.close(self._descriptor)
            self._closed = True


def _stdout_descriptor() -> int:
    """The descriptor of standard output, also where somebody has put an object of their own in its place."""
    try:
        return sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return 1
