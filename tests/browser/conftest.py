"""A real Chromium and the running demo."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("TOUCAN_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The flights example on four free ports."""
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("uvicorn")
    sys.path.insert(0, str(FLIGHTS))
    try:
        import data  # type: ignore[import-not-found]
        import demo as flights  # type: ignore[import-not-found]

        try:
            data.prepare(data.database_url()).dispose()
        except data.DemoError as error:
            pytest.skip(f"the flights are not there: {error}")
        with flights.running(0, tmp_path_factory.mktemp("demo")) as running:
            yield running
    finally:
        sys.path.remove(str(FLIGHTS))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for the run."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no Chromium at {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """A browser profile of its own: no cookies from elsewhere."""
    profile = browser.new_context(viewport={"width": 1440, "height": 1000})
    profile.set_default_timeout(60_000)
    yield profile
    profile.close()


@pytest.fixture
def page(context: Any) -> Any:
    """An empty tab."""
    return context.new_page()
