"""Rows that are older than their use case keeps them are deleted, whole windows at a time.

That a window has no rows any more is no change that others would have to be computed again for: it
is noted as one that came out empty, with the reason.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import duckdb

from ml_platform.spec.logged import readable_columns
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.tables import code_version
from ml_platform.spec.use_case import (
    EXPLANATIONS,
    FEEDBACK,
    LIVE_REPORTS,
    REQUESTS,
    SEGMENT_REPORTS,
    UseCase,
)
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
    unless: str = "false"
    """SQL that holds for rows of those windows that are kept for good."""

    @property
    def where(self) -> str:
        """SQL that holds for the rows."""
        return f"{WINDOW_START} < TIMESTAMP {literal(str(self.before))} AND NOT ({self.unless})"


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
        if surplus.table not in use_case.sources:
            # Sources say by `ingestions` which windows they have taken; that stays true.
            insert_notes(transaction, use_case, surplus.table, begun_at, windows, said)
        there = lake.tables(transaction, use_case.name)
        for table in there.intersection((surplus.table, *PARTS.get(surplus.table, ()))):
            transaction.execute(
                f"DELETE FROM lake.{quote(use_case.name)}.{table} WHERE {surplus.where}"
            )

    with lake.cursor() as cursor:
        lake.transact(cursor, said, work)
    return surplus


def oldest_kept(use_case: UseCase, table: str, now: datetime) -> datetime | None:
    """Start of the oldest window whose rows are kept, in UTC without an offset.

    None where all are.
    """
    declared, calendar = use_case.retention.get(table), use_case.calendar
    if declared is None or declared.rows is None:
        return None
    since = declared.rows.before(now, calendar.timezone)
    if utc(since) <= utc(calendar.start):
        return None
    return naive_utc(calendar.window_at(since).start)


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
    there = lake.tables(cursor, use_case.name)
    for table, declared in use_case.retention.items():
        before = oldest_kept(use_case, table, now)
        if before is None or table not in there:
            continue
        found = Surplus(
            use_case, table, before, 0, 0, f"rows are kept for {declared.rows}",
            _named_by_feedback(use_case, there) if table == REQUESTS else "false",
        )  # fmt: skip
        row = cursor.execute(
            f"SELECT count(DISTINCT {WINDOW_START}), count(*) "
            f"FROM lake.{quote(use_case.name)}.{table} WHERE {found.where}"
        ).fetchone()
        if row and row[1]:
            yield replace(found, windows=row[0], rows=row[1])


def _named_by_feedback(use_case: UseCase, there: Collection[str]) -> str:
    """SQL that holds for requests that feedback is about: labels are made from both."""
    if FEEDBACK not in there:
        return "false"
    schema = f"lake.{quote(use_case.name)}"
    named = f"SELECT prediction_id FROM {schema}.{FEEDBACK} WHERE prediction_id IS NOT NULL"
    key = [*use_case.examples.entity, "event_time"]
    if readable_columns(use_case).issuperset(use_case.examples.entity):
        using = ", ".join(map(quote, key))
        named += (
            f" UNION ALL SELECT r.prediction_id FROM {schema}.{REQUESTS} r "
            f"SEMI JOIN {schema}.{FEEDBACK} f USING ({using})"
        )
    return f"prediction_id IN ({named})"
