"""The JSON Schema of the record's lines, as the package holds it."""

from __future__ import annotations

from importlib.resources import files


def event_schema() -> str:
    """The schema as text."""
    return (files("toucan_guard.audit") / "event.schema.json").read_text("utf-8")
