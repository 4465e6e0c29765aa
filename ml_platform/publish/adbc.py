"""Any database with a driver of Arrow Database Connectivity, by standard SQL."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import duckdb

from ml_platform.publish.postgres import lock_sql, unlock_sql
from ml_platform.publish.sql_dialect import STAGING, require_finite
from ml_platform.publish.sql_target import SqlTarget
from ml_platform.publish.sqlite import BUSY_SECONDS
from ml_platform.publish.target import BATCH_ROWS, Part, TargetTable, staged_sql, without_driver
from ml_platform.publish.turn_folder import machine_of, turn_file
from ml_platform.publish.turn_table import TurnTable
from ml_platform.settings import Settings
from ml_platform.spec.queries import quote
from ml_platform.storage.adbc import connect_adbc
from ml_platform.storage.turns import alone

TYPES = {
    "BOOLEAN": "BOOLEAN", "TINYINT": "SMALLINT", "SMALLINT": "SMALLINT", "INTEGER": "INTEGER",
    "BIGINT": "BIGINT", "UTINYINT": "SMALLINT", "USMALLINT": "INTEGER", "UINTEGER": "BIGINT",
    "FLOAT": "DOUBLE PRECISION", "DOUBLE": "DOUBLE PRECISION", "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMP", "TIMESTAMP_S": "TIMESTAMP", "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP WITH TIME ZONE", "BLOB": "BLOB",
}  # fmt: skip
"""What all databases have; values of other types are texts."""
CASTS = {
    "TINYINT": "SMALLINT", "UTINYINT": "SMALLINT", "USMALLINT": "INTEGER", "UINTEGER": "BIGINT",
    "FLOAT": "DOUBLE", "TIMESTAMP_S": "TIMESTAMP", "TIMESTAMP_MS": "TIMESTAMP",
}  # fmt: skip
SQLITE, POSTGRES, DUCKDB = "SQLite", "PostgreSQL", "duckdb"
"""What their drivers call them."""
WITH_INDEXES = frozenset({SQLITE, POSTGRES, DUCKDB})
"""Of other databases nobody knows whether they have any."""
LONGEST_TEXT = 255
COARSE = ("timestamp[s", "timestamp[ms", "date", "float", "halffloat", "int")


class AdbcTarget(SqlTarget):
    """Rows go as Arrow batches; keys are merged by DELETE and INSERT, which every database has.

    where: `driver=<module or library> uri=…`, and whatever else the driver takes.
    """

    def __init__(self, settings: Settings, database: str, where: str) -> None:
        super().__init__(settings, database)
        try:
            from adbc_driver_manager import dbapi
        except ImportError as error:
            raise without_driver(database, error) from None
        self.refused = dbapi.IntegrityError
        self._errors: type[Exception] = dbapi.Error
        self._turn: TurnTable | None = None
        with self._named():
            self._connection = connect_adbc(where)
            self.vendor = str(self._connection.adbc_get_info().get("vendor_name", ""))
            if self.vendor == SQLITE:
                self.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS:.0f}")

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()

    def load(
        self, cursor: duckdb.DuckDBPyConnection, relation: str, table: TargetTable, part: Part
    ) -> None:
        staging = self.quote(STAGING)
        is_staging = relation == staging
        if self.vendor == DUCKDB and not is_staging:
            # Its driver says nothing of rows that break a constraint, and leaves them out.
            self.load(cursor, staging, table, part)
            columns = self._listed(table.columns)
            self.execute(f"INSERT INTO {relation} ({columns}) SELECT {columns} FROM {staging}")
            return
        if self.vendor == SQLITE:
            require_finite(cursor, table, part, self.database)
        values = [f"{self._value_sql(c, kind)} AS {quote(c)}" for c, kind in table.columns.items()]
        query = staged_sql(values, part, [f"__published.{quote(c)}" for c in table.key])
        rows = cursor.execute(query).to_arrow_reader(BATCH_ROWS)
        with self._connection.cursor() as writer:
            writer.adbc_ingest(
                STAGING if is_staging else table.path[-1], rows,
                mode="replace" if is_staging else "append", temporary=is_staging,
                db_schema_name=None if is_staging or len(table.path) == 1 else table.path[-2],
            )  # fmt: skip

    def type_sql(self, table: TargetTable, column: str) -> str:
        kind = table.columns[column]
        if kind == "BLOB" and self.vendor == POSTGRES:
            return "BYTEA"
        length = table.lengths.get(column, LONGEST_TEXT)
        check = f" CHECK (length({self.quote(column)}) <= {length})"
        # These take longer texts.
        is_lenient = self.vendor in {SQLITE, DUCKDB} and column in table.lengths
        longest = check if is_lenient else ""
        return TYPES.get(kind) or f"VARCHAR({length}){longest}"

    def stored_columns(self, table: TargetTable) -> dict[str, str]:
        schema = table.path[-2] if len(table.path) > 1 else None
        try:
            found = self._connection.adbc_get_table_schema(table.path[-1], db_schema_filter=schema)
        except self._errors as error:
            self.rollback()
            # Not each driver has the code for a table that is not there.
            if "NOT_FOUND" not in str(error) and self._is_listed(table):
                raise
            return {}
        return {field.name: str(field.type) for field in found}

    def _is_listed(self, table: TargetTable) -> bool:
        *schemas, name = table.path
        found = self._connection.adbc_get_objects(
            depth="tables", db_schema_filter=schemas[-1] if schemas else None,
            table_name_filter=name,
        )  # fmt: skip
        return any(
            each["table_name"] == name
            for catalog in found.read_all().to_pylist()
            for schema in catalog["catalog_db_schemas"] or ()
            for each in schema["db_schema_tables"] or ()
        )

    def loss(self, kind: str, stored: str) -> str | None:
        if kind == "DOUBLE" and stored.startswith(COARSE):
            return "rounds numbers"
        if kind.startswith("TIMESTAMP") and stored.startswith(COARSE):
            return "drops fractions of a second"
        return None

    def prepare(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable) -> None:
        with self._named():
            stored = self.stored_columns(table)
            self.rollback()
            if not stored:
                for statement in self.create_sql(table):
                    self.execute(statement)
                self.commit()
                return
            self._require_columns(table, stored)

    def close(self) -> None:
        with suppress(Exception):
            self.rollback()
        self._connection.close()

    def _index(self, table: TargetTable) -> Sequence[str]:
        return super()._index(table) if self.vendor in WITH_INDEXES else ()

    def _merge(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        staging, relation = self.quote(STAGING), self.relation(table)
        with self._transaction():
            self.load(cursor, staging, table, part)
            same = " AND ".join(
                f"s.{self.quote(c)} = {relation}.{self.quote(c)}" for c in table.key
            )
            time = self.quote("event_time")
            there = f"SELECT 1 FROM {staging} s WHERE {same}"
            if table.mode == "upsert":
                newer = f"s.{time} >= {relation}.{time}"
                self.execute(f"DELETE FROM {relation} WHERE EXISTS ({there} AND {newer})")
            columns = self._listed(table.columns)
            self.execute(
                f"INSERT INTO {relation} ({columns}) SELECT {columns} FROM {staging} s "
                f"WHERE NOT EXISTS (SELECT 1 FROM {relation} WHERE {same})"
            )
            return self._count_merged(table)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            if self._turn is not None:
                self._turn.hold()
            yield
            self.commit()
        except BaseException:
            # Where the connection is gone, so is the transaction.
            with suppress(Exception):
                self.rollback()
            raise

    @contextmanager
    def _exclusive(self, name: str) -> Iterator[None]:
        with self._advisory_lock(name) if self.vendor == POSTGRES else self._turns(name):
            yield

    @contextmanager
    def _advisory_lock(self, name: str) -> Iterator[None]:
        self.execute(lock_sql(name))
        self.commit()
        try:
            yield
        finally:
            # A connection that is gone has released it.
            with suppress(Exception):
                self.execute(unlock_sql(name))
                self.commit()

    @contextmanager
    def _turns(self, name: str) -> Iterator[None]:
        """Standard SQL has no lock of that kind."""
        with alone(turn_file(self.settings, name)):
            turn = TurnTable(self, name, machine_of(self.settings), self._errors)
            turn.take()
            self._turn = turn
            try:
                yield
            finally:
                turn.release()

    def moment_sql(self, moment: datetime) -> str:
        text = f"'{moment:%Y-%m-%d %H:%M:%S.%f}'"
        # SQLite has no times, and compares these texts.
        return text if self.vendor == SQLITE else f"TIMESTAMP WITH TIME ZONE {text[:-1]}+00:00'"

    def _value_sql(self, column: str, kind: str) -> str:
        """DuckDB's SQL of a value as it is brought there."""
        name = quote(column)
        if self.vendor == SQLITE and kind.startswith("TIMESTAMP"):
            moment = f"timezone('UTC', {name})" if kind.endswith("ZONE") else name
            return f"strftime(CAST({moment} AS TIMESTAMP), '%Y-%m-%d %H:%M:%S.%f')"
        return f"CAST({name} AS {CASTS.get(kind, kind if kind in TYPES else 'VARCHAR')})"
