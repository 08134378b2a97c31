"""What is to be said of a whole file, once: its line ends, its empty lines, what of it was given twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from toucan_guard.audit.joins import are, lines
from toucan_guard.audit.verdict import Findings, Place

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_MOST_NAMES: Final = 3


@dataclass(slots=True)
class FileNotes:
    """Counts what is alike in many lines of one file.

    Attributes:
        file: Its name.
        last: The place of the last line that was taken.
        linked: How many lines of chains stand in it.
        copied: How many of these stood in another file before, byte for byte.
        others: How many lines of other programs stand in it.
    """

    file: str
    last: int = 0
    linked: int = 0
    copied: int = 0
    others: int = 0
    _first_copied: int = 0
    _others: dict[str, None] = field(default_factory=dict)
    _blank: int = 0
    _first_blank: int = 0
    _first_zeros: int = 0
    _unknown: bool = False
    _windows: int = 0
    _first_windows: int = 0
    _plain: int = 0
    _marked: bool = False

    def content_of(self, line: bytes, number: int) -> bytes:
        """The line as it was written, without its end and what Windows puts around it."""
        self.last = number
        content = line.rstrip(b"\r\n") if line.endswith((b"\r", b"\r\n")) else line.removesuffix(b"\n")
        if number == 1 and content.startswith(_BYTE_ORDER_MARK):
            self._marked = True
            return content.removeprefix(_BYTE_ORDER_MARK)
        return content

    def without_zeros(self, content: bytes, number: int) -> bytes:
        """What is no line, without the bytes of zero around it, which are noted."""
        rest = content.strip(b"\0")
        self._unknown = self._unknown or bool(rest)
        if len(rest) < len(content):
            self._first_zeros = self._first_zeros or number
        return rest

    def take_end(self, line: bytes, number: int) -> None:
        """Note how a line of the guard's ends; the last one of a file may have no end."""
        if line.endswith((b"\r", b"\r\n")):
            self._first_windows = self._first_windows or number
            self._windows += 1
        elif line.endswith(b"\n"):
            self._plain += 1

    def take_blank(self, number: int) -> None:
        """Note an empty line."""
        self._first_blank = self._first_blank or number
        self._blank += 1

    def take_copy(self, other: str, number: int) -> None:
        """Note a line that stood in another file before."""
        self._first_copied = self._first_copied or number
        self.copied += 1
        if len(self._others) <= _MOST_NAMES:
            self._others[other] = None

    def finish(self, findings: Findings) -> None:
        """Say what was noted."""
        if self._blank:
            what = "An empty line" if self._blank == 1 else f"{self._blank} empty lines, this is the first"
            findings.add("blank", Place(self.file, self._first_blank), None, f"{what}. Nothing is lost by it.")
        if self._first_zeros and (self.linked or not self._unknown):  # in something else they say nothing
            findings.add(
                "cut",
                Place(self.file, self._first_zeros),
                None,
                "Bytes of zero stand in this file, here for the first time: its machine was stopped before all of it "
                "was on the disk, or it was emptied while a process wrote into it. Nothing is proved of what stood "
                "there.",
            )
        if self.others and not self.linked:
            findings.add(
                "empty", Place(self.file, 1), None, "All lines of this file are of other programs, none is the guard's."
            )
        if self._marked:
            findings.add(
                "line_ends",
                Place(self.file, 1),
                None,
                "A byte order mark was put in front of this file on the way. Nothing is lost by it.",
            )
        if self._windows and self.linked:  # how lines of something else end says nothing
            self._tell_of_ends(findings)
        if self.copied:
            self._tell_of_copies(findings)

    def _tell_of_ends(self, findings: Findings) -> None:
        place = Place(self.file, self._first_windows)
        if self._plain:
            some = "One of the lines of this file ends"
            if self._windows > 1:
                some = f"{self._windows} of the lines of this file, from here on, end"
            findings.add(
                "altered",
                place,
                None,
                f"{some} as Windows writes them (CR LF), and {self._plain} {'does' if self._plain == 1 else 'do'} "
                "not. A copy changes all of them: this file was edited, or put together. Give it as the guard wrote "
                "it.",
            )
        else:
            findings.add(
                "line_ends",
                place,
                None,
                "The line ends of this file were changed on the way, to those of Windows (CR LF). Its lines were "
                "checked without them: nothing is lost by it.",
            )

    def _tell_of_copies(self, findings: Findings) -> None:
        names = [*self._others][:_MOST_NAMES]
        where = " and ".join(names) if len(self._others) <= _MOST_NAMES else f"{', '.join(names)} and more files"
        stand = "stands" if self.copied == 1 else "stand"
        many = (
            f"All {self.linked} lines"
            if self.copied == self.linked > 1
            else f"{lines(self.copied).capitalize()} of {self.linked}"
        )
        findings.add(
            "given_twice",
            Place(self.file, self._first_copied),
            None,
            f"{many} of this file {stand} in {where} as well, byte for byte, and {are(self.copied)} counted once.",
        )
