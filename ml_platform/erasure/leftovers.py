"""Files that no snapshot reads: those that wait to be deleted, and those of killed writers."""

from collections.abc import Iterable
from datetime import UTC, datetime

import duckdb

from ml_platform.erasure.lake_rows import QUARANTINE, RECORD, columns_of
from ml_platform.erasure.matching import Matching
from ml_platform.spec.queries import literal
from ml_platform.storage import Lake
from ml_platform.storage.known_files import METADATA, OF_DUCKLAKE
from ml_platform.storage.orphans import LEFT_AFTER, find_orphans
from ml_platform.storage.renaming import discard, hasten

DELETES = "-delete.parquet"
NO_FOOTER = "No magic bytes found at end of file"
"""What DuckDB says of a Parquet file whose writer did not come to its end."""


def flush_inlined(lake: Lake, cursor: duckdb.DuckDBPyConnection, schema: str) -> None:
    """Have rows in files that other tools left in the catalog."""
    rows = cursor.execute(
        f"""SELECT DISTINCT t.table_name FROM {METADATA}.ducklake_inlined_data_tables i
        JOIN {METADATA}.ducklake_table t USING (table_id)
        JOIN {METADATA}.ducklake_schema s USING (schema_id)
        WHERE s.schema_name = {literal(schema)} AND t.end_snapshot IS NULL"""
    ).fetchall()
    for (table,) in rows:
        cursor.execute(
            f"CALL ducklake_flush_inlined_data('lake', schema_name => {literal(schema)}, "
            f"table_name => {literal(table)})"
        ).fetchall()


def erase_leftovers(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, matching: Matching, *, dry_run: bool
) -> tuple[int, list[str]]:
    """Have files deleted that no snapshot reads and that hold the entity, or may.

    How many those are, and which may be a writer's who is about to commit: these stay.
    """
    root = lake.settings.lake_files_uri.rstrip("/")
    scheduled = cursor.execute(
        f"""SELECT path, path_is_relative FROM {METADATA}.ducklake_files_scheduled_for_deletion
        WHERE NOT ends_with(path, {literal(DELETES)})"""
    ).fetchall()
    known = {f"{root}/{path}" if is_relative else path: path for path, is_relative in scheduled}
    waiting = _holding(matching, known, unreadable=True)
    old = {*find_orphans(lake, cursor, datetime.now(UTC) - LEFT_AFTER).files}
    every = find_orphans(lake, cursor, datetime.now(UTC)).files
    written = [path for path in every if OF_DUCKLAKE.search(path)]
    holds = dict.fromkeys(_holding(matching, written), "holds rows of it")
    own = f"{root}/{matching.use_case.name}/"
    unfinished = _unfinished(cursor, [path for path in written if path.startswith(own)])
    found = {**dict.fromkeys(unfinished, "ends too early to be read and may hold it"), **holds}
    if not dry_run:
        hasten(lake, cursor, [known[path] for path in waiting])
        discard(lake, cursor, [path for path in found if path in old])
    young = {path: what for path, what in found.items() if path not in old}
    return len(waiting) + len(found) - len(young), [
        f"{path} {what}: it is being written, or was left by a writer who was killed; do the same "
        "again when it is a day old"
        for path, what in young.items()
    ]


def _unfinished(cursor: duckdb.DuckDBPyConnection, paths: Iterable[str]) -> list[str]:
    """Those of some Parquet files whose end was not written, but rows of which may be there."""
    found = []
    for path in paths:
        try:
            cursor.execute(f"SELECT 1 FROM parquet_file_metadata({literal(path)})").fetchall()
        except duckdb.IOException:
            continue
        except duckdb.Error as error:
            # A file that is too small for a footer is too small for a row.
            if NO_FOOTER in str(error):
                found.append(path)
    return found


def _holding(matching: Matching, paths: Iterable[str], *, unreadable: bool = False) -> list[str]:
    """Those of some Parquet files that hold rows of the entity.

    unreadable: also those that nothing can read any more, as the key of an encrypted file went with
    its row of the catalog. One that is gone holds nothing.
    """
    found = []
    for path in paths:
        if path.endswith(DELETES):
            continue
        relation = f"read_parquet({literal(path)}, hive_partitioning = false)"
        try:
            columns = columns_of(matching.cursor, relation)
            is_quarantine = f"/{QUARANTINE}/" in path and RECORD in columns
            where = matching.of_record(RECORD) if is_quarantine else matching.of_columns(columns)
            query = f"SELECT 1 FROM {relation} WHERE {where} LIMIT 1"
            if where is not None and matching.cursor.execute(query).fetchone():
                found.append(path)
        except duckdb.IOException:
            continue
        except duckdb.Error as error:
            if unreadable and "encrypt" in str(error).lower():
                found.append(path)
    return found
