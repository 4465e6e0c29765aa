"""The Open Inference Protocol asked by NVIDIA's Triton clients, over gRPC and HTTP."""

import socket

import numpy as np
import pandas as pd
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

from ml_platform.errors import ServingMisconfigured
from ml_platform.registry import predict
from ml_platform.serving.worker import serve
from ml_platform.settings import ServingSettings
from tests.served import ROW, Deployment, Served

ROWS = pd.DataFrame([ROW, {**ROW, "city": "Albany", "distance": 3.0}]).astype({"city": object})


@pytest.fixture(scope="module")
def expected(served: Served, deployment: Deployment) -> np.ndarray:
    model = deployment.registry.load(deployment.use_case, 1)
    return predict(deployment.use_case, model, ROWS)["probability"].to_numpy()


def inputs(kind: type, rows: pd.DataFrame = ROWS) -> list:
    made = []
    for name, values in rows.items():
        text = values.dtype == object
        tensor = kind(name, [len(values)], "BYTES" if text else "FP64")
        array = values.to_numpy()
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def test_the_grpc_client_finds_server_and_model(served: Served) -> None:
    client = over_grpc.InferenceServerClient(served.grpc)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("trips")
    metadata = client.get_model_metadata("trips")
    assert [each.name for each in metadata.inputs] == ["city", "distance", "pace__pace"]
    assert list(metadata.versions) == ["1"]
    assert client.get_server_metadata().name == "ml-platform"


def test_the_grpc_client_is_answered_to_the_bit(served: Served, expected: np.ndarray) -> None:
    client = over_grpc.InferenceServerClient(served.grpc)
    result = client.infer("trips", inputs(over_grpc.InferInput), request_id="7")
    assert result.as_numpy("probability").tolist() == expected.tolist()
    assert result.get_response().model_version == "1"
    assert result.get_response().id == "7"


@pytest.mark.parametrize("binary", [True, False])
def test_the_http_client_is_answered_to_the_bit(
    served: Served, expected: np.ndarray, binary: bool
) -> None:
    client = over_http.InferenceServerClient(served.http)
    assert client.is_server_live()
    assert client.is_model_ready("trips")
    wanted = [over_http.InferRequestedOutput("probability", binary_data=binary)]
    result = client.infer("trips", inputs(over_http.InferInput), outputs=wanted)
    assert result.as_numpy("probability").tolist() == expected.tolist()
    plain = client.infer("trips", inputs(over_http.InferInput))
    assert plain.as_numpy("probability").tolist() == expected.tolist()


def test_what_is_wrong_becomes_a_code_and_names_the_column(served: Served) -> None:
    client = over_grpc.InferenceServerClient(served.grpc)
    lacking = inputs(over_grpc.InferInput)[:2]
    with pytest.raises(InferenceServerException, match="column 'pace__pace': is missing") as found:
        client.infer("trips", lacking)
    assert found.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match="no use case 'trip'") as found:
        client.infer("trip", lacking)
    assert found.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="served by version 1, not '8'"):
        client.infer("trips", inputs(over_grpc.InferInput), model_version="8")


def test_a_port_that_is_taken_is_not_shared() -> None:
    with socket.socket() as taken:
        # As another service's workers hold it.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServingMisconfigured, match=rf"127\.0\.0\.1:{port}: Address already in"):
            serve(ServingSettings(grpc_port=port, port=0))


def test_what_is_refused_is_shown_by_the_protocols_own_client(served: Served) -> None:
    client = over_http.InferenceServerClient(served.http)
    distance = over_http.InferInput("distance", [1], "FP64")
    distance.set_data_from_numpy(np.array([1.5]))
    for name, said in (("nowhere", "no use case 'nowhere'"), ("trips", "column 'city'")):
        with pytest.raises(InferenceServerException, match=said):
            client.infer(name, [distance])
    client.close()
