"""Find the lines of one person, token or address, by name or by pseudonym."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from ipaddress import ip_address
from typing import Any, Final

from toucan_guard.audit.json_lines import fastest_load
from toucan_guard.core.audit_event import Event, is_event
from toucan_guard.core.pseudonyms import PREFIX, Pseudonyms

_CUT: Final = "…"
_MOST_PASSED: Final = 100_000


class Search:
    """Says of each line whether it is about whom is looked for.

    Args:
        wanted: Names of fields (``subject``, ``token_id``, ``client``) and the values that all of them must have.
        key: The operator's ``AUDIT_HMAC_KEY``; None finds names only.

    Attributes:
        copies: How many lines were passed over because they stood in another file before.
        has_pseudonyms_without_key: Whether the record hides who somebody is, and there is no key to find them.
    """

    def __init__(self, wanted: Mapping[str, str], key: bytes | None) -> None:
        self._wanted = {name: _as_recorded(name, value) for name, value in wanted.items()}
        pseudonyms = None if key is None else Pseudonyms(key)
        self._pseudonyms = {
            name: None if pseudonyms is None else pseudonyms.of(name, value) for name, value in self._wanted.items()
        }
        self._load = fastest_load()
        self._decisions: set[str] = set()
        self._passed: set[str] = set()
        self._told: dict[bytes, str] = {}
        self._has_key = key is not None
        self.has_pseudonyms_without_key = False
        self.copies = 0

    def matching(self, line: bytes, *, file: str) -> Event | None:
        """The event of a line, where it is one that is looked for; a completion belongs to its decision.

        A line that stood in another file before, byte for byte, was copied with its file, and is told once.

        Args:
            line: The bytes of the line, with or without its end.
            file: The name of its file.
        """
        event = self._found(line)
        if event is None:
            return None
        mark = blake2b(line.rstrip(b"\r\n"), digest_size=16).digest()
        if self._told.setdefault(mark, file) != file:
            self.copies += 1
            return None
        return event

    def _found(self, line: bytes) -> Event | None:
        event: Any = self._load(line)
        if not is_event(event):
            return None
        if event.get("event") == "completion":
            return event if self._belongs(str(event.get("decision_id"))) else None
        if not all(self._fits(name, event.get(name)) for name in self._wanted):
            return None
        self._decisions.add(str(event.get("event_id")))
        return event

    @property
    def passed_over(self) -> bool:
        """Whether a completion stood before its decision, and was not taken: files were given newest first."""
        return not self._passed.isdisjoint(self._decisions)

    def _belongs(self, decision: str) -> bool:
        if decision in self._decisions:
            self._passed.discard(decision)  # it stood in a newer file, of which this is a copy
            return True
        if len(self._passed) < _MOST_PASSED:
            self._passed.add(decision)
        return False

    def _fits(self, name: str, value: object) -> bool:
        if not isinstance(value, str):
            return False
        if value.startswith(PREFIX):
            self.has_pseudonyms_without_key = self.has_pseudonyms_without_key or not self._has_key
            return value == self._pseudonyms[name]
        wanted = self._wanted[name]
        # What was too long for the line stands in it cut.
        return value == wanted or (len(value) > 32 and value.endswith(_CUT) and wanted.startswith(value[:-1]))


def _as_recorded(name: str, value: str) -> str:
    """An address in the one form that the record has."""
    if name != "client":
        return value
    try:
        return str(ip_address(value))
    except ValueError:
        return value
