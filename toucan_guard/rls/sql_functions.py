"""Which functions a statement may call: those of the database's own that look at nothing but their arguments.

What is not listed is refused, so what a database or the parser learns later stays closed. Not listed are functions
that read tables, files, settings or the session, that run SQL, and that wait.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sqlglot import exp

_EVERYWHERE: Final = (
    *(exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.GroupConcat, exp.Grouping),
    *(exp.Coalesce, exp.Nullif, exp.Greatest, exp.Least, exp.Abs, exp.Round, exp.Floor, exp.Ceil, exp.Sign),
    *(exp.Sqrt, exp.Exp, exp.Ln, exp.Log, exp.Pow, exp.Lower, exp.Upper, exp.Length, exp.Trim, exp.Substring),
    *(exp.Trunc, exp.Sin, exp.Cos, exp.Tan, exp.Asin, exp.Acos, exp.Atan, exp.Atan2, exp.Pi, exp.Degrees, exp.Radians),
    *(exp.Replace, exp.StrPosition, exp.Concat, exp.CurrentDate, exp.CurrentTimestamp, exp.Rand, exp.Chr, exp.Format),
    *(exp.RowNumber, exp.Rank, exp.DenseRank, exp.PercentRank, exp.CumeDist, exp.Ntile),
    *(exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue, exp.NthValue),
    *(exp.JSONExtract, exp.JSONExtractScalar),
)
_NOT_IN_SQLITE: Final = (
    *(exp.Extract, exp.TimestampTrunc, exp.DateTrunc, exp.TimeToStr, exp.AtTimeZone, exp.DateBin, exp.ConcatWs),
    *(exp.ILike, exp.StartsWith, exp.Left, exp.Right, exp.LogicalAnd, exp.LogicalOr, exp.Corr, exp.Mode),
    *(exp.Stddev, exp.StddevSamp, exp.StddevPop, exp.Variance, exp.VariancePop, exp.CovarPop, exp.CovarSamp),
    *(exp.RegrSlope, exp.RegrIntercept, exp.RegrR2, exp.RegrCount, exp.BitwiseAndAgg, exp.BitwiseOrAgg),
    *(exp.PercentileCont, exp.PercentileDisc, exp.AnyValue, exp.ArrayAgg),
    *(exp.RegexpLike, exp.SimilarTo, exp.RegexpReplace, exp.SplitPart, exp.Pad, exp.Repeat, exp.Reverse),
    *(exp.Ascii, exp.Translate, exp.MD5, exp.Cbrt, exp.StrToTime, exp.UnixToTime, exp.TimestampFromParts),
    *(exp.Localtimestamp,),
)
FUNCTIONS: Final[Mapping[str, frozenset[type[exp.Expr]]]] = {
    "sqlite": frozenset(
        (
            *(*_EVERYWHERE, exp.Date, exp.TimeToStr, exp.TsOrDsToTimestamp, exp.CurrentTime),
            *(exp.Hex, exp.Unicode, exp.Typeof, exp.JSONType),
        )
    ),
    "duckdb": frozenset(
        (
            *(*_EVERYWHERE, *_NOT_IN_SQLITE, exp.TryCast, exp.Median, exp.CountIf, exp.ApproxDistinct),
            *(exp.ArgMax, exp.ArgMin, exp.DateDiff, exp.DateAdd, exp.TimeToUnix, exp.DateFromParts, exp.EndsWith),
            *(exp.Contains, exp.Year, exp.Quarter, exp.Month, exp.Week, exp.Day, exp.Hour, exp.Minute, exp.Second),
            *(exp.DayOfWeek, exp.DayOfYear, exp.Monthname, exp.Dayname, exp.LastDay, exp.ToDays),
            *(exp.DayOfWeekIso, exp.WeekOfYear, exp.Quantile, exp.ApproxQuantile, exp.First, exp.Last),
            *(exp.Skewness, exp.Kurtosis, exp.RegexpExtract, exp.Unicode, exp.Levenshtein, exp.Typeof),
            *(exp.IsNan, exp.IsInf, exp.ArrayContains, exp.ArraySize, exp.Factorial, exp.GroupingId),
        )
    ),
    "postgres": frozenset(
        (
            *(*_EVERYWHERE, *_NOT_IN_SQLITE, exp.Initcap, exp.Year, exp.Month, exp.Day),
            *(exp.RegexpILike, exp.RegexpCount, exp.StrToDate, exp.ToNumber, exp.WidthBucket, exp.Factorial),
            *(exp.JSONBExtract, exp.JSONBExtractScalar, exp.Overlaps, exp.Overlay, exp.ArrayToString, exp.ArraySize),
            *(exp.JustifyDays, exp.JustifyHours, exp.JustifyInterval),
        )
    ),
}
# Functions of which the parser knows no more than the name.
NAMED_FUNCTIONS: Final[Mapping[str, frozenset[str]]] = {
    "sqlite": frozenset(
        (
            *("total", "julianday", "unixepoch", "date", "time", "datetime", "strftime", "printf", "quote"),
            *("json_array_length", "json_valid"),
        )
    ),
    "duckdb": frozenset(
        (
            *("date_part", "quantile_disc", "isfinite", "now", "get_current_timestamp", "weekday", "yearweek"),
            *("datepart", "datesub", "date_sub", "age", "century", "mad", "entropy", "product", "geomean", "sem"),
            *("prefix", "suffix", "printf", "histogram", "jaccard", "gcd", "lcm", "all"),
        )
    ),
    "postgres": frozenset(
        (
            *("make_date", "age", "isfinite", "every", "octet_length", "gcd", "lcm", "regexp_match", "clock_timestamp"),
            *("jsonb_extract_path_text", "json_extract_path_text", "jsonb_array_length", "json_array_length"),
            *("jsonb_typeof", "json_typeof", "all"),
        )
    ),
}
# Functions in FROM that make their rows of their arguments alone.
ROW_FUNCTIONS: Final[Mapping[str, tuple[type[exp.Expr], ...]]] = {
    "sqlite": (),
    "duckdb": (exp.GenerateSeries,),
    "postgres": (exp.ExplodingGenerateSeries,),
}
# The largest number that says how long an answer is; in a format none has more digits, or is an argument.
MAX_WRITTEN: Final = 1_000
_LARGE: Final = re.compile(r"[0-9]{4}|\*|\{[^{}]*\{")
_LENGTHS: Final[Mapping[type[exp.Expr], str]] = {exp.Pad: "expression", exp.Repeat: "times"}
# What can give an answer that is much longer than its arguments.
WITH_LENGTHS: Final = frozenset({*_LENGTHS, exp.Format, "printf"})


def is_modest(node: exp.Expr) -> bool:
    """Whether the answer of one of ``WITH_LENGTHS`` is no longer than it says: one call could fill the memory."""
    if type(node) in _LENGTHS:
        size = node.args.get(_LENGTHS[type(node)])
        return isinstance(size, exp.Literal) and str(size.this).isdecimal() and int(str(size.this)) < MAX_WRITTEN
    template = next(iter(node.expressions), None) if isinstance(node, exp.Anonymous) else node.this
    return isinstance(template, exp.Literal) and bool(template.is_string) and not _LARGE.search(str(template.this))
