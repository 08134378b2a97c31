"""Read audit files as lines, whatever rotation has made of them: plain, compressed, or a stream."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

# Lines of the guard are shorter; one of a gigabyte without an end must not fill the memory.
_LONGEST: Final = 64 * 1024
_PACKED: Final = b"\x1f\x8b"  # what gzip begins with (RFC 1952 §2.3.1)
_ZEROS: Final = 16  # more than a packed file ends in


def read_lines(path: Path, *, progress: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """The lines of a file with their newlines; ``-`` is standard input, what gzip packed is unpacked.

    A line of more than 64 KiB comes in parts, but for bytes of zero in front of it: a file that was emptied while
    somebody wrote into it begins with as many as there were in it before.

    Args:
        path: The file.
        progress: Told how many bytes each line had.

    Raises:
        OSError: The file cannot be read.
        EOFError: A compressed file ends too early.
        zlib.error: A compressed file is damaged.
    """
    with _open(path) as stream:
        while line := _next_line(stream):
            if progress is not None:
                progress(len(line))
            yield line


def _next_line(stream: IO[bytes]) -> bytes:
    line = stream.readline(_LONGEST)
    while line.startswith(b"\0") and not line.endswith(b"\n") and len(rest := line.lstrip(b"\0")) < _LONGEST // 2:
        more = stream.readline(_LONGEST)
        if not more:
            break
        line = b"\0" + rest + more
    return line


def is_damage(error: Exception) -> bool:
    """Whether what was read before this error of ``read_lines`` need not be what was packed.

    The checksum, which comes last, does not fit, or there is something that cannot be unpacked. A file that only ends
    too early was the same up to there.
    """
    return isinstance(error, zlib.error) or (isinstance(error, gzip.BadGzipFile) and not _is_another(error))


def _is_another(error: gzip.BadGzipFile) -> bool:
    """Whether something that is not packed stands behind what is, or in its place."""
    return str(error).startswith(("Not a gzipped file", "Unknown compression method"))


def _ends_in_zeros(stream: IO[bytes]) -> bool:
    """Whether a machine has stopped before all of the file was on its disk."""
    if not stream.seekable():
        return False
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _ZEROS))
    return stream.read() == bytes(_ZEROS)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    if str(path) == "-":
        yield sys.stdin.buffer  # not ours to close
        return
    with path.open("rb") as stream:
        # Rotation may name it as it likes; no line begins like this.
        if stream.peek(2)[:2] == _PACKED:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                try:
                    yield cast("IO[bytes]", unpacked)
                except EOFError:
                    if _ends_in_zeros(stream):
                        raise zlib.error("it ends in zeros, which were unpacked too") from None
                    raise
        else:
            yield stream
