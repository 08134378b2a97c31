"""Verify audit files line by line: what was altered, dropped, inserted or reordered, and where.

Every process writes a chain of its own, so several workers in one file, rotation and restarts are told apart by the
chain's id, and files may be given in any order. Memory grows with the number of chains and of breaks in them, not
with the number of lines.

What this cannot show: lines that were cut off at the end of a chain without ``close``, or at its beginning (rotation
looks the same), unless somebody else holds an anchor of one of them; and, in a chain without a key, an edit by
somebody who made the whole rest of the chain anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from toucan_guard.audit.fragments import Fragments
from toucan_guard.audit.runs import ChainRuns
from toucan_guard.audit.verdict import Findings, Place, Verdict
from toucan_guard.core.audit_chain import (
    Link,
    chain_secret,
    hash_of,
    key_name,
    links_in,
    looks_linked,
    start_of,
)
from toucan_guard.core.errors import ConfigError

_PLAIN: Final = {"": hash_of(None)}  # of chains that were made without a key
_MOST_BREAKS: Final = 20_000  # runs that are remembered


class ChainVerifier:
    """Takes the lines of any number of files, one after the other, and says what it found.

    Args:
        key: The operator's ``AUDIT_CHAIN_KEY``. With it, a chain that was made without is evidence of tampering;
            without it, only the numbers of keyed chains can be checked.
        earlier: Keys that were in use before that one.
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
        self._expected = dict(map(_anchor, expect))
        self._findings = Findings()
        self._fragments = Fragments(self._findings)
        self._chains: dict[str, ChainRuns] = {}
        self._breaks = 0
        self._lines = 0
        self._others = 0

    def feed(self, line: bytes, *, file: str, number: int) -> None:
        """Take one line.

        Args:
            line: The bytes of the line; the last one of a file may be without its newline.
            file: The name of its file, for findings.
            number: Its place in the file, from 1.
        """
        place = Place(file, number)
        content = line.removesuffix(b"\n")
        fragments, links = links_in(content)
        if not links:
            return self._take_other(content, place, ended=line.endswith(b"\n"))
        for fragment in fragments:
            # The newline behind the last one may be of the line in front of it, or of whoever wrote next.
            self._fragments.take(fragment, place, ended=False)
        if len(links) > 1:
            self._tell_of_joined(links, place)
        for link in links:
            self._lines += 1
            if self._expected:
                self._compare_anchor(link, place)
            self._take_link(link, place)

    def finish(self) -> Verdict:
        """Put the runs of every chain together, and say what was found. Call it once."""
        self._fragments.finish(
            start_of(name, chain.next_number) for name, chain in self._chains.items() if chain.next_number is not None
        )
        chains = tuple(self._chains[name].finish() for name in sorted(self._chains))
        for (name, number), digest in self._expected.items():
            self._findings.add(
                "dropped",
                None,
                name,
                f"Somebody else holds line {number} of chain {name} (digest {digest[:8]}…); it is not in these files.",
            )
        return Verdict(
            findings=self._findings.in_order(),
            more=self._findings.more,
            chains=chains,
            lines=self._lines,
            others=self._others,
            tampered=self._findings.tampered,
        )

    def _tell_of_joined(self, links: Sequence[Link], place: Place) -> None:
        """A process whose newline did not fit puts it in front of its next line; another may write before that."""
        if len({link.chain for link in links}) == len(links):
            self._findings.add("joined", place, None, "Lines stand on one: a newline is late. Nothing is lost by it.")
        else:
            self._findings.add("altered", place, links[0].chain, "Lines of one chain stand on one: a newline is gone.")

    def _take_other(self, line: bytes, place: Place, *, ended: bool) -> None:
        if not line:
            self._findings.add("blank", place, None, "An empty line. Nothing is lost by it.")
        elif self._mixed and not looks_linked(line):
            self._others += 1
        else:
            # In a mixed stream the newline may be another program's.
            self._fragments.take(line, place, ended=ended and not self._mixed)

    def _take_link(self, link: Link, place: Place) -> None:
        chain = self._chains.get(link.chain)
        if chain is None:
            chain = self._chains[link.chain] = ChainRuns(
                link.chain,
                keyed=link.keyed,
                hashes=self._macs if link.keyed else _PLAIN,
                findings=self._findings,
            )
            if self._macs and not link.keyed:
                self._findings.add(
                    "unkeyed",
                    place,
                    link.chain,
                    "This chain was made without the key: whoever could write the file could have made it anew. "
                    "Verify files from before the key was set by themselves, without it.",
                )
        elif chain.begins_run(link):
            self._breaks += 1
            if self._breaks > _MOST_BREAKS:
                self._findings.add(
                    "altered", place, link.chain, "There are too many breaks before this line to follow its chain."
                )
                return
        for cut in link.cuts:
            self._fragments.own(cut, link.chain, place, must_be_here=chain.follows(link, place))
        chain.take(link, place)

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
