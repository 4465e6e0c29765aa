"""Moving a lake to another catalog and another place for its files, history and encryption kept."""

import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb

from ml_platform.errors import BackupRefused
from ml_platform.settings import Settings
from ml_platform.storage import Lake
from ml_platform.storage.attaching import turns_file
from ml_platform.storage.known_files import KnownFile
from ml_platform.storage.stored_files import StoredFiles
from ml_platform.storage.turns import turn
from ml_platform.upkeep.catalogs import (
    copied_files,
    copy_catalog,
    name_below,
    require_none,
    restore_catalog,
)

Say = Callable[[str], None]
MOST_ROUNDS = 5
CATALOG_FILE = "catalog.sqlite"


def move_lake(lake: Lake, catalog: str | None, lake_files: str | None, say: Say) -> int:
    """Copy the lake to another catalog, another place for its files, or both; its snapshot.

    Every file is compared by digest once it is there; what an interrupted move has copied is not
    copied again. The lake itself stays as it is, for whoever wants to go back, and its settings
    decide which of both is used. Raises LakeError where there is a lake already,
    BackupRefused where a file is lost or writers do not pause.
    """
    settings = lake.settings
    target = moved(settings, catalog, lake_files)
    require_none(target)
    source, root = settings.lake_files_uri.rstrip("/"), target.lake_files_uri.rstrip("/")
    with lake.cursor() as cursor, tempfile.TemporaryDirectory() as scratch:
        for number in range(MOST_ROUNDS):
            copied = Path(scratch, f"{number}-{CATALOG_FILE}")
            copy_catalog(settings, copied)
            snapshot, files = copied_files(cursor, copied, source)
            say(f"{len(files):,} data files, up to snapshot {snapshot}")
            if root != source:
                _copy(cursor, files, source, root)
            with turn(turns_file(settings)):
                if lake.snapshot(cursor) == snapshot:
                    say("the catalog")
                    restore_catalog(target, copied)
                    break
        else:
            raise BackupRefused(
                "somebody keeps writing to the lake; stop the daemon, the service and commands, "
                "then do the same again: what was copied is not copied again"
            )
    _require_opened(target)
    return snapshot


def moved(settings: Settings, catalog: str | None, lake_files: str | None) -> Settings:
    """The settings that name the lake at its new place."""
    fields = settings.model_dump()
    return Settings.model_validate(
        {
            **fields,
            "catalog": catalog or settings.catalog_uri,
            "lake_files": lake_files or settings.lake_files_uri,
        }
    )


def _copy(
    cursor: duckdb.DuckDBPyConnection, files: list[KnownFile], source: str, root: str
) -> None:
    old, new = StoredFiles(cursor, source), StoredFiles(cursor, root)
    sizes = new.sizes()
    for file in files:
        name = name_below(source, file)
        if old.size(name) != file.bytes:
            if not file.is_current:
                # Older snapshots cannot be read where it is now either.
                continue
            raise BackupRefused(
                f"data file {file.path} is lost: it holds {file.held}; `ml-platform repair` first"
            )
        content = old.content(name)
        if sizes.get(name) == file.bytes and new.content(name) == content:
            continue
        new.copy(name, old, name)
        if new.content(name) != content:
            raise BackupRefused(f"{new.at(name)} is not what {old.at(name)} is; do the same again")


def _require_opened(settings: Settings) -> None:
    with closing(Lake(settings, read_only=True)) as lake, lake.cursor() as cursor:
        lake.snapshot(cursor)
