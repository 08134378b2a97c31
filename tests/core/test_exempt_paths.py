"""Exempt paths: compared whole, or by whole segments."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.exempt_paths import exempt_paths

IS_EXEMPT = exempt_paths(["/health", "/a//b"], ["/static", "/a/b/"])


@pytest.mark.parametrize(
    ("method", "path", "exempt"),
    [
        pytest.param("GET", "/health", True, id="an exact path"),
        pytest.param("DELETE", "/health", True, id="an exact path, by any method"),
        pytest.param("GET", "/a//b", True, id="an exact path is compared as it stands"),
        pytest.param("GET", "/health/", False, id="a slash more"),
        pytest.param("GET", "/static/app.js", True, id="below a prefix"),
        pytest.param("HEAD", "/a/b/c", True, id="below a prefix that was given with its slash"),
        pytest.param("POST", "/static/app.js", False, id="a prefix is for reading"),
        pytest.param("GET", "/static", False, id="a prefix without its slash"),
        pytest.param("GET", "/statics/app.js", False, id="no boundary of a segment"),
        pytest.param("GET", "/static/../x", False, id="up"),
        pytest.param("GET", "/static/./x", False, id="a dot"),
        pytest.param("GET", "/static//x", False, id="an empty segment"),
        pytest.param("GET", "/static/..", False, id="up at the end"),
        pytest.param("GET", "/static/x\\y", False, id="a backslash"),
        pytest.param("GET", "", False, id="nothing"),
    ],
)
def test_what_is_exempt(method: str, path: str, exempt: bool) -> None:
    assert IS_EXEMPT(method, path) is exempt


def test_nothing_is_exempt_unless_it_is_named() -> None:
    assert not exempt_paths([], [])("GET", "/")


@given(st.lists(st.sampled_from(["static", "..", ".", "", "x", "\\", "a", "b", "%2e%2e"]), max_size=6))
def test_nothing_that_could_be_another_path_is_exempt_by_its_beginning(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    if IS_EXEMPT("GET", path) and path != "/a//b":
        assert segments[0] == "static" or segments[:2] == ["a", "b"]
        assert not {"..", "\\"} & set(segments)


@pytest.mark.parametrize(
    ("paths", "prefixes", "problem"),
    [
        pytest.param("/health", [], "are lists", id="one path as text"),
        pytest.param([], "/static", "are lists", id="one prefix as text"),
        pytest.param([], ["/static", "/"], "would exempt everything", id="a prefix of everything"),
        pytest.param([], ["//"], "would exempt everything", id="spelt another way"),
    ],
)
def test_mistakes_are_found_at_the_start(paths: Any, prefixes: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        exempt_paths(paths, prefixes)
