"""Whether a column keeps the very value that it is given: what is checked has to be what is stored.

A row that is written is judged by its values before the database has them. PostgreSQL rounds a number to the
column's type, takes blanks off the end of a text and makes up the offset of a moment; SQLite drops the offset.
The row could be another one then.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import types as sqltypes
from sqlalchemy.types import TypeEngine

_MICROSECOND_DIGITS: Final = 6


def keeps(value: object, declared: TypeEngine[Any], dialect: str) -> bool:
    """Whether a column of this type keeps the very value.

    Args:
        value: As it goes to the database.
        declared: The column's type.
        dialect: ``sqlite`` or ``postgresql``.
    """
    if isinstance(value, datetime):
        return not isinstance(declared, sqltypes.DateTime) or _keeps_moment(value, declared, dialect)
    if isinstance(value, float | Decimal) or (isinstance(value, int) and not isinstance(value, bool)):
        return _keeps_number(value, declared, dialect)
    if isinstance(value, str) and isinstance(declared, sqltypes.String) and dialect == "postgresql":
        if isinstance(declared, sqltypes.CHAR | sqltypes.NCHAR):
            return len(value) == (declared.length or 1) and not value.endswith(" ")
        return declared.length is None or len(value) <= declared.length
    return True


def _keeps_moment(value: datetime, declared: sqltypes.DateTime, dialect: str) -> bool:
    if dialect == "sqlite":
        return not value.utcoffset()
    precision = getattr(declared, "precision", None)
    step = 1 if precision is None else 10 ** (_MICROSECOND_DIGITS - precision)
    return (value.utcoffset() is not None) == declared.timezone and value.microsecond % step == 0


def _keeps_number(value: float | Decimal, declared: TypeEngine[Any], dialect: str) -> bool:
    # 0.1 is the decimal number that was written.
    exact = Decimal(float.__repr__(value) if isinstance(value, float) else value)
    if not exact.is_finite():
        return True
    if isinstance(declared, sqltypes.Float) or (isinstance(declared, sqltypes.Numeric) and dialect == "sqlite"):
        return Decimal(repr(float(exact))) == exact
    if dialect == "sqlite":
        return True
    if isinstance(declared, sqltypes.Numeric):
        if isinstance(value, float) and Decimal(f"{value:.15g}") != exact:
            return False  # PostgreSQL takes as many digits of a float
        return declared.scale is None or _places(exact) <= declared.scale
    return _places(exact) <= 0  # an integer, or a type that nobody has told


def _places(exact: Decimal) -> int:
    """How many places behind its point a number needs."""
    _, digits, exponent = exact.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - it is finite
    written = "".join(map(str, digits))
    return -exponent - (len(written) - len(written.rstrip("0"))) if any(digits) else 0
