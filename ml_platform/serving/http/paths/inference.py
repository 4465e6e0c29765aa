"""The Open Inference Protocol, version 2, as openapi.json describes it."""

from typing import Any

from ml_platform.registry import ModelVersion
from ml_platform.serving.datatypes import BYTES, NUMPY_TYPES
from ml_platform.serving.http.paths.operations import (
    BINARY,
    JSON,
    OF_PREDICTIONS,
    Paths,
    Served,
    answer,
    fields,
    in_path,
    json_body,
    operation,
)
from ml_platform.serving.http.paths.samples import model_row
from ml_platform.serving.tensors import describe_inputs, describe_outputs
from ml_platform.spec.use_case import UseCase

TEXT_SCHEMA = {"type": "string"}
FLAG = {"type": "boolean"}
SHAPE = {"type": "array", "items": {"type": "integer"}}
PARAMETERS = {"type": ["object", "null"]}
DATATYPES = [*NUMPY_TYPES, BYTES]
DESCRIBED = fields({"name": TEXT_SCHEMA, "datatype": {"enum": DATATYPES}, "shape": SHAPE})
READY = fields({"ready": FLAG})


def inference_paths(served: Served) -> Paths:
    """`/v2` and what is below it."""
    server = fields(
        {
            "name": TEXT_SCHEMA,
            "version": TEXT_SCHEMA,
            "extensions": {"type": "array", "items": TEXT_SCHEMA},
        }
    )
    not_ready = answer(READY, description="Nothing can be asked for yet.")
    paths: Paths = {
        "/v2": {
            "get": operation("Name, version and extensions of the server", {200: answer(server)})
        },
        "/v2/health/live": {
            "get": operation(
                "Whether the process answers", {200: answer(fields({"live": FLAG}))}, public=True
            )
        },
        "/v2/health/ready": {
            "get": operation(
                "Whether predictions can be asked for",
                {200: answer(READY), 503: not_ready},
                public=True,
            )
        },
    }
    for case, model in served.models():
        paths |= _model_paths(case, model)
    return paths


def _model_paths(case: UseCase, model: ModelVersion) -> Paths:
    name = case.name
    version = in_path("version", "Only this version may answer.", str(model.version))
    metadata = fields(
        {
            "name": {"const": name},
            "versions": {"type": "array", "items": TEXT_SCHEMA},
            "platform": TEXT_SCHEMA,
            "inputs": {"type": "array", "items": DESCRIBED},
            "outputs": {"type": "array", "items": DESCRIBED},
        }
    )
    paths: Paths = {}
    for path, parameters in (
        (f"/v2/models/{name}", []),
        (f"/v2/models/{name}/versions/{{version}}", [version]),
    ):
        paths[path] = {
            "get": operation(
                f"Columns of {name}",
                {200: answer(metadata)},
                problems=[404],
                parameters=parameters,
                tags=[name],
            )
        }
        paths[f"{path}/ready"] = {
            "get": operation(
                f"Whether {name} can be asked",
                {200: answer(fields({"name": {"const": name}, "ready": FLAG}))},
                problems=[404],
                parameters=parameters,
                tags=[name],
            )
        }
        paths[f"{path}/infer"] = {
            "post": operation(
                f"Predict: {case.description}",
                {200: answer(_answered(case, model), JSON, BINARY, headers=["X-Prediction-Id"])},
                problems=OF_PREDICTIONS,
                body=_asked(model),
                parameters=parameters,
                tags=[name],
            )
        }
    return paths


def _asked(model: ModelVersion) -> dict[str, Any]:
    example = [
        {"name": each["name"], "datatype": each["datatype"], "shape": [1], "data": [value]}
        for each, value in zip(describe_inputs(model), model_row(model).values(), strict=True)
    ]
    tensor = fields(
        {
            "name": {"enum": list(model.columns)},
            "datatype": {"enum": DATATYPES},
            "shape": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0},
                "minItems": 1,
                "maxItems": 2,
            },
            "data": {"type": "array", "items": {}},
            "parameters": PARAMETERS,
        },
        "parameters",
    )
    output = fields(
        {"name": TEXT_SCHEMA, "parameters": PARAMETERS},
        "parameters",
    )
    schema = fields(
        {
            "id": {"type": ["string", "null"]},
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
            "outputs": {"type": ["array", "null"], "items": output},
            "parameters": PARAMETERS,
        },
        "id",
        "outputs",
        "parameters",
    )
    return json_body(schema, {"id": "1", "inputs": example})


def _answered(case: UseCase, model: ModelVersion) -> dict[str, Any]:
    names = [each["name"] for each in describe_outputs(case, model)]
    tensor = fields(
        {
            "name": {"enum": names},
            "datatype": {"enum": DATATYPES},
            "shape": SHAPE,
            "data": {"type": "array", "items": {}},
            "parameters": PARAMETERS,
        },
        "data",
        "parameters",
    )
    return fields(
        {
            "model_name": {"const": case.name},
            "model_version": {"type": "string", "description": "The version that answered."},
            "id": TEXT_SCHEMA,
            "outputs": {"type": "array", "items": tensor},
        },
        "id",
    )
