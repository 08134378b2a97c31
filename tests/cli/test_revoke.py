"""``toucan-guard revoke`` where no store is needed: wrong use is told before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from toucan_guard.cli import app
from toucan_guard.testing import TEST_SECRET

ENVIRONMENT = {
    "TOUCAN_GUARD_ALLOWED_ORIGINS": "https://portal.example",
    "TOUCAN_GUARD_ISSUER": "https://host.example",
    "TOUCAN_GUARD_AUDIENCE": "charts",
    "TOUCAN_GUARD_SECRET": TEST_SECRET,
    "TOUCAN_GUARD_RLS_COLUMNS": "flights.carrier=carrier",
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def invoke(*arguments: str, **changes: str) -> Any:
        for name, value in {**ENVIRONMENT, **changes}.items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(app, ["revoke", *arguments])

    return invoke


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param([], "--token", id="nothing"),
        pytest.param(["--list", "--tenant", "acme"], "--list", id="list and revoke"),
        pytest.param(["--list", "--undo"], "--undo", id="list and undo"),
        pytest.param(["--undo"], "--token", id="undo of nothing"),
        pytest.param(["--list", "--for", "5"], "--for", id="a list for a time"),
        pytest.param(["--undo", "--tenant", "acme", "--for", "5"], "--for", id="undone for a time"),
        pytest.param(["--tenant", "acme", "--for", "0"], "--for", id="for no time"),
        pytest.param(["--issued-before", "yesterday"], "is no time", id="a time in words"),
        pytest.param(["--issued-before", "2026-11-26T11:00:00"], "is no time", id="a time without a zone"),
        pytest.param(["--issued-before", "-5"], "is no time", id="a time before the epoch"),
        pytest.param(["--issued-before", "4102444800"], "lies ahead", id="a time to come"),
        pytest.param(["--issued-before", "9" * 400], "lies ahead", id="a time of four hundred digits"),
        pytest.param(["--tenant", "acme"], "memory://", id="a memory in another process"),
        pytest.param(["--everything"], "No such option", id="an unknown option"),
    ],
)
def test_wrong_use_is_told(arguments: list[str], words: str, run: Any) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.output


def test_a_broken_configuration_is_told(run: Any) -> None:
    result = run("--list", TOUCAN_GUARD_STORE_URL="redis://:hunter2hunter2@store.example/first")
    assert result.exit_code == 2
    assert "TOUCAN_GUARD_STORE_URL" in result.output
    assert "hunter2" not in result.output


def test_a_name_that_is_no_name_is_wrong_use(run: Any) -> None:
    pytest.importorskip("redis")
    result = run("--tenant", "", TOUCAN_GUARD_STORE_URL="redis://127.0.0.1:9/0")
    assert result.exit_code == 2
    assert "names something" in result.output


@pytest.mark.parametrize("arguments", [["--tenant", "acme"], ["--list"], ["--undo", "--key", "k"]])
def test_a_store_that_does_not_answer_was_not_asked(arguments: list[str], run: Any) -> None:
    pytest.importorskip("redis")
    result = run(*arguments, TOUCAN_GUARD_STORE_URL="redis://:hunter2hunter2@127.0.0.1:9/0")
    assert result.exit_code == 2, "1 would say that there was nothing to take back"
    assert "the store cannot be reached" in result.output
    assert "hunter2" not in result.output
