"""Backups of all that a deployment keeps, made while it runs; what did not change is not copied."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import duckdb

from ml_platform.errors import BackupRefused
from ml_platform.settings import Settings
from ml_platform.storage import Lake
from ml_platform.storage.attaching import attached
from ml_platform.storage.extensions import load_extension
from ml_platform.storage.schema_versions import KNOWN
from ml_platform.storage.stored_files import Content, StoredFiles
from ml_platform.upkeep.archive import Archive, ArchiveEntry, Backup
from ml_platform.upkeep.catalogs import as_file, copied_files, copy_catalog, copy_sqlite, name_below
from ml_platform.upkeep.parts import (
    ARTIFACTS,
    CATALOG,
    LAKE,
    LANDING,
    MLFLOW,
    Places,
    is_database,
    mlflow_database,
)

CATALOG_FILE = "catalog.sqlite"
OPENED_BY = {"s3": "httpfs", "az": "azure"}
"""DuckDB's extension for the URLs of a scheme."""
Say = Callable[[str], None]


def opened_archive(cursor: duckdb.DuckDBPyConnection, target: str) -> Archive:
    """The archive at a folder or URL; BackupRefused for one that is neither."""
    scheme, colon, _ = target.partition("://")
    if colon and scheme not in OPENED_BY:
        raise BackupRefused(f"{scheme}:// is not known; name a folder, s3://… or az://…")
    if colon:
        load_extension(cursor, OPENED_BY[scheme])
    where = target if colon else str(Path(target).absolute())
    return Archive(StoredFiles(cursor, where))


def make_backup(lake: Lake, target: str, say: Say, *, landing: bool = True) -> Backup:
    """Make a backup below a folder or URL, which may hold others.

    What a transaction has committed before the catalog is copied is in it as a whole, and nothing
    of a later one. Files that the newest backup there holds and that did not change are not read.

    target: DuckDB reaches a URL by the secrets of the lake. landing: whether landing files are part
    of it. Raises BackupRefused, LakeError or OSError; then no backup of that name is listed.
    """
    with lake.cursor() as cursor:
        return back_up(lake.settings, cursor, target, say, landing=landing)


def back_up(
    settings: Settings,
    cursor: duckdb.DuckDBPyConnection,
    target: str,
    say: Say,
    *,
    landing: bool = True,
    is_migrating: bool = False,
) -> Backup:
    """As `make_backup`, through a connection that need not have the lake.

    is_migrating: the catalog, in SQLite, is one of an older DuckLake; it is stored as it is, and a
    copy that DuckLake migrates says which files there are.
    """
    with tempfile.TemporaryDirectory() as scratch:
        archive = opened_archive(cursor, target)
        _require_apart(settings, archive)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        places = Places.of(settings)
        work = _BackupJob(
            settings, cursor, archive, archive.newest(), Path(scratch), say, is_migrating
        )
        snapshot = work.everything(places, landing=landing)
        left_out = [*places.left_out, *work.left_out]
        if not landing:
            left_out.append("landing files, as asked")
        backup = Backup(
            name,
            snapshot,
            version("ml-platform"),
            dict(places.folders),
            tuple(work.entries),
            tuple(left_out),
            KNOWN["backup"],
        )
        archive.finish(backup)
        return backup


def _require_apart(settings: Settings, archive: Archive) -> None:
    if archive.files.is_local and Path(archive.files.root).is_relative_to(settings.root):
        raise BackupRefused(
            f"{archive.files.root} is inside the data folder {settings.root}, with which it would "
            "be lost; name a folder or URL elsewhere"
        )


@dataclass
class _BackupJob:
    """One backup that is being made."""

    settings: Settings
    cursor: duckdb.DuckDBPyConnection
    archive: Archive
    before: Backup | None
    scratch: Path
    say: Say
    is_migrating: bool
    entries: list[ArchiveEntry] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        known = self.before.entries if self.before else ()
        self._known = {(e.part, e.name, e.bytes, e.modified_us): e.content for e in known}
        self._scratch = StoredFiles(self.cursor, str(self.scratch))

    def everything(self, places: Places, *, landing: bool) -> int:
        """Store all parts; returns the newest snapshot among them."""
        self.say("what the service, the online store and Dagster keep")
        for part, path in places.names(self.settings):
            self._file(part, Path(places.folders[part]), path)
        self.say("the catalog")
        catalog = self.scratch / CATALOG_FILE
        copy_catalog(self.settings, catalog)
        self._add(CATALOG, CATALOG_FILE, self.archive.store(self._scratch, CATALOG_FILE))
        if self.is_migrating:
            attached(as_file(self.settings, catalog), migrates=True).close()
        snapshot = self._lake(catalog, places.folders[LAKE])
        if MLFLOW in places.folders and (database := mlflow_database(self.settings)).exists():
            self._file(MLFLOW, database.parent, database)
        for part in (ARTIFACTS, *([LANDING] if landing else [])):
            if part in places.folders:
                self.say(part)
                self._folder(part, places.folders[part])
        return snapshot

    def _lake(self, catalog: Path, root: str) -> int:
        snapshot, files = copied_files(self.cursor, catalog, root)
        self.say(f"{len(files):,} data files")
        lake, unreadable = StoredFiles(self.cursor, root), 0
        for file in files:
            name = name_below(root, file)
            content = self._unchanged(LAKE, name, file.bytes, None)
            if content is None and lake.size(name) == file.bytes:
                content = self.archive.store(lake, name)
            if content is not None and content.bytes == file.bytes:
                self._add(LAKE, name, content)
            elif file.is_current:
                raise BackupRefused(
                    f"data file {file.path} is lost: it holds {file.held}; `ml-platform repair` "
                    "first, so that the backup is whole"
                )
            else:
                unreadable += 1
        if unreadable:
            self.left_out.append(f"{unreadable:,} data files that are lost, of older snapshots")
        return snapshot

    def _folder(self, part: str, place: str) -> None:
        files = StoredFiles(self.cursor, place)
        for name, file in files.listed().items():
            if files.is_local:
                self._file(part, Path(place), Path(place, name))
                continue
            content = self._unchanged(part, name, file.bytes, file.modified_us)
            stored = content or self.archive.store(files, name)
            self._add(part, name, stored, file.modified_us)

    def _file(self, part: str, folder: Path, path: Path) -> None:
        """Store a file of this machine; one that is gone by now was of no use any more."""
        name = str(path.relative_to(folder))
        try:
            if is_database(path):
                copy = self.scratch / "copied.sqlite"
                copy.unlink(missing_ok=True)
                copy_sqlite(path, copy)
                self._add(part, name, self.archive.store(self._scratch, copy.name))
                return
            found = path.stat()
            changed = found.st_mtime_ns // 1000
            content = self._unchanged(part, name, found.st_size, changed)
            if content is None:
                content = self.archive.store(StoredFiles(self.cursor, str(folder)), name)
        except FileNotFoundError:
            return
        self._add(part, name, content, changed)

    def _unchanged(self, part: str, name: str, size: int, changed: int | None) -> Content | None:
        content = self._known.get((part, name, size, changed))
        return content if content is not None and self.archive.holds(content) else None

    def _add(self, part: str, name: str, content: Content, changed: int | None = None) -> None:
        self.entries.append(ArchiveEntry(part, name, content.bytes, content.sha256, changed))
