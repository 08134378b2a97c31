"""TOML, read in a time that grows with the text and no faster."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

_MOST_PARTS: Final = 1_000
# Texts and comments, also those without an end; none of it is looked at twice.
_NO_KEY: Final = re.compile(
    r'''"""(?:[^"\\]++|\\.|"(?!""))*+"{0,5}+|"(?:[^"\\\n]++|\\[^\n])*+"?'''
    r"""|'''(?:[^']++|'(?!''))*+'{0,5}+|'[^'\n]*+'?|\#[^\n]*+""",
    re.DOTALL,
)
_SEPARATOR: Final = re.compile(r"[,=\[\]{}]")


def load_toml(text: str) -> dict[str, Any]:
    """The content of a TOML document.

    Raises:
        ValueError: This is none, in tomllib's words; or it is nested too deep.
    """
    # Of a key with dots (a.b.c) tomllib looks at every beginning: half a minute for 50,000 of them.
    if any(line.count(".") > _MOST_PARTS for line in text.split("\n")):
        _refuse_long_keys(text)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse_long_keys(text: str) -> None:
    """Many values may stand in one line, and those have dots too; so do texts and comments."""
    keys = _NO_KEY.sub(lambda found: "\n" * found[0].count("\n"), text)
    for number, line in enumerate(keys.split("\n"), 1):
        if max(part.count(".") for part in _SEPARATOR.split(line)) > _MOST_PARTS:
            raise ValueError(f"nested too deep (at line {number})")
