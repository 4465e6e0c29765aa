"""Rows of a file are predicted like those of a request, and the answers are in another file."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from ml_platform.access import Audit
from ml_platform.registry import predict
from ml_platform.serving.control import references
from tests.served import Deployment, deployed
from tests.trips_use_case import trips

SCORE = "/control/trips/score"


@dataclass(frozen=True)
class World:
    made: Deployment
    client: TestClient
    folder: Path

    def send(self, rows: str, answers: str, **more: Any) -> Any:
        headers = {"Idempotency-Key": more.pop("key")} if "key" in more else {}
        body = {"rows": rows, "answers": answers, **more}
        return self.client.post(SCORE, json=body, headers=headers)

    def over(self, sent: Any) -> dict[str, Any]:
        """What is said of a batch once it is over."""
        assert sent.status_code == 202, sent.text
        deadline = time.monotonic() + 60
        while True:
            run = self.client.get(sent.headers["location"]).json()["run"]
            if run["is_over"]:
                return dict(run)
            assert time.monotonic() < deadline, run
            time.sleep(0.02)

    def write(self, name: str, rows: pd.DataFrame) -> str:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(file)
        return name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("references")
    folder = root / "shared"
    folder.mkdir()
    with deployed(root) as made, made.client(batches=folder) as client:
        yield World(made, client, folder)


def some_rows(count: int, seed: int = 0) -> pd.DataFrame:
    """Trips as the model is given them, with a column that it does not know."""
    rng = np.random.default_rng(seed)
    known = trips(1, 30)
    picked = known.iloc[rng.integers(0, len(known), count)].reset_index(drop=True)
    return pd.DataFrame(
        {
            "order": np.arange(count),
            "city": picked["city"],
            "distance": picked["distance"],
            "pace__pace": picked["distance"] / 60,
        }
    )


def test_answers_are_the_rows_with_their_predictions_to_the_bit(world: World) -> None:
    rows = some_rows(5000)
    sent = world.send(world.write("in/monday.parquet", rows), "out/monday.parquet", reason="try")
    run = world.over(sent)
    assert run["status"] == "succeeded", run
    assert run["rows"] == {"done": 5000, "of": 5000}
    assert (run["version"], run["reason"], run["failures"]) == (1, "try", [])
    answers = pd.read_parquet(world.folder / "out" / "monday.parquet")
    model = world.made.registry.load(world.made.use_case, 1)
    frame = rows.drop(columns="order")
    frame["city"] = frame["city"].astype(object)
    expected = predict(world.made.use_case, model, frame)["probability"]
    assert answers["probability"].tolist() == expected.tolist()
    assert answers["order"].tolist() == list(range(5000))
    assert set(answers["model_version"]) == {1}
    assert [file.name for file in (world.folder / "out").iterdir()] == ["monday.parquet"]
    with world.made.lake.cursor():
        (row, *_) = Audit(world.made.lake).rows(what="score rows")
    assert row.action.details["rows"] == "in/monday.parquet"


def test_a_repeat_under_one_key_predicts_once(world: World) -> None:
    rows = world.write("in/once.parquet", some_rows(10))
    first = world.send(rows, "out/once.parquet", key="monday")
    assert world.over(first)["status"] == "succeeded"
    again = world.send(rows, "out/once.parquet", key="monday")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert world.send(rows, "out/other.parquet", key="monday").status_code == 422


REFUSED = {
    "outside": ({"rows": "../a.parquet", "answers": "b.parquet"}, "rows", "is not below"),
    "absolute": ({"rows": "in/a.parquet", "answers": "/tmp/b.parquet"}, "answers", "not below"),
    "states": ({"rows": ".batches/a.parquet", "answers": "b.parquet"}, "rows", "not below"),
    "no Parquet": ({"rows": "in/a.csv", "answers": "b.parquet"}, "rows", "end in .parquet"),
    "too long": (
        {"rows": f"{'a' * 300}.parquet", "answers": "b.parquet"},
        "rows",
        "is not a valid file name",
    ),
    "not there": ({"rows": "in/no.parquet", "answers": "b.parquet"}, "rows", "there is no file"),
    "broken": (
        {"rows": "in/broken.parquet", "answers": "b.parquet"},
        "rows",
        "is not a Parquet file",
    ),
    "empty": ({"rows": "in/empty.parquet", "answers": "b.parquet"}, "rows", "has no rows"),
    "there": ({"rows": "in/a.parquet", "answers": "in/a.parquet"}, "answers", "there already"),
    "no answers": ({"rows": "in/a.parquet"}, "answers", "name where the rows are and"),
    "no rows": ({"answers": "b.parquet"}, "rows", "name where the rows are and"),
    "both": (
        {"rows": "in/a.parquet", "answers": "b.parquet", "partition": "2024-03-01"},
        "partition",
        "not both",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_cannot_be_are_refused_by_parameter(world: World, name: str) -> None:
    world.write("in/a.parquet", some_rows(1))
    world.write("in/empty.parquet", some_rows(1).head(0))
    (world.folder / "in" / "broken.parquet").write_bytes(b"no Parquet")
    body, field, said = REFUSED[name]
    answer = world.client.post(SCORE, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field
    assert said in answer.json()["detail"]
    assert not (world.folder / "b.parquet").exists()


def test_a_row_that_a_request_is_refused_for_fails_the_batch(world: World) -> None:
    rows = some_rows(5000)
    rows.loc[4100, "city"] = "Bostn"
    run = world.over(world.send(world.write("in/odd.parquet", rows), "out/odd.parquet"))
    assert run["status"] == "failed"
    assert run["failures"] == [
        "of the rows from 4096 on, column 'city': row 4 is the text 'Bostn', a category the model "
        "has not seen. Did you mean 'Boston'?"
    ]
    assert not list((world.folder / "out").glob("*odd*"))


@pytest.mark.slow
def test_answers_where_no_file_can_be_fail_the_batch(world: World) -> None:
    rows = world.write("in/fine.parquet", some_rows(3))
    run = world.over(world.send(rows, "in/fine.parquet/answers.parquet"))
    assert run["status"] == "failed"
    assert "Errno" in run["failures"][0]


def test_without_a_folder_none_are_taken(world: World) -> None:
    with world.made.client() as client:
        answer = client.post(SCORE, json={"rows": "a.parquet", "answers": "b.parquet"})
    assert answer.status_code == 400
    assert "ML_PLATFORM_SERVING_BATCHES" in answer.json()["detail"]


@pytest.mark.slow
def test_a_batch_is_ended_on_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "CHUNK_ROWS", 1)
    sent = world.send(world.write("in/long.parquet", some_rows(100_000)), "out/long.parquet")
    answer = world.client.delete(sent.headers["location"])
    assert answer.status_code == 202
    run = world.over(sent)
    assert run["status"] == "ended"
    assert run["rows"]["done"] < 100_000
    assert not list((world.folder / "out").glob("*long*"))


def test_a_batch_whose_worker_is_gone_has_failed(world: World) -> None:
    rows = world.write("in/gone.parquet", some_rows(3))
    sent = world.send(rows, "out/gone.parquet")
    world.over(sent)
    file = next((world.folder / ".batches").glob(f"{sent.json()['run']['id']}.json"))
    state = msgspec.json.decode(file.read_bytes())
    for change in ({"worker": f"{state['worker'].rpartition(':')[0]}:999999999"},
                   {"worker": "elsewhere:1", "said_at": 0.0}):  # fmt: skip
        file.write_bytes(msgspec.json.encode({**state, "status": "running", **change}))
        run = world.client.get(sent.headers["location"]).json()["run"]
        assert run["status"] == "failed"
        assert run["failures"] == ["the worker that predicted it is gone; send it again"]


def test_of_a_batch_that_there_is_not_nothing_is_known(world: World) -> None:
    for name in ("rows-0123456789abcdef", "rows-..%2f..%2fx"):
        assert world.client.get(f"/control/runs/{name}").status_code == 404


def test_answers_can_be_read_as_they_stand(world: World) -> None:
    run = world.over(world.send(world.write("in/p.parquet", some_rows(3)), "out/p.parquet"))
    assert run["status"] == "succeeded"
    schema = pq.read_schema(world.folder / "out" / "p.parquet")
    assert [str(schema.field(name).type) for name in ("probability", "model_version")] == [
        "double",
        "int32",
    ]
