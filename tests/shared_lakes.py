"""Lakes of others: folders of Parquet files, Delta tables, Iceberg tables, and their readers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.catalog import load_catalog

from ml_platform.storage.extensions import connect_with
from tests.database_servers import Database


@dataclass(frozen=True)
class SharedLake:
    """A lake that predictions are published to, and how others read it."""

    kind: str
    setting: str
    readers: dict[str, Callable[[str], pa.Table]]
    """By name: what each one finds in a table."""

    @property
    def database(self) -> Database:
        return Database(self.kind, self.setting, None)

    def read(self, table: str, columns: str, more: str = "") -> dict[str, list[tuple[Any, ...]]]:
        """Rows that each reader finds, in order, with times in UTC."""
        found = {}
        for name, reader in self.readers.items():
            with duckdb.connect() as connection:
                connection.execute("SET TimeZone = 'UTC'")
                connection.register("found", reader(table))
                query = f"SELECT {columns} FROM found {more} ORDER BY ALL"
                found[name] = connection.execute(query).fetchall()
        return found


def parquet_lake(folder: Path) -> SharedLake:
    """A folder of tables in Hive's layout."""

    def by_pyarrow(table: str) -> pa.Table:
        return ds.dataset(folder / table, partitioning="hive").to_table()

    def by_duckdb(table: str) -> pa.Table:
        with duckdb.connect() as connection:
            files = f"{folder / table}/**/*.parquet"
            query = "FROM read_parquet(?, hive_partitioning = true)"
            return connection.execute(query, [files]).to_arrow_table()

    readers = {"pyarrow": by_pyarrow, "duckdb": by_duckdb}
    return SharedLake("parquet", f"parquet:{folder}", readers)


def delta_lake(folder: Path) -> SharedLake:
    """A folder of Delta tables."""

    def by_deltalake(table: str) -> pa.Table:
        return pa.table(deltalake.DeltaTable(folder / table).to_pyarrow_table())

    def by_duckdb(table: str) -> pa.Table:
        with connect_with("delta") as connection:
            return connection.execute("FROM delta_scan(?)", [str(folder / table)]).to_arrow_table()

    def by_pyarrow(table: str) -> pa.Table:
        return deltalake.DeltaTable(folder / table).to_pyarrow_dataset().to_table()

    readers = {"deltalake": by_deltalake, "duckdb": by_duckdb, "pyarrow": by_pyarrow}
    return SharedLake("delta", f"delta:{folder}", readers)


def iceberg_lake(folder: Path) -> SharedLake:
    """A catalog of Iceberg tables in a SQLite database."""
    where = {"uri": f"sqlite:///{folder}/catalog.sqlite", "warehouse": f"file://{folder}"}

    def by_pyiceberg(table: str) -> pa.Table:
        name = table.replace("/", ".")
        return load_catalog("others", **where).load_table(name).scan().to_arrow()

    def by_duckdb(table: str) -> pa.Table:
        name = table.replace("/", ".")
        found = load_catalog("others", **where).load_table(name).metadata_location
        with connect_with("avro", "iceberg") as connection:
            return connection.execute("FROM iceberg_scan(?)", [found]).to_arrow_table()

    readers = {"pyiceberg": by_pyiceberg, "duckdb": by_duckdb}
    setting = " ".join(f"{name}={value}" for name, value in where.items())
    return SharedLake("iceberg", f"iceberg:{setting}", readers)
