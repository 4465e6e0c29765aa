"""Values of tensors are of their datatype, however they came."""

import json
from typing import Any

import grpc
import pytest
from starlette.testclient import TestClient

from ml_platform.errors import RequestRefused
from ml_platform.open_inference import inference_pb2 as messages
from ml_platform.open_inference.inference_pb2_grpc import GRPCInferenceServiceStub
from ml_platform.serving.datatypes import check_values, read_numbers
from tests.served import ROW, Served

INFER = "/v2/models/trips/infer"
CITY = {"name": "city", "datatype": "BYTES", "shape": [2], "data": ["Boston", "Albany"]}
PACE = {"name": "pace__pace", "datatype": "FP32", "shape": [2, 1], "data": [0.36, None]}

FITTING = [
    ("BOOL", [True, False, None]),
    ("INT8", [-128, 127, 1.0, None]),
    ("UINT8", [0, 255]),
    ("INT16", [-(2**15), 2**15 - 1]),
    ("INT32", [-(2**31), 2**31 - 1, -0.0]),
    ("INT64", [-(2**63), 2**63 - 1]),
    ("UINT64", [0, 2**64 - 1]),
    ("FP16", [65504, -65504.0, 1.5, float("nan"), float("inf")]),
    ("FP32", [3.4e38, 1, None]),
    ("FP64", [1.7e308, 10**30, float("-inf")]),
    ("BYTES", ["", "Boston", None]),
]
UNFITTING = [
    ("BOOL", 1),
    ("BOOL", "true"),
    ("INT8", 1400),
    ("INT8", -129),
    ("UINT8", -1),
    ("INT16", 2**15),
    ("UINT16", 65536),
    ("INT32", 1.5),
    ("INT32", 2**31),
    ("INT32", float("nan")),
    ("UINT32", 2**32),
    ("INT64", 2**63),
    ("UINT64", 10**400),
    ("INT64", True),
    ("FP16", 65520),
    ("FP32", 1e39),
    ("FP64", 10**400),
    ("FP64", "1"),
    ("FP64", False),
    ("BYTES", 1),
    ("BYTES", ["Boston"]),
]


@pytest.mark.parametrize(("datatype", "values"), FITTING)
def test_what_a_datatype_holds_is_taken(datatype: str, values: list[Any]) -> None:
    check_values("distance", datatype, values)


@pytest.mark.parametrize(("datatype", "value"), UNFITTING)
def test_what_it_does_not_hold_is_refused_with_column_row_and_value(
    datatype: str, value: object
) -> None:
    with pytest.raises(RequestRefused, match=rf": row 1 is .*, which is not {datatype}: ") as found:
        check_values("distance", datatype, [None, value, value])
    assert found.value.column == "distance"


@pytest.mark.parametrize(
    ("datatype", "value", "problem"),
    [
        ("INT8", 1400, "the number 1400, which is not INT8: a whole number from -128 to 127"),
        (
            "INT32",
            1.5,
            "the number 1.5, which is not INT32: a whole number from -2147483648 to 214",
        ),
        ("FP64", True, "true, which is not FP64: a number up to 1.79769e+308"),
        ("BOOL", "yes", "the text 'yes', which is not BOOL: true or false"),
    ],
)
def test_json_is_checked(client: TestClient, datatype: str, value: object, problem: str) -> None:
    distance = {"name": "distance", "datatype": datatype, "shape": [2], "data": [None, value]}
    answer = client.post(INFER, json={"inputs": [CITY, distance, PACE]})
    assert answer.status_code == 400, answer.text
    assert answer.json()["column"] == "distance"
    assert f"row 1 is {problem}" in answer.json()["detail"]


def test_json_that_fits_is_answered_as_ever(client: TestClient) -> None:
    distance = {"name": "distance", "datatype": "INT8", "shape": [2], "data": [100, 21]}
    as_float = {**distance, "datatype": "FP64", "data": [100.0, 21.0]}
    answers = [client.post(INFER, json={"inputs": [CITY, d, PACE]}) for d in (distance, as_float)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert answers[0].json()["outputs"] == answers[1].json()["outputs"]


def test_binary_data_is_checked(client: TestClient) -> None:
    def ask(third: bytes) -> Any:
        sized = {"parameters": {"binary_data_size": 2}}
        distance = {"name": "distance", "datatype": "BOOL", "shape": [2], **sized}
        head = json.dumps({"inputs": [CITY, distance, PACE]}).encode()
        lengths = {"inference-header-content-length": str(len(head))}
        return client.post(INFER, content=head + b"\x01" + third, headers=lengths)

    assert ask(b"\x00").status_code == 200
    problem = ask(b"\x02").json()
    assert problem["column"] == "distance"
    assert "row 1 is the byte 2, which is not BOOL" in problem["detail"]
    assert read_numbers("distance", "INT8", b"\xff\x7f").tolist() == [-1, 127]


def test_contents_over_grpc_are_checked(served: Served) -> None:
    def ask(datatype: str, **contents: list[Any]) -> str:
        asked = messages.ModelInferRequest(model_name="trips")
        for name, kind, given in [
            ("city", "BYTES", {"bytes_contents": [b"Boston"]}),
            ("distance", datatype, contents),
            ("pace__pace", "FP64", {"fp64_contents": [ROW["pace__pace"]]}),
        ]:
            tensor = asked.inputs.add(name=name, datatype=kind, shape=[1])
            for field, values in given.items():
                getattr(tensor.contents, field).extend(values)
        with grpc.insecure_channel(served.grpc) as channel:
            try:
                GRPCInferenceServiceStub(channel).ModelInfer(asked, timeout=60)
            except grpc.RpcError as error:
                return f"{error.code().name} {error.details()}"
        return "taken"

    assert ask("INT8", int_contents=[100]) == "taken"
    refused = ask("INT8", int_contents=[1400])
    assert refused.startswith("INVALID_ARGUMENT ")
    assert "column 'distance': row 0 is the number 1400, which is not INT8" in refused
    assert "row 0 is the number 256, which is not UINT8" in ask("UINT8", uint_contents=[256])
    # Values of another field belong to another datatype.
    moved = ask("INT32", fp64_contents=[1.5])
    assert "column 'distance': its values stand in fp64_contents; INT32 has int_contents" in moved
    assert "int_contents" in ask("FP64", fp64_contents=[1.5], int_contents=[1])
