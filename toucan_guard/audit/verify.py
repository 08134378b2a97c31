"""Verify audit files line by line: what was altered, dropped, inserted or reordered, and where.

Every process writes a chain of its own, so several workers in one file, rotation and restarts are told apart by the
chain's id. Files may be given in any order: a chain is followed as *runs* of consecutive lines, and the runs are put
together at the end. Memory grows with the number of chains and of breaks in them, not with the number of lines.

What this cannot show: lines that were cut off at the end of a chain without ``close``, or at its beginning (rotation
looks the same), unless somebody else holds an anchor of a later line; and, in a chain without a key, an edit by
somebody who made the whole rest of the chain anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from toucan_guard.audit.verdict import ChainSummary, Finding, Place, Verdict
from toucan_guard.core.audit_chain import (
    FIRST_PREVIOUS,
    Cut,
    Link,
    chain_secret,
    cut_of,
    digest_of,
    key_name,
    last_link_in,
    looks_linked,
    read_link,
    start_of,
)
from toucan_guard.core.errors import ConfigError

_MOST_FINDINGS: Final = 1_000
_MOST_BREAKS: Final = 20_000  # runs and fragments that are remembered


@dataclass(slots=True)
class _Run:
    """Consecutive lines of one chain, as they were met."""

    first: int
    last: int
    start: Place
    end: Place
    first_body: bytes  # empty once its digest is checked
    first_digest: str
    last_digest: str
    otherwise: str | None = None  # the last line's digest as it should be, where the line says another


@dataclass(slots=True)
class _Chain:
    """What is known of one chain."""

    keyed: bool
    runs: list[_Run] = field(default_factory=list)
    lines: int = 0
    closed_at: int | None = None
    opened: dict[str, Any] | None = None


@dataclass(slots=True)
class _Fragment:
    """Bytes that are no line: of a line that was cut, or of somebody's making."""

    place: Place
    cut: Cut
    start: bytes


class ChainVerifier:
    """Takes the lines of any number of files, one after the other, and says what it found.

    Args:
        key: The operator's ``AUDIT_CHAIN_KEY``. With it, a chain that was made without is evidence of tampering;
            without it, only the numbers of keyed chains can be checked.
        mixed: Other programs write into the same stream: their lines are counted, not reported.
        expect: Anchors that somebody else has kept, ``CHAIN:NUMBER:DIGEST``: these lines must be there.

    Raises:
        ConfigError: An anchor is not written like that.
    """

    def __init__(self, key: bytes | None = None, *, mixed: bool = False, expect: Iterable[str] = ()) -> None:
        self._secret = None if key is None else chain_secret(key)
        self._plain = digest_of(None)
        self._mac = None if self._secret is None else digest_of(self._secret)
        self._mixed = mixed
        self._expected = dict(map(_anchor, expect))
        self._chains: dict[str, _Chain] = {}
        self._fragments: list[_Fragment] = []
        self._missing_cuts: list[tuple[Cut, str, Place]] = []
        self._findings: list[Finding] = []
        self._more = 0
        self._tampered = False
        self._breaks = 0
        self._lines = 0
        self._others = 0

    def feed(self, line: bytes, *, file: str, number: int) -> None:
        """Take one line, with or without its newline.

        Args:
            line: The bytes of the line.
            file: The name of its file, for findings.
            number: Its place in the file, from 1.
        """
        place = Place(file, number)
        line = line.removesuffix(b"\n")
        link = read_link(line)
        if link is None:
            if not line:
                return self._find("blank", place, None, "An empty line. Nothing is lost by it.")
            behind = last_link_in(line)
            if behind is None:
                return self._take_fragment(line, place)
            fragment, link = behind
            self._take_fragment(fragment, place)
        self._lines += 1
        self._take_link(link, place)

    def finish(self) -> Verdict:
        """Put the runs of every chain together, and say what was found. Call it once."""
        summaries = [self._finish_chain(name, chain) for name, chain in sorted(self._chains.items())]
        self._finish_fragments()
        for (name, number), digest in self._expected.items():
            self._find(
                "dropped", None, name,
                f"Somebody else holds line {number} of chain {name} (digest {digest[:8]}…); it is not in these files.",
            )  # fmt: skip
        self._findings.sort(key=lambda finding: (finding.file, finding.number))
        return Verdict(
            findings=tuple(self._findings),
            more=self._more,
            chains=tuple(summaries),
            lines=self._lines,
            others=self._others,
            tampered=self._tampered,
        )

    def _take_link(self, link: Link, place: Place) -> None:
        if self._expected:
            self._compare_anchor(link, place)
        chain = self._chains.get(link.chain)
        if chain is None:
            chain = self._chains[link.chain] = _Chain(keyed=link.keyed)
            if self._secret is not None and not link.keyed:
                self._find(
                    "unkeyed", place, link.chain,
                    "This chain was made without the key: whoever could write the file could have made it anew. "
                    "Verify files from before the key was set by themselves, without it.",
                )  # fmt: skip
        chain.lines += 1
        if link.event == "open" and link.number == 0:
            chain.opened = _facts(link)
        elif link.event == "close":
            chain.closed_at = link.number
        run = chain.runs[-1] if chain.runs else None
        if run is None or link.number != run.last + 1:
            run = self._begin_run(chain, link, place)
        else:
            self._extend_run(chain, run, link, place)
        for cut in link.cuts:
            self._match_cut(cut, link.chain, place)

    def _begin_run(self, chain: _Chain, link: Link, place: Place) -> _Run | None:
        self._breaks += 1
        if self._breaks > _MOST_BREAKS:
            self._find("altered", place, link.chain, "There are too many breaks before this line to follow the chain.")
            return None
        run = _Run(link.number, link.number, place, place, link.body, link.digest, link.digest)
        if link.number == 0:
            self._check_first(chain, link.chain, run, FIRST_PREVIOUS, None)
        chain.runs.append(run)
        return run

    def _extend_run(self, chain: _Chain, run: _Run, link: Link, place: Place) -> None:
        digest = self._digest(chain, link.body, run.last_digest)
        otherwise = None
        if link.keyed != chain.keyed or digest not in (None, link.digest):
            # Where only the digest of the line before was altered, this one still follows from what it was.
            follows = run.otherwise is not None and self._digest(chain, link.body, run.otherwise) == link.digest
            if not follows:
                self._altered(link.chain, place)
                otherwise = digest
        run.last, run.end, run.last_digest, run.otherwise = link.number, place, link.digest, otherwise

    def _check_first(self, chain: _Chain, name: str, run: _Run, previous: str, otherwise: str | None) -> None:
        """Check the first line of a run, once the line before it is known."""
        digest = self._digest(chain, run.first_body, previous)
        if digest not in (None, run.first_digest) and (
            otherwise is None or self._digest(chain, run.first_body, otherwise) != run.first_digest
        ):
            self._altered(name, run.start, chain.opened)
            if run.first == run.last:
                run.otherwise = digest
        run.first_body = b""

    def _digest(self, chain: _Chain, body: bytes, previous: str) -> str | None:
        """The digest that a line should have; None where that cannot be told without the key."""
        if not chain.keyed:
            return self._plain(body, previous)
        return None if self._mac is None else self._mac(body, previous)

    def _altered(self, name: str, place: Place, opened: dict[str, Any] | None = None) -> None:
        key = (opened or {}).get("chain_key")
        if self._secret is not None and key not in (None, key_name(self._secret)):
            return self._find(
                "altered", place, name,
                f"This line does not agree with the key {key_name(self._secret)} that was given: its chain says that it "
                f"was made with the key {key!s:.8}.",
            )  # fmt: skip
        self._find(
            "altered", place, name,
            "This line, or the digest of the line before it in its chain, is not what was written.",
        )  # fmt: skip

    def _compare_anchor(self, link: Link, place: Place) -> None:
        digest = self._expected.get((link.chain, link.number))
        if digest is None:
            return
        if digest == link.digest:
            del self._expected[link.chain, link.number]
        else:
            self._find(
                "replaced", place, link.chain,
                f"Somebody else holds another line {link.number} of this chain: from here back it was made anew.",
            )  # fmt: skip
            del self._expected[link.chain, link.number]

    def _finish_chain(self, name: str, chain: _Chain) -> ChainSummary:
        runs = sorted(chain.runs, key=lambda run: (run.first, -run.last))
        before: _Run | None = None
        for run in runs:
            if before is None:
                if run.first > 0:
                    self._find(
                        "begins_elsewhere", run.start, name,
                        f"The first {_lines(run.first)} of this chain {_are(run.first)} in another file, or gone: "
                        "files that are rotated look like this.",
                    )  # fmt: skip
                before = run
                continue
            if run.first <= before.last:
                self._find(
                    "inserted", run.start, name,
                    f"{_numbers(run)} of this chain stands here a second time.",
                )  # fmt: skip
                if run.last <= before.last:
                    continue
            elif run.first > before.last + 1:
                missing = run.first - before.last - 1
                self._find(
                    "dropped", run.start, name,
                    f"{_lines(missing).capitalize()} {_are(missing)} missing between {before.end} and {run.start} "
                    f"(number {before.last + 1}{f' to {run.first - 1}' if missing > 1 else ''} of this chain).",
                )  # fmt: skip
            else:
                self._check_first(chain, name, run, before.last_digest, before.otherwise)
                if run.start.file == before.end.file and run.start.number < before.end.number:
                    moved = run if run.last - run.first <= before.last - before.first else before
                    self._find(
                        "reordered", moved.start, name,
                        f"{_numbers(moved)} of this chain does not stand where it was written.",
                    )  # fmt: skip
            before = run
        last = max(chain.runs, key=lambda run: run.last, default=None)
        return self._summary(name, chain, last)

    def _summary(self, name: str, chain: _Chain, last: _Run | None) -> ChainSummary:
        checked = not chain.keyed or self._secret is not None
        closed = last is not None and chain.closed_at == last.last
        place = None if last is None else last.end
        if not checked:
            self._find(
                "unchecked", place, name,
                "This chain was made with a key, and the key was not given: only its numbers could be checked.",
            )  # fmt: skip
        if chain.closed_at is not None and not closed:
            self._find("inserted", place, name, "This chain goes on after its own end.")
        elif not closed:
            self._find(
                "open_ended", place, name,
                "This chain ended without close: its process is still running, or it was killed. "
                "Whether lines behind this one were cut off, only somebody who holds a later one can say.",
            )  # fmt: skip
        opened = chain.opened or {}
        return ChainSummary(
            chain=name,
            lines=chain.lines,
            first=min((run.first for run in chain.runs), default=0),
            last=0 if last is None else last.last,
            last_digest="" if last is None else last.last_digest,
            opened=opened.get("time"),
            process=opened.get("process"),
            version=opened.get("version"),
            settings=opened.get("settings"),
            closed=closed,
            keyed=chain.keyed,
            checked=checked,
        )

    def _take_fragment(self, line: bytes, place: Place) -> None:
        if self._mixed and not looks_linked(line):
            self._others += 1
            return
        self._breaks += 1
        if self._breaks > _MOST_BREAKS:
            return self._unreadable(place)
        self._fragments.append(_Fragment(place, cut_of(line), line[:80]))

    def _match_cut(self, cut: Cut, chain: str, place: Place) -> None:
        for index, fragment in enumerate(self._fragments):
            if fragment.cut == cut:
                del self._fragments[index]
                return
        self._missing_cuts.append((cut, chain, place))

    def _finish_fragments(self) -> None:
        # A process that was killed, or a machine that stopped, may leave the beginning of one more line.
        next_starts = [
            start_of(name, max(run.last for run in chain.runs) + 1)
            for name, chain in self._chains.items()
            if chain.runs and chain.closed_at is None
        ]
        for fragment in self._fragments:
            for index, (cut, _, _) in enumerate(self._missing_cuts):
                if cut == fragment.cut:  # its line was in a file that was given before
                    del self._missing_cuts[index]
                    break
            else:
                size = min(len(fragment.start), 60)
                if any(fragment.start.startswith(start) or start[:size] == fragment.start for start in next_starts):
                    self._find("cut", fragment.place, None, "A line that was begun when its process ended.")
                else:
                    self._unreadable(fragment.place)
        for _, name, place in self._missing_cuts:
            self._find(
                "dropped", place, name,
                "Another line was cut before this one, as on a full disk; what was written of it is not in these files.",
            )  # fmt: skip

    def _unreadable(self, place: Place) -> None:
        self._find(
            "inserted", place, None, "This is no line of any chain: it was put here, or altered beyond recognition."
        )

    def _find(self, kind: str, place: Place | None, chain: str | None, sentence: str) -> None:
        file, number = ("", 0) if place is None else place
        finding = Finding(kind, file, number, chain, sentence)
        self._tampered = self._tampered or finding.tampering
        if len(self._findings) < _MOST_FINDINGS:
            self._findings.append(finding)
        else:
            self._more += 1


def _anchor(text: str) -> tuple[tuple[str, int], str]:
    parts = text.strip().split(":")
    if len(parts) != 3 or len(parts[0]) != 36 or not parts[1].isdecimal() or len(parts[2]) != 64:
        raise ConfigError(f"the anchor {text[:140]!a} is not CHAIN:NUMBER:DIGEST, as audit verify prints it")
    return (parts[0], int(parts[1])), parts[2]


def _facts(link: Link) -> dict[str, Any]:
    try:
        facts = json.loads(link.body + b"}")
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _numbers(run: _Run) -> str:
    return f"Line {run.first}" if run.first == run.last else f"Lines {run.first} to {run.last}"


def _lines(count: int) -> str:
    return "one line" if count == 1 else f"{count} lines"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
