"""The rows as a table, as JSON, and as one chart for the README."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
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


def as_svg(rows: Sequence[Row]) -> str:
    """Each ratio that has something to reach, as a share of it: a bar that ends before the line has reached it."""
    drawn = [row for row in rows if row.reach and not row.unit]
    height, left, width = 22, 610, 330
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {height * len(drawn) + 46}"',
        'font-family="system-ui, sans-serif" font-size="12" role="img" aria-labelledby="t">',
        '<title id="t">Measured ratios as a share of what is to be reached</title>',
        "<style>text{fill:#24292f}.bar{fill:#2f7d6d}.over{fill:#c2571a}.line{stroke:#57606a}",
        "@media(prefers-color-scheme:dark){text{fill:#d0d7de}.line{stroke:#8b949e}}</style>",
    ]
    scale = width / 2
    for number, row in enumerate(drawn):
        share = row.reach / row.figure.median if row.least else row.figure.median / row.reach
        y = 34 + number * height
        shown = min(share, 2.0)
        parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(row.what)}</text>')
        kind = "bar" if row.reached else "over"
        parts.append(f'<rect class="{kind}" x="{left}" y="{y}" width="{shown * scale:.1f}" height="15" rx="2"/>')
        parts.append(
            f'<text x="{left + shown * scale + 6:.1f}" y="{y + 12}">{row.figure.median:.2f} of {row.reach:g}</text>'
        )
    parts.append(
        f'<line class="line" x1="{left + scale}" x2="{left + scale}" y1="24" y2="{34 + height * len(drawn)}" '
        'stroke-dasharray="3 3"/>'
    )
    parts.append(
        f'<text x="{left + scale}" y="16" text-anchor="middle">to be reached (bars end at twice that)</text></svg>'
    )
    return "\n".join(parts)


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
