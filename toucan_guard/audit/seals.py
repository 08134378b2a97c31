"""Whether each line of a chain is by itself what was written, and with which key the chain was made.

The first line that fits a key settles it. What its first line *says* of its key is taken for nothing but a hint which
key to give: whoever may write the file may write that too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from toucan_guard.audit.verdict import Findings, Place
from toucan_guard.core.audit_chain import Hash, Link, previous_of

_ALTERED: Final = "This line is not what was written."
_MOST: Final = 100  # places that are remembered until a chain's key is known


class Checked(NamedTuple):
    """What is known of a line.

    Attributes:
        sound: Whether it is what was written; None where no key fits, so far.
        told: What the next line may say of it. Several where it is not sound: it may be its digest that was altered.
    """

    sound: bool | None
    told: tuple[str, ...]


class Seals:
    """Checks the lines of one chain, each by itself.

    Args:
        name: The chain's id.
        keyed: Whether its first line that was met is keyed: all of them must be alike.
        hashes: What may make the digest of its lines, by the name of the key. Empty where no key is at hand.
        findings: Where to say what is found.
    """

    def __init__(self, name: str, *, keyed: bool, hashes: Mapping[str, Hash], findings: Findings) -> None:
        self._name = name
        self._keyed = keyed
        self._hashes = hashes
        self._hashed = None if keyed else next(iter(hashes.values()))
        self._findings = findings
        self._waiting: list[Place] = []
        self._more = 0
        self._last: Place | None = None

    def check(self, link: Link, place: Place) -> Checked:
        """Check a line."""
        told = previous_of(link.digest)
        if link.keyed is self._keyed:
            if self._hashed is None:
                return self._try_keys(link, place, told)
            made = self._hashed(link.body).hexdigest()
            if made == link.digest:
                return Checked(sound=True, told=(told,))
        self._findings.add("altered", place, self._name, _ALTERED)
        return Checked(sound=False, told=(told, *self._digests(link)))

    def _digests(self, link: Link) -> tuple[str, ...]:
        return tuple(previous_of(hashed(link.body).hexdigest()) for hashed in self._hashes.values())

    def _try_keys(self, link: Link, place: Place, told: str) -> Checked:
        for hashed in self._hashes.values():
            if hashed(link.body).hexdigest() == link.digest:
                self._hashed = hashed
                self._tell_waiting()
                return Checked(sound=True, told=(told,))
        self._last = place
        if len(self._waiting) < _MOST:
            self._waiting.append(place)
        else:
            self._more += 1
        return Checked(sound=None, told=(told, *self._digests(link)))

    def _tell_waiting(self) -> None:
        """The key is known now, and none of the lines that were met before fits it."""
        for place in self._waiting:
            self._findings.add("altered", place, self._name, _ALTERED)
        if self._more:
            self._findings.add(
                "altered",
                self._last,
                self._name,
                f"This line, and {self._more - 1} more of its chain before it, are not what was written."
                if self._more > 1
                else _ALTERED,
            )

    def finish(self, start: Place, *, opened: bool, named: str | None) -> bool:
        """Whether this chain was checked.

        Args:
            start: Where its first line stands.
            opened: Its first line, which names its key, is here.
            named: The key that this one names, where it does.
        """
        if self._hashed is not None:
            return True
        given = " or ".join(self._hashes)
        if named in self._hashes:
            self._findings.add(
                "altered",
                start,
                self._name,
                f"This chain says that it was made with the key {named}, which was given, and none of its lines fits "
                "that: not one of them is what was written.",
            )
            return True
        whose = (
            f"It says that it was made with the key {named}."
            if named is not None
            else "Its first line names no key."
            if opened
            else "Its first line, which names its key, is not here."
        )
        if not given:
            sentence = (
                "This chain was made with a key, and no key was given: only its numbers could be checked, not what "
                f"its lines say. {whose}"
            )
        else:
            sentence = (
                f"None of the lines of this chain fits the key that was given ({given}). {whose} "
                "So nothing is known of what they say: they were made with another key, or altered, or made up."
            )
        self._findings.add("unchecked", start, self._name, sentence)
        return False
