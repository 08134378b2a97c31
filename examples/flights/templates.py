"""Pages are files with $names in them; every value is escaped on its way in."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template


def render(path: Path, **values: str) -> str:
    """Fill a page. A name in the page that nobody filled is an error, not an empty place."""
    template = Template(path.read_text(encoding="utf-8"))
    return template.substitute({name: escape(value) for name, value in values.items()})
