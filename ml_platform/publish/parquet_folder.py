"""A folder of Parquet files in Hive's layout: one folder a partition, one file in each.

Readers list the folders and read what files are there; what begins with `_` or `.` they leave
alone. So a partition is one file that always has the same name, and is replaced as a whole: on a
disk by renaming another one onto it, in an object store by a PUT of its key.
"""

import os
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote as escaped

import duckdb

from ml_platform.errors import TargetError
from ml_platform.publish.lake_columns import (
    count,
    described,
    no_rows_sql,
    require_no_clash,
    require_types,
    snapshots_of,
    typed_columns,
)
from ml_platform.publish.lake_target import LakeTarget
from ml_platform.publish.target import Part, TargetTable, staged_sql
from ml_platform.publish.turn_folder import turn_folder
from ml_platform.settings import Settings
from ml_platform.spec.queries import exact_path, literal, quote
from ml_platform.storage.azure_blobs import upload
from ml_platform.storage.stores import AZURE, S3, store_of

SCHEMA_FILE = "_common_metadata"
"""Where Parquet's convention has the columns of a folder; Spark takes them from there."""
UNFINISHED = ".unfinished"


class ParquetTarget(LakeTarget):
    """Partitions as `<column>=<day>/part-0.parquet`, or a file a snapshot where they are appended.

    where: `<folder or URL> [option=value …]`.
    """

    def __init__(self, settings: Settings, database: str, where: str) -> None:
        super().__init__(settings, database)
        self._store = store_of(where)

    def prepare(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable) -> None:
        with self._named():
            self._store.open(cursor, self.database)
            if table.mode == "upsert":
                raise TargetError(
                    f"lake '{self.database}': Parquet files have no keys by which rows could be "
                    "updated; take `mode: replace`, or a Delta or Iceberg table"
                )
            require_no_clash(self.database, table)
            path, query = self._at(table, SCHEMA_FILE), no_rows_sql(typed_columns(table))
            wanted = described(cursor, query)
            if self._exists(cursor, path):
                stored = described(cursor, f"FROM {_rows_of(exact_path(path))}")
                require_types(self.database, table, stored, wanted)
                if stored == wanted:
                    return
            self._put(cursor, query, path)

    def write(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        with self._named():
            folder = f"{table.partition}={escaped(part.label)}"
            if table.mode == "append":
                return self._append(cursor, table, part, folder)
            self._put(cursor, self._rows(table, part), self._at(table, folder, "part-0.parquet"))
            # Whatever files there are: a reader reads them all.
            return _count(cursor, self._at(table, folder), "*.parquet")

    def _append(
        self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part, folder: str
    ) -> int:
        found = 0
        for snapshot in snapshots_of(cursor, part):
            name = f"part-{snapshot:d}.parquet"
            if not self._exists(cursor, self._at(table, folder, name)):
                query = f"FROM ({self._rows(table, part)}) WHERE snapshot = {snapshot:d}"
                self._put(cursor, query, self._at(table, folder, name))
            found += _count(cursor, self._at(table, folder), name)
        return found

    def _rows(self, table: TargetTable, part: Part) -> str:
        return staged_sql(typed_columns(table), part, [quote(column) for column in table.key])

    def _put(self, cursor: duckdb.DuckDBPyConnection, query: str, path: str) -> None:
        if self._store.scheme == S3:
            # Uploaded in parts, an object appears with the last one.
            _copy(cursor, query, path)
        elif self._store.scheme == AZURE:
            # DuckDB would empty the object first, and readers would find it so.
            with TemporaryDirectory(dir=turn_folder(self.settings)) as folder:
                file = Path(folder) / "part.parquet"
                _copy(cursor, query, str(file))
                upload(self._store, path, file)
        else:
            self._put_file(cursor, query, Path(path))

    def _put_file(self, cursor: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        for left in file.parent.glob(f".{file.name}.*{UNFINISHED}"):
            # Of a process that was killed: publishers take turns.
            left.unlink()
        unfinished = file.with_name(f".{file.name}.{secrets.token_hex(4)}{UNFINISHED}")
        _copy(cursor, query, str(unfinished))
        _synced(unfinished)
        unfinished.replace(file)
        _synced(file.parent)

    def _exists(self, cursor: duckdb.DuckDBPyConnection, path: str) -> bool:
        # What has nothing to match is taken to be there, in an object store.
        glob = f"{exact_path(path[:-1])}[{path[-1]}]"
        return cursor.execute("FROM glob(?)", [glob]).fetchone() is not None

    def _at(self, table: TargetTable, *parts: str) -> str:
        return self._store.at(*table.path, *parts)


def _count(cursor: duckdb.DuckDBPyConnection, folder: str, files: str) -> int:
    return count(cursor, _rows_of(f"{exact_path(folder)}/{files}"))


def _copy(cursor: duckdb.DuckDBPyConnection, query: str, path: str) -> None:
    # Snappy is what the oldest readers read.
    cursor.execute(f"COPY ({query}) TO {literal(path)} (FORMAT parquet, COMPRESSION snappy)")


def _rows_of(glob: str) -> str:
    return f"read_parquet({literal(glob)}, hive_partitioning = false)"


def _synced(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
