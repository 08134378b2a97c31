"""The parameters of a filter, and the values that drivers take for them.

A parameter is NULL where its attribute can open no row, and no comparison is true of NULL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from toucan_guard.core.row_rules import LIST_OPERATORS, Leaf
from toucan_guard.rls.sql_dialects import MARK, Dialect

# How every database here writes a comparison, and a regular expression of UUIDs as text.
SYMBOL: Final = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UUID_TEXT: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the filter.

    Attributes:
        name: As in the statement.
        many: A list that this database takes value by value.
    """

    name: str
    leaf: Leaf
    attribute: str
    convert: Callable[[Any], Any]
    many: bool

    def value(self, attributes: Any) -> Any:
        """What the driver gets; None where the attribute can open no row. Of ``many`` always a list."""
        value = attributes.get(self.attribute)
        if not self.leaf.usable(value):
            return [None] if self.many else None
        return self.convert(value)


class Parameters:
    """The parameters of one statement: each once, however often its comparison is written.

    Args:
        dialect: Whether its drivers take lists.

    Attributes:
        in_order: All of them, in the order of their names.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._known: dict[tuple[int, str], Parameter] = {}
        self.in_order: list[Parameter] = []

    def of(self, leaf: Leaf, use: str, convert: Callable[[Any], Any], *, whole: bool = False) -> str:
        """The text of a parameter.

        Args:
            leaf: Whose attribute it is.
            use: Tells the parameters of one comparison apart.
            convert: The conversion of a value, of a list that of each of its values.
            whole: Of a list too it is that of the whole.
        """
        assert leaf.attribute is not None  # noqa: S101 - only comparisons have parameters
        known = self._known.get((id(leaf), use))
        if known is None:
            many = not self._dialect.arrays and leaf.op in LIST_OPERATORS
            name = f"tg_{len(self.in_order)}"
            if leaf.op in LIST_OPERATORS and not whole:
                convert = _each(convert)
            known = Parameter(name, leaf, leaf.attribute.name, convert, many)
            self._known[id(leaf), use] = known
            self.in_order.append(known)
        return f"{MARK}{known.name}{MARK}"


def _each(convert: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return list if convert is as_it_is else lambda values: [convert(value) for value in values]


def as_it_is(value: Any) -> Any:
    """A value that the driver takes."""
    return value


def without_dashes(value: UUID) -> str:
    """A UUID as its digits alone."""
    return value.hex


def spellings(value: Any) -> list[str]:
    """A UUID, or each of several, as text in both ways."""
    return [spelled for one in listed(value) for spelled in (str(one), one.hex)]


def listed(value: Any) -> tuple[Any, ...]:
    """A value, or each of several."""
    return value if isinstance(value, tuple) else (value,)
