"""The fence: no condition of the host's own meets a hidden row.

A database may take conditions in any order, and through a plain sub-query too: the host's
``1 / (delay - 17) > 0`` may then be tried on a row before the filter is, and its error tells what is in
it. A sub-query that ends in ``OFFSET 0`` (SQLite: ``LIMIT -1``) is left alone, but it costs an index its
use. So a statement is fenced where one of its conditions can fail; comparisons of columns and values
cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import types as sqltypes
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    ClauseList,
    ColumnClause,
    ExpressionClauseList,
    False_,
    Grouping,
    Label,
    Null,
    Over,
    True_,
    UnaryExpression,
)
from sqlalchemy.sql.expression import AliasedReturnsRows, Join, ScalarSelect, SelectBase, TableClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.lambdas import LambdaElement
from sqlalchemy.sql.selectable import FromGrouping

FENCES: Final = {"sqlite": " LIMIT -1", "postgresql": " OFFSET 0"}

_COMPARISONS: Final = frozenset(
    (
        *(operators.eq, operators.ne, operators.lt, operators.le, operators.gt, operators.ge),
        *(operators.is_, operators.is_not, operators.is_distinct_from, operators.is_not_distinct_from),
        *(operators.in_op, operators.not_in_op, operators.between_op, operators.not_between_op),
    )
)
_LISTS: Final = frozenset((operators.and_, operators.or_, operators.comma_op, None))
_UNARY: Final = frozenset((operators.inv, operators.is_true, operators.is_false, operators.exists, None))
_ORDERS: Final = frozenset(
    (operators.asc_op, operators.desc_op, operators.nulls_first_op, operators.nulls_last_op, None)
)
_CALM_AGGREGATES: Final = frozenset(("count", "min", "max"))
_QUIET: Final = (
    *(BindParameter, ColumnClause, Null, True_, False_, Grouping, Label, SelectBase, ScalarSelect),
    *(TableClause, AliasedReturnsRows, Join, FromGrouping),
)
# What is computed of several rows is computed behind every filter.
_AGGREGATES: Final = frozenset(("count", "sum", "avg", "min", "max"))


def can_fail(condition: Any) -> bool:
    """Whether a condition can fail on some row; true where it is not known."""
    if isinstance(condition, BindParameter | ColumnClause | Null | True_ | False_):
        return False
    if isinstance(condition, SelectBase | ScalarSelect):
        # All of it can be asked for each row of the query around it, its order and its groups included.
        return any(map(_is_unknown, visitors.iterate(condition)))
    if isinstance(condition, BinaryExpression):
        known = condition.operator in _COMPARISONS and not _rounds(condition)
    elif isinstance(condition, ClauseList | ExpressionClauseList):
        known = condition.operator in _LISTS
    elif isinstance(condition, UnaryExpression):
        known = condition.operator in _UNARY and condition.modifier is None
    else:
        known = isinstance(condition, Grouping | Label)
    return not known or any(map(can_fail, condition.get_children()))


def _is_unknown(part: Any) -> bool:
    """Whether a part of a query can fail, apart from what is in it."""
    if isinstance(part, BinaryExpression):
        return part.operator not in _COMPARISONS or _rounds(part)
    if isinstance(part, ClauseList | ExpressionClauseList):
        return part.operator not in _LISTS
    if isinstance(part, UnaryExpression):
        return part.operator not in _UNARY or part.modifier not in _ORDERS
    if isinstance(part, FunctionElement):
        return str(getattr(part, "name", "")).casefold() not in _CALM_AGGREGATES
    return not isinstance(part, _QUIET)


def column_can_fail(column: Any) -> bool:
    """Whether a column of a sub-query, which a condition outside may name, can fail on some row."""
    while isinstance(column, Label | Grouping):
        column = column.element
    if isinstance(column, Over):
        return False
    if isinstance(column, FunctionElement) and str(getattr(column, "name", "")).casefold() in _AGGREGATES:
        return False
    return can_fail(column)


def limit_can_fail(select: Any) -> bool:
    """Whether the limit of a sub-query is made of a row of the query around it, and may be negative."""
    limits = (select._limit_clause, select._offset_clause, select._fetch_clause)  # noqa: SLF001 - as its compiler does
    return any(not isinstance(limit, BindParameter | None) for limit in limits)


def source_can_fail(source: Any) -> bool:
    """Whether what stands in FROM has a condition of its own that can fail: that of a join, or a function."""
    if isinstance(source, Join):
        return can_fail(source.onclause) or source_can_fail(source.left) or source_can_fail(source.right)
    if isinstance(source, AliasedReturnsRows):
        return not isinstance(source.element, TableClause | SelectBase | AliasedReturnsRows | Join)
    return not isinstance(source, TableClause | SelectBase)


def split(conditions: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """The conditions that cannot fail, and those that can."""
    certain: list[Any] = []
    failing: list[Any] = []
    for condition in _flat(conditions):
        (failing if can_fail(condition) else certain).append(condition)
    return certain, failing


def _flat(conditions: Iterable[Any]) -> Iterator[Any]:
    for condition in conditions:
        if isinstance(condition, LambdaElement):
            # As it is, SQLAlchemy puts no brackets around an OR in it.
            yield from _flat((condition._resolved,))  # noqa: SLF001 - it has no public name
        elif isinstance(condition, ClauseList | ExpressionClauseList) and condition.operator is operators.and_:
            yield from _flat(condition.clauses)
        else:
            yield condition


def _rounds(comparison: BinaryExpression[Any]) -> bool:
    """A decimal number beside a binary one becomes binary, and may be too large for that."""
    kinds = [
        isinstance(side.type, sqltypes.Float)
        for side in (comparison.left, comparison.right)
        if isinstance(side.type, sqltypes.Numeric | sqltypes.Float)
    ]
    return any(one is not other for one, other in pairwise(kinds))
