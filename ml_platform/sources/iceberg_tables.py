"""Files of an Iceberg table, which pyiceberg finds and reads: renamed columns, deletes and all."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from ml_platform.failures import is_of_a_store
from ml_platform.settings import Settings
from ml_platform.sources.iceberg_deletes import EqualityDeletes, entries_of, is_equality_delete
from ml_platform.sources.landing import LandingFile, chunks
from ml_platform.sources.listing import ListedFile
from ml_platform.sources.reading import Batch, Reading, json_object
from ml_platform.sources.shared_tables import table_error, types_of
from ml_platform.sources.step_tables import FILES, RAW
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import digest

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestEntry
    from pyiceberg.table import FileScanTask, Table
    from pyiceberg.table.snapshots import Snapshot

MOST_BYTES = 64 * 2**20
"""Files that are in memory together; a larger one is there alone."""


class IcebergFiles:
    """The files of one snapshot of a table."""

    def __init__(
        self,
        settings: Settings,
        cursor: duckdb.DuckDBPyConnection,
        named: str,
        table: "Table",
    ) -> None:
        snapshot = table.current_snapshot()
        self._settings, self._table = settings, table
        at = snapshot.snapshot_id if snapshot else 0
        self.named = f"{named}, snapshot {at}" if snapshot else f"{named}, which is empty"
        self.state = f"{table.metadata.table_uuid} {at} {table.metadata.current_schema_id}"
        self.columns = types_of(cursor, table.schema().as_arrow())
        self.committed_us = table.metadata.last_updated_ms * 1000
        self._tasks: dict[str, FileScanTask] = {}
        self.files: list[ListedFile] = []
        entries = [] if snapshot is None else entries_of(table, snapshot)
        self._deletes = EqualityDeletes(table, entries)
        if snapshot is not None:
            written_us = _written(table, entries)
            self._tasks = {task.file.file_path: task for task in _planned(table, snapshot)}
            self.files = sorted(
                (self._listed(task, written_us) for task in self._tasks.values()),
                key=lambda file: file.name,
            )

    def read(self, reading: Reading, files: list[LandingFile]) -> Iterator[Batch]:
        """Every row of some of its files that is not deleted, once."""
        places = {column.lower(): n for n, column in enumerate(self.columns)}
        declared = {column: column.lower() for column in reading.source.columns}
        read = set(declared.values())
        reading.ignored.update(dict.fromkeys(c for c in self.columns if c.lower() not in read))
        values = {column: f"__c{places[lowered]}" for column, lowered in declared.items()}
        for some in chunks(files, MOST_BYTES):
            self._load(reading.cursor, some)
            yield Batch(RAW, values, json_object(list(self.columns)))

    def _load(self, cursor: duckdb.DuckDBPyConnection, files: list[LandingFile]) -> None:
        items = ", ".join(f"r.{quote(column)} AS __c{n}" for n, column in enumerate(self.columns))
        rows = pa.concat_tables([self._rows(cursor, file) for file in files])
        cursor.register("__rows_of_files", rows)
        cursor.execute(
            f"""CREATE OR REPLACE TEMP TABLE {RAW} AS
            SELECT f.number AS __file, r.__row, {items}
            FROM __rows_of_files r JOIN {FILES} f ON f.path = r.__path"""
        )
        cursor.unregister("__rows_of_files")

    def _rows(self, cursor: duckdb.DuckDBPyConnection, file: LandingFile) -> pa.Table:
        """Rows of a file that are left, numbered."""
        from pyiceberg.expressions import AlwaysTrue
        from pyiceberg.io.pyarrow import ArrowScan

        table = self._table
        scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
        try:
            rows = scan.to_table([self._tasks[file.path]])
            rows = self._deletes.left(cursor, file.path, rows)
        except Exception as error:
            if not isinstance(error, OSError | ValueError) and not is_of_a_store(error):
                raise
            what = f"{self.named}: {file.name} cannot be read"
            raise table_error(error, self._settings, what) from None
        numbers = pa.array(range(1, rows.num_rows + 1), pa.int64())
        path = pa.array([file.path] * rows.num_rows, pa.string())
        return rows.append_column("__row", numbers).append_column("__path", path)

    def _listed(self, task: "FileScanTask", written_us: Mapping[str, int]) -> ListedFile:
        path = task.file.file_path
        applied = [*task.delete_files, *self._deletes.of(path)]
        deletes = sorted(each.file_path for each in applied)
        at = max(written_us.get(each, 0) for each in (path, *deletes))
        name = path.removeprefix(f"{self._table.location()}/")
        return ListedFile(
            name, path, task.file.file_size_in_bytes, at, content=digest(path, deletes)
        )


def _planned(table: "Table", snapshot: "Snapshot") -> Iterable["FileScanTask"]:
    """Files of rows with their positional deletes; those by values are ours to apply."""
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.table import ManifestGroupPlanner

    planner = ManifestGroupPlanner(table.metadata, table.io, AlwaysTrue())
    return planner.plan_files(
        snapshot.manifests(table.io), lambda entry: not is_equality_delete(entry)
    )


def _written(table: "Table", entries: Iterable["ManifestEntry"]) -> dict[str, int]:
    """When files became part of the table, in microseconds since 1970; later ones come later.

    Of snapshots that have expired nobody knows when they were: their files are older than others.
    """
    moments = {each.snapshot_id: each.timestamp_ms for each in table.metadata.snapshots}
    first = min(moments.values()) - 1
    found = {}
    for entry in entries:
        at = moments.get(entry.snapshot_id or 0, first)
        # Of a table that is written to twice in a millisecond, too.
        found[entry.data_file.file_path] = at * 1000 + (entry.sequence_number or 0) % 1000
    return found
