"""Reads a policy: TOML or JSON that was parsed, or the shorthand, into attributes and the rules of tables.

A policy with a mistake does not load: every mistake is named at once, each with its place and line.
``policy.schema.json`` beside this file says the same to editors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, NoReturn, cast, get_args

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.hints import Hints
from toucan_guard.core.policy_lines import line_of, lines_of
from toucan_guard.core.row_rules import (
    BARE_OPERATORS,
    LIST_OPERATORS,
    OPERATORS_OF,
    Attribute,
    Group,
    Leaf,
    Operator,
    Rule,
    Shape,
    TableRule,
    Type,
)
from toucan_guard.core.toml_text import load_toml

_TYPES: Final[tuple[str, ...]] = get_args(Type)
_OPERATORS: Final[tuple[str, ...]] = get_args(Operator)
_ATTRIBUTE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
_MAX_DEPTH: Final = 32
_KINDS: Final[tuple[Literal["all", "any"], ...]] = ("all", "any")
_TABLE: Final = ("all", "any", "open", "write", "columns")
_LEAF: Final = ("column", "op", "attribute")
_WHOLE: Final = "the policy"
# Where a name without a schema is looked for: in PostgreSQL, and in SQLite and DuckDB (everywhere in tables of the
# connection first).
_SEARCHED: Final = ("public.", "pg_temp.", "temp.", "main.")
_AS_IT_IS: Final = ", without blanks or quotes around it"
_EXPECTED_SHORTHAND: Final = "write table.column=attribute, such as flights.carrier=carrier"

Read = tuple[tuple[Attribute, ...], tuple[TableRule, ...]]


def read_toml(text: str) -> Read:
    """Read a policy file.

    Raises:
        ConfigError: Every mistake, each with its place.
    """
    try:
        content = load_toml(text)
    except ValueError as error:  # also of a number with thousands of digits
        raise ConfigError(f"the policy is not TOML: {error}") from None
    return _Reader(text).read(content)


def read_json(text: str) -> Read:
    """Read a policy file written as JSON.

    Raises:
        ConfigError: Every mistake, each with its place.
    """
    try:
        content = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except ValueError as error:
        raise ConfigError(f"the policy is not JSON: {error}") from None
    except RecursionError:
        raise ConfigError("the policy is nested too deep") from None
    return _Reader(text).read(content)


def read_columns(columns: object) -> Read:
    """Read the shorthand.

    Raises:
        ConfigError: Every mistake.
    """
    return _Reader().read_columns(columns)


class _Reader:
    """Reads one policy and gathers its mistakes, each with its place."""

    def __init__(self, text: str = "") -> None:
        self._text = text
        self._lines: Mapping[str, int] | None = None
        self._problems: list[str] = []
        self._attributes: dict[str, Attribute] = {}
        self._broken: set[str] = set()  # declared, but wrongly: a second complaint at each use would not help
        self._broken_tables: set[str] = set()  # what they say is not what was meant
        self._meant = Hints()

    def read(self, content: object) -> Read:
        if not isinstance(content, dict):
            raise ConfigError("the policy must be an object with attributes and tables")
        # Editors look for the schema (policy.schema.json) under this name.
        if not isinstance(content.get("$schema", ""), str):
            self._say(_WHOLE, "$schema must be text", at="$schema")
        content = {name: value for name, value in content.items() if name != "$schema"}
        self._only(content, _WHOLE, ("attributes", "tables"))
        for name, declared in self._object(content.get("attributes", {}), "attributes").items():
            attribute = self._attribute(name, declared)
            if attribute is not None:
                self._attributes[name] = attribute
            else:
                self._broken.add(name)
        tables = []
        for name, body in self._object(content.get("tables", {}), "tables").items():
            before = len(self._problems)
            tables.append(self._table(name, body))
            if len(self._problems) > before:
                self._broken_tables.add(name)
        return self._finish(tables)

    def read_columns(self, columns: object) -> Read:
        if isinstance(columns, Mapping):
            items = [f"{column}={attribute}" for column, attribute in columns.items()]
        elif isinstance(columns, str):
            items = columns.split(",")
        elif isinstance(columns, Iterable) and not isinstance(columns, bytes):
            items = [str(item) for item in columns]
        else:
            raise ConfigError(f"the columns must be text, a mapping or a list: {_EXPECTED_SHORTHAND}")
        rules: dict[str, list[Rule]] = {}
        for item in map(str.strip, items):
            left, equals, name = (part.strip() for part in item.partition("="))
            table, dot, column = (part.strip() for part in left.rpartition("."))
            if not (
                equals and dot and self._is_table(table) and self._named(column) and _ATTRIBUTE_NAME.fullmatch(name)
            ):
                self._problems.append(f"{shown(item)}: {_EXPECTED_SHORTHAND}")
                continue
            attribute = self._attributes.setdefault(name, Attribute(name, "string", "either"))
            leaf = Leaf(column, "in", attribute)
            if leaf in rules.setdefault(table, []):
                self._problems.append(f"{shown(item)}: is given twice")
            rules[table].append(leaf)
        return self._finish([TableRule(name, _together(found)) for name, found in rules.items()])

    def _finish(self, tables: list[TableRule]) -> Read:
        folded: dict[str, str] = {}
        for table in tables:
            other = folded.setdefault(table.name.casefold(), table.name)
            if other != table.name:
                self._say(
                    f"tables.{table.name}", f"differs from {other} in case only, and some databases do not see that"
                )
        by_name = {table.name.casefold(): table for table in tables if table.name not in self._broken_tables}
        for name, table in by_name.items():
            bare = by_name.get(name.partition(".")[2]) if name.startswith(_SEARCHED) else None
            if bare is not None and bare.to_plain() != table.to_plain():
                self._say(
                    f"tables.{table.name}",
                    f"may be the same table as {bare.name}, which is looked for in that schema too, and has other "
                    "rules: keep one of the two, or write both alike",
                )
        if not tables and not self._problems:
            self._problems.append("the policy names no table, so every query would be refused: add one")
        if self._problems:
            raise ConfigError(self._problems)
        return tuple(self._attributes.values()), tuple(tables)

    def _attribute(self, name: str, declared: object) -> Attribute | None:
        place, before = f"attributes.{name}", len(self._problems)
        if not _ATTRIBUTE_NAME.fullmatch(name):
            self._say(
                place, "an attribute's name has letters, digits, _ . and -, at most 63, and begins with a letter or _"
            )
        body = {"type": declared} if isinstance(declared, str) else self._object(declared, place)
        self._only(body, place, ("type", "list", "required"))
        type_ = body.get("type")
        if isinstance(declared, str | dict) and (not isinstance(type_, str) or type_ not in _TYPES):
            self._say(place, f"type must be {one_of(_TYPES)}{self._meant(type_, _TYPES)}")
        shape: Shape = "list" if self._flag(body, "list", place, default=False) else "one"
        required = self._flag(body, "required", place, default=True)
        return Attribute(name, cast("Type", type_), shape, required) if len(self._problems) == before else None

    def _table(self, name: str, body: object) -> TableRule:
        place = f"tables.{name}"
        if not self._is_table(name):
            self._say(place, 'a table is named as in the database, with its schema in quotes: [tables."sales.flights"]')
        content = self._object(body, place)
        bare = [key for key in _LEAF if key in content]
        if bare:
            rule_there = ", ".join(f"{key} = …" for key in bare)
            self._say(place, f"a rule stands in a list: write all = [ {{ {rule_there} }} ]", at=f"{place}.{bare[0]}")
        others = {key: value for key, value in content.items() if key not in bare}
        # A typing mistake is no wish to open a table.
        self._only(others, place, _TABLE, meant=tuple(key for key in _TABLE if key != "open"))
        opened = self._flag(content, "open", place, default=False)
        groups = [kind for kind in _KINDS if kind in content]
        rule: Rule | None = None
        if len(groups) == 2:
            self._say(place, "has both all and any: put one inside the other")
        elif groups and opened:
            self._say(place, f"is open and has rules under {groups[0]}: keep one of them")
        elif groups:
            rule = self._rule({groups[0]: content[groups[0]]}, place, 0)
        elif not opened and not bare and isinstance(body, dict):
            strange = any(key not in _TABLE for key in content)
            mend = "" if strange else ", or say open = true if every embed may see every row"
            self._say(place, f"has no rules: add all or any{mend}")
        write = self._flag(content, "write", place, default=False)
        return TableRule(name, rule, opened, write, self._show(content, place))

    def _show(self, content: Mapping[str, object], place: str) -> frozenset[str] | None:
        if "columns" not in content:
            return None
        place = f"{place}.columns"
        columns = self._object(content["columns"], place)
        self._only(columns, place, ("show",))
        show = columns.get("show")
        if (
            not isinstance(show, list)
            or not show
            or not all(isinstance(name, str) and self._bare(name) for name in show)
        ):
            self._say(
                place, f'show must be a list of the columns that may be read, such as ["origin", "month"]{_AS_IT_IS}'
            )
            return None
        if len(set(show)) != len(show):
            self._say(place, "show names a column twice")
        return frozenset(show)

    def _rule(self, body: object, place: str, depth: int) -> Rule | None:
        rule = self._object(body, place)
        groups: list[Literal["all", "any"]] = [kind for kind in _KINDS if kind in rule]
        if depth > _MAX_DEPTH:
            self._say(place, f"rules are nested more than {_MAX_DEPTH} deep")
            return None
        if not groups:
            return self._leaf(rule, place) if isinstance(body, dict) else None
        if len(rule) > 1:
            self._say(place, f"{groups[0]} stands alone: put the rest inside it")
            return None
        kind = groups[0]
        members = rule[kind]
        place = f"{place}.{kind}"
        if not isinstance(members, list) or not members:
            # No rules at all would be true for every row.
            self._say(place, "must be a list of at least one rule")
            return None
        parts = [self._rule(member, f"{place}[{index}]", depth + 1) for index, member in enumerate(members)]
        return Group(kind, tuple(part for part in parts if part is not None))

    def _leaf(self, rule: Mapping[str, object], place: str) -> Leaf | None:
        before = len(self._problems)
        self._only(rule, place, _LEAF)
        column, op, name = rule.get("column"), rule.get("op"), rule.get("attribute")
        if not isinstance(column, str) or not self._named(column):
            self._say(place, f"column must be the name of a column{_AS_IT_IS}")
        if not isinstance(op, str) or op not in _OPERATORS:
            self._say(place, f"op must be {one_of(_OPERATORS)}{self._meant(op, _OPERATORS)}")
            return None
        attribute: Attribute | None = None
        if op in BARE_OPERATORS:
            if "attribute" in rule:
                self._say(place, f"{op} looks at the column alone: remove attribute")
        elif not isinstance(name, str):
            self._say(place, f"attribute must be the name of an attribute that {op} compares with")
        elif name in self._attributes:
            attribute = self._attributes[name]
            self._fits(attribute, op, place)
        elif name not in self._broken:
            hint = self._meant(name, self._attributes) or ": declare it under [attributes]"
            self._say(place, f"the attribute {shown(name)} is not declared{hint}")
        if len(self._problems) > before or (attribute is None and op not in BARE_OPERATORS):
            return None
        return Leaf(cast("str", column), cast("Operator", op), attribute)

    def _fits(self, attribute: Attribute, op: str, place: str) -> None:
        fitting = OPERATORS_OF[attribute.type]
        if op not in fitting:
            why = ", whose order differs between databases" if op in ("lt", "le", "gt", "ge") else ""
            why = why if attribute.type == "string" else ""
            known = one_of(known for known in _OPERATORS if known in fitting)
            self._say(place, f"{op} does not fit {attribute.name}, which is {attribute.expected}{why}: use {known}")
        elif (op in LIST_OPERATORS) != (attribute.shape == "list"):
            mend = "declare it with list = true" if op in LIST_OPERATORS else "use in or not_in"
            what = "a list" if op in LIST_OPERATORS else "one value"
            self._say(place, f"{op} compares with {what}, and {attribute.name} is {attribute.expected}: {mend}")

    def _say(self, place: str, problem: str, *, at: str | None = None) -> None:
        """Note a mistake; ``at`` is what it is about, where that is something inside the place."""
        if self._lines is None:
            self._lines = lines_of(self._text)
        line = line_of(place if at is None else at, self._lines)
        self._problems.append(f"{'' if line is None else f'line {line}, '}{place}: {problem}")

    def _object(self, value: object, place: str) -> dict[str, object]:
        if isinstance(value, dict):
            return value
        self._say(place, "must be a table")
        return {}

    def _only(
        self, content: Mapping[str, object], place: str, known: tuple[str, ...], *, meant: tuple[str, ...] | None = None
    ) -> None:
        """Note every key that is not known; ``meant`` are those that a hint may name, all by default."""
        for key in content:
            if key not in known:
                at = key if place == _WHOLE else f"{place}.{key}"
                hint = self._meant(key, known if meant is None else meant)
                self._say(place, f"does not know {shown(key)}; it has {one_of(known)}{hint}", at=at)

    def _flag(self, content: Mapping[str, object], name: str, place: str, *, default: bool) -> bool:
        value = content.get(name, default)
        if not isinstance(value, bool):
            self._say(place, f"{name} must be true or false")
            return default
        return value

    @classmethod
    def _is_table(cls, name: str) -> bool:
        return name.count(".") <= 1 and cls._bare(name) and cls._named(*name.split("."))

    @classmethod
    def _named(cls, *names: str) -> bool:
        return all(cls._bare(name) and name.isprintable() and len(name) <= 128 for name in names)

    @staticmethod
    def _bare(name: str) -> bool:
        # Quotes around a name belong to SQL, and not to the name.
        return bool(name) and name == name.strip() and not (name[0] == name[-1] and name[0] in '"`')


def _together(rules: list[Rule]) -> Rule:
    return rules[0] if len(rules) == 1 else Group("all", tuple(rules))


def shown(value: object) -> str:
    """What somebody has written, as a mistake quotes it."""
    text = value if isinstance(value, str) else type(value).__name__
    return ascii(text if len(text) <= 64 else text[:63] + "…")


def one_of(names: Iterable[str]) -> str:
    """``a, b or c``."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name is given twice in one object")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
