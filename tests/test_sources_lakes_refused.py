"""What is said of tables of lakes that cannot be read, and of those that are laid out oddly."""

import builtins
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.errors import LakeUnavailable, LandingError, PlatformError
from tests.shared_sources import DeltaTrips, HiveTrips, IcebergTrips, SharedTrips, table_of
from tests.test_sources_lakes import Reader, a_day, reading

pytestmark = pytest.mark.slow


@pytest.fixture(params=[DeltaTrips, pytest.param(IcebergTrips, marks=pytest.mark.slow)])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> SharedTrips:
    (tmp_path / "shared").mkdir()
    return request.param(tmp_path / "shared")


@pytest.fixture
def reader(shared: SharedTrips, tmp_path: Path) -> Iterator[Reader]:
    made = reading(tmp_path / "case", shared)
    yield made
    made.lake.close()


@pytest.fixture
def hive(tmp_path: Path) -> HiveTrips:
    (tmp_path / "shared").mkdir()
    return HiveTrips(tmp_path / "shared")


@pytest.fixture
def hive_reader(hive: HiveTrips, tmp_path: Path) -> Iterator[Reader]:
    made = reading(tmp_path / "case", hive)
    yield made
    made.lake.close()


def test_a_lost_column_and_a_changed_type_are_refused_with_the_difference(shared, reader):
    shared.append(a_day(1))
    reader.look()
    reader.ingest(1, 1)
    rows = table_of(a_day(2))
    distance = pa.array([f"{n} km" for n in range(len(rows))])
    changed = rows.drop(["distance", "city"]).append_column("distance", distance)
    changed = changed.append_column("town", pa.array(["Albany"] * len(rows)))
    shared.overwrite(changed)
    with pytest.raises(LandingError) as caught:
        reader.look()
    said = str(caught.value)
    assert "trips/trips: others.shop.trips, " in said
    assert "is not as it is declared: 'city' VARCHAR is not there; " in said
    assert "'distance' is VARCHAR, and DOUBLE is declared. It has trip BIGINT, " in said
    with pytest.raises(LandingError, match="Nothing is ingested before the declaration fits"):
        reader.ingest(1, 2)
    assert reader.counts() == {1: 4}


def test_a_column_that_was_added_is_null_in_older_files(shared, reader):
    shared.append(a_day(1).assign(day="2024-03-01").drop(columns="delay"), without="delay")
    shared.append(a_day(2))
    assert reader.behind() == [1, 2]
    reader.ingest(1, 2)
    assert reader.rows(
        "SELECT day, count(delay), count(*) FROM lake.trips.trips GROUP BY 1 ORDER BY 1"
    ) == [(pd.Timestamp(2024, 3, 1).date(), 0, 4), (pd.Timestamp(2024, 3, 2).date(), 4, 4)]


def test_a_file_that_cannot_be_read_is_named_and_read_once_it_can(shared, reader):
    shared.append(a_day(1))
    (file,) = (f for f in shared.files() if f.suffix == ".parquet")
    whole = file.read_bytes()
    for there in (b"PAR1 no file of Parquet at all", None):
        file.unlink()
        if there:
            file.write_bytes(there)
        with pytest.raises(LandingError) as caught:
            reader.look()
        said = str(caught.value)
        assert said.startswith("trips/trips: others.shop.trips, ")
        assert f"{file.name} cannot be read: " in said
        file.write_bytes(whole)
    assert reader.behind() == [1]
    reader.ingest(1, 1)
    assert reader.counts() == {1: 4}


def test_a_table_that_is_not_there_is_named(shared, reader):
    shared.drop()
    with pytest.raises(LandingError) as caught:
        reader.look()
    said = str(caught.value)
    assert said.startswith("trips/trips: others.shop.trips")
    assert "there is no Delta table: " in said or "Table does not exist: shop.trips" in said


def test_a_file_that_is_still_written_is_left_alone(hive, hive_reader):
    hive.append(a_day(1))
    hidden = hive.folder / "day=2024-03-01" / "_part-1.parquet"
    pq.write_table(table_of(a_day(1)).drop(["day"]), hidden)
    (hive.folder / "day=2024-03-01" / ".part-2.parquet").write_bytes(b"PAR1")
    assert hive_reader.behind() == [1]
    assert hive_reader.ingest(1, 1).files == 1


def test_a_folder_that_is_gone_removes_nothing(hive, hive_reader):
    hive.append(a_day(1))
    hive_reader.look()
    hive_reader.ingest(1, 1)
    shutil.move(hive.folder, f"{hive.folder}-unmounted")
    for read in (hive_reader.look, lambda: hive_reader.ingest(1, 1)):
        with pytest.raises(LandingError, match=r"no file matches '.*' any more; is the folder"):
            read()
    assert hive_reader.counts() == {1: 4}


def test_a_row_that_moves_to_another_partition_was_known_there_when_it_came(shared, reader):
    shared.append(pd.concat([a_day(1), a_day(2)]))
    reader.look()
    reader.ingest(1, 2)
    rows = a_day(1)
    moved = rows.iloc[:1].assign(started_at=rows["started_at"].iloc[:1] + pd.Timedelta(days=1))
    shared.rewrite("2024-03-01", rows.iloc[1:])
    shared.append(moved)
    assert reader.behind() == [1, 2]
    reader.ingest(1, 2)
    assert reader.counts() == {1: 3, 2: 5}
    versions = reader.rows(
        "SELECT day(timezone('America/New_York', started_at)), _known_until IS NULL, "
        "_known_from > started_at FROM lake.trips.trips_versions WHERE trip = 10000 ORDER BY 1"
    )
    assert versions == [(1, False, False), (2, True, True)]


def test_what_is_not_installed_is_named_with_the_way_to_get_it(shared, reader, monkeypatch):
    missing = "deltalake" if isinstance(shared, DeltaTrips) else "pyiceberg"
    plain = builtins.__import__

    def importing(name, *more, **named):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named '{missing}'", name=missing)
        return plain(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", importing)
    extra = "delta" if missing == "deltalake" else "iceberg"
    said = rf"{missing} is not installed: pip install 'ml-platform\[{extra}\]'"
    with pytest.raises(LandingError, match=said):
        reader.look()


def test_a_store_that_does_not_answer_is_unavailable_and_its_password_is_not_shown(
    shared, tmp_path
):
    secret = "hush-hush-7"
    kind = "delta" if isinstance(shared, DeltaTrips) else "iceberg"
    options = f"key_id=key secret={secret} region=us-east-1 endpoint=http://127.0.0.1:9"
    settings = {
        "delta": f"delta:s3://lakes/shop {options}",
        "iceberg": f"iceberg:uri=postgresql+psycopg://ada:{secret}@127.0.0.1:9/catalog "
        f"warehouse=s3://lakes {options}",
    }
    shared.setting = {"others": settings[kind]}
    made = reading(tmp_path / "case", shared)
    try:
        with pytest.raises(LakeUnavailable) as caught:
            made.look()
        assert secret not in str(caught.value)
        assert "\x1b" not in str(caught.value)
    finally:
        made.lake.close()


def test_a_setting_of_another_kind_is_refused(shared, tmp_path):
    shared.setting = {"others": "sqlite:/nowhere"}
    made = reading(tmp_path / "case", shared)
    with pytest.raises(PlatformError, match=r"'others' should begin with '(delta|iceberg):'"):
        made.look()
