"""Files of records that land: appended to by one process, whole at every moment.

A record is with the operating system before anyone hears of it, so it survives the process that
wrote it, however that ends. A power cut may take what the system had not yet written to the disk;
what is `synced` it cannot take. A file is held by the lock of the process that appends to it, so
that whoever comes later can recognise the files that nobody holds any more.
"""

import fcntl
import logging
import os
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ml_platform.errors import NotKept

OPEN = ".open"
"""Folder of files that are appended to; globs of sources do not look into it."""
ENDING = ".jsonl"
BLOCK = 1 << 16

LOG = logging.getLogger(__name__)


@dataclass
class _Segment:
    file: int
    path: Path
    opened_at: float
    size: int = 0


class SegmentWriter:
    """Appends lines to files in a folder; threads may share one. Nothing is held in memory.

    most_bytes, most_seconds: size and age from which on a file lands and another one is begun.
    """

    def __init__(self, folder: Path, most_bytes: int, most_seconds: float) -> None:
        self.folder = folder
        self._most_bytes, self._most_seconds = most_bytes, most_seconds
        self._lock = threading.Lock()
        self._segment: _Segment | None = None

    def append(self, lines: bytes, *, synced: bool = False) -> None:
        """Write whole lines by one call of the system; all of them are kept, or none.

        synced: wait until they are on the disk. Raises NotKept.
        """
        with self._lock:
            try:
                segment = self._segment = self._segment or self._opened()
            except OSError as error:
                raise NotKept(f"{self.folder}: {error.strerror}") from error
            try:
                if os.write(segment.file, lines) != len(lines):
                    raise NotKept(f"{segment.path}: no space for {len(lines)} bytes")
                if synced:
                    os.fsync(segment.file)
            except (OSError, NotKept) as error:
                os.ftruncate(segment.file, segment.size)
                raise NotKept(f"{segment.path}: {error}") from error
            segment.size += len(lines)
            if segment.size >= self._most_bytes:
                self._land()

    def land_old(self) -> None:
        """Land the file that is appended to if it is old enough."""
        with self._lock:
            segment = self._segment
            if segment and time.monotonic() - segment.opened_at >= self._most_seconds:
                self._land()

    def close(self) -> None:
        """Land what there is."""
        with self._lock:
            if self._segment:
                self._land()

    def _opened(self) -> _Segment:
        folder = self.folder / OPEN
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{ENDING}"
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever lands orphans may have taken it for one, before it was locked.
            if os.fstat(file).st_nlink:
                return _Segment(file, path, time.monotonic())
            os.close(file)

    def _land(self) -> None:
        segment = self._segment
        assert segment is not None
        try:
            _move(segment.path, segment.size)
        except OSError as error:
            # Its records are kept; it lands with the next attempt, or as an orphan.
            LOG.warning("%s does not land yet: %s", segment.path, error)
            return
        os.close(segment.file)
        self._segment = None


def land_orphans(folder: Path) -> list[Path]:
    """Land the files below a folder that no process holds; a torn last line is cut off.

    Returns where they landed.
    """
    landed = []
    for path in sorted((folder / OPEN).glob(f"*{ENDING}")):
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have landed while it was being opened.
            if path.exists() and path.stat().st_ino == os.fstat(file).st_ino:
                size = _whole_lines(file)
                os.ftruncate(file, size)
                if target := _move(path, size):
                    landed.append(target)
        except BlockingIOError:
            continue
        finally:
            os.close(file)
    return landed


def landed_as(moment: datetime) -> str:
    """What the names of files that land from a moment on, in UTC, are not before.

    >>> landed_as(datetime(2024, 3, 1, 12, tzinfo=UTC))
    '20240301T120000.000000Z'
    """
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def _move(path: Path, size: int) -> Path | None:
    if not size:
        path.unlink()
        return None
    target = path.parent.parent / f"{landed_as(datetime.now(UTC))}-{path.name}"
    path.rename(target)
    return target


def _whole_lines(file: int) -> int:
    """Where the last whole line of a file ends."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - BLOCK)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
