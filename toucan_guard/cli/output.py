"""How commands speak: a table for people, JSON for programs, and the three exit statuses.

0 is good: it was done, or looked at and found in order. 1 is a finding, and always something that was looked at. 2 says
that nothing was: wrong use, wrong settings, a file, store, key set or database that could not be read or reached.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from toucan_guard.core.decisions import Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.settings import GuardSettings

FINDING: Final = 1
WRONG_USE: Final = 2
# Refusals that say nothing of the token: whoever knows was not reached.
_UNKNOWN: Final = (Reason.KEYS_UNAVAILABLE, Reason.STORE_UNAVAILABLE)
# No token is nearly as long; of a device that never ends no more is read.
_LONGEST_TOKEN_BYTES: Final = 1 << 20

out: Final = Console(highlight=False, soft_wrap=True)
err: Final = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """One line, taken literally: what a token or a route says is never read as markup."""
    out.print(Text(printable(text), style=style))


def printable(text: str) -> str:
    """Text that cannot move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def say_json(value: Any) -> None:
    """One JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def complain(*lines: str, style: str = "red") -> None:
    """Lines for people, beside what a command prints for programs."""
    for line in lines:
        err.print(Text(printable(line), style=style))


def wrong_use(*lines: str) -> NoReturn:
    """Say what would be right, and leave with 2."""
    complain(*lines)
    raise typer.Exit(WRONG_USE)


def status_of(reason: str) -> int:
    """The exit status for what the guard says to a token or a request."""
    return WRONG_USE if reason in _UNKNOWN else FINDING


def read_token(path: Path) -> str:
    """The token in a file; ``-`` is standard input. Whatever is no token is for the guard to judge."""
    try:
        if str(path) == "-":
            raw = typer.get_binary_stream("stdin").read(_LONGEST_TOKEN_BYTES)
        else:
            with path.open("rb") as file:
                raw = file.read(_LONGEST_TOKEN_BYTES)
    except OSError as error:
        wrong_use(f"the token file cannot be read ({error.strerror})")
    return raw.decode("latin-1").strip()


def settings_or_leave(kind: type[GuardSettings] = GuardSettings) -> GuardSettings:
    """The settings of the environment; leaves with every mistake where they are wrong."""
    try:
        return kind()
    except ConfigError as error:
        wrong_use(*(f"✗ {problem}" for problem in error.problems))
