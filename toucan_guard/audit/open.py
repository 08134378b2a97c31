"""Open the sink that the configuration asks for."""

from __future__ import annotations

import atexit
import errno
import weakref
from pathlib import Path
from typing import Literal

from toucan_guard.audit.chain import Chain
from toucan_guard.audit.json_lines import fastest_dump
from toucan_guard.audit.queued import QueuedSink
from toucan_guard.audit.sinks import LineSink, Sink, StructlogSink
from toucan_guard.audit.writers import DescriptorWriter, FileWriter, Writer, stdout_descriptor
from toucan_guard.core.errors import ConfigError


def open_sink(
    target: str,
    *,
    mode: Literal["strict", "best_effort"] = "strict",
    queue_size: int = 10_000,
    chain_key: bytes | None = None,
    settings: str | None = None,
) -> Sink:
    """The sink that ``TOUCAN_GUARD_AUDIT`` names.

    Args:
        target: ``stdout``, ``structlog``, or a file's path.
        mode: ``strict`` writes before it returns; ``best_effort`` lets a thread write, but for structlog: how that
            is best called, only the host knows.
        queue_size: How many events may wait for that thread.
        chain_key: Keys the chain of lines; None chains them without a key.
        settings: A digest of the configuration, for the chain's first line.

    Raises:
        ConfigError: The file cannot be opened.
    """
    if target == "structlog":
        return StructlogSink()
    writer: Writer
    if target == "stdout":
        writer = DescriptorWriter(stdout_descriptor())
    else:
        try:
            writer = FileWriter(Path(target))
        except OSError as error:
            why = error.strerror
            if error.errno == errno.ENXIO:
                why = "it is a named pipe that nobody reads, or a socket: start the reader of the pipe first"
            raise ConfigError(
                f"TOUCAN_GUARD_AUDIT: the file {target!r} cannot be opened for appending ({why})"
            ) from None
    chain = Chain(chain_key, settings=settings, dump=fastest_dump())
    sink: LineSink | QueuedSink
    if mode == "strict":
        sink = LineSink(writer, chain)
    else:
        sink = QueuedSink(LineSink(writer, chain, counts=True), size=queue_size)
    # A guard around some routes only is not told when the end has come, unless by ``lifespan.py``.
    atexit.register(_close, weakref.ref(sink))
    return sink


def _close(sink: weakref.ref[LineSink | QueuedSink]) -> None:
    kept = sink()
    if kept is not None:
        kept.close()
