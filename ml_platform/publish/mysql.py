"""MySQL and MariaDB, through PyMySQL."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import duckdb

from ml_platform.errors import TargetError
from ml_platform.publish.sql_dialect import require_finite
from ml_platform.publish.sql_target import SqlTarget
from ml_platform.publish.target import Part, TargetTable, batches, staged_sql, without_driver
from ml_platform.settings import Settings
from ml_platform.spec.queries import quote
from ml_platform.storage.connection_strings import mysql_options

STATEMENT_BYTES = 262_144
"""Any server takes statements of this size, and larger ones load no faster."""
CONNECT_SECONDS = 10
WAIT_SECONDS = 3600
LONGEST_TEXT = 255
TEXT = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
TYPES = {
    "BOOLEAN": "BOOLEAN", "TINYINT": "TINYINT", "SMALLINT": "SMALLINT", "INTEGER": "INT",
    "BIGINT": "BIGINT", "HUGEINT": "DECIMAL(39)", "UTINYINT": "TINYINT UNSIGNED",
    "USMALLINT": "SMALLINT UNSIGNED", "UINTEGER": "INT UNSIGNED", "UBIGINT": "BIGINT UNSIGNED",
    # FLOAT of MySQL shows six digits.
    "FLOAT": "DOUBLE", "DOUBLE": "DOUBLE", "UUID": f"CHAR(36) {TEXT}", "BLOB": "LONGBLOB",
    "DATE": "DATE", "TIME": "TIME(6)", "TIMESTAMP": "DATETIME(6)", "TIMESTAMP_S": "DATETIME(6)",
    "TIMESTAMP_MS": "DATETIME(6)", "TIMESTAMP WITH TIME ZONE": "DATETIME(6)",
}  # fmt: skip
# Without an exponent a literal is a decimal, which has fewer digits.
NUMBER = (
    "CAST(CAST({0} AS DOUBLE) AS VARCHAR) || "
    "CASE WHEN contains(CAST(CAST({0} AS DOUBLE) AS VARCHAR), 'e') THEN '' ELSE 'e0' END"
)
QUOTED = "'''' || CAST({0} AS VARCHAR) || ''''"
MOMENT = "'''' || strftime(CAST({0} AS TIMESTAMP), '%Y-%m-%d %H:%M:%S.%f') || ''''"
LITERALS = {
    "FLOAT": NUMBER, "DOUBLE": NUMBER, "BLOB": "'x''' || hex({0}) || ''''", "DATE": QUOTED,
    "TIME": QUOTED, "UUID": QUOTED, "TIMESTAMP": MOMENT, "TIMESTAMP_S": MOMENT,
    "TIMESTAMP_MS": MOMENT,
    "TIMESTAMP WITH TIME ZONE": MOMENT.replace("{0}", "timezone('UTC', {0})"),
}  # fmt: skip
"""DuckDB's SQL of the texts that are literals of a value."""
SESSION = (
    # What a server was set up with decides neither what a value is nor whether one is refused.
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ANSI_QUOTES'",
    # Rows of other partitions are not locked.
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION time_zone = '+00:00'",
)


class MySqlTarget(SqlTarget):
    """Times are DATETIME(6) in UTC, texts are compared by their bytes."""

    def __init__(self, settings: Settings, database: str, where: str) -> None:
        super().__init__(settings, database)
        try:
            import pymysql
        except ImportError as error:
            raise without_driver(database, error) from None
        options = mysql_options(where)
        self.refused = pymysql.IntegrityError
        with self._named():
            self._connection = pymysql.connect(
                **options, charset="utf8mb4", autocommit=True, connect_timeout=CONNECT_SECONDS
            )
            for statement in SESSION:
                self.execute(statement)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def load(
        self, cursor: duckdb.DuckDBPyConnection, relation: str, table: TargetTable, part: Part
    ) -> None:
        require_finite(cursor, table, part, self.database)
        values = " || ',' || ".join(
            f"coalesce({_literal_sql(quote(column), kind)}, 'NULL')"
            for column, kind in table.columns.items()
        )
        insert = f"INSERT INTO {relation} ({self._listed(table.columns)}) VALUES "
        query = staged_sql([f"'(' || {values} || ')'"], part, [quote(c) for c in table.key])
        # Statements that DuckDB writes: PyMySQL would escape value by value, four times as long.
        for rows in _statements(batches(cursor, query)):
            self.execute(insert + rows)

    def type_sql(self, table: TargetTable, column: str) -> str:
        kind = table.columns[column]
        if kind.startswith("DECIMAL("):
            return kind
        length = table.lengths.get(column, LONGEST_TEXT)
        return TYPES.get(kind) or f"VARCHAR({length}) {TEXT}"

    def stored_columns(self, table: TargetTable) -> dict[str, str]:
        schema = _literal(table.path[-2]) if len(table.path) > 1 else "database()"
        where = f"table_schema = {schema} AND table_name = {_literal(table.path[-1])}"
        engines = self.execute(f"SELECT engine FROM information_schema.tables WHERE {where}")
        for (engine,) in engines:
            if str(engine).lower() != "innodb":
                raise TargetError(
                    f"{self.database}: {table.name} is kept by the engine {engine}, which has no "
                    "transactions; ALTER TABLE … ENGINE = InnoDB"
                )
        self._require_key(table, where)
        rows = self.execute(
            f"SELECT column_name, column_type FROM information_schema.columns WHERE {where}"
        )
        return {str(name): str(kind).lower() for name, kind in rows}

    def loss(self, kind: str, stored: str) -> str | None:
        if kind.startswith("TIME") and not stored.endswith("(6)"):
            return "drops fractions of a second"
        if kind in {"FLOAT", "DOUBLE"} and not stored.startswith("double"):
            return "rounds numbers"
        return None

    def conflict_sql(self, table: TargetTable) -> str:
        # An assignment of a column to itself: IGNORE would let through other errors as well.
        same = f"{self.quote(table.key[0])} = {self.relation(table)}.{self.quote(table.key[0])}"
        if table.mode == "append" or not table.others:
            return f"ON DUPLICATE KEY UPDATE {same}"
        if "event_time" in table.key:
            return "ON DUPLICATE KEY UPDATE " + ", ".join(
                f"{self.quote(c)} = {self.excluded(c)}" for c in table.others
            )
        held = f"{self.relation(table)}.{self.quote('event_time')}"
        newer = f"{self.excluded('event_time')} >= {held}"
        # In this order: each assignment sees those before it.
        return "ON DUPLICATE KEY UPDATE " + ", ".join(
            f"{self.quote(c)} = IF({newer}, {self.excluded(c)}, {self.relation(table)}."
            f"{self.quote(c)})"
            for c in table.others
        )

    def excluded(self, column: str) -> str:
        return f"VALUES({self.quote(column)})"

    def _index(self, table: TargetTable) -> list[str]:
        return []

    def create_sql(self, table: TargetTable) -> list[str]:
        # MySQL has no CREATE INDEX IF NOT EXISTS.
        (create,) = super().create_sql(table)
        index = f", INDEX ({self.quote('event_time')})) ENGINE = InnoDB"
        return [create.removesuffix(")") + index]

    def rename_sql(self, table: TargetTable, renamed: TargetTable) -> str:
        # A bare name would move it to the database of the connection.
        return f"ALTER TABLE {self.relation(table)} RENAME TO {self.relation(renamed)}"

    def moment_sql(self, moment: datetime) -> str:
        return f"'{moment:%Y-%m-%d %H:%M:%S.%f}'"

    def close(self) -> None:
        if self._connection.open:
            self._connection.close()

    @contextmanager
    def _exclusive(self, name: str) -> Iterator[None]:
        # MySQL takes 64 letters.
        lock = _literal(hashlib.sha256(name.encode()).hexdigest()[:60])
        ((taken,),) = self.execute(f"SELECT GET_LOCK({lock}, {WAIT_SECONDS})")
        if taken != 1:
            raise TargetError(f"{self.database}: {name} is being published for hours")
        try:
            yield
        finally:
            # A connection that is gone has released it.
            with suppress(Exception):
                self.execute(f"SELECT RELEASE_LOCK({lock})")

    def _require_key(self, table: TargetTable, where: str) -> None:
        rows = self.execute(
            "SELECT index_name, lower(column_name) FROM information_schema.statistics "
            f"WHERE {where} AND non_unique = 0"
        )
        keys: dict[str, set[str]] = {}
        for index, column in rows:
            keys.setdefault(str(index), set()).add(str(column))
        # One with fewer columns would take rows for the same that differ.
        if {c.lower() for c in table.key} not in keys.values():
            raise TargetError(
                f"{self.database}: {table.name} has no unique key over {', '.join(table.key)}; add "
                f"it: ALTER TABLE {self.relation(table)} ADD UNIQUE ({self._listed(table.key)})"
            )


def _statements(columns: Iterator[list[list[str]]]) -> Iterator[str]:
    rows: list[str] = []
    size = 0
    for (texts,) in columns:
        for text in texts:
            rows.append(text)
            size += len(text)
            if size >= STATEMENT_BYTES:
                yield ",".join(rows)
                rows, size = [], 0
    if rows:
        yield ",".join(rows)


def _literal_sql(column: str, kind: str) -> str:
    """DuckDB's SQL of the text that is a value's literal in MySQL; null where the value is."""
    if kind in LITERALS:
        return LITERALS[kind].format(column)
    text = f"CAST({column} AS VARCHAR)"
    if kind in TYPES or kind.startswith("DECIMAL("):
        return text
    escaped = rf"replace(replace(replace({text}, '\', '\\'), '''', ''''''), chr(0), '\0')"
    return f"'''' || {escaped} || ''''"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
