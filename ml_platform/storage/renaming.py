"""The catalog names other files in the place of some, for every snapshot that reads them."""

import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import duckdb

from ml_platform.spec.queries import literal
from ml_platform.storage.attaching import turns_file
from ml_platform.storage.known_files import METADATA, KnownFile
from ml_platform.storage.lake import Commit, Lake
from ml_platform.storage.own_snapshots import add_snapshot
from ml_platform.storage.parquet_columns import WrittenParquet
from ml_platform.storage.turns import retried, turn

AT_ONCE = "1970-01-01 00:00:00+00"
"""When files were scheduled for deletion whose deletion waits for nobody who may read them."""
SOON_AFTER = "1970-01-02 00:00:00+00"
FIRST_NUMBER = 1 << 61
FLOATS = {"float32": "FLOAT", "float64": "DOUBLE"}
"""Names of types in DuckLake's catalog that DuckDB does not know; it takes the others."""


@dataclass(frozen=True)
class Successor:
    """A file, and the one that takes its place; none does where nothing is left of it."""

    old: KnownFile
    new: WrittenParquet | None


def take_over(
    cursor: duckdb.DuckDBPyConnection, successors: Sequence[Successor], commit: Commit
) -> int | None:
    """Name the new files, in one transaction; the snapshot that says so.

    None, and nothing is done, where the catalog no longer names one of the old ones, or names more
    deletions of their rows.
    """
    cursor.execute("BEGIN")
    try:
        snapshot = None
        if _are_named(cursor, successors):
            snapshot = add_snapshot(cursor, _tables_of(cursor, successors), commit)
            for each in successors:
                _take_over(cursor, each)
            _measure_tables(cursor, successors)
        cursor.execute("COMMIT" if snapshot is not None else "ROLLBACK")
    except BaseException:
        with suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        raise
    return snapshot


def discard(lake: Lake, cursor: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    """Have files deleted at once that no table names."""

    def attempt() -> None:
        with turn(turns_file(lake.settings)):
            _schedule(cursor, paths)

    if paths:
        retried(attempt, lake.settings.commit_retries, "discarding data files")


def hasten(lake: Lake, cursor: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    """Have files deleted at once that are scheduled for deletion, under these paths."""
    listed = ", ".join(map(literal, paths))

    def attempt() -> None:
        with turn(turns_file(lake.settings)):
            cursor.execute(
                f"""UPDATE {METADATA}.ducklake_files_scheduled_for_deletion
                SET schedule_start = {literal(AT_ONCE)} WHERE path IN ({listed})"""
            )

    if paths:
        retried(attempt, lake.settings.commit_retries, "deleting data files")


def delete_at_once(lake: Lake, cursor: duckdb.DuckDBPyConnection) -> list[str]:
    """Delete the files that others have taken the place of; what was deleted.

    Queries that are about to read one of them fail; asked again, they read the other.
    """

    def attempt() -> list[str]:
        with turn(turns_file(lake.settings)):
            return [
                path
                for (path,) in cursor.execute(
                    f"""FROM ducklake_cleanup_old_files('lake', dry_run => false,
                    older_than => TIMESTAMPTZ {literal(SOON_AFTER)})"""
                ).fetchall()
            ]

    return retried(attempt, lake.settings.commit_retries, "deleting data files")


def _are_named(cursor: duckdb.DuckDBPyConnection, successors: Sequence[Successor]) -> bool:
    """Whether the catalog knows the same files as when their successors were written."""
    for kind in ("data", "delete"):
        olds = [s.old for s in successors if s.old.holds_deletes == (kind == "delete")]
        ids = ", ".join(str(s.old.id) for s in successors)
        rows = cursor.execute(
            f"""SELECT data_file_id, regexp_extract(path, '[^/]+$'), end_snapshot
            FROM {METADATA}.ducklake_{kind}_file WHERE data_file_id IN ({ids})"""
        ).fetchall()
        if sorted(rows, key=str) != sorted(
            ((old.id, old.path.rpartition("/")[2], old.ended_at) for old in olds), key=str
        ):
            return False
    return True


def _tables_of(cursor: duckdb.DuckDBPyConnection, successors: Sequence[Successor]) -> list[int]:
    ids = ", ".join(str(each.old.id) for each in successors)
    rows = cursor.execute(
        f"""SELECT DISTINCT table_id FROM {METADATA}.ducklake_data_file
        WHERE data_file_id IN ({ids}) ORDER BY 1"""
    ).fetchall()
    return [table for (table,) in rows]


def _take_over(cursor: duckdb.DuckDBPyConnection, each: Successor) -> None:
    old, new = each.old, each.new
    kind, count = ("delete", "delete_count") if old.holds_deletes else ("data", "record_count")
    name = old.path.rpartition("/")[2]
    where = f"data_file_id = {old.id} AND regexp_extract(path, '[^/]+$') = {literal(name)}"
    _schedule(cursor, [old.path])
    bounded: list[int] = []
    if not old.holds_deletes:
        statistics = f"FROM {METADATA}.ducklake_file_column_stats WHERE data_file_id = {old.id}"
        rows = cursor.execute(
            f"SELECT column_id {statistics} AND (min_value IS NOT NULL OR value_count = null_count)"
        ).fetchall()
        bounded = [column for (column,) in rows]
        cursor.execute(f"DELETE {statistics}")
    if new is None:
        cursor.execute(f"DELETE FROM {METADATA}.ducklake_{kind}_file WHERE {where}")
        if not old.holds_deletes:
            cursor.execute(
                f"DELETE FROM {METADATA}.ducklake_file_partition_value "
                f"WHERE data_file_id = {old.id}"
            )
        return
    # The new file has DuckLake's numbers in it, and no names have to be mapped to them any more.
    mapping = "" if old.holds_deletes else ", mapping_id = NULL"
    cursor.execute(
        f"""UPDATE {METADATA}.ducklake_{kind}_file
        SET path = replace(path, {literal(name)}, {literal(new.path.rpartition("/")[2])}),
            {count} = {new.rows}, file_size_bytes = {new.bytes}, footer_size = {new.footer},
            encryption_key = {"NULL" if new.key is None else literal(new.key)}{mapping}
        WHERE {where}"""
    )
    if not old.holds_deletes:
        _keep_statistics(cursor, old.id, new, bounded)


def _schedule(cursor: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    # What is deleted is taken off the list by its number, which those of DuckLake never reach.
    values = ", ".join(
        f"({FIRST_NUMBER + secrets.randbits(60)}, {literal(path)}, false, {literal(AT_ONCE)})"
        for path in paths
    )
    cursor.execute(f"INSERT INTO {METADATA}.ducklake_files_scheduled_for_deletion VALUES {values}")


def _keep_statistics(
    cursor: duckdb.DuckDBPyConnection,
    data_file: int,
    new: WrittenParquet,
    bounded: Collection[int],
) -> None:
    """bounded: columns of which DuckLake keeps the least and the greatest value."""
    values = []
    for column, found in new.statistics.items():
        least, greatest = (
            literal(found[name]) if name in found and column in bounded else "NULL::VARCHAR"
            for name in ("min", "max")
        )
        has_nan = found["has_nan"] == "true" if "has_nan" in found else "NULL::BOOLEAN"
        values.append(
            f"({column}, {found['column_size_bytes']}, {found['num_values']}, "
            f"{found.get('null_count', 0)}, {least}, {greatest}, {has_nan})"
        )
    if values:
        cursor.execute(
            f"""INSERT INTO {METADATA}.ducklake_file_column_stats
                (data_file_id, table_id, column_id, column_size_bytes, value_count, null_count,
                min_value, max_value, contains_nan)
            SELECT {data_file}, (SELECT table_id FROM {METADATA}.ducklake_data_file
                WHERE data_file_id = {data_file}), *
            FROM (VALUES {", ".join(values)})"""
        )


def _measure_tables(cursor: duckdb.DuckDBPyConnection, successors: Sequence[Successor]) -> None:
    """Correct what the catalog says of whole tables, whose extremes may have been erased."""
    listed = ", ".join(
        f"({literal(schema)}, {literal(table)})"
        for schema, table in sorted({(each.old.schema, each.old.table) for each in successors})
    )
    tables = f"""SELECT t.table_id FROM {METADATA}.ducklake_table t
        JOIN {METADATA}.ducklake_schema s USING (schema_id)
        WHERE (s.schema_name, t.table_name) IN ({listed})"""
    rows = cursor.execute(
        f"""SELECT s.table_id, s.column_id, any_value(c.column_type)
        FROM {METADATA}.ducklake_table_column_stats s
        JOIN {METADATA}.ducklake_column c USING (table_id, column_id)
        WHERE s.table_id IN ({tables}) GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    for table, column, kind in rows:
        least, greatest = _extremes(cursor, table, column, FLOATS.get(kind, kind))
        cursor.execute(
            f"""UPDATE {METADATA}.ducklake_table_column_stats
            SET min_value = {least}, max_value = {greatest}
            WHERE table_id = {table} AND column_id = {column}"""
        )
    for (table,) in cursor.execute(f"SELECT DISTINCT * FROM ({tables})").fetchall():
        row = cursor.execute(
            f"""SELECT coalesce(sum(record_count), 0), coalesce(sum(file_size_bytes), 0)
            FROM {METADATA}.ducklake_data_file WHERE table_id = {table} AND end_snapshot IS NULL"""
        ).fetchone()
        assert row is not None
        cursor.execute(
            f"""UPDATE {METADATA}.ducklake_table_stats
            SET record_count = {row[0]}, file_size_bytes = {row[1]} WHERE table_id = {table}"""
        )


def _extremes(
    cursor: duckdb.DuckDBPyConnection, table: int, column: int, kind: str
) -> tuple[str, str]:
    """The least and the greatest value of a column's files, as SQL; NULL where it is not known."""
    row = None
    with suppress(duckdb.CatalogException, duckdb.ParserException):
        row = cursor.execute(
            f"""SELECT arg_min(min_value, TRY_CAST(min_value AS {kind})),
                arg_max(max_value, TRY_CAST(max_value AS {kind})),
                bool_and(TRY_CAST(min_value AS {kind}) IS NOT NULL
                    AND TRY_CAST(max_value AS {kind}) IS NOT NULL OR value_count = null_count)
            FROM {METADATA}.ducklake_file_column_stats
            WHERE table_id = {table} AND column_id = {column}"""
        ).fetchone()
    if row is None or not row[2] or row[0] is None or row[1] is None:
        return "NULL", "NULL"
    return literal(row[0]), literal(row[1])
