"""Locks do not survive a fork: a thread of the parent may hold one, and is not there to give it back."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet


class Forked(Protocol):
    """Has something to renew in a child process."""

    def after_fork(self) -> None:
        """Called in the child, before anything else runs there."""
        ...


_known: Final[WeakSet[Forked]] = WeakSet()


def tell_of_forks(forked: Forked) -> None:
    """Call ``after_fork`` in every child process, as long as the object lives."""
    _known.add(forked)


def _tell() -> None:
    for forked in list(_known):
        forked.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell)
