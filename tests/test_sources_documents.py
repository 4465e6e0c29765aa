"""A document database as a source: pymongo, and a server that speaks MongoDB's protocol."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo import MongoClient
from secantus import SecantusDBServer

from ml_platform.errors import LakeUnavailable
from ml_platform.settings import Settings
from ml_platform.sources import arrivals, ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from tests.dagster_servers import free_port

pytestmark = pytest.mark.slow

COMMIT = Commit("run-1", "abc")
NOW = datetime(2024, 6, 1, tzinfo=UTC)
START = datetime(2024, 3, 1, tzinfo=UTC)
SPEC = """\
description: Orders
partitions: {cadence: daily, start: 2024-03-01}
sources:
  orders:
    python: source:orders
    database: store
    high_water: updated_at
    event_time: ordered_at
    key: [order_id]
    columns:
      {order_id: VARCHAR, ordered_at: TIMESTAMPTZ, updated_at: TIMESTAMPTZ, city: VARCHAR,
       weight: DOUBLE}
    rules: ["weight > 0"]
examples: {source: orders, entity: [order_id], columns: ["weight"]}
label: {task: regression}
model: {metric: mae}
"""
SOURCE = Path(__file__).parent / "documents_source.py"


@contextmanager
def serving(folder: Path, port: int) -> Iterator[MongoClient[dict[str, Any]]]:
    with (
        SecantusDBServer(host="127.0.0.1", port=port, storage_path=str(folder)) as server,
        MongoClient(server.uri, tz_aware=True) as client,
    ):
        yield client


def order(number: int, day: int, weight: object = 1.5, hour: int = 12) -> dict[str, Any]:
    at = datetime(2024, 3, day, hour, 30, 0, 123000, tzinfo=UTC)
    return {
        "_id": f"order {number}", "ordered_at": at, "updated_at": at + timedelta(hours=1),
        "address": {"city": "Oslo"}, "weight": weight,
    }  # fmt: skip


def declared(root: Path) -> UseCase:
    folder = root / "orders"
    folder.mkdir()
    (folder / "use_case.yaml").write_text(SPEC)
    (folder / "labels.sql").write_text(
        "SELECT order_id, ordered_at AS event_time, weight AS label, known_at FROM orders"
    )
    (folder / "model.py").write_text("def build():\n    pass\n")
    (folder / "source.py").write_text(SOURCE.read_text())
    return load_use_case(folder, ["store"])


def test_documents_keep_the_contract_of_rows(tmp_path):
    use_case, port = declared(tmp_path), free_port()
    database = {"store": SecretStr(f"mongodb://127.0.0.1:{port}/shop")}
    lake = Lake(Settings(data=tmp_path / "data", databases=database))
    with serving(tmp_path / "documents", port) as client:
        orders = client.shop.orders
        orders.insert_many([order(1, 2), order(2, 2), order(3, 4), order(4, 4, weight=-1)])
        # Documents need not be alike.
        orders.insert_one({**order(5, 4), "address": {}, "note": "no city"})
        orders.insert_one({**order(6, 4), "weight": "heavy"})
        found = arrivals(lake, use_case, "orders", COMMIT, NOW)
        assert [window.start.day for window in found.windows] == [2, 4]
        counts = _taken(lake, use_case, 2, 4)
        assert counts == {2: (2, 2, 0), 3: (0, 0, 0), 4: (4, 2, 2)}
        assert _rows(lake, "order_id, city, weight") == [
            ("order 1", "Oslo", 1.5), ("order 2", "Oslo", 1.5), ("order 3", "Oslo", 1.5),
            ("order 5", None, 1.5),
        ]  # fmt: skip
        # A correction, a late document and a deletion.
        later = datetime(2024, 3, 9, tzinfo=UTC)
        orders.update_one({"_id": "order 1"}, {"$set": {"weight": 7.0, "updated_at": later}})
        orders.insert_one(order(7, 3, hour=20))
        orders.delete_one({"_id": "order 2"})
        found = arrivals(lake, use_case, "orders", COMMIT, NOW, found.state)
        assert [window.start.day for window in found.windows] == [2]
        _taken(lake, use_case, 2, 4)
        assert _rows(lake, "order_id, weight") == [
            ("order 1", 7.0), ("order 3", 1.5), ("order 5", 1.5), ("order 7", 1.5)
        ]  # fmt: skip
        assert arrivals(lake, use_case, "orders", COMMIT, NOW, found.state).windows == {}
    lake.close()


def test_a_server_of_documents_that_does_not_answer_is_waited_for(tmp_path):
    use_case = declared(tmp_path)
    where = f"mongodb://ada:hidden@127.0.0.1:{free_port()}/shop?serverSelectionTimeoutMS=200"
    lake = Lake(
        Settings(
            data=tmp_path / "data", databases={"store": SecretStr(where)}, server_wait_seconds=0
        )
    )
    with pytest.raises(LakeUnavailable, match="ServerSelectionTimeoutError") as caught:
        _taken(lake, use_case, 2, 2)
    assert "hidden" not in str(caught.value)
    lake.close()


def _taken(lake: Lake, use_case: UseCase, first: int, last: int) -> dict[int, tuple[int, ...]]:
    days = Window(START + timedelta(days=first - 1), START + timedelta(days=last))
    report = ingest(lake, use_case, "orders", days, COMMIT)
    return {
        window.start.day: (counts.landed, counts.ingested, counts.quarantined)
        for window, counts in report.windows.items()
    }


def _rows(lake: Lake, columns: str) -> list[tuple[Any, ...]]:
    with lake.cursor() as cursor:
        query = f"SELECT {columns} FROM lake.orders.orders ORDER BY ALL"
        return cursor.execute(query).fetchall()
