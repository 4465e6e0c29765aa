"""Taking lost data files out of the newest snapshot, so that what they held can be written again.

DuckLake cannot delete rows of a file that it cannot read. What it writes where all rows of a file
are deleted is a new snapshot from which on the file is not read; the same is written here. Older
snapshots still name the file.
"""

from collections.abc import Collection
from contextlib import suppress

import duckdb

from ml_platform.errors import LakeError
from ml_platform.storage.attaching import turns_file
from ml_platform.storage.known_files import METADATA, KnownFile
from ml_platform.storage.lake import Commit, Lake
from ml_platform.storage.own_snapshots import add_snapshot
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
        snapshot = add_snapshot(cursor, (table for (table,) in rows), commit)
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
