"""Expressions of DuckDB as expressions of Spark with the same values.

Spark runs with `spark.sql.ansi.enabled`, so that what overflows fails there as it does in DuckDB,
and in the use case's time zone. Whatever is not known to mean the same is refused.
"""

from collections.abc import Callable, Mapping

from sqlglot import exp

EXACT_UNITS = {"HOUR": 3_600, "MINUTE": 60, "SECOND": 1}
"""Units of intervals that are lengths of time, in seconds; others are steps of the calendar."""
CALENDAR_UNITS = frozenset({"DAY", "WEEK", "MONTH", "QUARTER", "YEAR"})
TRUNCATED_TO = frozenset({"SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR"})
MICROSECONDS = 1_000_000
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


class Refused(Exception):
    """An expression that is not known to mean the same in Spark."""


def spark_expression(node: exp.Expr, zone: str) -> exp.Expr | None:
    """What stands for an expression whose parts are Spark's already; None where it stays.

    zone: the use case's time zone. Raises Refused.
    """
    translation = TRANSLATED.get(type(node))
    if translation is not None:
        text = translation(node)
        return None if text is None else parsed(text)
    if isinstance(node, exp.AtTimeZone):
        return parsed(_zoned(spark(node.args["zone"]), spark(node.this), zone))
    if isinstance(node, exp.Anonymous):
        return parsed(_function(node, zone))
    if type(node) not in SAME and not isinstance(node, exp.DataType | exp.DataTypeParam):
        raise Refused(f"{_shown(node)} is not known to mean the same in Spark")
    return None


def parsed(text: str) -> exp.Expr:
    """An expression of Spark."""
    return exp.maybe_parse(text, dialect="spark")


def spark(node: exp.Expr | None) -> str:
    """The text of an expression whose parts are Spark's already."""
    return "" if node is None else node.sql("spark")


def microseconds(time: str) -> str:
    """Microseconds since 1970 of a time; of one without a zone those of the time that it shows."""
    return (
        f"CASE typeof({time}) "
        f"WHEN 'timestamp' THEN unix_micros(CAST({time} AS TIMESTAMP)) "
        "WHEN 'timestamp_ntz' THEN timestampdiff(MICROSECOND, TIMESTAMP_NTZ '1970-01-01', "
        f"CAST({time} AS TIMESTAMP_NTZ)) "
        f"WHEN 'date' THEN unix_date(CAST({time} AS DATE)) * 86400000000L "
        f"ELSE raise_error('not a time: {_quotable(time)}') END"
    )


def exact_seconds(interval: exp.Expr) -> int | None:
    """Seconds of an interval of hours, minutes or seconds; None of a step of the calendar."""
    if not isinstance(interval, exp.Interval):
        return None
    count, unit = interval.this, _unit(interval)
    if not isinstance(count, exp.Literal) or not str(count.this).lstrip("-").isdigit():
        raise Refused(f"{_shown(interval)}: Spark is given intervals of a fixed length alone")
    if unit in EXACT_UNITS:
        return int(count.this) * EXACT_UNITS[unit]
    if unit not in CALENDAR_UNITS:
        raise Refused(f"{_shown(interval)} is not known to mean the same in Spark")
    return None


def _unit(interval: exp.Interval) -> str:
    return str(interval.args["unit"].name).upper().removesuffix("S")


def _moved(node: exp.Expr) -> str | None:
    """A time plus or minus hours: by the clock of UTC, where Spark would count whole days of 24."""
    assert isinstance(node, exp.Add | exp.Sub)
    seconds = exact_seconds(node.expression)
    if seconds is None:
        if isinstance(node.this, exp.Interval):
            raise Refused(f"{_shown(node)}: write the time first, then the interval")
        return None
    sign = "-" if isinstance(node, exp.Sub) else ""
    return f"timestampadd(SECOND, {sign}{seconds}, {spark(node.this)})"


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
        f"THEN raise_error('// of what is no whole number: {_quotable(over)}') "
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
            f"ELSE raise_error('DuckDB and Spark write {_quotable(value)} as different texts') END"
        )
    if kind not in CAST_TO:
        raise Refused(f"{_shown(node)} is not known to mean the same in Spark")
    return f"CAST({value} AS {CAST_TO[kind]})"


def _is_nan(node: exp.Expr) -> str:
    value = spark(node.this)
    return f"CASE WHEN {value} IS NOT NULL THEN isnan({value}) END"


def _in_case(node: exp.Expr) -> str:
    """Of letters that both engines know as pairs; others have no single partner."""
    text, name = spark(node.this), "lower" if isinstance(node, exp.Lower) else "upper"
    plain = f"{text} IS NULL OR {text} RLIKE '^[\\\\x00-\\\\x7F]*$'"
    problem = f"raise_error('DuckDB and Spark know other {name} letters: {_quotable(text)}')"
    return f"CASE WHEN {plain} THEN {name}({text}) ELSE {problem} END"


def _truncated(node: exp.Expr) -> str:
    unit = node.args["unit"].name.upper()
    if unit not in TRUNCATED_TO:
        raise Refused(f"{_shown(node)} is not known to mean the same in Spark")
    time = spark(node.this)
    # Spark's function yields an instant whatever it is given.
    truncated = f"date_trunc('{unit}', CAST({time} AS TIMESTAMP))"
    if unit not in {"SECOND", "MINUTE"}:
        truncated = _instant(f"CAST({truncated} AS TIMESTAMP_NTZ)")
    return (
        f"CASE WHEN typeof({time}) = 'timestamp' THEN {truncated} "
        f"ELSE raise_error('date_trunc of what has no zone: {_quotable(time)}') END"
    )


def _day_of_week(node: exp.Expr) -> str:
    """Sunday is 0, and 1 in Spark."""
    return f"dayofweek({spark(node.this)}) - 1"


def _iso_day_of_week(node: exp.Expr) -> str:
    return f"weekday({spark(node.this)}) + 1"


def _extracted(node: exp.Expr) -> str:
    part, time = node.this.name.upper(), spark(node.expression)
    parts = {"YEAR", "QUARTER", "MONTH", "DAY", "HOUR", "MINUTE"}
    if part in {"DOW", "DAYOFWEEK", "WEEKDAY"}:
        return f"dayofweek({time}) - 1"
    if part in {"DOY", "DAYOFYEAR"}:
        return f"dayofyear({time})"
    if part == "ISODOW":
        return f"weekday({time}) + 1"
    if part == "EPOCH":
        return f"({microseconds(time)}) / {MICROSECONDS}.0D"
    if part not in parts:
        raise Refused(f"{_shown(node)} is not known to mean the same in Spark")
    return f"{part.lower()}({time})"


def _epoch(node: exp.Expr) -> str:
    return f"({microseconds(spark(node.this))}) / {MICROSECONDS}.0D"


def _milliseconds(node: exp.Expr) -> str:
    if str(node.args.get("scale")) != "3":
        raise Refused(f"{_shown(node)} is not known to mean the same in Spark")
    return f"({microseconds(spark(node.this))}) DIV 1000"


def _whole(node: exp.Expr) -> str:
    """A floating-point number, where Spark makes one of 64 bits that not every one fits in."""
    value, name = spark(node.this), "floor" if isinstance(node, exp.Floor) else "ceil"
    number = f"CAST({value} AS DOUBLE)"
    is_whole = f"isnan({number}) OR abs({number}) >= {WHOLE_FROM}"
    return f"CASE WHEN {is_whole} THEN {number} ELSE CAST({name}({number}) AS DOUBLE) END"


def _rounded(node: exp.Expr) -> str | None:
    if node.args.get("decimals") is not None:
        raise Refused(f"{_shown(node)}: Spark rounds decimals of a number otherwise")
    return None


def _steps_between(node: exp.Expr) -> str:
    """How often the clock came to a new minute, not how many minutes have passed."""
    unit = node.args["unit"].name.upper()
    until, since = spark(node.this), spark(node.expression)
    if unit == "DAY":
        return f"datediff(CAST({until} AS DATE), CAST({since} AS DATE))"
    if unit not in {"MINUTE", "SECOND"}:
        raise Refused(f"{_shown(node)} is not known to mean the same in Spark")
    length = EXACT_UNITS[unit] * MICROSECONDS
    ends = (f"({microseconds(time)})" for time in (until, since))
    until, since = (f"(({end} - pmod({end}, {length})) DIV {length})" for end in ends)
    return f"{until} - {since}"


def _zoned(named: str, time: str, zone: str) -> str:
    """What a clock of the use case's zone shows at an instant, or the instant at which it does."""
    if named.strip("'") != zone:
        raise Refused(f"Spark is given the zone of the use case alone, {zone}, not {named}")
    wall = f"CAST({time} AS TIMESTAMP_NTZ)"
    return _instant(wall) if _is_wall(time) else wall


def _instant(wall: str) -> str:
    """The instant at which clocks show a time; of two the later one, as for DuckDB.

    Spark takes the earlier one. They differ in the offset, which a day later is that of the later.
    """
    first = f"CAST({wall} AS TIMESTAMP)"
    later = f"timestampadd(SECOND, -86400, CAST(timestampadd(SECOND, 86400, {wall}) AS TIMESTAMP))"
    return (
        f"CASE WHEN CAST({later} AS TIMESTAMP_NTZ) = {wall} THEN greatest({first}, {later}) "
        f"ELSE {first} END"
    )


def _is_wall(time: str) -> bool:
    """Whether an expression, as it is written here, is a time without a zone."""
    node = parsed(time).unnest()
    while isinstance(node, exp.Add | exp.Sub):
        node = node.this.unnest()
    if isinstance(node, exp.TimestampAdd):
        node = node.this.unnest()
    return isinstance(node, exp.Cast) and spark(node.args["to"]) == "TIMESTAMP_NTZ"


def _function(node: exp.Anonymous, zone: str) -> str:
    name = str(node.this).lower()
    arguments = [spark(argument) for argument in node.expressions]
    match name, arguments:
        case "epoch_us", [time]:
            return microseconds(time)
        case "row", _:
            return f"struct({', '.join(f'{value} AS k{n}' for n, value in enumerate(arguments))})"
        case "timezone", [named, time]:
            return _zoned(named, time, zone)
        case "isfinite", [value]:
            return f"(NOT isnan({value}) AND abs({value}) <> CAST('Infinity' AS DOUBLE))"
        case "weekday", [time]:
            return f"dayofweek({time}) - 1"
    raise Refused(f"{name}() is not known to mean the same in Spark")


def _shown(node: exp.Expr) -> str:
    return node.sql("duckdb")[:80]


def _quotable(text: str) -> str:
    return text.replace("\\", "").replace("'", "")[:80]


def _interval(node: exp.Expr) -> None:
    exact_seconds(node)


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
    exp.Add: _moved,
    exp.Sub: _moved,
    exp.Interval: _interval,
    exp.Div: _divided,
    exp.IntDiv: _divided_whole,
    exp.Mod: _remainder,
    exp.Cast: _cast,
    exp.TimestampTrunc: _truncated,
    exp.DayOfWeek: _day_of_week,
    exp.DayOfWeekIso: _iso_day_of_week,
    exp.Extract: _extracted,
    exp.TimeToUnix: _epoch,
    exp.UnixToTime: _milliseconds,
    exp.IsNan: _is_nan,
    exp.Lower: _in_case,
    exp.Upper: _in_case,
    exp.Floor: _whole,
    exp.Ceil: _whole,
    exp.Round: _rounded,
    exp.DateDiff: _steps_between,
    exp.Ln: _logarithm,
    exp.Sqrt: _root,
}
"""Expressions that Spark writes otherwise."""
