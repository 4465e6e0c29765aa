"""CSV files as people have them: how they are written and what their columns are, found by looking.

The texts are read as ingesting reads them, and types are given only where it would read them too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import duckdb

from ml_platform.spec.csv_numbers import THOUSANDS, grouped_pattern
from ml_platform.spec.inputs import Csv
from ml_platform.spec.queries import exact_path, literal, quote
from ml_platform.spec.scaffold.csv_columns import (
    MOST_ODD_SHARE,
    NUMBER,
    CsvColumn,
    Notation,
    column_of,
    count,
    counts,
    matches,
)
from ml_platform.spec.scaffold.csv_head import SEPARATORS, header_of, separator_of
from ml_platform.spec.scaffold.sample import sampled_sql
from ml_platform.spec.scaffold.sentinels import find_sentinels

NULLS = ("", "NA")
GROUPED = {".": r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", ",": r"[+-]?\d{1,3}(\.\d{3})+(,\d*)?"}
FRACTION = {".": r"[+-]?\d*\.\d+", ",": r"[+-]?(\d{1,3}(\.\d{3})+|\d*),\d+"}
EITHER = r"[+-]?\d{1,3}([.,]\d{3})+"
TRIED = "31.01.2024, 31/01/2024 and 01/31/2024"


@dataclass(frozen=True)
class CsvTable:
    """What was found of files that the tables `texts` and `file` now hold."""

    written: Csv
    columns: Mapping[str, CsvColumn]
    null_values: tuple[str, ...]
    elsewhere: tuple[str, ...]
    """Columns that some files lack."""
    reader: str
    """SQL that reads all rows of all files, as texts."""

    @property
    def kinds(self) -> dict[str, str]:
        """DuckDB types by column."""
        return {name: column.kind for name, column in self.columns.items()}


def load_csv_files(
    database: duckdb.DuckDBPyConnection, files: Sequence[Path], every: int
) -> CsvTable:
    """Load files into `texts`, as they are, and into `file`, typed.

    Only columns that all files have are loaded. every: of so many rows one, spread evenly, is
    loaded. ValueError says why a file is no such table.
    """
    separator, *others = dict.fromkeys(map(separator_of, files))
    if others:
        both = " and ".join(SEPARATORS[found] for found in (separator, others[0]))
        raise ValueError(f"some of the files have {both} between values; one source has one")
    headers = [header_of(file, separator) for file in files]
    names = [name for name in headers[0] if name and all(name in other for other in headers)]
    if not names:
        raise ValueError("no column is in every file")
    reader = " UNION ALL ".join(
        _reader(file, header, names, separator) for file, header in zip(files, headers, strict=True)
    )
    database.execute(f"CREATE TABLE texts AS {sampled_sql(reader, every)}")
    notation = _notation(database, names)
    found = {name: column_of(database, name, notation) for name in names}
    found |= _without_sentinels(database, found)
    items = ", ".join(f"{column.typed} AS {quote(name)}" for name, column in found.items())
    nulls = tuple(dict.fromkeys((*NULLS, *(t for c in found.values() for t in c.null_values))))
    database.execute(f"CREATE TABLE file AS SELECT {items} FROM texts")
    times = tuple(dict.fromkeys(column.format for column in found.values() if column.format))
    grouped = any("thousands" in column.note for column in found.values())
    return CsvTable(
        # An empty list would read no times; without any it does not matter.
        Csv(
            separator=separator,
            decimal=notation.decimal,
            thousands=notation.thousands if grouped else "",
            times=times or ("iso",),
        ),
        found,
        nulls,
        tuple(n for n in dict.fromkeys(chain(*headers)) if n and n not in names),
        reader,
    )


def _reader(file: Path, header: Sequence[str], names: Sequence[str], separator: str) -> str:
    columns = ", ".join(f"'__c{n}': 'VARCHAR'" for n in range(len(header)))
    items = ", ".join(f"__c{header.index(name)} AS {quote(name)}" for name in names)
    # Lines that cannot be parsed are left out here; ingesting puts them into the quarantine.
    return f"""SELECT {items} FROM read_csv({literal(exact_path(str(file)))},
        columns = {{{columns}}}, auto_detect = false, header = true, delim = {literal(separator)},
        quote = '"', escape = '"', strict_mode = true, null_padding = false, ignore_errors = true,
        nullstr = [{", ".join(map(literal, NULLS))}], hive_partitioning = false)"""


def _notation(database: duckdb.DuckDBPyConnection, names: Sequence[str]) -> Notation:
    decimal = _decimal(database, names)
    found = dict.fromkeys(THOUSANDS[decimal], 0)
    for between in found:
        for name in _with_text(database, names, between):
            number = matches(name, NUMBER[decimal])
            grouped = matches(name, grouped_pattern(decimal, between))
            values, read, set_apart = counts(
                database, f"count({quote(name)})", count(f"{number} OR {grouped}"), count(grouped)
            )
            if set_apart and values - read <= MOST_ODD_SHARE * values:
                found[between] += set_apart
    best = max(found, key=lambda between: found[between])
    return Notation(decimal, best if found[best] else "")


def _decimal(database: duckdb.DuckDBPyConnection, names: Sequence[str]) -> str:
    """A comma where some column has fractions after commas, and none after points."""
    fractions = {".": 0, ",": 0}
    for decimal in fractions:
        for name in _with_text(database, names, decimal):
            reads = f"({matches(name, NUMBER[decimal])} OR {matches(name, GROUPED[decimal])})"
            # 1,234 alone may be thousands as well.
            clear = f"{matches(name, FRACTION[decimal])} AND NOT {matches(name, EITHER)}"
            values, read, fraction = counts(
                database, f"count({quote(name)})", count(reads), count(clear)
            )
            if fraction and values - read <= MOST_ODD_SHARE * values:
                fractions[decimal] += 1
    return "," if fractions[","] and not fractions["."] else "."


def _with_text(database: duckdb.DuckDBPyConnection, names: Sequence[str], text: str) -> list[str]:
    """Columns some value of which contains a text; patterns cost much more than that."""
    found = counts(
        database, *(count(f"contains({quote(name)}, {literal(text)})") for name in names)
    )
    return [name for name, times in zip(names, found, strict=True) if times]


def _without_sentinels(
    database: duckdb.DuckDBPyConnection, found: Mapping[str, CsvColumn]
) -> dict[str, CsvColumn]:
    """Columns of numbers whose sentinels, such as -999, are nulls, or have a note where they can't.

    A null value holds for all columns of a source, so it must be an ordinary value of none.
    """
    numbers = {n: c.typed for n, c in found.items() if c.kind in {"BIGINT", "DOUBLE"}}
    sentinels = find_sentinels(database, "texts", numbers)
    changed = {}
    for name, (value, times) in sentinels.items():
        column, typed = found[name], found[name].typed
        texts = [
            str(text)
            for (text,) in database.execute(
                f"SELECT DISTINCT {quote(name)} FROM texts WHERE {typed} = {value!r}"
            ).fetchall()
        ]
        others = [quote(other) for other in found if other not in sentinels]
        listed = ", ".join(map(literal, texts))
        is_ordinary = others and any(
            counts(database, *(count(f"{other} IN ({listed})") for other in others))
        )
        shown = f"{' or '.join(texts)} ({times} times), far from all other values,"
        if is_ordinary:
            note = f"{shown} may mean null; another column has it as a value"
            changed[name] = replace(column, note="; ".join(filter(None, (note, column.note))))
            continue
        changed[name] = replace(
            column,
            typed=f"CASE WHEN {typed} <> {value!r} THEN {typed} END",
            null_values=(*column.null_values, *texts),
            note="; ".join(filter(None, (f"{shown} means null", column.note))),
        )
    return changed
