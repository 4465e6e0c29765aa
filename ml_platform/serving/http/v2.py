"""The Open Inference Protocol, version 2, over REST; tensors as JSON or as binary data.

A column of the model is a tensor of shape [n] or [n, 1]. Source: the protocol's specification and
its binary tensor data extension.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ml_platform.errors import RequestRefused
from ml_platform.registry import ModelVersion
from ml_platform.serving.draining import DRAINING, require_not_draining
from ml_platform.serving.http.bodies import parse_json, read_body, read_length
from ml_platform.serving.http.calls import calling, named
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
from ml_platform.serving.together import Answer

JSON_LENGTH = "inference-header-content-length"
JSON = "application/json"
BINARY = "application/octet-stream"


@dataclass(frozen=True)
class V2:
    """Handlers of the protocol's paths."""

    service: Service

    async def server(self, request: Request) -> Response:
        """Name, version and extensions of the server."""
        return _json({"name": "ml-platform", "version": "2", "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        """Whether the process answers."""
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether at least one use case can be asked."""
        ready = self.service.live.ready and not DRAINING.is_set()
        return _json({"ready": ready}, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def model(self, request: Request) -> Response:
        """Names, types and shapes of what a model takes and yields."""
        name, model = self._model(request)
        case = self.service.live.of(name).use_case
        return _json(
            {
                "name": name,
                "versions": [str(model.version)],
                "platform": "sklearn",
                "inputs": describe_inputs(model),
                "outputs": describe_outputs(case, model),
            }
        )

    async def model_ready(self, request: Request) -> Response:
        """Whether a model can be asked."""
        name, _ = self._model(request)
        require_not_draining()
        return _json({"name": name, "ready": True})

    async def infer(self, request: Request) -> Response:
        """Predict."""
        name, version = request.path_params["model"], request.path_params.get("version")
        with calling(self.service, "oip-http", name) as call:
            _, model = self._model(request)
            body = await read_body(request, self.service.settings)
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
    document = parse_json(head)
    if not isinstance(document, dict):
        raise RequestRefused("the body should be an object with `inputs`")
    given = document.get("inputs")
    if not isinstance(given, list) or not given:
        raise RequestRefused("`inputs` is missing; it lists a tensor for each column")
    tensors = []
    for each in given:
        tensor, data = _read_tensor(each, data)
        tensors.append(tensor)
    if data:
        raise RequestRefused(f"{len(data)} bytes of binary data belong to no input")
    return _Asked(
        id=_text_or_none(document, "id"),
        columns=columns_of(tensors, model),
        outputs=_read_outputs(document),
        all_binary=_flag(_parameters(document), "binary_data_output"),
    )


def _read_tensor(each: Any, data: memoryview) -> tuple[Tensor, memoryview]:
    if not isinstance(each, dict) or not isinstance(each.get("name"), str):
        raise RequestRefused("an input is an object with name, shape, datatype and data")
    name = each["name"]
    shape, kind = each.get("shape"), each.get("datatype")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise RequestRefused("shape should be a list of whole numbers", name[:60])
    if not isinstance(kind, str):
        raise RequestRefused("datatype is missing, such as FP64 or BYTES", name[:60])
    size = _parameters(each).get("binary_data_size")
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(data):
            raise RequestRefused(f"{size} bytes of binary data are not there", name[:60])
        values = read_binary(name, kind, bytes(data[:size]))
        return Tensor(name, kind, tuple(shape), values), data[size:]
    if "data" not in each:
        raise RequestRefused("has no data", name[:60])
    return Tensor(name, kind, tuple(shape), _flattened(name, each["data"])), data


def _flattened(name: str, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise RequestRefused("data should be a list", name[:60])
    if data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            raise RequestRefused("data mixes lists and values", name[:60])
        return [value for row in data for value in row]
    return data


def _read_outputs(document: Mapping[str, Any]) -> dict[str, bool] | None:
    wanted = document.get("outputs")
    if wanted is None:
        return None
    if not isinstance(wanted, list) or not all(
        isinstance(each, dict) and isinstance(each.get("name"), str) for each in wanted
    ):
        raise RequestRefused("`outputs` should be a list of objects with a name")
    return {each["name"]: _flag(_parameters(each), "binary_data") for each in wanted}


def _respond(asked: _Asked, answer: Answer) -> Response:
    tensors = {tensor.name: tensor for tensor in tensors_of(answer)}
    chosen = dict.fromkeys(tensors, asked.all_binary) if asked.outputs is None else asked.outputs
    outputs, blobs = [], []
    for name, binary in chosen.items():
        if name not in tensors:
            known = ", ".join(tensors)
            raise RequestRefused(f"there is no output '{name[:60]}'; there are: {known}")
        tensor = tensors[name]
        described: dict[str, Any] = {
            "name": name, "datatype": tensor.datatype, "shape": list(tensor.shape)
        }  # fmt: skip
        if binary or asked.all_binary:
            blob = write_binary(tensor)
            blobs.append(blob)
            described["parameters"] = {"binary_data_size": len(blob)}
        else:
            described["data"] = list(tensor.values)
        outputs.append(described)
    document: dict[str, Any] = {
        "model_name": answer.use_case.name,
        "model_version": str(answer.model.version),
        "outputs": outputs,
    }
    if asked.id is not None:
        document["id"] = asked.id
    head = msgspec.json.encode(document)
    if not blobs:
        return Response(head, media_type=JSON)
    headers = {JSON_LENGTH: str(len(head))}
    return Response(b"".join([head, *blobs]), headers=headers, media_type=BINARY)


def _parameters(document: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = document.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestRefused("`parameters` should be an object")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    return parameters.get(name) is True


def _text_or_none(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise RequestRefused(f"`{name}` should be text")
    return value


def _json(document: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(document), status, media_type=JSON)
