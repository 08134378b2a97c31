"""One chain while it is verified: runs of consecutive lines as they are met, put together at the end.

In an undisturbed file a chain is one run. A line that was dropped, inserted or moved ends a run and begins another;
so does the next file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from toucan_guard.audit.joins import Joins, Run, are, lines, tell_of_misfit
from toucan_guard.audit.seals import Seals
from toucan_guard.audit.seen import UNSOUND, Marks, SeenLines
from toucan_guard.audit.verdict import ChainSummary, Findings, Place
from toucan_guard.core.audit_chain import FIRST_PREVIOUS, Hash, Link, start_of

_KEY_NAME: Final = re.compile("[0-9a-f]{8}")  # whoever may write the file may write anything there


@dataclass(slots=True)
class _Conflict:
    """Lines of a file that stand in another one with other bytes."""

    place: Place
    number: int
    other: str
    count: int = 1


class ChainRuns:
    """Follows one chain.

    Args:
        name: The chain's id.
        keyed: Whether its first line that was met is keyed: all of them must be alike.
        hashes: What may make the digest of its lines, by the name of the key. Empty where no key is at hand.
        marks: See ``make_marks``.
        findings: Where to say what is found.
    """

    def __init__(self, name: str, *, keyed: bool, hashes: Mapping[str, Hash], marks: Marks, findings: Findings) -> None:
        self._name = name
        self._keyed = keyed
        self._marks = marks
        self._findings = findings
        self._seals = Seals(name, keyed=keyed, hashes=hashes, findings=findings)
        self._seen = SeenLines()
        self._runs: list[Run] = []
        self._conflicts: dict[str, _Conflict] = {}
        self._opened: dict[str, Any] = {}
        self._opened_soundly = False
        self._closed_at: int | None = None
        self._closed_unsoundly_at: int | None = None

    def follows(self, link: Link, place: Place) -> bool:
        """Whether a line is the next one after the last that was met, in the same file."""
        return bool(self._runs) and (self._runs[-1].last + 1, self._runs[-1].file) == (link.number, place.file)

    def breaks(self, link: Link, place: Place) -> bool:
        """Whether a line is another than the next one, in the same file."""
        return bool(self._runs) and self._runs[-1].file == place.file and self._runs[-1].last + 1 != link.number

    def take(self, link: Link, place: Place) -> str | None:
        """Take a line of this chain; the other file where it stood before, if it did, byte for byte."""
        sound, told = self._seals.check(link, place)
        if link.event == "open" and link.number == 0:
            self._open(link, soundly=sound is True)
        elif link.event == "close":
            self._close(link.number, soundly=sound is not False)
        if self.follows(link, place):
            run = self._runs[-1]
            if link.previous not in run.told:
                tell_of_misfit(self._findings, place, self._name)
            run.last, run.end, run.told, run.digest = link.number, place, told, link.digest
        else:
            self._runs.append(Run(link.number, link.number, place, place, link.previous, told, link.digest))
            if link.number == 0 and link.previous != FIRST_PREVIOUS:
                tell_of_misfit(self._findings, place, self._name)
        mark = UNSOUND if sound is False else self._marks(link, sound=sound is True)
        before = self._seen.meet(link.number, place.file, mark)
        if before is None or UNSOUND in {before.mark, mark}:  # what is unsound was told where it stands
            return None
        if before.mark != mark:
            conflict = self._conflicts.get(place.file)
            if conflict is None:
                self._conflicts[place.file] = _Conflict(place, link.number, before.file)
            else:
                conflict.count += 1
            return None
        return before.file if before.file != place.file else None

    def _open(self, link: Link, *, soundly: bool) -> None:
        if not self._opened or (soundly and not self._opened_soundly):
            self._opened, self._opened_soundly = _facts(link), soundly

    def _close(self, number: int, *, soundly: bool) -> None:
        if soundly:
            self._closed_at = number if self._closed_at is None else min(number, self._closed_at)
        else:
            self._closed_unsoundly_at = max(number, self._closed_unsoundly_at or 0)

    def next_starts(self, files: Iterable[str]) -> Iterable[tuple[str, bytes]]:
        """Each of these files in which the chain's next line may have been begun, and what that would begin with."""
        ends = {self._closed_at, self._closed_unsoundly_at}
        joins = Joins(self._name, self._runs, self._findings)
        lasts = joins.last_in_files()
        copied = joins.first_in_files()
        for file in files:
            # In a file without a line of it the chain may have gone on.
            run = lasts.get(file, joins.last)
            if run is not None and run.last not in ends:
                yield file, start_of(self._name, run.last + 1, previous=run.told[0])
            if file not in lasts:
                # Or it is a copy of another one, which ends where its first line begins.
                for number, previous in copied:
                    yield file, start_of(self._name, number, previous=previous)

    def ends_in(self, files: Container[str]) -> dict[str, int]:
        """The place of the last line in each of these files."""
        ends: dict[str, int] = {}
        for run in self._runs:
            if run.file in files:
                ends[run.file] = max(run.end.number, ends.get(run.file, 0))
        return ends

    def finish(self, unread: Sequence[str] = (), damaged: Container[str] = ()) -> ChainSummary:
        """Put the runs together.

        Args:
            unread: The files that could not be read, or only in part.
            damaged: Those of them of which other lines were read than were packed.
        """
        joins = Joins(self._name, self._runs, self._findings, unread=unread, damaged=damaged)
        joins.judge()
        for conflict in self._conflicts.values():
            self._tell_of(conflict, damaged)
        key = self._opened.get("chain_key")
        named = key if self._keyed and isinstance(key, str) and _KEY_NAME.fullmatch(key) else None
        checked = self._seals.finish(joins.first.start, opened=bool(self._opened), named=named)
        last = joins.last
        closed = last.last in {self._closed_at, self._closed_unsoundly_at}
        if self._closed_at is not None and last.last > self._closed_at:
            self._findings.add("inserted", last.end, self._name, "This chain goes on after its own end.")
        elif not closed:
            self._findings.add(
                "open_ended",
                last.end,
                self._name,
                "This chain ended without close: its process is still running, or it was killed. Whether lines behind "
                "this one were cut off, only somebody who holds a later one can say.",
            )
        return ChainSummary(
            chain=self._name,
            lines=self._seen.count,
            first=joins.first.first,
            last=last.last,
            last_digest=last.digest,
            opened=self._opened.get("time"),
            process=self._opened.get("process"),
            version=self._opened.get("version"),
            settings=self._opened.get("settings"),
            closed=closed,
            keyed=self._keyed,
            key=named,
            checked=checked,
        )

    def _tell_of(self, conflict: _Conflict, damaged: Container[str]) -> None:
        place, where = conflict.place, conflict.other
        if where in damaged and place.file not in damaged:
            place, where = Place(where, 0), str(place)
        elif where == place.file:
            where = "this file too"
        more = conflict.count - 1
        self._findings.add(
            "altered",
            place,
            self._name,
            f"{'This' if place.number else 'A'} line (seq {conflict.number}) stands in {where} with other bytes"
            + (f", and so {are(more)} {lines(more)} more" if more else "")
            + ": one of the two is not what was written.",
        )


def _facts(link: Link) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(link.body + b"}")
    except (ValueError, RecursionError):
        return {}
    return facts
