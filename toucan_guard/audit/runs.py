"""One chain while it is verified: runs of consecutive lines as they are met, put together at the end.

In an undisturbed file a chain is one run. A line that was dropped, inserted or moved ends a run and begins another;
so does a file that was given out of order, which is no fault.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from toucan_guard.audit.verdict import ChainSummary, Findings, Place
from toucan_guard.core.audit_chain import FIRST_PREVIOUS, Hash, Link, previous_of

_ALTERED: Final = "This line is not what was written."


@dataclass(slots=True)
class _Run:
    first: int
    last: int
    start: Place
    end: Place
    first_previous: str  # what the first line says of the one before it
    last_digest: str
    last_should_be: str  # another one where that line was altered: the next line may follow from either

    def may_go_before(self, told: str) -> bool:
        """Whether a line that says this of the one before it may follow."""
        return told in (previous_of(self.last_digest), previous_of(self.last_should_be))


class ChainRuns:
    """Follows one chain.

    Args:
        name: The chain's id.
        keyed: Whether its first line that was met is keyed: all of them must be alike.
        hashes: What may make the digest of its lines, by the name of the key; the first line that fits one settles it.
            Empty where the key is not at hand.
        findings: Where to say what is found.
    """

    def __init__(self, name: str, *, keyed: bool, hashes: Mapping[str, Hash], findings: Findings) -> None:
        self._name = name
        self._keyed = keyed
        self._hashes = hashes
        self._hashed = next(iter(hashes.values()), None)
        self._findings = findings
        self._runs: list[_Run] = []
        self._lines = 0
        self._closed_at: int | None = None
        self._opened: dict[str, Any] = {}
        self._fits = False  # a line of it agrees with the key
        self._other_key = False

    @property
    def next_number(self) -> int | None:
        """What the next line would be numbered; None for a chain that has been closed."""
        if self._closed_at is not None or not self._runs:
            return None
        return max(run.last for run in self._runs) + 1

    def follows(self, link: Link, place: Place) -> bool:
        """Whether a line is the next one after the last that was met, in the same file."""
        return bool(self._runs) and (self._runs[-1].last + 1, self._runs[-1].end.file) == (link.number, place.file)

    def begins_run(self, link: Link) -> bool:
        """Whether a line is another than the next one."""
        return not self._runs or self._runs[-1].last + 1 != link.number

    def take(self, link: Link, place: Place) -> None:
        """Take a line of this chain."""
        self._lines += 1
        if link.event == "open" and link.number == 0:
            self._opened = _facts(link)
        elif link.event == "close":
            self._closed_at = link.number
        digest = self._check(link, place)
        if self.begins_run(link):
            self._runs.append(_Run(link.number, link.number, place, place, link.previous, link.digest, digest))
            if link.number == 0 and link.previous != FIRST_PREVIOUS:
                self._misfit(place)
        else:
            run = self._runs[-1]
            if not run.may_go_before(link.previous):
                self._misfit(place)
            run.last, run.end, run.last_digest, run.last_should_be = link.number, place, link.digest, digest

    def _check(self, link: Link, place: Place) -> str:
        """Check a line by itself; the digest that it should have, as far as that can be told."""
        if self._hashed is None:
            if not link.keyed:
                self._findings.add("altered", place, self._name, _ALTERED)
            return link.digest
        if not self._fits and len(self._hashes) > 1:
            fitting = (hashed for hashed in self._hashes.values() if hashed(link.body).hexdigest() == link.digest)
            self._hashed = next(fitting, self._hashed)
        digest = self._hashed(link.body).hexdigest()
        if digest == link.digest and link.keyed == self._keyed:
            self._fits = True
            return digest
        made_with = self._opened.get("chain_key")
        if self._keyed and not self._fits and made_with not in (None, *self._hashes):
            # Said once: every line of the chain is like that.
            if not self._other_key:
                self._other_key = True
                self._findings.add(
                    "altered",
                    place,
                    self._name,
                    f"This chain does not agree with the key {' or '.join(self._hashes)} that was given: it says that "
                    f"it was made with the key {made_with!s:.8}. Where that key was yours, give it too.",
                )
            return link.digest
        self._findings.add("altered", place, self._name, _ALTERED)
        return digest

    def _misfit(self, place: Place) -> None:
        self._findings.add(
            "altered", place, self._name, "The line before this one in its chain is not the one that was written."
        )

    def finish(self) -> ChainSummary:
        """Put the runs together."""
        runs = sorted(self._runs, key=lambda run: (run.first, -run.last))
        before = runs[0]
        if before.first > 0:
            self._findings.add(
                "begins_elsewhere",
                before.start,
                self._name,
                f"The first {_lines(before.first)} of this chain {_are(before.first)} in another file, or gone: "
                "files that are rotated look like this.",
            )
        for run in runs[1:]:
            before = self._join(before, run)
        return self._summary(before)

    def _join(self, before: _Run, run: _Run) -> _Run:
        """Judge a run by what goes before it; the one that reaches further."""
        if run.first <= before.last:
            self._findings.add(
                "inserted", run.start, self._name, f"{_numbers(run)} of this chain stands here a second time."
            )
            return before if run.last <= before.last else run
        missing = run.first - before.last - 1
        if missing:
            numbers = f"{before.last + 1} to {run.first - 1}" if missing > 1 else f"{run.first - 1}"
            self._findings.add(
                "dropped",
                run.start,
                self._name,
                f"{_lines(missing).capitalize()} of this chain (number {numbers}) {_are(missing)} missing "
                f"between {before.end} and {run.start}.",
            )
            return run
        if not before.may_go_before(run.first_previous):
            self._misfit(run.start)
        if run.start.file == before.end.file and run.start.number < before.end.number:
            moved = run if run.last - run.first <= before.last - before.first else before
            self._findings.add(
                "reordered",
                moved.start,
                self._name,
                f"{_numbers(moved)} of this chain does not stand where it was written.",
            )
        return run

    def _summary(self, last: _Run) -> ChainSummary:
        closed = self._closed_at == last.last
        if self._hashed is None:
            self._findings.add(
                "unchecked",
                last.end,
                self._name,
                "This chain was made with a key, and the key was not given: only its numbers could be checked.",
            )
        if self._closed_at is not None and not closed:
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
            lines=self._lines,
            first=min(run.first for run in self._runs),
            last=last.last,
            last_digest=last.last_digest,
            opened=self._opened.get("time"),
            process=self._opened.get("process"),
            version=self._opened.get("version"),
            settings=self._opened.get("settings"),
            closed=closed,
            keyed=self._keyed,
            checked=self._hashed is not None,
        )


def _facts(link: Link) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(link.body + b"}")
    except (ValueError, RecursionError):
        return {}
    return facts


def _numbers(run: _Run) -> str:
    return f"Line {run.first}" if run.first == run.last else f"The run of lines {run.first} to {run.last}"


def _lines(count: int) -> str:
    return "one line" if count == 1 else f"{count} lines"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
