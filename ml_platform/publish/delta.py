"""Delta tables, through deltalake; what readers find there DuckDB's extension says."""

from typing import TYPE_CHECKING

import duckdb

from ml_platform.publish.lake_columns import (
    arrow_reader,
    described,
    later_sql,
    no_rows_sql,
    partition_column,
    require_columns,
    require_keys,
    require_no_clash,
    snapshots_of,
    typed_columns,
)
from ml_platform.publish.lake_target import LakeTarget
from ml_platform.publish.target import Part, TargetTable, staged_sql, without_driver
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal, quote
from ml_platform.storage.extensions import load_extension
from ml_platform.storage.stores import store_of

if TYPE_CHECKING:
    from deltalake import DeltaTable


class DeltaTarget(LakeTarget):
    """Each partition is one version of the table's log.

    where: `<folder or URL> [option=value …]`.
    """

    def __init__(self, settings: Settings, database: str, where: str) -> None:
        super().__init__(settings, database)
        try:
            import deltalake
        except ImportError:
            raise without_driver(database, "deltalake", "delta") from None
        self._deltalake = deltalake
        self._store = store_of(where)

    def prepare(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable) -> None:
        with self._named():
            load_extension(cursor, "delta")
            self._store.open(cursor, self.database)
            require_no_clash(self.database, table)
            query = no_rows_sql([*typed_columns(table), partition_column(table)])
            wanted = described(cursor, query)
            if not self._deltalake.DeltaTable.is_deltatable(
                self._at(table), self._store.delta_options
            ):
                self._deltalake.DeltaTable.create(
                    self._at(table), arrow_reader(cursor, query).schema, mode="ignore",
                    partition_by=table.partition, storage_options=self._store.delta_options,
                )  # fmt: skip
            stored = described(cursor, f"FROM {self._scan(table)}")
            require_columns(self.database, table, stored, wanted)

    def write(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        with self._named():
            if table.mode == "upsert":
                return self._merge(cursor, table, part) if part.rows else 0
            here = f"{quote(table.partition)} = {literal(part.label)}"
            if table.mode == "replace":
                self._replace(cursor, table, part, here)
                return self._count(cursor, f"{self._scan(table)} WHERE {here}")
            return sum(
                self._add(cursor, table, part, f"{here} AND snapshot = {snapshot:d}", snapshot)
                for snapshot in snapshots_of(cursor, part)
            )

    def _replace(
        self,
        cursor: duckdb.DuckDBPyConnection,
        table: TargetTable,
        part: Part,
        here: str,
        where: str = "true",
    ) -> None:
        if not part.rows:
            self._open(table).delete(here)
            return
        query = f"FROM ({self._rows(table, part)}) WHERE {where}"
        self._deltalake.write_deltalake(
            self._at(table), arrow_reader(cursor, query), mode="overwrite", predicate=here,
            storage_options=self._store.delta_options,
        )  # fmt: skip

    def _add(
        self,
        cursor: duckdb.DuckDBPyConnection,
        table: TargetTable,
        part: Part,
        here: str,
        snapshot: int,
    ) -> int:
        """Rows of one snapshot, which replace what a process that was killed has left of them."""
        relation = f"{self._scan(table)} WHERE {here}"
        if not self._count(cursor, relation):
            self._replace(cursor, table, part, here, f"snapshot = {snapshot:d}")
        return self._count(cursor, relation)

    def _merge(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        require_keys(cursor, self.database, table, part)
        same = " AND ".join(f"t.{quote(c)} = s.{quote(c)}" for c in table.key)
        merger = self._open(table).merge(
            arrow_reader(cursor, self._rows(table, part)), same,
            source_alias="s", target_alias="t",
        )  # fmt: skip
        merger.when_matched_update_all(
            's."event_time" >= t."event_time"'
        ).when_not_matched_insert_all().execute()
        return self._count(cursor, later_sql(table, part, self._scan(table)))

    def _rows(self, table: TargetTable, part: Part) -> str:
        items = [*typed_columns(table), partition_column(table, part)]
        return staged_sql(items, part, [quote(column) for column in table.key])

    def _open(self, table: TargetTable) -> "DeltaTable":
        return self._deltalake.DeltaTable(
            self._at(table), storage_options=self._store.delta_options
        )

    def _count(self, cursor: duckdb.DuckDBPyConnection, relation: str) -> int:
        row = cursor.execute(f"SELECT count(*) FROM {relation}").fetchone()
        return int(row[0]) if row else 0

    def _scan(self, table: TargetTable) -> str:
        return f"delta_scan({literal(self._at(table))})"

    def _at(self, table: TargetTable) -> str:
        return self._store.at(*table.path)
