"""Since which snapshot each window of a table holds what it holds.

Rows say it themselves. A window that lost all of its rows has none that could: it is noted in
`emptied_windows`, in the transaction that empties it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import version_table
from ml_platform.storage.appending import insert_latest
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.lake import Lake
from ml_platform.storage.months import since_sql
from ml_platform.storage.tables import SNAPSHOT, WINDOW_START, Table

NEVER = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Range:
    """Windows with a start in `[first, last)`, both in UTC without an offset."""

    first: datetime
    last: datetime

    @classmethod
    def of(cls, starts: Iterable[datetime]) -> "Range":
        """From the first to the last of some starts; an empty range where there is none."""
        known = sorted(starts)
        if not known:
            return cls(NEVER, NEVER)
        return cls(known[0], known[-1] + datetime.resolution)

    def holds(self, column: str) -> str:
        """SQL that holds where a column lies in it."""
        return (
            f"{column} >= TIMESTAMP {literal(str(self.first))} "
            f"AND {column} < TIMESTAMP {literal(str(self.last))}"
        )


@dataclass(frozen=True)
class Change:
    """The last change of one window."""

    snapshot: int
    has_rows: bool
    said: tuple[str | None, ...]
    """Values under the asked names of the commit's `extra`; None where it has none."""


def emptied_table(schema: str) -> Table:
    """Windows that lost all of their rows; it has no windows of its own."""
    return Table(
        schema=schema,
        name="emptied_windows",
        columns={"table_name": "VARCHAR", "window_at": "TIMESTAMP", "snapshot": "BIGINT"},
        order=("table_name", "window_at"),
    )


def note_emptied(
    transaction: duckdb.DuckDBPyConnection,
    table: Table,
    starts: Collection[datetime],
    snapshot: int,
) -> None:
    """Note windows that the transaction, which makes a snapshot, empties."""
    listed = ", ".join(literal(str(start)) for start in sorted(starts))
    rows = (
        f"SELECT {literal(table.name)} AS table_name, "
        f"unnest([{listed}]::TIMESTAMP[]) AS window_at, {snapshot:d} AS snapshot"
    )
    insert_latest(transaction, emptied_table(table.schema), rows, "snapshot")


def read_changes(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    schema: str,
    ranges: Mapping[str, Range],
    names: Collection[str] = (),
) -> dict[str, dict[datetime, Change]]:
    """The last change of each window, by table and start; tables that nobody wrote have none.

    ranges: the windows to look at, by table; names: what to say of the commits.
    """
    stored = _columns(cursor, schema)
    parts = [
        f"""SELECT {literal(table)} AS name, {WINDOW_START} AS start,
            max({since_sql(stored[table])}) AS snapshot, true AS has_rows
        FROM lake.{quote(schema)}.{quote(table)} WHERE {wanted.holds(WINDOW_START)} GROUP BY ALL"""
        for table, wanted in ranges.items()
        if WINDOW_START in stored.get(table, ())
    ]
    if not parts:
        return {}
    # What rows were before they were corrected is part of what a window holds.
    parts += [
        f"""SELECT {literal(table)}, {WINDOW_START}, max({SNAPSHOT}), false
        FROM lake.{quote(schema)}.{quote(version_table(table))}
        WHERE {wanted.holds(WINDOW_START)} GROUP BY ALL"""
        for table, wanted in ranges.items()
        if version_table(table) in stored
    ]
    emptied = emptied_table(schema)
    if emptied.name in stored:
        parts += [
            f"""SELECT {literal(table)}, window_at, max(snapshot), false FROM {emptied.sql}
            WHERE table_name IN ({literal(table)}, {literal(version_table(table))})
            AND {wanted.holds("window_at")} GROUP BY ALL"""
            for table, wanted in ranges.items()
        ]
    said = "".join(f", json_extract_string(c.extra, {literal(f'$.{name}')})" for name in names)
    rows: list[tuple[Any, ...]] = cursor.execute(
        f"""WITH windows AS (
            SELECT name, start, max(snapshot) AS snapshot, bool_or(has_rows) AS has_rows
            FROM ({" UNION ALL ".join(parts)}) GROUP BY ALL
        )
        SELECT name, start, w.snapshot, has_rows{said}
        FROM windows w LEFT JOIN {lake.commits(cursor)} c USING (snapshot)
        ORDER BY name, start"""
    ).fetchall()
    found: dict[str, dict[datetime, Change]] = {}
    for table, start, snapshot, has_rows, *values in rows:
        found.setdefault(table, {})[start] = Change(snapshot, has_rows, tuple(values))
    return found


def last_changes(cursor: duckdb.DuckDBPyConnection, table: str) -> dict[str, int]:
    """The snapshot that last changed a table of this name, by schema, where it was written to."""
    # A merged file begins with its oldest rows; `partial_max` is the snapshot of its newest.
    rows = cursor.execute(
        f"""SELECT s.schema_name, max(greatest(f.begin_snapshot, coalesce(f.end_snapshot, 0),
            coalesce(f.partial_max, 0)))
        FROM {METADATA}.ducklake_data_file f
        JOIN {METADATA}.ducklake_table t USING (table_id)
        JOIN {METADATA}.ducklake_schema s USING (schema_id)
        WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL
        AND t.table_name = {literal(table)} GROUP BY 1"""
    ).fetchall()
    return dict(rows)


def changed_since(
    cursor: duckdb.DuckDBPyConnection,
    schema: str,
    table: str,
    wanted: Range,
    where: str,
    snapshot: int,
) -> bool:
    """Whether windows of a table have come to hold other rows after a snapshot.

    where: predicate for the rows that matter.
    """
    stored = _columns(cursor, schema)
    parts = []
    if WINDOW_START in stored.get(table, ()):
        parts.append(
            f"SELECT 1 FROM lake.{quote(schema)}.{quote(table)} "
            f"WHERE {where} AND {since_sql(stored[table])} > {snapshot:d}"
        )
    emptied = emptied_table(schema)
    if emptied.name in stored:
        parts.append(
            f"SELECT 1 FROM {emptied.sql} WHERE table_name = {literal(table)} "
            f"AND {wanted.holds('window_at')} AND snapshot > {snapshot:d}"
        )
    found = parts and cursor.execute(f"{' UNION ALL '.join(parts)} LIMIT 1").fetchone()
    return bool(found)


def _columns(cursor: duckdb.DuckDBPyConnection, schema: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for table, column in cursor.execute(
        f"""SELECT table_name, column_name FROM duckdb_columns()
        WHERE database_name = 'lake' AND schema_name = {literal(schema)}"""
    ).fetchall():
        found.setdefault(table, set()).add(column)
    return found
