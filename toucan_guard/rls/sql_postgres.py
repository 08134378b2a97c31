"""A comparison as PostgreSQL makes it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from toucan_guard.core.row_rules import LIST_OPERATORS, Leaf, Operator
from toucan_guard.rls.sql_parameters import SYMBOL, UUID_TEXT, Parameters, as_it_is, listed, spellings, without_dashes

_EXACT_IN_A_FLOAT: Final = 2**53


def postgres_comparison(parameters: Parameters, leaf: Leaf, cell: str) -> str:
    """The condition that a cell fits an attribute."""
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    type_ = leaf.attribute.type
    if type_ == "datetime":
        # Compared with the other kind it would be moved by the connection's time zone.
        zoned = _compared(leaf.op, cell, parameters.of(leaf, "zoned", as_it_is), "timestamptz")
        naive = _compared(leaf.op, cell, parameters.of(leaf, "naive", _without_zone), "timestamp")
        kind = f"pg_catalog.pg_typeof({cell}) ="
        return (
            f"({kind} 'timestamptz'::pg_catalog.regtype AND {zoned}) "
            f"OR ({kind} 'timestamp'::pg_catalog.regtype AND {naive})"
        )
    if type_ == "uuid":
        return _uuid(parameters, leaf, cell)
    value = parameters.of(leaf, "", _VALUES.get(type_, as_it_is))
    if type_ == "date":
        kind = f"pg_catalog.pg_typeof({cell}) = 'date'::pg_catalog.regtype"
        return f"{_compared(leaf.op, cell, value, 'date')} AND {kind}"
    if type_ == "boolean":
        return _compared(leaf.op, cell, value, "boolean")
    if type_ in ("integer", "number"):
        return _number(parameters, leaf, cell, value)
    exact = f'{cell} COLLATE pg_catalog."C"'
    # char(n) ignores blanks at the end, so that it is exact only where there are none.
    full = f"pg_catalog.octet_length({cell}) = pg_catalog.octet_length({cell}::text)"
    if leaf.op == "contains":
        return f"pg_catalog.strpos({exact}, {value}::text) > 0 AND {full}"
    if leaf.op == "starts_with":
        return f"pg_catalog.starts_with({exact}, {value}::text) AND {full}"
    same = f"{_compared(leaf.op, exact, value, 'text')} AND {full}"
    # An index has the column's own collation.
    return f"{_compared(leaf.op, cell, value, 'text')} AND {same}" if leaf.op in ("eq", "in") else same


def _number(parameters: Parameters, leaf: Leaf, cell: str, value: str) -> str:
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    kind = f"pg_catalog.pg_typeof({cell})"
    # A float4 is widened before it is compared, and then equals no number that it was written as.
    real = f"{kind} <> 'real'::pg_catalog.regtype"
    if leaf.attribute.type == "number":
        return f"{_compared(leaf.op, cell, value, 'numeric')} AND {real}"
    # Beside a float an integer is rounded.
    exact = parameters.of(leaf, "exact", _is_exact_in_a_float, whole=True)
    whole = f"{kind} <> 'double precision'::pg_catalog.regtype"
    return f"{_compared(leaf.op, cell, value, 'bigint')} AND {real} AND ({exact}::boolean OR {whole})"


def _uuid(parameters: Parameters, leaf: Leaf, cell: str) -> str:
    exact = f'{cell}::text COLLATE pg_catalog."C"'
    op: Operator = "in" if leaf.op in ("eq", "in") else "not_in"
    same = _compared(op, exact, parameters.of(leaf, "", spellings, whole=True), "text")
    # Padded to the length of a char(n) it is written in no known way; as text the blanks would be gone.
    plain = f"{same} AND pg_catalog.pg_typeof({cell}) <> 'character'::pg_catalog.regtype"
    if op == "not_in":
        return f"{plain} AND {exact} ~ '^({UUID_TEXT})$'"
    if leaf.op == "eq":
        # An index is one of UUIDs or of text, and what has no type takes the column's.
        loose = f"{parameters.of(leaf, 'loose', str)}, {parameters.of(leaf, 'hex', without_dashes)}"
        return f"{cell} IN ({loose}) AND {plain}"
    return plain


def _compared(op: Operator, cell: str, value: str, type_: str) -> str:
    if op in LIST_OPERATORS:
        return f"{cell} {'= ANY' if op == 'in' else '<> ALL'}({value}::{type_}[])"
    return f"{cell} {SYMBOL[op]} {value}::{type_}"


def _is_exact_in_a_float(value: Any) -> bool:
    return all(abs(one) <= _EXACT_IN_A_FLOAT for one in listed(value))


def _without_zone(value: datetime) -> datetime:
    return value.replace(tzinfo=None)


def _decimal(value: float) -> Decimal:
    # 0.1 in a token is the decimal number that was written.
    return Decimal(repr(value))


_VALUES: Final[dict[str, Callable[[Any], Any]]] = {"number": _decimal}
