"""What the verification of audit files has found: findings with their place, and every chain that was seen."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

# What is evidence of tampering, and what an honest system leaves behind as well.
TAMPERING: Final = frozenset({"altered", "dropped", "inserted", "reordered", "replaced", "unkeyed"})
HONEST: Final = frozenset({
    "begins_elsewhere", "blank", "cut", "empty", "given_twice", "joined", "line_ends", "open_ended", "scattered"
})  # fmt: skip
# What nothing is known of: no evidence, and no proof either.
UNPROVED: Final = frozenset({"damaged", "foreign", "missing", "unchecked", "unread"})

_MOST: Final = 10_000


class Place(NamedTuple):
    """A line of a file, counted from 1."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as an undisturbed log would be.

    Attributes:
        kind: A member of ``TAMPERING``, of ``HONEST`` or of ``UNPROVED``.
        file: Where, as it was given to the verifier; empty where it is nowhere.
        number: The line in it, from 1; 0 where it is nowhere, or the whole file.
        chain: The chain that it is about, or None.
        sentence: For people who are no developers.
    """

    kind: str
    file: str
    number: int
    chain: str | None
    sentence: str

    @property
    def tampering(self) -> bool:
        """Whether this is evidence that somebody changed the log."""
        return self.kind in TAMPERING


class Findings:
    """Collects findings, the first ten thousand of them whole: of evidence, and of everything else."""

    def __init__(self) -> None:
        self._evidence: list[Finding] = []
        self._others: list[Finding] = []
        self._accused: set[str] = set()
        self.more = 0
        self.unproved = False

    @property
    def tampered(self) -> bool:
        """Whether there is evidence of tampering."""
        return bool(self._accused)

    def add(self, kind: str, place: Place | None, chain: str | None, sentence: str) -> None:
        """Note one."""
        file, number = ("", 0) if place is None else place
        self._keep(Finding(kind, file, number, chain, sentence))

    def _keep(self, finding: Finding) -> None:
        self.unproved = self.unproved or finding.kind in UNPROVED
        if finding.tampering:
            self._accused.add(finding.file)
        kept = self._evidence if finding.tampering else self._others
        if len(kept) < _MOST:
            kept.append(finding)
        else:
            self.more += 1

    def excuse(self, files: Container[str]) -> None:
        """What was found in these files is no evidence: they say themselves that they are damaged."""
        found, self._evidence = self._evidence, []
        for finding in found:
            if finding.file in files:
                more = "The file is damaged: nobody need have done that."
                self._keep(replace(finding, kind="damaged", sentence=f"{finding.sentence} {more}"))
            else:
                self._evidence.append(finding)
        self._accused = {file for file in self._accused if file not in files}

    def in_order(self) -> tuple[Finding, ...]:
        """By their places."""
        return tuple(sorted((*self._evidence, *self._others), key=lambda finding: (finding.file, finding.number)))


@dataclass(frozen=True, slots=True)
class ChainSummary:
    """One chain: what one process wrote from one start on.

    Attributes:
        chain: Its id.
        lines: How many of its lines were seen, each once.
        first: The number of the first of them; 0 is the chain's beginning.
        last: The number of the last of them.
        last_digest: What the last of them says its digest is.
        opened: When the chain began (RFC 3339), where its beginning was seen.
        process: The number of its process, where its beginning was seen.
        version: The version that wrote it, where its beginning was seen.
        settings: The digest of its configuration, where its beginning was seen.
        closed: Whether it ended in good order.
        keyed: Whether it was made with a key.
        key: The name of the key that it says it was made with, where its beginning was seen.
        checked: Whether its digests could be checked: a keyed one needs the key.
    """

    chain: str
    lines: int
    first: int
    last: int
    last_digest: str
    opened: str | None
    process: int | None
    version: str | None
    settings: str | None
    closed: bool
    keyed: bool
    key: str | None
    checked: bool

    @property
    def anchor(self) -> str:
        """What somebody else may keep, to prove later that this line was there: ``CHAIN:NUMBER:DIGEST``."""
        return f"{self.chain}:{self.last}:{self.last_digest}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result.

    Attributes:
        findings: In the order of their places; the first ones only where there are very many.
        more: How many findings are left out.
        chains: Every chain, in the order of their ids, which is that of their beginnings.
        lines: How many lines of chains were seen, each once.
        copies: How many more were the same ones again, byte for byte, in another file.
        others: How many lines of other programs were seen in a mixed stream.
        tampered: Whether there is evidence of tampering.
        unproved: Whether there are lines of which nothing is known.
        with_key: Whether a key was given to check them with.
    """

    findings: tuple[Finding, ...]
    more: int
    chains: tuple[ChainSummary, ...]
    lines: int
    copies: int
    others: int
    tampered: bool
    unproved: bool
    with_key: bool
