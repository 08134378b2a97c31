"""Whether an optimizer could let a statement's own conditions run on rows that the filter hides.

A database may push a condition down into the filtered sub-query and try it first. A condition that
can fail, such as ``1 / (delay - 7) > 0``, then tells by its failure what a hidden row contains. A fence
stops that and costs time, so it is left out where no condition can fail on any value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlglot import exp

from toucan_guard.rls.sql_functions import ROW_FUNCTIONS

# Comparisons of columns and values, and what joins them.
_COMPARISONS: Final = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.In, exp.Between)
_VALUES: Final = (exp.Literal, exp.Null, exp.Boolean, exp.Placeholder, exp.Parameter)
_CALM: Final = (
    *(*_COMPARISONS, exp.Is, exp.And, exp.Or, exp.Not, exp.Paren, exp.Exists, exp.Alias),
    *(exp.Column, exp.Identifier, exp.Star, *_VALUES),
)
_ROW_FUNCTIONS: Final = tuple({kind for kinds in ROW_FUNCTIONS.values() for kind in kinds})
# What these give is made of rows that the filter has let through.
_AFTERWARDS: Final = (exp.AggFunc, exp.Window)
# What a query inside of a condition may consist of, which is run for each row that the condition is tried on.
_CALM_TOTALS: Final = (exp.Count, exp.Min, exp.Max)
_CALM_QUERIES: Final = (
    *(exp.Select, exp.Subquery, exp.With, exp.CTE, exp.From, exp.Join, exp.Table, exp.TableAlias),
    *(exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Distinct),
)
# PostgreSQL's own functions of a row, which ``t.name`` calls where t has no such column: JSON may be none for jsonb.
_CALLS_OF_ROWS: Final = frozenset(
    (
        *("to_json", "to_jsonb", "row_to_json", "json_build_array", "json_build_object", "jsonb_build_array"),
        *("jsonb_build_object", "json_agg", "json_agg_strict", "jsonb_agg", "jsonb_agg_strict", "array_agg"),
        *("any_value", "concat", "hash_record", "num_nulls", "num_nonnulls", "quote_literal", "quote_nullable"),
        *("record_send", "pg_typeof", "pg_column_size", "pg_column_compression", "pg_column_toast_chunk_id"),
        *("pg_collation_for", "pg_restore_relation_stats", "pg_restore_attribute_stats"),
    )
)
_ROWS_IN: Final = (exp.From, exp.Join, exp.CTE, exp.Exists, exp.Subquery)


def needs_fence(nodes: Mapping[type[exp.Expr], list[Any]], *, strict: bool) -> bool:
    """Whether any condition of the statement could fail.

    Args:
        nodes: Of the statement before it is rewritten, by their kind.
        strict: Two columns that are compared may be of types that do not compare for every value, a query in the place
            of a value may have one row only, and ``t.name`` may be a call.
    """
    conditions = [found for kind in (exp.Where, exp.Having, exp.Qualify) for found in nodes.get(kind, ())]
    joins = nodes.get(exp.Join, [])
    tried = [condition.this for condition in conditions if not isinstance(condition.parent, exp.Filter)]
    tried += [join.args["on"] for join in joins if join.args.get("on")]
    if not all(_is_calm(condition, strict=strict) for condition in tried):
        return True
    if strict and any(join.args.get("using") or join.args.get("method") for join in joins):
        return True
    if exp.Table in nodes and exp.Values in nodes:
        return True
    if any(rows.find(exp.Column) for kind in _ROW_FUNCTIONS for rows in nodes.get(kind, ())):
        return True
    # A condition can name an expression of a sub-query, or of the list in front of it.
    named: set[str] | None = None
    for select in nodes.get(exp.Select, ()):
        for item in select.expressions:
            if _is_calm(item, strict=strict):
                continue
            if named is None:
                named = {column.name.casefold() for condition in tried for column in condition.find_all(exp.Column)}
            if not _is_outermost(select) or item.alias_or_name.casefold() in named:
                return True
    return False


def _is_calm(expression: exp.Expr, *, strict: bool) -> bool:
    """Whether nothing in an expression can fail."""
    # With each node whether it is in a query of the expression, where a total may be one of hidden rows.
    left = [(expression, False)]
    while left:
        node, inside = left.pop()
        if isinstance(node, exp.Max | exp.Min) and node.expressions:
            return False  # The larger of two values, whatever the parser calls it.
        if isinstance(node, _AFTERWARDS) and not inside:
            continue
        if isinstance(node, exp.Limit | exp.Offset):
            calm = isinstance(node.expression, exp.Literal)
        elif isinstance(node, exp.Avg):
            calm = not strict  # SQLite's is a binary number, which may be infinite.
        elif isinstance(node, _CALM_QUERIES):
            inside, calm = True, not strict or not _is_one_value(node) or _is_a_total(node.this)
        else:
            calm = isinstance(node, (*_CALM, *_CALM_TOTALS)) and not (strict and _differs(node))
        if not calm:
            return False
        left += [(child, inside) for child in node.iter_expressions()]
    return True


def _is_one_value(node: exp.Expr) -> bool:
    """Whether a query stands in the place of a value, and not where rows are looked through."""
    if not isinstance(node, exp.Subquery) or isinstance(node.parent, _ROWS_IN):
        return False
    return not isinstance(node.parent, exp.In) or node.arg_key != "query"


def _is_a_total(query: exp.Expr) -> bool:
    """Whether a query never has two rows."""
    return (
        isinstance(query, exp.Select)
        and not query.args.get("group")
        and all(isinstance(item.unalias(), exp.AggFunc) for item in query.expressions)
    )


def _differs(node: exp.Expr) -> bool:
    """Whether it compares two columns, or may be a call."""
    if isinstance(node, exp.Column):
        return bool(node.table) and node.name.casefold() in _CALLS_OF_ROWS
    if not isinstance(node, _COMPARISONS):
        return False
    return sum(not isinstance(side, _VALUES) for side in node.iter_expressions()) > 1


def _is_outermost(select: exp.Select) -> bool:
    above = select.parent
    while isinstance(above, exp.SetOperation):
        above = above.parent
    return above is None
