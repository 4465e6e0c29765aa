"""Expressions of DuckDB as expressions of Spark with the same values.

Spark runs with `spark.sql.ansi.enabled`, so that what overflows fails there as it does in DuckDB,
and in the use case's time zone. Whatever is not known to mean the same is refused.
"""

from collections.abc import Callable, Mapping

from sqlglot import exp

from ml_platform.spec.spark_sql.expressions import Refused, parsed, quotable, shown, spark
from ml_platform.spec.spark_sql.times import (
    day_of_week,
    epoch,
    extracted,
    interval,
    iso_day_of_week,
    microseconds,
    milliseconds,
    moved,
    steps_between,
    truncated,
    zoned,
)

WHOLE_FROM = 2**52
"""From here on a floating-point number is a whole one."""
SAME: frozenset[type[exp.Expr]] = frozenset(
    {
        # Names, values and logic.
        exp.Alias, exp.Boolean, exp.Column, exp.Identifier, exp.Literal, exp.Null, exp.Paren,
        exp.Star, exp.Var, exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT,
        exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ, exp.Is, exp.In, exp.Between, exp.Case, exp.If,
        exp.Coalesce, exp.Nullif, exp.Exists,
        # Numbers.
        exp.Add, exp.Sub, exp.Mul, exp.Neg, exp.Abs, exp.Least,
        exp.Greatest, exp.Exp, exp.Sign,
        # Texts.
        exp.DPipe, exp.Length, exp.StartsWith, exp.Like,
        # Times.
        exp.Year, exp.Quarter, exp.Month, exp.Day, exp.DayOfYear, exp.Hour, exp.Minute,
        # Aggregates and windows.
        exp.Count, exp.CountIf, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.ArgMax, exp.ArgMin,
        exp.Stddev, exp.StddevSamp, exp.StddevPop, exp.Variance, exp.VariancePop, exp.LogicalAnd,
        exp.LogicalOr, exp.Median, exp.Distinct, exp.Filter, exp.Window, exp.WindowSpec,
        exp.RowNumber, exp.Rank, exp.DenseRank, exp.PercentRank, exp.CumeDist, exp.Ntile, exp.Lag,
        exp.Lead, exp.FirstValue, exp.LastValue, exp.IgnoreNulls, exp.Ordered, exp.Order,
        # Queries.
        exp.Select, exp.From, exp.Join, exp.Where, exp.Group, exp.Having, exp.Qualify, exp.Table,
        exp.TableAlias, exp.Subquery, exp.Union, exp.With, exp.CTE, exp.HistoricalData,
    }
)  # fmt: skip
"""Parts of a query that both engines read alike."""
WHOLE_NUMBERS = {
    "TINYINT": "TINYINT", "SMALLINT": "SMALLINT", "INT": "INT", "BIGINT": "BIGINT",
    # DuckDB's sum of whole numbers; what does not fit Spark refuses.
    "INT128": "BIGINT",
}  # fmt: skip
CAST_TO = {
    "BOOLEAN": "BOOLEAN", "FLOAT": "FLOAT", "DOUBLE": "DOUBLE", "DATE": "DATE",
    "TIMESTAMPNTZ": "TIMESTAMP_NTZ", "TIMESTAMPTZ": "TIMESTAMP",
}  # fmt: skip
AS_TEXT = ("boolean", "tinyint", "smallint", "int", "bigint", "string", "date")
"""Types, by Spark's names, whose values both engines write alike."""


def spark_expression(node: exp.Expr, zone: str) -> exp.Expr | None:
    """What stands for an expression whose parts are Spark's already; None where it stays.

    zone: the use case's time zone. Raises Refused.
    """
    translation = TRANSLATED.get(type(node))
    if translation is not None:
        text = translation(node)
        return None if text is None else parsed(text)
    if isinstance(node, exp.AtTimeZone):
        return parsed(zoned(spark(node.args["zone"]), spark(node.this), zone))
    if isinstance(node, exp.Anonymous):
        return parsed(_function(node, zone))
    if type(node) not in SAME and not isinstance(node, exp.DataType | exp.DataTypeParam):
        raise Refused(f"{shown(node)} is not known to mean the same in Spark")
    return None


def _divided(node: exp.Expr) -> str:
    """Of floating point, which divides by nothing as IEEE 754 says."""
    assert isinstance(node, exp.Binary)
    over, under = (f"CAST({spark(part)} AS DOUBLE)" for part in (node.this, node.expression))
    if isinstance(node.expression, exp.Literal) and float(node.expression.this):
        return f"{over} / {under}"
    return (
        f"CASE WHEN {under} = 0 THEN {over} * CAST('Infinity' AS DOUBLE) ELSE {over} / {under} END"
    )


def _divided_whole(node: exp.Expr) -> str:
    assert isinstance(node, exp.Binary)
    over, under = spark(node.this), spark(node.expression)
    whole = ", ".join(f"'{kind}'" for kind in ("tinyint", "smallint", "int", "bigint"))
    return (
        f"CASE WHEN typeof({over}) NOT IN ({whole}) OR typeof({under}) NOT IN ({whole}) "
        f"THEN raise_error('// of what is not a whole number: {quotable(over)}') "
        f"WHEN {under} = 0 THEN NULL ELSE CAST({over} AS BIGINT) DIV CAST({under} AS BIGINT) END"
    )


def _remainder(node: exp.Expr) -> str:
    assert isinstance(node, exp.Binary)
    return f"try_mod({spark(node.this)}, {spark(node.expression)})"


def _cast(node: exp.Expr) -> str:
    """Numbers are rounded to whole ones, where Spark would cut them off."""
    value, kind = spark(node.this), node.args["to"].this.name
    if kind in WHOLE_NUMBERS:
        target = WHOLE_NUMBERS[kind]
        return (
            f"CASE WHEN typeof({value}) IN ('double', 'float') "
            f"THEN CAST(rint(CAST({value} AS DOUBLE)) AS {target}) "
            f"WHEN typeof({value}) LIKE 'decimal%' "
            f"THEN CAST(round(CAST({value} AS DECIMAL(38, 9)), 0) AS {target}) "
            f"ELSE CAST({value} AS {target}) END"
        )
    if kind == "DECIMAL":
        return f"CAST({value} AS {spark(node.args['to'])})"
    if kind in {"VARCHAR", "TEXT"}:
        named = ", ".join(f"'{each}'" for each in AS_TEXT)
        return (
            f"CASE WHEN typeof({value}) IN ({named}) THEN CAST({value} AS STRING) "
            f"ELSE raise_error('DuckDB and Spark write {quotable(value)} as different texts') END"
        )
    if kind not in CAST_TO:
        raise Refused(f"{shown(node)} is not known to mean the same in Spark")
    return f"CAST({value} AS {CAST_TO[kind]})"


def _is_nan(node: exp.Expr) -> str:
    value = spark(node.this)
    return f"CASE WHEN {value} IS NOT NULL THEN isnan({value}) END"


def _in_case(node: exp.Expr) -> str:
    """Of letters that both engines know as pairs; others have no single partner."""
    text, name = spark(node.this), "lower" if isinstance(node, exp.Lower) else "upper"
    plain = f"{text} IS NULL OR {text} RLIKE '^[\\\\x00-\\\\x7F]*$'"
    problem = f"raise_error('DuckDB and Spark know other {name} letters: {quotable(text)}')"
    return f"CASE WHEN {plain} THEN {name}({text}) ELSE {problem} END"


def _whole(node: exp.Expr) -> str:
    """A floating-point number, where Spark makes one of 64 bits that not every one fits in."""
    value, name = spark(node.this), "floor" if isinstance(node, exp.Floor) else "ceil"
    number = f"CAST({value} AS DOUBLE)"
    is_whole = f"isnan({number}) OR abs({number}) >= {WHOLE_FROM}"
    return f"CASE WHEN {is_whole} THEN {number} ELSE CAST({name}({number}) AS DOUBLE) END"


def _rounded(node: exp.Expr) -> str | None:
    if node.args.get("decimals") is not None:
        raise Refused(f"{shown(node)}: Spark rounds decimals of a number otherwise")
    return None


def _function(node: exp.Anonymous, zone: str) -> str:
    name = str(node.this).lower()
    arguments = [spark(argument) for argument in node.expressions]
    match name, arguments:
        case "epoch_us", [time]:
            return microseconds(time)
        case "row", _:
            return f"struct({', '.join(f'{value} AS k{n}' for n, value in enumerate(arguments))})"
        case "timezone", [named, time]:
            return zoned(named, time, zone)
        case "isfinite", [value]:
            return f"(NOT isnan({value}) AND abs({value}) <> CAST('Infinity' AS DOUBLE))"
        case "weekday", [time]:
            return f"dayofweek({time}) - 1"
    raise Refused(f"{name}() is not known to mean the same in Spark")


def _logarithm(node: exp.Expr) -> str:
    """Of what has no logarithm there is none; DuckDB fails."""
    value = spark(node.this)
    defined = f"{value} > 0 OR {value} IS NULL"
    return f"CASE WHEN {defined} THEN ln({value}) ELSE raise_error('no logarithm') END"


def _root(node: exp.Expr) -> str:
    """Of a negative number there is none; DuckDB fails."""
    value = spark(node.this)
    return (
        f"CASE WHEN {value} >= 0 OR {value} IS NULL THEN sqrt({value}) ELSE raise_error('sqrt') END"
    )


TRANSLATED: Mapping[type[exp.Expr], Callable[[exp.Expr], str | None]] = {
    exp.Add: moved,
    exp.Sub: moved,
    exp.Interval: interval,
    exp.Div: _divided,
    exp.IntDiv: _divided_whole,
    exp.Mod: _remainder,
    exp.Cast: _cast,
    exp.TimestampTrunc: truncated,
    exp.DayOfWeek: day_of_week,
    exp.DayOfWeekIso: iso_day_of_week,
    exp.Extract: extracted,
    exp.TimeToUnix: epoch,
    exp.UnixToTime: milliseconds,
    exp.IsNan: _is_nan,
    exp.Lower: _in_case,
    exp.Upper: _in_case,
    exp.Floor: _whole,
    exp.Ceil: _whole,
    exp.Round: _rounded,
    exp.DateDiff: steps_between,
    exp.Ln: _logarithm,
    exp.Sqrt: _root,
}
"""Expressions that Spark writes otherwise."""
