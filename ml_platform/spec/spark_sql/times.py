"""Times, intervals and what clocks show: where DuckDB and Spark differ most."""

from sqlglot import exp

from ml_platform.spec.spark_sql.expressions import Refused, parsed, quotable, shown, spark

EXACT_UNITS = {"HOUR": 3_600, "MINUTE": 60, "SECOND": 1}
"""Units of intervals that are lengths of time, in seconds; others are steps of the calendar."""
CALENDAR_UNITS = frozenset({"DAY", "WEEK", "MONTH", "QUARTER", "YEAR"})
TRUNCATED_TO = frozenset({"SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR"})
MICROSECONDS = 1_000_000


def microseconds(time: str) -> str:
    """Microseconds since 1970 of a time; of one without a zone those of the time that it shows."""
    return (
        f"CASE typeof({time}) "
        f"WHEN 'timestamp' THEN unix_micros(CAST({time} AS TIMESTAMP)) "
        "WHEN 'timestamp_ntz' THEN timestampdiff(MICROSECOND, TIMESTAMP_NTZ '1970-01-01', "
        f"CAST({time} AS TIMESTAMP_NTZ)) "
        f"WHEN 'date' THEN unix_date(CAST({time} AS DATE)) * 86400000000L "
        f"ELSE raise_error('not a time: {quotable(time)}') END"
    )


def exact_seconds(interval: exp.Expr) -> int | None:
    """Seconds of an interval of hours, minutes or seconds; None of a step of the calendar."""
    if not isinstance(interval, exp.Interval):
        return None
    count, unit = interval.this, _unit(interval)
    if not isinstance(count, exp.Literal) or not str(count.this).lstrip("-").isdigit():
        raise Refused(f"{shown(interval)}: Spark is given intervals of a fixed length alone")
    if unit in EXACT_UNITS:
        return int(count.this) * EXACT_UNITS[unit]
    if unit not in CALENDAR_UNITS:
        raise Refused(f"{shown(interval)} is not known to mean the same in Spark")
    return None


def _unit(interval: exp.Interval) -> str:
    return str(interval.args["unit"].name).upper().removesuffix("S")


def moved(node: exp.Expr) -> str | None:
    """A time plus or minus hours: by the clock of UTC, where Spark would count whole days of 24."""
    assert isinstance(node, exp.Add | exp.Sub)
    seconds = exact_seconds(node.expression)
    if seconds is None:
        if isinstance(node.this, exp.Interval):
            raise Refused(f"{shown(node)}: write the time first, then the interval")
        return None
    sign = "-" if isinstance(node, exp.Sub) else ""
    return f"timestampadd(SECOND, {sign}{seconds}, {spark(node.this)})"


def interval(node: exp.Expr) -> None:
    """An interval stays as it is; Refused for one whose length is not written down."""
    exact_seconds(node)


def truncated(node: exp.Expr) -> str:
    """An instant cut off; in an hour that comes twice DuckDB takes the later one, from hours on."""
    unit = node.args["unit"].name.upper()
    if unit not in TRUNCATED_TO:
        raise Refused(f"{shown(node)} is not known to mean the same in Spark")
    time = spark(node.this)
    # Spark's function yields an instant whatever it is given.
    truncated = f"date_trunc('{unit}', CAST({time} AS TIMESTAMP))"
    if unit not in {"SECOND", "MINUTE"}:
        truncated = _instant(f"CAST({truncated} AS TIMESTAMP_NTZ)")
    return (
        f"CASE WHEN typeof({time}) = 'timestamp' THEN {truncated} "
        f"ELSE raise_error('date_trunc of what has no zone: {quotable(time)}') END"
    )


def day_of_week(node: exp.Expr) -> str:
    """Sunday is 0, and 1 in Spark."""
    return f"dayofweek({spark(node.this)}) - 1"


def iso_day_of_week(node: exp.Expr) -> str:
    """Monday is 1, and 0 in Spark."""
    return f"weekday({spark(node.this)}) + 1"


def extracted(node: exp.Expr) -> str:
    """A part of a time, `extract(hour FROM t)`."""
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
        raise Refused(f"{shown(node)} is not known to mean the same in Spark")
    return f"{part.lower()}({time})"


def epoch(node: exp.Expr) -> str:
    """Seconds since 1970, with their fraction."""
    return f"({microseconds(spark(node.this))}) / {MICROSECONDS}.0D"


def milliseconds(node: exp.Expr) -> str:
    """Of a time, `epoch_ms(t)`; not a time of milliseconds."""
    if str(node.args.get("scale")) != "3":
        raise Refused(f"{shown(node)} is not known to mean the same in Spark")
    return f"({microseconds(spark(node.this))}) DIV 1000"


def steps_between(node: exp.Expr) -> str:
    """How often the clock came to a new minute, not how many minutes have passed."""
    unit = node.args["unit"].name.upper()
    until, since = spark(node.this), spark(node.expression)
    if unit == "DAY":
        return f"datediff(CAST({until} AS DATE), CAST({since} AS DATE))"
    if unit not in {"MINUTE", "SECOND"}:
        raise Refused(f"{shown(node)} is not known to mean the same in Spark")
    length = EXACT_UNITS[unit] * MICROSECONDS
    ends = (f"({microseconds(time)})" for time in (until, since))
    until, since = (f"(({end} - pmod({end}, {length})) DIV {length})" for end in ends)
    return f"{until} - {since}"


def zoned(named: str, time: str, zone: str) -> str:
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
