"""The row filter: a token's attributes under a policy, and what they mean for a row.

``matches`` is the meaning that every adapter is tested against. There is no negation
of a group, so "unknown" (a NULL column) and "no" are the same: not shown. Whatever is
absent, null, empty or of another type makes its rule false, for every operator,
``ne`` and ``not_in`` included, whatever the door let through.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

if TYPE_CHECKING:
    from toucan_guard.core.rls_policy import RlsPolicy

Type = Literal["string", "integer", "number", "boolean", "date", "datetime", "uuid", "key"]
Many = Literal["one", "list", "either"]
Operator = Literal[
    "eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "contains", "starts_with", "is_set", "is_not_set"
]

WITHOUT_ATTRIBUTE: Final = frozenset({"is_set", "is_not_set"})
OF_LISTS: Final = frozenset({"in", "not_in"})

# Bounds that every database shares.
_INTEGERS: Final = range(-(2**63), 2**63)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATETIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class _Absent:
    """No usable value: every rule that needs it is false."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Attribute:
    """A declared attribute.

    Attributes:
        name: Its key in the token's ``rls``.
        type: Of one value. ``key`` is the short form's: text or an integer.
        many: One value, a list, or either (the short form's).
        required: The door refuses a token without it.
    """

    name: str
    type: Type
    many: Many = "one"
    required: bool = True

    def read(self, value: object) -> object:
        """The typed value, lists as tuples; ``ABSENT`` where it is null or of another type."""
        if isinstance(value, list | tuple):
            if self.many == "one":
                return ABSENT
            items = tuple(read_value(self.type, item) for item in value)
            return ABSENT if ABSENT in items else items
        return ABSENT if self.many == "list" else read_value(self.type, value)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One comparison of a column with an attribute; ``is_set`` and ``is_not_set`` have none."""

    column: str
    op: Operator
    attribute: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """``all`` or ``any`` of some rules, never empty."""

    kind: Literal["all", "any"]
    rules: tuple[Rule, ...]


Rule = Leaf | Group


@dataclass(frozen=True, slots=True)
class TableRule:
    """What the policy says about a table.

    Attributes:
        name: As the policy writes it, with its schema where it does.
        rule: Which rows are seen; None where the table is open.
        show: The columns that may be read; None for every column.
        write: Rows may be inserted, and the policy's columns changed, where the row matches before and after.
    """

    name: str
    rule: Rule | None
    show: tuple[str, ...] | None = None
    write: bool = False

    @property
    def open(self) -> bool:
        """Everybody sees every row."""
        return self.rule is None

    @property
    def columns(self) -> frozenset[str]:
        """The columns that the rule looks at."""
        return frozenset() if self.rule is None else frozenset(leaf.column for leaf in leaves(self.rule))


def leaves(rule: Rule) -> list[Leaf]:
    """Every comparison of a rule, in order."""
    if isinstance(rule, Leaf):
        return [rule]
    return [leaf for inner in rule.rules for leaf in leaves(inner)]


def read_value(kind: Type, value: object) -> object:
    """One JSON value as the type says; ``ABSENT`` where it is not of that type. Never raises.

    Text that no database could hold (NUL, lone surrogates) and integers beyond 64 bits are not of their type.
    """
    if isinstance(value, bool):
        return value if kind == "boolean" else ABSENT
    if isinstance(value, int) and kind in ("integer", "number", "key"):
        return value if value in _INTEGERS else ABSENT
    if isinstance(value, float) and kind == "number":
        return value if math.isfinite(value) else ABSENT
    if isinstance(value, date | UUID):
        # Not from JSON: whoever builds a filter by hand may use Python's own types.
        return _read_native(kind, value)
    if not isinstance(value, str):
        return ABSENT
    if kind in ("string", "key"):
        return value if "\0" not in value and _encodes(value) else ABSENT
    try:
        if kind == "date" and _DATE.fullmatch(value):
            return date.fromisoformat(value)
        if kind == "datetime" and _DATETIME.fullmatch(value):
            return datetime.fromisoformat(value).astimezone(UTC)
        if kind == "uuid" and _UUID.fullmatch(value):
            return UUID(value)
    except (ValueError, OverflowError):
        return ABSENT
    return ABSENT


def _read_native(kind: Type, value: date | UUID) -> object:
    if isinstance(value, UUID):
        return value if kind == "uuid" else ABSENT
    if isinstance(value, datetime):
        return value.astimezone(UTC) if kind == "datetime" and value.tzinfo is not None else ABSENT
    return value if kind == "date" else ABSENT


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class RowFilter:
    """The rows that one token may see.

    Args:
        policy: The policy.
        attributes: Attribute name to value, as a token carries them. What the policy does not declare is ignored
            here (the door has refused it), what does not fit is absent.
        issuer: Who signed the token; part of the fingerprint.
        tenant: Whose token it is; part of the fingerprint.
    """

    policy: RlsPolicy
    attributes: Mapping[str, object]
    issuer: str = ""
    tenant: str | None = None

    def __post_init__(self) -> None:
        typed = {
            name: declared.read(self.attributes[name])
            for name, declared in self.policy.attributes.items()
            if name in self.attributes
        }
        object.__setattr__(self, "attributes", MappingProxyType(typed))

    def __repr__(self) -> str:
        return f"<RowFilter {self.fingerprint[:12]} over {', '.join(self.attribute_names) or 'no attributes'}>"

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The attributes that have a value, sorted."""
        return tuple(sorted(name for name, value in self.attributes.items() if value is not ABSENT))

    @cached_property
    def fingerprint(self) -> str:
        """A stable digest for cache keys: two filters with the same one see the same rows.

        Covers issuer, tenant, attributes and the policy's version; 64 hexadecimal digits.
        """
        described = [
            self.issuer,
            self.tenant,
            self.policy.version,
            [[name, _described(value)] for name, value in sorted(self.attributes.items())],
        ]
        return hashlib.sha256(json.dumps(described, ensure_ascii=True).encode("ascii")).hexdigest()

    def value(self, name: str) -> object:
        """The typed value of an attribute, lists as tuples; ``ABSENT`` where there is none, or an empty list."""
        value = self.attributes.get(name, ABSENT)
        return ABSENT if value == () else value

    def table(self, name: str) -> TableRule | None:
        """What the policy says about a table; None where it does not name it, which means: nothing."""
        return self.policy.tables.get(name)

    def matches(self, table: str, row: Mapping[str, object]) -> bool:
        """Whether a row of a table may be seen.

        Args:
            table: The table's name, as the policy writes it. One that it does not name shows nothing.
            row: Column name to value; an absent column counts as NULL.
        """
        found = self.table(table)
        return found is not None and (found.rule is None or self._holds(found.rule, row))

    def _holds(self, rule: Rule, row: Mapping[str, object]) -> bool:
        if isinstance(rule, Group):
            judged = (self._holds(inner, row) for inner in rule.rules)
            return all(judged) if rule.kind == "all" else any(judged)
        stored = row.get(rule.column)
        if rule.attribute is None:
            return (stored is not None) == (rule.op == "is_set")
        wanted = self.value(rule.attribute)
        if stored is None or wanted is ABSENT:
            return False
        return _compare(rule.op, stored, wanted)


def _compare(op: Operator, stored: object, wanted: Any) -> bool:
    if op in OF_LISTS:
        candidates = wanted if isinstance(wanted, tuple) else (wanted,)
        comparable = [candidate for candidate in candidates if _same_kind(stored, candidate)]
        if op == "in":
            return any(_equal(stored, candidate) for candidate in comparable)
        return len(comparable) == len(candidates) and not any(_equal(stored, item) for item in comparable)
    if isinstance(wanted, tuple) or not _same_kind(stored, wanted):
        return False
    left: Any = _comparable(stored)
    match op:
        case "eq":
            return _equal(stored, wanted)
        case "ne":
            return not _equal(stored, wanted)
        case "lt":
            return bool(left < wanted)
        case "le":
            return bool(left <= wanted)
        case "gt":
            return bool(left > wanted)
        case "ge":
            return bool(left >= wanted)
        case "contains":
            return wanted in left
        case _:
            return bool(left.startswith(wanted))


def _equal(stored: object, wanted: object) -> bool:
    return bool(_comparable(stored) == wanted)


def _comparable(stored: object) -> object:
    """A datetime without an offset is taken for UTC, as databases without time zones keep it."""
    if isinstance(stored, datetime) and stored.tzinfo is None:
        return stored.replace(tzinfo=UTC)
    return stored


def _same_kind(stored: object, wanted: object) -> bool:
    """Whether two values can be compared at all: the text "7" is not the number 7."""
    if isinstance(wanted, bool) or isinstance(stored, bool):
        # SQLite keeps booleans as 0 and 1.
        return isinstance(wanted, bool) and (isinstance(stored, bool) or stored in (0, 1))
    if isinstance(wanted, int | float):
        return isinstance(stored, int | float | Decimal)
    if isinstance(wanted, datetime) or isinstance(stored, datetime):
        return isinstance(wanted, datetime) and isinstance(stored, datetime)
    return isinstance(stored, type(wanted))


def _described(value: object) -> object:
    if isinstance(value, tuple):
        return sorted((_described(item) for item in value), key=repr)
    return [type(value).__name__, value if isinstance(value, str) else repr(value)]
