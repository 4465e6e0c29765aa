"""What those who run the service see: metrics, health, status, request ids, log lines."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx2
import pytest
import tritonclient.grpc
import yaml
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from ml_platform.settings import Settings
from tests.served import ROW, Deployment, deploy, deployed, rows_of

pytestmark = pytest.mark.slow

INVOKE = "/mlflow/trips/invocations"
GOOD = {"dataframe_records": [ROW]}
BAD = {"dataframe_records": [{**ROW, "distance": "far"}]}
DEPLOY = Path(__file__).parent.parent / "deploy"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("monitored"), online=True) as made:
        yield made


@pytest.fixture(scope="module")
def client(deployment: Deployment) -> Iterator[TestClient]:
    with deployment.client(log_requests="all") as client:
        yield client


def samples(client: TestClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    page = client.get("/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(client: TestClient, name: str, **labels: str) -> float:
    return samples(client)[name, frozenset(labels.items())]


def test_requests_are_counted_by_use_case_protocol_and_status(client: TestClient) -> None:
    for body in (GOOD, GOOD, BAD):
        client.post(INVOKE, json=body)
    client.post("/mlflow/made%20up/invocations", json=GOOD)
    of = {"use_case": "trips", "protocol": "mlflow"}
    assert value(client, "ml_platform_requests_total", status="200", **of) == 2
    assert value(client, "ml_platform_requests_total", status="400", **of) == 1
    assert value(client, "ml_platform_request_errors_total", kind="RequestRefused", **of) == 1
    assert value(client, "ml_platform_request_seconds_count", **of) == 3
    # A name that a caller makes up is no label.
    made_up = {"use_case": "", "protocol": "mlflow", "kind": "NotServed"}
    assert value(client, "ml_platform_request_errors_total", **made_up) == 1
    role = {"use_case": "trips", "role": "champion"}
    assert value(client, "ml_platform_version", **role) == 1
    assert value(client, "ml_platform_batch_rows_sum", **role) == 2


def test_look_ups_are_counted_by_what_they_found(client: TestClient) -> None:
    known = rows_of(30)[0]
    unknown, older = {**known, "trip": 7}, {**known, "started_at": "2024-04-02T12:00:00Z"}
    of = {"use_case": "trips", "view": "pace"}
    for found, rows in ((0, []), (2, [known, known, unknown]), (3, [known, older])):
        if rows:
            client.post("/predict/trips", json={"rows": rows})
        assert value(client, "ml_platform_lookups_total", outcome="found", **of) == found
    for outcome in ("expired", "missing"):
        assert value(client, "ml_platform_lookups_total", outcome=outcome, **of) == 1


def test_facts_of_lake_and_online_store_are_metrics(client: TestClient) -> None:
    assert value(client, "ml_platform_features_age_seconds", use_case="trips", view="pace") > 3600
    assert value(client, "ml_platform_quarantine_share", use_case="trips") == 0
    assert value(client, "ml_platform_drift_limit", use_case="trips") > 0


def test_the_same_facts_are_json(client: TestClient) -> None:
    document = client.get("/status").json()["use_cases"]["trips"]
    assert document["facts_age_seconds"] >= 0
    now = {key: document[key] for key in ("serving", "facts_age_seconds")}
    assert document == {**client.get("/status/trips").json(), **now}
    assert document["champion"]["version"] == 1
    assert document["serving"]["version"] == document["serving"]["wanted"] == 1
    assert document["serving"]["features_age_seconds"]["pace"] > 3600
    assert client.get("/status/made-up").status_code == 404


def test_health(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"live": True}
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "not_served": 0})


def test_without_the_lake_the_service_is_alive_and_not_ready(tmp_path: Path) -> None:
    made = deploy(tmp_path)
    made.promote(20)
    made.lake.close()
    broken = Settings(data=made.settings.data, use_cases=made.settings.use_cases,
                      catalog=f"sqlite:{tmp_path / 'nowhere' / 'catalog.sqlite'}")  # fmt: skip
    (tmp_path / "nowhere").write_text("a file where a folder should be")
    unavailable = Deployment(tmp_path, broken, made.lake, made.registry, made.use_case)
    with unavailable.client() as client:
        assert client.get("/health/live").status_code == 200
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["not_served"]) == (503, 1)
        with grpc.insecure_channel(f"127.0.0.1:{client.app.state.grpc_port}") as channel:
            health = HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        answer = client.post(INVOKE, json=GOOD)
        assert answer.status_code == 503
        assert "has not been read yet" in answer.json()["detail"]


def test_the_callers_request_id_comes_back_or_one_is_made(client: TestClient) -> None:
    given = client.post(INVOKE, json=GOOD, headers={"X-Request-Id": "order-7"})
    assert given.headers["x-request-id"] == "order-7"
    refused = client.post(INVOKE, json=BAD, headers={"X-Request-Id": "order-8"})
    assert refused.headers["x-request-id"] == "order-8"
    made = client.get("/nothing", headers={"X-Request-Id": "two words"})
    assert re.fullmatch("[0-9a-f]{32}", made.headers["x-request-id"])


def test_a_request_is_a_line_of_json_with_its_id(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    with deployment.client(log_requests="all") as client:
        client.post(INVOKE, json=BAD, headers={"X-Request-Id": "order-9"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "order-9"]
    assert line["event"] == "request"
    assert (line["status"], line["use_case"], line["error"]) == (400, "trips", "RequestRefused")


def test_grpc_is_counted_and_has_request_ids(deployment: Deployment) -> None:
    inputs = []
    for name, given in ROW.items():
        kind = "BYTES" if name == "city" else "FP64"
        tensor = tritonclient.grpc.InferInput(name, [1], kind)
        contents = tensor._get_tensor().contents
        if kind == "BYTES":
            contents.bytes_contents.append(str(given).encode())
        else:
            contents.fp64_contents.append(float(given))  # type: ignore[arg-type]
        inputs.append(tensor)
    with deployment.served() as served:
        asking = tritonclient.grpc.InferenceServerClient(served.grpc)
        try:
            asking.infer("trips", inputs)
            with pytest.raises(tritonclient.grpc.InferenceServerException):
                asking.infer("trips", inputs[:1])
        finally:
            asking.close()
        page = httpx2.get(f"http://{served.http}/metrics", timeout=60).text
    of = 'protocol="oip-grpc",status="{}",use_case="trips"}} 1.0'
    assert f"ml_platform_requests_total{{{of.format('OK')}" in page
    assert f"ml_platform_requests_total{{{of.format('INVALID_ARGUMENT')}" in page


def test_every_metric_that_dashboard_and_rules_name_exists(client: TestClient) -> None:
    client.post(INVOKE, json=BAD)
    page = client.get("/metrics").text
    known = {
        name
        for family in text_string_to_metric_families(page)
        for name in (
            family.name, f"{family.name}_total", f"{family.name}_bucket",
            f"{family.name}_sum", f"{family.name}_count",
        )
        if name == family.name or family.type in {"counter", "histogram"}
    }  # fmt: skip
    (dashboard,) = (DEPLOY / "grafana").glob("*.json")
    panels = json.loads(dashboard.read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())["groups"]
    alerts = [rule["expr"] for group in rules for rule in group["rules"]]
    named = {name for expr in [*shown, *alerts] for name in re.findall(r"ml_platform_\w+", expr)}
    assert len(named) > 10
    assert named - known == set()
    # So does every label that a metric is chosen or added up by, where it has a sample to show.
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    for expr in [*shown, *alerts]:
        (name, *_) = re.findall(r"ml_platform_\w+", expr)
        chosen = re.findall(r"(\w+)(?:=~|!=|=)\"", expr)
        added = [each for by in re.findall(r"by \(([^)]*)\)", expr) for each in by.split(", ")]
        if name in labels:
            assert {*chosen, *added} - labels[name] == set(), expr


def test_records_of_the_log_are_counted_and_those_that_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = deploy(tmp_path)
    spec = made.use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text() + "serving: {log: {}}\n")
    made.promote(20)
    folder = Path(made.settings.landing_uri) / "trips" / "requests"
    with made.client() as client:
        of = {"use_case": "trips"}
        # An increase is seen only by what was there before it.
        assert value(client, "ml_platform_log_records_total", outcome="lost", **of) == 0
        assert client.post(INVOKE, json=GOOD).status_code == 200
        assert value(client, "ml_platform_log_records_total", outcome="kept", **of) == 1
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("a file where the folder should be")
    with made.client() as client:
        assert client.post(INVOKE, json={"dataframe_records": [ROW, ROW]}).status_code == 200
        assert value(client, "ml_platform_log_records_total", outcome="lost", **of) == 2
    assert "2 records are not logged" in caplog.text
    made.lake.close()
