"""CSV files, zipped or not: a header, commas, double quotes, UTF-8."""

import csv
import zlib
from collections.abc import Iterator
from functools import partial

import duckdb

from ml_platform.sources import salvage
from ml_platform.sources.landing import LandingFile, first_line
from ml_platform.sources.reading import (
    NO_NULL,
    Batch,
    Reading,
    exact_path,
    json_object,
    numbered_lines,
    or_text,
    path_list,
)
from ml_platform.spec.queries import literal

HEADER_BYTES = 65_536
WHOLE_FILE_BYTES = 64 * 2**20
"""Up to this size a file is opened whole for its header, many in one statement."""


def read_csv_files(reading: Reading, files: list[LandingFile]) -> Iterator[Batch]:
    """Every record of the files, once; files with the same header are read together."""
    groups: dict[tuple[str, ...], list[LandingFile]] = {}
    for file, header in _headers(reading, files).items():
        if reading.accept(file, header):
            groups.setdefault(header, []).append(file)
    for header, group in groups.items():
        read = partial(_read, reading, header)
        yield from reading.halving(group, read, partial(_read_alone, reading, header))


def _read(reading: Reading, header: tuple[str, ...], files: list[LandingFile]) -> Iterator[Batch]:
    columns = ", ".join(f"'__c{n}': 'VARCHAR'" for n in range(len(header)))
    nulls = ", ".join(literal(text) for text in reading.source.null_values or (NO_NULL,))
    reading.load_lines(
        f"""SELECT * FROM read_csv({path_list(files)}, columns = {{{columns}}},
        auto_detect = false, header = true, delim = ',', quote = '"', escape = '"',
        strict_mode = true, null_padding = false, nullstr = [{nulls}],
        store_rejects = true, filename = '__path', hive_partitioning = false)"""
    )
    yield Batch(numbered_lines(first_row=2), _values(reading, header), json_object(header))


def _read_alone(
    reading: Reading, header: tuple[str, ...], file: LandingFile, _: duckdb.Error | None
) -> Iterator[Batch]:
    records = partial(salvage.csv_records, columns=len(header))
    nulls = frozenset(reading.source.null_values)
    if reading.load_salvaged(file, records, len(header), nulls):
        record = or_text(json_object(header))
        yield Batch("temp.__salvaged", _values(reading, header), record, "__problem")


def _values(reading: Reading, header: tuple[str, ...]) -> dict[str, str]:
    return {column: f"__c{header.index(column)}" for column in reading.source.columns}


def _headers(reading: Reading, files: list[LandingFile]) -> dict[LandingFile, tuple[str, ...]]:
    heads = _heads(reading, files)
    headers = {}
    for file in files:
        try:
            head = heads.get(file.path)
            headers[file] = _header(file, _head(reading, file) if head is None else head)
        except ValueError as error:
            reading.refuse(file, str(error))
        except duckdb.Error as error:
            reading.refuse(file, f"cannot be read: {first_line(error)}")
    return headers


def _heads(reading: Reading, files: list[LandingFile]) -> dict[str, bytes]:
    small = [exact_path(file) for file in files if file.size <= WHOLE_FILE_BYTES]
    if not small:
        return {}
    try:
        return dict(
            reading.cursor.execute(
                f"SELECT filename, content[:{HEADER_BYTES}] FROM read_blob(?)", [small]
            ).fetchall()
        )
    except duckdb.Error:
        # One of them cannot be opened; asked one by one, that one says so.
        return {}


def _head(reading: Reading, file: LandingFile) -> bytes:
    if file.size <= WHOLE_FILE_BYTES:
        row = reading.cursor.execute(
            f"SELECT content[:{HEADER_BYTES}] FROM read_blob(?)", [exact_path(file)]
        ).fetchone()
        return bytes(row[0]) if row else b""
    row = reading.cursor.execute(
        f"""SELECT line FROM read_csv({path_list([file])}, columns = {{'line': 'VARCHAR'}},
        auto_detect = false, header = false, delim = '', quote = '', escape = '',
        compression = 'none', strict_mode = false, hive_partitioning = false) LIMIT 1"""
    ).fetchone()
    return f"{row[0]}\n".encode() if row else b""


def _header(file: LandingFile, head: bytes) -> tuple[str, ...]:
    if file.is_gzip:
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, HEADER_BYTES)
        except zlib.error as error:
            raise ValueError(f"cannot be unzipped: {error}") from error
    head = head.removeprefix(b"\xef\xbb\xbf")
    first, end, _ = head.partition(b"\n")
    if b"\0" in first or (not end and len(head) >= HEADER_BYTES):
        raise ValueError("is not a CSV file: its first line is no header")
    try:
        line = first.decode().rstrip("\r")
        (names,) = csv.reader([line], strict=True) if line.strip() else ([],)
    except UnicodeDecodeError:
        raise ValueError("is not a CSV file: its first line is not UTF-8 text") from None
    except csv.Error as error:
        raise ValueError(f"its header cannot be read: {error}") from error
    if not names:
        raise ValueError("its first line is blank; the header belongs there")
    return tuple(names)
