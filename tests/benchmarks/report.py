"""The rows as a table and as JSON; the chart is ``chart.py``'s."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rows import Row

_NAMED = (
    "toucan-guard", "starlette", "fastapi", "pyjwt", "joserfc", "cryptography", "cachetools", "structlog", "orjson",
    "asgi-cross-origin-protection", "uvicorn", "uvloop", "httptools", "sqlalchemy", "sqlglot", "psycopg",
)  # fmt: skip


def machine() -> dict[str, str]:
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in _read("/proc/cpuinfo").splitlines()
            if line.startswith(("model name", "CPU part"))
        ),
        platform.processor() or platform.machine(),
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor,
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {found}" for name in _NAMED if (found := _version(name))),
    }


def as_table(rows: Sequence[Row]) -> str:
    """Markdown, as the README keeps it."""
    lines = ["| what | reach | measured | beside |", "|---|---|---|---|"]
    for row in rows:
        beside = ", ".join(f"{name} {amount}" for name, amount in (row.beside or {}).items())
        lines.append(f"| {row.what} | {_reach(row)} | {_measured(row)} | {beside} |")
    return "\n".join(lines)


def as_json(rows: Sequence[Row]) -> str:
    return json.dumps({**machine(), "rows": [row.as_json() for row in rows]}, indent=1)


def _reach(row: Row) -> str:
    if row.reach is None:
        return ""
    return f"{'at least' if row.least else 'at most'} {row.reach:g}{' ' + row.unit if row.unit else ''}"


def _measured(row: Row) -> str:
    mark = {True: "", False: " (not reached)", None: ""}[row.reached]
    return f"{row.figure:.2f}{' ' + row.unit if row.unit else ''}{mark}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
