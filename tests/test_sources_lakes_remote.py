"""Tables of lakes that others own in S3 and in Azure, and behind a REST catalog, as sources."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from ml_platform.storage import Lake
from tests.azure_store import AZURITE
from tests.object_stores import ObjectStore, azure_store, s3_store
from tests.shared_sources import DeltaTrips, IcebergTrips, SharedTrips, table_of
from tests.test_sources_lakes import a_day, reading

pytestmark = pytest.mark.slow
WITHOUT_AZURITE = pytest.mark.skipif(AZURITE is None, reason="Azurite is not installed")
STORES = ["s3", pytest.param("azure", marks=WITHOUT_AZURITE)]


@pytest.fixture(scope="module", params=STORES)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObjectStore]:
    folder = tmp_path_factory.mktemp("azure")
    with s3_store() if request.param == "s3" else azure_store(folder) as made:
        yield made


@pytest.mark.parametrize("kind", [DeltaTrips, IcebergTrips])
def test_a_table_in_an_object_store_is_followed(store, tmp_path, kind):
    (tmp_path / "shared").mkdir()
    shared: SharedTrips = kind(tmp_path / "shared", store)
    reader = reading(tmp_path / "case", shared)
    shared.append(pd.concat([a_day(1), a_day(2)]))
    assert reader.behind() == [1, 2]
    reader.ingest(1, 2)
    shared.rewrite("2024-03-02", a_day(2).iloc[:3])
    shared.append(a_day(3))
    assert reader.behind() == [2, 3]
    reader.ingest(2, 3)
    assert reader.counts() == {1: 4, 2: 3, 3: 4}
    assert reader.behind() == []
    reader.lake.close()


def test_a_folder_of_hive_in_an_object_store_is_followed(store, tmp_path):
    name = f"{store.url.partition('://')[2]}/hive-{tmp_path.name}"
    files = f"{store.url}/hive-{tmp_path.name}/day=*/*.parquet"

    def put(day: int, part: str) -> str:
        path = f"{name}/day=2024-03-0{day}/{part}"
        with store.files.open_output_stream(path) as stream:
            pq.write_table(table_of(a_day(day)).drop(["day"]), stream)
        return path

    (tmp_path / "shared").mkdir()
    shared = DeltaTrips(tmp_path / "shared")
    shared.origin = f'files: "{files}"\n    when_gone: remove'
    reader = reading(tmp_path / "case", shared)
    made = reader.lake.settings.model_copy(
        update={"secrets_sql": SecretStr(store.secret_sql), "extensions": ("httpfs", "azure")}
    )
    reader.lake.close()
    reader = replace(reader, lake=Lake(made))
    gone = put(1, "part-0.parquet")
    put(2, "part-0.parquet")
    assert reader.behind() == [1, 2]
    reader.ingest(1, 2)
    store.files.delete_file(gone)
    assert reader.behind() == [1]
    reader.ingest(1, 1)
    assert reader.counts() == {2: 4}
    reader.lake.close()
