"""CSV files as people have them: how they are written and what their columns are, found by looking.

The texts are read as ingesting reads them, and types are given only where it would read them too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

import duckdb

from ml_platform.spec.inputs import Csv
from ml_platform.spec.queries import exact_path, literal, quote
from ml_platform.spec.scaffold.csv_head import SEPARATORS, header_of, separator_of

NULLS = ("", "NA")
MOST_ODD_SHARE = 0.02
"""Of a column's values may be no numbers, and it still is one of numbers."""
MOST_ODD_TEXTS = 10
NUMBER = {
    ".": r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[nN]a[nN]",
    ",": r"[+-]?(\d+(,\d*)?|,\d+)([eE][+-]?\d+)?|[nN]a[nN]",
}
GROUPED = {".": r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", ",": r"[+-]?\d{1,3}(\.\d{3})+(,\d*)?"}
FRACTION = {".": r"[+-]?\d*\.\d+", ",": r"[+-]?(\d{1,3}(\.\d{3})+|\d*),\d+"}
THOUSANDS = r"[+-]?\d{1,3}([.,]\d{3})+"
WHOLE = r"[+-]?\d{1,18}"
CODE = r"[+-]?0\d+"
ISO = r"\d{4}[-/]\d\d[-/]\d\d.*"
ISO_DAY = r"\d{4}[-/]\d\d[-/]\d\d"
OFFSET = r".*\d(Z|[+-]\d\d(:?\d\d)?)"
DAYS = ("%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y")
CLOCKS = ("", " %H:%M", " %H:%M:%S")
FORMATS = tuple(day + clock for clock, day in product(CLOCKS, DAYS))
TRIED = "31.01.2024, 31/01/2024 and 01/31/2024"


@dataclass(frozen=True)
class CsvTable:
    """What was found of files that the tables `texts` and `file` now hold."""

    written: Csv
    kinds: Mapping[str, str]
    """DuckDB types by column."""
    null_values: tuple[str, ...]
    notes: Mapping[str, str]
    """What is to be said of single columns."""
    elsewhere: tuple[str, ...]
    """Columns that some files lack."""


def load_csv_files(database: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> CsvTable:
    """Load files into `texts`, as they are, and into `file`, typed.

    Only columns that all files have are loaded. ValueError says why a file is no such table.
    """
    separator, *others = dict.fromkeys(map(separator_of, files))
    if others:
        both = " and ".join(SEPARATORS[found] for found in (separator, others[0]))
        raise ValueError(f"some of the files have {both} between values; one source has one")
    headers = [header_of(file, separator) for file in files]
    names = [name for name in headers[0] if name and all(name in other for other in headers)]
    if not names:
        raise ValueError("no column is in every file")
    columns = ", ".join(f"{quote(name)} VARCHAR" for name in names)
    database.execute(f"CREATE TABLE texts ({columns})")
    for file, header in zip(files, headers, strict=True):
        _load(database, file, header, names, separator)
    decimal = _decimal(database, names)
    found = [_Column.of(database, name, decimal) for name in names]
    items = ", ".join(f"{column.typed} AS {quote(column.name)}" for column in found)
    nulls = tuple(dict.fromkeys((*NULLS, *(text for c in found for text in c.null_values))))
    database.execute(f"CREATE TABLE file AS SELECT {items} FROM texts")
    times = tuple(dict.fromkeys(column.format for column in found if column.format))
    return CsvTable(
        # An empty list would read no times; without any it does not matter.
        Csv(separator=separator, decimal=decimal, times=times or ("iso",)),
        {column.name: column.kind for column in found},
        nulls,
        {column.name: column.note for column in found if column.note},
        tuple(n for n in dict.fromkeys(chain(*headers)) if n and n not in names),
    )


@dataclass(frozen=True)
class _Column:
    name: str
    kind: str
    typed: str
    """SQL over `texts`."""
    format: str = ""
    null_values: tuple[str, ...] = ()
    note: str = ""

    @classmethod
    def of(cls, database: duckdb.DuckDBPyConnection, name: str, decimal: str) -> "_Column":
        column, number = quote(name), _matches(name, NUMBER[decimal])
        truth = f"lower({column}) IN ('true', 'false')"
        values, numbers, wholes, codes, grouped, truths = _counts(
            database, f"count({column})", _count(number), _count(_matches(name, WHOLE)),
            _count(_matches(name, CODE)), _count(_matches(name, GROUPED[decimal])), _count(truth),
        )  # fmt: skip
        if not values:
            return cls(name, "VARCHAR", column)
        if truths == values:
            return cls(name, "BOOLEAN", f"CAST({column} AS BOOLEAN)")
        if numbers and not codes and values - numbers <= MOST_ODD_SHARE * values:
            odd = database.execute(
                f"SELECT {column}, count(*) FROM texts WHERE NOT {number} GROUP BY 1 "
                f"ORDER BY 2 DESC, 1 LIMIT {MOST_ODD_TEXTS + 1}"
            ).fetchall()
            if len(odd) <= MOST_ODD_TEXTS or grouped == values - numbers:
                kind = "BIGINT" if wholes == numbers else "DOUBLE"
                return cls._of_numbers(name, kind, decimal, dict(odd), values - numbers)
        if found := cls._of_times(database, name, values):
            return found
        note = ""
        if grouped and numbers + grouped == values:
            note = "its numbers have thousands separators, which are not read; write them without"
        return cls(name, "VARCHAR", column, note=note)

    @classmethod
    def _of_numbers(
        cls, name: str, kind: str, decimal: str, odd: Mapping[str, int], rows: int
    ) -> "_Column":
        nulls = tuple(text for text in odd if not any(letter.isdigit() for letter in text))
        shown = ", ".join(f"'{text}'" for text in list(odd)[:3])
        note = ""
        if nulls and len(nulls) == len(odd):
            note = f"{shown} ({rows} times) means null"
        elif odd:
            left = rows - sum(odd[text] for text in nulls)
            note = f"rows without such a number will be quarantined: {left} ({shown})"
        column = quote(name) if decimal == "." else f"translate({quote(name)}, ',.', '.,')"
        typed = f"TRY_CAST({column} AS {kind})"
        if kind == "DOUBLE":
            typed = f"CASE WHEN NOT isnan({typed}) THEN {typed} END"
        return cls(name, kind, typed, null_values=nulls, note=note)

    @classmethod
    def _of_times(
        cls, database: duckdb.DuckDBPyConnection, name: str, values: int
    ) -> "_Column | None":
        column = quote(name)
        iso, days, offsets = _counts(
            database,
            _count(f"{_matches(name, ISO)} AND TRY_CAST({column} AS TIMESTAMPTZ) IS NOT NULL"),
            _count(_matches(name, ISO_DAY)),
            _count(_matches(name, OFFSET)),
        )
        if iso == values:
            kind = "TIMESTAMP WITH TIME ZONE" if offsets and days < values else "TIMESTAMP"
            kind = "DATE" if days == values else kind
            return cls(name, kind, f"TRY_CAST({column} AS {kind})", "iso")
        read = [f"try_strptime({column}, {literal(text)})" for text in FORMATS]
        # Of a year with two digits %Y makes one of antiquity.
        counts = _counts(database, *(_count(f"{sql} >= TIMESTAMP '1000-01-01'") for sql in read))
        fit = [n for n, count in enumerate(counts) if count == values]
        if len(fit) != 1:
            return None
        text = FORMATS[fit[0]]
        kind = "TIMESTAMP" if " " in text else "DATE"
        return cls(name, kind, f"CAST({read[fit[0]]} AS {kind})", text)


def _load(
    database: duckdb.DuckDBPyConnection,
    file: Path,
    header: Sequence[str],
    names: Sequence[str],
    separator: str,
) -> None:
    columns = ", ".join(f"'__c{n}': 'VARCHAR'" for n in range(len(header)))
    items = ", ".join(f"__c{header.index(name)}" for name in names)
    # Lines that cannot be parsed are left out here; ingesting puts them into the quarantine.
    database.execute(
        f"""INSERT INTO texts SELECT {items} FROM read_csv({literal(exact_path(str(file)))},
        columns = {{{columns}}}, auto_detect = false, header = true, delim = {literal(separator)},
        quote = '"', escape = '"', strict_mode = true, null_padding = false, ignore_errors = true,
        nullstr = [{", ".join(map(literal, NULLS))}], hive_partitioning = false)"""
    )


def _decimal(database: duckdb.DuckDBPyConnection, names: Sequence[str]) -> str:
    """A comma where some column has fractions after commas, and none after points."""
    fractions = {".": 0, ",": 0}
    for name in names:
        for decimal in fractions:
            reads = f"({_matches(name, NUMBER[decimal])} OR {_matches(name, GROUPED[decimal])})"
            # 1,234 alone may be thousands as well.
            clear = f"{_matches(name, FRACTION[decimal])} AND NOT {_matches(name, THOUSANDS)}"
            values, read, fraction = _counts(
                database, f"count({quote(name)})", _count(reads), _count(clear)
            )
            if fraction and values - read <= MOST_ODD_SHARE * values:
                fractions[decimal] += 1
    return "," if fractions[","] and not fractions["."] else "."


def _matches(name: str, pattern: str) -> str:
    return f"regexp_full_match({quote(name)}, {literal(pattern)})"


def _count(condition: str) -> str:
    return f"count(*) FILTER ({condition})"


def _counts(database: duckdb.DuckDBPyConnection, *items: str) -> tuple[int, ...]:
    row = database.execute(f"SELECT {', '.join(items)} FROM texts").fetchone()
    assert row is not None
    return row
