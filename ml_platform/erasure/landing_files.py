"""Rows of an entity in landing files: each is read as it would be ingested, and written without.

A line that goes leaves a blank one, so that the rows after it keep their numbers: a later ingestion
finds the same rows that it found before. A Parquet file has no blank rows.
"""

import gzip
import os
import secrets
import tempfile
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from ml_platform.erasure.matching import PREDICTION_ID, Matching
from ml_platform.errors import ErasureRefused
from ml_platform.sources.contract import Contract
from ml_platform.sources.intake import CHUNK_BYTES, batches, create_rows, number_files
from ml_platform.sources.landing import LandingFile, LandingIndex, chunks, identify
from ml_platform.sources.listing import ListedFile, list_landing
from ml_platform.sources.reading import Reading
from ml_platform.sources.step_tables import FILES, JUDGED
from ml_platform.spec.inputs import Source
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import LOGGED_SOURCES, REQUESTS, UseCase
from ml_platform.storage import Lake
from ml_platform.storage.stored_files import UNFINISHED, StoredFiles

LOGGED_LAST = (*reversed([s for s in LOGGED_SOURCES if s != REQUESTS]), REQUESTS)
"""Feedback before the requests that it names predictions of: whoever is killed in between finds
them again."""


@dataclass(frozen=True)
class FileRows:
    """Rows of the entity in one landing file."""

    source: str
    file: LandingFile
    numbers: tuple[int, ...]
    """As `_row` has them."""
    starts: tuple[int, ...] = ()
    """Of all rows of a text file, the lines that they begin at."""


def order_of_sources(use_case: UseCase) -> list[str]:
    """Sources that files land for, each before those by whose rows its own are found."""
    found = [s for s, declared in use_case.sources.items() if declared.files]
    last = [*LOGGED_LAST, use_case.examples.source]
    return sorted(found, key=lambda source: last.index(source) if source in last else -1)


def find_landed(lake: Lake, matching: Matching, source: str) -> list[FileRows]:
    """Rows of the entity in the landing files of a source, in all that is there."""
    use_case, cursor = matching.use_case, matching.cursor
    declared = use_case.sources[source]
    listed = [file for file in list_landing(lake, use_case, source) if file.problem is None]
    files = identify(cursor, use_case, source, listed, LandingIndex())
    number_files(cursor, files, LandingIndex(), frozenset())
    found: list[FileRows] = []
    left = files
    wider = _with_entity(matching, declared)
    for each in (declared,) if wider is None else (wider, declared):
        refused: list[LandingFile] = []
        for chunk in chunks(left, CHUNK_BYTES):
            reading = Reading(cursor, each)
            contract = Contract(cursor, each, use_case.calendar.start)
            create_rows(cursor, contract)
            for batch in batches(reading, chunk, None):
                cursor.execute(f"INSERT INTO {JUDGED} {contract.judged(batch)}")
            refused += reading.refused
            found += _matched(matching, source, each, contract, chunk)
        left = refused
    return found


def _matched(
    matching: Matching,
    source: str,
    declared: Source,
    contract: Contract,
    files: Sequence[LandingFile],
) -> list[FileRows]:
    """The entity's rows among those that were judged, by file."""
    cursor, use_case = matching.cursor, matching.use_case
    where = matching.of_columns(contract.columns)
    broken = f"(__record IS NOT NULL AND {matching.of_record('__record')})"
    chosen = broken if where is None else f"({where} OR {broken})"
    rows = cursor.execute(
        f"""SELECT f.path, list(DISTINCT __row ORDER BY __row)
        FROM {JUDGED} j JOIN {FILES} f ON f.number = j.__file
        WHERE {chosen} GROUP BY 1 ORDER BY 1"""
    ).fetchall()
    if not rows:
        return []
    if source == use_case.examples.source and where is not None and matching.has_examples:
        moments = matching.of_moments(contract.columns)
        matching.learn(
            tuple(row)
            for row in cursor.execute(
                f"SELECT DISTINCT {moments} FROM {JUDGED} WHERE {chosen}"
            ).fetchall()
        )
    if source == REQUESTS:
        ids = cursor.execute(
            f"SELECT DISTINCT {PREDICTION_ID} FROM {JUDGED} WHERE {chosen}"
        ).fetchall()
        matching.learn((), (each for (each,) in ids if each is not None))
    by_path = {file.path: file for file in files}
    return [
        FileRows(source, by_path[path], tuple(numbers), _starts(cursor, declared, path))
        for path, numbers in rows
    ]


def _starts(cursor: duckdb.DuckDBPyConnection, declared: Source, path: str) -> tuple[int, ...]:
    if declared.file_format == "parquet":
        return ()
    rows = cursor.execute(
        f"""SELECT DISTINCT __row FROM {JUDGED} WHERE __file =
            (SELECT number FROM {FILES} WHERE path = {literal(path)}) ORDER BY 1"""
    ).fetchall()
    return tuple(row for (row,) in rows)


def _with_entity(matching: Matching, declared: Source) -> Source | None:
    """The source with key columns of the entity that its files may have and it does not declare."""
    missing = {c: "VARCHAR" for c in matching.entity.columns if c not in declared.columns}
    if not missing:
        return None
    return declared.model_copy(update={"columns": {**declared.columns, **missing}})


def rewrite_landed(cursor: duckdb.DuckDBPyConnection, rows: FileRows) -> None:
    """Write a landing file without some rows, as a whole or not at all.

    Raises ErasureRefused where it was written to meanwhile.
    """
    file = rows.file
    if file.path.lower().endswith((".parquet", ".pq")) or not rows.starts:
        content = _without_rows(cursor, rows)
    else:
        store = _store(cursor, file.path)
        content = _without_lines(store.read(_name(file.path)), rows, is_gzip=file.is_gzip)
    _replace(cursor, file, content)


def _without_lines(content: bytes, rows: FileRows, *, is_gzip: bool) -> bytes:
    lines = (gzip.decompress(content) if is_gzip else content).splitlines(keepends=True)
    # Only \n ends a line for those who read it, not what else Python takes for an end.
    lines = _joined(lines)
    for number in rows.numbers:
        place = bisect_right(rows.starts, number)
        end = rows.starts[place] - 1 if place < len(rows.starts) else len(lines)
        for line in range(number - 1, end):
            lines[line] = b"\n" if lines[line].endswith(b"\n") else b""
    left = b"".join(lines)
    return gzip.compress(left, mtime=0) if is_gzip else left


def _joined(lines: Sequence[bytes]) -> list[bytes]:
    joined: list[bytes] = []
    for line in lines:
        if joined and not joined[-1].endswith(b"\n"):
            joined[-1] += line
        else:
            joined.append(line)
    return joined


def _without_rows(cursor: duckdb.DuckDBPyConnection, rows: FileRows) -> bytes:
    listed = ", ".join(str(number - 1) for number in rows.numbers)
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch, "rows.parquet")
        cursor.execute(
            f"""COPY (SELECT * EXCLUDE (file_row_number) FROM read_parquet(
                {literal(rows.file.path)}, file_row_number = true, hive_partitioning = false)
            WHERE file_row_number NOT IN ({listed}) ORDER BY file_row_number)
            TO {literal(str(written))} (FORMAT parquet)"""
        )
        return written.read_bytes()


def _replace(cursor: duckdb.DuckDBPyConnection, file: ListedFile, content: bytes) -> None:
    if file.is_remote:
        _store(cursor, file.path).write(_name(file.path), content)
        return
    path = Path(file.path)
    before = path.stat()
    if (before.st_size, before.st_mtime_ns // 1000) != (file.size, file.written_us):
        raise ErasureRefused(f"{file.name} was written to meanwhile; do the same again")
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    with unfinished.open("wb") as written:
        written.write(content)
        written.flush()
        os.fsync(written.fileno())
    unfinished.chmod(before.st_mode)
    # Its place among the other files, of which the newest is right, stays.
    os.utime(unfinished, ns=(before.st_atime_ns, before.st_mtime_ns))
    unfinished.replace(path)


def _store(cursor: duckdb.DuckDBPyConnection, path: str) -> StoredFiles:
    return StoredFiles(cursor, path.rpartition("/")[0])


def _name(path: str) -> str:
    return path.rpartition("/")[2]
