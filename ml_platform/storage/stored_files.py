"""Files below a folder or a URL: DuckDB reaches object stores by the lake's own secrets."""

import hashlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import duckdb

from ml_platform.spec.queries import literal

UNFINISHED = ".unfinished"
"""Ends the name of a file that is being written; it gets its own once it is whole."""
NOTHING_THERE = re.compile(r"No files found that match|HTTP 404|404 \(Not Found\)|not exist")
"""What DuckDB says of a pattern that no object matches, or of an object that does not exist."""
STEP_BYTES = 2**20


@dataclass(frozen=True)
class FileStat:
    """A file, without looking into it."""

    bytes: int
    modified_us: int
    """When it was written last, in microseconds since 1970."""


@dataclass(frozen=True)
class Content:
    """What a file holds, without its bytes."""

    bytes: int
    sha256: str
    """In hexadecimal digits."""


class StoredFiles:
    """Files below a folder of this machine, or a URL of an object store.

    A file that is written is there as a whole or not at all. Errors are OSError or duckdb.Error.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection, root: str) -> None:
        self.cursor = cursor
        self.root = root.rstrip("/")
        self.is_local = "://" not in root
        self.made: set[Path] = set()

    def at(self, name: str) -> str:
        """The path or URL of a file, from its path below the folder."""
        return f"{self.root}/{name}"

    def listed(self, below: str = "") -> dict[str, FileStat]:
        """Every file, by its path below the folder, in order."""
        start = f"{self.root}/{below}".rstrip("/")
        if not self.is_local:
            return self._listed(f"{start}/**")
        found = {}
        for folder, _, names in os.walk(start):
            for name in names:
                path = Path(folder, name)
                if path.is_file() and not name.endswith(UNFINISHED):
                    state = path.stat()
                    found[str(path.relative_to(self.root))] = FileStat(
                        state.st_size, state.st_mtime_ns // 1000
                    )
        return dict(sorted(found.items()))

    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of every file, by its path below the folder, in order."""
        return {name: file.bytes for name, file in self.listed(below).items()}

    def size(self, name: str) -> int | None:
        """Bytes of one file; None where it does not exist."""
        if self.is_local:
            path = Path(self.at(name))
            return path.stat().st_size if path.is_file() else None
        found = self._listed(self.at(name)).get(name)
        return None if found is None else found.bytes

    def read(self, name: str) -> bytes:
        """What a file holds, all of it in memory."""
        if self.is_local:
            return Path(self.at(name)).read_bytes()
        row = self.cursor.execute(
            f"SELECT content FROM read_blob({literal(self.at(name))})"
        ).fetchone()
        assert row is not None
        return bytes(row[0])

    def content(self, name: str) -> Content:
        """Size and digest of a file; read in pieces where it is on this machine."""
        if not self.is_local:
            return content_of(self.read(name))
        digest, size = hashlib.sha256(), 0
        with Path(self.at(name)).open("rb") as file:
            while piece := file.read(STEP_BYTES):
                digest.update(piece)
                size += len(piece)
        return Content(size, digest.hexdigest())

    def write(self, name: str, content: bytes) -> None:
        """Write a file; one of that name is replaced."""
        if not self.is_local:
            self.cursor.execute(
                f"COPY (SELECT ?::BLOB) TO {literal(self.at(name))} (FORMAT blob)", [content]
            )
            return
        unfinished, path = self._unfinished(name)
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)

    def copy(self, name: str, source: "StoredFiles", other: str) -> None:
        """Write a file with what another one holds; in pieces where both are on this machine."""
        if not (self.is_local and source.is_local):
            self.write(name, source.read(other))
            return
        unfinished, path = self._unfinished(name)
        with Path(source.at(other)).open("rb") as read, unfinished.open("wb") as file:
            shutil.copyfileobj(read, file, STEP_BYTES)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)

    def _unfinished(self, name: str) -> tuple[Path, Path]:
        path = Path(self.at(name))
        if path.parent not in self.made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.made.add(path.parent)
        return path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}"), path

    def _listed(self, pattern: str) -> dict[str, FileStat]:
        try:
            rows = self.cursor.execute(
                f"""SELECT filename, size, epoch_us(last_modified)
                FROM read_blob({literal(pattern)}) ORDER BY 1"""
            ).fetchall()
        except duckdb.Error as error:
            if not NOTHING_THERE.search(str(error)):
                raise
            return {}
        return {
            path.removeprefix(f"{self.root}/"): FileStat(size, changed)
            for path, size, changed in rows
        }


def content_of(content: bytes) -> Content:
    """Size and digest of bytes."""
    return Content(len(content), hashlib.sha256(content).hexdigest())
