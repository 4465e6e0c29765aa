"""What the texts of one column of a CSV file are: numbers, times, truths, codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import duckdb

from ml_platform.spec.csv_numbers import grouped_pattern, plain_number_sql
from ml_platform.spec.queries import literal, quote

MOST_ODD_SHARE = 0.02
"""Of a column's values may be no numbers, and it still is one of numbers."""
MOST_ODD_TEXTS = 10
NUMBER = {
    ".": r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[nN]a[nN]",
    ",": r"[+-]?(\d+(,\d*)?|,\d+)([eE][+-]?\d+)?|[nN]a[nN]",
}
WHOLE = r"[+-]?\d{1,18}"
LEADING_ZERO = r"[+-]?0\d+"
EXPONENT_ALONE = r"\d+[eE]\d+"
"""`1E5`: programs write a fraction or a sign into numbers with an exponent, people write codes."""
ISO = r"\d{4}[-/]\d\d[-/]\d\d.*"
ISO_DAY = r"\d{4}[-/]\d\d[-/]\d\d"
OFFSET = r".*\d(Z|[+-]\d\d(:?\d\d)?)"
DAYS = ("%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y")
CLOCKS = ("", " %H:%M", " %H:%M:%S")
FORMATS = tuple(day + clock for clock, day in product(CLOCKS, DAYS))


@dataclass(frozen=True)
class Notation:
    """How the numbers of a file are written."""

    decimal: str
    thousands: str


@dataclass(frozen=True)
class CsvColumn:
    """One column of the table `texts`."""

    name: str
    kind: str
    """DuckDB type."""
    typed: str
    """SQL over `texts`."""
    format: str = ""
    """Of times."""
    null_values: tuple[str, ...] = ()
    note: str = ""


def column_of(database: duckdb.DuckDBPyConnection, name: str, notation: Notation) -> CsvColumn:
    """Look at a column of `texts`; a type is given only where ingesting would read it too."""
    column, number = quote(name), matches(name, NUMBER[notation.decimal])
    grouped = _grouped(name, notation)
    values, numbers, wholes, zeros, exponents, in_groups, truths = counts(
        database, f"count({column})", count(f"{number} OR {grouped}"),
        count(f"{matches(name, WHOLE)} OR {grouped} AND NOT {_has_fraction(name, notation)}"),
        count(matches(name, LEADING_ZERO)), count(matches(name, EXPONENT_ALONE)), count(grouped),
        count(f"lower({column}) IN ('true', 'false')"),
    )  # fmt: skip
    if not values:
        return CsvColumn(name, "VARCHAR", column)
    if truths == values:
        return CsvColumn(name, "BOOLEAN", f"CAST({column} AS BOOLEAN)")
    if exponents and values - numbers <= MOST_ODD_SHARE * values:
        return CsvColumn(name, "VARCHAR", column, note="codes such as 1E5, not numbers")
    if numbers and not zeros and values - numbers <= MOST_ODD_SHARE * values:
        odd = dict(_odd_texts(database, name, f"{number} OR {grouped}"))
        if len(odd) <= MOST_ODD_TEXTS:
            kind = "BIGINT" if wholes == numbers else "DOUBLE"
            found = _of_numbers(name, kind, notation, odd, values - numbers)
            return found if not in_groups else _with_note(found, "thousands are set apart")
    return _of_times(database, name, values) or CsvColumn(name, "VARCHAR", column)


def matches(name: str, pattern: str) -> str:
    """SQL that holds where a text matches as a whole."""
    return f"regexp_full_match({quote(name)}, {literal(pattern)})"


def count(condition: str) -> str:
    """A select item that counts rows."""
    return f"count(*) FILTER ({condition})"


def counts(database: duckdb.DuckDBPyConnection, *items: str) -> tuple[int, ...]:
    """The one row of select items over `texts`."""
    row = database.execute(f"SELECT {', '.join(items)} FROM texts").fetchone()
    assert row is not None
    return row


def _grouped(name: str, notation: Notation) -> str:
    if not notation.thousands:
        return "false"
    return matches(name, grouped_pattern(notation.decimal, notation.thousands))


def _has_fraction(name: str, notation: Notation) -> str:
    return f"contains({quote(name)}, {literal(notation.decimal)})"


def _odd_texts(
    database: duckdb.DuckDBPyConnection, name: str, number: str
) -> list[tuple[str, int]]:
    return database.execute(
        f"SELECT {quote(name)}, count(*) FROM texts WHERE NOT ({number}) GROUP BY 1 "
        f"ORDER BY 2 DESC, 1 LIMIT {MOST_ODD_TEXTS + 1}"
    ).fetchall()


def _of_numbers(
    name: str, kind: str, notation: Notation, odd: Mapping[str, int], rows: int
) -> CsvColumn:
    nulls = tuple(text for text in odd if not any(letter.isdigit() for letter in text))
    shown = ", ".join(f"'{text}'" for text in list(odd)[:3])
    note = ""
    if nulls and len(nulls) == len(odd):
        note = f"{shown} ({rows} times) means null"
    elif odd:
        left = rows - sum(odd[text] for text in nulls)
        note = f"rows without such a number will be quarantined: {left} ({shown})"
    plain = plain_number_sql(quote(name), notation.decimal, notation.thousands)
    typed = f"TRY_CAST({plain} AS {kind})"
    if kind == "DOUBLE":
        typed = f"CASE WHEN isfinite({typed}) THEN {typed} END"
    return CsvColumn(name, kind, typed, null_values=nulls, note=note)


def _with_note(column: CsvColumn, note: str) -> CsvColumn:
    notes = "; ".join(filter(None, (note, column.note)))
    return CsvColumn(
        column.name, column.kind, column.typed, column.format, column.null_values, notes
    )


def _of_times(database: duckdb.DuckDBPyConnection, name: str, values: int) -> CsvColumn | None:
    column = quote(name)
    iso, days, offsets = counts(
        database,
        count(f"{matches(name, ISO)} AND TRY_CAST({column} AS TIMESTAMPTZ) IS NOT NULL"),
        count(matches(name, ISO_DAY)),
        count(matches(name, OFFSET)),
    )
    if iso == values:
        kind = "TIMESTAMP WITH TIME ZONE" if offsets and days < values else "TIMESTAMP"
        kind = "DATE" if days == values else kind
        return CsvColumn(name, kind, f"TRY_CAST({column} AS {kind})", "iso")
    # Without a digit between two separators it is not a date: eight formats need not be tried.
    if not counts(database, count(matches(name, r"\d{1,2}[./]\d{1,2}[./]\d{2,4}.*")))[0]:
        return None
    read = [f"try_strptime({column}, {literal(text)})" for text in FORMATS]
    # Of a year with two digits %Y makes one of antiquity.
    found = counts(database, *(count(f"{sql} >= TIMESTAMP '1000-01-01'") for sql in read))
    fit = [n for n, each in enumerate(found) if each == values]
    if len(fit) != 1:
        return None
    text = FORMATS[fit[0]]
    kind = "TIMESTAMP" if " " in text else "DATE"
    return CsvColumn(name, kind, f"CAST({read[fit[0]]} AS {kind})", text)
