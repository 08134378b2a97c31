"""How many flights there really are: what the scenes compare every count with.

None of the code under test is used here, only the raw CSV and sqlite3.
"""

from __future__ import annotations

import sqlite3

from data import read_csv


def count_in_raw_data() -> dict[tuple[str, str], int]:
    """Flights of each airline and airport, by one SQL query over the raw rows in a database of its own."""
    with sqlite3.connect(":memory:") as raw:
        raw.execute("CREATE TABLE raw (carrier TEXT, origin TEXT)")
        raw.executemany("INSERT INTO raw VALUES (?, ?)", ((r["carrier"], r["origin"]) for r in read_csv("flights")))
        counted = raw.execute("SELECT carrier, origin, COUNT(*) FROM raw GROUP BY carrier, origin").fetchall()
    raw.close()
    return {(carrier, origin): number for carrier, origin, number in counted}
