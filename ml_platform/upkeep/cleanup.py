"""Files that no snapshot needs any more are deleted, a day after they were last needed."""

from dataclasses import dataclass
from datetime import datetime

import duckdb

from ml_platform.errors import LakeError
from ml_platform.spec.queries import literal
from ml_platform.storage import Lake
from ml_platform.storage.known_files import METADATA, file_key
from ml_platform.storage.orphans import Orphans, find_orphans

IN_USE = ("ducklake_data_file", "ducklake_delete_file")


@dataclass(frozen=True)
class Cleaned:
    """Files that were deleted, or would be."""

    scheduled: tuple[str, ...]
    """Those that were merged into others, or whose snapshots have expired."""
    orphans: Orphans


def find_files(lake: Lake, older_than: datetime) -> Cleaned:
    """What `delete_scheduled` and `sweep_orphans` would delete.

    Raises LakeError as they do, but for files of others.
    """
    with lake.cursor() as cursor:
        return Cleaned(_scheduled(cursor, older_than), find_orphans(lake, cursor, older_than))


def delete_scheduled(lake: Lake, older_than: datetime) -> tuple[str, ...]:
    """Delete files that were needed last before a moment.

    Raises LakeError where the catalog still names one of them as part of a table.
    """
    with lake.cursor() as cursor:
        found = _scheduled(cursor, older_than)
        if found:
            cursor.execute(f"FROM {_call(older_than, dry_run=False)}").fetchall()
    return found


def _scheduled(cursor: duckdb.DuckDBPyConnection, older_than: datetime) -> tuple[str, ...]:
    rows = cursor.execute(f"FROM {_call(older_than, dry_run=True)}").fetchall()
    found = sorted(path for (path,) in rows)
    union = " UNION ".join(f"SELECT path FROM {METADATA}.{table}" for table in IN_USE)
    in_use = {file_key(path) for (path,) in cursor.execute(union).fetchall()} if found else set()
    if wrong := [path for path in found if file_key(path) in in_use]:
        raise LakeError(
            f"{wrong[0]} is scheduled for deletion, and the catalog names it as part of a table; "
            "nothing was deleted"
        )
    return tuple(found)


def _call(older_than: datetime, *, dry_run: bool) -> str:
    return (
        f"ducklake_cleanup_old_files('lake', dry_run => {str(dry_run).lower()}, "
        f"older_than => TIMESTAMPTZ {literal(older_than.isoformat())})"
    )
