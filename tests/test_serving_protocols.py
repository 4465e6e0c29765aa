"""What clients of the Open Inference Protocol and of MLflow get, over HTTP."""

import gzip
from typing import Any

import pandas as pd
import pytest
from starlette.testclient import TestClient

from ml_platform.registry import predict
from tests.served import ROW, Deployment

INFER = "/v2/models/trips/infer"
INVOKE = "/mlflow/trips/invocations"


@pytest.fixture(scope="module")
def probability(deployment: Deployment) -> float:
    """What the model says of ROW when it is asked directly."""
    frame = pd.DataFrame([ROW]).astype({"city": object})
    model = deployment.registry.load(deployment.use_case, 1)
    return float(predict(deployment.use_case, model, frame)["probability"].iloc[0])


def tensors(**changes: Any) -> dict[str, Any]:
    row = {**ROW, **changes}
    inputs = [
        {
            "name": name,
            "shape": [1],
            "datatype": "FP64" if name != "city" else "BYTES",
            "data": [value],
        }
        for name, value in row.items()
    ]
    return {"id": "seven", "inputs": inputs}


def test_a_tensor_for_each_column_is_answered(client: TestClient, probability: float) -> None:
    answer = client.post(INFER, json=tensors()).json()
    assert answer == {
        "model_name": "trips",
        "model_version": "1",
        "id": "seven",
        "outputs": [
            {"name": "probability", "datatype": "FP64", "shape": [1], "data": [probability]}
        ],
    }


def test_a_version_can_be_asked_for_by_its_number(client: TestClient) -> None:
    assert client.post("/v2/models/trips/versions/1/infer", json=tensors()).status_code == 200
    other = client.post("/v2/models/trips/versions/9/infer", json=tensors())
    assert other.status_code == 404
    assert other.json()["detail"] == "trips is served by version 1, not '9'"


def test_metadata_names_columns_and_types(client: TestClient) -> None:
    answer = client.get("/v2/models/trips").json()
    assert answer["versions"] == ["1"]
    assert answer["inputs"] == [
        {"name": "city", "datatype": "BYTES", "shape": [-1]},
        {"name": "distance", "datatype": "FP64", "shape": [-1]},
        {"name": "pace__pace", "datatype": "FP64", "shape": [-1]},
    ]
    assert answer["outputs"] == [{"name": "probability", "datatype": "FP64", "shape": [-1]}]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())]}},
        {"dataframe_records": [ROW]},
        {"instances": [ROW]},
        {"inputs": {name: [value] for name, value in ROW.items()}},
    ],
)
def test_every_format_of_mlflow_is_answered(
    client: TestClient, probability: float, body: dict[str, Any]
) -> None:
    answer = client.post(INVOKE, json=body)
    assert answer.json() == {"predictions": [[1 - probability, probability]]}
    assert answer.headers["x-model-version"] == "1"


def test_the_only_use_case_needs_no_name(client: TestClient, probability: float) -> None:
    answer = client.post("/invocations", json={"dataframe_records": [ROW]})
    assert answer.json() == {"predictions": [[1 - probability, probability]]}


@pytest.mark.parametrize(
    ("changes", "column", "detail"),
    [
        ({"distance": "far"}, "distance", "row 0 is the text 'far' where a number is expected"),
        ({"city": 3}, "city", "row 0 is the number 3 where text is expected"),
        ({"city": "Bosten"}, "city", "a category the model has not seen. Did you mean 'Boston'?"),
        ({"distanz": 3}, "distanz", "the model has no such column. Did you mean 'distance'?"),
        ({"distance": [1]}, "distance", "row 0 is a list where a number is expected"),
        ({"distance": 2**60}, "distance", "too large to be exact"),
    ],
)
def test_a_wrong_value_is_refused_with_its_column(
    client: TestClient, changes: dict[str, Any], column: str, detail: str
) -> None:
    answer = client.post(INVOKE, json={"dataframe_records": [{**ROW, **changes}]})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["column"] == column
    assert detail in answer.json()["detail"]


def test_a_missing_column_is_named(client: TestClient) -> None:
    answer = client.post(INVOKE, json={"dataframe_records": [{"city": "Boston"}]})
    assert answer.json()["detail"] == (
        "column 'distance': is missing; send null where its value is not known"
    )


def test_not_a_number_is_no_json(client: TestClient) -> None:
    body = '{"dataframe_records": [{"city": "Boston", "distance": NaN, "pace__pace": 1}]}'
    answer = client.post(INVOKE, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "send null for a value that is missing" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is empty"),
        (b"{", "the body is no JSON"),
        (b"[]", "an object with `inputs`"),
        (b'{"inputs": []}', "`inputs`: expected `array` of length >= 1"),
        (b'{"inputs": [{"name": "city"}]}', "`inputs[0]`: `shape` is missing"),
        (b"[" * 100_000, "an object with `inputs`"),
        (b'{"inputs":' + b"[" * 100_000, "`inputs[0]`: expected `object`, got `array`"),
    ],
)
def test_a_body_that_is_no_request_is_refused(client: TestClient, body: bytes, detail: str) -> None:
    answer = client.post(INFER, content=body)
    assert answer.status_code == 400
    assert detail in answer.json()["detail"]


def test_too_large_a_body_is_refused_packed_or_not(deployment: Deployment) -> None:
    with deployment.client(most_bytes=10_000) as client:
        plain = client.post(INFER, content=b" " * 20_000)
        bomb = gzip.compress(b" " * 10_000_000)
        packed = client.post(INFER, content=bomb[:9_000], headers={"content-encoding": "gzip"})
    assert (plain.status_code, packed.status_code) == (413, 413)
    assert plain.json()["detail"] == "the body is larger than 10000 bytes; send it in parts"


def test_too_many_rows_are_refused(deployment: Deployment) -> None:
    with deployment.client(most_rows=2) as client:
        answer = client.post(INVOKE, json={"dataframe_records": [ROW] * 3})
    assert answer.status_code == 413


def test_an_unknown_use_case_or_path_is_not_found(client: TestClient) -> None:
    other = client.post("/v2/models/trip/infer", json=tensors())
    assert (other.status_code, other.json()["detail"]) == (
        404,
        "no use case 'trip' is served here; there are: trips",
    )
    assert client.get("/nothing").headers["content-type"] == "application/problem+json"
    assert client.get("/v2/models/..%2f..%2fetc").status_code == 404
