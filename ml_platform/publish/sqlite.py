"""SQLite, through Python's own module."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from ml_platform.publish.sql_dialect import require_finite
from ml_platform.publish.sql_target import SqlTarget
from ml_platform.publish.target import Part, TargetTable, batches, staged_sql
from ml_platform.settings import Settings
from ml_platform.spec.queries import quote
from ml_platform.storage.turns import alone

BUSY_SECONDS = 5.0
TYPES = {
    "BOOLEAN": "BOOLEAN", "FLOAT": "DOUBLE", "DOUBLE": "DOUBLE", "BLOB": "BLOB", "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMP", "TIMESTAMP_S": "TIMESTAMP", "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
}  # fmt: skip
INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
)
"""What fits into the eight bytes of SQLite's integers; larger ones are text."""
PLAIN = frozenset({"BOOLEAN", "DOUBLE", "BLOB", *INTEGERS})


class SqliteTarget(SqlTarget):
    """Times are texts in UTC that sort as the times do; numbers without a SQLite type are texts."""

    begin = "BEGIN IMMEDIATE"
    empty = "DELETE FROM"
    refused = sqlite3.IntegrityError

    def __init__(self, settings: Settings, database: str, where: str) -> None:
        super().__init__(settings, database)
        self._path = Path(where)
        with self._named():
            self._connection = sqlite3.connect(where, timeout=BUSY_SECONDS, isolation_level=None)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement).fetchall()

    def load(
        self, cursor: duckdb.DuckDBPyConnection, relation: str, table: TargetTable, part: Part
    ) -> None:
        require_finite(cursor, table, part, self.database)
        places = ", ".join("?" for _ in table.columns)
        insert = f"INSERT INTO {relation} ({self._listed(table.columns)}) VALUES ({places})"
        values = [_value_sql(quote(column), kind) for column, kind in table.columns.items()]
        query = staged_sql(values, part, [quote(c) for c in table.key])
        for columns in batches(cursor, query):
            self._connection.executemany(insert, zip(*columns, strict=True))

    def type_sql(self, table: TargetTable, column: str) -> str:
        kind = table.columns[column]
        if kind in INTEGERS:
            return "INTEGER"
        if length := table.lengths.get(column):
            # SQLite itself takes longer ones.
            return f"VARCHAR({length}) CHECK (length({quote(column)}) <= {length})"
        return TYPES.get(kind, "TEXT")

    def stored_columns(self, table: TargetTable) -> dict[str, str]:
        rows = self.execute(f"PRAGMA table_info({quote(table.path[-1])})")
        return {str(name): str(kind).lower() for _, name, kind, *_ in rows}

    def loss(self, kind: str, stored: str) -> str | None:
        if kind in {"FLOAT", "DOUBLE"} and "int" in stored:
            return "is for whole numbers"
        return None

    def relation(self, table: TargetTable) -> str:
        # `main` is the only schema of a file.
        return quote(table.path[-1])

    def moment_sql(self, moment: datetime) -> str:
        return f"'{moment:%Y-%m-%d %H:%M:%S.%f}'"

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _exclusive(self, name: str) -> Iterator[None]:
        with alone(self._path.with_name(f"{self._path.name}.publishing.lock")):
            yield


def _value_sql(column: str, kind: str) -> str:
    """DuckDB's SQL of a value as it is stored."""
    if kind in PLAIN:
        return column
    if kind == "FLOAT":
        return f"CAST({column} AS DOUBLE)"
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"strftime(timezone('UTC', {column}), '%Y-%m-%d %H:%M:%S.%f')"
    if kind.startswith("TIMESTAMP"):
        return f"strftime(CAST({column} AS TIMESTAMP), '%Y-%m-%d %H:%M:%S.%f')"
    return f"CAST({column} AS VARCHAR)"
