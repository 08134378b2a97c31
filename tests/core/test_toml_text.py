"""TOML that would take tomllib minutes is refused; whatever people write is read."""

from __future__ import annotations

import re

import pytest

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.toml_text import load_toml


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(f"a{'.a' * 50_000} = 1", id="a key"),
        pytest.param(f"[a{'.a' * 50_000}]", id="a table"),
        pytest.param("[[" + " . ".join(["a"] * 50_000) + "]]", id="with spaces"),
        pytest.param(".".join(['"a.b"', "'c'"] * 25_000) + " = 1", id="in quotes"),
        pytest.param(f"x = {{ a{'.a' * 50_000} = 1 }}", id="in another one"),
        pytest.param(f'x = {{ y = """" "" """, a{".a" * 50_000} = 1 }}', id="behind a text with quotation marks"),
    ],
)
def test_a_key_of_thousands_of_parts_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ValueError, match=re.escape("nested too deep (at line 2)")):
        load_toml(f"y = 1\n{line}\n")
    with pytest.raises(ConfigError, match="the policy is not TOML: nested too deep"):
        RlsPolicy.from_toml(line)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x = [" + ", ".join(["'https://a.b.example'"] * 5_000) + "]", id="thousands of origins in a line"),
        pytest.param("x = [" + ",".join(["1.5"] * 5_000) + "]", id="thousands of numbers in a line"),
        pytest.param("x = {" + ",".join(f'"s.t{index}"=1' for index in range(5_000)) + "}", id="thousands of names"),
        pytest.param(f'x = "{"." * 5_000}"', id="dots that are text"),
        pytest.param(f'x = "\\"{"." * 5_000}"', id="dots behind a quotation mark that is text"),
        pytest.param("\n".join(f"a.b{index}.c = 1" for index in range(5_000)), id="thousands of keys"),
        pytest.param(f"x = 1  # {'-' * 40}{'.' * 5_000}", id="a line of dots as a comment"),
        pytest.param(f"# it's {'.' * 5_000}\nx = 1", id="a comment with an apostrophe"),
        pytest.param(f'x = """\nhe said "so" {"." * 5_000}\n"""', id="dots in a text of several lines"),
        pytest.param(f"x = '''\nit's {'.' * 5_000}\n'''", id="dots in a literal text of several lines"),
        pytest.param('x = """\n' + '\\"' * 200_000 + f'{"." * 5_000}\n"""', id="thousands of quotation marks"),
        pytest.param("x = 1 # " + "'" * 99_999 + "." * 5_000, id="thousands of apostrophes in a comment"),
    ],
)
def test_what_only_looks_like_it_is_read(text: str) -> None:
    assert load_toml(text)


def test_a_text_that_is_nested_too_deep_is_refused() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        load_toml(f"x = {'[' * 100_000}")
