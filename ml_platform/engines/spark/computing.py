"""A query over the lake, computed by Spark and written to files that the lake can take over."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

import duckdb

from ml_platform.engines.spark.places import Folder, new_folder, scratch_folder, spark_path
from ml_platform.engines.spark.session import failure, spark_session
from ml_platform.engines.spark.types import spark_type
from ml_platform.engines.spark.views import create_view
from ml_platform.errors import EngineFailed, PlatformError
from ml_platform.spec.spark_sql import translate
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Basis, Lake, Table
from ml_platform.storage.data_files import (
    DataFiles,
    named_below,
    require_no_encryption,
    table_folder,
)
from ml_platform.storage.tables import WINDOW_START, canonical_types, duplicated

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

YEAR, MONTH = "year", "month"


@dataclass(frozen=True)
class Engine:
    """A session of Spark that reads the lake at one snapshot."""

    session: "SparkSession"
    lake: Lake
    cursor: duckdb.DuckDBPyConnection
    use_case: UseCase
    basis: Basis
    scratch: Folder

    def rows(self, sql: str) -> "DataFrame":
        """The rows of a query of DuckDB over tables of the lake.

        Raises Untranslatable where it is not known to mean the same in Spark.
        """
        query = translate(sql, self.use_case.timezone)
        for table in sorted(query.reads, key=lambda table: table.view):
            create_view(
                self.session, self.lake, self.cursor, table, self._within(table.name), self.scratch
            )
        return self.session.sql(query.sql)

    def _within(self, table: str) -> Window | None:
        """The windows of a table that the computation depends on, as its basis says."""
        found = [read.within for read in self.basis.reads if read.table == table and read.within]
        if not found or any(r.table == table and r.within is None for r in self.basis.reads):
            return None
        first, end = min(first for first, _ in found), max(end for _, end in found)
        return Window(first.replace(tzinfo=UTC), end.replace(tzinfo=UTC))

    def written(self, table: Table, rows: "DataFrame") -> tuple[DataFiles, Folder]:
        """Write rows of a table, with their `window_start`, to files; what they are and where.

        Raises DuplicateRows.
        """
        from pyspark.sql import functions as f

        kinds = canonical_types(self.cursor, table.columns.values())
        typed = {
            name: spark_type(kind, name) for name, kind in zip(table.columns, kinds, strict=True)
        }
        columns = [f.col(name).cast(kind).alias(name) for name, kind in typed.items()]
        # Their names are those of the folders, by which DuckLake knows the month of a file.
        hidden = {YEAR, MONTH} & {name.lower() for name in table.columns}
        year, month = (f"__{name}" if hidden else name for name in (YEAR, MONTH))
        start = f.col(WINDOW_START)
        placed = rows.select(
            start, *columns, f.year(start).alias(year), f.month(start).alias(month)
        )
        folder = new_folder(table_folder(self.lake, self.cursor, table))
        try:
            (
                placed.hint("rebalance", year, month)
                .sortWithinPartitions(year, month, WINDOW_START, *table.order)
                .write.partitionBy(year, month)
                .parquet(spark_path(folder.path))
            )
            files = folder.files(self.cursor)
            self._refuse_duplicates(table, files)
        except BaseException:
            folder.remove()
            raise
        return DataFiles(files), folder

    def _refuse_duplicates(self, table: Table, files: tuple[str, ...]) -> None:
        if not files:
            return
        from pyspark.sql import functions as f

        rows = self.session.read.parquet(*map(spark_path, files))
        counted = rows.groupBy(WINDOW_START, *table.order).agg(f.count("*").alias("__count"))
        twice = counted.where("__count > 1").orderBy(*table.order).limit(1).collect()
        if twice:
            _, *row = twice[0]
            raise duplicated(table, row)


@contextmanager
def written_by_spark(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    basis: Basis,
    table: Table,
    rows: Callable[[Engine], "DataFrame"],
) -> Iterator[DataFiles]:
    """Files of the rows of a table, for a transaction that takes them over in the body.

    Files that it did not take over, since their rows were copied or it failed, are deleted.
    Raises as `spark_engine` does, and DuplicateRows.
    """
    with spark_engine(lake, cursor, use_case, basis) as engine:
        files, folder = engine.written(table, rows(engine))
    try:
        yield files
    finally:
        folder.remove(named_below(cursor, folder.path))


@contextmanager
def spark_engine(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, basis: Basis
) -> Iterator[Engine]:
    """Spark over the lake as a computation's basis has it.

    Raises LakeError for an encrypted lake, EngineFailed for whatever Spark says.
    """
    settings = lake.settings
    require_no_encryption(cursor, "engine spark")
    with (
        spark_session(settings, use_case.timezone) as session,
        scratch_folder(settings.lake_files_uri.rstrip("/")) as scratch,
    ):
        try:
            yield Engine(session, lake, cursor, use_case, basis, scratch)
        except (PlatformError, duckdb.Error):
            raise
        except Exception as error:
            # Py4J, gRPC and pyspark each have errors of their own.
            raise EngineFailed(failure(settings, use_case.name, error)) from error
