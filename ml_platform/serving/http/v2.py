"""The Open Inference Protocol, version 2, over REST; tensors as JSON or as binary data.

A column of the model is a tensor of shape [n] or [n, 1]. Source: the protocol's specification and
its binary tensor data extension.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from ml_platform.errors import RequestRefused
from ml_platform.registry import ModelVersion
from ml_platform.serving.batch_prediction import Predictions
from ml_platform.serving.draining import DRAINING, require_not_draining
from ml_platform.serving.http.answers import as_json
from ml_platform.serving.http.bodies import parse, read_length
from ml_platform.serving.http.calls import calling, named, read_rows
from ml_platform.serving.http.endpoints import (
    BINARY,
    JSON,
    PUBLIC,
    Answer,
    Body,
    Need,
    Parameter,
    PathSubject,
    Schema,
    endpoint,
)
from ml_platform.serving.http.problems import OF_PREDICTIONS, said_of
from ml_platform.serving.http.samples import model_row
from ml_platform.serving.http.schemas import about
from ml_platform.serving.http.tensors import (
    Inferred,
    InferRequest,
    InputTensor,
    Liveness,
    ModelMetadata,
    ModelReady,
    OutputTensor,
    Ready,
    Server,
    input_tensors,
    output_tensors,
)
from ml_platform.serving.inputs import Values
from ml_platform.serving.service import Service
from ml_platform.serving.tensors import (
    Tensor,
    columns_of,
    describe_inputs,
    describe_outputs,
    read_binary,
    tensors_of,
    write_binary,
)

JSON_LENGTH = "inference-header-content-length"
TAG = "open inference"
NAMED, VERSIONED = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"


def _tensors(subject: PathSubject) -> Schema:
    return {"inputs": input_tensors(subject.answering)}


def _outputs(subject: PathSubject) -> Schema:
    names = [each.name for each in describe_outputs(subject.case, subject.answering)]
    return {"model_name": {"const": subject.case.name}, "outputs": output_tensors(names)}


def _example(subject: PathSubject) -> Any:
    described = describe_inputs(subject.answering)
    values = model_row(subject.answering).values()
    inputs = [
        {"name": each.name, "datatype": each.datatype, "shape": [1], "data": [value]}
        for each, value in zip(described, values, strict=True)
    ]
    return {"id": "1", "inputs": inputs}


VERSION = Parameter(
    "version",
    {"type": "string", "minLength": 1, "maxLength": 200},
    "Only this version may answer.",
    example=lambda of: str(of.answering.version) if of else "1",
)
METADATA: dict[str, Any] = {
    "tag": TAG,
    "summary": "Columns of the model",
    "answers": {200: Answer(ModelMetadata, narrow=about)},
    "problems": said_of(404),
}
MODEL_READY: dict[str, Any] = {
    "tag": TAG,
    "summary": "Whether it can be asked",
    "answers": {200: Answer(ModelReady, narrow=about)},
    "problems": said_of(404, 503),
}
INFER: dict[str, Any] = {
    "tag": TAG,
    "summary": "Predict, by the Open Inference Protocol",
    "body": Body(InferRequest, _example, _tensors),
    "answers": {
        200: Answer(Inferred, narrow=_outputs, media=(JSON, BINARY), headers=("X-Prediction-Id",))
    },
    "problems": OF_PREDICTIONS,
}


@dataclass(frozen=True)
class V2:
    """Handlers of the protocol's paths."""

    service: Service

    @endpoint(
        "GET", "/v2",
        needs=Need("read", "some"),
        summary="Name, version and extensions of the server",
        answers={200: Answer(Server)},
        tag=TAG,
    )  # fmt: skip
    async def server(self, request: Request) -> Response:
        """Name, version and extensions of the server."""
        return as_json(Server("ml-platform", "2", ["binary_tensor_data"]))

    @endpoint(
        "GET", "/v2/health/live",
        needs=PUBLIC,
        is_health=True,
        summary="Whether the process answers",
        answers={200: Answer(Liveness)},
        tag=TAG,
    )  # fmt: skip
    async def live(self, request: Request) -> Response:
        """Whether the process answers."""
        return as_json(Liveness(True))

    @endpoint(
        "GET", "/v2/health/ready",
        needs=PUBLIC,
        is_health=True,
        summary="Whether predictions can be asked for",
        answers={200: Answer(Ready), 503: Answer(Ready, "Nothing can be asked for yet.")},
        tag=TAG,
    )  # fmt: skip
    async def ready(self, request: Request) -> Response:
        """Whether at least one use case can be asked."""
        ready = self.service.live.ready and not DRAINING.is_set()
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return as_json(Ready(ready), status)

    @endpoint("GET", NAMED, needs=Need("read"), **METADATA)
    @endpoint("GET", VERSIONED, needs=Need("read"), parameters=(VERSION,), **METADATA)
    async def model(self, request: Request) -> Response:
        """Names, types and shapes of what a model takes and yields."""
        name, model = self._model(request)
        case = self.service.live.of(name).use_case
        inputs, outputs = describe_inputs(model), describe_outputs(case, model)
        return as_json(ModelMetadata(name, [str(model.version)], "sklearn", inputs, outputs))

    @endpoint("GET", f"{NAMED}/ready", needs=Need("read"), **MODEL_READY)
    @endpoint(
        "GET", f"{VERSIONED}/ready", needs=Need("read"), parameters=(VERSION,), **MODEL_READY
    )  # fmt: skip
    async def model_ready(self, request: Request) -> Response:
        """Whether a model can be asked."""
        name, _ = self._model(request)
        require_not_draining()
        return as_json(ModelReady(name, True))

    @endpoint("POST", f"{NAMED}/infer", needs=Need("predict"), **INFER)
    @endpoint("POST", f"{VERSIONED}/infer", needs=Need("predict"), parameters=(VERSION,), **INFER)
    async def infer(self, request: Request) -> Response:
        """Predict."""
        name, version = request.path_params["model"], request.path_params.get("version")
        with calling(self.service, "oip-http", name) as call:
            _, model = self._model(request)
            body = await read_rows(self.service, request)
            asked = _read_request(body, request.headers.get(JSON_LENGTH), model)
            answer = await self.service.predict(name, asked.columns, version, call)
        response = _respond(asked, answer)
        response.headers.update(named(answer))
        return response

    def _model(self, request: Request) -> tuple[str, ModelVersion]:
        name = request.path_params["model"]
        return name, self.service.live.model(name, request.path_params.get("version"))


@dataclass(frozen=True)
class _Asked:
    id: str | None
    columns: Mapping[str, Values]
    outputs: Mapping[str, bool] | None
    """Outputs that are wanted and whether as binary data; None for all of them."""
    all_binary: bool


def _read_request(body: bytes, json_length: str | None, model: ModelVersion) -> _Asked:
    # A view: what is left after each tensor is cut off thousands of times without a copy.
    head, data = body, memoryview(b"")
    if json_length is not None:
        length = read_length(json_length)
        if length is None or length > len(body):
            raise RequestRefused(f"{JSON_LENGTH} '{json_length[:20]}' is not within the body")
        head, data = body[:length], memoryview(body)[length:]
    request = parse(head, InferRequest)
    tensors = []
    for each in request.inputs:
        tensor, data = _read_tensor(each, data)
        tensors.append(tensor)
    if data:
        raise RequestRefused(f"{len(data)} bytes of binary data belong to no input")
    wanted = request.outputs
    return _Asked(
        id=request.id,
        columns=columns_of(tensors, model),
        outputs=None
        if wanted is None
        else {each.name: _flag(each.parameters, "binary_data") for each in wanted},
        all_binary=_flag(request.parameters, "binary_data_output"),
    )


def _read_tensor(each: InputTensor, data: memoryview) -> tuple[Tensor, memoryview]:
    name, kind, shape = each.name, each.datatype, tuple(each.shape)
    size = (each.parameters or {}).get("binary_data_size")
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(data):
            raise RequestRefused(f"{size} bytes of binary data are not there", name[:60])
        return Tensor(name, kind, shape, read_binary(name, kind, bytes(data[:size]))), data[size:]
    if each.data is UNSET:
        raise RequestRefused("has no data", name[:60])
    return Tensor(name, kind, shape, _flattened(name, each.data)), data


def _flattened(name: str, data: list[Any]) -> list[Any]:
    if data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            raise RequestRefused("data mixes lists and values", name[:60])
        return [value for row in data for value in row]
    return data


def _respond(asked: _Asked, answer: Predictions) -> Response:
    tensors = {tensor.name: tensor for tensor in tensors_of(answer)}
    chosen = dict.fromkeys(tensors, asked.all_binary) if asked.outputs is None else asked.outputs
    outputs, blobs = [], []
    for name, binary in chosen.items():
        if name not in tensors:
            known = ", ".join(tensors)
            raise RequestRefused(f"there is no output '{name[:60]}'; there are: {known}")
        tensor = tensors[name]
        data: Any = UNSET
        parameters: Any = UNSET
        if binary or asked.all_binary:
            blobs.append(write_binary(tensor))
            parameters = {"binary_data_size": len(blobs[-1])}
        else:
            data = tensor.values
        outputs.append(OutputTensor(name, tensor.datatype, tensor.shape, data, parameters))
    head = msgspec.json.encode(
        Inferred(
            answer.use_case.name, str(answer.model.version), outputs,
            UNSET if asked.id is None else asked.id,
        )
    )  # fmt: skip
    if not blobs:
        return Response(head, media_type=JSON)
    headers = {JSON_LENGTH: str(len(head))}
    return Response(b"".join([head, *blobs]), headers=headers, media_type=BINARY)


def _flag(parameters: Mapping[str, Any] | None, name: str) -> bool:
    return parameters is not None and parameters.get(name) is True
