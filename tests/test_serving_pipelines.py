"""Published pipelines over HTTP without any Dagster: what is refused, by whom, and as described."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from ml_platform.access import Grant, create_key
from ml_platform.spec.loading import load_use_case
from tests.dagster_servers import free_port
from tests.served import Deployment, deploy
from tests.trips_use_case import COMMIT

pytestmark = pytest.mark.slow

DECLARED = """\
pipelines:
  monthly:
    run: train
    parameters: {window: {least: 10d, most: 40d}, sample: {}}
    callbacks: [nobody]
  archive:
    run: backfill
    ingest: true
    parameters: {locations: {trips: [archive]}, partitions: {most: 7}}
"""
PIPELINES = "/control/trips/pipelines"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = deploy(tmp_path_factory.mktemp("pipelines"))
    spec = made.use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text() + DECLARED)
    settings = made.settings.model_copy(
        update={"dagster_url": f"http://127.0.0.1:{free_port()}", "max_partitions_per_run": 5}
    )
    made = replace(made, use_case=load_use_case(made.use_case.folder), settings=settings)
    made.promote(20)
    yield made
    made.lake.close()


@pytest.mark.parametrize(
    ("pipeline", "body", "status", "field"),
    [
        ("train", {"parameters": {"window": "15d"}}, 422, "parameters.window"),
        ("monthly", {"parameters": {"window": "41d"}}, 422, "parameters.window"),
        ("archive", {"parameters": {"locations": {"trips": "/etc"}}}, 422,
         "parameters.locations.trips"),
        ("train", {"parameters": []}, 400, "parameters"),
        ("train", {"parametres": {}}, 400, "parametres"),
        ("train", {"reason": "two\nlines"}, 400, "reason"),
        ("train", {"callbacks": ["orchestrator"]}, 422, "callbacks"),
        ("train", {"callBackUri": "https://evil.net/"}, 422, "callBackUri"),
        # A receiver that the use case names and the operator has not registered.
        ("monthly", {}, 422, "callbacks"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_without_dagster(
    client: TestClient, pipeline: str, body: Any, status: int, field: str
) -> None:
    for at in ("", "/versions/3f0c1b5"):
        if at and field.startswith("parameters."):
            # What a version declares it says itself.
            continue
        answer = client.post(f"{PIPELINES}/{pipeline}{at}/runs", json=body)
        assert (answer.status_code, answer.json().get("field")) == (status, field), answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_what_there_is_not_is_not_found_and_what_there_is_needs_dagster(
    client: TestClient,
) -> None:
    missing = client.post(f"{PIPELINES}/monthyl/runs", json={})
    assert missing.status_code == 404
    assert "Did you mean 'monthly'?" in missing.json()["detail"]
    assert client.post("/control/flights/pipelines/train/runs", json={}).status_code == 404
    assert client.get(f"{PIPELINES}/train/runs").status_code == 405
    for answer in (client.get(PIPELINES), client.post(f"{PIPELINES}/train/runs", json={})):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")


def test_who_may_not_launch_starts_nothing_and_chooses_no_receiver(
    deployment: Deployment,
) -> None:
    def key_of(role: str) -> dict[str, str]:
        expires = datetime.now(UTC) + timedelta(days=1)
        _, text = create_key(
            deployment.lake, role, [Grant(role, "trips")], expires_at=expires, created_by="ada",
            commit=COMMIT,
        )  # fmt: skip
        return {"x-api-key": text}

    callers = {role: key_of(role) for role in ("reader", "predictor", "operator", "approver")}
    wrong = {"parameters": {"odd": 1}, "callBackUri": "https://evil.net/"}
    with deployment.client(authentication=True) as client:
        assert client.post(f"{PIPELINES}/train/runs", json={}).status_code == 401
        assert client.get(PIPELINES).status_code == 401
        for role, headers in callers.items():
            for at in ("", "/versions/3f0c1b5"):
                path = f"{PIPELINES}/train{at}/runs"
                status = client.post(path, json=wrong, headers=headers).status_code
                assert status == (422 if role == "operator" else 403), (role, at)
            assert client.get(PIPELINES, headers=headers).status_code == 503


def test_the_description_has_each_pipeline_with_its_own_parameters(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    def body(path: str) -> Any:
        return paths[path]["post"]["requestBody"]["content"]["application/json"]

    for at in ("", "/versions/{version}"):
        monthly = body(f"{PIPELINES}/monthly{at}/runs")["schema"]["properties"]
        assert monthly["parameters"]["properties"].keys() == {"cutoff", "window", "sample"}
        archive = body(f"{PIPELINES}/archive{at}/runs")["schema"]["properties"]
        assert archive["parameters"]["properties"].keys() == {"from", "to", "locations"}
    example = body(f"{PIPELINES}/archive/runs")["example"]
    assert client.post(f"{PIPELINES}/archive/runs", json=example).status_code == 503
    assert {"400", "404", "409", "422", "503"} <= paths[f"{PIPELINES}/train/runs"]["post"][
        "responses"
    ].keys()  # fmt: skip
