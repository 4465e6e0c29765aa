"""Snapshots that the platform adds to DuckLake's catalog itself, where DuckLake has no call."""

from collections.abc import Iterable

import duckdb

from ml_platform.spec.queries import literal
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.lake import Commit


def add_snapshot(cursor: duckdb.DuckDBPyConnection, tables: Iterable[int], commit: Commit) -> int:
    """Add a snapshot that says that rows of tables were deleted; its number.

    Whoever changes one of these tables meanwhile, or merges its files, has to begin again.
    cursor: within a transaction of the catalog. tables: ids in DuckLake's catalog, in order.
    """
    row = cursor.execute(f"SELECT max(snapshot_id) FROM {METADATA}.ducklake_snapshot").fetchone()
    assert row is not None
    snapshot = int(row[0]) + 1
    cursor.execute(
        f"""INSERT INTO {METADATA}.ducklake_snapshot
            (snapshot_id, snapshot_time, schema_version, next_catalog_id, next_file_id)
        SELECT {snapshot}, now(), schema_version, next_catalog_id, next_file_id
        FROM {METADATA}.ducklake_snapshot WHERE snapshot_id = {snapshot - 1}"""
    )
    changes = ",".join(f"deleted_from_table:{table}" for table in tables)
    cursor.execute(
        f"""INSERT INTO {METADATA}.ducklake_snapshot_changes
            (snapshot_id, changes_made, author, commit_message, commit_extra_info)
        VALUES ({snapshot}, {literal(changes)}, {literal(commit.author)},
            {literal(commit.message)}, {literal(commit.extra_info)})"""
    )
    return snapshot
