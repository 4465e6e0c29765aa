"""Bringing a deployment back from a backup, on a machine that has nothing but the settings."""

import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from ml_platform.errors import BackupRefused
from ml_platform.settings import Settings
from ml_platform.storage import Lake, allow_object_stores, connect_with
from ml_platform.storage.lost_files import find_lost
from ml_platform.storage.stored_files import Content, StoredFiles
from ml_platform.upkeep.archive import Archive, ArchiveEntry, Backup
from ml_platform.upkeep.backup import opened_archive
from ml_platform.upkeep.catalogs import require_none, restore_catalog
from ml_platform.upkeep.parts import (
    ARTIFACTS,
    CATALOG,
    DAGSTER,
    MLFLOW,
    Places,
    dagster_folder,
    mlflow_database,
)

Say = Callable[[str], None]
LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Columns in which MLflow keeps where artifacts are, by table."""


@dataclass(frozen=True)
class Restored:
    """What came back."""

    backup: Backup
    written: int
    """Files that were written; the others were there already."""
    left_out: tuple[str, ...]
    """What the backup does not hold, and parts of it that the settings give to a server."""


def restore(settings: Settings, target: str, name: str | None, say: Say) -> Restored:
    """Write everything of a backup where the settings say that it belongs.

    The catalog comes last: what was interrupted is no lake yet, and the same command continues it.
    name: of the backup, by default the newest. Raises BackupRefused where a file that is there
    holds something else, or a content of the backup is damaged; LakeError where there is a lake
    already.
    """
    require_none(settings)
    with (
        closing(opened_without_lake(settings)) as database,
        tempfile.TemporaryDirectory() as scratch,
    ):
        archive = opened_archive(database, target)
        backup = archive.backup(name)
        work = _RestoreJob(settings, archive, backup, StoredFiles(database, scratch))
        places = _places(settings, backup)
        written = 0
        for part, place in places.items():
            entries = backup.of(part)
            say(f"{part}: {len(entries):,} files to {place}")
            files = StoredFiles(database, place)
            bring = _bring_mlflow if part == MLFLOW else _bring
            written += sum(bring(work, entry, files) for entry in entries)
        say("the catalog")
        (entry,) = backup.of(CATALOG)
        archive.fetch(entry, work.scratch, entry.name)
        restore_catalog(settings, Path(scratch, entry.name))
    _require_whole(settings)
    dropped = {entry.part for entry in backup.entries} - {*places, CATALOG}
    left_out = tuple(f"{part}: the settings name a server for it" for part in sorted(dropped))
    return Restored(backup, written + 1, (*backup.left_out, *left_out))


@dataclass(frozen=True)
class _RestoreJob:
    """One backup that is being restored."""

    settings: Settings
    archive: Archive
    backup: Backup
    scratch: StoredFiles


def opened_without_lake(settings: Settings) -> duckdb.DuckDBPyConnection:
    """A DuckDB that reaches what the lake's would, without a lake."""
    database = connect_with("httpfs", *settings.extensions)
    allow_object_stores(database, settings)
    return database


def _places(settings: Settings, backup: Backup) -> Mapping[str, str]:
    """Where the parts of a backup belong now, in the order in which they are written."""
    now = dict(Places.of(settings).folders)
    if backup.of(DAGSTER):
        now.setdefault(DAGSTER, dagster_folder(settings))
    now.pop(CATALOG)
    return {part: place for part, place in now.items() if backup.of(part)}


def _bring(work: _RestoreJob, entry: ArchiveEntry, files: StoredFiles) -> bool:
    """Write a file unless it is there; whether it was written."""
    if _is_there(files, entry.name, entry.content):
        return False
    work.archive.fetch(entry, files, entry.name)
    return True


def _bring_mlflow(work: _RestoreJob, entry: ArchiveEntry, files: StoredFiles) -> bool:
    """Write MLflow's database, which says where artifacts are now."""
    work.archive.fetch(entry, work.scratch, entry.name)
    if (now := Places.of(work.settings).folders.get(ARTIFACTS)) is not None:
        move_artifacts(Path(work.scratch.at(entry.name)), now)
    name = mlflow_database(work.settings).name
    if _is_there(files, name, work.scratch.content(entry.name)):
        return False
    files.copy(name, work.scratch, entry.name)
    return True


def _is_there(files: StoredFiles, name: str, content: Content) -> bool:
    """Whether a file is there; BackupRefused where it holds something else."""
    size = files.size(name)
    if size is None:
        return False
    if size == content.bytes and files.content(name) == content:
        return True
    raise BackupRefused(
        f"{files.at(name)} exists and is not that of the backup; restore into empty folders, or "
        "move it away"
    )


def move_artifacts(database: Path, now: str) -> None:
    """Have MLflow look below another place for the artifacts of the platform's experiments."""
    root = now if "://" in now else Path(now).as_uri()
    with closing(sqlite3.connect(database)) as connection, connection:
        rows = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
        for name, old in rows:
            new = f"{root}/{name}"
            if not old.endswith(f"/{name}") or old == new:
                continue
            for table, columns in LOCATIONS.items():
                for column in columns:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        [new, len(old) + 1, old, len(old) + 1, f"{old}/"],
                    )


def _require_whole(settings: Settings) -> None:
    lake = Lake(settings, read_only=True, is_upgrading=True)
    try:
        with lake.cursor() as cursor:
            found = find_lost(cursor, settings.lake_files_uri)
    finally:
        lake.close()
    if lost := [each for each in found if each.file.is_current]:
        raise BackupRefused(f"the lake was restored and is not whole: {lost[0]}")
