"""Equality deletes of an Iceberg table: by which values rows of earlier files are deleted.

Flink and most tools that copy changes of databases write them. pyiceberg plans and applies
positional deletes, and refuses these.
Source: Iceberg's table specification, "Scan planning" and "Equality delete files".
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from ml_platform.spec.queries import quote

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile, ManifestEntry
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

FILES_AT_HAND = 32
"""Files of deletes that stay in memory, as each of them applies to many files of rows."""


def entries_of(table: "Table", snapshot: "Snapshot") -> list["ManifestEntry"]:
    """What a snapshot says of each of its files, rows and deletes alike."""
    return [
        entry
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    ]


def is_equality_delete(entry: "ManifestEntry") -> bool:
    """Whether a file holds values whose rows are deleted."""
    from pyiceberg.manifest import DataFileContent

    return entry.data_file.content == DataFileContent.EQUALITY_DELETES


class EqualityDeletes:
    """The equality deletes of one snapshot, for each of its files of rows."""

    def __init__(self, table: "Table", entries: Iterable["ManifestEntry"]) -> None:
        self._table = table
        known = list(entries)
        self._deletes = [each for each in known if is_equality_delete(each)]
        self._global = {n for n, spec in table.specs().items() if spec.is_unpartitioned()}
        self._rows = {each.data_file.file_path: each for each in known} if self._deletes else {}
        self._read = lru_cache(FILES_AT_HAND)(self._values)

    def of(self, path: str) -> "list[DataFile]":
        """Files whose deletes apply to a file of rows: committed later, and of its partition."""
        if not self._deletes:
            return []
        rows = self._rows[path]
        return [
            each.data_file
            for each in self._deletes
            if (each.sequence_number or 0) > (rows.sequence_number or 0)
            and (each.data_file.spec_id in self._global or _partition(each) == _partition(rows))
        ]

    def left(self, cursor: duckdb.DuckDBPyConnection, path: str, rows: pa.Table) -> pa.Table:
        """Rows of a file that none of its deletes is about, in their order.

        Raises ValueError where a delete is by a column that the table no longer has.
        """
        for file in self.of(path):
            names, values = self._read(file.file_path, tuple(file.equality_ids or ()))
            rows = _without(cursor, rows, values, names)
        return rows

    def _values(self, path: str, ids: Sequence[int]) -> tuple[list[str], pa.Table]:
        """The columns that a file deletes by, under their names of today, and its values."""
        from pyiceberg.expressions import AlwaysTrue
        from pyiceberg.io.pyarrow import ArrowScan
        from pyiceberg.schema import Schema
        from pyiceberg.table import FileScanTask

        schema = self._table.schema()
        if gone := set(ids) - set(schema.field_ids):
            raise ValueError(
                f"rows are deleted by a column that the table no longer has (field {min(gone)}); "
                "compacting the table ends that"
            )
        fields = [schema.find_field(field) for field in ids]
        (file,) = (e.data_file for e in self._deletes if e.data_file.file_path == path)
        scan = ArrowScan(self._table.metadata, self._table.io, Schema(*fields), AlwaysTrue())
        return [field.name for field in fields], scan.to_table([FileScanTask(file)])


def _partition(entry: "ManifestEntry") -> tuple[int, object]:
    """What a file is in: a partition spec, and its values."""
    return entry.data_file.spec_id, entry.data_file.partition


def _without(
    cursor: duckdb.DuckDBPyConnection,
    rows: pa.Table,
    deletes: pa.Table,
    names: Sequence[str],
) -> pa.Table:
    numbered = rows.append_column("__number", pa.array(range(rows.num_rows), pa.int64()))
    same = " AND ".join(f"r.{quote(name)} IS NOT DISTINCT FROM d.{quote(name)}" for name in names)
    cursor.register("__rows_of_file", numbered)
    cursor.register("__deletes", deletes)
    try:
        found = cursor.execute(
            f"""SELECT __number FROM __rows_of_file r
            WHERE NOT EXISTS (FROM __deletes d WHERE {same}) ORDER BY __number"""
        ).to_arrow_table()
    finally:
        cursor.unregister("__rows_of_file")
        cursor.unregister("__deletes")
    return rows.take(found["__number"])
