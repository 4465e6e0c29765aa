"""What the lake knows of each window of each table: when it last changed, by which code.

A window that is computed again and comes out the same is not written. What would otherwise make it
look as if it still had to be computed is noted in `computations`, as is a window that came out
empty and why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import duckdb

from ml_platform.sources.arrivals import table_landed
from ml_platform.sources.tables import landings_table
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.storage.appending import latest_sql
from ml_platform.storage.basis import BEGUN_AT
from ml_platform.storage.changes import Change, Range, read_changes
from ml_platform.storage.computations import computations_table
from ml_platform.storage.tables import WINDOW_START

LOST = "data file lost"
"""Stands for the version of the code where a window is to be computed since its file was lost."""


@dataclass(frozen=True)
class Made:
    """The last computation of one window of one table."""

    begun_at: int
    """Snapshot of the lake when it began: it has seen no later change."""
    changed_at: int
    """Snapshot since which the window holds what it holds; 0 if it was never written."""
    has_rows: bool
    code_version: str | None
    """None where nothing says so: another tool wrote it."""
    reason: str = ""
    """Why it came out empty."""


Evidence = Mapping[str, Mapping[datetime, Made]]
"""By table and start of the window, in UTC without an offset."""


def gather(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, ranges: Mapping[str, Range]
) -> Evidence:
    """What the lake knows of the windows of some tables.

    ranges: the windows to look at, by table.
    """
    said = ("code_version", BEGUN_AT)
    changes = read_changes(lake, cursor, use_case.name, ranges, said)
    found = {
        table: {start: _made(change) for start, change in windows.items()}
        for table, windows in changes.items()
    }
    for table, start, begun_at, code, reason in _noted(lake, cursor, use_case, ranges):
        windows = found.setdefault(table, {})
        made = windows.get(start, Made(begun_at, 0, False, code, reason))
        if begun_at >= made.begun_at:
            made = replace(made, begun_at=begun_at, code_version=code, reason=reason)
        windows[start] = made
    return found


def versions(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    table: str,
    column: str,
    wanted: Range,
) -> dict[datetime, int]:
    """The largest value of a column of model versions, by start of the window."""
    if table not in lake.tables(cursor, use_case.name):
        return {}
    rows = cursor.execute(
        f"""SELECT {WINDOW_START}, max({quote(column)}) FROM lake.{quote(use_case.name)}.{table}
        WHERE {wanted.holds(WINDOW_START)} GROUP BY 1"""
    ).fetchall()
    return {start: version for start, version in rows if version is not None}


def landed(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, source: str, wanted: Range
) -> dict[datetime, int]:
    """By start of the window, the snapshot at which a landing file with rows of it was last noted.

    Of files that were looked at: `ml_platform.sources.arrivals` looks. A database table is looked
    into now; raises LandingError or LakeError where it cannot be.
    """
    if use_case.sources[source].rows_of:
        return table_landed(lake, cursor, use_case, source)
    table = landings_table(use_case)
    if table.name not in lake.tables(cursor, use_case.name):
        return {}
    # Merged files keep the snapshots of their rows.
    rows = cursor.execute(
        f"""SELECT {WINDOW_START}, max(snapshot_id) FROM {table.sql}
        WHERE source = {literal(source)} AND {wanted.holds(WINDOW_START)} GROUP BY 1"""
    ).fetchall()
    return dict(rows)


def _noted(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, ranges: Mapping[str, Range]
) -> Sequence[tuple[str, datetime, int, str, str]]:
    target = computations_table(use_case)
    if not ranges or target.name not in lake.tables(cursor, use_case.name):
        return []
    where = " OR ".join(
        f"(table_name = {literal(table)} AND {wanted.holds('window_at')})"
        for table, wanted in ranges.items()
    )
    return cursor.execute(
        "SELECT table_name, window_at, begun_at, code_version, reason "
        f"FROM {latest_sql(target, 'begun_at', where)}"
    ).fetchall()


def _made(change: Change) -> Made:
    # Commits of other tools say nothing of when they began to read.
    code, begun_at = change.said
    begun = change.snapshot - 1 if begun_at is None else int(begun_at)
    return Made(begun, change.snapshot, change.has_rows, code)
