"""The rooms and their order: imports run downward, and each outside library has one home."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import toucan_guard

PACKAGE = Path(toucan_guard.__file__).parent

# From the top down; a module imports from its own room and from rooms below it.
ROOMS = [
    {"__main__", "cli"},
    {"__init__", "testing", "fastapi", "lifespan"},
    {"token_service", "token_issue"},
    {"stack", "revocation"},
    {"verification_keys", "recording", "required_tables"},
    {
        "settings",
        "settings_api_keys",
        "settings_audit",
        "settings_env",
        "settings_fields",
        "settings_keys",
        "settings_regions",
        "settings_rules",
        "settings_store",
        "settings_values",
    },
    {"layers"},
    {"admitted"},
    {"admission", "audited", "crashes", "live", "receipts", "turned_away"},
    {"recorder"},
    {"decision_facts"},
    {"asgi"},
    {"response_headers"},
    {"trail"},
    {"query", "proxies", "refusals", "endpoints", "templates", "request_headers"},
    {"headers"},
    {"tokens", "rls", "audit"},
    {"ids", "whole_file"},
    {"core"},
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own_rooms(path: Path) -> set[str]:
    rooms = set()
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "toucan_guard":
            rooms.add(parts[1] if len(parts) > 1 and parts[1] in LEVEL else "__init__")
    return rooms


def test_every_module_has_a_room() -> None:
    assert {_room(path) for path in MODULES} <= LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path) -> None:
    level = LEVEL[_room(path)]
    # `from toucan_guard import layers` names the package and the room; the package itself counts only alone.
    rooms = _own_rooms(path) - ({"__init__"} if len(_own_rooms(path)) > 1 else set())
    upward = {room for room in rooms if LEVEL[room] < level}
    beside = {room for room in rooms if LEVEL[room] == level and room != _room(path)}
    assert not upward, f"imports upward: {upward}"
    assert not (beside and _room(path) in {"tokens", "rls", "audit"}), (
        f"rooms of one floor do not know each other: {beside}"
    )


@pytest.mark.parametrize("path", [p for p in MODULES if _room(p) == "layers"], ids=lambda path: path.stem)
def test_layers_do_not_import_layers(path: Path) -> None:
    if path.stem == "__init__":
        return
    assert not [name for name in _imports(path) if name.startswith("toucan_guard.layers")]


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        pytest.param("structlog", {"audit"}, id="structlog is audit's"),
        pytest.param("jwt", {"tokens", "core"}, id="jwt belongs to tokens and the token core"),
        pytest.param(
            "os",
            {
                "settings_audit",
                "settings_env",
                "settings_rules",
                "settings_values",
                "asgi",
                "audit",
                "rls",
                "tokens",
                "__main__",
                "cli",
                "ids",
                "whole_file",
            },
            id="os stays out of the cores",
        ),
        pytest.param("cachetools", {"admission"}, id="what is found about requests is kept in one place"),
        pytest.param("sqlalchemy", {"rls"}, id="sqlalchemy is an adapter's"),
        pytest.param("psycopg", {"rls", "cli"}, id="psycopg is an adapter's, and connects for the command line"),
        pytest.param("sqlglot", {"rls"}, id="sqlglot is an adapter's"),
        pytest.param("fastapi", {"fastapi"}, id="fastapi has one module"),
        pytest.param(
            "time",
            {
                "admitted",
                "audited",
                "ids",
                "layers",
                "live",
                "recorder",
                "tokens",
                "rls",
                "stack",
                "settings",
                "revocation",
                "testing",
                "turned_away",
                "cli",
                "audit",
                "token_service",
            },
            id="no clock in the cores",
        ),
    ],
)
def test_each_library_has_a_home(library: str, homes: set[str]) -> None:
    users = {_room(path) for path in MODULES if any(name.split(".")[0] == library for name in _imports(path))}
    assert users <= homes


def test_cores_import_nothing_of_the_outside() -> None:
    allowed = {"toucan_guard", "pydantic", "pydantic_core", "orjson", "jwt", "idna"}
    import sys

    for path in MODULES:
        if _room(path) != "core":
            continue
        for name in _imports(path):
            top = name.split(".")[0]
            assert top in allowed or top in sys.stdlib_module_names, f"{path.name} imports {name}"
            assert top not in {"os", "time", "socket", "random", "secrets", "asyncio", "logging"}, (
                f"{path.name}: {name}"
            )


def test_the_public_names() -> None:
    assert toucan_guard.__all__ == sorted(toucan_guard.__all__)
    for name in ("ToucanGuard", "GuardSettings", "Embed", "Grant", "Allow", "Deny", "Refused", "Reason"):
        assert name in toucan_guard.__all__
        assert getattr(toucan_guard, name) is not None
    for name in toucan_guard.__all__:
        assert getattr(toucan_guard, name).__name__ == name
        assert name in dir(toucan_guard)
    with pytest.raises(AttributeError, match="has no attribute 'ToucanGard'"):
        toucan_guard.ToucanGard  # noqa: B018


def test_a_pure_part_is_imported_without_settings_and_cryptography() -> None:
    import subprocess
    import sys

    script = (
        "import sys, toucan_guard\n"
        "toucan_guard.Allow, toucan_guard.Grant\n"
        "print(sorted({'pydantic_settings', 'jwt', 'cryptography', 'starlette'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_importing_the_package_loads_neither_structlog_nor_an_extra() -> None:
    import subprocess
    import sys

    script = (
        "import sys; from toucan_guard import *\n"
        "heavy = {'structlog', 'rich', 'sqlalchemy', 'psycopg', 'fastapi', 'opentelemetry', 'typer'}\n"
        "heavy &= set(sys.modules)\n"
        "print(sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {".".join(("toucan_guard", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in MODULES}
    graph = {name: {imported for imported in _imports(path) if imported in files} for name, path in files.items()}
    # A policy makes filters, and a filter knows its policy.
    graph["toucan_guard.core.row_filter"].remove("toucan_guard.core.rls_policy")
    TopologicalSorter(graph).prepare()
