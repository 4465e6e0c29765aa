"""A table of a database that DuckDB attaches: SQLite, PostgreSQL, MySQL."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import duckdb

from ml_platform.settings import Settings
from ml_platform.sources.selection import Dialect, Selection, bounds, where_sql
from ml_platform.sources.sqlite_values import sqlite_relation
from ml_platform.spec.inputs import Source
from ml_platform.spec.queries import literal, quote
from ml_platform.storage import attach_database

Choose = Callable[[Mapping[str, str]], Mapping[str, str]]
"""Given the columns and types that are found, says which to read: by name, as it is found.

Raises LandingError where they are not as they are declared."""


class RowOrigin(Protocol):
    """Where rows of a source are read from, all of them or those that are asked for."""

    def relations(
        self, cursor: duckdb.DuckDBPyConnection, choose: Choose, selection: Selection
    ) -> Iterator[str]:
        """SQL of the rows, in parts; each lasts until the next one is asked for."""


def backticks(name: str) -> str:
    """An identifier of MySQL."""
    return "`" + name.replace("`", "``") + "`"


DIALECTS = {
    "postgres": Dialect(quote),
    # A TIMESTAMP of MySQL is shown on its session's clock.
    "mysql": Dialect(backticks, has_zones=False, moment="{text}"),
}


FORGET = {"postgres": "pg_clear_cache", "mysql": "mysql_clear_cache"}


class DatabaseTable:
    """One table; rows that are asked for by time are looked for by the database itself."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        settings: Settings,
        source: Source,
        types: Mapping[str, str],
        timezone: str,
    ) -> None:
        self._source, self._types, self._timezone = source, types, timezone
        self._database, *self._table = source.table.split(".")
        self._kind = attach_database(cursor, settings, self._database)
        self.is_sqlite = self._kind == "sqlite"
        if self._kind in FORGET:
            # DuckDB keeps what it once knew of tables as long as a database is attached.
            cursor.execute(f"CALL {FORGET[self._kind]}()")
        self._relation = ".".join(quote(part) for part in (self._database, *self._table))

    def relations(
        self, cursor: duckdb.DuckDBPyConnection, choose: Choose, selection: Selection
    ) -> Iterator[str]:
        rows = cursor.execute(f"DESCRIBE SELECT * FROM {self._relation}").fetchall()
        found = {str(row[0]): str(row[1]) for row in rows}
        columns = choose(found)
        if self.is_sqlite:
            event, mark = bounds(self._source, found, self._types, quote)
            table = (self._database, *self._table)
            yield sqlite_relation(table, found, columns, selection, event, mark)
            return
        dialect = DIALECTS[self._kind]
        event, mark = bounds(self._source, found, self._types, dialect.quote)
        where = where_sql(selection, event, mark, dialect, self._timezone)
        if where is None:
            yield self._select(columns, self._relation, quote, where)
            return
        named = ".".join(map(dialect.quote, self._table))
        query = self._select(columns, named, dialect.quote, where)
        # Given to DuckDB, conditions with OR would be looked at here, over all rows.
        yield f"{self._kind}_query({literal(self._database)}, {literal(query[1:-1])})"

    def _select(
        self,
        columns: Mapping[str, str],
        table: str,
        quoted: Callable[[str], str],
        where: str | None,
    ) -> str:
        items = ", ".join(f"{quoted(found)} AS {quoted(name)}" for name, found in columns.items())
        return f"(SELECT {items} FROM {table}{f' WHERE {where}' if where else ''})"
