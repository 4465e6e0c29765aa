"""PostgreSQL, through psycopg and COPY."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import duckdb

from ml_platform.publish.sql_target import SqlTarget
from ml_platform.publish.target import Part, TargetTable, batches, staged_sql, without_driver
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal, quote

TYPES = {
    "BOOLEAN": "BOOLEAN", "TINYINT": "SMALLINT", "SMALLINT": "SMALLINT", "INTEGER": "INTEGER",
    "BIGINT": "BIGINT", "HUGEINT": "NUMERIC(39)", "UTINYINT": "SMALLINT", "USMALLINT": "INTEGER",
    "UINTEGER": "BIGINT", "UBIGINT": "NUMERIC(20)", "FLOAT": "REAL", "DOUBLE": "DOUBLE PRECISION",
    "UUID": "UUID", "BLOB": "BYTEA", "DATE": "DATE", "TIME": "TIME", "TIMESTAMP": "TIMESTAMP",
    "TIMESTAMP_S": "TIMESTAMP", "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP WITH TIME ZONE",
}  # fmt: skip


class PostgresTarget(SqlTarget):
    """Times with a zone stay that; texts are TEXT unless a length is declared."""

    def __init__(self, settings: Settings, database: str, where: str) -> None:
        super().__init__(settings, database)
        try:
            import psycopg
        except ImportError as error:
            raise without_driver(database, error) from None
        if where.startswith("//"):
            where = f"postgresql:{where}"
        self.refused = psycopg.IntegrityError
        with self._named():
            self._connection = psycopg.connect(where, autocommit=True)
            for statement in (
                "SET TIME ZONE 'UTC'", "SET lc_messages = 'C'",
                "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
            ):  # fmt: skip
                # Only some may choose the language of messages.
                with suppress(psycopg.errors.InsufficientPrivilege):
                    self.execute(statement)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def load(
        self, cursor: duckdb.DuckDBPyConnection, relation: str, table: TargetTable, part: Part
    ) -> None:
        values = " || chr(9) || ".join(
            f"coalesce({_copied_sql(quote(column), kind)}, '\\N')"
            for column, kind in table.columns.items()
        )
        copy = f"COPY {relation} ({self._listed(table.columns)}) FROM STDIN"
        query = staged_sql([values], part, [quote(c) for c in table.key])
        with self._connection.cursor() as writer, writer.copy(copy) as copying:
            for (lines,) in batches(cursor, query):
                copying.write("\n".join(lines) + "\n")

    def type_sql(self, table: TargetTable, column: str) -> str:
        kind = table.columns[column]
        if kind.startswith("DECIMAL("):
            return kind
        length = table.lengths.get(column)
        return TYPES.get(kind) or (f"VARCHAR({length})" if length else "TEXT")

    def stored_columns(self, table: TargetTable) -> dict[str, str]:
        rows = self.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            f"WHERE attrelid = to_regclass({literal(self.relation(table))}) "
            "AND attnum > 0 AND NOT attisdropped"
        )
        return {str(name): str(kind).lower() for name, kind in rows}

    def loss(self, kind: str, stored: str) -> str | None:
        if kind.startswith("TIME") and "(" in stored:
            return "drops fractions of a second"
        if kind == "DOUBLE" and stored in {"real", "integer", "bigint", "smallint"}:
            return "rounds numbers"
        return None

    def moment_sql(self, moment: datetime) -> str:
        return f"TIMESTAMP WITH TIME ZONE '{moment}+00'"

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _exclusive(self, name: str) -> Iterator[None]:
        self.execute(lock_sql(name))
        try:
            yield
        finally:
            # A connection that is gone has released it.
            with suppress(Exception):
                self.execute(unlock_sql(name))


def lock_sql(name: str) -> str:
    """The statement that waits for the turn to publish under a name."""
    return f"SELECT pg_advisory_lock({_key_sql(name)})"


def unlock_sql(name: str) -> str:
    """The statement that ends a turn."""
    return f"SELECT pg_advisory_unlock({_key_sql(name)})"


def _key_sql(name: str) -> str:
    return f"hashtextextended({literal(name)}, 0)"


def _copied_sql(column: str, kind: str) -> str:
    """DuckDB's SQL of a value as COPY reads it; null where the value is."""
    text = f"CAST({column} AS VARCHAR)"
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"strftime(timezone('UTC', {column}), '%Y-%m-%d %H:%M:%S.%f+00')"
    if kind == "BLOB":
        return f"'\\\\x' || hex({column})"
    if kind in TYPES or kind.startswith("DECIMAL("):
        return text
    escaped = f"replace({text}, '\\', '\\\\')"
    for letter, code in (("t", 9), ("n", 10), ("r", 13)):
        escaped = f"replace({escaped}, chr({code}), '\\{letter}')"
    return escaped
