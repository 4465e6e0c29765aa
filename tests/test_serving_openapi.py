"""What openapi.json says of the service, and that its examples are answered."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from ml_platform.access import Grant, create_key
from ml_platform.features import request_columns
from ml_platform.serving.http.declared import ENDPOINTS
from ml_platform.serving.http.samples import key_row
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from tests.attacked import REVIEWED
from tests.served import Deployment, deploy, deployed, rows_of
from tests.trips_use_case import COMMIT, days, write_folder

pytestmark = pytest.mark.slow

PUBLIC = {declared.name for declared in ENDPOINTS if declared.needs is None}
TASKS = {
    "binary": REVIEWED,
    "multiclass": "serving: {log: {}, review: {below: 0.5}}\n",
    "regression": "serving: {log: {}}\n",
}


@pytest.fixture(
    scope="module",
    params=["binary", *(pytest.param(t, marks=pytest.mark.slow) for t in TASKS if t != "binary")],
)
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    task = request.param
    root = tmp_path_factory.mktemp(task)
    with deployed(root, task=task, declared=TASKS[task], online=True) as made:
        with made.client() as client:
            client.post("/predict/trips", json={"rows": rows_of(29)})
        ingest(made.lake, made.use_case, "requests", days(29, 29), COMMIT)
        yield made


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    return client.get("/openapi.json").json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                yield method.upper(), path, operation


def predicting(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Those that need no orchestrator."""
    return (each for each in operations(document) if not each[1].startswith("/control/"))


def test_every_path_is_described_and_nothing_else(
    deployment: Deployment, document: dict[str, Any]
) -> None:
    needed = {
        declared.name.replace("{model}", "trips")
        .replace("{use_case}", "trips")
        .replace("{pipeline}", each)
        for declared in ENDPOINTS
        for each in ("train", "score", "backfill")
        if deployment.use_case.serving.review or "/review/" not in declared.path
    }
    assert {f"{method} {path}" for method, path, _ in operations(document)} == needed


def test_every_example_is_answered_as_described(
    client: TestClient, document: dict[str, Any]
) -> None:
    for method, path, operation in predicting(document):
        named = {p["name"]: p["example"] for p in operation.get("parameters", ())
                 if p["in"] == "path"}  # fmt: skip
        if "prediction" in named:
            # One waits in this deployment alone.
            named["prediction"] = client.get("/review/trips").json()["waiting"][0]["prediction_id"]
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        found = client.request(method, path.format(**named), json=body.get("example"))
        good = next(status for status in operation["responses"] if status.startswith("2"))
        assert str(found.status_code) == good, f"{method} {path}: {found.text}"
        kinds = operation["responses"][good]["content"]
        assert found.headers["content-type"].partition(";")[0] in kinds
        if method == "POST":
            assert "example" in body, path


def test_features_are_found_for_the_example_by_key(
    client: TestClient, document: dict[str, Any]
) -> None:
    described = document["paths"]["/predict/trips"]["post"]
    example = described["requestBody"]["content"]["application/json"]["example"]
    (prediction,) = client.post("/predict/trips", json=example).json()["predictions"]
    assert prediction["not_found"] == {}


def test_every_example_is_as_its_own_schema_says(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for body in operation.get("requestBody", {}).get("content", {}).values():
            schema = {**body.get("schema", {}), "components": document["components"]}
            for error in Draft202012Validator(schema).iter_errors(body.get("example")):
                pytest.fail(f"{method} {path}: {error.json_path}: {error.message}")
        for status, described in operation["responses"].items():
            for content in described.get("content", {}).values():
                for name, example in content.get("examples", {}).items():
                    assert example["value"]["status"] == int(status), f"{path}: {name}"
                    schema = {**content["schema"], "components": document["components"]}
                    Draft202012Validator(schema).validate(example["value"])


def test_refusals_are_described(client: TestClient, document: dict[str, Any]) -> None:
    for method, path, operation in predicting(document):
        if "requestBody" in operation:
            url = path.replace("{version}", "1").replace("{prediction}", "x")
            for headers, content in (
                ({}, b"{"),
                ({"content-encoding": "br"}, b"{}"),
                ({}, b" " * 8_000_001),
            ):
                found = client.request(method, url, content=content, headers=headers)
                described = operation["responses"][str(found.status_code)]
                assert found.headers["content-type"] in described["content"], path


def test_nobody_is_asked_who_they_are_where_everybody_may(document: dict[str, Any]) -> None:
    assert "security" not in document
    assert "securitySchemes" not in document["components"]
    assert all("401" not in operation["responses"] for *_, operation in predicting(document))


def test_with_authentication_it_says_how_to_ask(deployment: Deployment) -> None:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    _, key = create_key(
        deployment.lake, "reader", [Grant("reader", "trips")],
        expires_at=expires_at, created_by="ada", commit=COMMIT,
    )  # fmt: skip
    with deployment.client(authentication=True) as client:
        document = client.get("/openapi.json", headers={"x-api-key": key}).json()
        assert document["security"] == [{"bearer": []}, {"key": []}]
        assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}
        for method, path, operation in predicting(document):
            public = operation.get("security") == []
            assert public == (f"{method} {path}" in PUBLIC), path
            if not public:
                assert client.request(method, path).status_code == 401
                assert {"401", "403"} <= operation["responses"].keys()


def test_what_cannot_be_asked_is_not_described(tmp_path: Path) -> None:
    made = deploy(tmp_path)
    write_folder(tmp_path, "binary", name="detours")
    with made.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
        # Neither has a model, and of two none can do without its name.
        assert {path for path in paths if path.startswith(("/predict", "/mlflow", "/inv"))} == set()
        assert {"/status/trips", "/status/detours", "/version"} <= paths.keys()
    made.lake.close()


def test_made_up_times_follow_one_another_as_rules_say_of_them(
    deployment: Deployment, tmp_path: Path
) -> None:
    folder = tmp_path / "trips"
    shutil.copytree(deployment.use_case.folder, folder)
    spec = (folder / "use_case.yaml").read_text()
    for usual, here in {
        "delay: DOUBLE}\n": "delay: DOUBLE, ended_at: TIMESTAMPTZ}\n"
        "    rules: [ended_at > started_at]\n",
        "[city, distance]": '[city, distance, "ended_at - started_at AS lasting"]',
    }.items():
        assert usual in spec
        spec = spec.replace(usual, here)
    (folder / "use_case.yaml").write_text(spec)
    case = load_use_case(folder)
    made_up = key_row(case, deployment.registry.load(deployment.use_case, 1))
    assert request_columns(case, [made_up])["lasting"].tolist() == ["03:00:00"]
