"""Rows by key: the service answers what the batch path predicts, to the bit."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from starlette.testclient import TestClient

from ml_platform.features import assemble
from ml_platform.registry import predict
from tests.served import Deployment, deployed, rows_of
from tests.trips_use_case import days

PREDICT = "/predict/trips"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("lookup"), online=True) as made:
        yield made


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
    good, bad = rows_of(30)[0], {**rows_of(30)[1], "distance": "far"}

    async def ask(address: str) -> list[int]:
        async with httpx2.AsyncClient(base_url=f"http://{address}") as client:
            asked = (client.post(PREDICT, json={"rows": [row]}) for row in [good, bad] * 10)
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    with deployment.served() as served:
        assert asyncio.run(ask(served.http)) == [200, 400] * 10


def test_a_column_that_is_not_sent_is_named(client: TestClient) -> None:
    row = {k: v for k, v in rows_of(30)[0].items() if k != "distance"}
    answer = client.post(PREDICT, json={"rows": [row]})
    assert answer.json()["detail"].startswith("column 'distance': is missing in row 0")
