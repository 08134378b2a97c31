"""How commands speak: a table for people, JSON for programs, and the three exit statuses."""

from __future__ import annotations

import json
import sys
from typing import Any, Final, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from toucan_guard.core.errors import ConfigError
from toucan_guard.settings import GuardSettings

FINDING: Final = 1
WRONG_USE: Final = 2

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


def wrong_use(text: str) -> NoReturn:
    """Say what would be right, and leave with 2."""
    err.print(Text(printable(text), style="red"))
    raise typer.Exit(WRONG_USE)


def settings_or_leave() -> GuardSettings:
    """The settings of the environment; leaves with 1 and every mistake where they are wrong."""
    try:
        return GuardSettings()
    except ConfigError as error:
        for problem in error.problems:
            err.print(Text(printable(f"✗ {problem}"), style="red"))
        raise typer.Exit(FINDING) from None
