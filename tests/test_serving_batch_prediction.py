"""What access, rollouts, monitoring and records make of one request together."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep

import httpx2
import pytest
import tritonclient.grpc as over_grpc
from starlette.testclient import TestClient

from ml_platform.access import Audit, Grant, create_key
from ml_platform.registry import Rollout, decide_rollout
from ml_platform.training import train
from tests.served import LOGGED, ROW, Deployment, declare, deploy, records
from tests.test_serving_grpc import inputs
from tests.trips_use_case import COMMIT, at

pytestmark = [pytest.mark.slow, pytest.mark.every_case]

BODY = {"dataframe_records": [ROW]}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = declare(deploy(tmp_path_factory.mktemp("together")), LOGGED)
    made.promote(20)
    train(made.lake, made.registry, made.use_case, at(14), COMMIT, tags={})
    yield made
    made.lake.close()


@pytest.fixture
def landing(deployment: Deployment) -> Iterator[Path]:
    """The landing folder, empty again afterwards."""
    folder = Path(deployment.settings.landing_uri) / "trips"
    yield folder
    for file in folder.rglob("*.jsonl"):
        file.unlink()


def key_of(made: Deployment, name: str, grant: Grant) -> str:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    _, text = create_key(
        made.lake, name, [grant], expires_at=expires_at, created_by="ada", commit=COMMIT
    )
    return text


def invoke(client: TestClient, key: str, request_id: str) -> None:
    headers = {"x-api-key": key, "x-request-id": request_id}
    answer = client.post("/invocations", json=BODY, headers=headers)
    assert (answer.status_code, answer.headers.get_list("x-request-id")) == (200, [request_id])


def test_a_record_names_whose_key_it_was(deployment: Deployment, landing: Path) -> None:
    key = key_of(deployment, "web shop", Grant("predictor", "trips"))
    with deployment.client(authentication=True) as client:
        invoke(client, key, "order-7")
    with deployment.served(authentication=True) as served:
        asking = over_grpc.InferenceServerClient(served.grpc)
        asking.infer(
            "trips", inputs(over_grpc.InferInput), request_id="order-8", headers={"x-api-key": key}
        )
        asking.close()
    kept = {(each["request_id"], each["protocol"]): each["caller"]
            for each in records(landing / "requests")}  # fmt: skip
    assert kept == {("order-7", "mlflow"): "web shop", ("order-8", "oip-grpc"): "web shop"}


def test_whom_nobody_knows_is_named_alike_everywhere(deployment: Deployment, landing: Path) -> None:
    item = {"trip": 300_001, "event_time": "2024-03-30T04:00:00Z", "label": True}
    with deployment.served() as served:
        url = f"http://{served.http}"
        assert httpx2.post(f"{url}/invocations", json=BODY, timeout=60).status_code == 200
        assert (
            httpx2.post(f"{url}/feedback/trips", json={"items": [item]}, timeout=60).status_code
            == 202
        )
        asking = over_grpc.InferenceServerClient(served.grpc)
        asking.infer("trips", inputs(over_grpc.InferInput))
        asking.close()
    callers = {each["protocol"]: each["caller"] for each in records(landing / "requests")}
    (given,) = records(landing / "feedback")
    (action,) = [
        r.action for r in Audit(deployment.lake).rows() if r.action.what == "give feedback"
    ]
    assert callers == dict.fromkeys(("mlflow", "oip-grpc"), "anonymous@127.0.0.1")
    assert given["given_by"] == action.who == "anonymous@127.0.0.1"


def test_who_is_rejected_is_counted_and_given_the_id(deployment: Deployment) -> None:
    key = key_of(deployment, "prometheus", Grant("reader", "*"))
    with deployment.client(authentication=True) as client:
        answer = client.post("/invocations", json=BODY, headers={"x-request-id": "order-9"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (401, "order-9")
        page = client.get("/metrics", headers={"x-api-key": key}).text
    assert 'kind="Unauthenticated"' in page


def test_monitoring_shows_what_the_caller_may_read(deployment: Deployment) -> None:
    mine = key_of(deployment, "ours", Grant("reader", "trips"))
    others = key_of(deployment, "theirs", Grant("reader", "flights"))
    with deployment.client(authentication=True) as client:
        assert client.get("/health/ready").json() == {"ready": True, "not_served": 0}
        for path, key, status in [
            ("/metrics", mine, 403), ("/status", mine, 200), ("/status/trips", mine, 200),
            ("/status", others, 403), ("/status/trips", others, 403),
            ("/review/trips", mine, 403),
        ]:  # fmt: skip
            assert client.get(path, headers={"x-api-key": key}).status_code == status, path
        document = client.get("/status", headers={"x-api-key": mine}).json()
    assert set(document["use_cases"]) == {"trips"}


def test_what_a_shadow_says_is_kept_apart(deployment: Deployment, landing: Path) -> None:
    def decided(mode: str) -> None:
        made = Rollout(2, mode, 0.0, "ada", "to see", datetime.now(UTC))
        decide_rollout(deployment.lake, deployment.use_case, made, COMMIT)

    decided("shadow")
    with deployment.client() as client:
        answer = client.post("/invocations", json=BODY, headers={"x-request-id": "order-10"})
        assert answer.headers["x-model-version"] == "1"
        until = monotonic() + 60
        while len(records(landing / "requests")) < 2:
            assert monotonic() < until
            sleep(0.05)
    decided("ended")
    kept = {(e["mode"], e["model_version"], e["request_id"]) for e in records(landing / "requests")}
    assert kept == {("live", 1, "order-10"), ("shadow", 2, "order-10")}


def test_a_canarys_answer_is_kept_once_as_what_the_caller_got(
    deployment: Deployment, landing: Path
) -> None:
    made = Rollout(2, "canary", 1.0, "ada", "to see", datetime.now(UTC))
    decide_rollout(deployment.lake, deployment.use_case, made, COMMIT)
    # As long as it takes: this machine may be busy.
    with deployment.client(canary_seconds=60) as client:
        answer = client.post("/invocations", json=BODY)
        assert answer.headers["x-model-version"] == "2"
    (record,) = records(landing / "requests")
    assert (record["mode"], record["model_version"]) == ("live", 2)
    assert record["prediction_id"] == answer.headers["x-prediction-id"]
