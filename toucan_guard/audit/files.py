"""Read audit files as lines, whatever rotation has made of them: plain, compressed, or a stream."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

# Lines of the guard are shorter; one of a gigabyte without an end must not fill the memory.
_LONGEST: Final = 64 * 1024


def read_lines(path: Path, *, progress: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """The lines of a file with their newlines; ``-`` is standard input, ``.gz`` is unpacked.

    A line of more than 64 KiB comes in parts.

    Args:
        path: The file.
        progress: Told how many bytes each line had.

    Raises:
        OSError: The file cannot be read.
        EOFError: A compressed file ends too early.
    """
    with _open(path) as stream:
        while line := stream.readline(_LONGEST):
            if progress is not None:
                progress(len(line))
            yield line


def _open(path: Path) -> BinaryIO:
    if str(path) == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    if path.suffix == ".gz":
        return cast("BinaryIO", gzip.open(path, "rb"))
    return path.open("rb")
