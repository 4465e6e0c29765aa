"""Data files written again without some of their rows, for every snapshot that reads them.

DuckLake deletes a row from a snapshot on; older snapshots, and the file, keep it. Here the file
itself is replaced, and so are the files that say which of its rows are deleted: they do so by
position. What is left keeps its row ids, its order and the snapshots that it came and went with:
every snapshot reads what it read before, but for those rows. The new files are there before one
transaction of the catalog names them and notes the old ones as to be deleted.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

import duckdb

from ml_platform.errors import LakeError
from ml_platform.spec.queries import literal, quote
from ml_platform.storage.attaching import turns_file
from ml_platform.storage.basis import ERASED
from ml_platform.storage.known_files import METADATA, KnownFile, known_files
from ml_platform.storage.lake import Commit, Lake
from ml_platform.storage.parquet_columns import (
    NUMBERS,
    ROW_ID,
    ROW_SNAPSHOT,
    Columns,
    WrittenParquet,
    reading,
    write_parquet,
)
from ml_platform.storage.renaming import Successor, discard, take_over
from ml_platform.storage.turns import retried, turn

GONE = "temp.__gone"
"""Positions of the rows that a file is written without."""


@dataclass(frozen=True)
class Erasing:
    """Rows to be removed: their positions, from 0, by data file."""

    rows: Mapping[KnownFile, Collection[int]]

    @property
    def count(self) -> int:
        return sum(len(positions) for positions in self.rows.values())


def rewrite_without(lake: Lake, erasing: Erasing, commit: Commit) -> int | None:
    """Replace data files by others without some rows; the snapshot that says so.

    Where one of the files was itself replaced meanwhile nothing is done and None is returned:
    whoever asked has to look again. The old files are there until `delete_at_once`.
    Raises LakeError for a file that the platform does not know how to write.
    """
    if erasing.count:
        commit = replace(commit, extra={**commit.extra, ERASED: str(erasing.count)})
    with lake.cursor() as cursor:
        successors = _write(lake, cursor, erasing)

        def attempt() -> int | None:
            with turn(turns_file(lake.settings)):
                return take_over(cursor, successors, commit)

        what = commit.message or "erasing rows"
        snapshot = lake.patience(lambda: retried(attempt, lake.settings.commit_retries, what))
        if snapshot is None:
            discard(lake, cursor, [each.new.path for each in successors if each.new])
    lake.has_written = True
    return snapshot


def _write(lake: Lake, cursor: duckdb.DuckDBPyConnection, erasing: Erasing) -> list[Successor]:
    deletes: dict[int, list[KnownFile]] = {}
    for file in known_files(cursor, lake.settings.lake_files_uri):
        if file.holds_deletes:
            deletes.setdefault(file.id, []).append(file)
    found = []
    for file, positions in erasing.rows.items():
        listed = sorted(set(positions))
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE __gone AS SELECT unnest({listed}) AS pos")
        data = _write_data(cursor, file, len(listed))
        found.append(Successor(file, data))
        found += [
            Successor(each, data and _write_deletes(cursor, each, data.path))
            for each in deletes.get(file.id, [])
        ]
    return found


def _write_data(
    cursor: duckdb.DuckDBPyConnection, file: KnownFile, gone: int
) -> WrittenParquet | None:
    """Write what is left of a data file; None where that is nothing."""
    if gone == file.rows:
        return None
    columns = Columns(cursor, file)
    source = reading(file.path, file.key)
    names = [name for name, *_ in cursor.execute(f"DESCRIBE FROM {source}").fetchall()]
    names.remove("file_row_number")
    selected = ", ".join(map(quote, names))
    if ROW_ID not in names:
        # By position they would be others now.
        row = cursor.execute(
            f"""SELECT row_id_start, mapping_id FROM {METADATA}.ducklake_data_file
            WHERE data_file_id = {file.id}"""
        ).fetchone()
        start = 0 if row is None or row[0] is None else int(row[0])
        selected += f", {start} + file_row_number AS {ROW_ID}"
        names.append(ROW_ID)
    return write_parquet(
        cursor,
        f"""SELECT {selected} FROM {source}
        WHERE file_row_number NOT IN (SELECT pos FROM {GONE}) ORDER BY file_row_number""",
        _beside(file.path, ".parquet"),
        columns.field_ids(names),
        columns.numbers(),
        encrypted=file.key is not None,
    )


def _write_deletes(
    cursor: duckdb.DuckDBPyConnection, file: KnownFile, of: str
) -> WrittenParquet | None:
    """Write which of the rows that are left were deleted, by their new positions.

    of: the data file. None where none of them was.
    """
    if not file.path.endswith(".parquet"):
        raise LakeError(f"{file.path}: deletion vectors of other tools are not rewritten")
    source = reading(file.path, file.key)
    names = [name for name, *_ in cursor.execute(f"DESCRIBE FROM {source}").fetchall()]
    since = [ROW_SNAPSHOT] if ROW_SNAPSHOT in names else []
    left = f"""FROM {source} d WHERE pos NOT IN (SELECT pos FROM {GONE})"""
    row = cursor.execute(f"SELECT count(*) {left}").fetchone()
    if row == (0,):
        return None
    numbers = {name: NUMBERS[name] for name in ("file_path", "pos", *since)}
    return write_parquet(
        cursor,
        f"""SELECT {literal(of)} AS file_path,
            pos - (SELECT count(*) FROM {GONE} g WHERE g.pos < d.pos) AS pos
            {"".join(f", {name}" for name in since)} {left} ORDER BY pos""",
        _beside(file.path, "-delete.parquet"),
        f"{{{', '.join(f'{name}: {number}' for name, number in numbers.items())}}}",
        {},
        encrypted=file.key is not None,
    )


def _beside(path: str, ending: str) -> str:
    """Another file of the same folder, named as DuckLake names its own."""
    return f"{path.rpartition('/')[0]}/ducklake-{uuid4()}{ending}"
