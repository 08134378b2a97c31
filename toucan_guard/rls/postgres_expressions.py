"""Rules as PostgreSQL expressions, for policies.

Each value is read in a sub-query that looks at no column, so PostgreSQL runs it once for a statement
(an InitPlan) and then compares the bare column, for which it finds an index. A value that is absent is
NULL, and every comparison with NULL is not true: there is no NOT in a rule that could turn it round.

``RowFilter.matches`` is the meaning. Text is exact because only deterministic collations are let in
(``postgres_policies.py`` looks at the columns), and a date and time without an offset is UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from toucan_guard.core.row_rules import LIST_OPERATORS, Leaf, Rule, Type

CONTEXT: Final = "toucan_guard.context()"

# What a column may be that is compared with an attribute of this type.
FITTING: Final[Mapping[Type, tuple[str, ...]]] = {
    "string": ("text", "character varying"),
    "integer": ("smallint", "integer", "bigint", "numeric"),
    "number": ("smallint", "integer", "bigint", "numeric", "double precision"),
    "boolean": ("boolean",),
    "date": ("date",),
    "datetime": ("timestamp with time zone", "timestamp without time zone"),
    "uuid": ("uuid", "text", "character varying"),
}

# What a value is read as, where that does not depend on the column.
_CASTS: Final[Mapping[Type, str]] = {
    "string": "text",
    "integer": "bigint",
    "number": "numeric",
    "boolean": "boolean",
    "date": "date",
    "datetime": "timestamp with time zone",
    "uuid": "uuid",
}
_SIGNS: Final[Mapping[str, str]] = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

ColumnTypes = Callable[[str], str]
_UUID_TEXT: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}"
_MARK: Final = "\x00"  # in no name: names are printable


class Needed(NamedTuple):
    """A column that a rule names; ``type`` is its attribute's, None where only its presence is asked."""

    column: str
    type: Type | None


def needed_columns(rule: Rule) -> tuple[Needed, ...]:
    """The columns of a rule with the types that they are compared as, without repetition."""
    found = (Needed(leaf.column, leaf.attribute.type if leaf.attribute else None) for leaf in rule.leaves())
    return tuple(dict.fromkeys(found))


def concatenation(rule: Rule, kind_of: Callable[[str], str]) -> str:
    """An SQL expression that yields the rule's text once the columns' types are known.

    Args:
        rule: The rule.
        kind_of: Gives an SQL expression for the type of a column.
    """
    choices: list[str] = []

    def one(leaf: Leaf) -> str:
        assert leaf.attribute is not None  # noqa: S101 - only comparisons vary
        written = {kind: _leaf(leaf, kind) for kind in FITTING[leaf.attribute.type]}
        cases = " ".join(f"WHEN {literal(kind)} THEN {literal(text)}" for kind, text in written.items())
        choices.append(f"CASE {kind_of(leaf.column)} {cases} END")
        return f"{_MARK}{len(choices) - 1}{_MARK}"

    pieces = _expression(rule, lambda leaf: one(leaf) if _varies(leaf) else _leaf(leaf, "")).split(_MARK)
    return " || ".join(choices[int(piece)] if odd % 2 else literal(piece) for odd, piece in enumerate(pieces))


def varies(rule: Rule) -> bool:
    """Whether the rule is written in another way for another type of column."""
    return any(map(_varies, rule.leaves()))


def _varies(leaf: Leaf) -> bool:
    return leaf.attribute is not None and leaf.attribute.type in _VARIANTS


def expression(rule: Rule, column_type: ColumnTypes) -> str:
    """A rule as a condition.

    Args:
        rule: The rule.
        column_type: Tells the type of a column; asked for ``datetime`` and ``uuid`` alone.
    """
    return _expression(rule, lambda leaf: _leaf(leaf, column_type(leaf.column) if _varies(leaf) else ""))


def _expression(rule: Rule, written: Callable[[Leaf], str]) -> str:
    if isinstance(rule, Leaf):
        return written(rule)
    parts = [_expression(part, written) for part in rule.rules]
    return f"({f' {_WORDS[rule.kind]} '.join(parts)})" if parts else "false"


def _leaf(leaf: Leaf, column_type: str) -> str:
    column = identifier(leaf.column)
    if leaf.attribute is None:
        return f"({column} IS {'NOT NULL' if leaf.op == 'is_set' else 'NULL'})"
    many = leaf.op in LIST_OPERATORS
    if many == (leaf.attribute.shape == "one"):
        return "false"  # a list where one value is compared, or the reverse, opens nothing
    if _VARIANTS.get(leaf.attribute.type, {}).get(column_type) == "text":
        return _uuid_as_text(leaf, column, many=many)
    value = _value(leaf, column_type, many=many)
    if leaf.op == "contains":
        return f"(strpos({column}, {value}) > 0)"
    if leaf.op == "starts_with":
        return f"starts_with({column}, {value})"
    if leaf.op == "in":
        return f"({column} = ANY ({value}))"
    if leaf.op == "not_in":
        return f"({column} <> ALL ({value}))"
    return f"({column} {_SIGNS[leaf.op]} {value})"


_WORDS: Final[Mapping[str, str]] = {"all": "AND", "any": "OR"}


def _value(leaf: Leaf, column_type: str, *, many: bool) -> str:
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    text = f"{CONTEXT} ->> {literal(leaf.attribute.name)}"
    if leaf.op in ("contains", "starts_with"):
        # Every text contains the empty one, so that it opens nothing.
        return f"(SELECT nullif({text}, ''))"
    variant = _VARIANTS.get(leaf.attribute.type, {}).get(column_type)
    if variant == "utc":
        return _utc(text, many=many)
    cast = variant or _CASTS[leaf.attribute.type]
    inner = f"({text})::{cast}{'[]' if many else ''}"
    # Written `= ANY ((SELECT …)::text[])`: without the cast outside, PostgreSQL would compare with its rows.
    return f"(SELECT {inner})::{cast}[]" if many else f"(SELECT {inner})"


def _uuid_as_text(leaf: Leaf, column: str, *, many: bool) -> str:
    """A UUID that is kept as text: with its dashes or without, in lower case; no other text passes."""
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    text = f"{CONTEXT} ->> {literal(leaf.attribute.name)}"
    # An array of UUIDs has no other dashes than theirs.
    both = (
        f"({text})::text[] || replace({text}, '-', '')::text[]" if many else f"ARRAY[{text}, replace({text}, '-', '')]"
    )
    value = f"(SELECT {both})::text[]"
    if leaf.op in ("eq", "in"):
        return f"({column} = ANY ({value}))"
    return f"({column} <> ALL ({value}) AND {column} ~ '^({_UUID_TEXT})$')"


def _utc(text: str, *, many: bool) -> str:
    if not many:
        return f"(SELECT ({text})::timestamp with time zone AT TIME ZONE 'UTC')"
    each = f"unnest(({text})::timestamp with time zone[]) AS moment"
    return f"(SELECT array_agg(moment AT TIME ZONE 'UTC') FROM {each})::timestamp without time zone[]"


# A column without an offset is UTC; a UUID that is kept as text is compared as text.
_VARIANTS: Final[Mapping[Type, Mapping[str, str]]] = {
    "datetime": {"timestamp without time zone": "utc"},
    "uuid": {"text": "text", "character varying": "text"},
}


def identifier(name: str) -> str:
    """A name as PostgreSQL takes it whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Text as a literal, with backslashes that mean themselves."""
    quoted = text.replace("'", "''")
    return f"'{quoted}'" if "\\" not in text else "E'" + quoted.replace("\\", "\\\\") + "'"


def table_parts(name: str, schema: str) -> tuple[str, str]:
    """Schema and table of a policy's table name."""
    before, dot, after = name.rpartition(".")
    return (before, after) if dot else (schema, after)


def quoted_table(name: str, schema: str) -> str:
    """A policy's table as PostgreSQL takes it."""
    return ".".join(map(identifier, table_parts(name, schema)))
