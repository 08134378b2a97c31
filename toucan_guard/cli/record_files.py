"""The files of a record, as commands are given them: each is read once, and one that cannot be read hides no other."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import Progress

from toucan_guard.audit.files import is_damage, read_lines
from toucan_guard.cli.output import complain, err


class RecordFiles:
    """Files that were named on the command line.

    Args:
        paths: In any order, some of them perhaps several times; ``-`` is standard input.

    Attributes:
        unique: Each of them once.
        again: Those that were named before, each with its other name.
        unread: What could not be read, or only in part, and why; complete when ``lines`` has come to its end.
        damaged: Those of them of which other lines were read than were packed.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        first: dict[tuple[int, int] | str, Path] = {}
        self.again = [(path, other) for path in paths if (other := first.setdefault(identity(path), path)) is not path]
        self.unique = list(first.values())
        self.unread: dict[str, str] = {}
        self.damaged: set[str] = set()

    def lines(self) -> Iterator[tuple[str, int, bytes]]:
        """Every line: its file, its number in that, and its bytes; with a progress bar on a terminal.

        A file that cannot be read is complained of, and the next one is read.
        """
        sizes = [_size_of(path) for path in self.unique]
        total = None if None in sizes else sum(filter(None, sizes))
        with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
            task = bar.add_task("reading", total=total)
            for path in self.unique:
                name, number, size = name_of(path), 0, 0
                try:
                    for number, line in enumerate(read_lines(path), 1):
                        size += len(line)
                        if number % 5000 == 0:
                            bar.update(task, advance=size)
                            size = 0
                        yield name, number, line
                except IsADirectoryError:
                    self._cannot_read(name, "is a folder: name the files in it")
                except (OSError, EOFError, zlib.error) as error:
                    if is_damage(error):
                        self.damaged.add(name)
                    behind = f" behind line {number}" if number else ""
                    self._cannot_read(name, f"cannot be read{behind} ({getattr(error, 'strerror', None) or error})")

    def _cannot_read(self, name: str, why: str) -> None:
        self.unread[name] = why
        complain(f"{name} {why}")


def name_of(path: Path) -> str:
    """What a file is called in what is said of it."""
    return "standard input" if str(path) == "-" else str(path)


def identity(path: Path) -> tuple[int, int] | str:
    """The same for every name of one file."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return str(path)
    return state.st_dev, state.st_ino


def _size_of(path: Path) -> int | None:
    """How many bytes there are to read, where that is known: not of a pipe, nor of what has to be unpacked."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size if stat.S_ISREG(state.st_mode) and path.suffix != ".gz" else None
