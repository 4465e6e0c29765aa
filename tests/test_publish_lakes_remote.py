"""Predictions in lakes of others that are in S3 and in Azure."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_platform.publish import Counted
from tests.azure_store import AZURITE
from tests.object_stores import ObjectStore, azure_store, s3_store
from tests.published_trips import Published, published_trips
from tests.shared_lakes import (
    SHARED_LAKES,
    Place,
    SharedLake,
    delta_lake,
    iceberg_lake,
    parquet_lake,
)
from tests.trips_use_case import days

pytestmark = pytest.mark.slow
WITHOUT_AZURITE = pytest.mark.skipif(AZURITE is None, reason="Azurite is not installed")


@pytest.fixture(scope="module", params=["s3", pytest.param("azure", marks=WITHOUT_AZURITE)])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObjectStore]:
    folder = tmp_path_factory.mktemp("azure")
    with s3_store() if request.param == "s3" else azure_store(folder) as made:
        yield made


@pytest.fixture(scope="module", params=SHARED_LAKES)
def shared(
    request: pytest.FixtureRequest, store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> SharedLake:
    if request.param == "iceberg":
        folder = tmp_path_factory.mktemp("catalog")
        return iceberg_lake(Place(f"{store.url}/iceberg", store), folder)
    made = {"parquet": parquet_lake, "delta": delta_lake}
    return made[request.param](Place(f"{store.url}/{request.param}", store))


@pytest.fixture(scope="module")
def trips(shared: SharedLake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    made = published_trips(tmp_path_factory.mktemp("published"), shared.database)
    yield made
    made.lake.close()


def test_partitions_are_published_replaced_and_emptied(trips, shared):
    use_case = trips.declare("arrive", table="others.shop.arrive")
    report = trips.publish(use_case, days(9, 11))
    assert list(report.windows.values()) == [Counted(40, 40)] * 3
    with trips.opposite(use_case, days(10, 10)):
        trips.publish(use_case, days(10, 10))
        wanted = trips.predicted("trip, probability, model_version", days(9, 11))
        for reader, rows in shared.read("shop/arrive", "trip, probability, model_version").items():
            assert rows == wanted, reader
    with trips.without_predictions(days(11, 11)):
        report = trips.publish(use_case, days(11, 11))
        assert list(report.windows.values()) == [Counted(0, 0)]
        for reader, rows in shared.read("shop/arrive", "DISTINCT event_date::VARCHAR").items():
            assert rows == [("2024-03-09",), ("2024-03-10",)], reader


def test_a_file_in_an_object_store_is_whole_at_every_moment(store, tmp_path):
    shared = parquet_lake(Place(f"{store.url}/whole", store))
    trips = published_trips(tmp_path, shared.database)
    use_case = trips.declare("whole", table="others.shop.whole")
    path = f"{store.url.partition('://')[2]}/whole/shop/whole/event_date=2024-03-10/part-0.parquet"
    trips.publish(use_case, days(10, 10))
    over, seen, whole = threading.Event(), set(), {store.files.get_file_info(path).size}

    def watch() -> None:
        while not over.is_set():
            seen.add(store.files.get_file_info(path).size)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            for _ in range(3):
                with trips.without_predictions(days(10, 10)):
                    trips.publish(use_case, days(10, 10))
                    whole.add(store.files.get_file_info(path).size)
                trips.publish(use_case, days(10, 10))
                whole.add(store.files.get_file_info(path).size)
        finally:
            over.set()
        watching.result()
    assert seen <= whole
    trips.lake.close()
