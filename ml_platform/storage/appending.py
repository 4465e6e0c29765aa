"""Tables without windows that are only ever added to."""

import duckdb

from ml_platform.spec.queries import literal, quote
from ml_platform.storage.lake import Commit, Lake
from ml_platform.storage.tables import Table, evolve

MOST_FILES_A_TABLE = 64
"""Every commit adds a small file to an append-only table; this many are made into one."""


def append(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, table: Table, query: str, commit: Commit
) -> None:
    """Add rows to a table without partitions, which stays a few files however often this is done.

    query yields `table.columns` by name.
    """
    names = ", ".join(quote(column) for column in table.columns)
    order = ", ".join(quote(column) for column in table.order)

    def work(transaction: duckdb.DuckDBPyConnection) -> int:
        evolve(transaction, table, partitioned=False)
        transaction.execute(
            f"INSERT INTO {table.sql} ({names}) SELECT {names} FROM ({query}) ORDER BY {order}"
        )
        return _count_files(transaction, table)

    def merge(transaction: duckdb.DuckDBPyConnection) -> None:
        # Rows keep the snapshots that they came with, unlike those that are written anew.
        transaction.execute(
            f"CALL ducklake_merge_adjacent_files('lake', {literal(table.name)}, "
            f"schema => {literal(table.schema)})"
        )

    if lake.transact(cursor, commit, work) >= MOST_FILES_A_TABLE:
        lake.transact(cursor, commit, merge)


def _count_files(transaction: duckdb.DuckDBPyConnection, table: Table) -> int:
    row = transaction.execute(
        "SELECT count(*) FROM ducklake_list_files('lake', ?, schema => ?)",
        [table.name, table.schema],
    ).fetchone()
    return int(row[0]) if row else 0
