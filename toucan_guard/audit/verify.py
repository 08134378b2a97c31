"""Verify audit files line by line: what was altered, dropped, inserted or reordered, and where.

Every process writes a chain of its own, so several workers in one file, rotation and restarts are told apart by the
chain's id, and files may be given in any order. A copy may be given beside its original, whole or in part: a line that
stands in two files, byte for byte, is one line. Every file has to be in order by itself all the same, so that a copy
hides nothing that was done to the original.

Memory grows with the number of chains and of breaks in them, and by eight bytes for each line (copies are free): 80 MB
for ten million lines.

What this cannot show: lines that were cut off at the end of a chain without ``close``, or at its beginning (rotation
looks the same), unless somebody else holds an anchor of one of them; and, in a chain without a key, an edit by
somebody who made the whole rest of the chain anew.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Final

from toucan_guard.audit.file_notes import FileNotes
from toucan_guard.audit.fragments import Fragments
from toucan_guard.audit.joins import may_be_in
from toucan_guard.audit.json_lines import fastest_load
from toucan_guard.audit.runs import ChainRuns
from toucan_guard.audit.seen import make_marks
from toucan_guard.audit.verdict import Findings, Place, Verdict
from toucan_guard.core.audit_chain import (
    Link,
    chain_secret,
    hash_of,
    key_name,
    line_of,
    links_in,
    looks_linked,
)
from toucan_guard.core.audit_event import is_event
from toucan_guard.core.errors import ConfigError

_PLAIN: Final = {"": hash_of(None)}  # of chains that were made without a key
_MOST_BREAKS: Final = 20_000  # runs that are remembered


class ChainVerifier:
    """Takes the lines of any number of files, one after the other, and says what it found.

    Args:
        key: The operator's ``AUDIT_CHAIN_KEY``. With it, a chain that was made without is evidence of tampering;
            without it, only the numbers of keyed chains can be checked, as of those whose key is another one.
        earlier: More keys: which one a chain was made with is found out.
        mixed: Other programs write into the same stream: their lines are counted, not reported.
        expect: Anchors that somebody else has kept, ``CHAIN:NUMBER:DIGEST``: these lines must be there.

    Raises:
        ConfigError: An anchor is not written like that.
    """

    def __init__(
        self,
        key: bytes | None = None,
        *,
        earlier: Iterable[bytes] = (),
        mixed: bool = False,
        expect: Iterable[str] = (),
    ) -> None:
        secrets = [chain_secret(each) for each in (key, *earlier) if each is not None]
        self._macs = {key_name(secret): hash_of(secret) for secret in secrets}
        self._mixed = mixed
        self._load = fastest_load()
        self._expected = dict(map(_anchor, expect))
        self._findings = Findings()
        self._fragments = Fragments(self._findings)
        self._marks = make_marks()
        self._chains: dict[str, ChainRuns] = {}
        self._files: dict[str, FileNotes] = {}
        self._breaks = 0
        self._unread: list[str] = []
        self._damaged: set[str] = set()

    def feed(self, line: bytes, *, file: str, number: int) -> Sequence[bytes]:
        """Take one line. All lines of a file come one after the other.

        Args:
            line: The bytes of the line; the last one of a file may be without its newline.
            file: The name of its file, for findings.
            number: Its place in the file, from 1.

        Returns:
            What is to be counted of it: itself, or each whole line that stands on it; but for lines that have stood in
            another file before, byte for byte.
        """
        notes = self._files.get(file)
        if notes is None:
            notes = self._files[file] = FileNotes(file)
        place = Place(file, number)
        content = notes.content_of(line, number)
        fragments, links = links_in(content)
        if not links:
            self._take_other(content, line, place, notes)
            return (line,)
        notes.take_end(line, number)
        for fragment in filter(None, (notes.without_zeros(fragment, number) for fragment in fragments)):
            # The newline behind the last one may be of the line in front of it, or of whoever wrote next.
            self._fragments.take(fragment, place, ended=False)
        if len(links) > 1:
            self._tell_of_joined(links, place)
        notes.linked += len(links)
        counted = []
        for link in links:
            if self._expected:
                self._compare_anchor(link, place)
            other = self._take_link(link, place)
            if other is None:
                counted.append(link)
            else:
                notes.take_copy(other, number)
        return [line_of(link) for link in counted]

    @property
    def files(self) -> Container[str]:
        """The files of which a line was taken."""
        return self._files.keys()

    def cannot_read(self, file: str, why: str, *, damaged: bool = False) -> None:
        """Note a file that cannot be read, or only in part: what is missing elsewhere may be in there.

        Args:
            file: Its name.
            why: What whoever tried was told, as the rest of a sentence about the file.
            damaged: What was read of it is not what was packed.
        """
        self._unread.append(file)
        if damaged:
            self._damaged.add(file)
        if file in self._files:
            self._fragments.ends_before(Place(file, self._files[file].last + 1))
        self.remark("unread", file, f"This file {why}: nothing is known of what is in there.")

    def remark(self, kind: str, file: str, sentence: str) -> None:
        """Note what whoever reads the files has found about one of them."""
        self._findings.add(kind, Place(file, 0), None, sentence)

    def finish(self) -> Verdict:
        """Put the runs of every chain together, and say what was found. Call it once."""
        files = self._fragments.files
        self._fragments.finish(
            (start for chain in self._chains.values() for start in chain.next_starts(files)),
            linked={name for name, notes in self._files.items() if notes.linked},
            chains=self._chains.keys(),
            ends={
                (name, file): number
                for name, chain in self._chains.items()
                for file, number in chain.ends_in(files).items()
            },
        )
        for notes in self._files.values():
            notes.finish(self._findings)
        chains = tuple(self._chains[name].finish(self._unread, self._damaged) for name in sorted(self._chains))
        for (name, number), digest in self._expected.items():
            kind, more = ("missing", f" {may_be_in(self._unread)}") if self._unread else ("dropped", "")
            self._findings.add(
                kind,
                None,
                name,
                f"Somebody else holds the line with seq {number} of chain {name} (digest {digest[:8]}…); it is not in "
                f"these files.{more}",
            )
        self._findings.excuse(self._damaged)
        return Verdict(
            findings=self._findings.in_order(),
            more=self._findings.more,
            chains=chains,
            lines=sum(chain.lines for chain in chains),
            copies=sum(notes.copied for notes in self._files.values()),
            others=sum(notes.others for notes in self._files.values()),
            tampered=self._findings.tampered,
            unproved=self._findings.unproved,
            with_key=bool(self._macs),
        )

    def _tell_of_joined(self, links: Sequence[Link], place: Place) -> None:
        """A process whose newline did not fit puts it in front of its next line; another may write before that."""
        if len({link.chain for link in links}) == len(links):
            self._findings.add("joined", place, None, "Lines stand on one: a newline is late. Nothing is lost by it.")
        else:
            self._findings.add("altered", place, links[0].chain, "Lines of one chain stand on one: a newline is gone.")

    def _take_other(self, content: bytes, line: bytes, place: Place, notes: FileNotes) -> None:
        if not content:
            notes.take_blank(place.number)
        elif not (content := notes.without_zeros(content, place.number)):
            self._fragments.newline_is_of(place)
        elif self._mixed and not looks_linked(content) and not is_event(self._load(content)):
            notes.others += 1
        else:
            notes.take_end(line, place.number)
            # In a mixed stream the newline may be another program's.
            self._fragments.take(content, place, ended=line.endswith(b"\n") and not self._mixed)

    def _take_link(self, link: Link, place: Place) -> str | None:
        """Take a line of a chain; the other file where it stood before, byte for byte."""
        chain = self._chains.get(link.chain)
        if chain is None:
            chain = self._chains[link.chain] = ChainRuns(
                link.chain,
                keyed=link.keyed,
                hashes=self._macs if link.keyed else _PLAIN,
                marks=self._marks,
                findings=self._findings,
            )
            if self._macs and not link.keyed:
                self._findings.add(
                    "unkeyed",
                    place,
                    link.chain,
                    "This chain was made without the key: whoever could write the file could have made it anew. "
                    "Verify files from before the key was set by themselves, without any key (the environment's is "
                    "one).",
                )
        elif chain.breaks(link, place):
            self._breaks += 1
            if self._breaks > _MOST_BREAKS:
                self._findings.add(
                    "altered", place, link.chain, "There are too many breaks before this line to follow its chain."
                )
                return None
        if link.cuts:
            self._fragments.newline_is_of(place)
        for cut in link.cuts:
            self._fragments.own(cut, link.chain, place, must_be_here=chain.follows(link, place))
        return chain.take(link, place)

    def _compare_anchor(self, link: Link, place: Place) -> None:
        digest = self._expected.pop((link.chain, link.number), link.digest)
        if digest != link.digest:
            self._findings.add(
                "replaced",
                place,
                link.chain,
                f"Somebody else holds another line {link.number} of this chain: what stands here was made anew.",
            )


def _anchor(text: str) -> tuple[tuple[str, int], str]:
    parts = text.strip().split(":")
    if len(parts) != 3 or len(parts[0]) != 36 or not parts[1].isdecimal() or len(parts[2]) != 64:
        raise ConfigError(f"the anchor {text[:140]!a} is not CHAIN:NUMBER:DIGEST, as audit verify prints it")
    return (parts[0], int(parts[1])), parts[2]
