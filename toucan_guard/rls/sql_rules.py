"""Rules as SQL text about one row, and the values that are bound when it runs.

Each database compares in its own way: by collation, by affinity, by silent casts. The text here is
written so that what it lets through is what ``RowFilter.matches`` lets through. No table is declared to
``filter_sql``, so the text itself looks at the type of a cell wherever the database would convert it.

A parameter is NULL where its attribute can open no row, and no comparison is true of NULL.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any, Final
from uuid import UUID

from toucan_guard.core.row_rules import LIST_OPERATORS, Group, Leaf, Operator, Rule
from toucan_guard.rls.sql_dialects import MARK, Dialect

ROW: Final = "tg_row"

_SYMBOL: Final = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_DUCKDB_INTEGERS: Final = (
    "('TINYINT', 'SMALLINT', 'INTEGER', 'BIGINT', 'HUGEINT', 'UTINYINT', 'USMALLINT', 'UINTEGER', 'UBIGINT')"
)
_DUCKDB_DECIMALS: Final = r"'DECIMAL\([0-9]+,([0-9]|1[0-5])\)'"
_DECIMAL_STEP: Final = Decimal(1).scaleb(-15)
_DECIMAL_LIMIT: Final = 10**22
_WIDE: Final = Context(prec=60)
_INTEGER_LIMIT: Final = 2**126
_EXACT_IN_A_FLOAT: Final = 2**53
_UUID_TEXT: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}"
_SQLITE_UUID: Final = (
    "REPLACE({cell}, '-', '') NOT GLOB '*[^0-9a-f]*' AND LENGTH(REPLACE({cell}, '-', '')) = 32 "
    "AND (LENGTH(CAST({cell} AS BLOB)) = 32 OR (LENGTH(CAST({cell} AS BLOB)) = 36 "
    "AND {cell} GLOB '????????-????-????-????-????????????'))"
)
# What a text must look like to be a date and time for ``matches``, and that moment in UTC to the microsecond.
_SQLITE_MOMENT: Final = """EXISTS (SELECT 1 FROM (
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


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the filter.

    Attributes:
        name: As in the statement.
        many: A list that this database takes value by value.
    """

    name: str
    leaf: Leaf
    attribute: str
    convert: Callable[[Any], Any]
    many: bool

    def value(self, attributes: Any) -> Any:
        """What the driver gets; None where the attribute can open no row. Of ``many`` always a list."""
        value = attributes.get(self.attribute)
        if not self.leaf.usable(value):
            return [None] if self.many else None
        return self.convert(value)


class RuleWriter:
    """Writes the rules of the tables of one statement, and keeps their parameters.

    Attributes:
        parameters: In the order of their names.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._known: dict[tuple[int, str], Parameter] = {}
        self._write = _WRITERS[dialect.name]
        self.parameters: list[Parameter] = []

    def condition(self, rule: Rule) -> str:
        """The rule about a row called ``tg_row``."""
        if isinstance(rule, Group):
            parts = [self.condition(part) for part in rule.rules]
            return "(" + (" AND " if rule.kind == "all" else " OR ").join(parts) + ")" if parts else "1 = 0"
        cell = f"{ROW}.{self._dialect.quote(rule.column)}"
        if rule.attribute is None:
            return f"{cell} IS {'NOT ' if rule.op == 'is_set' else ''}NULL"
        return f"({self._write(self, rule, cell)})"

    def parameter(self, leaf: Leaf, use: str, convert: Callable[[Any], Any], *, whole: bool = False) -> str:
        """The text of a parameter.

        Args:
            leaf: Whose attribute it is.
            use: Tells the parameters of one comparison apart.
            convert: The conversion of a value, of a list that of each of its values.
            whole: Of a list too it is that of the whole.
        """
        assert leaf.attribute is not None  # noqa: S101 - only comparisons have parameters
        known = self._known.get((id(leaf), use))
        if known is None:
            many = not self._dialect.arrays and leaf.op in LIST_OPERATORS
            name = f"tg_{len(self.parameters)}"
            if leaf.op in LIST_OPERATORS and not whole:
                convert = _each(convert)
            known = Parameter(name, leaf, leaf.attribute.name, convert, many)
            self._known[id(leaf), use] = known
            self.parameters.append(known)
        return f"{MARK}{known.name}{MARK}"


# SQLite


def _sqlite(writer: RuleWriter, leaf: Leaf, cell: str) -> str:
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    type_ = leaf.attribute.type
    if type_ == "uuid":
        return _sqlite_uuid(writer, leaf, cell)
    value = writer.parameter(leaf, "", _SQLITE_VALUES[type_])
    if type_ == "datetime":
        return _SQLITE_MOMENT.format(cell=cell, compared=_compared(leaf.op, value))
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


def _sqlite_uuid(writer: RuleWriter, leaf: Leaf, cell: str) -> str:
    if leaf.op in LIST_OPERATORS:
        spelled = writer.parameter(leaf, "", _spellings, whole=True)
    else:
        spelled = f"{writer.parameter(leaf, '', str)}, {writer.parameter(leaf, 'hex', _without_dashes)}"
    is_text = f"TYPEOF({cell}) = 'text'"
    if leaf.op in ("eq", "in"):
        return f"{cell} COLLATE BINARY IN ({spelled}) AND {is_text}"
    return f"{cell} COLLATE BINARY NOT IN ({spelled}) AND {is_text} AND {_SQLITE_UUID.format(cell=cell)}"


def _compared(op: Operator, value: str) -> str:
    if op in LIST_OPERATORS:
        return f"{'IN' if op == 'in' else 'NOT IN'} ({value})"
    return f"{_SYMBOL[op]} {value}"


# PostgreSQL


def _postgres(writer: RuleWriter, leaf: Leaf, cell: str) -> str:
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    type_ = leaf.attribute.type
    if type_ == "datetime":
        # Compared with the other kind it would be moved by the connection's time zone.
        zoned = _pg_compared(leaf.op, cell, writer.parameter(leaf, "zoned", _same), "timestamptz")
        naive = _pg_compared(leaf.op, cell, writer.parameter(leaf, "naive", _without_zone), "timestamp")
        kind = f"pg_catalog.pg_typeof({cell}) ="
        return (
            f"({kind} 'timestamptz'::pg_catalog.regtype AND {zoned}) "
            f"OR ({kind} 'timestamp'::pg_catalog.regtype AND {naive})"
        )
    if type_ == "uuid":
        return _pg_uuid(writer, leaf, cell)
    value = writer.parameter(leaf, "", _POSTGRES_VALUES.get(type_, _same))
    if type_ == "date":
        kind = f"pg_catalog.pg_typeof({cell}) = 'date'::pg_catalog.regtype"
        return f"{_pg_compared(leaf.op, cell, value, 'date')} AND {kind}"
    if type_ == "boolean":
        return _pg_compared(leaf.op, cell, value, "boolean")
    if type_ in ("integer", "number"):
        return _pg_number(writer, leaf, cell, value)
    exact = f'{cell} COLLATE pg_catalog."C"'
    # char(n) ignores blanks at the end, so that it is exact only where there are none.
    full = f"pg_catalog.octet_length({cell}) = pg_catalog.octet_length({cell}::text)"
    if leaf.op == "contains":
        return f"pg_catalog.strpos({exact}, {value}::text) > 0 AND {full}"
    if leaf.op == "starts_with":
        return f"pg_catalog.starts_with({exact}, {value}::text) AND {full}"
    same = f"{_pg_compared(leaf.op, exact, value, 'text')} AND {full}"
    # An index has the column's own collation.
    return f"{_pg_compared(leaf.op, cell, value, 'text')} AND {same}" if leaf.op in ("eq", "in") else same


def _pg_number(writer: RuleWriter, leaf: Leaf, cell: str, value: str) -> str:
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    kind = f"pg_catalog.pg_typeof({cell})"
    # A float4 is widened before it is compared, and then equals no number that it was written as.
    real = f"{kind} <> 'real'::pg_catalog.regtype"
    if leaf.attribute.type == "number":
        return f"{_pg_compared(leaf.op, cell, value, 'numeric')} AND {real}"
    # Beside a float an integer is rounded.
    exact = writer.parameter(leaf, "exact", _is_exact_in_a_float, whole=True)
    whole = f"{kind} <> 'double precision'::pg_catalog.regtype"
    return f"{_pg_compared(leaf.op, cell, value, 'bigint')} AND {real} AND ({exact}::boolean OR {whole})"


def _pg_uuid(writer: RuleWriter, leaf: Leaf, cell: str) -> str:
    exact = f'{cell}::text COLLATE pg_catalog."C"'
    op: Operator = "in" if leaf.op in ("eq", "in") else "not_in"
    same = _pg_compared(op, exact, writer.parameter(leaf, "", _spellings, whole=True), "text")
    # Padded to the length of a char(n) it is written in no known way; as text the blanks would be gone.
    plain = f"{same} AND pg_catalog.pg_typeof({cell}) <> 'character'::pg_catalog.regtype"
    if op == "not_in":
        return f"{plain} AND {exact} ~ '^({_UUID_TEXT})$'"
    if leaf.op == "eq":
        # An index is one of UUIDs or of text, and what has no type takes the column's.
        loose = f"{writer.parameter(leaf, 'loose', str)}, {writer.parameter(leaf, 'hex', _without_dashes)}"
        return f"{cell} IN ({loose}) AND {plain}"
    return plain


def _pg_compared(op: Operator, cell: str, value: str, type_: str) -> str:
    if op in LIST_OPERATORS:
        return f"{cell} {'= ANY' if op == 'in' else '<> ALL'}({value}::{type_}[])"
    return f"{cell} {_SYMBOL[op]} {value}::{type_}"


# DuckDB. What ``typeof`` says of a column is known before the query runs, so only one branch is left of
# each CASE. TRY_CAST, because the other branches must fit every type and fail on none.


def _duckdb(writer: RuleWriter, leaf: Leaf, cell: str) -> str:
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    type_, kind = leaf.attribute.type, f"TYPEOF({cell})"
    if type_ in ("integer", "number"):
        return (
            f"CASE WHEN {kind} IN {_DUCKDB_INTEGERS} THEN {_duckdb_number(writer, leaf, cell, 'HUGEINT')} "
            f"WHEN REGEXP_FULL_MATCH({kind}, {_DUCKDB_DECIMALS}) "
            f"THEN {_duckdb_number(writer, leaf, cell, 'DECIMAL(38, 15)')} "
            f"WHEN {kind} IN ('FLOAT', 'DOUBLE') THEN {_duckdb_number(writer, leaf, cell, 'DOUBLE')} ELSE FALSE END"
        )
    if type_ in ("string", "uuid"):
        return _duckdb_text(writer, leaf, cell)
    value = writer.parameter(leaf, "", _microseconds if type_ == "datetime" else _same)
    if type_ == "datetime":
        in_zone = f"WHEN {kind} = 'TIMESTAMP WITH TIME ZONE' THEN EPOCH_US(TRY_CAST({cell} AS TIMESTAMPTZ))"
        naive = f"{kind} IN ('TIMESTAMP', 'TIMESTAMP_S', 'TIMESTAMP_MS')"
        plain = f"WHEN {naive} THEN EPOCH_US(TRY_CAST({cell} AS TIMESTAMP))"
        return _duckdb_compared(leaf.op, f"CASE {in_zone} {plain} END", value, "BIGINT")
    if type_ == "boolean":
        same = _duckdb_compared(leaf.op, f"TRY_CAST({cell} AS BOOLEAN)", value, "BOOLEAN")
        number = f"TRY_CAST({cell} AS HUGEINT) IN (0, 1)"
        return f"CASE WHEN {kind} = 'BOOLEAN' OR ({kind} IN {_DUCKDB_INTEGERS} AND {number}) THEN {same} ELSE FALSE END"
    same = _duckdb_compared(leaf.op, f"TRY_CAST({cell} AS DATE)", value, "DATE")
    written = f"REGEXP_FULL_MATCH(CAST({cell} AS VARCHAR), '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}')"
    text = f"{kind} = 'VARCHAR' AND {written} AND CAST({cell} AS VARCHAR) >= '0001'"
    return f"CASE WHEN {kind} = 'DATE' OR ({text}) THEN {same} ELSE FALSE END"


def _duckdb_text(writer: RuleWriter, leaf: Leaf, cell: str) -> str:
    assert leaf.attribute is not None  # noqa: S101 - only comparisons come here
    kind, text = f"TYPEOF({cell})", f"CAST({cell} AS VARCHAR)"
    # Bytes have no collation, and text that was bytes has none either.
    if leaf.attribute.type == "uuid":
        spelled = writer.parameter(leaf, "bytes", _spellings_utf8, whole=True)
        op: Operator = "in" if leaf.op in ("eq", "in") else "not_in"
        same = _duckdb_compared(op, f"ENCODE({text})", spelled, "BLOB")
        written = f"REGEXP_FULL_MATCH(DECODE(ENCODE({text})), '{_UUID_TEXT}')"
        return f"CASE WHEN {kind} IN ('VARCHAR', 'UUID') AND {written} THEN {same} ELSE FALSE END"
    if leaf.op in ("contains", "starts_with"):
        value = writer.parameter(leaf, "", _same)
        same = f"{leaf.op.upper()}(DECODE(ENCODE({text})), {value}::VARCHAR)"
    else:
        same = _duckdb_compared(leaf.op, f"ENCODE({text})", writer.parameter(leaf, "bytes", _utf8), "BLOB")
    return f"CASE WHEN {kind} = 'VARCHAR' OR {kind} LIKE 'ENUM%' THEN {same} ELSE FALSE END"


def _duckdb_number(writer: RuleWriter, leaf: Leaf, cell: str, type_: str) -> str:
    space = _SPACES[type_]
    number = f"TRY_CAST({cell} AS {type_})"
    op: Operator
    if leaf.op in ("lt", "le", "gt", "ge"):
        # No number of this kind lies between a bound and its neighbour.
        up = leaf.op in ("lt", "ge")
        bound = writer.parameter(leaf, type_, lambda value: space(value, up=up))
        return _duckdb_compared(leaf.op, number, bound, type_)

    def members(value: Any) -> list[Any]:
        listed = _listed(value)
        found = [space(item, up=False) for item in listed]
        return [one for one, item in zip(found, listed, strict=True) if one == space(item, up=True)]

    op = "in" if leaf.op in ("eq", "in") else "not_in"
    return _duckdb_compared(op, number, writer.parameter(leaf, type_, members, whole=True), type_)


def _duckdb_compared(op: Operator, cell: str, value: str, type_: str) -> str:
    if op in LIST_OPERATORS:
        # Of no list at all DuckDB says that nothing is in it.
        no = "" if op == "in" else "NOT "
        return (
            f"({value}::{type_}[] IS NOT NULL AND {cell} IS NOT NULL AND {no}LIST_CONTAINS({value}::{type_}[], {cell}))"
        )
    return f"{cell} {_SYMBOL[op]} {value}::{type_}"


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

# Values as drivers take them


def _same(value: Any) -> Any:
    return value


def _utf8(value: Any) -> bytes:
    return str(value).encode()


def _without_dashes(value: UUID) -> str:
    return value.hex


def _spellings(value: Any) -> list[str]:
    """A UUID, or each of several, as text in both ways."""
    return [spelled for one in _listed(value) for spelled in (str(one), one.hex)]


def _spellings_utf8(value: Any) -> list[bytes]:
    return [spelled.encode() for spelled in _spellings(value)]


def _is_exact_in_a_float(value: Any) -> bool:
    return all(abs(one) <= _EXACT_IN_A_FLOAT for one in _listed(value))


def _listed(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _without_zone(value: datetime) -> datetime:
    return value.replace(tzinfo=None)


def _moment(value: datetime) -> str:
    return value.replace(tzinfo=None).isoformat(" ", "microseconds")


def _microseconds(value: datetime) -> int:
    passed = value - datetime(1970, 1, 1, tzinfo=UTC)
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def _decimal(value: float) -> Decimal:
    # 0.1 in a token is the decimal number that was written.
    return Decimal(repr(value))


def _each(convert: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return list if convert is _same else lambda values: [convert(value) for value in values]


_SQLITE_VALUES: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("string", "integer", "number"), _same),
    "boolean": int,
    "date": date.isoformat,
    "datetime": _moment,
}
_POSTGRES_VALUES: Final[dict[str, Callable[[Any], Any]]] = {"number": _decimal}
_WRITERS: Final[dict[str, Callable[[RuleWriter, Leaf, str], str]]] = {
    "sqlite": _sqlite,
    "duckdb": _duckdb,
    "postgres": _postgres,
}
