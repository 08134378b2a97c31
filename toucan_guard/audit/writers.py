"""Where bytes go: an open descriptor, or a file that an outside tool may rotate.

One ``os.write`` for each line. ``info`` is the method that structlog calls.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from toucan_guard.audit.forks import tell_of_forks

_LOOK_EVERY_SECONDS: Final = 0.001
_NEVER: Final = float("-inf")


class LineCut(OSError):
    """Some bytes of a line were written, and not all.

    Attributes:
        written: How many.
    """

    def __init__(self, written: int) -> None:
        self.written = written
        super().__init__(0, "the line was cut")


class Writer(Protocol):
    """Takes one line at a time."""

    def info(self, line: bytes) -> None:
        """Write the line; raises ``LineCut``, or another ``OSError`` where nothing of it was written."""
        ...

    def close(self) -> None:
        """Give back what is held. Writing after it opens it again."""
        ...


class DescriptorWriter:
    """Writes lines to an open descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mend = b""
        tell_of_forks(self)

    def after_fork(self) -> None:
        """A line that was cut is the parent's to mend; what is written behind it here is found all the same."""
        self._mend = b""

    def info(self, line: bytes) -> None:
        """See ``Writer``."""
        # The line before was cut; it must not swallow this one.
        mended = self._mend + line
        written = os.write(self._descriptor, mended)
        if self._mend or written != len(line):
            self._look_at(written - len(self._mend), len(line))

    def _look_at(self, written: int, length: int) -> None:
        """Of a line of this length so much was written, behind what had to be mended."""
        if written >= 0:
            self._mend = b""
        if written == length:
            return
        if written > 0:
            self._mend = b"\n"
            # All but its newline, which goes in front of the next: the line is whole.
            if written == length - 1:
                return
        raise LineCut(max(written, 0))

    def close(self) -> None:
        """The descriptor is not ours to close."""


class FileWriter(DescriptorWriter):
    """Appends lines to a file, opened at once so that a mistake shows at start-up.

    Where the path leads to another file than the one that is open, or to none, it is opened anew: so ``logrotate``
    needs neither a signal nor ``copytruncate``. The look costs as much as the write. One is enough for the lines of a
    millisecond: whoever has renamed the file needs longer than that to start a process that compresses it, so what
    still goes into the old one is there when it is read. A program that renames and reads in one go has to wait.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = str(path)
        self._clock = clock
        self._looked_at = _NEVER
        self._identity: tuple[int, int] | None = None
        super().__init__(self._open())

    def _open(self) -> int:
        # A named pipe that nobody reads would let us wait for a reader, at the start or in the middle of a request.
        how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, how, 0o640)
        os.set_blocking(descriptor, True)
        state = os.fstat(descriptor)
        self._identity = (state.st_dev, state.st_ino)
        return descriptor

    def info(self, line: bytes) -> None:
        """See ``Writer``."""
        now = self._clock()
        if not 0 <= now - self._looked_at < _LOOK_EVERY_SECONDS:
            self._look()
            self._looked_at = now
        try:
            super().info(line)
        except OSError:
            self._looked_at = _NEVER  # the next line may find another file
            raise

    def _look(self) -> None:
        if self._identity is None:
            self._descriptor = self._open()
            return
        try:
            state = os.stat(self._path)  # noqa: PTH116 - half as dear as Path.stat
        except FileNotFoundError:
            self._reopen()
        else:
            if (state.st_dev, state.st_ino) != self._identity:
                self._reopen()

    def _reopen(self) -> None:
        # Opened before the old one is closed: a folder that is gone must not cost us the file that we have.
        old, self._descriptor = self._descriptor, self._open()
        os.close(old)
        self._mend = b""

    def close(self) -> None:
        """See ``Writer``."""
        if self._identity is not None:
            self._identity = None
            self._looked_at = _NEVER
            os.close(self._descriptor)  # where that fails it is closed all the same, and its number soon another's

    def __del__(self) -> None:
        """A guard that nobody holds any more, and nobody has closed, keeps no file open."""
        self.close()


def stdout_descriptor() -> int:
    """The descriptor of standard output, also where somebody has put an object of their own in its place."""
    try:
        return sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return 1
