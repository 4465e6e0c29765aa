"""Rows by key in plain JSON, as openapi.json describes them."""

from typing import Any

from ml_platform.features import OUTCOMES, needed_columns
from ml_platform.registry import ModelVersion
from ml_platform.serving.http.paths.operations import (
    OF_PREDICTIONS,
    Paths,
    Schema,
    Served,
    answer,
    fields,
    json_body,
    operation,
    times_read,
    value_schema,
)
from ml_platform.serving.http.paths.samples import key_row
from ml_platform.spec.use_case import UseCase

NOT_FOUND = [outcome for outcome in OUTCOMES if outcome != "found"]


def plain_paths(served: Served) -> Paths:
    """`/predict/{model}`."""
    return {
        f"/predict/{case.name}": {"post": _predict(case, model)} for case, model in served.models()
    }


def _predict(case: UseCase, model: ModelVersion) -> dict[str, Any]:
    event_time = case.sources[case.examples.source].event_time
    columns = {name: _column(kind) for name, kind in needed_columns(case).items()}
    columns[event_time] = {
        "type": ["string", "null"],
        "format": "date-time",
        "description": "Now, where it is left out.",
    }
    asked = fields(
        {
            "rows": {
                "type": "array",
                "items": fields(columns, event_time, closed=True),
                "minItems": 1,
            },
            "version": {
                "type": ["integer", "string", "null"],
                "description": "Only this version may answer.",
            },
        },
        "version",
    )
    answered = fields(
        {
            "use_case": {"const": case.name},
            "version": {"type": "integer", "description": "The version that answered."},
            "predictions": {"type": "array", "items": fields(_prediction(case))},
            "times_read": times_read("row"),
        },
        "times_read",
    )
    return operation(
        f"Predict by key; features are looked up: {case.description}",
        {200: answer(answered, headers=["X-Prediction-Id"])},
        problems=OF_PREDICTIONS,
        body=json_body(asked, {"rows": [key_row(case, model)]}),
        tags=[case.name],
    )


def _column(kind: str) -> Schema:
    """What may be sent for a column of a source: times as text, though models take numbers."""
    for begin, form in (("TIMESTAMP", "date-time"), ("DATE", "date")):
        if kind.startswith(begin):
            return {"type": ["string", "null"], "format": form}
    return value_schema(kind)


def _prediction(case: UseCase) -> dict[str, Schema]:
    columns: dict[str, Schema] = {"id": {"type": "string"}}
    for name, kind in case.prediction_columns.items():
        if kind.startswith("MAP"):
            columns[name] = {"type": "object", "additionalProperties": {"type": "number"}}
        else:
            columns[name] = {"type": "string" if kind == "VARCHAR" else "number"}
    columns["not_found"] = {
        "type": "object",
        "description": "Feature views whose features were missing, and why: their newest row is "
        "too old (`expired`), or there is none of the entity up to then (`missing`).",
        "properties": {view: {"enum": NOT_FOUND} for view in case.model_views},
        "additionalProperties": False,
    }
    return columns
