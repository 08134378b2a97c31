"""The last look at a rewritten statement: whatever a user wrote stands in quotes, or is one of the known words.

The generator of sqlglot has hundreds of functions for what databases write in different ways, and some of them put a
name or a string into the text without quotes. The allow-list in ``sql_nodes.py`` leaves them nothing to put there;
should it ever do, the statement is refused here.
"""

from __future__ import annotations

import re
from typing import Final

from toucan_guard.rls.sql_functions import NAMED_FUNCTIONS
from toucan_guard.rls.sql_nodes import COLLATIONS, UNITS, refuse

# Stands on both sides of what is in quotes, and of our own text, until this look. It is in no statement and no name.
SEAL: Final = "\x01"
_VALUE: Final = re.compile(
    f"{SEAL}[^{SEAL}]*{SEAL}|\x00[A-Za-z0-9_]+\x00|(?<![A-Za-z0-9_])[0-9][0-9.]*+(?:[eE][+-]?[0-9]++)?"
)
_DOTTED: Final = re.compile(rf'\.\s*{SEAL}"([^{SEAL}]*)"{SEAL}')
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT: Final = re.compile(r"[A-Za-z0-9_\s(),.*+/%<>=!|&~:-]*")
_LIST: Final = re.compile(r"[\[\]]|#>>?")
_COMMENT: Final = re.compile(r"--|/\*")
_KNOWN: Final = frozenset(
    (
        *UNITS,
        *COLLATIONS,
        # Queries
        *("ALL", "ANY", "AS", "ASC", "BY", "CROSS", "CUBE", "DESC", "DISTINCT", "EXCEPT", "EXISTS", "FILTER", "FIRST"),
        *("FROM", "FULL", "GROUP", "GROUPING", "HAVING", "INNER", "INTERSECT", "JOIN", "LAST", "LATERAL", "LEFT"),
        *("LIMIT", "MATERIALIZED", "NATURAL", "NOT", "NULLS", "OFFSET", "ON", "ORDER", "OUTER", "QUALIFY", "RECURSIVE"),
        *("RIGHT", "ROLLUP", "SELECT", "SETS", "UNION", "USING", "VALUES", "WHERE", "WITH", "WITHIN"),
        *(
            "CURRENT",
            "FOLLOWING",
            "GROUPS",
            "IGNORE",
            "NULLS",
            "OVER",
            "PARTITION",
            "PRECEDING",
            "RANGE",
            "ROW",
            "ROWS",
        ),
        *("UNBOUNDED", "WINDOW", "EXCLUDE", "TIES", "NO", "OTHERS", "FETCH", "NEXT", "ONLY", "SEMI", "ANTI", "ASOF"),
        *("POSITIONAL", "NAME", "RENAME", "ARRAY", "SYMMETRIC", "ASYMMETRIC", "REPLACE"),
        # Operators
        *("AND", "AT", "BETWEEN", "BOTH", "CASE", "CAST", "COLLATE", "DIV", "ELSE", "END", "ESCAPE", "FALSE", "FOR"),
        *("GLOB", "ILIKE", "IN", "INTERVAL", "IS", "LEADING", "LIKE", "NULL", "OR", "THEN", "TO", "TRAILING", "TRUE"),
        *("TRY_CAST", "WHEN"),
        # Types
        *("TINYINT", "SMALLINT", "INT", "INTEGER", "BIGINT", "INT128", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER"),
        *("UINT", "UBIGINT", "FLOAT", "REAL", "DOUBLE", "PRECISION", "DECIMAL", "NUMERIC", "TEXT", "VARCHAR", "CHAR"),
        *("CHARACTER", "VARYING", "BPCHAR", "BOOLEAN", "UUID", "DATE", "TIME", "TIMESTAMP", "TIMESTAMPTZ", "DATETIME"),
        *("BLOB", "WITHOUT", "ZONE", "JSON", "JSONB"),
        # Functions
        *("ABS", "AGE", "ANY_VALUE", "APPROX_COUNT_DISTINCT", "ARG_MAX", "ARG_MIN", "AVG", "BOOL_AND", "BOOL_OR"),
        *("CEIL", "COALESCE", "CONCAT", "CONCAT_WS", "CONTAINS", "CORR", "COUNT", "COUNT_IF", "CUME_DIST"),
        *("CURRENT_DATE", "CURRENT_TIMESTAMP", "DATE_BIN", "DATE_DIFF", "DATE_PART", "DATE_TRUNC", "DAYNAME"),
        *("DENSE_RANK", "ENDS_WITH", "EXP", "EXTRACT", "FIRST_VALUE", "FLOOR", "GREATEST", "GROUP_CONCAT", "IIF"),
        *("INITCAP", "INSTR", "ISFINITE", "ISNAN", "JULIANDAY", "LAG", "LAST_VALUE", "LEAD", "LEAST", "LENGTH"),
        *("LISTAGG", "LN", "LOG", "LOWER", "LTRIM", "MAKE_DATE", "MAX", "MEDIAN", "MIN", "MODE", "MONTHNAME"),
        *("NTH_VALUE", "NTILE", "NULLIF", "OCTET_LENGTH", "PERCENTILE_CONT", "PERCENTILE_DISC", "PERCENT_RANK"),
        *("POSITION", "POWER", "QUANTILE_CONT", "QUANTILE_DISC", "RANK", "REPLACE", "ROUND", "ROW_NUMBER", "RTRIM"),
        *("SIGN", "SQRT", "STARTS_WITH", "STDDEV", "STDDEV_POP", "STDDEV_SAMP", "STRFTIME", "STRING_AGG", "STRPOS"),
        *("SUBSTRING", "SUM", "TIME_BUCKET", "TOTAL", "TO_CHAR", "TRIM", "TYPEOF", "UNIXEPOCH", "UPPER", "VARIANCE"),
        *("VAR_POP", "VAR_SAMP", "TRUNC", "SIN", "COS", "TAN", "ASIN", "ACOS", "ATAN", "ATAN2", "PI", "DEGREES"),
        *("RADIANS", "RANDOM", "CHR", "FORMAT", "COVAR_POP", "COVAR_SAMP", "REGR_SLOPE", "REGR_INTERCEPT", "REGR_R2"),
        *("REGR_COUNT", "BIT_AND", "BIT_OR", "ARRAY_AGG", "REGEXP_MATCHES", "REGEXP_REPLACE", "REGEXP_EXTRACT"),
        *("REGEXP_COUNT", "REGEXP_FULL_MATCH", "SPLIT_PART", "LPAD", "RPAD", "REPEAT", "REVERSE", "ASCII", "UNICODE"),
        *("TRANSLATE", "MD5", "CBRT", "TO_TIMESTAMP", "STRPTIME", "MAKE_TIMESTAMP", "LOCALTIMESTAMP", "TO_DATE"),
        *("TO_NUMBER", "WIDTH_BUCKET", "FACTORIAL", "OVERLAY", "PLACING", "OVERLAPS", "SIMILAR", "HEX", "JSON_TYPE"),
        *("JSON_EXTRACT", "JSON_EXTRACT_STRING", "CURRENT_TIME", "LAST_DAY", "TO_DAYS", "ISODOW", "WEEKOFYEAR"),
        *("QUANTILE", "APPROX_QUANTILE", "SKEWNESS", "KURTOSIS", "LEVENSHTEIN", "ISINF", "EPOCH_MS", "GROUPING_ID"),
        *("GENERATE_SERIES", "RANGE", "ARRAY_CONTAINS", "ARRAY_TO_STRING", "ARRAY_LENGTH", "JUSTIFY_DAYS"),
        *("JUSTIFY_HOURS", "JUSTIFY_INTERVAL"),
        *(name.upper() for names in NAMED_FUNCTIONS.values() for name in names),
    )
)


def names_behind_dots(text: str) -> frozenset[str]:
    """The names that stand as ``t.name`` in a sealed text, whoever wrote them so."""
    return frozenset(name.replace('""', '"') for name in _DOTTED.findall(text))


def unseal(text: str, *, lists: bool = False) -> str:
    """The text without its seals.

    Args:
        text: As the generator has written it: seals around names and strings, NUL around parameters.
        lists: Square brackets are those of lists, and not the quotes of a name, as in SQLite.

    Raises:
        QueryRefused: Outside of them stands something that no statement needs.
    """
    outside = _VALUE.sub(" ", text)
    if lists:
        outside = _LIST.sub(" ", outside)
    known = all(word.upper() in _KNOWN for word in _WORD.findall(outside))
    if not known or _COMMENT.search(outside) or not _TEXT.fullmatch(outside):
        refuse("it would be written with words or signs that are not known here")
    return text.replace(SEAL, "")
