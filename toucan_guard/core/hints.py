"""Which known name is meant by one that is not known, within an amount of work that does not grow with the mistakes."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final

_MOST_COMPARED: Final = 20_000  # pairs of names: a tenth of a second
_LONGEST: Final = 256


class Hints:
    """Gives hints to the first mistakes, and to all of them where there are not thousands.

    Args:
        most_compared: When so many pairs of names were compared, there are no more hints.
    """

    def __init__(self, most_compared: int = _MOST_COMPARED) -> None:
        self._left = most_compared

    def __call__(self, name: object, known: Collection[str]) -> str:
        """A hint at the known name that is meant, where there is one."""
        if self._left <= 0:
            return ""
        self._left -= len(known)
        return did_you_mean(name, known)


def did_you_mean(name: object, known: Collection[str]) -> str:
    """A hint at the known name that is meant, where there is one."""
    if not isinstance(name, str) or len(name) > _LONGEST:
        return ""
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {close[0]}?)" if close else ""
