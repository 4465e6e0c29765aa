"""Errors of DuckDB and of the lake's catalog, as errors of the platform."""

import os
from pathlib import Path

from ml_platform.errors import DiskFull, LakeError, LakeUnavailable
from ml_platform.failures import Failure, failure_of
from ml_platform.settings import Settings

LEAST_ROOM_BYTES = 2**20
UNCLEAR = "disk I/O error"
"""What SQLite says of a disk that is full, among others, where it has no more room for a file that
it needs beside the database."""


def lake_error(error: BaseException, settings: Settings, what: str = "") -> LakeError:
    """An error as LakeUnavailable, DiskFull or LakeError: one line, without passwords.

    what: what was being done, in front of why it failed.
    """
    failure = failure_of(error, settings)
    if failure.kind == "other" and failure.text.endswith(UNCLEAR) and _is_full(settings):
        failure = Failure("disk full", failure.text)
    match failure.kind:
        case "unavailable":
            return LakeUnavailable(f"{what or 'the lake is unavailable: '}{failure}")
        case "disk full":
            return DiskFull(str(failure))
    return LakeError(f"{what}{failure}")


def _is_full(settings: Settings) -> bool:
    """Whether a disk that the lake is on has next to no room."""
    catalog = Path(settings.catalog_uri.partition(":")[2]).parent
    folders = [settings.root, catalog, Path(settings.lake_files_uri)]
    return any(
        state.f_bavail * state.f_frsize < LEAST_ROOM_BYTES
        for folder in folders
        if folder.is_dir() and (state := os.statvfs(folder))
    )
