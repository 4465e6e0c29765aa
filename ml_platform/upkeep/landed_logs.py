"""Landing files that the service wrote, and whose rows are older than their use case keeps them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from ml_platform.sources.ingestions import ingested_files
from ml_platform.sources.landing import LandingIndex, read_index
from ml_platform.sources.listing import ListedFile, list_landing
from ml_platform.spec.retained import LOGS
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.storage.orphans import LEFT_AFTER
from ml_platform.upkeep.retention import oldest_kept


@dataclass(frozen=True)
class OldLog:
    """A landing file that nothing reads any more."""

    use_case: str
    source: str
    file: ListedFile


def find_old_logs(lake: Lake, use_cases: Iterable[UseCase], now: datetime) -> list[OldLog]:
    """Files of requests and refusals that are ingested, and whose rows are all too old.

    Those in an object store are left to its own rules. Raises LandingError.
    """
    with lake.cursor() as cursor:
        return [
            OldLog(case.name, source, file)
            for case in use_cases
            for source in LOGS
            if (before := oldest_kept(case, source, now)) is not None
            for file in _old_files(lake, cursor, case, source, before, now - LEFT_AFTER)
        ]


def delete_old_logs(lake: Lake, use_cases: Iterable[UseCase], now: datetime) -> list[OldLog]:
    """Delete what `find_old_logs` finds."""
    found = find_old_logs(lake, use_cases, now)
    for each in found:
        Path(each.file.path).unlink(missing_ok=True)
    return found


def _old_files(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    before: datetime,
    written_before: datetime,
) -> Iterator[ListedFile]:
    limit_us = written_before.timestamp() * 1e6
    quiet = [
        file
        for file in list_landing(lake, use_case, source)
        if not file.is_remote and file.problem is None and file.written_us < limit_us
    ]
    if not quiet:
        return
    index = read_index(lake, cursor, use_case, source)
    old = [file for file in quiet if _is_old(file, index, before)]
    ingested = ingested_files(lake, cursor, use_case, source, [file.name for file in old])
    yield from (file for file in old if file.name in ingested)


def _is_old(file: ListedFile, index: LandingIndex, before: datetime) -> bool:
    """Whether all rows of a file, as it is now, are older."""
    fingerprint, _ = index.stats.get(file.stat, ("", 0))
    known = index.versions.get((file.name, fingerprint))
    if known is None or known.error is not None or not known.window_starts:
        return False
    return max(known.window_starts) < before
