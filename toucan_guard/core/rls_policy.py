"""The row-level policy: which attributes a token may carry, and which rows of which table they open.

Written as TOML or JSON, or in a short form. Everything is checked when it is read, every
mistake is reported with its place, and what the policy does not name is closed.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, get_args

from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.row_filter import (
    ABSENT,
    OF_LISTS,
    WITHOUT_ATTRIBUTE,
    Attribute,
    Group,
    Leaf,
    Operator,
    RowFilter,
    Rule,
    TableRule,
    Type,
)

TYPES: Final = tuple(kind for kind in get_args(Type) if kind != "key")
OPERATORS: Final[tuple[Operator, ...]] = get_args(Operator)

_ORDER: Final = frozenset({"lt", "le", "gt", "ge"})
_ORDERED_TYPES: Final = frozenset({"integer", "number", "date", "datetime"})
_TEXT: Final = frozenset({"contains", "starts_with"})
_DEEPEST: Final = 16


@dataclass(frozen=True, eq=False)
class RlsPolicy:
    """A checked policy.

    Attributes:
        attributes: Name to declaration.
        tables: Name to rule; a table that is not here shows nothing.
    """

    attributes: Mapping[str, Attribute]
    tables: Mapping[str, TableRule]

    @classmethod
    def from_toml(cls, text: str) -> RlsPolicy:
        """Read a policy file in TOML.

        Raises:
            ConfigError: With every mistake, each with its place.
        """
        try:
            return _read(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"the row-level policy is not TOML: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> RlsPolicy:
        """Read a policy file in JSON; the same members as in TOML.

        Raises:
            ConfigError: With every mistake, each with its place.
        """
        try:
            document = json.loads(text, object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the row-level policy is not JSON: {error}") from None
        return _read(document)

    @classmethod
    def from_columns(cls, columns: str | Mapping[str, str] | Iterable[str]) -> RlsPolicy:
        """Read the short form: ``flights.carrier=carrier,flights.origin=airports``.

        Each entry says that a column must be the attribute's value, or one of its values: an attribute of the
        short form is required, and is text or an integer, or a list of those. The entries of one table hold together.

        Raises:
            ConfigError: With every mistake.
        """
        problems: list[str] = []
        rules: dict[str, list[Leaf]] = {}
        attributes: dict[str, Attribute] = {}
        for place, attribute in _column_entries(columns, problems):
            table, _, column = place.rpartition(".")
            if not table or not column or not attribute:
                problems.append(f"{place}={attribute}: write table.column=attribute")
                continue
            attributes[attribute] = Attribute(attribute, "key", "either")
            leaf = Leaf(column, "in", attribute)
            if leaf in rules.setdefault(table, []):
                problems.append(f"{place}={attribute}: given twice")
            rules[table].append(leaf)
        if not rules and not problems:
            problems.append("no column is given: write table.column=attribute")
        if problems:
            raise ConfigError(problems)
        tables = {name: TableRule(name, Group("all", tuple(leaves))) for name, leaves in rules.items()}
        return cls(MappingProxyType(attributes), MappingProxyType(tables))

    @cached_property
    def version(self) -> str:
        """A stable digest of what the policy says: 16 hexadecimal digits."""
        described = repr((sorted(self.attributes.items()), sorted(self.tables.items())))
        return hashlib.sha256(described.encode("utf-8", "backslashreplace")).hexdigest()[:16]

    def row_filter(
        self, attributes: Mapping[str, object] | None, *, issuer: str = "", tenant: str | None = None
    ) -> RowFilter | Deny:
        """The door: the filter of a token's attributes, or why the token is refused.

        Args:
            attributes: The token's ``rls``; None where it has none.
            issuer: Who signed the token.
            tenant: Whose token it is.

        Never raises. The refusal names attributes of the policy, never a value.
        """
        if attributes is None:
            return Deny(Reason.RLS_MISSING, "the token carries no row-level attributes")
        found = self._first_mistake(attributes)
        return RowFilter(self, attributes, issuer, tenant) if found is None else found

    def problems(self, attributes: Mapping[str, object]) -> tuple[str, ...]:
        """Every mistake in attributes that are to be minted, as sentences. Names attributes, never a value."""
        found = [
            f"the attribute {name!r} is not declared in the row-level policy"
            for name in attributes
            if name not in self.attributes
        ]
        for name, declared in self.attributes.items():
            value = attributes.get(name)
            if value is None:
                if declared.required:
                    found.append(f"the attribute {name!r} is required")
            elif declared.read(value) is ABSENT:
                found.append(f"the attribute {name!r} must be {_wanted(declared)}")
        return tuple(found)

    def _first_mistake(self, attributes: Mapping[str, object]) -> Deny | None:
        for name in attributes:
            if name not in self.attributes:
                return Deny(Reason.RLS_ATTRIBUTE_UNKNOWN, "an attribute is not declared in the row-level policy")
        for name, declared in self.attributes.items():
            value = attributes.get(name)
            if value is None:
                if declared.required:
                    return Deny(Reason.RLS_ATTRIBUTE_MISSING, f"the attribute {name!r} is required")
            elif declared.read(value) is ABSENT:
                return Deny(Reason.RLS_ATTRIBUTE_INVALID, f"the attribute {name!r} must be {_wanted(declared)}")
        return None


def _wanted(attribute: Attribute) -> str:
    kind = "text or an integer" if attribute.type == "key" else f"of type {attribute.type}"
    if attribute.many == "list":
        return f"a list of values {kind}"
    return kind if attribute.many == "one" else f"{kind}, or a list of those"


def _column_entries(columns: object, problems: list[str]) -> list[tuple[str, str]]:
    if isinstance(columns, Mapping):
        return [(str(place).strip(), str(attribute).strip()) for place, attribute in columns.items()]
    if isinstance(columns, str):
        columns = [entry for entry in columns.split(",") if entry.strip()]
    if not isinstance(columns, Iterable):
        problems.append("the columns must be text, a mapping, or a list of table.column=attribute")
        return []
    entries = []
    for entry in columns:
        place, _, attribute = str(entry).partition("=")
        entries.append((place.strip(), attribute.strip()))
    return entries


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is given twice")
    return members


def _read(document: object) -> RlsPolicy:
    problems: list[str] = []
    members = _members(document, "", {"attributes", "tables"}, problems)
    attributes = {
        name: attribute
        for name, declared in _named(members.get("attributes", {}), "attributes", problems)
        if (attribute := _attribute(name, declared, problems)) is not None
    }
    declared_names = _names_of(members.get("attributes"))
    tables = {
        name: table
        for name, content in _named(members.get("tables", {}), "tables", problems)
        if (table := _table(name, content, attributes, declared_names, problems)) is not None
    }
    if not members.get("tables") and not problems:
        problems.append("tables: the policy names no table, so nothing could ever be shown")
    if problems:
        raise ConfigError(problems)
    return RlsPolicy(MappingProxyType(attributes), MappingProxyType(tables))


def _names_of(value: object) -> frozenset[str]:
    return frozenset(value) if isinstance(value, Mapping) else frozenset()


def _members(value: object, place: str, known: set[str], problems: list[str]) -> Mapping[str, Any]:
    where = f"{place}: " if place else ""
    if not isinstance(value, Mapping):
        problems.append(f"{where}must be a table of {', '.join(sorted(known))}")
        return {}
    for name in value:
        if name not in known:
            problems.append(f"{where}{name!r} is not known; there are {', '.join(sorted(known))}")
    return value


def _named(value: object, place: str, problems: list[str]) -> list[tuple[str, object]]:
    if not isinstance(value, Mapping):
        problems.append(f"{place}: must be a table of names")
        return []
    for name in value:
        if not name or "\0" in name:
            problems.append(f"{place}: a name is empty, or has a NUL in it")
    return list(value.items())


def _attribute(name: str, declared: object, problems: list[str]) -> Attribute | None:
    place = f"attributes.{name}"
    if isinstance(declared, str):
        declared = {"type": declared}
    members = _members(declared, place, {"type", "list", "required"}, problems)
    kind = members.get("type")
    sound = True
    if kind not in TYPES:
        problems.append(f"{place}.type: must be one of {', '.join(TYPES)}")
        sound = False
    for flag in ("list", "required"):
        if not isinstance(members.get(flag, False), bool):
            problems.append(f"{place}.{flag}: must be true or false")
            sound = False
    if not sound:
        return None
    return Attribute(name, members["type"], "list" if members.get("list") else "one", members.get("required", True))


def _table(
    name: str,
    content: object,
    attributes: Mapping[str, Attribute],
    declared: frozenset[str],
    problems: list[str],
) -> TableRule | None:
    place = f"tables.{name}"
    members = _members(content, place, {"all", "any", "columns", "open", "write"}, problems)
    before = len(problems)
    for flag in ("open", "write"):
        if not isinstance(members.get(flag, False), bool):
            problems.append(f"{place}.{flag}: must be true or false")
    groups = [kind for kind in ("all", "any") if kind in members]
    show = _show(members.get("columns"), f"{place}.columns", problems)
    rule: Rule | None = None
    if members.get("open") is True:
        if groups:
            problems.append(f"{place}: open = true and a rule contradict each other; keep one")
    elif len(groups) == 1:
        rule = _group(groups[0], members[groups[0]], place, attributes, declared, problems, 1)
    elif isinstance(content, Mapping):
        problems.append(f"{place}: give exactly one of all, any, or open = true")
    if len(problems) > before or not isinstance(content, Mapping):
        return None
    return TableRule(name, rule, show, members.get("write", False))


def _show(value: object, place: str, problems: list[str]) -> tuple[str, ...] | None:
    if value is None:
        return None
    members = _members(value, place, {"show"}, problems)
    columns = members.get("show")
    if not isinstance(columns, list) or not columns or not all(isinstance(item, str) and item for item in columns):
        problems.append(f"{place}.show: must be a list of column names, and not empty")
        return None
    return tuple(dict.fromkeys(columns))


def _group(
    kind: str,
    value: object,
    place: str,
    attributes: Mapping[str, Attribute],
    declared: frozenset[str],
    problems: list[str],
    depth: int,
) -> Rule | None:
    place = f"{place}.{kind}"
    if not isinstance(value, list) or not value:
        problems.append(f"{place}: must be a list of rules, and not empty")
        return None
    if depth > _DEEPEST:
        problems.append(f"{place}: groups are nested more than {_DEEPEST} deep")
        return None
    rules = []
    for index, item in enumerate(value):
        here = f"{place}[{index}]"
        nested = [name for name in ("all", "any") if isinstance(item, Mapping) and name in item]
        rule: Rule | None
        if nested:
            _members(item, here, {nested[0]}, problems)
            rule = _group(nested[0], item[nested[0]], here, attributes, declared, problems, depth + 1)
        else:
            rule = _leaf(item, here, attributes, declared, problems)
        if rule is not None:
            rules.append(rule)
    return Group("all" if kind == "all" else "any", tuple(rules)) if len(rules) == len(value) else None


def _leaf(
    value: object, place: str, attributes: Mapping[str, Attribute], declared: frozenset[str], problems: list[str]
) -> Leaf | None:
    members = _members(value, place, {"attribute", "column", "op"}, problems)
    if not isinstance(value, Mapping):
        return None
    column: object = members.get("column")
    op: Any = members.get("op")
    name: object = members.get("attribute")
    before = len(problems)
    if not isinstance(column, str) or not column:
        problems.append(f"{place}.column: must name a column")
    if op not in OPERATORS:
        problems.append(f"{place}.op: must be one of {', '.join(OPERATORS)}")
    elif op in WITHOUT_ATTRIBUTE:
        if name is not None:
            problems.append(f"{place}.attribute: {op} takes none")
    elif not isinstance(name, str) or name not in attributes:
        if not isinstance(name, str) or name not in declared:
            problems.append(f"{place}.attribute: must name a declared attribute")
    else:
        problem = _unfit(op, attributes[name])
        if problem:
            problems.append(f"{place}.op: {problem}")
    if len(problems) > before or (name is not None and name not in attributes):
        return None  # said above, or where the attribute is declared
    return Leaf(str(column), op, None if name is None else str(name))


def _unfit(op: str, attribute: Attribute) -> str:
    """Why an operator makes no sense for an attribute; empty where it does."""
    if op in OF_LISTS:
        return "" if attribute.many == "list" else f"{op} takes an attribute with list = true"
    if attribute.many == "list":
        return f"{op} takes a single value, and {attribute.name!r} is a list; use in or not_in"
    if op in _ORDER and attribute.type not in _ORDERED_TYPES:
        return f"{op} is not allowed for type {attribute.type}: databases order it differently"
    if op in _TEXT and attribute.type != "string":
        return f"{op} is for type string only"
    return ""
