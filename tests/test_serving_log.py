"""What the service keeps of requests, from the answer to the performance of live traffic."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ml_platform.errors import ServingMisconfigured, SpecErrors
from ml_platform.serving.records.segments import OPEN
from ml_platform.serving.worker import create_app
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from tests.served import (
    LOGGED,
    ROW,
    Deployment,
    deployed,
    records,
    rows_of,
    serving_settings,
)
from tests.trips_use_case import COMMIT, days

pytestmark = pytest.mark.slow

PREDICT = "/predict/trips"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    root = tmp_path_factory.mktemp("logged")
    with deployed(root, declared=LOGGED, online=True) as made:
        yield made


@pytest.fixture
def landing(deployment: Deployment) -> Iterator[Path]:
    """The landing folder, empty again afterwards."""
    folder = Path(deployment.settings.landing_uri) / "trips"
    yield folder
    for file in folder.rglob("*.jsonl"):
        file.unlink()


def invoke(client: TestClient, **headers: str) -> Any:
    return client.post("/invocations", json={"dataframe_records": [ROW]}, headers=headers)


def test_a_record_stands_in_an_open_file_before_the_answer_is_there(
    deployment: Deployment, landing: Path
) -> None:
    with deployment.client() as client:
        answer = invoke(client, **{"X-Request-Id": "order-7"})
        assert answer.headers["x-request-id"] == "order-7"
        (record,) = records(landing / "requests" / OPEN)
    assert record["prediction_id"] == answer.headers["x-prediction-id"]
    assert record["request_id"] == "order-7"
    assert record["probability"] == answer.json()["predictions"][0][1]
    assert {name: record[name] for name in ROW} == ROW
    assert (record["model_version"], record["protocol"], record["mode"]) == (1, "mlflow", "live")
    assert record["trip"] is None
    # Closing lands it.
    assert records(landing / "requests" / OPEN) == []
    assert len(records(landing / "requests")) == 1


def test_rows_by_key_are_ingested_as_they_were_answered(
    deployment: Deployment, landing: Path
) -> None:
    rows = rows_of(30)
    with deployment.client() as client:
        answer = client.post(PREDICT, json={"rows": rows}).json()
    report = ingest(deployment.lake, deployment.use_case, "requests", days(30, 30), COMMIT)
    (counts,) = report.windows.values()
    assert (counts.landed, counts.ingested, counts.quarantined) == (len(rows), len(rows), 0)
    with deployment.lake.cursor() as cursor:
        stored = cursor.execute(
            "SELECT prediction_id, trip, probability FROM lake.trips.requests ORDER BY trip"
        ).fetchall()
    said = answer["predictions"]
    assert stored == [
        (p["id"], row["trip"], p["probability"]) for row, p in zip(rows, said, strict=True)
    ]


def test_a_refused_request_is_kept_apart(deployment: Deployment, landing: Path) -> None:
    with deployment.client() as client:
        assert client.post("/invocations", content=b"{").status_code == 400
        row = {**ROW, "city": "Bosten"}
        client.post("/invocations", json={"dataframe_records": [row]})
    first, second = records(landing / "refusals")
    assert (first["error"], first["model_version"]) == ("RequestRefused", 1)
    assert "not seen. Did you mean 'Boston'?" in second["detail"]
    assert not (landing / "requests").exists() or records(landing / "requests") == []


def test_a_full_disk_fails_no_prediction(deployment: Deployment, landing: Path) -> None:
    with deployment.client() as client:
        (landing / "requests").mkdir(parents=True, exist_ok=True)
        inside = landing / "requests" / OPEN
        inside.exists() and inside.rmdir()
        # A file where the folder should be: nothing can be written, whoever tries.
        inside.write_text("")
        assert invoke(client).status_code == 200
        of = 'ml_platform_log_records_total{{outcome="{}",use_case="trips"}} 1.0'
        assert of.format("lost") in client.get("/metrics").text
        inside.unlink()
        assert invoke(client).status_code == 200
        assert of.format("kept") in client.get("/metrics").text
    assert len(records(landing / "requests")) == 1


def test_what_a_killed_worker_left_lands_with_the_next_one(
    deployment: Deployment, landing: Path
) -> None:
    left = landing / "requests" / OPEN / "1-dead.jsonl"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text('{"prediction_id": "a"}\n{"prediction_id": "b')
    with deployment.client():
        pass
    assert not left.exists()
    assert records(landing / "requests") == [{"prediction_id": "a"}]


def test_a_sample_keeps_whole_requests(tmp_path: Path, deployment: Deployment) -> None:
    with_log(deployment, "{sample: 0.5}")
    with deployment.client() as client:
        for number in range(40):
            invoke(client, **{"X-Request-Id": f"r{number}"})
    folder = Path(deployment.settings.landing_uri) / "trips" / "requests"
    kept = {record["request_id"] for record in records(folder)}
    assert 5 < len(kept) < 35
    for file in folder.glob("*.jsonl"):
        file.unlink()
    # Whoever asks again under the same id, is kept again or not again.
    with deployment.client() as client:
        for number in range(40):
            invoke(client, **{"X-Request-Id": f"r{number}"})
    assert {record["request_id"] for record in records(folder)} == kept
    for file in folder.glob("*.jsonl"):
        file.unlink()
    with_log(deployment, "{}")


def with_log(made: Deployment, log: str) -> None:
    spec = made.use_case.folder / "use_case.yaml"
    lines = [line for line in spec.read_text().splitlines() if not line.startswith("serving:")]
    spec.write_text("\n".join([*lines, f"serving: {{log: {log}}}", ""]))


def test_personal_columns_are_hashed_or_left_out(deployment: Deployment, landing: Path) -> None:
    with_log(deployment, "{hashed: [city, trip], left_out: [distance, caller]}")
    try:
        with pytest.raises(ServingMisconfigured, match="ML_PLATFORM_SERVING_LOG_SECRET"):
            create_app(deployment.settings, serving_settings())
        secret = serving_settings().model_validate({"log_secret": "k" * 32}).log_secret
        with deployment.client(log_secret=secret) as client:
            client.post(PREDICT, json={"rows": [rows_of(30)[1]] * 2})
            client.post("/invocations", json={"dataframe_records": [{**ROW, "city": "Mine"}]})
        first, second = records(landing / "requests")
        (refused,) = records(landing / "refusals")
        case = load_use_case(deployment.use_case.folder)
        assert case.sources["requests"].columns["trip"] == "VARCHAR"
        assert "distance" not in first
        assert "caller" not in first
        assert first["city"] == second["city"] != rows_of(30)[1]["city"]
        assert len(first["trip"]) == 32
        assert "Mine" not in json.dumps(refused)
        assert refused["caller"] is None
    finally:
        with_log(deployment, "{}")


@pytest.mark.parametrize(
    ("landing", "problem"),
    [
        ("https://host/landing", "nothing can be written to https://. Set it to a folder"),
        ("s3://bucket/landing", "set ML_PLATFORM_EXTENSIONS=httpfs, and ML_PLATFORM_SECRETS_SQL"),
    ],
)
def test_a_landing_folder_that_cannot_be_written_to_is_said_at_the_start(
    deployment: Deployment, landing: str, problem: str
) -> None:
    elsewhere = deployment.settings.model_copy(update={"landing": landing})
    with pytest.raises(ServingMisconfigured, match=problem):
        create_app(elsewhere, serving_settings())


@pytest.mark.parametrize(
    ("serving", "problem"),
    [
        ("{log: {hashed: [town]}}", "no column of requests 'town'"),
        ("{review: {uncertain: [0.4, 0.6]}}", "reviews what was logged"),
        ("{log: {}, review: {below: 0.6}}", "it should say `uncertain: [0.4, 0.6]`"),
    ],
)
def test_a_mistake_in_the_declaration_is_named(
    deployment: Deployment, serving: str, problem: str
) -> None:
    spec = deployment.use_case.folder / "use_case.yaml"
    before = spec.read_text()
    lines = [line for line in before.splitlines() if not line.startswith("serving:")]
    spec.write_text("\n".join([*lines, f"serving: {serving}", ""]))
    try:
        with pytest.raises(SpecErrors, match=problem.replace("[", r"\[")):
            load_use_case(deployment.use_case.folder)
    finally:
        spec.write_text(before)
