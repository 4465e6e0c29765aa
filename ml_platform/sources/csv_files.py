"""CSV files, zipped or not: a header, one separator, double quotes, UTF-8."""

import csv
import json
from collections.abc import Iterator, Mapping
from functools import partial

import duckdb

from ml_platform.sources import salvage
from ml_platform.sources.landing import LandingFile
from ml_platform.sources.reading import (
    NO_NULL,
    Batch,
    Reading,
    json_object,
    numbered_lines,
    or_text,
    path_list,
)
from ml_platform.sources.scan import BLOCK_BYTES
from ml_platform.sources.step_tables import SALVAGED
from ml_platform.spec.inputs import Csv, Source
from ml_platform.spec.queries import literal


def read_csv_files(reading: Reading, files: list[LandingFile]) -> Iterator[Batch]:
    """Every record of the files, once; files with the same header are read together."""
    separator = _separator(reading)
    groups: dict[tuple[str, ...], dict[LandingFile, int]] = {}
    for file, scan in reading.scan(files).items():
        try:
            header = _header(scan.head, separator)
        except ValueError as error:
            reading.refuse(file, str(error))
            continue
        if hint := _other_separator(header, reading.source):
            reading.refuse(file, hint)
        elif reading.accept(file, header):
            groups.setdefault(header, {})[file] = scan.lines - 1
    for header, rows in groups.items():
        read = partial(_read, reading, header, rows)
        yield from reading.halving(list(rows), read, partial(_read_alone, reading, header))


def _read(
    reading: Reading,
    header: tuple[str, ...],
    rows: Mapping[LandingFile, int],
    files: list[LandingFile],
) -> Iterator[Batch]:
    columns = ", ".join(f"'__c{n}': 'VARCHAR'" for n in range(len(header)))
    nulls = ", ".join(literal(text) for text in reading.source.null_values or (NO_NULL,))
    separator = literal(_separator(reading))
    reading.load_lines(
        f"""SELECT * FROM read_csv({path_list(files)}, columns = {{{columns}}},
        auto_detect = false, header = true, delim = {separator}, quote = '"', escape = '"',
        strict_mode = true, null_padding = false, nullstr = [{nulls}],
        ignore_errors = true, filename = '__path', hive_partitioning = false)""",
        {file: rows[file] for file in files},
    )
    yield Batch(numbered_lines(first_row=2), reading.values(header), json_object(header))


def _read_alone(
    reading: Reading, header: tuple[str, ...], file: LandingFile, _: duckdb.Error | None
) -> Iterator[Batch]:
    records = partial(salvage.csv_records, columns=len(header), separator=_separator(reading))
    nulls = frozenset(reading.source.null_values)
    if reading.load_salvaged(file, records, len(header), nulls):
        record = or_text(json_object(header))
        yield Batch(SALVAGED, reading.values(header), record, "__problem")


def _separator(reading: Reading) -> str:
    return (reading.source.csv or Csv()).separator


def _other_separator(header: tuple[str, ...], source: Source) -> str | None:
    """What is wrong where the header is one name made of several."""
    if len(header) > 1 or header[0] in source.columns:
        return None
    for separator in (",", ";", "\t", "|"):
        if len(set(header[0].split(separator)) & source.columns.keys()) > 1:
            shown = json.dumps(separator)
            return f"its values are separated by {shown}; declare `csv: {{separator: {shown}}}`"
    return None


def _header(head: bytes, separator: str) -> tuple[str, ...]:
    first, end, _ = head.partition(b"\n")
    if b"\0" in first or (not end and len(head) >= BLOCK_BYTES):
        raise ValueError("is not a CSV file: its first line is not a header")
    try:
        line = first.decode().rstrip("\r")
        (names,) = csv.reader([line], delimiter=separator, strict=True) if line.strip() else ([],)
    except UnicodeDecodeError:
        raise ValueError("is not a CSV file: its first line is not UTF-8 text") from None
    except csv.Error as error:
        raise ValueError(f"its header cannot be read: {error}") from error
    if not names:
        raise ValueError("its first line is blank; the header belongs there")
    return tuple(names)
