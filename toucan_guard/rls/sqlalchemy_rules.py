"""Rules as SQLAlchemy expressions whose values are read when they run.

A compiled statement is cached and serves every tenant, so no value may be inside it. Each value is a
parameter with a function that asks the current embed, and each comparison reads ``(:usable AND …)``:
where an attribute is absent or empty the comparison is false, ``NOT IN ()`` included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import and_, bindparam, collate, false, func, or_, type_coerce
from sqlalchemy import types as sqltypes
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.elements import BindParameter, ColumnClause, ColumnElement
from sqlalchemy.types import TypeEngine

from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import LIST_OPERATORS, Group, Leaf, Rule, Type
from toucan_guard.rls.sqlalchemy_cells import EXACT_IN_A_FLOAT, as_moment, comparable

# Many rows in one execution (executemany) cannot have a list of changing length for each of them.
SLOTS: Final = 64
_SINGLE_BITS: Final = 24
_BINARY: Final[Mapping[str, str]] = {"sqlite": "BINARY", "postgresql": "C"}
DIALECTS: Final = tuple(_BINARY)

_FITTING: Final[Mapping[Type, tuple[type[TypeEngine[Any]], ...]]] = {
    "string": (sqltypes.String,),
    "integer": (sqltypes.Integer, sqltypes.Numeric, sqltypes.Float),
    "number": (sqltypes.Integer, sqltypes.Numeric, sqltypes.Float),
    "boolean": (sqltypes.Boolean,),
    "date": (sqltypes.Date,),
    "datetime": (sqltypes.DateTime,),
    "uuid": (sqltypes.Uuid, sqltypes.String),
}
_DEFAULTS: Final[Mapping[Type, Callable[[], TypeEngine[Any]]]] = {
    "string": sqltypes.String,
    "integer": sqltypes.BigInteger,
    "number": sqltypes.Float,
    "boolean": sqltypes.Boolean,
    "date": sqltypes.Date,
    "datetime": sqltypes.DateTime,
    "uuid": sqltypes.Uuid,
}


# Compared with a value that is written in another way, ``ne`` would open every row.
_WRITTEN_IN_MANY_WAYS: Final = frozenset({"date", "datetime", "uuid"})


class UnfitColumn(Exception):
    """A column's type cannot be compared with its attribute as the policy means it."""


class TooManyValues(Exception):
    """A list is longer than a statement for many rows can take."""


# How a UUID is written for a column of text.
_Written = Callable[[Any], str]


class Asked:
    """The function of one parameter: what the current embed has for it. Nobody else may set such a parameter."""

    __slots__ = ("_current", "_leaf", "_name", "_read", "_type", "_written")

    def __init__(
        self,
        leaf: Leaf,
        read: Callable[[Leaf, object], Any],
        type_: TypeEngine[Any] | None,
        current: Callable[[], RowFilter],
        written: _Written = str,
    ) -> None:
        assert leaf.attribute is not None  # noqa: S101 - only comparisons have parameters
        self._leaf, self._name, self._read, self._type, self._current = leaf, leaf.attribute.name, read, type_, current
        self._written = written

    def __call__(self) -> Any:
        answer = self._read(self._leaf, self._current().attributes.get(self._name))
        if self._type is None or answer is None:
            return answer
        if isinstance(answer, tuple):
            return [_sent(item, self._type, self._written) for item in answer]
        return _sent(answer, self._type, self._written)


class RuleExpressions:
    """Makes the expression of one rule for one table of one statement.

    Args:
        dialect: Which database is spoken.
        current: The row filter on whose behalf the statement runs, asked at each execution.
        many: The statement is executed for many rows at once.
    """

    def __init__(self, dialect: Dialect, current: Callable[[], RowFilter], *, many: bool) -> None:
        self._dialect = dialect
        self._current = current
        self._many = many

    def expression(self, rule: Rule, column: Callable[[str, Leaf], ColumnClause[Any]]) -> ColumnElement[bool]:
        """The rule's expression; ``column`` finds a column of the table by its name."""
        if isinstance(rule, Group):
            parts = [self.expression(part, column) for part in rule.rules]
            if not parts:
                return false()
            return and_(*parts) if rule.kind == "all" else or_(*parts)
        found = column(rule.column, rule)
        if rule.attribute is None:
            return found.is_not(None) if rule.op == "is_set" else found.is_(None)
        ask = _is_usable_as_float if isinstance(found.type, sqltypes.Float) else _is_usable
        usable = self._parameter("usable", sqltypes.Boolean(), self._asking(rule, ask))
        return and_(usable, self._comparison(rule, found), *comparable(rule, found, self._dialect))

    def column_type(self, leaf: Leaf, declared: TypeEngine[Any] | None) -> TypeEngine[Any]:
        """The type to compare a column with; ``declared`` is the table's, None where it does not say.

        Raises:
            UnfitColumn: The comparison would not mean what the policy says.
        """
        if leaf.attribute is None:
            return sqltypes.NullType()
        type_ = leaf.attribute.type
        if declared is None or isinstance(declared, sqltypes.NullType):
            if type_ in _WRITTEN_IN_MANY_WAYS:
                raise UnfitColumn(
                    f"the query's table does not declare its type, and {leaf.attribute.name} is a {type_}"
                )
            return _DEFAULTS[type_]()
        for known in (declared, declared.dialect_impl(self._dialect)):
            if _is_own(known) or not isinstance(known, _FITTING[type_]):
                raise UnfitColumn(f"its type is {declared!r}, and {leaf.attribute.name} is {leaf.attribute.expected}")
        if self._dialect.name == "postgresql" and _is_single(declared):
            raise UnfitColumn(f"its type is {declared!r}, and PostgreSQL compares that with none of its own values")
        return declared

    def _comparison(self, leaf: Leaf, column: ColumnClause[Any]) -> ColumnElement[bool]:
        assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
        if leaf.attribute.type == "uuid" and not self._is_native(column.type):
            return self._uuid_as_text(leaf, type_coerce(column, sqltypes.String()))
        type_ = self._parameter_type(leaf, column.type)
        if leaf.attribute.type == "datetime" and self._dialect.name == "sqlite":
            return self._moment(leaf, column, type_)
        if leaf.op in LIST_OPERATORS:
            return self._membership(leaf, column, type_)

        def value() -> BindParameter[Any]:
            return self._parameter("value", type_, self._asking(leaf, _one, type_))

        if not isinstance(column.type, sqltypes.String):
            return _OPERATORS[leaf.op](column, value())
        exact = self._exact(column)
        sqlite = self._dialect.name == "sqlite"
        if leaf.op == "contains":
            return (func.instr if sqlite else func.strpos)(exact, value()) > 0
        if leaf.op == "starts_with":
            # On SQLite LIKE ignores case, and BINARY is written out because the column may have another collation.
            return self._exact(func.substr(column, 1, func.length(value()))) == value()
        same = _OPERATORS[leaf.op](exact, value())
        # PostgreSQL finds an index only without the collation.
        return same if sqlite or leaf.op == "ne" else and_(column == value(), same)

    def _membership(self, leaf: Leaf, column: ColumnElement[Any], type_: TypeEngine[Any]) -> ColumnElement[bool]:
        if not isinstance(column.type, sqltypes.String):
            return self._member(leaf, column, type_)
        same = self._member(leaf, self._exact(column), type_)
        if self._dialect.name == "sqlite" or leaf.op == "not_in":
            return same
        return and_(self._member(leaf, column, type_), same)

    def _member(
        self, leaf: Leaf, operand: ColumnElement[Any], type_: TypeEngine[Any], written: _Written = str
    ) -> ColumnElement[bool]:
        values: Any
        if self._many:
            values = [
                self._parameter("value", type_, self._asking(leaf, _slot(index), type_, written))
                for index in range(SLOTS)
            ]
        else:
            values = self._parameter("values", type_, self._asking(leaf, _every, type_, written), expanding=True)
        return operand.in_(values) if leaf.op == "in" else operand.not_in(values)

    def _uuid_as_text(self, leaf: Leaf, column: ColumnElement[Any]) -> ColumnElement[bool]:
        """A UUID that is kept as text: with its dashes, or without."""
        text = sqltypes.String()
        exact = self._exact(column)

        def one(written: _Written) -> ColumnElement[bool]:
            if leaf.op in LIST_OPERATORS:
                return self._member(leaf, exact, text, written)
            return _OPERATORS[leaf.op](exact, self._parameter("value", text, self._asking(leaf, _one, text, written)))

        join = or_ if leaf.op in ("eq", "in") else and_
        return join(one(str), one(_without_dashes))

    def _moment(self, leaf: Leaf, column: ColumnClause[Any], type_: TypeEngine[Any]) -> ColumnElement[bool]:
        """A date and time in SQLite: text, whose order is theirs where all have their microseconds."""
        whole = as_moment(column)
        if leaf.op in LIST_OPERATORS:
            return self._member(leaf, whole, type_)

        def value() -> BindParameter[Any]:
            return self._parameter("value", type_, self._asking(leaf, _one, type_))

        same = _OPERATORS[leaf.op](whole, value())
        # Without microseconds a cell is the beginning of its own moment, so that an index can still be used.
        least = func.substr(value(), 1, 19)
        near = []
        if leaf.op in ("eq", "ge", "gt"):
            near.append(column >= least)
        if leaf.op in ("eq", "le", "lt"):
            near.append(column <= value())
        return and_(*near, same)

    def _is_native(self, type_: TypeEngine[Any]) -> bool:
        """Whether a UUID is kept as one, and not as text."""
        return isinstance(type_, sqltypes.Uuid) and type_.native_uuid and self._dialect.supports_native_uuid

    def _exact(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        """Text that is compared byte by byte, whatever collation the column has."""
        return collate(text, _BINARY[self._dialect.name])

    def _parameter_type(self, leaf: Leaf, declared: TypeEngine[Any]) -> TypeEngine[Any]:
        assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
        known = leaf.attribute.type
        if known in ("date", "datetime", "uuid") or (known == "number" and _is_decimal(declared)):
            return declared  # it knows how its database writes such a value
        if known == "number" and self._dialect.name == "postgresql" and isinstance(declared, sqltypes.Integer):
            return sqltypes.Numeric()  # beside a float PostgreSQL would round the column's large integers
        return _DEFAULTS[known]()

    def _parameter(
        self, name: str, type_: TypeEngine[Any], ask: Asked, *, expanding: bool = False
    ) -> BindParameter[Any]:
        return bindparam(f"tg_{name}", callable_=ask, type_=type_, unique=True, expanding=expanding)

    def _asking(
        self,
        leaf: Leaf,
        read: Callable[[Leaf, object], Any],
        type_: TypeEngine[Any] | None = None,
        written: _Written = str,
    ) -> Asked:
        return Asked(leaf, read, type_, self._current, written)


_OPERATORS: Final[Mapping[str, Callable[[ColumnElement[Any], Any], ColumnElement[bool]]]] = {
    "eq": lambda column, value: column == value,
    "ne": lambda column, value: column != value,
    "lt": lambda column, value: column < value,
    "le": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "ge": lambda column, value: column >= value,
}


def _is_usable(leaf: Leaf, value: object) -> bool:
    return leaf.usable(value)


def _is_usable_as_float(leaf: Leaf, value: object) -> bool:
    # Beside a column of floats a larger integer is rounded, and would be another one.
    listed = value if isinstance(value, tuple) else (value,)
    return leaf.usable(value) and not any(isinstance(one, int) and abs(one) > EXACT_IN_A_FLOAT for one in listed)


def _one(leaf: Leaf, value: object) -> object:
    return value if leaf.usable(value) else None


def _every(leaf: Leaf, value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else ()


def _slot(index: int) -> Callable[[Leaf, object], object]:
    def read(leaf: Leaf, value: object) -> object:
        values = _every(leaf, value)
        if len(values) > SLOTS:
            raise TooManyValues
        if not values:
            return None
        return values[index] if index < len(values) else values[0]

    return read


def _is_own(type_: TypeEngine[Any]) -> bool:
    """Whether a type compares, converts or stores in a way of its own, which is not what the policy means."""
    if isinstance(type_, sqltypes.Enum) or type_.__visit_name__ == "CITEXT":
        return True
    # SQLite writes dates as text, whose order is theirs in the usual format only.
    formats = (getattr(known, "_storage_format", None) for known in (type_, type(type_)))
    return not type(type_).__module__.startswith("sqlalchemy.") or len(set(formats)) > 1


def _is_decimal(type_: TypeEngine[Any]) -> bool:
    return isinstance(type_, sqltypes.Numeric) and not isinstance(type_, sqltypes.Float)


def _is_single(type_: TypeEngine[Any]) -> bool:
    """Whether a column is PostgreSQL's float4, which is widened before it is compared."""
    precision = getattr(type_, "precision", None)
    return isinstance(type_, sqltypes.REAL) or (
        type(type_) in (sqltypes.Float, sqltypes.FLOAT) and precision is not None and precision <= _SINGLE_BITS
    )


def _without_dashes(value: UUID) -> str:
    return value.hex


def _sent(value: Any, type_: TypeEngine[Any], written: _Written) -> Any:
    """An attribute's value as a column of this type takes it."""
    if isinstance(value, datetime):
        # Without an offset means UTC, in tokens and in columns alike.
        return value if isinstance(type_, sqltypes.DateTime) and type_.timezone else value.replace(tzinfo=None)
    if isinstance(value, UUID):
        return value if isinstance(type_, sqltypes.Uuid) and type_.as_uuid else written(value)
    if isinstance(value, float) and _is_decimal(type_):
        return Decimal(repr(value))
    return value
