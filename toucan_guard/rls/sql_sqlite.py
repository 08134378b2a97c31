"""A comparison as SQLite makes it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final

from toucan_guard.core.row_rules import LIST_OPERATORS, Leaf, Operator
from toucan_guard.rls.sql_parameters import SYMBOL, Parameters, as_it_is, spellings, without_dashes

_UUID: Final = (
    "REPLACE({cell}, '-', '') NOT GLOB '*[^0-9a-f]*' AND LENGTH(REPLACE({cell}, '-', '')) = 32 "
    "AND (LENGTH(CAST({cell} AS BLOB)) = 32 OR (LENGTH(CAST({cell} AS BLOB)) = 36 "
    "AND {cell} GLOB '????????-????-????-????-????????????'))"
)
# What a text must look like to be a date and time for ``matches``, and that moment in UTC to the microsecond.
_MOMENT: Final = """EXISTS (SELECT 1 FROM (
SELECT t, z, SUBSTR(t, 1, LENGTH(t) - LENGTH(z)) AS b FROM (
SELECT {cell} AS t, CASE WHEN SUBSTR({cell}, -1) = 'Z' THEN 'Z' WHEN LENGTH({cell}) > 16 AND SUBSTR({cell}, -6) GLOB \
'[-+][0-9][0-9]:[0-9][0-9]' THEN SUBSTR({cell}, -6) ELSE '' END AS z)) WHERE TYPEOF(t) = 'text'
AND SUBSTR(b, 1, 16) GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]'
AND (LENGTH(b) = 16 OR (SUBSTR(b, 17, 3) GLOB ':[0-9][0-9]' AND (LENGTH(b) = 19 OR
(SUBSTR(b, 20, 1) = '.' AND LENGTH(b) BETWEEN 21 AND 26 AND SUBSTR(b, 21) NOT GLOB '*[^0-9]*'))))
AND SUBSTR(b, 12, 2) < '24' AND DATE(SUBSTR(b, 1, 10), '+0 days') = SUBSTR(b, 1, 10) AND b >= '0001'
AND DATETIME(SUBSTR(b, 1, 16) || SUBSTR(b || ':00', 17, 3) || z) >= '0001'
AND DATETIME(SUBSTR(b, 1, 16) || SUBSTR(b || ':00', 17, 3) || z) || '.' || SUBSTR(SUBSTR(b, 21) || '000000', 1, 6) \
{compared})"""


def sqlite_comparison(parameters: Parameters, leaf: Leaf, cell: str) -> str:
    """The condition that a cell fits an attribute."""
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    type_ = leaf.attribute.type
    if type_ == "uuid":
        return _uuid(parameters, leaf, cell)
    value = parameters.of(leaf, "", _VALUES[type_])
    if type_ == "datetime":
        return _MOMENT.format(cell=cell, compared=_compared(leaf.op, value))
    if type_ in ("integer", "number"):
        # A list is rounded to what a column of floats can hold, unless the column's affinity is taken away.
        same = f"+{cell} {_compared(leaf.op, value)}"
        if leaf.op != "not_in":
            same = f"{cell} {_compared(leaf.op, value)}{f' AND {same}' if leaf.op == 'in' else ''}"
        return f"{same} AND TYPEOF({cell}) IN ('integer', 'real')"
    if type_ == "boolean":
        return f"{cell} {_compared(leaf.op, value)} AND TYPEOF({cell}) = 'integer' AND {cell} IN (0, 1)"
    is_text = f"TYPEOF({cell}) = 'text'"
    if leaf.op == "contains":
        return f"INSTR({cell}, {value}) > 0 AND {is_text}"
    if leaf.op == "starts_with":
        return f"SUBSTR({cell}, 1, LENGTH({value})) = {value} COLLATE BINARY AND {is_text}"
    same = f"{cell} COLLATE BINARY {_compared(leaf.op, value)} AND {is_text}"
    return (
        f"{same} AND DATE({cell}, '+0 days') = {cell} COLLATE BINARY AND SUBSTR({cell}, 1, 4) <> '0000'"
        if type_ == "date"
        else same
    )


def _uuid(parameters: Parameters, leaf: Leaf, cell: str) -> str:
    if leaf.op in LIST_OPERATORS:
        spelled = parameters.of(leaf, "", spellings, whole=True)
    else:
        spelled = f"{parameters.of(leaf, '', str)}, {parameters.of(leaf, 'hex', without_dashes)}"
    is_text = f"TYPEOF({cell}) = 'text'"
    if leaf.op in ("eq", "in"):
        return f"{cell} COLLATE BINARY IN ({spelled}) AND {is_text}"
    return f"{cell} COLLATE BINARY NOT IN ({spelled}) AND {is_text} AND {_UUID.format(cell=cell)}"


def _compared(op: Operator, value: str) -> str:
    if op in LIST_OPERATORS:
        return f"{'IN' if op == 'in' else 'NOT IN'} ({value})"
    return f"{SYMBOL[op]} {value}"


def _moment(value: datetime) -> str:
    return value.replace(tzinfo=None).isoformat(" ", "microseconds")


_VALUES: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("string", "integer", "number"), as_it_is),
    "boolean": int,
    "date": date.isoformat,
    "datetime": _moment,
}
