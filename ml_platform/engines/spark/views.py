"""Tables of the lake at a snapshot, as views that Spark reads from their Parquet files.

DuckDB itself says which rows of which file a snapshot holds. Which rows of a file it does not hold
any more is written to a file beside; nothing else passes through this process.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from ml_platform.engines.spark.places import Folder, spark_path
from ml_platform.engines.spark.types import spark_type
from ml_platform.errors import EngineFailed
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.spark_sql import LakeTable
from ml_platform.spec.windows import Window
from ml_platform.storage.known_files import KEY_PATTERN, METADATA, file_key
from ml_platform.storage.lake import Lake
from ml_platform.storage.tables import WINDOW_START, naive_utc

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

VIRTUAL = frozenset({"filename", "file_row_number"})


@dataclass(frozen=True)
class SnapshotFiles:
    """The files of a table at a snapshot."""

    whole: tuple[str, ...]
    """Files all of whose rows are part of it."""
    partial: tuple[str, ...]
    """Files of which some rows are not."""
    gone: str | None
    """A file of `name` and `position` of those rows."""


def create_view(
    session: "SparkSession",
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    table: LakeTable,
    within: Window | None,
    scratch: Folder,
) -> None:
    """Let Spark's queries read a table by `table.view`.

    within: the range of windows that is read; None for all.
    """
    relation = lake.relation(cursor, table.schema, table.name, table.snapshot)
    columns = _columns(cursor, relation)
    if taken := VIRTUAL & {name.lower() for name in columns}:
        raise EngineFailed(
            f"engine spark: {table.schema}.{table.name} has a column '{min(taken)}', by whose name "
            "DuckLake says where a row is; rename it, or compute the table in process"
        )
    files = _files(cursor, table, within, scratch)
    _dataframe(session, files, columns).createOrReplaceTempView(table.view)


def _columns(cursor: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    rows = cursor.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {name: spark_type(kind, name) for name, kind, *_ in rows}


def _files(
    cursor: duckdb.DuckDBPyConnection,
    table: LakeTable,
    within: Window | None,
    scratch: Folder,
) -> SnapshotFiles:
    where = "true"
    if within is not None:
        first, end = (literal(str(naive_utc(at))) for at in (within.start, within.end))
        where = f"{WINDOW_START} >= TIMESTAMP {first} AND {WINDOW_START} < TIMESTAMP {end}"
    named = f"(SELECT *, filename, file_row_number FROM {_located(table)})"
    found = cursor.execute(f"SELECT DISTINCT filename FROM {named} WHERE {where}").fetchall()
    names = [name for (name,) in found]
    listed = ", ".join(map(literal, names)) or "NULL"
    counted = cursor.execute(
        f"SELECT filename, count(*) FROM {named} WHERE filename IN ({listed}) GROUP BY 1"
    ).fetchall()
    held = _record_counts(cursor, table)
    partial = [name for name, count in counted if count != held[file_key(name)]]
    gone = None
    if partial:
        parts = [
            f"SELECT {literal(key)} AS name, position FROM range({held[key]:d}) r(position) "
            f"ANTI JOIN (SELECT file_row_number AS position FROM {named} "
            f"WHERE filename = {literal(name)}) USING (position)"
            for name, key in zip(partial, map(file_key, partial), strict=True)
        ]
        gone = scratch.write(cursor, " UNION ALL ".join(parts), f"{table.view}_gone")
    whole = tuple(name for name in names if name not in partial)
    return SnapshotFiles(whole, tuple(partial), gone)


def _located(table: LakeTable) -> str:
    # The columns that say where a row is are those of the table itself, not of a query of it.
    at = "" if table.snapshot is None else f" AT (VERSION => {table.snapshot:d})"
    return f"lake.{quote(table.schema)}.{quote(table.name)}{at}"


def _record_counts(cursor: duckdb.DuckDBPyConnection, table: LakeTable) -> Mapping[str, int]:
    rows = cursor.execute(
        f"""SELECT f.path, f.record_count FROM {METADATA}.ducklake_data_file f
        JOIN {METADATA}.ducklake_table t USING (table_id)
        JOIN {METADATA}.ducklake_schema s USING (schema_id)
        WHERE s.schema_name = {literal(table.schema)} AND t.table_name = {literal(table.name)}"""
    ).fetchall()
    return {file_key(path): count for path, count in rows}


def _dataframe(
    session: "SparkSession", files: SnapshotFiles, columns: Mapping[str, str]
) -> "DataFrame":
    from pyspark.sql import functions as f

    # A column that a file lacks is NULL in it, as for DuckLake.
    schema = ", ".join(f"`{name}` {kind}" for name, kind in columns.items())
    reader = session.read.schema(schema)

    def read(paths: tuple[str, ...]) -> "DataFrame":
        return reader.parquet(*map(spark_path, paths))

    parts = [read(files.whole)] if files.whole else []
    if files.partial and files.gone is not None:
        path = f.url_decode(f.col("_metadata.file_path"))
        rows = read(files.partial).select(
            "*",
            f.regexp_extract(path, KEY_PATTERN, 0).alias("__name"),
            f.col("_metadata.row_index").alias("__position"),
        )
        gone = session.read.parquet(spark_path(files.gone)).toDF("__name", "__position")
        parts.append(rows.join(gone, ["__name", "__position"], "left_anti").select(*columns))
    if not parts:
        return session.createDataFrame([], schema)
    return parts[0] if len(parts) == 1 else parts[0].unionAll(parts[1])
