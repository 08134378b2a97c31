"""What is no line of a chain: the rest of a line that a full disk has cut, or something that somebody put there.

A chain says of each of its lines that was cut how much of it was written. A fragment that a chain owns up to is no
fault; one that nobody knows is evidence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Final, NamedTuple

from toucan_guard.audit.verdict import Findings, Place
from toucan_guard.core.audit_chain import Cut, chain_begun, cut_of, links_in, seams_of

_LONGEST: Final = 8_192  # a fragment is shorter than a line; two may stand together
_MOST: Final = 100
_CLAIM: Final = b'"chain"'  # what no other program's lines have
_MOST_SEAMS: Final = 16  # so many lines that were cut do not stand on one
_MOST_PLACES: Final = 10_000
_MOST_STOOD: Final = 1_000
_DECODER: Final = json.JSONDecoder()
_NOWHERE: Final[Mapping[tuple[str, str], int]] = MappingProxyType({})


class _Fragment:
    def __init__(self, place: Place, content: bytes, *, ended: bool) -> None:
        self.place = place
        self.content = content
        self.cut = cut_of(content)
        self.ended = ended
        self._seams = [0, *seams_of(content)[1:][-_MOST_SEAMS:]]

    def without(self, cut: Cut) -> tuple[bytes, bytes] | None:
        """What stands before and behind a cut line in it; None where that does not stand there.

        It ends where another one may begin: a short one is the beginning of many, and of none of them a part.
        """
        for start in self._seams:
            end = start + cut.length
            if end in self._seams and cut_of(self.content[start:end]) == cut:
                return self.content[:start], self.content[end:]
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
        # What was owned, and how often it stood in which file: a copy may end before the line that owns up to it.
        self._stood: dict[tuple[str, Cut], Counter[str]] = {}
        self._said_in: set[tuple[str, Cut, str]] = set()  # and in which files lines say so
        # Places that nobody knows, by file; of consecutive lines the first and the last.
        self._unknown: dict[str, list[list[int]]] = {}
        self._more_unknown = 0
        self._claimed: set[str] = set()

    def take(self, content: bytes, place: Place, *, ended: bool) -> None:
        """Take a fragment.

        Args:
            content: Its bytes, without a newline.
            place: Where it stands.
            ended: A newline stands behind it. Whoever is stopped while writing a line leaves none.
        """
        self.newline_is_of(place)
        if len(content) > _LONGEST or len(self._waiting) >= _MOST:
            self._take_unknown(place, content)
        else:
            self._waiting.append(_Fragment(place, content, ended=ended))

    def newline_is_of(self, place: Place) -> None:
        """Whoever wrote here puts a newline in front, because its line before was cut: whoever stands before this line
        may have been stopped there all the same."""
        if self._waiting and self._waiting[-1].place == (place.file, place.number - 1):
            self._waiting[-1].ended = False

    def ends_before(self, place: Place) -> None:
        """What stands here was not read, and so it is not known either whose newline is in front of it."""
        for fragment in self._waiting:
            if fragment.place == (place.file, place.number - 1):
                fragment.ended = False

    def own(self, cut: Cut, chain: str, place: Place, *, must_be_here: bool) -> None:
        """Take what a chain says of a line that was cut.

        Args:
            cut: The line that was cut.
            chain: Whose it was.
            place: Of the line that says so.
            must_be_here: The line before the cut one stands in the same file, so the fragment must as well.
        """
        owned = _Owned(cut, chain, place, must_be_here)
        if len(self._said_in) < _MOST_STOOD:
            self._said_in.add((chain, cut, place.file))
        if must_be_here and self._give(owned, whole=True):
            return
        if len(self._owned) < _MOST:
            # It may be in a file that comes later, or beside another one on one line.
            self._owned.append(owned)
        elif must_be_here or not self._give(owned, whole=True):
            self._missing(owned)

    @property
    def files(self) -> set[str]:
        """The files in which a fragment stands that nobody has owned up to so far."""
        return {fragment.place.file for fragment in self._waiting}

    def finish(
        self,
        next_starts: Iterable[tuple[str, bytes]],
        *,
        linked: Container[str],
        chains: Container[str] = (),
        ends: Mapping[tuple[str, str], int] = _NOWHERE,
    ) -> None:
        """Judge what is left.

        Args:
            next_starts: Files, and what the next lines in them of chains that were not closed would begin with: a
                process that is killed, or a machine that stops, may leave the beginning of one.
            linked: The files in which lines of chains stand.
            chains: The chains of which there is a line: of another one there may be a beginning alone.
            ends: The place of the last line of a chain in a file.
        """
        missing = self._give_all(owned for owned in self._owned if owned.must_be_here)
        elsewhere = self._give_all((owned for owned in self._owned if not owned.must_be_here), whole=True)
        starts: dict[str, list[bytes]] = {}
        for file, start in next_starts if self._waiting else ():
            starts.setdefault(file, []).append(start)
        self._take_copied(ends, whole=True)
        # Before any piece of these is taken for what may be in a file that was not given: a short one begins many.
        self._take_begun(starts, chains)
        for owned in self._give_all((*missing, *elsewhere)):
            self._missing(owned)
        self._take_copied(ends, whole=False)
        self._take_begun(starts, chains)
        for fragment in self._waiting:
            self._take_unknown(fragment.place, fragment.content)
        for file, places in self._unknown.items():
            self._tell_unknown(file, sorted(places), foreign=file not in linked and file not in self._claimed)
        self._findings.more += self._more_unknown

    def _give_all(self, owned: Iterable[_Owned], *, whole: bool = False) -> list[_Owned]:
        """Give what there is; what is left is returned."""
        # Those first that fit one file alone; among them the longest: every short one is the beginning of many.
        waiting = sorted(owned, key=lambda each: (not each.must_be_here, -each.cut.length))
        while waiting:
            left = [each for each in waiting if not self._give(each, whole=whole)]
            if len(left) == len(waiting):
                break
            waiting = left
        return waiting

    def _take_begun(self, starts: Mapping[str, Sequence[bytes]], chains: Container[str]) -> None:
        """Take those off the list that begin lines, and go no further: a process was stopped there."""
        for fragment in [*self._waiting]:
            if not fragment.ended and _are_begun(fragment.content, starts.get(fragment.place.file, ()), chains):
                self._waiting.remove(fragment)
                self._findings.add(
                    "cut",
                    fragment.place,
                    None,
                    "The beginning of a line, and no more: its process was stopped, or is still writing, or the rest "
                    "was taken off. Nothing is proved of it.",
                )

    def _give(self, owned: _Owned, *, whole: bool) -> bool:
        """Take a fragment off the list, or out of a longer one: several chains' may stand together."""
        here = [fragment for fragment in self._waiting if fragment.place.file == owned.place.file]
        possible = here if owned.must_be_here else [*here, *(each for each in self._waiting if each not in here)]
        for fragment in possible:
            if fragment.cut == owned.cut:
                return self._take_off(fragment, owned.cut, owned.chain)
        return not whole and any(self._take_off(fragment, owned.cut, owned.chain) for fragment in possible)

    def _take_off(self, fragment: _Fragment, cut: Cut, chain: str) -> bool:
        """Take a line that was cut off the list, or off a longer fragment; False where it does not stand there."""
        rest = fragment.without(cut)
        if rest is None:
            return False
        at = self._waiting.index(fragment)
        self._waiting[at : at + 1] = [_Fragment(fragment.place, content, ended=False) for content in rest if content]
        if len(self._stood) < _MOST_STOOD:
            self._stood.setdefault((chain, cut), Counter())[fragment.place.file] += 1
        return True

    def _take_copied(self, ends: Mapping[tuple[str, str], int], *, whole: bool) -> None:
        """Take off the list what a chain owns up to in another file, as often as it stands there.

        This one is a copy that ends before the line which says so, and so there is no line of that chain behind; or
        the line stands in this file, and what it says was found in a copy.
        """
        for (chain, cut), files in sorted(self._stood.items(), key=lambda each: -each[0][1].length):
            for fragment in [*self._waiting]:
                file, number = fragment.place
                if whole and fragment.cut != cut:
                    continue
                if ends.get((chain, file), 0) > number and (chain, cut, file) not in self._said_in:
                    continue
                if files[file] < max(files.values()):
                    self._take_off(fragment, cut, chain)

    def _missing(self, owned: _Owned) -> None:
        if owned.must_be_here:  # else it is in a file that was not given
            self._findings.add(
                "dropped",
                owned.place,
                owned.chain,
                "Before this line another one was cut; what was written of it is not here.",
            )

    def _take_unknown(self, place: Place, content: bytes) -> None:
        if _CLAIM in content:
            self._claimed.add(place.file)
        places = self._unknown.setdefault(place.file, [])
        if places and places[-1][1] == place.number - 1:
            places[-1][1] = place.number
        elif len(places) < _MOST_PLACES:
            places.append([place.number, place.number])
        else:
            self._more_unknown += 1

    def _tell_unknown(self, file: str, places: Sequence[Sequence[int]], *, foreign: bool) -> None:
        if foreign:
            self._findings.add(
                "foreign",
                Place(file, places[0][0]),
                None,
                "No line of this file is a line of a chain: nothing is proved of it. It is another file, or its lines "
                "came through structlog, or something on the way has changed all of them (packed, another encoding). "
                "Give the file as the guard wrote it.",
            )
            return
        for first, last in _merged(places):
            self._findings.add(
                "inserted",
                Place(file, first),
                None,
                "This is no line of any chain: it was put here, or altered beyond recognition."
                if first == last
                else f"{last - first + 1} lines, from here on, are no lines of any chain: they were put here, or "
                "altered beyond recognition.",
            )


def _merged(places: Iterable[Sequence[int]]) -> Iterable[Sequence[int]]:
    """Places, in order, with those put together that stand one after the other."""
    merged: list[list[int]] = []
    for first, last in places:
        if merged and merged[-1][1] == first - 1:
            merged[-1][1] = last
        else:
            merged.append([first, last])
    return merged


def _are_begun(content: bytes, starts: Sequence[bytes], chains: Container[str]) -> bool:
    """Whether this is nothing but the beginnings of next lines, or of lines of chains of which there is none here.

    Behind a line of a process that was stopped there may be another one, of which the file has no more either; and on
    a full disk a process begins a line again and again.
    """
    parts, _ = links_in(content)
    return not _is_whole(content) and all(
        _begins(part, starts, chains)
        or all(_begins(part[start:end], starts, chains) for start, end in pairwise(seams_of(part)))
        for part in parts
    )


def _begins(content: bytes, starts: Sequence[bytes], chains: Container[str]) -> bool:
    if _is_whole(content):
        return False
    if any(content[: len(start)] == start[: len(content)] for start in starts):
        return True
    name = chain_begun(content)
    return name is not None and name not in chains


def _is_whole(content: bytes) -> bool:
    """Whether this begins with a whole object, as the beginning of one never does: it is no line that was begun."""
    try:
        _DECODER.raw_decode(content.decode("latin-1"))
    except (ValueError, RecursionError):
        return False
    return True
