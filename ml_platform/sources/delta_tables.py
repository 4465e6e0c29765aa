"""Files of a Delta table: which there are its log says, which DuckDB then reads.

Files whose rows are all there are read as Parquet files are. DuckDB's extension for Delta opens all
files of a table to read some, so only tables that it is needed for are read by it: those with
deletion vectors or with columns under other names.
"""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa

from ml_platform.errors import LandingError
from ml_platform.settings import Settings
from ml_platform.sources.landing import LandingFile
from ml_platform.sources.listing import ListedFile
from ml_platform.sources.parquet_files import read_schemas, top_level
from ml_platform.sources.reading import Batch, Reading, json_object, path_list
from ml_platform.sources.shared_tables import table_error, types_of
from ml_platform.sources.step_tables import FILES, RAW
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import digest
from ml_platform.storage.extensions import load_extension
from ml_platform.storage.stores import Store

LISTED = frozenset({"path", "size_bytes", "modification_time", "partition"})
"""What is asked of the log about a file, besides which it has the bounds of every column."""
BY_EXTENSION = frozenset({"deletionVectors", "columnMapping"})
"""Features of tables whose files are no plain Parquet files."""


class DeltaFiles:
    """The files of one version of a table.

    Raises what deltalake raises, LandingError where there is no such table.
    """

    def __init__(
        self,
        settings: Settings,
        cursor: duckdb.DuckDBPyConnection,
        named: str,
        store: Store,
        lake: str,
    ) -> None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            table = DeltaTable(store.location, storage_options=store.delta_options)
        except TableNotFoundError:
            raise LandingError(
                f"{named}: there is no Delta table: {store.location}/_delta_log is not there"
            ) from None
        store.open(cursor, lake)
        self._settings = settings
        self._location, self._version = store.location, table.version()
        # A commit need not say when it was made.
        moments = [each["timestamp"] for each in table.history(1) if "timestamp" in each]
        self.committed_us = moments[0] * 1000 if moments else int(time.time() * 1_000_000)
        self.state = f"{table.metadata().id} {self._version}"
        self.named = f"{named}, version {self._version}"
        self.columns = types_of(cursor, pa.schema(table.schema()))
        features = table.protocol().reader_features or ()
        mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
        self._by_extension = mapping != "none" or not BY_EXTENSION.isdisjoint(features)
        found = pa.table(table.get_add_actions(flatten=False))
        wanted = [c for c in found.column_names if c in LISTED]
        adds = found.select(wanted).to_pylist()
        self._partitions = {self._path(add): add.get("partition") or {} for add in adds}
        deleted = self._deletions(cursor) if self._by_extension else {}
        self.files = sorted(
            (self._listed(add, deleted) for add in adds), key=lambda file: file.name
        )

    def read(self, reading: Reading, files: list[LandingFile]) -> Iterator[Batch]:
        """Every row of some of its files that is not deleted, once."""
        if self._by_extension:
            yield from reading.halving(files, partial(self._scan, reading), self._fail)
            return
        schemas: dict[LandingFile, tuple[str, ...]] = {}
        yield from reading.halving(files, partial(read_schemas, reading, schemas), self._fail)
        groups: dict[tuple[str, ...], list[LandingFile]] = {}
        for file, schema in schemas.items():
            groups.setdefault(top_level(schema), []).append(file)
        for columns, group in groups.items():
            read = partial(self._read, reading, columns)
            yield from reading.halving(group, read, self._fail)

    def _read(
        self, reading: Reading, columns: tuple[str, ...], files: list[LandingFile]
    ) -> Iterator[Batch]:
        """Rows of files with the same columns: others are partitions', or were added later."""
        names = self._create_partitions(reading.cursor, files)
        there = {column.lower(): f"r.{quote(column)}" for column in columns}
        there |= {name.lower(): f"p.{quote(name)}" for name in names}
        items = ", ".join(
            f"{there.get(column.lower(), f'NULL::{kind}')} AS __c{n}"
            for n, (column, kind) in enumerate(self.columns.items())
        )
        yield self._batch(
            reading,
            f"""SELECT f.number AS __file, r.file_row_number + 1 AS __row, {items}
            FROM read_parquet({path_list(files)}, filename = '__path', file_row_number = true,
                hive_partitioning = false) r
            JOIN {FILES} f ON f.path = r.__path
            JOIN temp.__partitions p ON p.__path = r.__path""",
        )

    def _scan(self, reading: Reading, files: list[LandingFile]) -> Iterator[Batch]:
        items = ", ".join(f"r.{quote(column)} AS __c{n}" for n, column in enumerate(self.columns))
        paths = ", ".join(literal(file.path) for file in files)
        yield self._batch(
            reading,
            f"""SELECT f.number AS __file, r.file_row_number + 1 AS __row, {items}
            FROM (SELECT *, filename, file_row_number FROM {self._scanned}
                WHERE filename IN ({paths})) r
            JOIN {FILES} f ON f.path = r.filename""",
        )

    def _batch(self, reading: Reading, query: str) -> Batch:
        reading.cursor.execute(f"CREATE OR REPLACE TEMP TABLE {RAW} AS {query}")
        places = {column.lower(): n for n, column in enumerate(self.columns)}
        declared = {column: column.lower() for column in reading.source.columns}
        read = set(declared.values())
        reading.ignored.update(dict.fromkeys(c for c in self.columns if c.lower() not in read))
        values = {column: f"__c{places[lowered]}" for column, lowered in declared.items()}
        return Batch(RAW, values, json_object(list(self.columns)))

    def _create_partitions(
        self, cursor: duckdb.DuckDBPyConnection, files: list[LandingFile]
    ) -> tuple[str, ...]:
        """`temp.__partitions`, the values by file's path; the names of its columns."""
        found = [self._partitions[file.path] for file in files]
        names = tuple(found[0]) if found else ()
        rows = {"__path": [file.path for file in files]}
        table = pa.table(
            {**rows, **{name: pa.array([each[name] for each in found]) for name in names}}
        )
        cursor.register("__values", table)
        cursor.execute("CREATE OR REPLACE TEMP TABLE __partitions AS FROM __values")
        cursor.unregister("__values")
        return names

    def _deletions(self, cursor: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Digests of the rows that are left of files with deletions, by their paths."""
        load_extension(cursor, "delta")
        rows = cursor.execute(
            f"""SELECT filename, sum(hash(file_row_number)::HUGEINT)
            FROM (SELECT filename, file_row_number FROM {self._scanned})
            WHERE filename IN (SELECT data_file FROM delta_list_files(
                {literal(self._location)}, version => {self._version:d}) WHERE have_deletes)
            GROUP BY 1"""
        ).fetchall()
        return {path: str(left) for path, left in rows}

    @property
    def _scanned(self) -> str:
        return f"delta_scan({literal(self._location)}, version => {self._version:d})"

    def _listed(self, add: Mapping[str, Any], deleted: Mapping[str, str]) -> ListedFile:
        path = self._path(add)
        # Rows were deleted after the file was written, by the last commit at the latest.
        at = self.committed_us if path in deleted else add["modification_time"] * 1000
        name = path.removeprefix(f"{self._location}/")
        return ListedFile(
            name, path, add["size_bytes"], at, content=digest(path, deleted.get(path))
        )

    def _path(self, add: Mapping[str, Any]) -> str:
        path = unquote(add["path"])
        return path if "://" in path or path.startswith("/") else f"{self._location}/{path}"

    def _fail(self, file: LandingFile, error: duckdb.Error | None) -> Iterator[Batch]:
        what = f"{self.named}: {file.name} cannot be read"
        raise table_error(error or duckdb.Error(), self._settings, what) from None
