"""Tables of lakes that others own as sources: what is new, rewritten and gone is noticed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import SecretStr
from pyiceberg.types import LongType

from ml_platform.errors import LandingError
from ml_platform.features.too_late import find_too_late_landed
from ml_platform.settings import Settings
from ml_platform.sources import Arrivals, IngestReport, arrivals, ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.storage.extensions import connect_with
from tests.shared_sources import (
    DeltaTrips,
    HiveTrips,
    IcebergTrips,
    SharedTrips,
    delete_by_positions,
    delete_by_values,
    delete_by_vector,
    map_columns,
)
from tests.trips_use_case import COMMIT, SPEC, days, trips, write_folder

pytestmark = pytest.mark.slow

KINDS: dict[str, Callable[[Path], SharedTrips]] = {
    "parquet": HiveTrips, "delta": DeltaTrips, "iceberg": IcebergTrips,
}  # fmt: skip


@dataclass
class Reader:
    """A use case that reads trips of others."""

    use_case: UseCase
    lake: Lake
    seen: str | None = None

    def look(self) -> Arrivals:
        now = datetime.now(UTC) + timedelta(minutes=1)
        found = arrivals(self.lake, self.use_case, "trips", COMMIT, now, self.seen)
        self.seen = found.state
        return found

    def behind(self) -> list[int]:
        """Days that are behind the table."""
        return [window.start.day for window in self.look().windows]

    def ingest(self, first: int, last: int) -> IngestReport:
        return ingest(self.lake, self.use_case, "trips", days(first, last), COMMIT)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.lake.cursor() as cursor:
            return cursor.execute(query).fetchall()

    def counts(self) -> dict[int, int]:
        """Rows by day of March."""
        query = "SELECT day(timezone('America/New_York', started_at)) AS d, count(*) "
        return dict(self.rows(f"{query} FROM lake.trips.trips GROUP BY 1 ORDER BY 1"))


def reading(root: Path, shared: SharedTrips) -> Reader:
    folder = write_folder(root, "binary").folder
    spec = SPEC.replace("TASK", "binary").replace("METRIC", "roc_auc")
    spec = spec.replace('files: "*.csv"', shared.origin)
    spec = spec.replace("delay: DOUBLE}", "delay: DOUBLE, day: DATE}")
    (folder / "use_case.yaml").write_text(spec)
    databases = {name: SecretStr(value) for name, value in shared.setting.items()}
    lake = Lake(Settings(data=root / "data", databases=databases))
    return Reader(load_use_case(folder, databases), lake)


@pytest.fixture(
    params=[
        "parquet",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("delta", "iceberg")),
    ]
)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> SharedTrips:
    (tmp_path / "shared").mkdir()
    return KINDS[request.param](tmp_path / "shared")


@pytest.fixture
def reader(shared: SharedTrips, tmp_path: Path):
    made = reading(tmp_path / "case", shared)
    yield made
    made.lake.close()


def a_day(day: int, seed: int = 0) -> pd.DataFrame:
    return trips(day, day, a_day=4, seed=seed)


def test_rows_land_with_the_columns_of_their_partitions(shared, reader):
    shared.append(pd.concat([a_day(1), a_day(2)]))
    assert reader.behind() == [1, 2]
    report = reader.ingest(1, 2)
    assert [(c.landed, c.ingested, c.quarantined) for c in report.windows.values()] == [
        (4, 4, 0)
    ] * 2
    found = reader.rows(
        "SELECT trip, epoch_us(started_at), city, distance, delay, day FROM lake.trips.trips "
        "ORDER BY trip"
    )
    expected = pd.concat([a_day(1), a_day(2)]).astype(object)
    expected = expected.where(expected.notna(), None)
    assert [row[:1] + row[2:5] for row in found] == list(
        expected[["trip", "city", "distance", "delay"]].itertuples(index=False, name=None)
    )
    assert [row[1] for row in found] == [int(t.timestamp() * 1e6) for t in expected["started_at"]]
    assert [str(row[5]) for row in found] == [
        t.strftime("%Y-%m-%d") for t in expected["started_at"]
    ]
    assert reader.behind() == []


def test_what_is_appended_is_read_and_nothing_else(shared, reader):
    shared.append(a_day(1))
    reader.look()
    reader.ingest(1, 1)
    shared.append(a_day(2))
    assert reader.behind() == [2]
    assert reader.ingest(2, 2).files == 1
    assert reader.counts() == {1: 4, 2: 4}


def test_nothing_is_looked_for_in_a_landing_folder(shared, reader):
    shared.append(a_day(1))
    (reader.lake.settings.root / "landing" / "trips").mkdir(parents=True)
    assert find_too_late_landed(reader.lake.settings, reader.use_case) == ()


def test_a_row_that_its_owner_deletes_is_removed(shared, reader):
    shared.append(a_day(1))
    shared.append(a_day(2))
    reader.look()
    reader.ingest(1, 2)
    shared.delete(10_001)
    assert 1 in reader.behind()
    report = reader.ingest(1, 2)
    (first, _) = report.windows.values()
    assert (first.ingested, first.changed) == (3, True)
    assert reader.counts() == {1: 3, 2: 4}
    assert reader.behind() == []
    ended = reader.rows(
        "SELECT trip, _known_until IS NOT NULL FROM lake.trips.trips_versions ORDER BY trip"
    )
    assert ended == [(10_001, True)]


def test_a_partition_that_is_rewritten_is_a_correction(shared, reader):
    shared.append(pd.concat([a_day(1), a_day(2)]))
    reader.look()
    reader.ingest(1, 2)
    other = a_day(2).assign(delay=99.0).iloc[:3]
    shared.rewrite("2024-03-02", other)
    assert reader.behind() == [2]
    reader.ingest(2, 2)
    assert reader.counts() == {1: 4, 2: 3}
    versions = reader.rows(
        "SELECT trip, count(*), count(_known_until) FROM lake.trips.trips_versions "
        "GROUP BY 1 ORDER BY 1"
    )
    assert versions == [(20_000, 2, 1), (20_001, 2, 1), (20_002, 2, 1), (20_003, 1, 1)]


def test_the_same_rows_in_other_files_change_nothing(shared, reader):
    shared.append(a_day(1).iloc[:2])
    shared.append(a_day(1).iloc[2:])
    reader.look()
    reader.ingest(1, 1)
    shared.compact()
    reader.look()
    (counted,) = reader.ingest(1, 1).windows.values()
    assert (counted.ingested, counted.changed) == (4, False)
    assert reader.behind() == []


def test_a_row_that_breaks_the_contract_goes_to_quarantine(shared, reader):
    rows = a_day(1).assign(day="2024-03-01")
    rows["started_at"] = rows["started_at"].where(rows["trip"] != 10_002)
    shared.append(rows.assign(trip=rows["trip"].where(rows["trip"] != 10_001, 10_000)))
    reader.look()
    (counted,) = reader.ingest(1, 1).windows.values()
    assert (counted.landed, counted.ingested, counted.quarantined) == (4, 2, 2)
    reasons = reader.rows("SELECT reason FROM lake.trips.quarantine ORDER BY reason")
    assert reasons == [
        ("duplicate key (trip): row 1 came first",), ("started_at is missing",),
    ]  # fmt: skip


def test_rows_deleted_by_a_vector_are_left_out(tmp_path):
    (tmp_path / "shared").mkdir()
    shared = DeltaTrips(tmp_path / "shared")
    reader = reading(tmp_path / "case", shared)
    shared.append(a_day(1))
    reader.look()
    reader.ingest(1, 1)
    delete_by_vector(shared.location, [1, 3])
    assert reader.behind() == [1]
    reader.ingest(1, 1)
    found = reader.rows("SELECT trip, _row FROM lake.trips.trips ORDER BY trip")
    assert found == [(10_000, 1), (10_002, 3)]
    assert reader.behind() == []
    reader.lake.close()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_columns_are_taken_from_the_path_whatever_the_format(tmp_path, ending):
    folders = {"city=New%20York": 1, "city=__HIVE_DEFAULT_PARTITION__": 2, "City=a%2Fb": 3}
    for folder, trip in folders.items():
        rows = a_day(trip).drop(columns="city").iloc[:1].assign(trip=trip)
        rows = rows.assign(day=f"2024-03-0{trip}", started_at=rows["started_at"].map(str))
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / f"part-0.{ending}"
        if ending == "csv":
            rows.to_csv(file, index=False)
        elif ending == "jsonl":
            rows.to_json(file, orient="records", lines=True)
        else:
            rows.to_parquet(file, index=False)
    shared = HiveTrips(tmp_path)
    shared.origin = f'files: "{tmp_path}/*=*/*.{ending}"'
    reader = reading(tmp_path / "case", shared)
    assert reader.behind() == [1, 2, 3]
    reader.ingest(1, 3)
    found = reader.rows("SELECT trip, city, delay FROM lake.trips.trips ORDER BY trip")
    wanted = [float(a_day(day)["delay"].iloc[0]) for day in (1, 2, 3)]
    assert [row[:2] for row in found] == [(1, "New York"), (2, None), (3, "a/b")]
    assert [row[2] for row in found] == pytest.approx(wanted)
    reader.lake.close()


def test_a_table_of_iceberg_is_found_by_its_folder_where_that_says_what_holds(tmp_path):
    (tmp_path / "shared").mkdir()
    shared = IcebergTrips(tmp_path / "shared")
    folder = tmp_path / "shared" / "shop" / "trips"
    shared.origin = f"iceberg: {folder}"
    reader = reading(tmp_path / "case", shared)
    shared.append(a_day(1))
    with pytest.raises(LandingError, match=r"there is no .*version-hint\.text; name the catalog"):
        reader.look()
    for day in (1, 2):
        # As catalogs do that keep no other record of a table than its folder.
        newest = max((folder / "metadata").glob("0*.metadata.json"), key=lambda f: f.name)
        (folder / "metadata" / f"v{day}.metadata.json").write_bytes(newest.read_bytes())
        (folder / "metadata" / "version-hint.text").write_text(str(day))
        assert reader.behind() == [day]
        reader.ingest(day, day)
        shared.append(a_day(2))
    assert reader.counts() == {1: 4, 2: 4}
    reader.lake.close()


def test_a_column_of_iceberg_that_was_renamed_is_the_same_column(tmp_path):
    (tmp_path / "shared").mkdir()
    shared = IcebergTrips(tmp_path / "shared")
    shared.append(a_day(1).assign(delay=7.0))
    for old, new in (("delay", "late"), ("distance", "delay")):
        with shared.table.update_schema() as update:
            update.rename_column(old, new)
    with shared.table.update_schema() as update:
        update.rename_column("delay", "distance")
    with shared.table.update_schema() as update:
        update.rename_column("late", "delay")
    reader = reading(tmp_path / "case", shared)
    reader.look()
    reader.ingest(1, 1)
    rows = reader.rows("SELECT max(distance) > 7, min(delay), max(delay) FROM lake.trips.trips")
    assert rows == [(True, 7.0, 7.0)]
    reader.lake.close()


def test_rows_deleted_by_positions_are_left_out(tmp_path):
    (tmp_path / "shared").mkdir()
    shared = IcebergTrips(tmp_path / "shared")
    reader = reading(tmp_path / "case", shared)
    shared.append(a_day(1))
    reader.look()
    reader.ingest(1, 1)
    delete_by_positions(shared.table, [1, 3])
    assert reader.behind() == [1]
    reader.ingest(1, 1)
    found = reader.rows("SELECT trip FROM lake.trips.trips ORDER BY trip")
    assert found == [(10_000,), (10_002,)]
    ended = reader.rows("SELECT trip FROM lake.trips.trips_versions ORDER BY trip")
    assert ended == [(10_001,), (10_003,)]
    assert reader.behind() == []
    reader.lake.close()


def of_iceberg(tmp_path: Path, *days: int) -> tuple[IcebergTrips, Reader]:
    """Days of trips in an Iceberg table, ingested."""
    (tmp_path / "shared").mkdir()
    shared = IcebergTrips(tmp_path / "shared")
    reader = reading(tmp_path / "case", shared)
    for day in days:
        shared.append(a_day(day))
    reader.look()
    reader.ingest(days[0], days[-1])
    return shared, reader


def trips_left(reader: Reader, shared: IcebergTrips) -> list[int]:
    """Trips that are in the lake, and that DuckDB's own reader of Iceberg finds."""
    ours = reader.rows("SELECT trip FROM lake.trips.trips ORDER BY trip")
    with connect_with("avro", "iceberg") as connection:
        theirs = connection.execute(
            f"SELECT trip FROM iceberg_scan('{shared.table.metadata_location}') ORDER BY trip"
        ).fetchall()
    assert ours == theirs
    return [trip for (trip,) in ours]


def test_rows_deleted_by_their_values_are_left_out(tmp_path):
    shared, reader = of_iceberg(tmp_path, 1, 2)
    before = trips_left(reader, shared)
    gone = pa.table({"trip": pa.array([10_001, 10_003, 20_002, 99_999], pa.int64())})
    delete_by_values(shared.table, gone)
    assert reader.behind() == [1, 2]
    reader.ingest(1, 2)
    assert trips_left(reader, shared) == [t for t in before if t not in gone["trip"].to_pylist()]
    ended = reader.rows("SELECT trip FROM lake.trips.trips_versions ORDER BY trip")
    assert ended == [(10_001,), (10_003,), (20_002,)]
    # What is written again afterwards is there: deletes are of files that were committed before.
    shared.append(a_day(1).query("trip == 10003"))
    assert reader.behind() == [1]
    reader.ingest(1, 1)
    assert 10_003 in trips_left(reader, shared)
    assert reader.behind() == []
    reader.lake.close()


def test_rows_are_deleted_by_several_columns_of_which_one_may_be_null(tmp_path):
    (tmp_path / "shared").mkdir()
    shared = IcebergTrips(tmp_path / "shared")
    reader = reading(tmp_path / "case", shared)
    rows = a_day(1)
    rows.loc[rows["trip"] == 10_002, "city"] = None
    shared.append(rows)
    values = pa.table({"trip": [10_002, 10_000], "city": pa.array([None, "nowhere"])})
    delete_by_values(shared.table, values)
    reader.look()
    reader.ingest(1, 1)
    left = trips_left(reader, shared)
    assert left == [trip for trip in rows["trip"] if trip != 10_002]
    reader.lake.close()


def test_deletes_of_a_partition_are_of_no_other(tmp_path):
    shared, reader = of_iceberg(tmp_path, 1, 2)
    before = trips_left(reader, shared)
    tasks = {task.file.partition[0]: task.file for task in shared.table.scan().plan_files()}
    cities = pa.table({"city": pc.unique(pa.array(pd.concat([a_day(1), a_day(2)])["city"]))})
    delete_by_values(shared.table, cities, tasks["2024-03-02"].partition)
    assert reader.behind() == [2]
    reader.ingest(2, 2)
    # DuckDB's reader takes them for deletes of the whole table.
    left = reader.rows("SELECT trip FROM lake.trips.trips ORDER BY trip")
    assert left == [(trip,) for trip in before if trip < 20_000]
    reader.lake.close()


def test_deletes_find_a_column_that_was_renamed_and_refuse_one_that_is_gone(tmp_path):
    shared, reader = of_iceberg(tmp_path, 1)
    with shared.table.update_schema() as update:
        update.add_column("code", LongType())
    delete_by_values(shared.table, pa.table({"trip": pa.array([10_001], pa.int64())}))
    with shared.table.update_schema() as update:
        update.rename_column("code", "kind")
    assert reader.behind() == [1]
    reader.ingest(1, 1)
    assert 10_001 not in trips_left(reader, shared)
    delete_by_values(shared.table, pa.table({"kind": pa.array([7], pa.int64())}))
    with shared.table.update_schema() as update:
        update.delete_column("kind")
    with pytest.raises(LandingError, match=r"by a column that the table no longer has \(field 7\)"):
        reader.look()
    reader.lake.close()


def test_mapped_columns_of_delta_are_found_by_their_names(tmp_path):
    (tmp_path / "shared").mkdir()
    shared = DeltaTrips(tmp_path / "shared")
    shared.append(a_day(1))
    map_columns(shared.location, {"distance": "delay", "delay": "distance"})
    reader = reading(tmp_path / "case", shared)
    assert reader.behind() == [1]
    reader.ingest(1, 1)
    rows = a_day(1)
    found = reader.rows("SELECT distance, delay FROM lake.trips.trips ORDER BY trip")
    swapped = rows[["delay", "distance"]].astype(object)
    swapped = swapped.where(swapped.notna(), None)
    assert found == list(swapped.itertuples(index=False, name=None))
    reader.lake.close()
