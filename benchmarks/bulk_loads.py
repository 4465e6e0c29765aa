"""How a person would bring predictions to a database by hand: a bulk load, and an upsert."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pymysql

from tests.database_servers import Database

ROWS = """SELECT meter, strftime(timezone('UTC', event_time), '%Y-%m-%d %H:%M:%S.%f') AS event_time,
    predicted, model_version, snapshot FROM lake.meters.predictions ORDER BY meter, event_time"""
UPDATED = ("predicted", "model_version", "snapshot")


@dataclass(frozen=True)
class ByHand:
    """Rows of the lake into the table `by_hand` of a database, which is made like `replaced`."""

    database: Database
    file: Path
    """Of CSV, on the way."""

    def load(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Into a new table, in one transaction, by what is fastest."""
        raise NotImplementedError

    def upsert(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Into the table that has the same keys, in one transaction."""
        raise NotImplementedError

    def _export(self, cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.execute(f"COPY ({ROWS}) TO '{self.file}' (HEADER false)")


class LoadData(ByHand):
    """MariaDB: LOAD DATA LOCAL INFILE; to a temporary table, where rows are to be updated."""

    def load(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._export(cursor)
        made = ("DROP TABLE IF EXISTS by_hand", "CREATE TABLE by_hand LIKE replaced")
        self._run(*made, self._loading("by_hand"))

    def upsert(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._export(cursor)
        updates = ", ".join(f"{c} = VALUES({c})" for c in UPDATED)
        self._run(
            "CREATE TEMPORARY TABLE brought AS SELECT * FROM by_hand LIMIT 0",
            self._loading("brought"),
            f"INSERT INTO by_hand SELECT * FROM brought ON DUPLICATE KEY UPDATE {updates}",
        )

    def _loading(self, table: str) -> str:
        return (
            f"LOAD DATA LOCAL INFILE '{self.file}' INTO TABLE {table} CHARACTER SET utf8mb4 "
            "FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"'"
        )

    def _run(self, *statements: str) -> None:
        with (
            closing(pymysql.connect(**self.database.address, local_infile=True)) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            connection.commit()


class Copy(ByHand):
    """PostgreSQL: COPY; to a temporary table, where rows are to be updated."""

    def load(self, cursor: duckdb.DuckDBPyConnection) -> None:
        made = "DROP TABLE IF EXISTS by_hand; CREATE TABLE by_hand (LIKE replaced INCLUDING ALL)"
        with self._connected(cursor) as loading:
            loading.execute(made)
            self._copy(loading, "by_hand")

    def upsert(self, cursor: duckdb.DuckDBPyConnection) -> None:
        updates = ", ".join(f"{c} = excluded.{c}" for c in UPDATED)
        with self._connected(cursor) as loading:
            loading.execute("CREATE TEMPORARY TABLE brought (LIKE by_hand)")
            self._copy(loading, "brought")
            loading.execute(
                "INSERT INTO by_hand SELECT * FROM brought "
                f"ON CONFLICT (meter, event_time) DO UPDATE SET {updates}"
            )

    @contextmanager
    def _connected(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[psycopg.Cursor[Any]]:
        self._export(cursor)
        with psycopg.connect(self.database.address) as connection, connection.cursor() as loading:
            loading.execute("SET TIME ZONE 'UTC'")
            yield loading

    def _copy(self, loading: psycopg.Cursor[Any], table: str) -> None:
        with (
            loading.copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copying,  # type: ignore[arg-type]
            self.file.open("rb") as rows,
        ):
            while part := rows.read(1 << 20):
                copying.write(part)


class ExecuteMany(ByHand):
    """SQLite: executemany."""

    def load(self, cursor: duckdb.DuckDBPyConnection) -> None:
        ((made,),) = self.database.run("SELECT sql FROM sqlite_master WHERE name = 'replaced'")
        self._run(
            cursor, "",
            "DROP TABLE IF EXISTS by_hand", made.replace("replaced", "by_hand"),
            "CREATE INDEX by_hand_time ON by_hand (event_time)",
        )  # fmt: skip

    def upsert(self, cursor: duckdb.DuckDBPyConnection) -> None:
        updates = ", ".join(f"{c} = excluded.{c}" for c in UPDATED)
        self._run(cursor, f"ON CONFLICT (meter, event_time) DO UPDATE SET {updates}")

    def _run(self, cursor: duckdb.DuckDBPyConnection, conflict: str, *statements: str) -> None:
        rows: Sequence[Any] = cursor.execute(ROWS).fetchall()
        with closing(sqlite3.connect(self.database.address)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.executemany(f"INSERT INTO by_hand VALUES (?, ?, ?, ?, ?) {conflict}", rows)
            connection.commit()
