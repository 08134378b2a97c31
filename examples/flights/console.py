"""What the demo says in the terminal: with rich where it is installed, plain otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table
    from rich.text import Text
except ImportError:  # rich makes it prettier and is not needed
    _RICH = False
else:
    _RICH = True


class Advance(Protocol):
    """Report that so many more items are done."""

    def __call__(self, done: int) -> None: ...


def say(text: str = "", *, style: str = "", error: bool = False) -> None:
    """Print one line at once, also when the output is a pipe."""
    stream = sys.stderr if error else sys.stdout
    if _RICH and stream.isatty():
        Console(file=stream, highlight=False, soft_wrap=True).print(Text(text, style=style))
        return
    stream.write(text + "\n")
    stream.flush()


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Show how far a long job is; call what this yields with the number of items just done."""
    if _RICH and sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.advance(task, done)
        return
    done_so_far, tenths = 0, -1

    def advance(done: int) -> None:
        nonlocal done_so_far, tenths
        done_so_far += done
        if (reached := done_so_far * 10 // total) > tenths:
            tenths = reached
            sys.stderr.write(f"{label} [{'#' * tenths}{'.' * (10 - tenths)}] {done_so_far:,} of {total:,}\n")
            sys.stderr.flush()

    yield advance


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, bad: Sequence[bool] = ()) -> None:
    """Print a table; the rows marked in `bad` stand out."""
    flags = [*bad, *[False] * (len(rows) - len(bad))]
    if _RICH and sys.stdout.isatty():
        pretty = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
        for column in columns:
            pretty.add_column(column, overflow="fold")
        for row, wrong in zip(rows, flags, strict=True):
            pretty.add_row(*(Text(cell) for cell in row), style="bold red" if wrong else "")
        Console().print(pretty)
        return
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    lines = [
        title,
        *("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in (columns, *rows)),
    ]
    lines.insert(2, "  ".join("-" * width for width in widths))
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
