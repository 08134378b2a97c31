"""What operators read: a mend that names a variable names it in full, so that it works when it is followed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import toucan_guard
from toucan_guard.settings import ApiKeySettings, GuardSettings

PACKAGE = Path(toucan_guard.__file__).parent
VARIABLES = {name.upper() for kind in (GuardSettings, ApiKeySettings) for name in kind.model_fields}
BARE = re.compile(rf"(?<![A-Z0-9_])(?:{'|'.join(sorted(VARIABLES))})(?:_FILE)?(?![A-Z0-9_])")
# The report, and the reasons' table in the README, name the settings as the README's own table does.
SHORT = ("audit/report", "cli/report_text.py", "core/reason_table.py")


def _sentences(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    statements = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in statements:
            yield node.value


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.relative_to(PACKAGE).as_posix())
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.relative_to(PACKAGE).as_posix().startswith(SHORT)
    ],
)
def test_no_message_names_a_variable_without_its_prefix(path: Path) -> None:
    said = [text for text in _sentences(path.read_text("utf-8")) if " " in text.strip()]
    assert [text for text in said if BARE.search(text)] == []
