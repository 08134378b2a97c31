"""python examples/flights: run the demo, or play its scenes against itself with --check."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from console import say
from data import DemoError
from demo import Demo, running

from toucan_guard.core.errors import ConfigError


def main() -> int:
    """Read the options and run; 0 for good, 1 for a scene that went wrong, 2 for what kept it from starting."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end like Ctrl+C: close the servers, tidy up
    try:
        with (
            tempfile.TemporaryDirectory(prefix="flights-") as folder,
            running(options.port_base, Path(folder), options.audit) as demo,
        ):
            if options.check:
                import scenes

                # One scene crashes the app on purpose, and its traceback would look like a mistake.
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
                return 0 if scenes.play(demo) else 1
            _show(demo)
    except (DemoError, ConfigError) as error:
        say(str(error), style="bold red", error=True)
        return 2
    except KeyboardInterrupt:
        say()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python examples/flights",
        description="Two airlines embed charts of their own flights, guarded by toucan_guard.",
    )
    parser.add_argument("--check", action="store_true", help="play the scenes against the running servers and report")
    parser.add_argument("--audit", type=Path, help="where audit lines go (default: a file for this run)")
    parser.add_argument(
        "--port-base", type=int, help="the first of four ports (default: 8000; with --check any that are free)"
    )
    options = parser.parse_args()
    if options.port_base is None:
        options.port_base = 0 if options.check else 8000
    return options


def _show(demo: Demo) -> None:
    """Say where to look, then tell every decision until Ctrl+C."""
    say()
    say("Runway Analytics guards 336,776 flights of sixteen airlines. Open these:", style="bold")
    say(f"  {demo.united.origin:<32} United's portal: two people, two frames, one web component")
    say(f"  {demo.delta.origin:<32} Delta's portal: the same charts, its own flights")
    say(f"  {demo.stranger:<32} a site nobody allowed, with passes copied from United")
    say()
    say("What the guard refuses, and why:", style="bold")
    for address, why in (
        (f"{demo.viz}/dashboards/delays", "nobody has a pass without coming from a portal: token_missing"),
        (f"{demo.viz}/api/dashboards/delays/data", "the same for the numbers: token_missing"),
        (demo.stranger, "frames, fetches and sockets from a site that is not on the list: *_not_allowed"),
        (f"{demo.united.origin}/#protected", "a person whose pass does not open a dashboard: grant_missing"),
    ):
        say(f"  {address:<52} {why}")
    say()
    say("All of it at once, with the expected answers:  python examples/flights --check")
    say(f"Audit lines of this run:  {demo.audit}")
    say("Firefox, Chrome and Edge know *.localhost by themselves. Ctrl+C ends the demo.", style="dim")
    say()
    for event in _follow(demo.audit):
        if event["event"] == "decision" and not event["exempt"]:
            say(_told(event), style="green" if event["outcome"] == "allow" else "yellow")


def _told(event: dict[str, Any]) -> str:
    """One decision on one line: when, what, why, who, from where."""
    asked = event["route"] or event["method"] or event["kind"]
    page = event["origin"] or event["embedder"]
    answer = f"{event['outcome']:<5} {event['status'] or '---'} {event['reason'] or '':<26}"
    return f"{event['time'][11:19]} {answer}{event['subject'] or 'nobody':<11} {asked}{f' from {page}' if page else ''}"


def _follow(path: Path) -> Iterator[dict[str, Any]]:
    """The events of an audit file as they are written."""
    wait = threading.Event()
    with path.open(encoding="utf-8") as lines:
        rest = ""
        while True:
            rest += lines.readline()
            if rest.endswith("\n"):
                yield json.loads(rest)
                rest = ""
            else:
                wait.wait(0.2)


if __name__ == "__main__":
    sys.exit(main())
