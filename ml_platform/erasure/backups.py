"""Backups that hold an entity: they are found, and deleted where that is asked for.

A backup is what a deployment was at one moment, compared by digests: it is not rewritten.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ml_platform.erasure.bytes_left import holds_all
from ml_platform.erasure.entity import Entity
from ml_platform.erasure.lake_rows import TableFiles, find_rows, learn_links
from ml_platform.erasure.matching import Matching
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.storage.known_files import KnownFile
from ml_platform.storage.stored_files import StoredFiles
from ml_platform.upkeep.archive import Archive, Backup
from ml_platform.upkeep.backup import opened_archive
from ml_platform.upkeep.catalogs import copied_files
from ml_platform.upkeep.parts import CATALOG, LAKE


@dataclass
class _Looked:
    """Contents that were looked into, by digest, and whether they hold the entity."""

    holding: dict[str, bool] = field(default_factory=dict)


def backups_with(
    lake: Lake,
    use_cases: Sequence[UseCase],
    entity: Entity,
    target: str,
    log_secret: bytes | None = None,
) -> dict[str, int]:
    """Backups below a folder or URL that hold the entity, and in how many of their files.

    log_secret: key of the hashes in the request log. Data files are read by column, all others by
    their bytes. Raises BackupRefused.
    """
    found: dict[str, int] = {}
    looked = _Looked()
    with lake.cursor() as opened:
        names = opened_archive(opened, target).names
    for name in names:
        count = 0
        for case in use_cases:
            with lake.cursor(case.timezone) as cursor, tempfile.TemporaryDirectory() as scratch:
                archive = opened_archive(cursor, target)
                matching = Matching(cursor, case, entity, log_secret)
                backup = archive.backup(name)
                count += _in_lake(matching, archive, backup, Path(scratch))
        with lake.cursor() as cursor:
            archive = opened_archive(cursor, target)
            count += _in_bytes(archive, archive.backup(name), entity, looked)
        if count:
            found[name] = count
    return found


def delete_backups(lake: Lake, target: str, names: Sequence[str]) -> None:
    """Delete backups, and the contents that none of those that are left holds.

    Raises BackupRefused where they are in an object store.
    """
    with lake.cursor() as cursor:
        opened_archive(cursor, target).remove(names)


def _in_lake(matching: Matching, archive: Archive, backup: Backup, scratch: Path) -> int:
    """How many data files of a backup hold rows of the entity."""
    catalog, root = backup.of(CATALOG)[0], backup.places[LAKE]
    archive.fetch(catalog, StoredFiles(matching.cursor, str(scratch)), catalog.name)
    _, files = copied_files(matching.cursor, scratch / catalog.name, root)
    places = {entry.name: archive.place(entry) for entry in backup.of(LAKE)}
    tables = _tables(files, places, root, matching.use_case.name)
    learn_links(matching, tables)
    return len(find_rows(matching, tables))


def _tables(
    files: Sequence[KnownFile], places: Mapping[str, str], root: str, schema: str
) -> list[TableFiles]:
    found: dict[str, TableFiles] = {}
    for file in files:
        place = places.get(file.path.removeprefix(f"{root}/"))
        if place is not None and file.schema == schema and not file.holds_deletes:
            table = found.setdefault(file.table, TableFiles(file.table))
            table.files.append(replace(file, path=place))
    return list(found.values())


def _in_bytes(archive: Archive, backup: Backup, entity: Entity, looked: _Looked) -> int:
    """How many other files of a backup have every value in their bytes."""
    if not archive.files.is_local or not entity.is_distinctive:
        return 0
    values = [value.encode() for value in entity.values.values()]
    count = 0
    for entry in backup.entries:
        if entry.part != LAKE:
            if entry.sha256 not in looked.holding:
                place = Path(archive.place(entry))
                looked.holding[entry.sha256] = holds_all(place, values)
            count += looked.holding[entry.sha256]
    return count
