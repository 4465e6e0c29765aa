"""Data files that nothing names: what writers leave who are killed before they commit."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb

from ml_platform.errors import LakeError
from ml_platform.spec.queries import literal
from ml_platform.storage.known_files import METADATA, OF_DUCKLAKE, file_key
from ml_platform.storage.lake import Lake

LEFT_AFTER = timedelta(days=1)
"""A file that nothing names and that is younger may be one of a writer who is about to commit."""
NAMED_IN = ("ducklake_data_file", "ducklake_delete_file", "ducklake_files_scheduled_for_deletion")


@dataclass(frozen=True)
class Orphans:
    """Files below the lake's folder that no snapshot names."""

    files: tuple[str, ...]
    """Those that the platform wrote; they are swept."""
    foreign: tuple[str, ...] = ()
    """Parquet files of others, which are never touched."""


def find_orphans(lake: Lake, cursor: duckdb.DuckDBPyConnection, older_than: datetime) -> Orphans:
    """Files that were written before a moment and that nothing names; nothing is deleted.

    Raises LakeError where the catalog names one of them: then it is not what it seems to be.
    """
    rows = cursor.execute(f"FROM {_call(older_than, dry_run=True)}").fetchall()
    found = sorted(path for (path,) in rows)
    files = tuple(path for path in found if OF_DUCKLAKE.search(path))
    named = _named(cursor)
    if wrong := [path for path in files if file_key(path) in named]:
        raise LakeError(
            f"{wrong[0]} would be deleted as one that nothing names, and the catalog names it; "
            "nothing was deleted. Is `lake_files` the folder that the lake was made with?"
        )
    return Orphans(files, tuple(path for path in found if path not in files))


def sweep_orphans(lake: Lake, older_than: datetime) -> Orphans:
    """Delete what `find_orphans` finds; nothing where there are files of others beside it.

    Raises as it does.
    """
    with lake.cursor() as cursor:
        found = find_orphans(lake, cursor, older_than)
        if found.foreign:
            raise LakeError(
                f"{found.foreign[0]} is below the lake's folder and is none of its files; move it, "
                f"then {len(found.files)} files of killed writers can be swept"
            )
        if found.files:
            cursor.execute(f"FROM {_call(older_than, dry_run=False)}").fetchall()
    return found


def _named(cursor: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Keys of every file that the catalog knows; each is there once."""
    union = " UNION ".join(f"SELECT path FROM {METADATA}.{table}" for table in NAMED_IN)
    return frozenset(file_key(path) for (path,) in cursor.execute(union).fetchall())


def _call(older_than: datetime, *, dry_run: bool) -> str:
    return (
        f"ducklake_delete_orphaned_files('lake', dry_run => {str(dry_run).lower()}, "
        f"older_than => TIMESTAMPTZ {literal(older_than.isoformat())})"
    )
