"""Tables without windows that are only ever added to."""

from dataclasses import replace

import duckdb

from ml_platform.spec.queries import literal, quote
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.lake import Commit, Lake
from ml_platform.storage.tables import Table, evolve

MOST_FILES_A_TABLE = 64
"""Every commit adds a small file to an append-only table; this many are made into one."""
MOST_FILES_OF_LATEST = 16


def append(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, table: Table, query: str, commit: Commit
) -> None:
    """Add rows to a table without partitions, which stays a few files however often this is done.

    query yields `table.columns` by name.
    """
    lake.transact(cursor, commit, lambda transaction: insert(transaction, table, query))
    keep_few_files(lake, cursor, table, commit)


def insert(transaction: duckdb.DuckDBPyConnection, table: Table, query: str) -> None:
    """Add rows within a transaction; `keep_few_files` is to be called after it."""
    names = ", ".join(quote(column) for column in table.columns)
    order = ", ".join(quote(column) for column in table.order)
    evolve(transaction, table, partitioned=False)
    transaction.execute(
        f"INSERT INTO {table.sql} ({names}) SELECT {names} FROM ({query}) ORDER BY {order}"
    )


def insert_latest(
    transaction: duckdb.DuckDBPyConnection, table: Table, query: str, latest: str
) -> None:
    """Add rows within a transaction, of which the latest of each `table.order` counts.

    latest: column by which rows of one order are compared; of equal ones that which was added
    last counts, as `latest_sql` reads it. Rows that count no more are left out once files are many.
    """
    evolve(transaction, table, partitioned=False)
    names = ", ".join(quote(column) for column in table.columns)
    files = transaction.execute(f"SELECT count(DISTINCT filename) FROM {table.sql}").fetchone()
    if files and files[0] >= MOST_FILES_OF_LATEST:
        added = f"SELECT {names}, {2**62} AS __at FROM ({query})"
        stored = f"SELECT {names}, snapshot_id AS __at FROM {table.sql}"
        transaction.execute(
            f"CREATE OR REPLACE TEMP TABLE __latest AS SELECT {names} "
            f"FROM ({stored} UNION ALL {added}) {_first(table, latest, '__at')}"
        )
        transaction.execute(f"DELETE FROM {table.sql}")
        query = "FROM temp.__latest"
    order = ", ".join(quote(column) for column in table.order)
    transaction.execute(
        f"INSERT INTO {table.sql} ({names}) SELECT {names} FROM ({query}) ORDER BY {order}"
    )


def latest_sql(table: Table, latest: str, where: str) -> str:
    """The rows that count of a table that `insert_latest` writes. where: predicate."""
    return f"(SELECT * FROM {table.sql} WHERE {where} {_first(table, latest, 'snapshot_id')})"


def _first(table: Table, latest: str, at: str) -> str:
    key = ", ".join(quote(column) for column in table.order)
    return (
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {quote(latest)} DESC, {at} DESC)"
        " = 1"
    )


def keep_few_files(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, table: Table, commit: Commit
) -> None:
    """Merge the files of a table without partitions once they are many."""

    def merge(transaction: duckdb.DuckDBPyConnection) -> None:
        # Rows keep the snapshots that they came with, unlike those that are written again.
        transaction.execute(
            f"CALL ducklake_merge_adjacent_files('lake', {literal(table.name)}, "
            f"schema => {literal(table.schema)})"
        )

    if _count_files(cursor, table) >= MOST_FILES_A_TABLE:
        # What is written along belongs to the rows, which are there.
        lake.transact(cursor, replace(commit, also=None), merge)


def _count_files(cursor: duckdb.DuckDBPyConnection, table: Table) -> int:
    row = cursor.execute(
        f"""SELECT count(*) FROM {METADATA}.ducklake_data_file f
        JOIN {METADATA}.ducklake_table t ON t.table_id = f.table_id
        JOIN {METADATA}.ducklake_schema s ON s.schema_id = t.schema_id
        WHERE f.end_snapshot IS NULL AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
        AND s.schema_name = {literal(table.schema)} AND t.table_name = {literal(table.name)}"""
    ).fetchone()
    return int(row[0]) if row else 0
