"""Tables of lakes that others own in S3 and in Azure, and behind a REST catalog, as sources."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from pyiceberg.catalog import Catalog

from ml_platform.errors import LakeUnavailable, LandingError
from ml_platform.sources import parquet_files
from ml_platform.storage import Lake
from ml_platform.storage.extensions import connect_with
from tests.azure_store import AZURITE
from tests.object_stores import SECRET, ObjectStore, azure_store, s3_store
from tests.shared_sources import DeltaTrips, HiveTrips, IcebergTrips, SharedTrips, table_of
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


def test_files_are_not_refused_because_their_store_became_unavailable(tmp_path, monkeypatch):
    def read_schemas(*_: object) -> None:
        with connect_with("httpfs") as connection:
            connection.execute(
                "CREATE SECRET (TYPE s3, KEY_ID 'key', SECRET 'no', REGION 'us-east-1', "
                "ENDPOINT '127.0.0.1:9', URL_STYLE 'path', USE_SSL false)"
            )
            connection.execute("FROM parquet_schema('s3://lakes/day=1/part-0.parquet')")

    (tmp_path / "shared").mkdir()
    shared = HiveTrips(tmp_path / "shared")
    reader = reading(tmp_path / "case", shared)
    shared.append(a_day(1))
    monkeypatch.setattr(parquet_files, "read_schemas", read_schemas)
    with pytest.raises(LakeUnavailable):
        reader.look()
    monkeypatch.undo()
    assert reader.behind() == [1]
    reader.lake.close()


class RestCatalog(BaseHTTPRequestHandler):
    """What a catalog answers over REST to those who read: its prefix, and a table's metadata."""

    catalog: Catalog

    def do_GET(self) -> None:
        *_, kind = self.path.split("?")[0].split("/")
        if self.headers["Authorization"] != f"Bearer {SECRET}":
            return self._answer(401, {"error": {"message": "no", "type": "", "code": 401}})
        if kind == "config":
            return self._answer(200, {"defaults": {}, "overrides": {}})
        namespace = self.path.split("/")[3]
        table = self.catalog.load_table((namespace, kind))
        return self._answer(
            200,
            {
                "metadata-location": table.metadata_location,
                "metadata": json.loads(table.metadata.model_dump_json()),
                "config": {},
            },
        )

    def _answer(self, status: int, said: object) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[IcebergTrips]:
    (tmp_path / "shared").mkdir()
    shared = IcebergTrips(tmp_path / "shared")
    handler = type("Handler", (RestCatalog,), {"catalog": shared.catalog})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    uri = f"http://127.0.0.1:{server.server_port}"
    shared.setting = {"others": f"iceberg:type=rest uri={uri} token={SECRET}"}
    yield shared
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_table_of_a_rest_catalog_is_followed(rest, tmp_path):
    reader = reading(tmp_path / "case", rest)
    rest.append(a_day(1))
    assert reader.behind() == [1]
    reader.ingest(1, 1)
    rest.append(a_day(2))
    assert reader.behind() == [2]
    reader.ingest(2, 2)
    assert reader.counts() == {1: 4, 2: 4}
    reader.lake.close()


def test_a_token_that_is_refused_is_not_shown(rest, tmp_path):
    rest.setting = {"others": rest.setting["others"].replace(SECRET, "hush-hush-8")}
    reader = reading(tmp_path / "case", rest)
    with pytest.raises(LandingError, match="cannot be opened") as caught:
        reader.look()
    assert "hush-hush" not in str(caught.value)
    reader.lake.close()
