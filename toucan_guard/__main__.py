"""``python -m toucan_guard``, and the command ``toucan-guard``."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """Run the command line, or say which extra it needs.

    What breaks down has found nothing: it leaves with 2, where Python would say 1; so does what nobody reads on, or
    what cannot be written.
    """
    _open_what_is_closed()
    try:
        from toucan_guard.cli import app
    except ModuleNotFoundError as missing:
        if missing.name not in ("typer", "rich", "publicsuffixlist"):
            raise
        sys.stderr.write("The command line needs an extra: pip install 'toucan-guard[cli]'\n")
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a tick that a terminal cannot show is no breakdown
    status: object = 0
    try:
        app()
    except SystemExit as left:
        status = 2 if isinstance(left.__context__, BrokenPipeError) else left.code
    except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
        status = 2
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            _tell_of(error)
        else:
            with suppress(OSError):
                traceback.print_exc()
    if not _is_written(sys.stdout) or not _is_written(sys.stderr):
        status = 2
    sys.exit(status)  # type: ignore[arg-type]


def _open_what_is_closed() -> None:
    """Whoever runs us without one of the three streams reads nothing there, and no file of ours takes its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end


def _is_written(stream: TextIO) -> bool:
    """Whether a stream has taken what was said; what a full disk has not taken is let go of, and that is told."""
    try:
        stream.flush()
    except OSError as error:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            _tell_of(error)
        return False
    return True


def _tell_of(error: OSError) -> None:
    with suppress(OSError):  # that may be what is full
        sys.stderr.write(f"what there is to say cannot be written ({error.strerror})\n")


if __name__ == "__main__":
    main()
