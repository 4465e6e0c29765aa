"""Trips in tables of lakes that others own: how these write, rewrite and delete rows."""

import json
import shutil
import struct
from abc import ABC, abstractmethod
from base64 import b85encode
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import deltalake
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyroaring
from pyiceberg import manifest
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import AddSnapshotUpdate, SetSnapshotRefUpdate
from pyiceberg.typedef import Record

from tests.object_stores import ObjectStore

SCHEMA = pa.schema(
    [
        ("trip", pa.int64()), ("started_at", pa.timestamp("us", "UTC")), ("city", pa.string()),
        ("distance", pa.float64()), ("delay", pa.float64()), ("day", pa.string()),
    ]
)  # fmt: skip


def table_of(rows: pd.DataFrame, without: str = "") -> pa.Table:
    """Trips, with the day that they are partitioned by."""
    if "day" not in rows:
        rows = rows.assign(day=rows["started_at"].dt.strftime("%Y-%m-%d"))
    schema = pa.schema([field for field in SCHEMA if field.name != without])
    return pa.Table.from_pandas(rows, schema, preserve_index=False)


class SharedTrips(ABC):
    """A table of trips, partitioned by day, as its owner sees it."""

    origin: str
    """As a use case declares it."""
    setting: dict[str, str] = {}
    """Of the databases."""

    @abstractmethod
    def append(self, rows: pd.DataFrame, without: str = "") -> None:
        """Add rows; without: a column that the table has not got yet."""

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
    def __init__(self, folder: Path, store: ObjectStore | None = None) -> None:
        url = f"{store.url}/{folder.parent.name}" if store else str(folder)
        self.options = dict(store.delta) if store else None
        self.location = f"{url}/shop/trips"
        self.origin = "delta: others.shop.trips"
        self.setting = {"others": f"delta:{url} {store.options if store else ''}"}

    def files(self) -> list[Path]:
        return list((Path(self.location) / "day=2024-03-01").iterdir())

    def append(self, rows: pd.DataFrame, without: str = "") -> None:
        deltalake.write_deltalake(
            self.location, table_of(rows, without), mode="append", partition_by=["day"],
            schema_mode="merge", storage_options=self.options,
        )  # fmt: skip

    def overwrite(self, rows: pa.Table) -> None:
        deltalake.write_deltalake(self.location, rows, mode="overwrite", schema_mode="overwrite")

    def drop(self) -> None:
        shutil.rmtree(self.location, ignore_errors=True)

    def rewrite(self, day: str, rows: pd.DataFrame) -> None:
        deltalake.write_deltalake(
            self.location, table_of(rows), mode="overwrite", predicate=f"day = '{day}'",
            storage_options=self.options,
        )  # fmt: skip

    def delete(self, trip: int) -> None:
        self.table.delete(f"trip = {trip}")

    def compact(self) -> None:
        self.table.optimize.compact()

    @property
    def table(self) -> deltalake.DeltaTable:
        return deltalake.DeltaTable(self.location, storage_options=self.options)


class IcebergTrips(SharedTrips):
    def __init__(self, folder: Path, store: ObjectStore | None = None) -> None:
        where = {"uri": f"sqlite:///{folder}/catalog.sqlite", "warehouse": f"file://{folder}"}
        setting = " ".join(f"{name}={value}" for name, value in where.items())
        if store:
            where |= store.iceberg_files
            setting = f"uri={where['uri']} {store.iceberg}"
        self.catalog = load_catalog("others", **where)
        self.catalog.create_namespace("shop")
        day = pa.schema([SCHEMA.field("day")])
        with self.catalog.create_table("shop.trips", day).update_spec() as spec:
            spec.add_identity("day")
        self.origin = "iceberg: others.shop.trips"
        self.setting = {"others": f"iceberg:{setting}"}

    def files(self) -> list[Path]:
        folder = Path(self.table.location().removeprefix("file://"))
        return list((folder / "data" / "day=2024-03-01").iterdir())

    def append(self, rows: pd.DataFrame, without: str = "") -> None:
        found = table_of(rows, without)
        with self.table.update_schema() as update:
            update.union_by_name(found.schema)
        self.table.append(found)

    def overwrite(self, rows: pa.Table) -> None:
        self.drop()
        self.catalog.create_table("shop.trips", rows.schema).append(rows)

    def drop(self) -> None:
        self.catalog.drop_table("shop.trips")

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
    """Parquet files in folders of this machine, as Spark writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.origin = f'files: "{folder}/day=*/*.parquet"\n    when_gone: remove'

    def append(self, rows: pd.DataFrame, without: str = "") -> None:
        found = table_of(rows, without)
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


Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
RFC1924 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


def delete_by_vector(location: str, rows: list[int]) -> None:
    """Delete rows of a Delta table's only file as Spark does: by a vector in the log.

    deltalake writes none itself.
    """
    log = Path(location) / "_delta_log"
    commits = sorted(log.glob("*.json"))
    actions = [json.loads(line) for file in commits for line in file.read_text().splitlines()]
    (add,) = (action["add"] for action in actions if "add" in action)
    bitmap = pyroaring.BitMap(rows).serialize()
    body = struct.pack("<iqi", 1681511377, 1, 0) + bitmap
    padded = body + bytes(-len(body) % 4)
    vector = {
        "storageType": "i", "sizeInBytes": len(padded), "cardinality": len(rows),
        "pathOrInlineDv": b85encode(padded).translate(bytes.maketrans(RFC1924, Z85)).decode(),
    }  # fmt: skip
    features = ["deletionVectors"]
    protocol = {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features,
        "writerFeatures": features,
    }  # fmt: skip
    removed = {"path": add["path"], "dataChange": True, "deletionTimestamp": 0}
    commit = [
        {"protocol": protocol},
        {"remove": removed},
        {"add": {**add, "deletionVector": vector}},
    ]
    text = "\n".join(json.dumps(action) for action in commit)
    (log / f"{len(commits):020d}.json").write_text(text + "\n")


def map_columns(location: str, names: dict[str, str]) -> None:
    """Give columns of a Delta table other names than those in its files, as Spark does.

    names: by name from now on, that in the files.
    """
    log = Path(location) / "_delta_log"
    commits = sorted(log.glob("*.json"))
    actions = [json.loads(line) for file in commits for line in file.read_text().splitlines()]
    metadata = [action["metaData"] for action in actions if "metaData" in action][-1]
    schema = json.loads(metadata["schemaString"])
    for number, field in enumerate(schema["fields"], start=1):
        field["metadata"] = {
            "delta.columnMapping.id": number,
            "delta.columnMapping.physicalName": names.get(field["name"], field["name"]),
        }
    mode = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "99"}
    mapped = {**metadata, "schemaString": json.dumps(schema), "configuration": mode}
    protocol = {"minReaderVersion": 2, "minWriterVersion": 5}
    text = "\n".join(map(json.dumps, ({"protocol": protocol}, {"metaData": mapped})))
    (log / f"{len(commits):020d}.json").write_text(text + "\n")


class DeleteManifestWriter(manifest.ManifestWriterV2):
    def content(self) -> manifest.ManifestContent:
        return manifest.ManifestContent.DELETES


def delete_by_positions(table: Table, positions: list[int]) -> None:
    """Delete rows of an Iceberg table's only file as Spark does: by a file of their positions."""
    (task,) = table.scan().plan_files()
    rows = pa.table({"file_path": [task.file.file_path] * len(positions), "pos": positions})
    _add_deletes(table, rows, task.file.partition)


def delete_by_values(table: Table, rows: pa.Table, partition: Record | None = None) -> None:
    """Delete rows of an Iceberg table as Flink does: by a file of the values of some columns.

    partition: which the deletes are of; by default the table's files need have none in common, and
    the deletes are of a partition spec without columns.
    """
    schema = table.schema()
    fields = [schema.find_field(name) for name in rows.column_names]
    with_ids = pa.schema(
        [
            pa.field(each.name, kind.type, metadata={"PARQUET:field_id": str(each.field_id)})
            for each, kind in zip(fields, rows.schema, strict=True)
        ]
    )
    ids = [each.field_id for each in fields]
    _add_deletes(table, rows.cast(with_ids), partition, ids)


def _add_deletes(
    table: Table, rows: pa.Table, partition: Record | None, equality_ids: list[int] | None = None
) -> None:
    """Commit a file of deletes; pyiceberg writes none itself."""
    before, sequence = table.current_snapshot(), table.metadata.last_sequence_number + 1
    number, folder = before.snapshot_id + 1, table.location()
    kinds = manifest.DataFileContent
    spec = table.spec()
    if partition is None:
        spec = next(each for each in table.specs().values() if each.is_unpartitioned())
    path = Path(f"{folder.removeprefix('file://')}/data/deletes-{number}.parquet")
    pq.write_table(rows, path)
    deletes = manifest.DataFile.from_args(
        content=kinds.POSITION_DELETES if equality_ids is None else kinds.EQUALITY_DELETES,
        file_path=f"file://{path}", equality_ids=equality_ids,
        file_format=manifest.FileFormat.PARQUET, partition=partition or Record(),
        record_count=rows.num_rows, file_size_in_bytes=path.stat().st_size, column_sizes={},
        value_counts={}, null_value_counts={}, nan_value_counts={}, lower_bounds={},
        upper_bounds={},
    )  # fmt: skip
    deletes.spec_id = spec.spec_id
    output = table.io.new_output(f"{folder}/metadata/deletes-{number}.avro")
    with DeleteManifestWriter(spec, table.schema(), output, number, "null") as writer:
        writer.add(
            manifest.ManifestEntry.from_args(
                status=manifest.ManifestEntryStatus.ADDED, snapshot_id=number, data_file=deletes
            )
        )
    added = writer.to_manifest_file()
    listed = f"{folder}/metadata/snap-{number}.avro"
    with manifest.write_manifest_list(
        2, table.io.new_output(listed), number, before.snapshot_id, sequence, "null"
    ) as writer:
        writer.add_manifests([*before.manifests(table.io), added])
    snapshot = Snapshot(
        snapshot_id=number, parent_snapshot_id=before.snapshot_id, sequence_number=sequence,
        manifest_list=listed, summary=Summary(Operation.DELETE),
        schema_id=table.metadata.current_schema_id, timestamp_ms=before.timestamp_ms + 1,
    )  # fmt: skip
    reference = SetSnapshotRefUpdate(ref_name="main", type="branch", snapshot_id=number)
    table.catalog.commit_table(table, (), (AddSnapshotUpdate(snapshot=snapshot), reference))
