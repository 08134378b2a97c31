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

_QUERIES: Final = (exp.Select, exp.SetOperation, exp.Values, exp.Subquery)
# Comparisons of columns and values, and what joins them.
_CALM: Final = (
    *(exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.In, exp.Between, exp.Is),
    *(exp.And, exp.Or, exp.Not, exp.Paren, exp.Exists, exp.Alias),
    *(exp.Column, exp.Identifier, exp.Star, exp.Literal, exp.Null, exp.Boolean, exp.Placeholder, exp.Parameter),
)
_COMPARISONS: Final = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.In, exp.Between)
_VALUES: Final = (exp.Literal, exp.Null, exp.Boolean, exp.Placeholder, exp.Parameter)
_ROW_FUNCTIONS: Final = tuple({kind for kinds in ROW_FUNCTIONS.values() for kind in kinds})
# What these give is made of rows that the filter has let through.
_AFTERWARDS: Final = (exp.AggFunc, exp.Window)
# What else a query in a condition may have: it can be asked for each row of the query around it.
_QUIET: Final = (
    *(*_CALM, *_QUERIES, exp.From, exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit, exp.Offset),
    *(exp.Distinct, exp.Join, exp.Table, exp.TableAlias, exp.With, exp.CTE, exp.Count, exp.Min, exp.Max),
)


def needs_fence(nodes: Mapping[type[exp.Expr], list[Any]], *, columns_differ: bool) -> bool:
    """Whether any condition of the statement could fail.

    Args:
        nodes: Of the statement before it is rewritten, by their kind.
        columns_differ: Two columns that are compared may be of types that do not compare for every value.
    """
    conditions = [found for kind in (exp.Where, exp.Having, exp.Qualify) for found in nodes.get(kind, ())]
    joins = nodes.get(exp.Join, [])
    ons = [join.args["on"] for join in joins if join.args.get("on")]
    own = [condition.this for condition in conditions if not isinstance(condition.parent, exp.Filter)]
    if not all(_is_calm(condition) for condition in (*own, *ons)):
        return True
    if columns_differ and (
        any(_compares_columns(found) for kind in _COMPARISONS for found in nodes.get(kind, ()))
        or any(join.args.get("using") or join.args.get("method") for join in joins)
    ):
        return True
    if any(rows.find(exp.Column) for kind in _ROW_FUNCTIONS for rows in nodes.get(kind, ())):
        return True
    # A condition can name an expression of a sub-query, or of the list in front of it.
    named: set[str] | None = None
    for select in nodes.get(exp.Select, ()):
        for item in select.expressions:
            if _is_calm(item):
                continue
            if named is None:
                named = {column.name.casefold() for condition in own for column in condition.find_all(exp.Column)}
            if not _is_outermost(select) or item.alias_or_name.casefold() in named:
                return True
    return exp.Table in nodes and any(
        not _is_calm(item) for values in nodes.get(exp.Values, ()) for item in values.find_all(exp.Tuple)
    )


def _is_calm(node: exp.Expr) -> bool:
    if isinstance(node, _QUERIES):
        return all(isinstance(part, _QUIET) and not _is_of_one_row(part) for part in node.walk())
    if isinstance(node, _AFTERWARDS) and not _is_of_one_row(node):
        return True
    return isinstance(node, _CALM) and all(map(_is_calm, node.iter_expressions()))


def _is_of_one_row(node: exp.Expr) -> bool:
    """``max(a, b)``, which the parser takes for an aggregate and the generator writes as GREATEST."""
    return isinstance(node, exp.Max | exp.Min) and bool(node.expressions)


def _compares_columns(node: exp.Expr) -> bool:
    sides = [side for side in node.iter_expressions() if not isinstance(side, _VALUES)]
    return len(sides) > 1


def _is_outermost(select: exp.Select) -> bool:
    above = select.parent
    while isinstance(above, exp.SetOperation):
        above = above.parent
    return above is None
