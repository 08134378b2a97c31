"""The refusal of a table that the policy does not name.

Hosts show why a query was refused to whoever wrote it, so its text repeats what was asked for and names no table of the
policy. What helps the developer alone is a note (PEP 678): tracebacks show it, ``str()`` does not.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final, TypeVar

from toucan_guard.core.errors import QueryRefused

_SYSTEM_SCHEMAS: Final = ("information_schema", "pg_catalog", "pg_toast")
_SYSTEM_TABLES: Final = ("sqlite_", "pg_", "duckdb_")
_OPENING: Final = "Add its rules to the policy; open = true is for a table whose every row every embed may read."

_Refused = TypeVar("_Refused", bound=QueryRefused)


def unnamed_table(kind: type[_Refused], name: str, tables: Collection[str], *, prefix: str = "") -> _Refused:
    """What to raise for a table that the policy does not open.

    Args:
        kind: The exception.
        name: The table, with its schema where the query names one.
        tables: Those that the policy names.
        prefix: What the text begins with.
    """
    if _is_of_the_system(name):
        return kind(f"{prefix}the table {name!r} is named like the database's own, which are not open to embeds")
    refused = kind(f"{prefix}the policy does not name the table {name!r}")
    near = difflib.get_close_matches(name, sorted(tables), 1)
    refused.add_note(f"Did you mean {near[0]}? If not: {_OPENING[0].lower()}{_OPENING[1:]}" if near else _OPENING)
    return refused


def _is_of_the_system(name: str) -> bool:
    schema, _, table = name.casefold().rpartition(".")
    return schema in _SYSTEM_SCHEMAS or table.startswith(_SYSTEM_TABLES) or table in _SYSTEM_SCHEMAS
