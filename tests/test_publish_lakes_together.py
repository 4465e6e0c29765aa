"""Readers of a lake, publishers that write beside them, and publishers that die."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.published_trips import Published, published_trips
from tests.shared_lakes import SHARED_LAKES, SharedLake, local_lake
from tests.trips_use_case import days

pytestmark = pytest.mark.slow

VERSIONS = "count(*), min(model_version), max(model_version)"


@pytest.fixture(scope="module", params=SHARED_LAKES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SharedLake:
    return local_lake(request.param, tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def trips(shared: SharedLake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    made = published_trips(tmp_path_factory.mktemp("published"), shared.database)
    yield made
    made.lake.close()


@pytest.mark.exhaustive
def test_a_reader_sees_a_whole_old_partition_or_a_whole_new_one(trips, shared):
    use_case = trips.declare("watched", table="others.shop.watched")
    trips.publish(use_case, days(10, 10))
    seen: set[tuple[str, int, int, int]] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            for name, rows in shared.read("shop/watched", VERSIONS).items():
                seen.add((name, *rows[0]))

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            for _ in range(4):
                with trips.opposite(use_case, days(10, 10)):
                    trips.publish(use_case, days(10, 10))
                trips.publish(use_case, days(10, 10))
        finally:
            over.set()
        reader.result()
    assert {tuple(counted) for _, *counted in seen} <= {(40, 1, 1), (40, 2, 2)}
    assert {name for name, *_ in seen} == shared.readers.keys()


def test_publishers_of_one_table_come_one_after_the_other(trips, shared):
    use_case = trips.declare("crowded", table="others.shop.crowded")
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(trips.publish, use_case, days(9, 11)) for _ in range(3)]
        reports = [run.result() for run in runs]
    assert all(counted.is_complete for r in reports for counted in r.windows.values())
    found = shared.read("shop/crowded", "count(*), count(DISTINCT trip)")
    assert set(map(tuple, found.values())) == {((120, 120),)}


KILLED = """
import os, signal, sys
from pathlib import Path
from ml_platform.publish import delta, iceberg, parquet_folder, publish_range, publishing
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.storage import Commit, Lake
from tests.trips_use_case import days

module, name, after = sys.argv[1:4]
settings = Settings()
use_case = load_use_case(Path(sys.argv[4]), settings.databases)
owner = {"publishing": publishing, "parquet_folder": parquet_folder,
         "delta": delta.DeltaTarget, "iceberg": iceberg.IcebergTarget}[module]
before = getattr(owner, name)
times = [0]
def dies(*arguments, **more):
    times[0] += 1
    if times[0] < 2:
        return before(*arguments, **more)
    if after == "after":
        before(*arguments, **more)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, dies)
publish_range(Lake(settings), use_case, "killed", days(9, 12), Commit("killed", "0"))
"""
PLACES = {
    # The second file is copied and has not got its name; the second partition has been committed.
    "parquet": [("parquet_folder", "_synced", "before"), ("parquet_folder", "_count", "before")],
    "delta": [("delta", "_replace", "before"), ("delta", "_replace", "after")],
    "iceberg": [("iceberg", "_replace", "before"), ("iceberg", "_replace", "after")],
}


@pytest.mark.parametrize("place", [0, 1])
def test_one_that_is_killed_leaves_whole_partitions_and_the_next_one_finishes(trips, shared, place):
    use_case = trips.declare("killed", table="others.shop.killed")
    trips.publish(use_case, days(9, 12))
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(trips.root / "data"),
        "ML_PLATFORM_DATABASES": json.dumps({"others": shared.setting}),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    with trips.opposite(use_case, days(9, 12)):
        died = subprocess.run(
            [sys.executable, "-c", KILLED, *PLACES[shared.kind][place], str(use_case.folder)],
            env=environment, check=False,
        )  # fmt: skip
        assert died.returncode == -signal.SIGKILL
        by_day = f"event_date::VARCHAR, {VERSIONS}"
        for rows in shared.read("shop/killed", by_day, "GROUP BY ALL").values():
            assert len(rows) == 4
            assert {tuple(counted) for _, *counted in rows} == {(40, 1, 1), (40, 2, 2)}
        assert trips.due(use_case) == [9, 10, 11, 12, 13, 14]
        trips.publish(use_case, days(9, 12))
        for rows in shared.read("shop/killed", VERSIONS).values():
            assert rows == [(160, 2, 2)]
    left = [file for file in shared.files() if file.name.endswith(".unfinished")]
    assert left == []
