"""Delta tables, through deltalake."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from ml_platform.publish.lake_columns import (
    STORED,
    arrow_reader,
    count,
    described,
    described_schema,
    later_sql,
    no_rows_sql,
    partition_column,
    require_columns,
    require_keys,
    require_no_clash,
    typed_columns,
)
from ml_platform.publish.lake_target import VersionedTarget
from ml_platform.publish.target import Part, TargetTable, without_driver
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal, quote
from ml_platform.storage.stores import store_of

if TYPE_CHECKING:
    from deltalake import DeltaTable


class DeltaTarget(VersionedTarget):
    """Each partition is one version of the table's log.

    where: `<folder or URL> [option=value …]`.
    """

    def __init__(self, settings: Settings, database: str, where: str) -> None:
        super().__init__(settings, database)
        try:
            import deltalake
        except ImportError as error:
            raise without_driver(database, error) from None
        self._deltalake = deltalake
        self._store = store_of(where)

    def prepare(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable) -> None:
        with self._named():
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
            found = pa.schema(self._open(table).schema())
            require_columns(self.database, table, described_schema(cursor, found), wanted)

    def _inside(self, table: TargetTable, part: Part) -> str:
        return f"{quote(table.partition)} = {literal(part.label)}"

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
        query = f"FROM ({self._query(table, part)}) WHERE {where}"
        self._deltalake.write_deltalake(
            self._at(table), arrow_reader(cursor, query), mode="overwrite", predicate=here,
            storage_options=self._store.delta_options,
        )  # fmt: skip

    def _merge(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        require_keys(cursor, self.database, table, part)
        same = " AND ".join(f"t.{quote(c)} = s.{quote(c)}" for c in table.key)
        merger = self._open(table).merge(
            arrow_reader(cursor, self._query(table, part)), same,
            source_alias="s", target_alias="t",
        )  # fmt: skip
        merger.when_matched_update_all(
            's."event_time" >= t."event_time"'
        ).when_not_matched_insert_all().execute()
        with self._rows_there(cursor, table, [*table.key, "event_time"]) as relation:
            return count(cursor, later_sql(table, part, relation))

    def _open(self, table: TargetTable) -> "DeltaTable":
        return self._deltalake.DeltaTable(
            self._at(table), storage_options=self._store.delta_options
        )

    def _count(
        self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part, here: str
    ) -> int:
        columns = [table.partition, *(["snapshot"] if table.mode == "append" else [])]
        chosen = [(table.partition, "=", part.label)]
        with self._rows_there(cursor, table, columns, chosen) as relation:
            return count(cursor, f"{relation} WHERE {here}")

    @contextmanager
    def _rows_there(
        self,
        cursor: duckdb.DuckDBPyConnection,
        table: TargetTable,
        columns: Sequence[str],
        partitions: list[tuple[str, str, str]] | None = None,
    ) -> Iterator[str]:
        """The name of a relation with columns of the table's rows, as a reader finds them."""
        rows = self._open(table).to_pyarrow_dataset(file_pruning_predicate=partitions)
        # Batch by batch, and not the dataset: DuckDB would have it compare texts, which it cannot.
        cursor.register(STORED, rows.scanner(columns=list(dict.fromkeys(columns))).to_reader())
        try:
            yield STORED
        finally:
            cursor.unregister(STORED)

    def _at(self, table: TargetTable) -> str:
        return self._store.at(*table.path)
