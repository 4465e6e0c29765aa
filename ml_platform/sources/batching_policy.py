"""When windows are ingested that the service itself continues writing to.

A file of a log lands every half minute, and what it belongs to is ingested as a whole. Taken at
once, each file would cost as much as all that landed before it. So files wait for each other: until
together they are a tenth of what the window was ingested from, or until the first of them has
waited long enough. Each ingestion for the former reason finds a tenth more than the one before, so
all of them together read at most eleven times what landed; each for the latter comes an hour after
the one before.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from ml_platform.sources.landing import LandingFile, LandingIndex

SHARE_THAT_IS_ENOUGH = 0.1

Behind = Mapping[datetime, list[tuple[LandingFile, int]]]
"""By start of window, the files that it has yet to ingest, with the snapshot of the last time."""


def due_at(landed: Iterable[tuple[int, float]], ingested_bytes: int, longest: float) -> float:
    """The moment from which on a window is asked for, in seconds since 1970; 0 where it is enough.

    landed: bytes and time of each file that waits; longest: in seconds.

    >>> due_at([(10, 1000.0)], 100, 3600), due_at([(9, 1000.0)], 100, 3600)
    (0.0, 4600.0)
    """
    files = list(landed)
    if sum(size for size, _ in files) >= SHARE_THAT_IS_ENOUGH * ingested_bytes:
        return 0.0
    return min(at for _, at in files) + longest


def waiting(
    behind: Behind,
    index: LandingIndex,
    ingested: Mapping[tuple[str, datetime], tuple[str, int]],
    longest: float,
    now: datetime,
) -> dict[datetime, str]:
    """Windows, by start, whose files wait for more, and until when.

    A window that nothing was ingested of does not wait. longest: in seconds.
    """
    sizes = index.sizes
    held: dict[datetime, int] = {}
    for (name, start), (fingerprint, _) in ingested.items():
        held[start] = held.get(start, 0) + sizes.get((name, fingerprint), 0)
    moment = now.timestamp()
    found: dict[datetime, str] = {}
    for start, news in behind.items():
        files = [(file.size, file.modified_us / 1e6) for file, _ in news]
        due = due_at(files, held.get(start, 0), longest)
        # A clock that is ahead makes files from the future, which do not wait for it.
        if moment < due <= moment + 2 * longest:
            many = f"{len(files)} files wait" if len(files) > 1 else "1 file waits"
            found[start] = f"{many} for more until {datetime.fromtimestamp(due, UTC):%H:%M:%S} UTC"
    return found


def noted_files(index: LandingIndex) -> list[LandingFile]:
    """The newest version of each file as far as it was looked at, whether it is there or not."""
    sizes = index.sizes
    return [
        LandingFile(name, "", sizes[name, print_], modified_us, modified_us, print_)
        for name, (print_, modified_us) in index.newest.items()
    ]
