"""How commands speak: a table for people, JSON for programs, and the three exit statuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
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


def complain(*lines: str, style: str = "red") -> None:
    """Lines for people, beside what a command prints for programs."""
    for line in lines:
        err.print(Text(printable(line), style=style))


def wrong_use(*lines: str) -> NoReturn:
    """Say what would be right, and leave with 2."""
    complain(*lines)
    raise typer.Exit(WRONG_USE)


def read_token(path: Path) -> str:
    """The token in a file; ``-`` is standard input. Whatever is no token is for the guard to judge."""
    try:
        text = typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text("latin-1")
    except OSError as error:
        wrong_use(f"the token file cannot be read ({error.strerror})")
    return text.strip()


def settings_or_leave(kind: type[GuardSettings] = GuardSettings, *, status: int = FINDING) -> GuardSettings:
    """The settings of the environment; leaves with every mistake where they are wrong, and with 1 unless told else."""
    try:
        return kind()
    except ConfigError as error:
        complain(*(f"✗ {problem}" for problem in error.problems))
        raise typer.Exit(status) from None
