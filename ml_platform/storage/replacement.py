"""Replace windows of tables; readers see whole old windows or whole new ones."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

import duckdb

from ml_platform.errors import LakeError
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.windows import Calendar, Window
from ml_platform.storage.basis import Basis
from ml_platform.storage.calendars import (
    StoredCalendar,
    require_calendar,
    settle_calendar,
)
from ml_platform.storage.comparison import window_fingerprints, windows_apart
from ml_platform.storage.data_files import DataFiles
from ml_platform.storage.lake import ROWS, Commit, Lake
from ml_platform.storage.tables import (
    WINDOW_START,
    Table,
    duplicated,
    evolve,
    naive_utc,
)
from ml_platform.storage.threads import BYTES_A_VALUE
from ml_platform.storage.window_swap import Swap, among, moment

EMPTY = (0, 0)
"""Fingerprint of a window without rows."""
FEW_WINDOWS = 500
"""So many can be part of a statement; parsing more would take longer than the rest of it."""


@dataclass(frozen=True)
class Written:
    """What a write did; counts are by window."""

    snapshot: int
    rows: Mapping[Window, int]
    changed: frozenset[Window] = field(default_factory=frozenset)
    versions: Mapping[Window, str] = field(default_factory=dict)
    """What each window holds now, stamps aside, as a digest."""


@dataclass(frozen=True)
class Replacement:
    """Rows that take the place of what one table holds."""

    table: Table
    query: str
    """Yields the table's columns; its column `time` decides the window of a row."""
    time: str
    only: Mapping[str, str] = field(default_factory=dict)
    """Columns and values of the rows to replace, where a table is shared; by default all rows."""
    files: DataFiles | None = None
    """Files that hold the rows already, checked and in windows, instead of a query."""
    is_placed: bool = False
    """Whether `time` is the start of a row's window, in UTC without an offset. What the query reads
    has to stay until the rows are written."""
    is_unique: bool = False
    """Whether it is known that no two rows of a window have the same `table.order`."""

    @property
    def scope(self) -> str:
        """SQL that holds for the rows to replace."""
        return " AND ".join(f"{quote(c)} = {literal(v)}" for c, v in self.only.items()) or "true"


def replace_windows(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    table: Table,
    query: str,
    *,
    time: str,
    calendar: Calendar,
    window_range: Window,
    commit: Commit,
    basis: Basis | None = None,
    files: DataFiles | None = None,
) -> Written:
    """Make the windows of `window_range` hold exactly the rows of `query`, in one transaction.

    query yields `table.columns`; its column `time` decides the window of a row. Windows whose rows
    are the same as before, stamps aside, are not touched, so that writing twice changes nothing.
    The table is created, or given the columns it lacks, in the same transaction.
    basis: what the query was made from; None where that is nothing of the lake. files: where the
    rows are already, instead of a query.
    Raises LakeError for a row outside the range or a column whose type changed, DuplicateRows for
    two rows of one window with the same `table.order`, InputsChanged, CommitConflict.
    """
    replacement = Replacement(table, query, time, files=files)
    (written,) = replace_together(
        lake, cursor, [replacement],
        calendar=calendar, window_range=window_range, commit=commit, basis=basis,
    )  # fmt: skip
    return written


def replace_together(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    replacements: Sequence[Replacement],
    *,
    calendar: Calendar,
    window_range: Window,
    commit: Commit,
    basis: Basis | None = None,
    alongside: Callable[[duckdb.DuckDBPyConnection, int], bool] = lambda transaction, number: False,
) -> tuple[Written, ...]:
    """Replace the windows of several tables in one transaction, each as `replace_windows` does.

    alongside: writes more in the transaction, given the number that its snapshot will have, and
    says whether it wrote.
    """
    windows = {naive_utc(window.start): window for window in calendar.windows(window_range)}
    if not windows:
        raise LakeError(
            f"{window_range} ends before the first partition, {calendar.start.isoformat()}"
        )
    bounds = min(windows), max(naive_utc(window.end) for window in windows.values())
    staged = {f"staged_{number}": each for number, each in enumerate(replacements)}

    def work(transaction: duckdb.DuckDBPyConnection) -> tuple[Written, ...]:
        snapshot = lake.snapshot(transaction)
        if basis is not None:
            basis.require(transaction)
        known = require_calendar(transaction, replacements[0].table.schema, calendar)
        evolved = [_evolved(transaction, each.table, calendar, known) for each in replacements]
        outcomes = [
            _replace(transaction, each, name, bounds, snapshot + 1) for name, each in staged.items()
        ]
        # Snapshots are numbered one by one, and a commit that would not be the next one fails.
        wrote = any(evolved) or any(changed for _, changed in outcomes)
        wrote = alongside(transaction, snapshot + 1) or wrote
        commit.figures[ROWS] = str(sum(_rows_of(held, changed) for held, changed in outcomes))
        return tuple(
            Written(
                snapshot=snapshot + 1 if wrote else snapshot,
                rows={window: held.get(start, EMPTY)[0] for start, window in windows.items()},
                changed=frozenset(windows[start] for start in changed & windows.keys()),
                versions={
                    window: _version(held.get(start, EMPTY)) for start, window in windows.items()
                },
            )
            for held, changed in outcomes
        )

    commit = replace(basis.stamp(commit) if basis else commit, figures={})
    try:
        for name, each in staged.items():
            _stage(cursor, each, name, windows, bounds)
        columns = max(len(each.table.columns) for each in replacements)
        with lake.threads.suited(columns, partial(_staged_bytes, cursor, staged)):
            return lake.transact(cursor, commit, work)
    finally:
        for name, each in staged.items():
            kind = "VIEW" if each.is_placed or each.files is not None else "TABLE"
            cursor.execute(f"DROP {kind} IF EXISTS temp.{name}")


def _staged_bytes(cursor: duckdb.DuckDBPyConnection, staged: Mapping[str, Replacement]) -> int:
    size = 0
    for name, each in staged.items():
        row = cursor.execute(f"SELECT count(*) FROM temp.{name}").fetchone()
        size += BYTES_A_VALUE * len(each.table.columns) * (int(row[0]) if row else 0)
    return size


def _rows_of(held: Mapping[datetime, tuple[int, int]], windows: Collection[datetime]) -> int:
    return sum(held.get(start, EMPTY)[0] for start in windows)


def _evolved(
    transaction: duckdb.DuckDBPyConnection,
    table: Table,
    calendar: Calendar,
    known: Mapping[str, StoredCalendar | None],
) -> bool:
    """As `evolve`; a table that is made notes its calendar."""
    evolved = evolve(transaction, table)
    if known.get(table.name) is not None:
        return evolved
    settle_calendar(transaction, table, calendar)
    return True


def _stage(
    cursor: duckdb.DuckDBPyConnection,
    replacement: Replacement,
    staged: str,
    starts: Collection[datetime],
    bounds: tuple[datetime, datetime],
) -> None:
    if replacement.files is not None:
        replacement.files.stage(cursor, replacement.table, staged, frozenset(starts))
        return
    table, time = replacement.table, quote(replacement.time)
    columns = ", ".join(
        f"CAST(q.{quote(c)} AS {t}) AS {quote(c)}" for c, t in table.columns.items()
    )
    if replacement.is_placed:
        known = f"(SELECT {WINDOW_START} FROM ({_moments(cursor, starts)}))"
        cursor.execute(
            f"""CREATE OR REPLACE TEMP VIEW {staged} AS
            SELECT q.{time} AS {WINDOW_START}, {columns} FROM ({replacement.query}) q"""
        )
        _refuse_others(cursor, replacement, staged, bounds, f"{WINDOW_START} NOT IN {known}")
        return
    # The calendar decides the window of a row, not SQL: one truth also where clocks change.
    # A time without an offset becomes an instant in the session's zone before it is compared.
    instant = f"timezone('UTC', CAST(q.{time} AS TIMESTAMPTZ))"
    window = f"CASE WHEN {instant} < {moment(bounds[1])} THEN w.{WINDOW_START} END"
    cursor.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE {staged} AS
        SELECT {window} AS {WINDOW_START}, {columns}
        FROM ({replacement.query}) q
        ASOF LEFT JOIN ({_moments(cursor, starts)}) w
        ON {instant} >= w.{WINDOW_START}
        """
    )
    _refuse_others(cursor, replacement, staged, bounds, f"{WINDOW_START} IS NULL")


def _refuse_others(
    cursor: duckdb.DuckDBPyConnection,
    replacement: Replacement,
    staged: str,
    bounds: tuple[datetime, datetime],
    is_outside: str,
) -> None:
    table = replacement.table
    outside = cursor.execute(f"SELECT count(*) FROM temp.{staged} WHERE {is_outside}").fetchone()
    if outside and outside[0]:
        raise LakeError(
            f"{table.schema}.{table.name}: {outside[0]} rows have a {replacement.time} outside "
            f"[{bounds[0].isoformat()}Z, {bounds[1].isoformat()}Z)"
        )
    if not replacement.is_unique:
        _refuse_duplicates(cursor, table, staged)


def _refuse_duplicates(cursor: duckdb.DuckDBPyConnection, table: Table, staged: str) -> None:
    names = ", ".join(quote(c) for c in table.order)
    twice = cursor.execute(
        f"SELECT {names}, count(*) FROM temp.{staged} GROUP BY {WINDOW_START}, {names} "
        f"HAVING count(*) > 1 ORDER BY {names} LIMIT 1"
    ).fetchone()
    if twice:
        raise duplicated(table, twice)


def _replace(
    transaction: duckdb.DuckDBPyConnection,
    replacement: Replacement,
    staged: str,
    bounds: tuple[datetime, datetime],
    snapshot: int,
) -> tuple[dict[datetime, tuple[int, int]], set[datetime]]:
    """Swap in the windows that differ; the fingerprints of what is held now, and what was swapped.

    snapshot: the one that the transaction makes.
    """
    table = replacement.table
    within = f"{WINDOW_START} >= {moment(bounds[0])} AND {WINDOW_START} < {moment(bounds[1])}"
    before = window_fingerprints(
        transaction, table, f"{table.sql} WHERE {within} AND {replacement.scope}"
    )
    after = window_fingerprints(transaction, table, f"temp.{staged}")
    changed = {s for s in before.keys() | after.keys() if before.get(s) != after.get(s)}
    if table.tolerance and (doubted := changed & before.keys() & after.keys()):
        stored = f"{table.sql} WHERE {among(doubted, before)} AND {replacement.scope}"
        computed = f"temp.{staged} WHERE {among(doubted, after)}"
        changed -= doubted - windows_apart(transaction, table, stored, computed)
    if changed:
        Swap(
            table, replacement.scope, staged, replacement.files, before, after, changed, snapshot
        ).carry_out(transaction)
    # Within the tolerance the stored rows stay, so theirs is the fingerprint that holds.
    kept = {start: before[start] for start in after.keys() - changed}
    return {**after, **kept}, changed


def _version(held: tuple[int, int]) -> str:
    rows, total = held
    return f"{rows}-{total % 2**64:016x}"


def _moments(cursor: duckdb.DuckDBPyConnection, starts: Collection[datetime]) -> str:
    """SELECT of moments as `window_start`."""
    if len(starts) <= FEW_WINDOWS:
        # DuckDB imports pandas, over a second, for the first parameter of a process.
        listed = ", ".join(literal(str(start)) for start in starts)
        return f"SELECT unnest([{listed}]::TIMESTAMP[]) AS {WINDOW_START}"
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE __windows AS "
        f"SELECT unnest(?::TIMESTAMP[]) AS {WINDOW_START}",
        [list(starts)],
    )
    return "FROM temp.__windows"
