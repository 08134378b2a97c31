"""The runs of one chain, put together at the end: each file by itself, and all of them as one chain.

A line that stands in several files, byte for byte, was copied with its file, and is one line. So that no copy hides
what was done to its original, every file has to be in order by itself: in one file no line stands twice, none before
an earlier one, and none is missing that another file shows between its neighbours.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from toucan_guard.audit.verdict import Findings, Place


@dataclass(slots=True)
class Run:
    """Consecutive lines of one chain, as they stand in one file.

    Attributes:
        first: The number of the first one.
        last: The number of the last one.
        start: Where the first one stands.
        end: Where the last one stands.
        before: What the first one says of the line before it.
        told: What the next line may say of the last one.
        digest: What the last one says its digest is.
    """

    first: int
    last: int
    start: Place
    end: Place
    before: str
    told: tuple[str, ...]
    digest: str

    @property
    def file(self) -> str:
        """The file that it stands in."""
        return self.start.file


class Joins:
    """Judges the runs of one chain.

    Args:
        name: The chain's id.
        runs: At least one.
        findings: Where to say what is found.
        unread: The files that could not be read, or only in part: what is missing between two others may be in there.
        damaged: Those of them of which other lines were read than were packed.
    """

    def __init__(
        self,
        name: str,
        runs: Iterable[Run],
        findings: Findings,
        *,
        unread: Sequence[str] = (),
        damaged: Container[str] = (),
    ) -> None:
        self._name = name
        self._damaged = damaged
        self._unread = unread
        self._runs = sorted(runs, key=lambda run: (run.first, -run.last))
        self._findings = findings
        # Those that are no part of another one: they reach further, one after the other.
        self._longest: list[Run] = []
        for run in self._runs:
            if not self._longest or run.last > self._longest[-1].last:
                self._longest.append(run)
        self._firsts = [run.first for run in self._longest]
        self._files_ending: dict[int, set[str]] = {}
        self._files_beginning: dict[int, set[str]] = {}
        for run in self._runs if unread else ():
            self._files_ending.setdefault(run.last, set()).add(run.file)
            self._files_beginning.setdefault(run.first, set()).add(run.file)

    @property
    def first(self) -> Run:
        """The one with the chain's first line that is here."""
        return self._longest[0]

    @property
    def last(self) -> Run:
        """The one with the chain's last line that is here."""
        return self._longest[-1]

    def judge(self) -> None:
        """Say what is wrong with the whole, and with each file."""
        self._judge_whole()
        files: dict[str, list[Run]] = {}
        for run in self._runs:
            files.setdefault(run.file, []).append(run)
        for runs in files.values():
            self._judge_file(runs)

    def last_in_files(self) -> dict[str, Run | None]:
        """The run with the last line in each file; None where the file does not end as it may.

        It may end where the chain does, and where another file has the same line: it is a copy of one that goes on.
        """
        lasts: dict[str, Run] = {}
        for run in self._runs:
            if run.file not in lasts or run.last > lasts[run.file].last:
                lasts[run.file] = run
        return {file: run if self._may_end(run) else None for file, run in lasts.items()}

    def first_in_files(self) -> set[tuple[int, str]]:
        """The number of the first line in each file, and what it says of the line before it."""
        firsts: dict[str, Run] = {}
        for run in self._runs:
            firsts.setdefault(run.file, run)
        return {(run.first, run.before) for run in firsts.values()}

    def _may_end(self, last: Run) -> bool:
        return last.last == self.last.last or any(
            run.file != last.file and run.first <= last.last <= run.last for run in self._runs
        )

    def _judge_whole(self) -> None:
        if self.first.first > 0:
            count = self.first.first
            self._findings.add(
                "begins_elsewhere",
                self.first.start,
                self._name,
                f"The first {lines(count)} of this chain {are(count)} in another file, or gone: "
                "files that are rotated look like this.",
            )
        for before, run in pairwise(self._longest):
            missing = run.first - before.last - 1
            if missing > 0:
                gap = (
                    f"{lines(missing).capitalize()} of this chain ({numbers(before.last + 1, run.first - 1)}) "
                    f"{are(missing)} missing between {before.end} and {run.start}."
                )
                if self._unread and not self._in_one_file(before, run):
                    self._findings.add("missing", run.start, self._name, f"{gap} {may_be_in(self._unread)}")
                else:
                    self._findings.add("dropped", run.start, self._name, gap)
        ending: dict[int, list[Run]] = {}
        for run in self._runs:
            ending.setdefault(run.last, []).append(run)
        for run in self._runs:
            # Where the one before is within a run, so is this one, and was compared with that.
            named = ending.get(run.first - 1, [])
            if named and not any(run.before in each.told for each in named):
                self._tell_of_misfit(named, run)

    def _tell_of_misfit(self, named: Sequence[Run], run: Run) -> None:
        if all(each.file in self._damaged for each in named):
            self._findings.add(
                "altered",
                named[0].end,
                self._name,
                f"This line is not the one that {run.start} names, the next one of its chain.",
            )
        else:
            tell_of_misfit(self._findings, run.start, self._name)

    def _in_one_file(self, before: Run, run: Run) -> bool:
        """Whether a hole is within one file, where the guard leaves none that another one fills."""
        return not self._files_ending[before.last].isdisjoint(self._files_beginning[run.first])

    def _judge_file(self, runs: Sequence[Run]) -> None:
        before = runs[0]
        scattered = False
        for run in runs[1:]:
            if run.first <= before.last:
                self._findings.add(
                    "inserted",
                    run.start,
                    self._name,
                    f"{_those(run.first, min(run.last, before.last), 'stand')} a second time in this file.",
                )
            elif run.first == before.last + 1:
                self._judge_order(before, run)
            elif (other := self._across(before.last) or self._across(run.first - 1)) is not None:
                self._tell_of_hole(before, run, other)
                self._judge_order(before, run)
            elif bisect_left(self._firsts, run.first) > bisect_right(self._firsts, before.last):
                self._judge_order(before, run)
                if not scattered:
                    scattered = True
                    self._tell_of_scattered(before, run)
            if run.last > before.last:
                before = run

    def _across(self, number: int) -> Run | None:
        """A run that has this line and the next one."""
        at = bisect_right(self._firsts, number) - 1
        return self._longest[at] if at >= 0 and self._longest[at].last > number else None

    def _judge_order(self, before: Run, run: Run) -> None:
        if run.start.number < before.end.number:
            moved = run if run.last - run.first <= before.last - before.first else before
            self._findings.add(
                "reordered",
                moved.start,
                self._name,
                f"{_those(moved.first, moved.last, 'stand')} at another place than was written.",
            )

    def _tell_of_hole(self, before: Run, run: Run, other: Run) -> None:
        missing = run.first - before.last - 1
        self._findings.add(
            "dropped",
            run.start,
            self._name,
            f"{lines(missing).capitalize()} of this chain ({numbers(before.last + 1, run.first - 1)}) {are(missing)} "
            f"missing in this file between {before.end} and {run.start}; {other.file} shows what stood there.",
        )

    def _tell_of_scattered(self, before: Run, run: Run) -> None:
        self._findings.add(
            "scattered",
            run.start,
            self._name,
            f"What belongs between {before.end} and this line stands in another file. No line is lost by it. "
            "The guard does not write like that; a collector that spreads lines over files does.",
        )


def tell_of_misfit(findings: Findings, place: Place, chain: str) -> None:
    """Say that a line names another one than that before it."""
    findings.add("altered", place, chain, "The line before this one in its chain is not the one that was written.")


def may_be_in(unread: Sequence[str]) -> str:
    """A sentence about what is missing, where files could not be read."""
    named = unread[0] if len(unread) == 1 else f"{unread[0]} or {len(unread) - 1} more"
    return f"It may be in {named}, which could not be read."


def numbers(first: int, last: int) -> str:
    """Numbers as they stand in the lines, where they count from 0."""
    return f"seq {first}" if first == last else f"seq {first} to {last}"


def _those(first: int, last: int, verb: str) -> str:
    if first == last:
        return f"The line with {numbers(first, last)} of this chain {verb}s"
    return f"The lines with {numbers(first, last)} of this chain {verb}"


def lines(count: int) -> str:
    """So many lines."""
    return "one line" if count == 1 else f"{count} lines"


def are(count: int) -> str:
    """The verb for so many."""
    return "is" if count == 1 else "are"
