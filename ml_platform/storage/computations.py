"""Computations that changed nothing, or came out empty, and why."""

from collections.abc import Mapping
from datetime import datetime

import duckdb

from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase
from ml_platform.storage.appending import insert_latest
from ml_platform.storage.lake import Commit, Lake
from ml_platform.storage.tables import Table


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
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE __noted AS "
        "SELECT unnest(?::TIMESTAMP[]) AS window_at, unnest(?::VARCHAR[]) AS reason",
        [list(reasons), list(reasons.values())],
    )
    windows = "FROM temp.__noted"
    lake.transact(
        cursor, commit, lambda t: insert_notes(t, use_case, table, begun_at, windows, commit)
    )


def insert_notes(
    transaction: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    table: str,
    begun_at: int,
    windows: str,
    commit: Commit,
) -> None:
    """As `note`, within a transaction; windows: SQL that yields `window_at` and `reason`."""
    rows = (
        f"SELECT {literal(table)} AS table_name, window_at, {begun_at:d}::BIGINT AS begun_at, "
        f"{literal(commit.code_version)} AS code_version, {literal(commit.run_id)} AS run_id, "
        f"reason FROM ({windows})"
    )
    # Of two runs that overlap, the one that read later says what was checked.
    insert_latest(transaction, computations_table(use_case), rows, "begun_at")
