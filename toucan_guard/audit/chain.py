"""The chain of one process: what makes each of its audit lines prove the one before.

It begins with the first line that a process writes, and so after the fork: a forked process finds another number of
its own and begins anew. A line that could not be written is no part of the chain: the next one takes its place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from toucan_guard.audit.forks import tell_of_forks
from toucan_guard.core.audit_chain import (
    FIRST_PREVIOUS,
    MAX_CUTS,
    Cut,
    chain_secret,
    cut_of,
    hash_of,
    key_name,
    linked_line,
    room_of,
)
from toucan_guard.core.audit_event import Event, open_event
from toucan_guard.core.audit_line import MAX_LINE_BYTES, Dump, encode_line
from toucan_guard.ids import new_id


class Chain:
    """Renders events as linked lines, one after the other. Not for several threads at once.

    Args:
        key: The operator's ``AUDIT_CHAIN_KEY``, or None for a chain that anybody can check and make.
        settings: A digest of the configuration.
        dump: Encodes events as JSON in ASCII.
        clock: Seconds since the epoch.

    Attributes:
        begun: This process has a chain.
    """

    def __init__(
        self, key: bytes | None, *, settings: str | None, dump: Dump, clock: Callable[[], float] = time.time
    ) -> None:
        secret = None if key is None else chain_secret(key)
        self._keyed = secret is not None
        self._key_name = None if secret is None else key_name(secret)
        self._hashed = hash_of(secret)
        self._settings = settings
        self._version = _version()
        self._dump = dump
        self.now = clock
        self.begun = False
        # Outlives a chain: where a first or last line was cut, the next chain's first line says so.
        self._cuts: tuple[Cut, ...] = ()
        self._before: tuple[str, tuple[Cut, ...]] = ("", ())
        self._last = b""
        tell_of_forks(self)

    def begin(self) -> Event:
        """Begin a chain of this process's own, with the event that it begins with."""
        self.begun = True
        self._id = new_id()
        self._number = 0
        self._previous = FIRST_PREVIOUS
        return open_event(
            now=self.now(),
            version=self._version,
            process=os.getpid(),
            settings=self._settings,
            chain_key=self._key_name,
        )

    def end(self) -> None:
        """The chain has ended: the next line begins another one."""
        self.begun = False

    def after_fork(self) -> None:
        """The chain is the parent's, and so are its lines that were cut: the parent tells of them, where it goes on."""
        self._cuts = ()
        self.end()

    def link(self, event: Event | bytes) -> bytes:
        """The event, or its line, as the next line of the chain. It counts as written, unless ``cut`` is called."""
        cuts, previous = self._cuts, self._previous
        if isinstance(event, bytes):
            line = event
        else:
            line = encode_line(event, max_bytes=MAX_LINE_BYTES - room_of(cuts), dump=self._dump)
        linked, self._previous = linked_line(
            line,
            chain=self._id,
            number=self._number,
            previous=previous,
            cuts=cuts,
            hashed=self._hashed,
            keyed=self._keyed,
        )
        self._last = linked
        self._before = previous, cuts
        self._number += 1
        self._cuts = ()
        return linked

    def cut(self, written: int = 0) -> None:
        """Of the line that was linked last, only so many bytes were written: the next one takes its place."""
        self._number -= 1
        self._previous, self._cuts = self._before
        if written > 0:
            self._cuts = (*self._cuts[-MAX_CUTS + 1 :], cut_of(self._last[:written]))


def _version() -> str | None:
    try:
        return version("toucan-guard")
    except PackageNotFoundError:
        return None
