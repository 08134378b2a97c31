"""``--since``: a day, a moment, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_AGO: Final = re.compile(r"([0-9]{1,5})([hdw])")
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(days=7)}


def read_since(text: str, *, now: datetime) -> str | None:
    """The moment that is meant, RFC 3339 in UTC; None where nothing is.

    Args:
        text: ``2026-10-01`` (the day's beginning in UTC), ``2026-10-01T08:00:00+02:00``, ``30d``, ``12h`` or ``4w``.
        now: What the last three count from.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago is not None:
            moment = now - int(ago[1]) * _UNITS[ago[2]]
        else:
            moment = datetime.fromisoformat(text.strip())
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return None
