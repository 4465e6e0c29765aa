"""Rows by key: the service answers what the batch path predicts, to the bit."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from ml_platform.features import assemble
from ml_platform.registry import predict
from tests.served import ROW, Deployment, declare, deploy, deployed, published, rows_of, ruled
from tests.trips_use_case import MODEL, days

pytestmark = pytest.mark.slow

PREDICT = "/predict/trips"
RULES = ("distance > 0", "delay < 2000", "city <> 'Boston' or distance < 100")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("lookup"), online=True) as made:
        yield ruled(made, *RULES)


def test_rows_by_key_get_the_bits_of_the_batch_path(
    deployment: Deployment, client: TestClient
) -> None:
    case = deployment.use_case
    with deployment.lake.cursor(case.timezone) as cursor:
        snapshot = deployment.lake.snapshot(cursor)
        frame = assemble(cursor, deployment.lake, case, days(30, 30), snapshot)
    batch = predict(case, deployment.registry.load(case, 1), frame)["probability"]
    expected = dict(zip(frame["trip"], batch, strict=True))
    rows = rows_of(30)
    answer = client.post(PREDICT, json={"rows": rows}).json()
    assert answer.get("version") == 1, answer
    found = {r["trip"]: p["probability"] for r, p in zip(rows, answer["predictions"], strict=True)}
    assert found == expected


def test_each_row_names_the_views_that_held_nothing_for_it(client: TestClient) -> None:
    known = rows_of(30)[0]
    unknown, older = {**known, "trip": 7}, {**known, "started_at": "2024-04-02T12:00:00Z"}
    rows = client.post(PREDICT, json={"rows": [known, unknown, older]}).json()["predictions"]
    assert [row["not_found"] for row in rows] == [{}, {"pace": "missing"}, {"pace": "expired"}]
    assert rows[1]["probability"] == rows[2]["probability"]


@pytest.mark.parametrize(
    ("changes", "columns", "rule"),
    [
        ({"distance": -5}, ["distance"], "distance > 0"),
        (
            {"city": "Boston", "distance": 100},
            ["city", "distance"],
            "city <> 'Boston' or distance < 100",
        ),
    ],
)
def test_a_row_that_a_batch_would_not_predict_is_refused_with_the_rule(
    client: TestClient, changes: dict[str, object], columns: list[str], rule: str
) -> None:
    rows = [rows_of(30)[0], {**rows_of(30)[1], **changes}]
    inputs = [ROW, {**ROW, **changes}]
    tensors = [
        {"name": name, "shape": [2], "datatype": kind, "data": [row[name] for row in inputs]}
        for name, kind in {"city": "BYTES", "distance": "FP64", "pace__pace": "FP64"}.items()
    ]
    for path, body in {
        PREDICT: {"rows": rows},
        "/mlflow/trips/invocations": {"dataframe_records": inputs},
        "/v2/models/trips/infer": {"inputs": tensors},
    }.items():
        answer = client.post(path, json=body)
        problem = answer.json()
        assert answer.status_code == 422, problem
        assert [problem[name] for name in ("columns", "row", "rule")] == [columns, 1, rule]
        assert f"row 1 breaks the rule '{rule}'" in problem["detail"]


def test_a_rule_of_which_a_value_is_missing_holds_as_in_a_batch(client: TestClient) -> None:
    row = {**rows_of(30)[0], "distance": None}
    assert client.post(PREDICT, json={"rows": [row]}).status_code == 200
    records = {"dataframe_records": [{**ROW, "distance": None}]}
    assert client.post("/mlflow/trips/invocations", json=records).status_code == 200


def test_without_an_event_time_it_is_now_and_features_are_too_old(client: TestClient) -> None:
    row = {**rows_of(30)[0]}
    del row["started_at"]
    (answer,) = client.post(PREDICT, json={"rows": [row]}).json()["predictions"]
    later = {**row, "started_at": (datetime.now(UTC) + timedelta(seconds=5)).isoformat()}
    (again,) = client.post(PREDICT, json={"rows": [later]}).json()["predictions"]
    assert again["probability"] == answer["probability"]


@pytest.mark.parametrize(
    ("changes", "column", "detail"),
    [
        ({"city": "Bosten"}, "city", "a category the model has not seen. Did you mean 'Boston'?"),
        ({"distance": "far"}, "distance", "'far' is not DOUBLE"),
        ({"started_at": "noon"}, "started_at", "is not TIMESTAMP"),
        ({"speed": 3}, "speed", "there is no such column"),
        ({"pace__pace": 3}, "pace__pace", "is looked up by key in the feature view 'pace'"),
        # It is one of the source's, which nobody knows yet of a row to predict.
        ({"delay": 3}, "delay", "is a column of 'trips' that no request has to send"),
    ],
)
def test_a_wrong_value_is_refused_with_its_column(
    client: TestClient, changes: dict[str, object], column: str, detail: str
) -> None:
    answer = client.post(PREDICT, json={"rows": [{**rows_of(30)[0], **changes}]})
    assert answer.status_code == 400
    assert answer.json()["column"] == column
    assert detail in answer.json()["detail"]


def test_one_callers_mistake_does_not_fail_the_others(deployment: Deployment) -> None:
    good = rows_of(30)[0]
    bad, broken = {**good, "distance": "far"}, {**good, "distance": -5}

    async def ask(address: str) -> list[int]:
        async with httpx2.AsyncClient(base_url=f"http://{address}") as client:
            asked = (client.post(PREDICT, json={"rows": [row]}) for row in [good, bad, broken] * 10)
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    with deployment.served() as served:
        assert asyncio.run(ask(served.http)) == [200, 400, 422] * 10


def test_a_column_that_is_not_sent_is_named(client: TestClient) -> None:
    row = {k: v for k, v in rows_of(30)[0].items() if k != "distance"}
    answer = client.post(PREDICT, json={"rows": [row]})
    assert answer.json()["detail"].startswith("column 'distance': is missing in row 0")


def test_a_wrong_value_is_reported_with_the_column_that_was_sent(tmp_path: Path) -> None:
    made = deploy(tmp_path, model=MODEL.format(kind="Classifier").replace('"city"', '"place"'))
    spec = made.use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace("[city, distance]", "[city AS place, distance]"))
    made = declare(made, "")
    made.promote(20)
    published(made)
    with made.client() as client:
        wrong = client.post(PREDICT, json={"rows": [{**rows_of(30)[0], "city": "Bosten"}]}).json()
    assert wrong["column"] == "city"
    assert wrong["detail"].startswith("column 'city': row 0 is the text 'Bosten'")
    made.lake.close()


def test_a_time_without_a_zone_is_answered_with_how_it_was_read(client: TestClient) -> None:
    row = rows_of(30)[0]
    zoned = client.post(PREDICT, json={"rows": [{**row, "started_at": "2024-03-30T12:00:00Z"}]})
    assert "times_read" not in zoned.json()
    # In a week's end the clocks go forward, on another they go back.
    times = ["2024-03-30 12:00:00", "2024-03-10T02:30:00", "2024-11-03T01:30:00.5", "2024-03-30"]
    rows = [{**row, "started_at": time} for time in [None, *times]]
    answer = client.post(PREDICT, json={"rows": rows}).json()
    read = ["2024-03-30T12:00:00-04:00", "2024-03-10T03:30:00-04:00", "2024-11-03T01:30:00.5-05:00",
            "2024-03-30T00:00:00-04:00"]  # fmt: skip
    assert answer["times_read"] == {
        "zone": "America/New_York",
        "read_as": [
            {"row": n, "column": "started_at", "time": time} for n, time in enumerate(read, 1)
        ],
    }
