"""TOML, read in a time that grows with the text and no faster."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

_MOST_PARTS: Final = 1_000
_QUOTED: Final = re.compile(r'"(?:\\.|[^"\\])*"' "|'[^']*'")
_SEPARATOR: Final = re.compile(r"[,=\[\]{}]")


def load_toml(text: str) -> dict[str, Any]:
    """The content of a TOML document.

    Raises:
        ValueError: This is none, in tomllib's words; or it is nested too deep.
    """
    # Of a key with dots (a.b.c) tomllib looks at every beginning: half a minute for 50,000 of them.
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_PARTS and _most_dots(line) > _MOST_PARTS:
            raise ValueError(f"nested too deep (at line {number})")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _most_dots(line: str) -> int:
    """How many dots the longest key of a line has: many values may stand in one line, and those have dots too."""
    return max(part.count(".") for part in _SEPARATOR.split(_QUOTED.sub("", line)))
