"""Who is answered and who is rejected, over HTTP and gRPC."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
import httpx2
import pandas as pd
import pytest
import tritonclient.grpc as over_grpc
from mlflow.deployments import get_deploy_client
from requests import HTTPError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient
from tritonclient.utils import InferenceServerException

from ml_platform.access import Audit, Grant, KeyRing, create_key, revoke_key
from ml_platform.errors import AccessError
from ml_platform.serving.control import Train, control_request
from ml_platform.serving.control.recording import Recorder
from ml_platform.serving.http.declared import ENDPOINTS
from ml_platform.serving.http.endpoints import PUBLIC, Need, endpoint, endpoints_of
from ml_platform.serving.http.guard import Guard
from ml_platform.serving.worker import create_app
from tests.served import ROW, Deployment, Served, serving_settings
from tests.trips_use_case import COMMIT

pytestmark = pytest.mark.slow

INVOKE = "/mlflow/trips/invocations"
BODY = {"dataframe_records": [ROW]}


@dataclass(frozen=True)
class Keys:
    predictor: str
    reader: str
    elsewhere: str
    """A predictor of another use case."""


@pytest.fixture(scope="module")
def keys(deployment: Deployment) -> Keys:
    def make(role: str, use_case: str) -> str:
        expires_at = datetime.now(UTC) + timedelta(days=1)
        grants = [Grant(role, use_case)]
        _, text = create_key(
            deployment.lake, f"the {role}", grants, expires_at=expires_at, created_by="ada",
            commit=COMMIT,
        )  # fmt: skip
        return text

    return Keys(make("predictor", "trips"), make("reader", "trips"), make("predictor", "flights"))


@pytest.fixture(scope="module")
def client(deployment: Deployment, keys: Keys) -> Iterator[TestClient]:
    with deployment.client(authentication=True, failures_burst=1000) as client:
        yield client


@pytest.fixture(scope="module")
def served(deployment: Deployment, keys: Keys) -> Iterator[Served]:
    with deployment.served(authentication=True) as served:
        yield served


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_is_answered(client: TestClient, keys: Keys) -> None:
    assert client.post(INVOKE, json=BODY, headers=bearer(keys.predictor)).status_code == 200
    assert client.post(INVOKE, json=BODY, headers={"x-api-key": keys.predictor}).status_code == 200


def test_mlflows_own_client_is_answered_with_a_key(
    served: Served, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = get_deploy_client(f"http://{served.http}")
    rows = pd.DataFrame([ROW, {**ROW, "city": "Albany"}])
    asked = {"dataframe_split": rows.to_dict(orient="split")}
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", keys.predictor)
    answered = client.predict(endpoint="trips", inputs=asked)
    split = {"dataframe_split": asked["dataframe_split"]}
    plain = httpx2.post(f"http://{served.http}{INVOKE}", json=split, headers=bearer(keys.predictor))
    assert answered == plain.json()
    assert len(answered["predictions"]) == 2
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", keys.reader)
    with pytest.raises(HTTPError, match="403"):
        client.predict(endpoint="trips", inputs=asked)
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    with pytest.raises(HTTPError, match="401"):
        client.predict(endpoint="trips", inputs=asked)


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Basic eA=="}, bearer("nonsense"), bearer("mlp_00_x"), bearer("")],
)
def test_nobody_is_not_answered(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post(INVOKE, json=BODY, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="ml-platform"'
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_wrong_role_learns_what_is_missing(client: TestClient, keys: Keys) -> None:
    answer = client.post(INVOKE, json=BODY, headers=bearer(keys.reader))
    assert answer.status_code == 403
    assert answer.json()["permission"] == "predict"
    assert answer.json()["use_case"] == "trips"
    assert "a role that has it: predictor" in answer.json()["detail"]


def test_a_role_is_for_its_use_case_alone(client: TestClient, keys: Keys) -> None:
    for path in (INVOKE, "/invocations", "/v2/models/trips/infer", "/predict/trips"):
        assert client.post(path, json=BODY, headers=bearer(keys.elsewhere)).status_code == 403
    # Nor does it learn which use cases there are.
    missing = client.post("/predict/nothing", json=BODY, headers=bearer(keys.elsewhere))
    assert missing.status_code == 403


def test_a_reader_reads(client: TestClient, keys: Keys) -> None:
    for path in ("/v2/models/trips", "/v2", "/mlflow/trips/ping", "/openapi.json"):
        assert client.get(path, headers=bearer(keys.reader)).status_code == 200


def test_the_description_shows_no_use_case_of_others(client: TestClient, keys: Keys) -> None:
    mine = client.get("/openapi.json", headers=bearer(keys.reader)).json()["paths"]
    assert "/v2/models/trips/infer" in mine
    # A predictor of flights, which are not served here, may read no description at all.
    assert client.get("/openapi.json", headers=bearer(keys.elsewhere)).status_code == 403


def test_health_needs_no_key(client: TestClient) -> None:
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200


def test_every_other_path_needs_one(client: TestClient) -> None:
    app = client.app
    paths = [r.path for r in app.routes if isinstance(r, Route) and "health" not in r.path]
    assert len(paths) > 10
    for path in [*paths, "/", "/nothing"]:
        filled = re.sub(r"{\w+(:\w+)?}", "1", path)
        assert client.request("POST", filled, json={}).status_code == 401, path
        assert client.get(filled).status_code == 401, path


def test_every_route_is_guarded_by_what_is_declared_of_it(client: TestClient) -> None:
    routes = {f"{method} {r.path}": r for r in client.app.routes for method in r.methods - {"HEAD"}}
    assert len(routes) == len(client.app.routes)
    assert routes.keys() == {declared.name for declared in ENDPOINTS}
    assert all(isinstance(route.app, Guard) for route in routes.values())


def test_a_path_of_which_nobody_said_who_may_cannot_be_declared() -> None:
    async def handler(self: object, request: Request) -> Response: ...

    with pytest.raises(TypeError, match="needs"):
        endpoint("GET", "/secret", summary="", tag="", answers={})(handler)  # type: ignore[call-arg]


def test_a_path_is_declared_once() -> None:
    class Handlers:
        @endpoint("GET", "/ping", needs=PUBLIC, summary="", tag="", answers={})
        @endpoint("POST", "/ping", needs=Need("read"), summary="", tag="", answers={})
        async def ping(self, request: Request) -> Response: ...

        @endpoint("GET", "/ping", needs=Need("read"), summary="", tag="", answers={})
        async def again(self, request: Request) -> Response: ...

    with pytest.raises(AccessError, match="GET /ping is declared twice"):
        endpoints_of([Handlers])


def test_a_revoked_key_is_refused_by_a_service_that_runs(deployment: Deployment) -> None:
    key, text = create_key(
        deployment.lake, "x", [Grant("predictor", "trips")], created_by="ada", commit=COMMIT,
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )  # fmt: skip
    with deployment.client(authentication=True) as client:
        assert client.get("/v2", headers=bearer(text)).status_code == 200
        revoke_key(deployment.lake, key.id, revoked_by="ada", commit=COMMIT)
        while client.get("/v2", headers=bearer(text)).status_code == 200:
            pass
        assert client.get("/v2", headers=bearer(text)).status_code == 401


def test_without_authentication_this_machine_is_answered(deployment: Deployment) -> None:
    with deployment.client() as client:
        assert client.post(INVOKE, json=BODY).status_code == 200
        assert client.get("/openapi.json").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "ml.example.org", ""])
def test_without_authentication_nobody_else_is(deployment: Deployment, host: str) -> None:
    with pytest.raises(AccessError, match="authentication is off"):
        create_app(deployment.settings, serving_settings(host=host))
    create_app(deployment.settings, serving_settings(host=host, authentication=True))


def infer(served: Served, headers: dict[str, str] | None) -> None:
    inputs = []
    for name, value in ROW.items():
        text = isinstance(value, str)
        tensor = over_grpc.InferInput(name, [1], "BYTES" if text else "FP64")
        import numpy as np

        tensor.set_data_from_numpy(np.array([value], dtype=object if text else np.float64))
        inputs.append(tensor)
    over_grpc.InferenceServerClient(served.grpc).infer("trips", inputs, headers=headers)


def test_grpc_takes_a_key(served: Served, keys: Keys) -> None:
    infer(served, bearer(keys.predictor))
    infer(served, {"x-api-key": keys.predictor})


@pytest.mark.parametrize(
    ("who", "code"),
    [
        (None, "UNAUTHENTICATED"),
        ("reader", "PERMISSION_DENIED"),
        ("elsewhere", "PERMISSION_DENIED"),
    ],
)
def test_grpc_refuses_as_http_does(served: Served, keys: Keys, who: str | None, code: str) -> None:
    headers = None if who is None else bearer(getattr(keys, who))
    with pytest.raises(InferenceServerException) as refused:
        infer(served, headers)
    assert refused.value.status() == f"StatusCode.{code}"


def test_failed_logins_are_slowed_down_by_address_and_keys_work_all_the_same(
    deployment: Deployment, keys: Keys
) -> None:
    slow = {"authentication": True, "failures_per_second": 0.01, "failures_burst": 3}
    with deployment.served(**slow) as served:

        def ask(key: str | None, address: str) -> httpx2.Response:
            # As a proxy on this machine says it: whom the request came from.
            headers = {"x-forwarded-for": address, **(bearer(key) if key else {})}
            return httpx2.get(f"http://{served.http}/v2", headers=headers, timeout=60)

        assert [ask("wrong", "192.0.2.1").status_code for _ in range(3)] == [401] * 3
        refused = ask(None, "192.0.2.1")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 100
        assert ask("wrong", "192.0.2.2").status_code == 401
        assert ask(keys.reader, "192.0.2.1").status_code == 200
        # Addresses of one IPv6 network are one customer's.
        found = [ask("wrong", f"2001:db8::{n}").status_code for n in range(1, 5)]
        assert found == [401, 401, 401, 429]

        codes = []
        for _ in range(4):
            with pytest.raises(InferenceServerException) as failed:
                infer(served, bearer("wrong"))
            codes.append(failed.value.status())
        assert codes == ["StatusCode.UNAUTHENTICATED"] * 3 + ["StatusCode.RESOURCE_EXHAUSTED"]
        infer(served, bearer(keys.predictor))


def test_grpc_health_needs_no_key_and_the_rest_does(served: Served, keys: Keys) -> None:
    client = over_grpc.InferenceServerClient(served.grpc)
    assert client.is_server_live()
    assert client.is_server_ready()
    for ask in (client.get_server_metadata, lambda **_: client.get_model_metadata("trips")):
        with pytest.raises(InferenceServerException) as refused:
            ask()
        assert refused.value.status() == f"StatusCode.{grpc.StatusCode.UNAUTHENTICATED.name}"
    assert client.get_model_metadata("trips", headers=bearer(keys.reader)).name == "trips"


def test_two_keys_of_one_name_are_two_callers(deployment: Deployment) -> None:
    made = [
        create_key(
            deployment.lake, "night batch", [Grant("admin", "trips")],
            expires_at=datetime.now(UTC) + timedelta(days=1), created_by="ada", commit=COMMIT,
        )
        for _ in range(2)
    ]  # fmt: skip
    with deployment.client(authentication=True, requests_per_second=0.001, burst=1) as client:
        for _, text in made:
            assert client.get("/v2/models/trips", headers=bearer(text)).status_code == 200
            answer = client.get("/v2/models/trips", headers=bearer(text))
            assert answer.status_code == 429
            assert "night batch asks more often" in answer.json()["detail"]
    ring = KeyRing(deployment.lake)
    ring.refresh()
    callers = [ring.caller(text, datetime.now(UTC)) for _, text in made]
    assert [caller.name for caller in callers] == ["night batch"] * 2
    # What was answered to one under a key of theirs is not repeated to the other.
    asked = [
        control_request(deployment.use_case, each, "/x", "tonight", Train()) for each in callers
    ]
    assert asked[0].key != asked[1].key
    key, _ = made[0]
    Recorder(deployment.lake).record(asked[0], "train", "model")
    (*_, row) = Audit(deployment.lake).rows(what="train")
    assert row.action.who == "night batch"
    assert row.action.details["principal"] == f"key:{key.id}"
    assert row.action.details["expires"] == key.expires_at.isoformat()


def test_who_may_only_read_gives_no_labels(client: TestClient, deployment: Deployment) -> None:
    item = {"trip": 1, "event_time": "2024-03-30T04:00:00Z", "label": True}
    for role, status in (("reader", 403), ("predictor", 404), ("labeller", 404), ("operator", 404)):
        _, text = create_key(
            deployment.lake, role, [Grant(role, "trips")],  # type: ignore[arg-type]
            expires_at=datetime.now(UTC) + timedelta(days=1), created_by="ada", commit=COMMIT,
        )  # fmt: skip
        wait_until_known(client, text)
        answer = client.post("/feedback/trips", json={"items": [item]}, headers=bearer(text))
        # No feedback is declared here: whoever may, of some predictions, gets as far as that.
        assert answer.status_code == status, answer.text


def wait_until_known(client: TestClient, key: str) -> None:
    deadline = time.monotonic() + 60
    while client.get("/v2/models/trips", headers=bearer(key)).status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(0.05)
