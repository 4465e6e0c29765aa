"""SQL in a database's own dialect; what a dialect lacks is standard SQL."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import duckdb

from ml_platform.errors import TargetError
from ml_platform.publish.target import STAGED, Part, TargetTable
from ml_platform.spec.queries import quote

STAGING = "ml_platform_staging"
"""Temporary table of one connection, which rows are brought to before they are merged."""


class SqlDialect(ABC):
    """A connection to a database, and how its SQL says what is done there."""

    begin = "BEGIN"
    empty = "TRUNCATE TABLE"
    """What empties a temporary table, followed by its name."""
    refused: type[Exception]
    """What the database's library raises where a row's key is there already."""

    @abstractmethod
    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement; its rows, where it yields any."""

    @abstractmethod
    def load(
        self, cursor: duckdb.DuckDBPyConnection, relation: str, table: TargetTable, part: Part
    ) -> None:
        """Insert the staged rows of a partition into a table, given as SQL that names it."""

    @abstractmethod
    def type_sql(self, table: TargetTable, column: str) -> str:
        """The type that a column is created with."""

    @abstractmethod
    def stored_columns(self, table: TargetTable) -> dict[str, str]:
        """Columns of the table that is there, with types as the database calls them, in lower case.

        Empty where there is none.
        """

    @abstractmethod
    def loss(self, kind: str, stored: str) -> str | None:
        """What a column of a stored type would silently lose of values of a DuckDB type."""

    @abstractmethod
    def close(self) -> None: ...

    def quote(self, name: str) -> str:
        return quote(name)

    def moment_sql(self, moment: datetime) -> str:
        """A moment, in UTC without an offset, as the column `event_time` holds it."""
        return f"'{moment}'"

    def excluded(self, column: str) -> str:
        """In an upsert, the value that was to be inserted."""
        return f"excluded.{self.quote(column)}"

    def conflict_sql(self, table: TargetTable) -> str:
        """The end of an INSERT that says what becomes of a row whose key is there already."""
        key = self._listed(table.key)
        if table.mode == "append":
            return f"ON CONFLICT ({key}) DO NOTHING"
        held = f"{self.relation(table)}.{self.quote('event_time')}"
        updates = ", ".join(f"{self.quote(c)} = {self.excluded(c)}" for c in table.others)
        if not updates:
            return f"ON CONFLICT ({key}) DO NOTHING"
        newer = f"{self.excluded('event_time')} >= {held}"
        return f"ON CONFLICT ({key}) DO UPDATE SET {updates} WHERE {newer}"

    def relation(self, table: TargetTable) -> str:
        """SQL that names a table."""
        return ".".join(self.quote(part) for part in table.path)

    def rename_sql(self, table: TargetTable, renamed: TargetTable) -> str:
        """A statement that gives a table another name in its schema."""
        return f"ALTER TABLE {self.relation(table)} RENAME TO {self.quote(renamed.path[-1])}"

    def create_sql(self, table: TargetTable) -> Sequence[str]:
        """Statements that create the table with key and index, where there is none."""
        columns = [
            f"{self.quote(c)} {self.type_sql(table, c)}{' NOT NULL' if c in table.key else ''}"
            for c in table.columns
        ]
        named = ", ".join([*columns, f"PRIMARY KEY ({self._listed(table.key)})"])
        return [f"CREATE TABLE IF NOT EXISTS {self.relation(table)} ({named})", *self._index(table)]

    def _index(self, table: TargetTable) -> Sequence[str]:
        # A partition is found by it, so that nothing else is locked while it is replaced.
        name = self.quote(f"{table.path[-1]}_event_time")
        on = f"{self.relation(table)} ({self.quote('event_time')})"
        return [f"CREATE INDEX IF NOT EXISTS {name} ON {on}"]

    def staging_sql(self, table: TargetTable) -> Sequence[str]:
        """Statements that leave an empty temporary table with the columns of the target."""
        columns = ", ".join(f"{self.quote(c)} {self.type_sql(table, c)}" for c in table.columns)
        return [
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {self.quote(STAGING)} ({columns})",
            f"{self.empty} {self.quote(STAGING)}",
        ]

    def _listed(self, columns: Iterable[str]) -> str:
        return ", ".join(self.quote(column) for column in columns)


def require_finite(
    cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part, database: str
) -> None:
    """Refuse what a database without NaN and infinity would store as something else."""
    floats = [c for c, kind in table.columns.items() if kind in {"FLOAT", "DOUBLE"}]
    if not floats:
        return
    odd = ", ".join(f"count(*) FILTER (NOT isfinite({quote(c)}))" for c in floats)
    row = cursor.execute(
        f"SELECT {odd} FROM {STAGED} WHERE window_start = TIMESTAMP '{part.start}'"
    ).fetchone()
    for column, count in zip(floats, row or (), strict=True):
        if count:
            raise TargetError(
                f"database '{database}' cannot hold NaN or infinity, and {count} rows have one in "
                f"'{column}'; publish CASE WHEN isfinite({column}) THEN {column} END AS {column}"
            )
