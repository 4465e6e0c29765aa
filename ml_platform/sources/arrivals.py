"""Which windows have to be ingested because of what has landed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import duckdb

from ml_platform.sources.batching_policy import Behind, noted_files, waiting
from ml_platform.sources.gone import gone_files, note_gone
from ml_platform.sources.ingestions import read_ingested
from ml_platform.sources.intake import look_into, number_files
from ml_platform.sources.landed import look_at_landing, require_files
from ml_platform.sources.landing import (
    LandingFile,
    LandingIndex,
    create_notes,
    identify,
    is_touched,
    note,
    read_index,
    write_notes,
)
from ml_platform.sources.listing import ListedFile, contract_of
from ml_platform.sources.partial_files import unfinished
from ml_platform.sources.shared_tables import SharedTable
from ml_platform.sources.table_rows import SourceTable
from ml_platform.sources.window_states import WindowState, windows_behind
from ml_platform.spec.use_case import LOGGED_SOURCES, UseCase, digest
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, require_calendar
from ml_platform.storage.tables import naive_utc

MOST_BYTES_A_LOOK = 256 * 2**20
MOST_FILES_A_LOOK = 2_000
"""Files that are opened at once; the others wait for the next look."""


@dataclass(frozen=True)
class Arrivals:
    """What landed for one source and is not ingested yet."""

    windows: Mapping[Window, str] = field(default_factory=dict)
    """Windows in order, each with a digest of the versions of files that it has yet to ingest."""
    left: Mapping[str, str] = field(default_factory=dict)
    """Files that are not looked at yet, and why."""
    waiting: Mapping[Window, str] = field(default_factory=dict)
    """Windows that are behind by little of what the service writes, and until when they wait."""
    state: str | None = None
    """What landing looks like, where nothing is left to look at: with the same state again there
    can be nothing new."""


def arrivals(
    lake: Lake,
    use_case: UseCase,
    source: str,
    commit: Commit,
    now: datetime,
    seen: str | None = None,
) -> Arrivals:
    """Look into files that were not looked at yet, and say which windows are behind landing.

    A window is behind where a file has other rows of it than when it was ingested last, also where
    it has none of it any more. A file that was only touched, or delivered again with the same
    content, is no news. Windows from `partitions.end` on are never asked for. What the service
    itself writes waits for more of it: see `ml_platform.sources.batching_policy`.
    now: aware; what was written just before it is left until it is whole.
    seen: the state that an earlier look gave, with which this one can end at once.
    Raises LandingError where landing cannot be listed or a table cannot be read, LakeError where
    its database cannot be opened.
    """
    with lake.cursor() as cursor:
        require_calendar(cursor, use_case.name, use_case.calendar)
    if use_case.sources[source].rows_of:
        return _table_arrivals(lake, use_case, source, seen)
    with lake.cursor(use_case.timezone) as cursor:
        landed = look_at_landing(lake, cursor, use_case, source)
        state, listed = landed.state, landed.files
        if state == seen:
            return Arrivals(state=state)
        index = read_index(lake, cursor, use_case, source)
        require_files(landed, index, use_case, source)
        fresh = [file for file in listed if not index.knows(file)]
        left = unfinished(lake.settings, use_case.sources[source], fresh, now)
        left |= _surplus([file for file in fresh if file.name not in left])
        files = identify(cursor, use_case, source, [f for f in listed if f.name not in left], index)
        files += gone_files(use_case, source, listed, index, landed.since_us(now))
        if _look_into(lake, cursor, use_case, source, files, index, commit, landed.table):
            index = read_index(lake, cursor, use_case, source)
        ingested = read_ingested(lake, cursor, use_case, source)
    behind = _behind(files, index, ingested)
    later = _later(lake, source, behind, index, ingested, now)
    return Arrivals(
        _windows(use_case, {start: _named(behind[start]) for start in behind.keys() - later}),
        left,
        _in_order(use_case, later),
        None if left or later else state,
    )


def waiting_windows(lake: Lake, use_case: UseCase, source: str, now: datetime) -> frozenset[Window]:
    """Windows that wait for more of what the service writes, as far as landing was looked at."""
    if source not in LOGGED_SOURCES:
        return frozenset()
    with lake.cursor(use_case.timezone) as cursor:
        index = read_index(lake, cursor, use_case, source)
        ingested = read_ingested(lake, cursor, use_case, source)
    behind = _behind(noted_files(index), index, ingested)
    later = _later(lake, source, behind, index, ingested, now)
    return frozenset(_in_order(use_case, later))


def table_landed(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, source: str
) -> dict[datetime, int]:
    """Windows that a database table has rows of, or has lost rows of, by start.

    The value is the snapshot from which on the window is behind its table, 0 where it is not. Reads
    the whole table; raises what `arrivals` raises.
    """
    _, states, ingested = _table_states(lake, cursor, use_case, source, None)
    behind = windows_behind(states, ingested, looked_everywhere=True)
    return {
        start: ingested.get(start, ("", 0))[1] + 1 if start in behind else 0
        for start in {*states, *behind}
    }


def _table_arrivals(lake: Lake, use_case: UseCase, source: str, seen: str | None) -> Arrivals:
    contract = contract_of(use_case, source)
    mark, _, seen_contract = (seen or "").partition("-")
    since = int(mark) if mark and seen_contract == contract else None
    with lake.cursor(use_case.timezone) as cursor:
        highest, states, ingested = _table_states(lake, cursor, use_case, source, since)
    behind = windows_behind(states, ingested, looked_everywhere=since is None)
    state = None if highest is None else f"{highest}-{contract}"
    return Arrivals(_windows(use_case, behind), state=state)


def _table_states(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    since: int | None,
) -> tuple[int | None, dict[datetime, WindowState], dict[datetime, tuple[str, int]]]:
    """Highest mark and what windows hold in the table, and what of it was ingested when."""
    highest, states = SourceTable(lake, cursor, use_case, source).changed(since)
    table = use_case.sources[source].rows_of
    ingested = {
        start: held
        for (name, start), held in read_ingested(lake, cursor, use_case, source).items()
        if name == table
    }
    return highest, states, ingested


def _surplus(files: Sequence[ListedFile]) -> dict[str, str]:
    surplus: dict[str, str] = {}
    size = 0
    for number, file in enumerate(files):
        size += file.size
        if number >= MOST_FILES_A_LOOK or (number and size > MOST_BYTES_A_LOOK):
            surplus[file.name] = "waits for its turn"
    return surplus


def _look_into(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    files: Sequence[LandingFile],
    index: LandingIndex,
    commit: Commit,
    table: SharedTable | None,
) -> bool:
    news = [file for file in files if index.of(file) is None]
    unknown = [file for file in news if not file.is_gone]
    touched = [file for file in files if is_touched(file, index)]
    if not news and not touched:
        return False
    create_notes(cursor, use_case)
    for file in touched:
        note(cursor, source, file)
    note_gone(lake, cursor, use_case, source, [file for file in news if file.is_gone])
    if unknown:
        number_files(cursor, unknown, index, set())
        columns, size = len(use_case.sources[source].columns), sum(file.size for file in unknown)
        with lake.threads.suited(columns, lambda: size):
            look_into(cursor, use_case, source, unknown, index, table)
    write_notes(lake, cursor, use_case, commit)
    return True


def _behind(
    files: Sequence[LandingFile],
    index: LandingIndex,
    ingested: Mapping[tuple[str, datetime], tuple[str, int]],
) -> Behind:
    before: dict[str, set[datetime]] = {}
    for name, start in ingested:
        before.setdefault(name, set()).add(start)
    behind: dict[datetime, list[tuple[LandingFile, int]]] = {}
    for file in files:
        known = index.of(file)
        if known is None or known.error:
            continue
        for start in known.window_starts | before.get(file.name, set()):
            held, at = ingested.get((file.name, start), ("", 0))
            if held != file.fingerprint:
                behind.setdefault(start, []).append((file, at))
    return behind


def _later(
    lake: Lake,
    source: str,
    behind: Behind,
    index: LandingIndex,
    ingested: Mapping[tuple[str, datetime], tuple[str, int]],
    now: datetime,
) -> dict[datetime, str]:
    if source not in LOGGED_SOURCES:
        return {}
    return waiting(behind, index, ingested, lake.settings.landing_log_seconds, now)


def _named(news: Sequence[tuple[LandingFile, int]]) -> list[str]:
    # A file that is turned back to what it was is news too: hence the snapshot.
    return [f"{file.name} {file.fingerprint} {at}" for file, at in news]


def _windows(use_case: UseCase, behind: Mapping[datetime, list[str]]) -> dict[Window, str]:
    return _in_order(use_case, {start: digest(sorted(names)) for start, names in behind.items()})


def _in_order(use_case: UseCase, found: Mapping[datetime, str]) -> dict[Window, str]:
    end = use_case.partitions.closes_at
    return {
        use_case.calendar.window_stored(start): found[start]
        for start in sorted(found)
        if end is None or start < naive_utc(end)
    }
