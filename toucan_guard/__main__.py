"""``python -m toucan_guard``, and the command ``toucan-guard``."""

from __future__ import annotations

import io
import sys
import traceback


def main() -> None:
    """Run the command line, or say which extra it needs.

    What breaks down has found nothing: it leaves with 2, where Python would say 1; so does what nobody reads on.
    """
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
    try:
        app()
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):
            sys.exit(2)
        raise
    except Exception:  # noqa: BLE001 - whatever it is, it is shown
        traceback.print_exc()
        sys.exit(2)


if __name__ == "__main__":
    main()
