"""``python -m toucan_guard``, and the command ``toucan-guard``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say which extra it needs."""
    try:
        from toucan_guard.cli import app
    except ModuleNotFoundError as missing:
        if missing.name not in ("typer", "rich", "publicsuffixlist"):
            raise
        sys.stderr.write("The command line needs an extra: pip install 'toucan-guard[cli]'\n")
        sys.exit(2)
    app()


if __name__ == "__main__":
    main()
