"""Lakes of others: folders of Parquet files, Delta tables, Iceberg tables, and their readers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pytest
from pyiceberg.catalog import Catalog, load_catalog

from ml_platform.storage.extensions import connect_with
from tests.database_servers import Database
from tests.object_stores import ObjectStore

SHARED_LAKES = [
    "parquet",
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("delta", "iceberg")),
]
"""Kinds of lakes of others, for fixtures; `make test` takes the first."""


@dataclass(frozen=True)
class SharedLake:
    """A lake that predictions are published to, and how others read it."""

    kind: str
    setting: str
    readers: dict[str, Callable[[str], pa.Table]]
    """By name: what each one finds in a table."""
    folder: Path | None = None
    """Where its files are, on this machine."""

    def files(self) -> list[Path]:
        return [] if self.folder is None else list(self.folder.rglob("*"))

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


@dataclass(frozen=True)
class Place:
    """A folder of this machine or of an object store."""

    url: str
    store: ObjectStore | None = None

    @property
    def setting(self) -> str:
        return f"{self.url} {self.store.options}" if self.store else self.url

    def by_duckdb(self, query: str, *extensions: str) -> pa.Table:
        """What a DuckDB of its own reads."""
        with connect_with(*extensions, "httpfs", "azure") as connection:
            if self.store:
                connection.execute(self.store.secret_sql)
            return connection.execute(query).to_arrow_table()


def parquet_lake(place: Place) -> SharedLake:
    """A folder of tables in Hive's layout."""

    def by_pyarrow(table: str) -> pa.Table:
        files = place.store.files if place.store else pafs.LocalFileSystem()
        folder = f"{place.url}/{table}".rpartition("://")[2]
        return ds.dataset(folder, filesystem=files, partitioning="hive").to_table()

    def by_duckdb(table: str) -> pa.Table:
        files = f"{place.url}/{table}/**/*.parquet"
        return place.by_duckdb(f"FROM read_parquet('{files}', hive_partitioning = true)")

    readers = {"pyarrow": by_pyarrow, "duckdb": by_duckdb}
    return SharedLake("parquet", f"parquet:{place.setting}", readers)


def delta_lake(place: Place) -> SharedLake:
    """A folder of Delta tables."""

    def open_table(table: str) -> deltalake.DeltaTable:
        options = dict(place.store.delta) if place.store else None
        return deltalake.DeltaTable(f"{place.url}/{table}", storage_options=options)

    readers = {
        "deltalake": lambda table: pa.table(open_table(table).to_pyarrow_table()),
        "duckdb": lambda table: place.by_duckdb(f"FROM delta_scan('{place.url}/{table}')", "delta"),
        "pyarrow": lambda table: open_table(table).to_pyarrow_dataset().to_table(),
    }
    if place.url.startswith("az://"):
        # Of an emulator's account its extension knows the port by heart, 10000.
        del readers["duckdb"]
    return SharedLake("delta", f"delta:{place.setting}", readers)


def iceberg_lake(place: Place, catalog: Path) -> SharedLake:
    """Iceberg tables, with a catalog in a SQLite database in a folder."""
    where = {"uri": f"sqlite:///{catalog}/catalog.sqlite", "warehouse": f"file://{place.url}"}
    setting = " ".join(f"{name}={value}" for name, value in where.items())
    if place.store:
        where |= place.store.iceberg_files
        setting = f"uri={where['uri']} {place.store.iceberg}"

    def open_catalog() -> Catalog:
        return load_catalog("others", **where)

    def by_pyiceberg(table: str) -> pa.Table:
        name = table.replace("/", ".")
        return open_catalog().load_table(name).scan().to_arrow()

    def by_duckdb(table: str) -> pa.Table:
        name = table.replace("/", ".")
        found = open_catalog().load_table(name).metadata_location
        return place.by_duckdb(f"FROM iceberg_scan('{found}')", "avro", "iceberg")

    readers = {"pyiceberg": by_pyiceberg, "duckdb": by_duckdb}
    if place.url.startswith("az://"):
        # Its full address has the host of Azure itself, which DuckDB takes for the store's.
        del readers["duckdb"]
    return SharedLake("iceberg", f"iceberg:{setting}", readers)


def local_lake(kind: str, folder: Path) -> SharedLake:
    """A lake of a kind in a folder of this machine."""
    if kind == "iceberg":
        made = iceberg_lake(Place(str(folder)), folder)
    else:
        made = {"parquet": parquet_lake, "delta": delta_lake}[kind](Place(str(folder)))
    return replace(made, folder=folder)
