"""A folder or URL that holds backups: contents by their digest, and a list for each backup.

A content that several backups hold is there once. A list is written last, so that every backup that
is listed is whole.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ml_platform.errors import BackupRefused
from ml_platform.storage.schema_versions import Stamp, require_not_newer
from ml_platform.storage.stored_files import (
    STEP_BYTES,
    UNFINISHED,
    Content,
    StoredFiles,
    content_of,
)

LISTS, CONTENTS = "backups", "contents"


@dataclass(frozen=True)
class ArchiveEntry:
    """One file of a backup."""

    part: str
    """Where it belongs: see `ml_platform.upkeep.parts`."""
    name: str
    """Its path below the folder of the part."""
    bytes: int
    sha256: str
    modified_us: int | None = None
    """When it was changed last, in microseconds since 1970; None where it never changes."""

    @property
    def content(self) -> Content:
        return Content(self.bytes, self.sha256)


@dataclass(frozen=True)
class Backup:
    """What a backup holds."""

    name: str
    """The moment it was begun, as `20261130T110000.000000Z`."""
    snapshot: int
    """Newest snapshot of the lake in it."""
    platform: str
    """Version of the platform that made it."""
    places: Mapping[str, str]
    """Where the parts were, by part."""
    entries: tuple[ArchiveEntry, ...]
    left_out: tuple[str, ...] = ()
    """What it does not hold, and who does."""
    schema_version: int = 1
    """Of this list."""

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries)

    def of(self, part: str) -> tuple[ArchiveEntry, ...]:
        """The files of one part."""
        return tuple(entry for entry in self.entries if entry.part == part)

    @property
    def document(self) -> str:
        return json.dumps(asdict(self), indent=0)

    @classmethod
    def read(cls, document: str) -> "Backup":
        fields = json.loads(document)
        stamp = Stamp(fields.get("schema_version", 1), fields["platform"])
        require_not_newer("backup", stamp, str(fields["name"]))
        entries = tuple(ArchiveEntry(**entry) for entry in fields.pop("entries"))
        return cls(**{**fields, "entries": entries, "left_out": tuple(fields["left_out"])})


@dataclass
class Archive:
    """The backups below one folder or URL."""

    files: StoredFiles
    _present: dict[str, int] | None = field(default=None, init=False)

    @property
    def names(self) -> list[str]:
        """Names of the backups, the oldest first."""
        listed = self.files.sizes(LISTS)
        return sorted(Path(name).stem for name in listed if name.endswith(".json"))

    def backup(self, name: str | None = None) -> Backup:
        """A backup; the newest where none is named. Raises BackupRefused where there is none."""
        names = self.names
        if not names:
            raise BackupRefused(f"there is no backup in {self.files.root}")
        if name is not None and name not in names:
            raise BackupRefused(
                f"{self.files.root} holds no backup '{name}'; there are {', '.join(names[-5:])}"
            )
        return Backup.read(self.files.read(_list_of(name or names[-1])).decode())

    def newest(self) -> Backup | None:
        """The newest backup, if there is any."""
        return self.backup() if self.names else None

    def holds(self, content: Content) -> bool:
        """Whether a content is there, in its size."""
        return self.present.get(_content_of(content.sha256)) == content.bytes

    @property
    def present(self) -> dict[str, int]:
        """Bytes of the contents, by path; looked up once."""
        if self._present is None:
            self._present = self.files.sizes(CONTENTS)
        return self._present

    def store(self, source: StoredFiles, name: str) -> Content:
        """Take over what a file holds; digest and bytes are those of what was written."""
        if source.is_local and self.files.is_local:
            return self._store_here(Path(source.at(name)))
        held = source.read(name)
        content = content_of(held)
        if not self.holds(content):
            self.files.write(_content_of(content.sha256), held)
            self.present[_content_of(content.sha256)] = content.bytes
        return content

    def finish(self, backup: Backup) -> None:
        """Write the list of a backup, whose contents are all there."""
        if lacking := next((e for e in backup.entries if not self.holds(e.content)), None):
            raise BackupRefused(f"{lacking.part}/{lacking.name} did not arrive in the backup")
        self.files.write(_list_of(backup.name), backup.document.encode())

    def fetch(self, entry: ArchiveEntry, target: StoredFiles, name: str) -> None:
        """Write a file of a backup somewhere; BackupRefused where its content is damaged."""
        path = _content_of(entry.sha256)
        if self.files.size(path) != entry.bytes:
            raise BackupRefused(f"{self.files.at(path)}, {entry.part}/{entry.name}, is lost")
        # Read once from an object store; in pieces, and so twice, on this machine.
        held = None if self.files.is_local else self.files.read(path)
        content = self.files.content(path) if held is None else content_of(held)
        if content != entry.content:
            raise BackupRefused(f"{self.files.at(path)}, {entry.part}/{entry.name}, is damaged")
        if held is None:
            target.copy(name, self.files, path)
        else:
            target.write(name, held)

    def damaged(self, backup: Backup) -> list[ArchiveEntry]:
        """Files of a backup whose content is lost or another one; each is read."""
        found: dict[str, bool] = {}
        for entry in backup.entries:
            if entry.sha256 not in found:
                path = _content_of(entry.sha256)
                found[entry.sha256] = (
                    not self.holds(entry.content) or self.files.content(path) != entry.content
                )
        return [entry for entry in backup.entries if found[entry.sha256]]

    def drop(self, keep: int) -> list[str]:
        """Delete the oldest backups and what no other one holds; names of those deleted.

        Raises BackupRefused for an archive at a URL.
        """
        old = self.names[:-keep]
        self.remove(old)
        return old

    def remove(self, names: Iterable[str]) -> None:
        """Delete backups and what no other one holds; BackupRefused for an archive at a URL."""
        if not self.files.is_local:
            raise BackupRefused(
                "old backups in an object store are deleted there, by a rule of the bucket"
            )
        gone = set(names)
        left = [name for name in self.names if name not in gone]
        kept = {entry.sha256 for name in left for entry in self.backup(name).entries}
        for name in gone:
            Path(self.files.at(_list_of(name))).unlink(missing_ok=True)
        _delete(Path(self.files.at(path)) for path in self.present if Path(path).name not in kept)
        self._present = None

    def place(self, entry: ArchiveEntry) -> str:
        """The path or URL of what a file of a backup holds."""
        return self.files.at(_content_of(entry.sha256))

    def _store_here(self, path: Path) -> Content:
        folder = Path(self.files.at(CONTENTS))
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{secrets.token_hex(8)}{UNFINISHED}"
        digest, size = hashlib.sha256(), 0
        try:
            with path.open("rb") as read, unfinished.open("wb") as file:
                while piece := read.read(STEP_BYTES):
                    digest.update(piece)
                    size += len(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            content = Content(size, digest.hexdigest())
            if not self.holds(content):
                named = Path(self.files.at(_content_of(content.sha256)))
                named.parent.mkdir(exist_ok=True)
                shutil.move(unfinished, named)
                self.present[_content_of(content.sha256)] = size
        finally:
            unfinished.unlink(missing_ok=True)
        return content


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _list_of(name: str) -> str:
    return f"{LISTS}/{name}.json"


def _content_of(sha256: str) -> str:
    return f"{CONTENTS}/{sha256[:2]}/{sha256}"
