"""The history of what a store holds: whether it goes on, or the store has lost its memory.

A version says which history it belongs to, after how many changes, and something random, so that two changes at the
same time are two versions. A store that restarts empty begins another history, and one that fails over to a replica
that lags goes back in its own. Entries that are missing then were not taken back by anybody.
"""

from __future__ import annotations

import secrets
from typing import Final

_LONGEST_NUMBER: Final = 18


def next_version(version: str) -> str:
    """The version after a change; it begins a history where there is none that could be read."""
    history, number = _read(version) or (secrets.token_hex(8), 0)
    return f"{history}.{number + 1}.{secrets.token_hex(8)}"


def goes_on(before: str, now: str) -> bool:
    """Whether a store that said one version before has only changed since. True where that cannot be told."""
    began, went = _read(before), _read(now)
    return began is None or (went is not None and went[0] == began[0] and went[1] >= began[1])


def _read(version: str) -> tuple[str, int] | None:
    history, _, rest = version.partition(".")
    number, separator, _ = rest.partition(".")
    if not (history and separator and number.isascii() and number.isdigit() and len(number) <= _LONGEST_NUMBER):
        return None
    return history, int(number)
