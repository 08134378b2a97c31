"""What a statement may consist of: an allow-list of syntax nodes and their parts.

The parser knows far more SQL than is understood here, and learns more with each version. A node, a part
of a node or a function (``sql_functions.py``) that is not listed is refused, so what is new stays closed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, NoReturn

from sqlglot import exp

from toucan_guard.core.errors import QueryRefused
from toucan_guard.rls.sql_functions import (
    FUNCTIONS,
    MAX_WRITTEN,
    NAMED_FUNCTIONS,
    ROW_FUNCTIONS,
    WITH_LENGTHS,
    is_modest,
)

# Of each node the parts that may be there; any other part has to be empty.
_NODES: Final[Mapping[type[exp.Expr], str]] = {
    # Queries
    exp.Select: "with_ expressions distinct from_ joins laterals where group having qualify windows order limit offset",
    exp.Union: "with_ this expression distinct by_name order limit offset",
    exp.Intersect: "with_ this expression distinct order limit offset",
    exp.Except: "with_ this expression distinct order limit offset",
    exp.Values: "expressions alias",
    exp.Subquery: "this alias joins laterals order limit offset",
    exp.With: "expressions recursive",
    exp.CTE: "this alias materialized",
    exp.From: "this",
    exp.Table: "this alias db joins laterals",
    exp.TableAlias: "this columns",
    exp.Join: "this on side kind using method",
    exp.Lateral: "this alias",
    exp.Where: "this",
    exp.Group: "expressions all grouping_sets cube rollup",
    exp.GroupingSets: "expressions",
    exp.Cube: "expressions",
    exp.Rollup: "expressions",
    exp.Having: "this",
    exp.Qualify: "this",
    exp.Order: "this expressions",
    exp.Ordered: "this desc nulls_first",
    exp.Limit: "expression",
    exp.Fetch: "direction count limit_options",
    exp.LimitOptions: "rows with_ties",
    exp.Offset: "expression",
    exp.Distinct: "expressions on",
    # Names and values
    exp.Identifier: "this quoted",
    exp.Column: "this table db",
    exp.Star: "except_ replace rename",
    exp.Alias: "this alias",
    exp.Literal: "this is_string",
    exp.Null: "",
    exp.Boolean: "this",
    exp.Placeholder: "this",
    exp.Parameter: "this",
    exp.Tuple: "expressions",
    exp.Array: "expressions bracket_notation",
    exp.Bracket: "this expressions offset safe",
    exp.Paren: "this",
    exp.Interval: "this unit",
    # Operators
    **dict.fromkeys(
        (
            *(exp.And, exp.Or, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE),
            *(exp.NullSafeEQ, exp.NullSafeNEQ, exp.Add, exp.Sub, exp.Mul, exp.IntDiv, exp.Mod),
            *(exp.Glob, exp.Escape, exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseLeftShift, exp.BitwiseRightShift),
            *(exp.Collate, exp.WithinGroup),
        ),
        "this expression",
    ),
    exp.Like: "this expression negate",
    exp.Is: "this expression negate",
    exp.Div: "this expression typed safe",
    exp.DPipe: "this expression safe",
    exp.Not: "this",
    exp.Neg: "this",
    exp.BitwiseNot: "this",
    exp.Between: "this low high symmetric",
    exp.In: "this expressions query",
    exp.Exists: "this",
    exp.Any: "this",
    exp.All: "this",
    exp.Case: "this ifs default",
    exp.If: "this true false",
    exp.Cast: "this to",
    exp.DataType: "this expressions nested",
    exp.DataTypeParam: "this",
    # Aggregates and windows
    exp.Filter: "this expression",
    exp.Window: "this partition_by order spec alias over",
    exp.WindowSpec: "kind start start_side end end_side exclude",
    exp.IgnoreNulls: "this",
}
NODES: Final = {node: frozenset(parts.split()) for node, parts in _NODES.items()}

# What may stand where rows come from: never a bare name, which nobody would look up.
_TABLES: Final = (exp.Table, exp.Subquery, exp.Values)
_SOURCES: Final[Mapping[type[exp.Expr], tuple[type[exp.Expr], ...]]] = {
    exp.From: (*_TABLES, exp.Lateral),
    exp.Join: (*_TABLES, exp.Lateral),
    exp.Lateral: (exp.Subquery,),
    exp.CTE: (exp.Select, exp.SetOperation, exp.Values, exp.Subquery),
}

# Text that the parser keeps as it found it, and would write as it is.
_WORDS: Final[Mapping[type[exp.Expr], Mapping[str, frozenset[str]]]] = {
    exp.Join: {
        "side": frozenset({"LEFT", "RIGHT", "FULL"}),
        "kind": frozenset({"INNER", "OUTER", "CROSS", "SEMI", "ANTI"}),
        "method": frozenset({"NATURAL", "ASOF", "POSITIONAL"}),
    },
    exp.Fetch: {"direction": frozenset({"FIRST", "NEXT"})},
    exp.Trim: {"position": frozenset({"LEADING", "TRAILING", "BOTH"})},
    exp.Window: {"over": frozenset({"OVER"})},
    exp.WindowSpec: {
        "kind": frozenset({"ROWS", "RANGE", "GROUPS"}),
        **dict.fromkeys(("start", "end"), frozenset({"UNBOUNDED", "CURRENT ROW"})),
        **dict.fromkeys(("start_side", "end_side"), frozenset({"PRECEDING", "FOLLOWING"})),
    },
}
_SINGLE_WORDS: Final[Mapping[tuple[type[exp.Expr], str], frozenset[str]]] = {
    (exp.WindowSpec, "exclude"): frozenset({"CURRENT ROW", "GROUP", "TIES", "NO OTHERS"}),
    (exp.Ordered, "this"): frozenset({"ALL"}),
}
UNITS: Final = frozenset(
    (
        *("MICROSECOND", "MILLISECOND", "SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR"),
        *("MICROSECONDS", "MILLISECONDS", "SECONDS", "MINUTES", "HOURS", "DAYS", "WEEKS", "MONTHS", "QUARTERS"),
        *("YEARS", "DECADE", "DECADES", "CENTURY", "EPOCH", "DOW", "ISODOW", "DOY", "ISOYEAR"),
        *("DAYOFWEEK", "DAYOFYEAR"),
    )
)
COLLATIONS: Final = frozenset({"BINARY", "NOCASE", "RTRIM", "NOACCENT", "C", "POSIX"})
_UNITS_OF: Final[Mapping[type[exp.Expr], tuple[str, ...]]] = {
    exp.Extract: ("this",),
    **dict.fromkeys((exp.TimestampTrunc, exp.DateTrunc, exp.Interval, exp.DateDiff, exp.DateAdd), ("unit",)),
}
_TYPES: Final = frozenset(
    getattr(exp.DType, name)
    for name in (
        *("TINYINT", "SMALLINT", "INT", "BIGINT", "INT128", "UTINYINT", "USMALLINT", "UINT", "UBIGINT"),
        *("FLOAT", "DOUBLE", "DECIMAL", "TEXT", "VARCHAR", "CHAR", "BOOLEAN", "UUID"),
        *("DATE", "TIME", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMPNTZ", "DATETIME", "INTERVAL", "JSON", "JSONB"),
    )
)
_NUMBER: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PARAMETER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
# A longer name is cut off by PostgreSQL, and would then be another one.
_MAX_NAME_BYTES: Final = 63


REFUSED: Final = "the query cannot be filtered: "


def refuse(why: str) -> NoReturn:
    """Say no, in the words that every refusal of a statement begins with."""
    raise QueryRefused(f"{REFUSED}{why}") from None


class Checked(NamedTuple):
    """A statement of which every node is on the allow-list.

    Attributes:
        names: The names of the host's parameters.
        nodes: Its nodes by their kind.
    """

    names: frozenset[str]
    nodes: Mapping[type[exp.Expr], list[Any]]


def check_nodes(statement: exp.Expr, dialect: str) -> Checked:
    """Look at every node of a statement.

    Raises:
        QueryRefused: Something is not on the allow-list.
    """
    functions, parameters = FUNCTIONS[dialect], set()
    nodes: defaultdict[type[exp.Expr], list[Any]] = defaultdict(list)
    for node in statement.walk():
        kind = type(node)
        nodes[kind].append(node)
        if kind in NODES:
            allowed = NODES[kind]
        elif kind in functions:
            allowed = frozenset(kind.arg_types)
        elif kind is exp.Anonymous:
            allowed = frozenset({"this", "expressions"})
            name = node.args.get("this")
            if not isinstance(name, str) or name.casefold() not in NAMED_FUNCTIONS[dialect]:
                refuse(f"the function {_shown(node.name)} is not among those that are known to read nothing else")
            if name.casefold() in WITH_LENGTHS:
                _check_size(node)
            _check_parts(node, allowed, {"this"})
            continue
        elif kind in ROW_FUNCTIONS[dialect] and isinstance(node.parent, exp.Table):
            allowed = frozenset(kind.arg_types)
        elif kind is exp.Var:
            _check_word(node)
            continue
        else:
            refuse(f"{_called(kind)} is not allowed here")
        if kind in WITH_LENGTHS:
            _check_size(node)
        if kind in _SOURCES and not isinstance(node.this, _SOURCES[kind]):
            refuse(f"what stands in {_called(kind)} is neither a table nor a query")
        for part in _UNITS_OF.get(kind, ()):
            # Of an expression the generator would write what it is called, as it is.
            unit = node.args.get(part)
            if not isinstance(unit, exp.Var | exp.Literal | None) or (unit and str(unit.this).upper() not in UNITS):
                refuse(f"the unit in {_called(kind)} must be a word, such as DAY")
        if kind is exp.Identifier:
            _check_name(str(node.this))
        elif kind is exp.Literal:
            if not node.is_string and not _NUMBER.fullmatch(str(node.this)):
                refuse("a number is written in a way that is not known here")
        elif kind in (exp.Placeholder, exp.Parameter):
            parameters.add(_parameter(node))
        elif kind is exp.DataType:
            _check_type(node)
        elif kind is exp.Collate and node.expression.name.upper() not in COLLATIONS:
            refuse(f"the collation {_shown(node.expression.name)} is not known here")
        else:
            _check_parts(node, allowed, set())
    return Checked(frozenset(parameters), nodes)


def _check_parts(node: exp.Expr, allowed: frozenset[str], texts: set[str]) -> None:
    words = _WORDS.get(type(node), {})
    for part, value in node.args.items():
        if value is None or value is False or value in ([], ""):
            continue
        if part not in allowed:
            refuse(f"{part.strip('_').upper()} is not allowed in {_called(type(node))}")
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, exp.Expr) or item is True or part in texts:
                continue
            if not isinstance(item, str) or item.upper() not in words.get(part, ()):
                refuse(f"{_shown(item)} is not allowed in {_called(type(node))}")


def _check_size(node: exp.Expr) -> None:
    if not is_modest(node):
        called = node.name.upper() if isinstance(node, exp.Anonymous) else _called(type(node))
        refuse(f"the length in {called} must be a number below {MAX_WRITTEN:,} that is written out")


def _check_word(node: exp.Expr) -> None:
    parent: type[Any] = type(node.parent)
    part, word = str(node.arg_key), str(node.this).upper()
    if parent is exp.Parameter:
        return
    if part in _UNITS_OF.get(parent, ()) and word in UNITS:
        return
    if word in _SINGLE_WORDS.get((parent, part), ()):
        return
    if parent is exp.Collate:
        return  # its name is looked at with the operator
    refuse(f"{_shown(str(node.this))} is not allowed in {_called(parent)}")


def _check_type(node: exp.Expr) -> None:
    if node.this not in _TYPES or node.args.get("nested"):
        name = node.this.value if isinstance(node.this, Enum) else "it"
        refuse(f"a cast to {_shown(str(name))} is not allowed here")
    for size in node.expressions:
        inner = size.this if isinstance(size, exp.DataTypeParam) else None
        if not isinstance(inner, exp.Literal) or inner.is_string:
            refuse("the length of a type must be a number")
    _check_parts(node, frozenset({"this", "expressions"}), {"this"})


def _check_name(name: str) -> None:
    if not name or len(name.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES:
        refuse(f"a name must have 1 to {_MAX_NAME_BYTES} bytes")
    if not name.isprintable():
        refuse("a name has characters that cannot be seen")


def _parameter(node: exp.Expr) -> str:
    inner: Any = node.this
    name = inner.name if isinstance(inner, exp.Identifier | exp.Var) else inner
    known = {"this": node.args.get("this")} == {key: value for key, value in node.args.items() if value}
    if not known or not isinstance(name, str) or not _PARAMETER.fullmatch(name):
        refuse("parameters must have names, of letters, digits and underscores")
    if name.casefold().startswith("tg_"):
        refuse("names of parameters that begin with tg_ are the filter's own")
    return name


def _called(kind: type[exp.Expr]) -> str:
    """A node's kind as people write it: ``ReadCSV`` becomes READ CSV."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).upper()


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else type(value).__name__
    return ascii(text if len(text) <= 64 else text[:63] + "…")
