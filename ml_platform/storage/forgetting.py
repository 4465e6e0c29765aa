"""Taking lost data files out of the newest snapshot, so that what they held can be written again.

DuckLake cannot delete rows of a file that it cannot read. What it writes where all rows of a file
are deleted is a new snapshot from which on the file is not read; the same is written here. Older
snapshots still name the file.
"""

from collections.abc import Collection
from contextlib import suppress

import duckdb

from ml_platform.errors import LakeError
from ml_platform.spec.queries import literal
from ml_platform.storage.attaching import turns_file
from ml_platform.storage.known_files import METADATA, KnownFile
from ml_platform.storage.lake import Commit, Lake
from ml_platform.storage.turns import retried, turn


def forget_files(lake: Lake, files: Collection[KnownFile], commit: Commit) -> int:
    """Have the newest snapshot read none of some files any more; returns its number.

    Their rows are gone from it. Raises LakeError where one of them is no longer read by it.
    """
    with lake.cursor() as cursor:

        def attempt() -> int:
            with turn(turns_file(lake.settings)):
                return _forgotten(cursor, files, commit)

        what = commit.message or "forgetting data files"
        return lake.patience(lambda: retried(attempt, lake.settings.commit_retries, what))


def _forgotten(
    cursor: duckdb.DuckDBPyConnection, files: Collection[KnownFile], commit: Commit
) -> int:
    ids = ", ".join(sorted(str(file.id) for file in files))
    cursor.execute("BEGIN")
    try:
        rows = cursor.execute(
            f"""SELECT DISTINCT table_id FROM {METADATA}.ducklake_data_file
            WHERE data_file_id IN ({ids}) AND end_snapshot IS NULL ORDER BY 1"""
        ).fetchall()
        count = cursor.execute(
            f"""SELECT count(*) FROM {METADATA}.ducklake_data_file
            WHERE data_file_id IN ({ids}) AND end_snapshot IS NULL"""
        ).fetchone()
        if count != (len({file.id for file in files}),):
            raise LakeError("data files were replaced meanwhile; do the same again")
        row = cursor.execute(
            f"SELECT max(snapshot_id) FROM {METADATA}.ducklake_snapshot"
        ).fetchone()
        assert row is not None
        snapshot = int(row[0]) + 1
        cursor.execute(
            f"""INSERT INTO {METADATA}.ducklake_snapshot
                (snapshot_id, snapshot_time, schema_version, next_catalog_id, next_file_id)
            SELECT {snapshot}, now(), schema_version, next_catalog_id, next_file_id
            FROM {METADATA}.ducklake_snapshot WHERE snapshot_id = {snapshot - 1}"""
        )
        changes = ",".join(f"deleted_from_table:{table}" for (table,) in rows)
        cursor.execute(
            f"""INSERT INTO {METADATA}.ducklake_snapshot_changes
                (snapshot_id, changes_made, author, commit_message, commit_extra_info)
            VALUES ({snapshot}, {literal(changes)}, {literal(commit.author)},
                {literal(commit.message)}, {literal(commit.extra_info)})"""
        )
        for kind in ("data", "delete"):
            cursor.execute(
                f"""UPDATE {METADATA}.ducklake_{kind}_file SET end_snapshot = {snapshot}
                WHERE data_file_id IN ({ids}) AND end_snapshot IS NULL"""
            )
        cursor.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        raise
    return snapshot
