"""Read a file whole that an operator has named, whatever it is: a file, a pipe with a secret, a device.

Opening a named pipe waits for somebody who writes, and a start that waits says nothing. So it is not waited for
without an end, and it is said what is waited for.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path
from typing import Final

_PIECE: Final = 65_536
_AT_ONCE: Final = getattr(os, "O_NONBLOCK", 0)  # where there is none, there are no named pipes in folders either
_SILENCE_SECONDS: Final = 10.0  # what fetches a secret from somewhere else may take its time, and writes then


def read_whole(path: Path, *, most: int) -> tuple[os.stat_result, bytes]:
    """What stands in it, and what its file system says of it.

    Args:
        path: Where it is.
        most: So many bytes are read, and one more: a device may have no end.

    Raises:
        OSError: It cannot be read; ``TimeoutError`` for a pipe into which nobody writes.
        ValueError: This is no path.
    """
    with open(path, "rb", buffering=0, opener=_open_at_once) as file:
        descriptor = file.fileno()
        state = os.fstat(descriptor)
        is_pipe = stat.S_ISFIFO(state.st_mode)
        if not is_pipe and _AT_ONCE:
            os.set_blocking(descriptor, True)
        content = bytearray()
        while len(content) <= most:
            if is_pipe:
                _wait(descriptor)
            part = file.read(min(_PIECE, most + 1 - len(content)))
            if part is None:
                continue  # somebody else has read what was there
            if not part:
                break
            content += part
        return state, bytes(content)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | _AT_ONCE)


def _wait(pipe: int) -> None:
    """Wait until something was written, or whoever wrote has closed it."""
    ready = select.poll()
    ready.register(pipe, select.POLLIN)
    if not ready.poll(_SILENCE_SECONDS * 1000):
        told = f"it is a pipe, and nobody has written into it for {_SILENCE_SECONDS:g} seconds"
        raise TimeoutError(errno.ETIMEDOUT, told)
