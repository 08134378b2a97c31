"""In which line of a policy file something stands."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toucan_guard.core.policy_lines import line_of, lines_of

TOML = """\
x = 1

[attributes]   # [tables.nothing]
a = "[tables.not]"
"b c".d = { type = "string", lst = true }
e = [ 1,
 2 ]
m = \"\"\"
[not.a.table]
x = "y" z
\"\"\"
n = '''
[neither]'''
t = 07:32:00
d = 1979-05-27 07:32:00
f = 1.5
[tables."sales.f"]
all = [
  { column = "c", op = "lt", attribute = "a" }, # x
  { any = [ { column = "d" },

            { column = 'e' }, ] },
]
[[tables.g]]
a = 1
[[tables.g]]
a = []
"""
PLACES = [
    ("x", 1),
    ("attributes", 3),
    ("attributes.a", 4),
    ("attributes.b c.d", 5),
    ("attributes.b c.d.lst", 5),
    ("attributes.e[0]", 6),
    ("attributes.e[1]", 7),
    ("attributes.m", 8),
    ("attributes.n", 12),
    ("attributes.t", 14),
    ("attributes.d", 15),
    ("attributes.f", 16),
    ("tables.sales.f", 17),
    ("tables.sales.f.all", 18),
    ("tables.sales.f.all[0].op", 19),
    ("tables.sales.f.all[1].any[0]", 20),
    ("tables.sales.f.all[1].any[1].column", 22),
    ("tables.g", 24),
    ("tables.g[0].a", 25),
    ("tables.g[1]", 26),
    ("tables.g[1].a", 27),
]


@pytest.mark.parametrize(("place", "line"), PLACES)
def test_each_name_and_item_has_its_line(place: str, line: int) -> None:
    tomllib.loads(TOML)
    assert lines_of(TOML)[place] == line


def test_nothing_else_has_one() -> None:
    assert not [place for place in lines_of(TOML) if "not" in place or "neither" in place]


def test_json_has_lines_too() -> None:
    assert lines_of('{\n "a": {"b": [1,\n {"c": 2}]},\n "d\\u0041": 5\n}') == {
        "a": 2, "a.b": 2, "a.b[0]": 2, "a.b[1]": 3, "a.b[1].c": 3, "dA": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("place", "line"),
    [
        pytest.param("tables.sales.f.all[1].any[1].op", 22, id="what is missing is missed where it belongs"),
        pytest.param("tables.sales.f.all[7].op", 18, id="in a list"),
        pytest.param("attributes.z", 3, id="in a table"),
        pytest.param("nothing", None, id="nowhere"),
        pytest.param("tables.a]b", None, id="under a strange name"),
        pytest.param("", None, id="no place"),
    ],
)
def test_a_place_without_a_line_has_that_of_what_is_around_it(place: str, line: int | None) -> None:
    assert line_of(place, lines_of(TOML)) == line


@pytest.mark.parametrize("text", ["", "a", "[", "[a", "a =", "{", '{"a"', "[[a", '{"a\\/b": 1}', "a = [" * 5000])
def test_what_is_not_understood_is_left_out(text: str) -> None:
    assert set(lines_of(text)) <= {"a", "a[0]"} or len(lines_of(text)) > 100


VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(content=st.dictionaries(st.sampled_from("abc"), VALUES, min_size=1, max_size=3))
def test_every_place_of_any_json_has_its_line(content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1)
    lines = lines_of(text)

    def look(value: Any, place: str) -> None:
        if place:
            assert place in lines
        if isinstance(value, dict):
            for name, inner in value.items():
                look(inner, f"{place}.{name}" if place else name)
                found = text.splitlines()[lines[f"{place}.{name}" if place else name] - 1]
                assert found.strip().startswith(json.dumps(name))
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                look(inner, f"{place}[{index}]")

    look(content, "")
