"""What a cell has to be before it is compared: a database lets a column hold more than its type says.

SQLite keeps text in a column of numbers, where it is larger than each of them, and numbers in one of
text. ``ne`` and ``gt`` would open such a row, and for ``RowFilter.matches`` it passes no comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Text, and_, cast, collate, func, literal_column, or_, type_coerce
from sqlalchemy import types as sqltypes
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.elements import ColumnClause, ColumnElement

from toucan_guard.core.row_rules import Leaf

EXACT_IN_A_FLOAT: Final = 2**53
# Column types whose affinity leaves text to be equal to text alone, and whole numbers to numbers.
_EQUAL_TO_ITS_OWN_KIND: Final[dict[str, tuple[type[Any], ...]]] = {
    "string": (sqltypes.String,),
    "integer": (sqltypes.Integer,),
}
_DAY: Final = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_MOMENT: Final = f"{_DAY} [0-9][0-9]:[0-9][0-9]:[0-9][0-9]"
_MICROSECONDS: Final = "." + "[0-9]" * 6


def comparable(leaf: Leaf, column: ColumnClause[Any], dialect: Dialect) -> Iterator[ColumnElement[bool]]:
    """The conditions under which a cell of this column is one that the comparison means."""
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    type_ = leaf.attribute.type
    if dialect.name == "sqlite":
        yield from _in_sqlite(leaf, column)
    elif isinstance(column.type, sqltypes.CHAR | sqltypes.NCHAR) and type_ == "string":
        # Its blanks at the end are ignored, so that it is exact only where there are none.
        yield func.octet_length(column) == func.octet_length(cast(column, Text))
    elif type_ == "uuid" and leaf.op in ("ne", "not_in") and not getattr(column.type, "native_uuid", False):
        pattern: ColumnElement[Any] = literal_column("'^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})$'")
        yield collate(type_coerce(column, sqltypes.String()), "C").op("~", is_comparison=True)(pattern)


def _in_sqlite(leaf: Leaf, column: ColumnClause[Any]) -> Iterator[ColumnElement[bool]]:
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    type_, kind = leaf.attribute.type, func.typeof(column)
    text = type_coerce(column, sqltypes.String())
    if leaf.op in ("eq", "in") and isinstance(column.type, _EQUAL_TO_ITS_OWN_KIND.get(type_, ())):
        return  # a cell of another kind equals no value of this one, so nothing needs to be looked at for each row
    if type_ in ("integer", "number"):
        yield kind.in_([_text("integer"), _text("real")])
        return
    yield kind == _text("integer" if type_ == "boolean" else "text")
    if type_ == "boolean":
        yield column.in_([literal_column("0"), literal_column("1")])
    elif type_ == "date":
        yield _is_in_calendar(func.date(column, _text("+0 days")), text)
    elif type_ == "datetime":
        exact = collate(text, "BINARY")
        yield or_(
            exact.op("GLOB", is_comparison=True)(_text(_MOMENT)),
            exact.op("GLOB", is_comparison=True)(_text(_MOMENT + _MICROSECONDS)),
        )
        # Without its microseconds, which SQLite would round.
        second = func.substr(text, 1, 19)
        yield _is_in_calendar(func.datetime(second, _text("+0 days")), second)
    elif type_ == "uuid" and leaf.op in ("ne", "not_in"):
        size = func.length(cast(column, sqltypes.LargeBinary))
        bare = func.replace(text, _text("-"), _text(""))
        dashed = text.op("GLOB", is_comparison=True)(_text("????????-????-????-????-????????????"))
        yield ~bare.op("GLOB", is_comparison=True)(_text("*[^0-9a-f]*"))
        yield func.length(bare) == literal_column("32")
        yield or_(size == literal_column("32"), and_(size == literal_column("36"), dashed))


def as_moment(column: ColumnClause[Any]) -> ColumnElement[Any]:
    """A date and time with its microseconds, which SQLite's own functions leave away."""
    whole: ColumnElement[Any] = func.substr(
        type_coerce(column, sqltypes.String()).concat(_text(".000000")), 1, 26, type_=column.type
    )
    return whole


def _is_in_calendar(same: ColumnElement[Any], text: ColumnElement[Any]) -> ColumnElement[bool]:
    return and_(same == collate(text, "BINARY"), collate(text, "BINARY") >= _text("0001"))


def _text(text: str) -> ColumnElement[Any]:
    return literal_column(f"'{text}'")
