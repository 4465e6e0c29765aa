"""What the lake knows of each window of each table: when it last changed, by which code.

A window that is computed again and comes out the same is not written. What would otherwise make it
look as if it still had to be computed is noted in `computations`, as is a window that came out
empty and why.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import duckdb

from ml_platform.sources.arrivals import table_landed
from ml_platform.sources.tables import landings_table
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake, Table
from ml_platform.storage.basis import BEGUN_AT
from ml_platform.storage.lake import METADATA
from ml_platform.storage.tables import WINDOW_START, ensure_table


@dataclass(frozen=True)
class Made:
    """The last computation of one window of one table."""

    begun_at: int
    """Snapshot of the lake when it began: it has seen no later change."""
    changed_at: int
    """Snapshot since which the window holds what it holds; 0 if it was never written."""
    has_rows: bool
    code_version: str | None
    """None where the snapshot that says so has expired."""
    reason: str = ""
    """Why it came out empty."""


Evidence = Mapping[str, Mapping[datetime, Made]]
"""By table and start of the window, in UTC without an offset."""


def computations_table(use_case: UseCase) -> Table:
    """Where computations that changed nothing are noted; it has no windows of its own."""
    return Table(
        schema=use_case.name,
        name="computations",
        columns={
            "table_name": "VARCHAR",
            "window_at": "TIMESTAMP",
            "begun_at": "BIGINT",
            "code_version": "VARCHAR",
            "run_id": "VARCHAR",
            "reason": "VARCHAR",
        },
        order=("table_name", "window_at"),
    )


def gather(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, tables: Collection[str]
) -> Evidence:
    """Everything the lake knows of the windows of some tables."""
    found = _written(cursor, use_case, tables)
    for table, start, begun_at, code, reason in _noted(lake, cursor, use_case):
        windows = found.setdefault(table, {})
        made = windows.get(start, Made(begun_at, 0, False, code, reason))
        if begun_at >= made.begun_at:
            made = replace(made, begun_at=begun_at, code_version=code, reason=reason)
        windows[start] = made
    return found


def last_change(cursor: duckdb.DuckDBPyConnection, use_case: UseCase, table: str) -> int:
    """The snapshot that last changed a table without windows; 0 if none did."""
    row = cursor.execute(
        f"""SELECT coalesce(max(greatest(f.begin_snapshot, coalesce(f.end_snapshot, 0))), 0)
        FROM {METADATA}.ducklake_data_file f WHERE f.table_id IN ({_tables(use_case, table)})"""
    ).fetchone()
    assert row is not None
    return int(row[0])


def versions(
    cursor: duckdb.DuckDBPyConnection, use_case: UseCase, table: str, column: str
) -> dict[datetime, int]:
    """The largest value of a column of model versions, by start of the window."""
    # From the statistics that DuckLake keeps of each file.
    rows = cursor.execute(
        f"""SELECT p.partition_value::TIMESTAMP, max(c.max_value::INTEGER)
        FROM {METADATA}.ducklake_data_file f
        JOIN {METADATA}.ducklake_file_partition_value p USING (data_file_id)
        JOIN {METADATA}.ducklake_column n ON n.table_id = f.table_id AND n.end_snapshot IS NULL
        JOIN {METADATA}.ducklake_file_column_stats c
        ON c.data_file_id = f.data_file_id AND c.column_id = n.column_id
        WHERE f.end_snapshot IS NULL AND n.column_name = {literal(column)}
        AND f.table_id IN ({_tables(use_case, table)})
        GROUP BY 1"""
    ).fetchall()
    return {start: version for start, version in rows if version is not None}


def landed(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, source: str
) -> dict[datetime, int]:
    """By start of the window, the snapshot at which a landing file with rows of it was last noted.

    Of files that were looked at: `ml_platform.sources.arrivals` looks. A database table is looked
    into now; raises LandingError or LakeError where it cannot be.
    """
    if use_case.sources[source].table:
        return table_landed(lake, cursor, use_case, source)
    table = landings_table(use_case)
    if table.name not in lake.tables(cursor, use_case.name):
        return {}
    rows = cursor.execute(
        f"""SELECT {WINDOW_START}, max(snapshot_id) FROM ducklake_table_insertions(
            'lake', {literal(table.schema)}, {literal(table.name)}, 0, {lake.snapshot(cursor)}
        ) WHERE source = {literal(source)} AND {WINDOW_START} IS NOT NULL GROUP BY 1"""
    ).fetchall()
    return dict(rows)


def note(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    table: str,
    begun_at: int,
    reasons: Mapping[datetime, str],
    commit: Commit,
) -> None:
    """Note that windows, by start, were computed; with the reason for those that are empty."""
    target = computations_table(use_case)
    ensure_table(lake, cursor, target, commit, partitioned=False)
    names = ", ".join(target.columns)
    rows = ", ".join(
        f"({literal(table)}, TIMESTAMP {literal(str(start))}, {begun_at:d}, "
        f"{literal(commit.code_version)}, {literal(commit.run_id)}, {literal(reason)})"
        for start, reason in reasons.items()
    )

    def work(transaction: duckdb.DuckDBPyConnection) -> None:
        # The whole table is one file, so that reading it stays one file however long it lives.
        transaction.execute(
            f"CREATE OR REPLACE TEMP TABLE noted AS SELECT {names} FROM "
            f"(SELECT {names}, 0 AS turn FROM {target.sql} "
            f"UNION ALL SELECT *, 1 FROM (VALUES {rows}) v({names})) "
            # Of two runs that overlap, the one that read later says what was seen to.
            "QUALIFY row_number() OVER "
            "(PARTITION BY table_name, window_at ORDER BY begun_at DESC, turn DESC) = 1"
        )
        transaction.execute(f"DELETE FROM {target.sql}")
        transaction.execute(f"INSERT INTO {target.sql} FROM noted ORDER BY table_name, window_at")
        transaction.execute("DROP TABLE noted")

    lake.transact(cursor, commit, work)


def _written(
    cursor: duckdb.DuckDBPyConnection, use_case: UseCase, tables: Collection[str]
) -> dict[str, dict[datetime, Made]]:
    # DuckLake's own catalog: a hundredth of a second for five thousand windows, while asking the
    # tables would open every file. Commits of other tools say nothing of when they began to read.
    rows = cursor.execute(
        f"""
        WITH files AS (
            SELECT t.table_name, p.partition_value, f.end_snapshot IS NULL AS is_there, greatest(
                f.begin_snapshot, coalesce(f.end_snapshot, 0), coalesce(d.begin_snapshot, 0)
            ) AS changed_at
            FROM {METADATA}.ducklake_data_file f
            JOIN {METADATA}.ducklake_file_partition_value p USING (data_file_id)
            JOIN {METADATA}.ducklake_table t ON t.table_id = f.table_id
            LEFT JOIN {METADATA}.ducklake_delete_file d ON d.data_file_id = f.data_file_id
            WHERE t.table_id IN ({_tables(use_case, *tables)})
        ),
        windows AS (
            SELECT table_name, partition_value::TIMESTAMP AS start,
                max(changed_at) AS changed_at, bool_or(is_there) AS is_there
            FROM files GROUP BY ALL
        )
        SELECT table_name, start, changed_at, is_there,
            json_extract_string(commit_extra_info, '$.code_version'),
            json_extract_string(commit_extra_info, '$.{BEGUN_AT}')::BIGINT
        FROM windows LEFT JOIN {METADATA}.ducklake_snapshot_changes ON snapshot_id = changed_at
        """
    ).fetchall()
    found: dict[str, dict[datetime, Made]] = {}
    for table, start, changed_at, is_there, code, begun_at in rows:
        begun = changed_at - 1 if begun_at is None else begun_at
        found.setdefault(table, {})[start] = Made(begun, changed_at, is_there, code)
    return found


def _tables(use_case: UseCase, *names: str) -> str:
    listed = ", ".join(literal(name) for name in names)
    return (
        f"SELECT t.table_id FROM {METADATA}.ducklake_table t "
        f"JOIN {METADATA}.ducklake_schema s ON s.schema_id = t.schema_id "
        "WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL "
        f"AND s.schema_name = {literal(use_case.name)} AND t.table_name IN ({listed})"
    )


def _noted(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase
) -> Sequence[tuple[str, datetime, int, str, str]]:
    target = computations_table(use_case)
    if target.name not in lake.tables(cursor, use_case.name):
        return []
    return cursor.execute(
        f"SELECT table_name, window_at, begun_at, code_version, reason FROM {target.sql}"
    ).fetchall()
