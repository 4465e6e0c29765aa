"""Iceberg tables of a catalog, through pyiceberg."""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import duckdb
import pyarrow as pa

from ml_platform.errors import TargetError
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
from ml_platform.storage.iceberg_catalogs import open_catalog

if TYPE_CHECKING:
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import Table

T = TypeVar("T")
ATTEMPTS = 10
LONGEST_WAIT_SECONDS = 2.0


class IcebergTarget(VersionedTarget):
    """Each partition is one snapshot of the table.

    where: properties of a catalog, as pyiceberg calls them: `uri=… warehouse=…`.
    """

    def __init__(self, settings: Settings, database: str, where: str) -> None:
        super().__init__(settings, database)
        try:
            import pyiceberg.table  # noqa: F401
        except ImportError as error:
            raise without_driver(database, error) from None
        with self._named():
            self._catalog = open_catalog(database, where)

    def prepare(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable) -> None:
        from pyiceberg.exceptions import NoSuchTableError

        if len(table.path) != 2:
            raise TargetError(
                f"lake '{self.database}': a table of Iceberg is in a namespace; write "
                f"{self.database}.<namespace>.{table.path[-1]}"
            )
        with self._named():
            require_no_clash(self.database, table)
            query = no_rows_sql([*typed_columns(table), partition_column(table)])
            wanted = described(cursor, query)
            try:
                found = self._catalog.load_table(table.path)
            except NoSuchTableError:
                found = self._create(table, arrow_reader(cursor, query).schema)
            stored = described_schema(cursor, found.schema().as_arrow())
            require_columns(self.database, table, stored, wanted)

    def _inside(self, table: TargetTable, part: Part) -> str:
        return f"{table.partition} = {literal(part.label)}"

    def _create(self, table: TargetTable, columns: pa.Schema) -> "Table":
        """The table with its partitions, made by one commit."""
        from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids
        from pyiceberg.partitioning import PartitionField, PartitionSpec
        from pyiceberg.schema import assign_fresh_schema_ids
        from pyiceberg.transforms import IdentityTransform

        schema = assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(columns))
        source = schema.find_field(table.partition).field_id
        spec = PartitionSpec(PartitionField(source, 1000, IdentityTransform(), table.partition))
        self._catalog.create_namespace_if_not_exists(table.path[:-1])
        return self._catalog.create_table_if_not_exists(table.path, schema, partition_spec=spec)

    def _replace(
        self,
        cursor: duckdb.DuckDBPyConnection,
        table: TargetTable,
        part: Part,
        here: str,
        where: str = "true",
    ) -> None:
        rows = self._rows(cursor, table, part, where)
        self._retried(lambda: self._overwrite(table, here, rows))

    def _overwrite(self, table: TargetTable, here: str, rows: pa.Table) -> None:
        found = self._load(table)
        is_there = found.scan(here).count() > 0
        if rows.num_rows:
            # To delete nothing pyiceberg warns of.
            found.overwrite(rows, here) if is_there else found.append(rows)
        elif is_there:
            found.delete(here)

    def _count(
        self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part, here: str
    ) -> int:
        return self._load(table).scan(here).count()

    def _merge(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        require_keys(cursor, self.database, table, part)
        rows = self._rows(cursor, table, part)
        same = _any_of(rows, table.key)

        def merge() -> None:
            found = self._load(table)
            cursor.register(STORED, found.scan(same).to_arrow())
            # A row that is newer there stays.
            older = f"FROM ({self._query(table, part)}) s ANTI JOIN {STORED} t ON {_newer(table)}"
            news = arrow_reader(cursor, older).read_all()
            if news.num_rows:
                found.upsert(news, list(table.key))

        self._retried(merge)
        cursor.register(STORED, self._load(table).scan(same).to_arrow())
        found = count(cursor, later_sql(table, part, STORED))
        cursor.unregister(STORED)
        return found

    def _rows(
        self,
        cursor: duckdb.DuckDBPyConnection,
        table: TargetTable,
        part: Part,
        where: str = "true",
    ) -> pa.Table:
        query = f"FROM ({self._query(table, part)}) WHERE {where}"
        return arrow_reader(cursor, query).read_all()

    def _load(self, table: TargetTable) -> "Table":
        return self._catalog.load_table(table.path)

    def _retried(self, attempt: Callable[[], T]) -> T:
        """Commit again, on top of what others have committed meanwhile."""
        from pyiceberg.exceptions import CommitFailedException

        for left in range(ATTEMPTS - 1, -1, -1):
            try:
                return attempt()
            except CommitFailedException:
                if not left:
                    raise
            time.sleep(random.uniform(0, LONGEST_WAIT_SECONDS / (left + 1)))
        raise AssertionError("unreachable: the last attempt returns or raises")


def _any_of(rows: pa.Table, key: tuple[str, ...]) -> "BooleanExpression":
    """Rows of a table that may have one of some keys."""
    from pyiceberg.table.upsert_util import create_match_filter

    return create_match_filter(rows, list(key))


def _newer(table: TargetTable) -> str:
    same = " AND ".join(f"t.{quote(c)} = s.{quote(c)}" for c in table.key)
    return f"{same} AND t.event_time > s.event_time"
