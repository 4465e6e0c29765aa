"""What a use case has stored, moved to the windows of another calendar."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import duckdb

from ml_platform.features import leak_checks_table
from ml_platform.sources.tables import ingestions_table
from ml_platform.spec.queries import quote
from ml_platform.spec.tables import computed_tables
from ml_platform.spec.use_case import SEGMENT_REPORTS, UseCase, version_table
from ml_platform.spec.windows import Window
from ml_platform.storage import (
    Commit,
    Lake,
    StoredCalendar,
    Table,
    settle_calendar,
    stored_calendars,
)
from ml_platform.storage.changes import emptied_table
from ml_platform.storage.computations import computations_table
from ml_platform.storage.tables import SNAPSHOT, WINDOW_START, naive_utc


@dataclass(frozen=True)
class Recalendared:
    """What moving came to."""

    moved: Mapping[str, int] = field(default_factory=dict)
    """Rows by table whose rows lie in windows of the new calendar now; none was lost."""
    dropped: tuple[str, ...] = ()
    """Computed tables, which the new windows are to be computed of."""
    before: str = ""
    """The calendar so far, in words; empty where it is the same."""


def recalendar(lake: Lake, use_case: UseCase, commit: Commit) -> Recalendared:
    """Move what is stored to the windows of the calendar that the use case declares now.

    In one transaction. Rows of sources and of quarantine are moved, each to the window of its event
    time; what was computed of the old windows is dropped, to be computed again, and so are the
    notes on which file each window was ingested from. Where only the first window is another one,
    nothing is moved: rows before a later start stay, and are of no partition.
    Older snapshots keep what they hold until they expire.
    """

    def work(transaction: duckdb.DuckDBPyConnection) -> Recalendared:
        known = stored_calendars(transaction, use_case.name)
        windowed = {name: stored for name, stored in known.items() if stored is not None}
        changed = {n: c for n, c in windowed.items() if not c.is_of(use_case.calendar)}
        if not changed:
            return Recalendared()
        if all(c.has_windows_of(use_case.calendar) for c in changed.values()):
            for name, stored in changed.items():
                table = _table(use_case, name)
                settle_calendar(transaction, table, use_case.calendar, stored.since)
            return Recalendared(before=_named(changed))
        made = computed_tables(use_case)
        computed = {*made, *map(version_table, made), *SEGMENT_REPORTS} & windowed.keys()
        since = lake.snapshot(transaction) + 1
        for name in sorted(computed):
            transaction.execute(f"DROP TABLE {_table(use_case, name).sql}")
        emptied, checks = emptied_table(use_case.name), leak_checks_table(use_case)
        for notes in (ingestions_table(use_case), computations_table(use_case), emptied, checks):
            if notes.name in known:
                transaction.execute(f"DELETE FROM {notes.sql}")
        moved = {
            name: _move(transaction, use_case, name, since) for name in windowed.keys() - computed
        }
        return Recalendared(moved, tuple(sorted(computed)), _named(changed))

    with lake.cursor(use_case.timezone) as cursor:
        return lake.transact(cursor, replace(commit, message=f"{use_case.name}/recalendar"), work)


def _table(use_case: UseCase, name: str) -> Table:
    return Table(use_case.name, name, {}, ())


def _named(changed: Mapping[str, StoredCalendar]) -> str:
    return str(next(iter(changed.values())))


def _move(transaction: duckdb.DuckDBPyConnection, use_case: UseCase, name: str, since: int) -> int:
    """Give each row of a table the window of its time; returns how many rows there are."""
    table = _table(use_case, name)
    time = _time_of(use_case, name)
    first, last, rows = transaction.execute(
        f"SELECT min({time}), max({time}), count(*) FROM {table.sql}"
    ).fetchall()[0]
    if rows:
        transaction.execute(
            "CREATE OR REPLACE TEMP TABLE __starts AS SELECT unnest(?::TIMESTAMP[]) AS new_start",
            [_starts(use_case, first, last)],
        )
        transaction.execute(
            f"""CREATE OR REPLACE TEMP TABLE __moved AS
            SELECT r.* REPLACE (s.new_start AS {WINDOW_START}, {since:d} AS {SNAPSHOT})
            FROM {table.sql} r
            ASOF JOIN temp.__starts s ON {time} >= s.new_start"""
        )
        transaction.execute(f"DELETE FROM {table.sql}")
        transaction.execute(
            f"INSERT INTO {table.sql} BY NAME FROM temp.__moved ORDER BY {WINDOW_START}"
        )
        transaction.execute("DROP TABLE temp.__moved; DROP TABLE temp.__starts")
    settle_calendar(transaction, table, use_case.calendar, since)
    return int(rows)


def _time_of(use_case: UseCase, name: str) -> str:
    """SQL of a row's time, in UTC without an offset; that of its old window where it has no own."""
    sources = {version_table(source): source for source in use_case.sources}
    if (source := sources.get(name, name)) in use_case.sources:
        column = use_case.sources[source].event_time
        return f"timezone('UTC', CAST({quote(column)} AS TIMESTAMPTZ))"
    return WINDOW_START


def _starts(use_case: UseCase, first: datetime, last: datetime) -> list[datetime]:
    calendar = use_case.calendar
    begin = calendar.window_stored(first).start
    end = calendar.window_stored(last).end
    # Rows from before the first window are rows all the same.
    wider = replace(calendar, start=begin)
    return [naive_utc(window.start) for window in wider.windows(Window(begin, end))]
