"""Read audit files as lines, whatever rotation has made of them: plain, compressed, or a stream."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

# Lines of the guard are shorter; one of a gigabyte without an end must not fill the memory.
_LONGEST: Final = 64 * 1024
_PACKED: Final = b"\x1f\x8b"  # what gzip begins with (RFC 1952 §2.3.1)


def read_lines(path: Path, *, progress: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """The lines of a file with their newlines; ``-`` is standard input, what gzip packed is unpacked.

    A line of more than 64 KiB comes in parts.

    Args:
        path: The file.
        progress: Told how many bytes each line had.

    Raises:
        OSError: The file cannot be read.
        EOFError: A compressed file ends too early.
        zlib.error: A compressed file is damaged.
    """
    with _open(path) as stream:
        while line := stream.readline(_LONGEST):
            if progress is not None:
                progress(len(line))
            yield line


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    if str(path) == "-":
        yield sys.stdin.buffer  # not ours to close
        return
    with path.open("rb") as stream:
        # Rotation may name it as it likes; no line begins like this.
        if stream.peek(2)[:2] == _PACKED:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield cast("IO[bytes]", unpacked)
        else:
            yield stream
