"""Errors for developers: one tree, every mistake at once, nothing secret in a message."""

from __future__ import annotations

import inspect

import pytest

from toucan_guard.core import errors
from toucan_guard.core.errors import ConfigError, GuardError, MintError

EVERY_ERROR = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, Exception)]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: error.__name__)
def test_every_error_is_a_guard_error_and_stands_in_the_picture_of_the_tree(error: type[Exception]) -> None:
    assert issubclass(error, GuardError)
    assert error.__name__ in (errors.__doc__ or "")


def test_a_query_that_may_not_run_is_one_kind_of_error_whatever_the_cause() -> None:
    assert issubclass(errors.NoEmbedContext, errors.RowSecurityError)
    assert issubclass(errors.QueryRefused, errors.RowSecurityError)


@pytest.mark.parametrize("error", [ConfigError, MintError])
@pytest.mark.parametrize(
    ("given", "problems"),
    [
        pytest.param("one mistake", ("one mistake",), id="a single sentence is one problem, not one for each letter"),
        pytest.param(["first", "second"], ("first", "second"), id="several problems keep their order"),
        pytest.param({"first": 1, "second": 2}.keys(), ("first", "second"), id="any iterable becomes a tuple"),
    ],
)
def test_every_mistake_is_told_at_once(error: type[ConfigError], given: object, problems: tuple[str, ...]) -> None:
    raised = error(given)  # type: ignore[arg-type]
    assert raised.problems == problems
    for problem in problems:
        assert problem in str(raised)


def test_a_config_error_counts_its_problems_on_lines_of_their_own() -> None:
    assert str(ConfigError(["A: is empty", "B: is short"])) == (
        "toucan_guard is not set up as it must be, 2 error(s):\n  - A: is empty\n  - B: is short"
    )
