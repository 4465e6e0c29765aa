"""MLflow's scoring protocol, as openapi.json describes it."""

from typing import Any

from ml_platform.registry import ModelVersion
from ml_platform.serving.http.paths.operations import (
    OF_PREDICTIONS,
    TEXT,
    Paths,
    Served,
    answer,
    fields,
    json_body,
    operation,
    value_schema,
)
from ml_platform.serving.http.paths.samples import model_row
from ml_platform.spec.use_case import UseCase

LIST = {"type": "array", "items": {}}
TEXT_SCHEMA = {"type": "string"}


def invocation_paths(served: Served) -> Paths:
    """`/mlflow/{model}/…`, and the same without a name where there is one use case only."""
    paths: Paths = {
        # Of all of MLflow's paths this one has nothing to do with a model.
        "/version": {"get": operation("MLflow's version", {200: answer(TEXT_SCHEMA, TEXT)})}
    }
    for case, model in served.models():
        for path in (f"/mlflow/{case.name}", *([""] if served.is_only_one else [])):
            paths |= _model_paths(path, case, model)
        # As MLflow's client of deployments asks.
        paths[f"/endpoints/{case.name}/invocations"] = {"post": _invoke(case, model)}
    return paths


def _model_paths(path: str, case: UseCase, model: ModelVersion) -> Paths:
    name = case.name
    return {
        f"{path}/ping": {
            "get": operation(
                f"Whether {name} can be asked",
                {200: answer(TEXT_SCHEMA, TEXT)},
                problems=[404],
                tags=[name],
            )
        },
        f"{path}/version": {
            "get": operation("MLflow's version", {200: answer(TEXT_SCHEMA, TEXT)}, tags=[name])
        },
        f"{path}/invocations": {"post": _invoke(case, model)},
    }


def _invoke(case: UseCase, model: ModelVersion) -> dict[str, Any]:
    return operation(
        f"Predict, as MLflow's scoring server does: {case.description}",
        {200: answer(_answered(case, model), headers=["X-Model-Version", "X-Prediction-Id"])},
        problems=OF_PREDICTIONS,
        body=_asked(model),
        tags=[case.name],
    )


def _asked(model: ModelVersion) -> dict[str, Any]:
    columns = {name: value_schema(kind) for name, kind in model.columns.items()}
    rows = {"type": "array", "items": fields(columns, closed=True), "minItems": 1}
    split = fields(
        {
            "columns": {"type": "array", "items": TEXT_SCHEMA},
            "data": {"type": "array", "items": LIST},
        },
        "columns",
    )
    forms = {
        "dataframe_records": rows,
        "instances": {**LIST, "minItems": 1},
        "dataframe_split": split,
        "inputs": {"anyOf": [{"type": "object"}, LIST]},
    }
    schema = {"oneOf": [fields({name: form}) for name, form in forms.items()]}
    return json_body(schema, {"dataframe_records": [model_row(model)]})


def _answered(case: UseCase, model: ModelVersion) -> dict[str, Any]:
    if case.label.task == "regression":
        prediction: dict[str, Any] = {"type": "number"}
    else:
        size = len(model.classes)
        prediction = {
            "type": "array",
            "items": {"type": "number"},
            "minItems": size,
            "maxItems": size,
            "description": f"Probabilities of {', '.join(model.classes)}.",
        }
    return fields({"predictions": {"type": "array", "items": prediction}})
