"""Which lines of a chain were met, and what each of them was: eight bytes for each line.

The eight bytes are a digest under a key that is made anew for each verification. Nobody can prepare two lines that
share one.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

from toucan_guard.core.audit_chain import Link

UNSOUND: Final = 0  # the mark of a line that fails its own check: it is like no other


class Marks(Protocol):
    """Makes a line's mark: the same for the same bytes, and never ``UNSOUND``."""

    def __call__(self, link: Link, *, sound: bool) -> int:
        """The mark of a line; ``sound`` says that its digest was made of its body, and so stands for it."""
        ...


class Before(NamedTuple):
    """A line that was met before under the same number.

    Attributes:
        file: The file in which it stood.
        mark: What it was, or ``UNSOUND``.
    """

    file: str
    mark: int


def make_marks() -> Marks:
    """Marks under a key that nobody has."""
    keyed = blake2b(key=os.urandom(32), digest_size=8)

    def mark(link: Link, *, sound: bool) -> int:
        made = keyed.copy()
        digest = link.digest.encode()
        made.update(digest if sound else b"%b%d%b" % (digest, link.keyed, link.body))
        return int.from_bytes(made.digest(), "big") or 1

    return mark


class SeenLines:
    """The lines of one chain that were met, in pieces of consecutive ones from one file.

    Attributes:
        count: How many there are, each number once.
    """

    def __init__(self) -> None:
        self.count = 0
        self._firsts: list[int] = []
        self._pieces: list[array[int]] = []
        self._files: list[str] = []

    def meet(self, number: int, file: str, mark: int) -> Before | None:
        """Take a line; what was met before under its number, or None where it is new.

        A sound line takes the place of an unsound one.
        """
        at = bisect_right(self._firsts, number) - 1
        if at >= 0:
            piece = self._pieces[at]
            offset = number - self._firsts[at]
            if offset < len(piece):
                before = Before(self._files[at], piece[offset])
                piece[offset] = before.mark or mark
                return before
            if offset == len(piece) and self._files[at] == file:
                piece.append(mark)
                self.count += 1
                return None
        self._firsts.insert(at + 1, number)
        self._pieces.insert(at + 1, array("Q", (mark,)))
        self._files.insert(at + 1, file)
        self.count += 1
        return None
