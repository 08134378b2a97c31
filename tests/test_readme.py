"""The README does what it says: its Python runs, from top to bottom, and its tables are whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sybil.document import Document
from sybil.parsers.markdown import PythonCodeBlockParser

from toucan_guard import GuardSettings, Reason, ToucanGuard
from toucan_guard.core.decisions import EXPLANATIONS

README = Path(__file__).resolve().parents[1] / "README.md"


def _text() -> str:
    return README.read_text(encoding="utf-8")


def test_the_python_blocks_run_as_one_document(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("sqlalchemy")
    document = Document.parse(str(README), PythonCodeBlockParser())
    examples = list(document.examples())
    assert len(examples) >= 5
    for example in examples:
        example.evaluate()
    for line in capfd.readouterr().out.splitlines():
        assert json.loads(line)["schema"] == 1  # nothing but audit lines, since stdout is the default


@pytest.mark.parametrize("name", sorted(GuardSettings.model_fields))
def test_every_setting_is_named(name: str) -> None:
    documented = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", _text()))
    assert name.removesuffix("_file").upper() in documented or name.upper() in documented


def test_no_setting_is_named_that_does_not_exist() -> None:
    rows = re.findall(r"^\| (`[A-Z][^|]*) \|", _text().partition("## Settings")[2], re.MULTILINE)
    named = {name.lower() for row in rows for name in re.findall("`([A-Z_]+)`", row)}
    assert len(named) > 30
    assert named <= set(GuardSettings.model_fields)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_row_with_its_status(reason: Reason) -> None:
    assert f"\n| `{reason}` | {EXPLANATIONS[reason].status} |" in _text()


def test_no_reason_is_told_that_does_not_exist() -> None:
    rows = set(re.findall(r"^\| `([a-z_]+)` \| [45]\d\d \|", _text(), re.MULTILINE))
    assert rows == set(Reason)


@pytest.mark.anyio
async def test_the_example_of_a_record_has_the_keys_of_a_real_one(
    http: Any, make_settings: Any, make_token: Any, audit_lines: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    block = re.search(r"```json\n(\{.*?\})\n```", _text(), re.DOTALL)
    assert block is not None
    shown = json.loads(block[1])
    guard = ToucanGuard(app, settings=make_settings())
    await http(guard, headers={"authorization": f"Bearer {make_token()}"})
    (real,) = audit_lines()
    assert list(shown) == list(real)
    assert list(shown["steps"][0]) == list(real["steps"][0])
    for name, value in shown.items():
        if value is not None and real[name] is not None:
            assert type(value) is type(real[name]), name
