"""A table of whatever database has a driver of Arrow Database Connectivity."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from ml_platform.settings import Settings
from ml_platform.sources.arrow_batches import arrow_relations
from ml_platform.sources.column_types import OTHER
from ml_platform.sources.database_tables import Choose
from ml_platform.sources.selection import Dialect, Selection, bounds, where_sql
from ml_platform.sources.shared_tables import named_errors, types_of
from ml_platform.sources.sqlite_values import sqlite_where
from ml_platform.spec.inputs import Source
from ml_platform.spec.queries import quote
from ml_platform.storage.adbc import connect_adbc

PREFIX = "adbc:"
SQLITE = "SQLite"
STANDARD = Dialect(quote)


class AdbcTable:
    """Rows come as Arrow batches, one after the other, in a transaction of their own.

    Raises LandingError where the driver or the table refuses, LakeUnavailable where the server does
    not answer.
    """

    def __init__(
        self, settings: Settings, source: Source, types: Mapping[str, str], timezone: str
    ) -> None:
        self._settings, self._source = settings, source
        self._types, self._timezone = types, timezone
        self._database, *table = source.table.split(".")
        self._table = ".".join(map(quote, table))

    def relations(
        self, cursor: duckdb.DuckDBPyConnection, choose: Choose, selection: Selection
    ) -> Iterator[str]:
        with self._connected() as connection:
            vendor = str(connection.adbc_get_info().get("vendor_name", ""))
            found = self._found(cursor, connection, vendor)
            columns = choose(found)
            event, mark = bounds(self._source, found, self._types, quote)
            where = where_sql(selection, event, mark, STANDARD, self._timezone)
            if vendor == SQLITE:
                where = sqlite_where(selection, event, mark)
            items = ", ".join(f"{quote(name)} AS {quote(c)}" for c, name in columns.items())
            query = f"SELECT {items} FROM {self._table}{f' WHERE {where}' if where else ''}"
            with self._read(connection, query) as reader:
                schema = _plain(reader.schema)
                yield from arrow_relations(
                    cursor, self._batches(reader, schema), partial(_all, columns), schema
                )

    def _found(
        self, cursor: duckdb.DuckDBPyConnection, connection: Any, vendor: str
    ) -> dict[str, str]:
        """Columns of the table and their types."""
        # SQLite has no types: its driver goes by the first values, where there are any.
        rows = "" if vendor == SQLITE else " WHERE 1 = 0"
        with self._read(connection, f"SELECT * FROM {self._table}{rows}") as reader:
            first = None
            if vendor == SQLITE:
                with self._named():
                    first = next(reader, None)
            found = types_of(cursor, _plain(reader.schema))
            for field in reader.schema:
                values = first and first.column(field.name)
                is_unknown = vendor == SQLITE and (not values or values.null_count == len(values))
                if is_unknown or hasattr(field.type, "storage_type"):
                    found[field.name] = OTHER
        return found

    def _batches(self, reader: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        while True:
            with self._named():
                batch = next(reader, None)
            if batch is None:
                return
            yield pa.RecordBatch.from_arrays(
                [_storage(column) for column in batch.columns], schema=schema
            )

    @contextmanager
    def _read(self, connection: Any, query: str) -> Iterator[Any]:
        with connection.cursor() as reading:
            with self._named():
                reading.execute(query)
                reader = reading.fetch_record_batch()
            yield reader

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        where = self._settings.databases[self._database].get_secret_value().removeprefix(PREFIX)
        with self._named():
            connection = connect_adbc(where)
        with closing(connection):
            yield connection

    def _named(self) -> AbstractContextManager[None]:
        return named_errors(self._settings, f"database '{self._database}': {self._source.table}")


def _all(columns: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    return {name: name for name in columns}


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema with what Arrow has no type for as drivers put it: long numbers as texts."""
    return pa.schema(
        [
            field.with_type(getattr(field.type, "storage_type", field.type)).remove_metadata()
            for field in schema
        ]
    )


def _storage(column: pa.Array) -> pa.Array:
    return column.storage if isinstance(column, pa.ExtensionArray) else column
