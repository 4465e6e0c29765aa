"""Rows that are older than their use case keeps them are deleted, whole windows at a time.

That a window has no rows any more is no change that others would have to be computed again for: it
is noted as one that came out empty, with the reason.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import duckdb

from ml_platform.spec.queries import literal, quote
from ml_platform.spec.tables import code_version
from ml_platform.spec.use_case import EXPLANATIONS, LIVE_REPORTS, SEGMENT_REPORTS, UseCase
from ml_platform.spec.windows import utc
from ml_platform.storage import Commit, Lake
from ml_platform.storage.computations import insert_notes
from ml_platform.storage.tables import WINDOW_START, naive_utc
from ml_platform.upkeep.names import Tables

PARTS = {
    "predictions": (EXPLANATIONS,),
    "drift_report": (SEGMENT_REPORTS[0],),
    LIVE_REPORTS[0]: (SEGMENT_REPORTS[1],),
}
"""Tables whose rows are parts of those of another one."""


@dataclass(frozen=True)
class Surplus:
    """Rows of one table that are older than they are kept."""

    use_case: UseCase
    table: str
    before: datetime
    """Windows that start before are dropped; in UTC without an offset."""
    windows: int
    rows: int
    reason: str

    @property
    def where(self) -> str:
        """SQL that holds for the rows."""
        return f"{WINDOW_START} < TIMESTAMP {literal(str(self.before))}"


def find_surplus(lake: Lake, use_cases: Iterable[UseCase], now: datetime) -> list[Surplus]:
    """What `drop_surplus` would delete."""
    with lake.cursor() as cursor:
        return [each for case in use_cases for each in _surplus_of(lake, cursor, case, now)]


def drop_surplus(lake: Lake, surplus: Surplus, commit: Commit) -> Surplus:
    """Delete rows of one table in one transaction, with those that are parts of them."""
    use_case = surplus.use_case
    said = replace(
        commit,
        code_version=code_version(use_case, surplus.table),
        message=f"{use_case.name}/{surplus.table}",
    )
    windows = (
        f"SELECT DISTINCT {WINDOW_START} AS window_at, {literal(surplus.reason)} AS reason "
        f"FROM lake.{quote(use_case.name)}.{surplus.table} WHERE {surplus.where}"
    )

    def work(transaction: duckdb.DuckDBPyConnection) -> None:
        begun_at = lake.snapshot(transaction)
        insert_notes(transaction, use_case, surplus.table, begun_at, windows, said)
        there = lake.tables(transaction, use_case.name)
        for table in there.intersection((surplus.table, *PARTS.get(surplus.table, ()))):
            transaction.execute(
                f"DELETE FROM lake.{quote(use_case.name)}.{table} WHERE {surplus.where}"
            )

    with lake.cursor() as cursor:
        lake.transact(cursor, said, work)
    return surplus


def snapshots_kept_for(use_cases: Iterable[UseCase]) -> Tables:
    """How long the snapshots are kept that rows of tables name, as use cases declare it."""
    return {
        (case.name, table): timedelta(seconds=declared.snapshots.seconds)
        for case in use_cases
        for table, declared in case.retention.items()
        if declared.snapshots is not None
    }


def _surplus_of(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, now: datetime
) -> Iterator[Surplus]:
    calendar, there = use_case.calendar, lake.tables(cursor, use_case.name)
    for table, declared in use_case.retention.items():
        if declared.rows is None or table not in there:
            continue
        since = declared.rows.before(now, calendar.timezone)
        if utc(since) <= utc(calendar.start):
            continue
        before = naive_utc(calendar.window_at(since).start)
        found = Surplus(use_case, table, before, 0, 0, f"rows are kept for {declared.rows}")
        row = cursor.execute(
            f"SELECT count(DISTINCT {WINDOW_START}), count(*) "
            f"FROM lake.{quote(use_case.name)}.{table} WHERE {found.where}"
        ).fetchone()
        if row and row[1]:
            yield replace(found, windows=row[0], rows=row[1])
