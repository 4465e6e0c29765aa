"""The service described in OpenAPI 3.1: every use case with its own columns and an example."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ml_platform.registry import ModelVersion
from ml_platform.serving.http.control_openapi import RUN_PATHS, control_paths
from ml_platform.serving.live import LiveVersions
from ml_platform.serving.tensors import BYTES, describe_inputs, describe_outputs
from ml_platform.spec.queries import is_numeric
from ml_platform.spec.use_case import UseCase

JSON = "application/json"
PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and what to do about it."},
        "column": {"type": "string", "description": "The column at fault, where it is one."},
        "field": {"type": "string", "description": "The parameter at fault, where it is one."},
    },
}
PROBLEMS = {
    "400": "The request is not as it should be; `column` names the culprit.",
    "401": "Nobody knows who asks: send a key or a token.",
    "403": "Who asks may not do this: `permission` says what is missing.",
    "404": "No such use case, or no such version of it, is served.",
    "413": "Too many bytes or rows.",
    "422": "The rows are sound and the model cannot predict them.",
    "429": "This caller asks too often; Retry-After says when to ask again.",
    "503": "More is asked than can be answered in time; Retry-After says when to ask again.",
}

PUBLIC: Mapping[str, Any] = {"security": []}
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or a token of a login."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def describe(live: LiveVersions, names: Iterable[str]) -> dict[str, Any]:
    """The document, of the versions of some use cases that serve now."""
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("Name, version and extensions of the server")},
        "/v2/health/live": {"get": {**_operation("Whether the process answers"), **PUBLIC}},
        "/v2/health/ready": {
            "get": {**_operation("Whether predictions can be asked for"), **PUBLIC}
        },
    }
    paths |= RUN_PATHS
    for name in names:
        use_case, model = live.of(name).use_case, live.of(name).champion
        paths |= control_paths(use_case)
        if model is not None:
            paths |= _paths(use_case, model)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Predictions",
            "version": "1",
            "description": "Open Inference Protocol v2 and MLflow's scoring protocol.",
        },
        "paths": paths,
        "components": {"schemas": {"Problem": PROBLEM}, "securitySchemes": SCHEMES},
        "security": [{name: []} for name in SCHEMES],
    }


def _paths(use_case: UseCase, model: ModelVersion) -> dict[str, Any]:
    name, summary = use_case.name, use_case.description
    infer = _operation(
        f"Predict: {summary}", _tensors(model, _example(model)), _infer_answer(use_case, model)
    )
    invoke = _operation(
        f"Predict, as MLflow's scoring server does: {summary}",
        _invocations(model, _example(model)),
        {"type": "object", "required": ["predictions"]},
    )
    return {
        f"/v2/models/{name}": {"get": _operation(f"Columns of {name}", tag=name)},
        f"/v2/models/{name}/ready": {"get": _operation(f"Whether {name} can be asked", tag=name)},
        f"/v2/models/{name}/infer": {"post": {**infer, "tags": [name]}},
        f"/mlflow/{name}/invocations": {"post": {**invoke, "tags": [name]}},
    }


def _operation(
    summary: str,
    body: Mapping[str, Any] | None = None,
    answer: Mapping[str, Any] | None = None,
    tag: str | None = None,
) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses: dict[str, Any] = {
        "200": {
            "description": "The answer",
            "content": {JSON: {"schema": answer or {"type": "object"}}},
        },
        **{code: {"description": said, "content": problem} for code, said in PROBLEMS.items()},
    }
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: body}}
    if tag is not None:
        operation["tags"] = [tag]
    return operation


def _example(model: ModelVersion) -> dict[str, Any]:
    """The first row of the reference sample."""
    # As plain Python values: numpy's own floats are no JSON.
    row, *_ = model.reference[list(model.columns)].head(1).to_dict("records")
    return {str(name): None if pd.isna(value) else value for name, value in row.items()}


def _schema(kind: str) -> dict[str, Any]:
    return {"type": ["number" if is_numeric(kind) else "string", "null"]}


def _tensors(model: ModelVersion, example: Mapping[str, Any]) -> dict[str, Any]:
    inputs = [
        {"name": each["name"], "datatype": each["datatype"], "shape": [1], "data": [value]}
        for each, value in zip(describe_inputs(model), example.values(), strict=True)
    ]
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"type": "string", "enum": list(model.columns)},
            "datatype": {"type": "string", "enum": ["FP64", "FP32", "INT64", BYTES, "BOOL"]},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "data": {"type": "array"},
        },
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
        },
    }
    return {"schema": schema, "example": {"id": "1", "inputs": inputs}}


def _infer_answer(use_case: UseCase, model: ModelVersion) -> dict[str, Any]:
    outputs = ", ".join(each["name"] for each in describe_outputs(use_case, model))
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string", "description": "The version that answered."},
            "outputs": {"type": "array", "description": f"Tensors {outputs}."},
        },
    }


def _invocations(model: ModelVersion, example: Mapping[str, Any]) -> dict[str, Any]:
    row = {
        "type": "object",
        "required": list(model.columns),
        "properties": {name: _schema(kind) for name, kind in model.columns.items()},
        "additionalProperties": False,
    }
    split = {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}},
            "data": {"type": "array", "items": {"type": "array"}},
        },
    }
    forms = {
        "dataframe_records": {"type": "array", "items": row},
        "instances": {"type": "array", "items": row},
        "dataframe_split": split,
        "inputs": {"type": "object"},
    }
    schema = {
        "oneOf": [
            {"type": "object", "required": [name], "properties": {name: form}}
            for name, form in forms.items()
        ]
    }
    return {"schema": schema, "example": {"dataframe_records": [dict(example)]}}
