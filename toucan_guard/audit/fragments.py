"""What is no line of a chain: the rest of a line that a full disk has cut, or something that somebody put there.

A chain says of each of its lines that was cut how much of it was written. A fragment that a chain owns up to is no
fault; one that nobody knows is evidence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from toucan_guard.audit.verdict import Findings, Place
from toucan_guard.core.audit_chain import Cut, cut_of

_LONGEST: Final = 8_192  # a fragment is shorter than a line; two may stand together
_MOST: Final = 100


@dataclass(slots=True)
class _Fragment:
    place: Place
    content: bytes
    cut: Cut
    ended: bool

    def without(self, cut: Cut) -> bytes | None:
        """What is left of it when a cut line is taken off one of its ends; None where it is at neither."""
        if not 0 < cut.length < len(self.content):
            return None
        if cut_of(self.content[-cut.length :]) == cut:
            return self.content[: -cut.length]
        if cut_of(self.content[: cut.length]) == cut:
            return self.content[cut.length :]
        return None


class _Owned(NamedTuple):
    cut: Cut
    chain: str
    place: Place
    must_be_here: bool


class Fragments:
    """Remembers fragments until it is known whose they are."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._waiting: list[_Fragment] = []
        self._owned: list[_Owned] = []

    def take(self, content: bytes, place: Place, *, ended: bool) -> None:
        """Take a fragment.

        Args:
            content: Its bytes, without a newline.
            place: Where it stands.
            ended: A newline stands behind it. Whoever is stopped while writing a line leaves none.
        """
        if len(content) > _LONGEST or len(self._waiting) >= _MOST:
            self._unknown(place)
        else:
            self._waiting.append(_Fragment(place, content, cut_of(content), ended))

    def own(self, cut: Cut, chain: str, place: Place, *, must_be_here: bool) -> None:
        """Take what a chain says of a line that was cut.

        Args:
            cut: The line that was cut.
            chain: Whose it was.
            place: Of the line that says so.
            must_be_here: The line before the cut one stands in the same file, so the fragment must as well.
        """
        owned = _Owned(cut, chain, place, must_be_here)
        if self._give(cut, whole=True):
            return
        if len(self._owned) < _MOST:
            # It may be in a file that comes later, or beside another one on one line.
            self._owned.append(owned)
        else:
            self._missing(owned)

    def finish(self, next_starts: Iterable[bytes]) -> None:
        """Judge what is left.

        Args:
            next_starts: What the next lines of chains that were not closed would begin with: a process that is
                killed, or a machine that stops, may leave the beginning of one.
        """
        # The longest first: every short one is the beginning of many.
        waiting = sorted(self._owned, key=lambda owned: -owned.cut.length)
        while waiting:
            left = [owned for owned in waiting if not self._give(owned.cut, whole=False)]
            if len(left) == len(waiting):
                break
            waiting = left
        for owned in waiting:
            self._missing(owned)
        starts = list(next_starts)
        for fragment in self._waiting:
            begun = (
                None if fragment.ended else next((start for start in starts if _begins(fragment.content, start)), None)
            )
            if begun is None:
                self._unknown(fragment.place)
            else:
                starts.remove(begun)
                self._findings.add("cut", fragment.place, None, "A line that was begun when its process ended.")

    def _give(self, cut: Cut, *, whole: bool) -> bool:
        """Take a fragment off the list, or out of a longer one: several chains' may stand together."""
        for index, fragment in enumerate(self._waiting):
            if fragment.cut == cut:
                del self._waiting[index]
                return True
        for fragment in () if whole else self._waiting:
            rest = fragment.without(cut)
            if rest is not None:
                fragment.content, fragment.cut, fragment.ended = rest, cut_of(rest), False
                return True
        return False

    def _missing(self, owned: _Owned) -> None:
        if owned.must_be_here:  # else it is in a file that was not given
            self._findings.add(
                "dropped",
                owned.place,
                owned.chain,
                "Before this line another one was cut; what was written of it is not here.",
            )

    def _unknown(self, place: Place) -> None:
        self._findings.add(
            "inserted", place, None, "This is no line of any chain: it was put here, or altered beyond recognition."
        )


def _begins(content: bytes, start: bytes) -> bool:
    length = min(len(content), len(start))
    return content[:length] == start[:length] and not _is_whole(content)


def _is_whole(content: bytes) -> bool:
    """Whether this is a whole object, which the beginning of one never is: it is no line that was begun."""
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True
