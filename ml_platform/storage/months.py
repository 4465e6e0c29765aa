"""How windows are laid into files: those of one month share a few.

A window that is replaced is deleted from its file and written to a new one. Where that would leave
a month in too many files, all rows of the month are written again, in the same transaction; rows of
windows that did not change keep their `_snapshot`.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

import duckdb

from ml_platform.spec.queries import literal, quote
from ml_platform.storage.tables import SNAPSHOT, WINDOW_START, Table

MOST_FILES = 3
"""Files of one month and table, as long as its rows are few."""
FEW_ROWS = 1_000_000
MOST_FILES_OF_MANY_ROWS = 64
"""Of a month with more rows: writing all of them for each window would cost more than it saves."""


def crowded_months(
    transaction: duckdb.DuckDBPyConnection, table: Table, changed: Collection[datetime]
) -> frozenset[datetime]:
    """Months of windows that change whose files one more would make too many."""
    months = frozenset(map(month_of, changed))
    # A column of that name hides DuckLake's own; then each month is written as a whole.
    named = {name.lower() for name in table.columns}
    files = "count(DISTINCT filename)" if "filename" not in named else str(MOST_FILES)
    rows = transaction.execute(
        f"""SELECT month FROM (SELECT date_trunc('month', {WINDOW_START}) AS month,
            {files} AS files, count(*) AS rows
            FROM {table.sql} WHERE {between_sql(months)} GROUP BY 1)
        WHERE files >= CASE WHEN rows <= {FEW_ROWS} THEN {MOST_FILES}
            ELSE {MOST_FILES_OF_MANY_ROWS} END"""
    ).fetchall()
    return months.intersection(month for (month,) in rows)


def take_out(
    transaction: duckdb.DuckDBPyConnection, table: Table, months: frozenset[datetime], gone: str
) -> str:
    """Move the rows of whole months, but those that go, out of a table; SQL that yields them.

    gone: predicate for the rows that go.
    """
    names = ", ".join(quote(c) for c in (WINDOW_START, *table.columns))
    listed = ", ".join(f"TIMESTAMP {literal(str(month))}" for month in sorted(months))
    inside = f"{between_sql(months)} AND date_trunc('month', {WINDOW_START}) IN ({listed})"
    transaction.execute(
        f"""CREATE OR REPLACE TEMP TABLE __kept AS
        SELECT {names}, {since_sql(table.columns)} AS {SNAPSHOT}
        FROM {table.sql} WHERE {inside} AND NOT ({gone})"""
    )
    transaction.execute(f"DELETE FROM {table.sql} WHERE {inside}")
    return f"SELECT {names}, {SNAPSHOT} FROM temp.__kept"


def since_sql(columns: Collection[str]) -> str:
    """The snapshot since which a row's window holds what it holds.

    Rows of files that an engine wrote, and those that release 0.1.0 or before did, leave it to
    DuckLake.

    columns: of the table; one of the name `snapshot_id` hides DuckLake's own.
    """
    hidden = "snapshot_id" in {name.lower() for name in columns}
    return SNAPSHOT if hidden else f"coalesce({SNAPSHOT}, snapshot_id)"


def month_of(start: datetime) -> datetime:
    """The first moment of the month of a window's start."""
    return start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def between_sql(months: Collection[datetime]) -> str:
    """Predicate on `window_start` from the first to the last of some months; it prunes files."""
    end = month_of(max(months) + timedelta(days=32))
    return (
        f"{WINDOW_START} >= TIMESTAMP {literal(str(min(months)))} "
        f"AND {WINDOW_START} < TIMESTAMP {literal(str(end))}"
    )
