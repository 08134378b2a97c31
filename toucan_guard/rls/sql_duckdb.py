"""A comparison as DuckDB makes it.

What ``typeof`` says of a column is known before the query runs, so only one branch is left of each CASE. TRY_CAST,
because the other branches must fit every type and fail on none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any, Final

from toucan_guard.core.row_rules import LIST_OPERATORS, Leaf, Operator
from toucan_guard.rls.sql_parameters import SYMBOL, UUID_TEXT, Parameters, as_it_is, listed, spellings

_INTEGERS: Final = (
    "('TINYINT', 'SMALLINT', 'INTEGER', 'BIGINT', 'HUGEINT', 'UTINYINT', 'USMALLINT', 'UINTEGER', 'UBIGINT')"
)
_DECIMALS: Final = r"'DECIMAL\([0-9]+,([0-9]|1[0-5])\)'"
_DECIMAL_STEP: Final = Decimal(1).scaleb(-15)
_DECIMAL_LIMIT: Final = 10**22
_WIDE: Final = Context(prec=60)
_INTEGER_LIMIT: Final = 2**126


def duckdb_comparison(parameters: Parameters, leaf: Leaf, cell: str) -> str:
    """The condition that a cell fits an attribute."""
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    type_, kind = leaf.attribute.type, f"TYPEOF({cell})"
    if type_ in ("integer", "number"):
        return (
            f"CASE WHEN {kind} IN {_INTEGERS} THEN {_number(parameters, leaf, cell, 'HUGEINT')} "
            f"WHEN REGEXP_FULL_MATCH({kind}, {_DECIMALS}) "
            f"THEN {_number(parameters, leaf, cell, 'DECIMAL(38, 15)')} "
            f"WHEN {kind} IN ('FLOAT', 'DOUBLE') THEN {_number(parameters, leaf, cell, 'DOUBLE')} ELSE FALSE END"
        )
    if type_ in ("string", "uuid"):
        return _text(parameters, leaf, cell)
    value = parameters.of(leaf, "", _microseconds if type_ == "datetime" else as_it_is)
    if type_ == "datetime":
        in_zone = f"WHEN {kind} = 'TIMESTAMP WITH TIME ZONE' THEN EPOCH_US(TRY_CAST({cell} AS TIMESTAMPTZ))"
        naive = f"{kind} IN ('TIMESTAMP', 'TIMESTAMP_S', 'TIMESTAMP_MS')"
        plain = f"WHEN {naive} THEN EPOCH_US(TRY_CAST({cell} AS TIMESTAMP))"
        return _compared(leaf.op, f"CASE {in_zone} {plain} END", value, "BIGINT")
    if type_ == "boolean":
        same = _compared(leaf.op, f"TRY_CAST({cell} AS BOOLEAN)", value, "BOOLEAN")
        number = f"TRY_CAST({cell} AS HUGEINT) IN (0, 1)"
        return f"CASE WHEN {kind} = 'BOOLEAN' OR ({kind} IN {_INTEGERS} AND {number}) THEN {same} ELSE FALSE END"
    same = _compared(leaf.op, f"TRY_CAST({cell} AS DATE)", value, "DATE")
    written = f"REGEXP_FULL_MATCH(CAST({cell} AS VARCHAR), '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}')"
    text = f"{kind} = 'VARCHAR' AND {written} AND CAST({cell} AS VARCHAR) >= '0001'"
    return f"CASE WHEN {kind} = 'DATE' OR ({text}) THEN {same} ELSE FALSE END"


def _text(parameters: Parameters, leaf: Leaf, cell: str) -> str:
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    kind, text = f"TYPEOF({cell})", f"CAST({cell} AS VARCHAR)"
    # Bytes have no collation, and text that was bytes has none either.
    if leaf.attribute.type == "uuid":
        spelled = parameters.of(leaf, "bytes", spellings_utf8, whole=True)
        op: Operator = "in" if leaf.op in ("eq", "in") else "not_in"
        same = _compared(op, f"ENCODE({text})", spelled, "BLOB")
        written = f"REGEXP_FULL_MATCH(DECODE(ENCODE({text})), '{UUID_TEXT}')"
        return f"CASE WHEN {kind} IN ('VARCHAR', 'UUID') AND {written} THEN {same} ELSE FALSE END"
    if leaf.op in ("contains", "starts_with"):
        value = parameters.of(leaf, "", as_it_is)
        same = f"{leaf.op.upper()}(DECODE(ENCODE({text})), {value}::VARCHAR)"
    else:
        same = _compared(leaf.op, f"ENCODE({text})", parameters.of(leaf, "bytes", utf8), "BLOB")
    return f"CASE WHEN {kind} = 'VARCHAR' OR {kind} LIKE 'ENUM%' THEN {same} ELSE FALSE END"


def _number(parameters: Parameters, leaf: Leaf, cell: str, type_: str) -> str:
    space = _SPACES[type_]
    number = f"TRY_CAST({cell} AS {type_})"
    op: Operator
    if leaf.op in ("lt", "le", "gt", "ge"):
        # No number of this kind lies between a bound and its neighbour.
        up = leaf.op in ("lt", "ge")
        bound = parameters.of(leaf, type_, lambda value: space(value, up=up))
        return _compared(leaf.op, number, bound, type_)

    def members(value: Any) -> list[Any]:
        items = listed(value)
        found = [space(item, up=False) for item in items]
        return [one for one, item in zip(found, items, strict=True) if one == space(item, up=True)]

    op = "in" if leaf.op in ("eq", "in") else "not_in"
    return _compared(op, number, parameters.of(leaf, type_, members, whole=True), type_)


def _compared(op: Operator, cell: str, value: str, type_: str) -> str:
    if op in LIST_OPERATORS:
        # Of no list at all DuckDB says that nothing is in it.
        no = "" if op == "in" else "NOT "
        return (
            f"({value}::{type_}[] IS NOT NULL AND {cell} IS NOT NULL AND {no}LIST_CONTAINS({value}::{type_}[], {cell}))"
        )
    return f"{cell} {SYMBOL[op]} {value}::{type_}"


def _as_integer(value: float, *, up: bool) -> int:
    whole = math.ceil(value) if up else math.floor(value)
    return max(-_INTEGER_LIMIT, min(_INTEGER_LIMIT, whole))


def _as_decimal(value: float, *, up: bool) -> str:
    exact = Decimal(repr(value))
    if abs(exact) >= _DECIMAL_LIMIT:
        return str(_DECIMAL_LIMIT if exact > 0 else -_DECIMAL_LIMIT)
    return str(exact.quantize(_DECIMAL_STEP, ROUND_CEILING if up else ROUND_FLOOR, _WIDE))


def _as_double(value: float, *, up: bool) -> float:
    near = float(value)
    if up:
        return near if near >= value else math.nextafter(near, math.inf)
    return near if near <= value else math.nextafter(near, -math.inf)


_SPACES: Final[dict[str, Callable[..., Any]]] = {
    "HUGEINT": _as_integer,
    "DECIMAL(38, 15)": _as_decimal,
    "DOUBLE": _as_double,
}


def _microseconds(value: datetime) -> int:
    passed = value - datetime(1970, 1, 1, tzinfo=UTC)
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def utf8(value: Any) -> bytes:
    return str(value).encode()


def spellings_utf8(value: Any) -> list[bytes]:
    return [spelled.encode() for spelled in spellings(value)]
