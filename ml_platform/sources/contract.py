"""What a source declares, as SQL over raw rows: types, required values, rules."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby

import duckdb

from ml_platform.sources.reading import Batch
from ml_platform.sources.repeated_hours import ambiguous_sql
from ml_platform.spec.csv_numbers import plain_number_sql
from ml_platform.spec.inputs import Source
from ml_platform.spec.queries import TIME_TYPES, is_time, literal, quote
from ml_platform.storage.tables import canonical_types
from ml_platform.storage.threads import WIDE

LAST_MOMENT = "TIMESTAMPTZ '9999-01-01 00:00:00+00'"
"""From here on Python has no calendar any more."""
LONGEST_SHOWN = 80
INFINITE = "' is infinite"
WHOLE_NUMBERS = frozenset(
    {
        "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT",
        "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
    }
)  # fmt: skip
FLOATS = frozenset({"FLOAT", "DOUBLE"})


class Contract:
    """The contract of one source, for rows of any format.

    A row breaks it where a value is not of its type, where one that has to be there is missing,
    where a time without an offset comes twice in the session's zone since clocks are set back,
    where a rule is false or fails (one that is null holds, as a SQL CHECK does), and where its
    event time is none or is before the use case begins.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection, source: Source, begins: datetime) -> None:
        self._source = source
        self._begins = instant(begins)
        self._first = begins
        row = cursor.execute("SELECT current_setting('TimeZone')").fetchone()
        self._zone = str(row[0]) if row else "UTC"
        self._types = type_names(cursor, source.columns)
        self._needed = frozenset({*source.key, source.event_time, *source.required})

    @property
    def columns(self) -> dict[str, str]:
        """Names and types of the rows that `judged` yields, besides its own `__` columns."""
        return {**self._source.columns, "known_at": "TIMESTAMPTZ"}

    def judged(self, batch: Batch, *also: str) -> str:
        """SQL of a batch's rows, typed, with the reasons against each.

        Besides `columns`: `__file`, `__row`, `__event` (an instant; null where it cannot be read),
        `__reason` and `__record` (null where nothing is wrong). also: more columns of the batch.
        """
        values = {column: batch.values[column] for column in self._source.columns}
        # What is a column already needs no other name.
        raw = {c: v if _is_column(v) else f"__raw{n}" for n, (c, v) in enumerate(values.items())}
        raws = "".join(f", {v} AS {raw[c]}" for c, v in values.items() if not _is_column(v))
        typed = ", ".join(f"{self._cast(c, raw[c])} AS {quote(c)}" for c in raw)
        event = quote(self._source.event_time)
        known_at = "" if "known_at" in self._source.columns else ", __known AS known_at"
        names = ", ".join(quote(column) for column in self._source.columns)
        runs = [run for run in self._runs(raw) if len(run) > 1]
        failed = "".join(f", {_texts(run, raw)} AS __failed_{raw[run[0]]}" for run in runs)
        wrong = "".join(f", {self._wrong(run, raw)} AS __wrong_{raw[run[0]]}" for run in runs)
        return f"""
            SELECT __file, __row, {names}{known_at}, __event, nullif(__reasons, '') AS __reason,
                CASE WHEN __reasons <> '' THEN {batch.record} END AS __record
                {"".join(f", {name}" for name in also)}
            FROM (SELECT *, {self._reason(raw, batch.problem)} AS __reasons
            FROM (SELECT *,
                CASE WHEN __instant < {LAST_MOMENT} THEN __instant END AS __event,
                TRY(CAST({self._source.known_at_sql} AS TIMESTAMPTZ)) AS __known{wrong}
            FROM (SELECT *, TRY_CAST({event} AS TIMESTAMPTZ) AS __instant{failed}
            FROM (SELECT *, {typed}
            FROM (SELECT *{raws} FROM {batch.relation})))))"""

    def _cast(self, column: str, raw: str) -> str:
        kind, csv = self._types[column], self._source.csv
        if csv and is_time(kind):
            formats = [
                raw if text == "iso" else f"try_strptime({raw}, {literal(text)})"
                for text in csv.times
            ]
            return f"coalesce({', '.join(typed_sql(value, kind) for value in formats)})"
        return typed_sql(self._plain(column, raw), kind)

    def _plain(self, column: str, raw: str) -> str:
        """A number as DuckDB reads it; what is not a number stays none."""
        csv = self._source.csv
        if csv and is_number(self._types[column]):
            return plain_number_sql(raw, csv.decimal, csv.thousands)
        return raw

    def _expected(self, column: str) -> str:
        kind, csv = self._source.columns[column], self._source.csv
        if csv and csv.decimal == "," and is_number(self._types[column]):
            between = f"'{csv.thousands}' between thousands" if csv.thousands else ""
            return f"{kind} with a decimal comma and {between or 'no thousands separator'}"
        if csv and csv.times != ("iso",) and is_time(self._types[column]):
            return f"{kind} written as {' or '.join(csv.times)}"
        return kind

    def _reason(self, raw: Mapping[str, str], problem: str) -> str:
        """SQL of all that is wrong with a row; empty where nothing is."""
        source = self._source
        event = source.event_time
        columns = [
            self._against(run[0], raw[run[0]]) if len(run) == 1 else self._against_all(run, raw)
            for run in self._runs(raw)
        ]
        early = literal(f"{event} is before the first window: ")
        checks = [
            *columns,
            f"CASE WHEN __instant IS NOT NULL AND __event IS NULL "
            f"THEN {literal(f'{event} is too far ahead for any calendar')} END",
            f"CASE WHEN __event < {self._begins} THEN {early} || CAST(__event AS VARCHAR) END",
            *(
                f"CASE WHEN {broken_sql(rule)} THEN {literal(f'breaks the rule: {rule}')} END"
                for rule in source.rules
            ),
            f"CASE WHEN __event IS NOT NULL AND __known IS NULL "
            f"THEN {literal(f'known_at is missing: {source.known_at_sql}')} END",
        ]
        broken = f"concat_ws('; ', {', '.join(checks)})"
        return f"CASE WHEN {problem} IS NOT NULL THEN {problem} ELSE {broken} END"

    def _runs(self, raw: Mapping[str, str]) -> list[tuple[str, ...]]:
        """The columns in order, many that may be missing together and each other one alone."""

        def is_simple(column: str) -> bool:
            return column not in self._needed and not self._twice(column, raw[column])

        runs: list[tuple[str, ...]] = []
        for simple, found in groupby(self._source.columns, is_simple):
            columns = tuple(found)
            are_many = simple and len(columns) > WIDE
            runs += [columns] if are_many else [(column,) for column in columns]
        return runs

    def _wrong(self, run: Sequence[str], raw: Mapping[str, str]) -> str:
        """Of a run's values that are not of their types, the texts of those that are not NaN."""
        failed = f"__failed_{raw[run[0]]}"
        number = self._number_in(run)
        return (
            f"CASE WHEN list_count({failed}) > 0 THEN list_transform({failed}, lambda __t, __n: "
            f"CASE WHEN __t IS NULL OR isnan({number}) THEN NULL ELSE __t END) END"
        )

    def _against_all(self, run: Sequence[str], raw: Mapping[str, str]) -> str:
        """What is wrong with the values of a run; null where nothing is.

        An expression for each column would take longer to plan than thousands of values to read.
        """
        wrong, number = f"__wrong_{raw[run[0]]}", self._number_in(run)
        begins = _list(literal(f"{column}: '") for column in run)
        ends = _list(literal(f"' is not {self._expected(column)}") for column in run)
        said = (
            f"{begins}[__n] || left(__t, {LONGEST_SHOWN}) || CASE WHEN abs({number}) = 'inf' "
            f"THEN {literal(INFINITE)} ELSE {ends}[__n] END"
        )
        return (
            f"CASE WHEN list_count({wrong}) > 0 THEN array_to_string(list_transform({wrong}, "
            f"lambda __t, __n: CASE WHEN __t IS NOT NULL THEN {said} END), '; ') END"
        )

    def _number_in(self, run: Sequence[str]) -> str:
        """The number that the text `__t` of the column `__n` of a run is; null where it is none."""
        are_numbers = [is_number(self._types[column]) for column in run]
        if not any(are_numbers):
            return "NULL::DOUBLE"
        # Numbers of one source are all written alike.
        number = f"TRY_CAST({self._plain(run[are_numbers.index(True)], '__t')} AS DOUBLE)"
        return f"CASE WHEN {_list(map(str, are_numbers))}[__n] THEN {number} END"

    def _against(self, column: str, raw: str) -> str:
        """What is wrong with the value of one column; null where nothing is."""
        begin, missing = literal(f"{column}: '"), literal(f"{column} is missing")
        said = f"{begin} || left(CAST({raw} AS VARCHAR), {LONGEST_SHOWN})"
        failed = f"{said} || {self._failure(column, raw)}"
        cases = []
        if column in self._needed:
            failed = f"coalesce({failed}, {missing})"
            cases.append(f"WHEN {quote(column)} IS NULL THEN {missing}")
        if twice := self._twice(column, raw):
            end = literal(f"' comes twice in {self._zone}: write an offset after the seconds")
            cases.append(f"WHEN {twice} THEN {said} || {end}")
        # Most values are of their type, and nothing more is asked of them.
        first = f"WHEN {raw} IS NOT NULL AND {quote(column)} IS NULL THEN {failed}"
        return f"CASE {' '.join([first, *cases])} END"

    def _twice(self, column: str, raw: str) -> str | None:
        """Whether a time comes twice as clocks are set back; None where none can."""
        if self._types[column] not in TIME_TYPES:
            return None
        return ambiguous_sql(quote(column), raw, self._zone, self._first)

    def _failure(self, column: str, raw: str) -> str:
        """The end of what is said of a value that is not of its type; null where it is NaN."""
        end = literal(f"' is not {self._expected(column)}")
        if not is_number(self._types[column]):
            return end
        number = f"TRY_CAST({self._plain(column, raw)} AS DOUBLE)"
        infinite = literal(INFINITE)
        return (
            f"CASE WHEN {number} = 'inf' THEN {infinite} WHEN {number} = '-inf' THEN {infinite} "
            f"WHEN isnan({number}) THEN NULL ELSE {end} END"
        )


def times_alone(source: Source) -> Source:
    """A source that declares the event time of its rows, and nothing more of them."""
    time = source.event_time
    only = {"columns": {time: source.columns[time]}, "key": (), "required": (), "rules": ()}
    return source.model_copy(update={**only, "known_at": None})


def _is_column(value: str) -> bool:
    """Whether SQL of a raw value is the name of a column of its batch."""
    return value.startswith("__c") and value.isidentifier()


def _texts(run: Sequence[str], raw: Mapping[str, str]) -> str:
    """Values of a run that are not of their types, as a list of texts."""
    return _list(
        f"CASE WHEN {raw[column]} IS NOT NULL AND {quote(column)} IS NULL "
        f"THEN CAST({raw[column]} AS VARCHAR) END"
        for column in run
    )


def _list(items: Iterable[str]) -> str:
    return f"[{', '.join(items)}]"


def typed_sql(raw: str, kind: str) -> str:
    """A landed value as one of its declared type; null where it is not.

    NaN, however it is written, is how formats say that there is no number; an infinite number is
    none either, and is not of its type.
    kind: what DuckDB calls the type.
    """
    value = f"TRY_CAST({raw} AS {kind})"
    if kind not in WHOLE_NUMBERS | FLOATS:
        return value
    # DuckDB would round 1.5 to 2.
    is_one = f"isfinite({value})" if kind in FLOATS else f"TRY_CAST({raw} AS DOUBLE) % 1 = 0"
    # DuckDB's hash of an expression is the XOR of its parts: a column that appears twice cancels
    # out, and the planner compares such expressions of all columns with each other. Hence a third
    # time, which changes nothing.
    return f"CASE WHEN {is_one} THEN {value} WHEN {raw} IS NULL THEN NULL END"


def failed_sql(raw: str, typed: str, kind: str) -> str:
    """Whether a landed value is not of its type; typed: what `typed_sql` made of it."""
    failed = f"{raw} IS NOT NULL AND {typed} IS NULL"
    if is_number(kind):
        failed += f" AND coalesce(NOT isnan(TRY_CAST({raw} AS DOUBLE)), true)"
    return failed


def is_number(kind: str) -> bool:
    """Whether a type is one of numbers, and may be written with a decimal comma."""
    return kind in WHOLE_NUMBERS | FLOATS or kind.startswith("DECIMAL")


def broken_sql(rule: str) -> str:
    """Whether a row breaks a rule: where that is false or fails, and not where it is null."""
    return f"TRY(coalesce(({rule}), true)) IS NOT TRUE"


def instant(moment: datetime) -> str:
    """A moment as a SQL literal."""
    return f"TIMESTAMPTZ {literal(moment.isoformat())}"


def type_names(cursor: duckdb.DuckDBPyConnection, columns: Mapping[str, str]) -> dict[str, str]:
    """What DuckDB calls the types that a source declares, INTEGER for INT."""
    return dict(zip(columns, canonical_types(cursor, columns.values()), strict=True))
