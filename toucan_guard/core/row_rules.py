"""Attributes and rules: the small language of a row policy, and what it means.

Everything here is closed by default. A rule whose attribute is absent, empty or of another type is
false, whatever its operator: ``ne`` and ``not_in`` included. An empty cell (null) matches nothing but
``is_not_set``, and a cell that is not in the row at all matches nothing.

The databases have to agree with ``Leaf.holds``, so it is exact where they differ: text is compared byte
by byte whatever the collation, and a date and time without an offset is UTC.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final, Literal
from uuid import UUID

Type = Literal["string", "integer", "number", "boolean", "date", "datetime", "uuid"]
Operator = Literal[
    "eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "contains", "starts_with", "is_set", "is_not_set"
]
Shape = Literal["one", "list", "either"]

_EQUALITY: Final = frozenset({"eq", "ne", "in", "not_in"})
_ORDER: Final = frozenset({"lt", "le", "gt", "ge"})
LIST_OPERATORS: Final = frozenset({"in", "not_in"})
BARE_OPERATORS: Final = frozenset({"is_set", "is_not_set"})
OPERATORS_OF: Final[Mapping[Type, frozenset[str]]] = {
    # No order on strings: databases sort text by collations that differ.
    "string": _EQUALITY | {"contains", "starts_with"},
    "integer": _EQUALITY | _ORDER,
    "number": _EQUALITY | _ORDER,
    "boolean": _EQUALITY,
    "date": _EQUALITY | _ORDER,
    "datetime": _EQUALITY | _ORDER,
    "uuid": _EQUALITY,
}

_LISTS: Final = (list, tuple, set, frozenset)
_INTEGERS: Final = range(-(2**63), 2**63)
_EXACT_IN_A_FLOAT: Final = 2**53
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATETIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:[0-9]{2})?"
)
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
# As databases keep a UUID in text: with its dashes or, as SQLAlchemy does on SQLite, without.
_UUID_CELL: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute that a token may or must carry.

    Attributes:
        name: As in the token's ``rls`` claim.
        type: What its value, or each of its values, is.
        shape: One value, a list of values, or either (the shorthand only).
        required: A token without it is refused.
    """

    name: str
    type: Type
    shape: Shape = "one"
    required: bool = True

    def read(self, claim: object) -> object:
        """The claim's value as Python has it, a list as a tuple; None where it is not of this type."""
        read, shape = _READERS[self.type], self.shape
        if shape != "list":
            value = read(claim)
            if shape == "one":
                return value
            if value is not None:
                return (value,)
        if not isinstance(claim, _LISTS):
            return None
        values = [read(item) for item in claim]
        return None if None in values else tuple(dict.fromkeys(values))

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        one = f"{'an' if self.type == 'integer' else 'a'} {self.type}{_HINTS.get(self.type, '')}"
        many = f"a list, each item {one}"
        return {"one": one, "list": many, "either": f"{one} or {many}"}[self.shape]


_HINTS: Final[Mapping[str, str]] = {
    "date": " such as 2013-01-31",
    "datetime": " such as 2013-01-31T12:00:00Z",
    "uuid": " with its dashes",
}


def read_value(type_: Type, claim: object) -> object:
    """One value of this type, or None. Never raises."""
    return _READERS[type_](claim)


def _read_string(claim: object) -> str | None:
    if not isinstance(claim, str):
        return None
    # NUL and lone surrogates cannot be sent to every database, and a driver's error is no answer.
    if not claim.isprintable() and any(character == "\x00" or "\ud800" <= character <= "\udfff" for character in claim):
        return None
    return str.__str__(claim)


def _read_integer(claim: object) -> int | None:
    if not isinstance(claim, int) or isinstance(claim, bool):
        return None
    # A subclass, such as an IntEnum, would be looked for in the range number by number.
    value = int.__int__(claim)
    return value if value in _INTEGERS else None


def _read_number(claim: object) -> int | float | None:
    if isinstance(claim, float):
        return claim if math.isfinite(claim) else None
    value = _read_integer(claim)
    return value if value is not None and abs(value) <= _EXACT_IN_A_FLOAT else None


def _read_boolean(claim: object) -> bool | None:
    return claim if isinstance(claim, bool) else None


def _read_date(claim: object) -> date | None:
    if isinstance(claim, date):
        return None if isinstance(claim, datetime) else claim
    if not isinstance(claim, str) or not _DATE.fullmatch(claim):
        return None
    try:
        return date.fromisoformat(claim)
    except ValueError:
        return None


def _read_datetime(claim: object) -> datetime | None:
    try:
        if isinstance(claim, str) and _DATETIME.fullmatch(claim):
            claim = datetime.fromisoformat(claim)
        if not isinstance(claim, datetime):
            return None
        return (claim.replace(tzinfo=UTC) if claim.tzinfo is None else claim).astimezone(UTC)
    except (ValueError, OverflowError):  # the 31st of June; the year 0 after a change of zone
        return None


def _read_uuid(claim: object) -> UUID | None:
    if isinstance(claim, UUID):
        return claim
    return UUID(claim) if isinstance(claim, str) and _UUID.fullmatch(claim) else None


_READERS: Final[Mapping[Type, Callable[[object], object]]] = {
    "string": _read_string,
    "integer": _read_integer,
    "number": _read_number,
    "boolean": _read_boolean,
    "date": _read_date,
    "datetime": _read_datetime,
    "uuid": _read_uuid,
}


def _read_cell(type_: Type, cell: object) -> object:
    """What is in a row, made comparable with an attribute of this type; None where it is not."""
    if type_ == "string":
        return str.__str__(cell) if isinstance(cell, str) else None
    if type_ in ("integer", "number"):
        return _read_number_cell(cell)
    if type_ == "boolean":
        # Databases without booleans keep 0 and 1.
        return bool(cell) if isinstance(cell, int) and cell in (0, 1) else None
    if type_ == "uuid" and isinstance(cell, str):
        # Both spellings are the same UUID. Other text is none, so that it passes no rule: ``ne`` included.
        return UUID(cell) if _UUID_CELL.fullmatch(cell) else None
    return read_value(type_, cell)


def _read_number_cell(cell: object) -> object:
    if isinstance(cell, Decimal) and cell.is_nan():
        # Decimal refuses to compare it; a float says no to everything, and so it lies above every
        # number and is equal to none, as PostgreSQL has it.
        return math.nan
    return cell if isinstance(cell, int | float | Decimal) and not isinstance(cell, bool) else None


@dataclass(frozen=True, slots=True)
class Leaf:
    """One comparison of a column with an attribute; without an attribute for ``is_set`` and ``is_not_set``."""

    column: str
    op: Operator
    attribute: Attribute | None = None

    def leaves(self) -> Iterator[Leaf]:
        """This comparison alone."""
        yield self

    def usable(self, value: object) -> bool:
        """Whether the attribute's value can open any row at all.

        No value and no values open none. Neither does a list where one value is compared, or the
        reverse, nor the empty string where parts of text are compared: every text contains it.
        """
        if value is None or value == () or isinstance(value, tuple) != (self.op in LIST_OPERATORS):
            return False
        return not (value == "" and self.op in ("contains", "starts_with"))

    def holds(self, row: Mapping[str, object], attributes: Mapping[str, object]) -> bool:
        """Whether the row passes. Never raises."""
        if self.column not in row:
            return False
        cell = row[self.column]
        if self.attribute is None:
            return (cell is not None) == (self.op == "is_set")
        value = attributes.get(self.attribute.name)
        if not self.usable(value):
            return False
        cell = _read_cell(self.attribute.type, cell)
        return cell is not None and _COMPARE[self.op](cell, value)

    def to_plain(self) -> object:
        """The rule as the policy file writes it."""
        plain = {"column": self.column, "op": self.op}
        return plain if self.attribute is None else {**plain, "attribute": self.attribute.name}


@dataclass(frozen=True, slots=True)
class Group:
    """Several rules: ``all`` of them have to hold, or ``any`` one. No rules at all hold for no row."""

    kind: Literal["all", "any"]
    rules: tuple[Rule, ...]

    def leaves(self) -> Iterator[Leaf]:
        """Every comparison in the group."""
        for rule in self.rules:
            yield from rule.leaves()

    def holds(self, row: Mapping[str, object], attributes: Mapping[str, object]) -> bool:
        """Whether the row passes. Never raises."""
        results = (rule.holds(row, attributes) for rule in self.rules)
        return bool(self.rules) and (all(results) if self.kind == "all" else any(results))

    def to_plain(self) -> object:
        """The rules as the policy file writes them."""
        return {self.kind: [rule.to_plain() for rule in self.rules]}


Rule = Leaf | Group


def holds_after(
    rule: Rule, changed: Mapping[str, object], attributes: Mapping[str, object], *, before: bool = True
) -> bool:
    """Whether a row that passed *before* certainly still passes once these columns are changed.

    A part that no change touches is as true as it was. Inside ``any`` nobody knows which of the
    parts was true, so there only the changed columns themselves can prove anything.
    """
    if all(leaf.column not in changed for leaf in rule.leaves()):
        return before
    if isinstance(rule, Leaf):
        return rule.holds(changed, attributes)
    if rule.kind == "all":
        return all(holds_after(part, changed, attributes, before=before) for part in rule.rules)
    return any(holds_after(part, changed, attributes, before=False) for part in rule.rules)


@dataclass(frozen=True, slots=True)
class TableRule:
    """What the policy says of one table.

    Attributes:
        name: As the database has it, with its schema where the policy names one (``sales.flights``).
        rule: Which rows are open; None only where ``open`` is set.
        open: Every row is open to every embed.
        write: New rows, and changes of columns that the rules name, are allowed where the row passes.
        show: The only columns that may be read; None for every column.
        columns: The columns that the rules name.
    """

    name: str
    rule: Rule | None = None
    open: bool = False
    write: bool = False
    show: frozenset[str] | None = None
    columns: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        named = () if self.rule is None else (leaf.column for leaf in self.rule.leaves())
        object.__setattr__(self, "columns", frozenset(named))

    def to_plain(self) -> object:
        """The table as data, for the policy's version."""
        return {
            "rule": None if self.rule is None else self.rule.to_plain(),
            "open": self.open,
            "write": self.write,
            "show": None if self.show is None else sorted(self.show),
        }


def _equal(cell: object, value: object) -> bool:
    if isinstance(cell, Decimal) and isinstance(value, float):
        # 0.1 in a token is the decimal number that was written, not its nearest binary one.
        return cell == Decimal(repr(value))
    return cell == value


def _less(cell: object, value: object) -> bool:
    if isinstance(cell, Decimal) and isinstance(value, float):
        return cell < Decimal(repr(value))
    return bool(cell < value)  # type: ignore[operator]


_COMPARE: Final[Mapping[str, Callable[[object, object], bool]]] = {
    "eq": _equal,
    "ne": lambda cell, value: not _equal(cell, value),
    "lt": _less,
    "le": lambda cell, value: _less(cell, value) or _equal(cell, value),
    "gt": lambda cell, value: not _less(cell, value) and not _equal(cell, value),
    "ge": lambda cell, value: not _less(cell, value),
    "in": lambda cell, value: any(_equal(cell, item) for item in value),  # type: ignore[attr-defined]
    "not_in": lambda cell, value: not any(_equal(cell, item) for item in value),  # type: ignore[attr-defined]
    "contains": lambda cell, value: value in cell,  # type: ignore[operator]
    "starts_with": lambda cell, value: cell.startswith(value),  # type: ignore[attr-defined]
}
