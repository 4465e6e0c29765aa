"""Trips in tables of lakes that others own: how these write, rewrite and delete rows."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import deltalake
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

SCHEMA = pa.schema(
    [
        ("trip", pa.int64()), ("started_at", pa.timestamp("us", "UTC")), ("city", pa.string()),
        ("distance", pa.float64()), ("delay", pa.float64()), ("day", pa.string()),
    ]
)  # fmt: skip


def table_of(rows: pd.DataFrame) -> pa.Table:
    """Trips, with the day that they are partitioned by."""
    if "day" not in rows:
        rows = rows.assign(day=rows["started_at"].dt.strftime("%Y-%m-%d"))
    return pa.Table.from_pandas(rows, SCHEMA, preserve_index=False)


class SharedTrips(ABC):
    """A table of trips, partitioned by day, as its owner sees it."""

    origin: str
    """As a use case declares it."""
    setting: dict[str, str] = {}
    """Of the databases."""

    @abstractmethod
    def append(self, rows: pd.DataFrame) -> None: ...

    @abstractmethod
    def rewrite(self, day: str, rows: pd.DataFrame) -> None:
        """Replace a partition by other files."""

    @abstractmethod
    def delete(self, trip: int) -> None:
        """Delete one row."""

    @abstractmethod
    def compact(self) -> None:
        """The same rows in other files."""


class DeltaTrips(SharedTrips):
    def __init__(self, folder: Path) -> None:
        self.location = folder / "shop" / "trips"
        self.origin = "delta: others.shop.trips"
        self.setting = {"others": f"delta:{folder}"}

    def append(self, rows: pd.DataFrame) -> None:
        deltalake.write_deltalake(
            self.location, table_of(rows), mode="append", partition_by=["day"]
        )

    def rewrite(self, day: str, rows: pd.DataFrame) -> None:
        deltalake.write_deltalake(
            self.location, table_of(rows), mode="overwrite", predicate=f"day = '{day}'"
        )

    def delete(self, trip: int) -> None:
        self.table.delete(f"trip = {trip}")

    def compact(self) -> None:
        self.table.optimize.compact()

    @property
    def table(self) -> deltalake.DeltaTable:
        return deltalake.DeltaTable(self.location)


class IcebergTrips(SharedTrips):
    def __init__(self, folder: Path) -> None:
        where = {"uri": f"sqlite:///{folder}/catalog.sqlite", "warehouse": f"file://{folder}"}
        self.catalog = load_catalog("others", **where)
        self.catalog.create_namespace("shop")
        table = self.catalog.create_table("shop.trips", SCHEMA)
        with table.update_spec() as spec:
            spec.add_identity("day")
        self.origin = "iceberg: others.shop.trips"
        self.setting = {"others": "iceberg:" + " ".join(f"{n}={v}" for n, v in where.items())}

    def append(self, rows: pd.DataFrame) -> None:
        self.table.append(table_of(rows))

    def rewrite(self, day: str, rows: pd.DataFrame) -> None:
        self.table.overwrite(table_of(rows), f"day = '{day}'")

    def delete(self, trip: int) -> None:
        self.table.delete(f"trip = {trip}")

    def compact(self) -> None:
        self.table.overwrite(self.table.scan().to_arrow())

    @property
    def table(self) -> Table:
        return self.catalog.load_table("shop.trips")


class HiveTrips(SharedTrips):
    """Parquet files in folders, as Spark writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.origin = f'files: "{folder}/day=*/*.parquet"\n    when_gone: remove'

    def append(self, rows: pd.DataFrame) -> None:
        found = table_of(rows)
        for day in pc.unique(found["day"]).to_pylist():
            self._write(day, found.filter(pc.equal(found["day"], day)))

    def rewrite(self, day: str, rows: pd.DataFrame) -> None:
        for file in (self.folder / f"day={day}").iterdir():
            file.unlink()
        self._write(day, table_of(rows))

    def delete(self, trip: int) -> None:
        self._replace(lambda rows: rows.filter(pc.not_equal(rows["trip"], trip)))

    def compact(self) -> None:
        self._replace(lambda rows: rows)

    def _replace(self, others: Callable[[pa.Table], pa.Table]) -> None:
        for folder in self.folder.iterdir():
            files = [str(file) for file in folder.iterdir()]
            rows = others(ds.dataset(files).to_table())
            for file in files:
                Path(file).unlink()
            self._write(folder.name.partition("=")[2], rows)

    def _write(self, day: str, rows: pa.Table) -> None:
        folder = self.folder / f"day={day}"
        folder.mkdir(parents=True, exist_ok=True)
        kept = [name for name in rows.column_names if name != "day"]
        pq.write_table(rows.select(kept), folder / f"part-0-{uuid4()}.parquet")
