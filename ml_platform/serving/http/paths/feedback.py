"""Feedback and the review queue, as openapi.json describes them."""

from typing import Any

from ml_platform.features import entity_types
from ml_platform.registry import ModelVersion
from ml_platform.serving.calls import PREDICTION_ID
from ml_platform.serving.http.paths.operations import (
    OF_BODIES,
    Paths,
    Schema,
    Served,
    answer,
    fields,
    in_path,
    json_body,
    operation,
    value_schema,
)
from ml_platform.serving.http.paths.samples import PREDICTION, label_of, labelled
from ml_platform.serving.records.feedback import KINDS, MOST_ITEMS
from ml_platform.serving.records.review import MOST_LISTED
from ml_platform.spec.use_case import UseCase

TIME = {"type": ["string", "null"], "format": "date-time"}
LABELS: dict[str, Schema] = {
    # 0 and 1 will do as well.
    "binary": {"type": ["boolean", "integer"]},
    "multiclass": {"type": "string", "minLength": 1},
    "regression": {"type": "number"},
}
LIMIT = {
    "name": "limit",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 50},
}


def feedback_paths(served: Served) -> Paths:
    """`/feedback/{use_case}` and `/review/{use_case}`, of those use cases that have them."""
    paths: Paths = {}
    for case, model in served.models():
        if case.takes_feedback:
            paths[f"/feedback/{case.name}"] = {"post": _feedback(case, model)}
        if case.serving.review is not None:
            paths |= _review_paths(case, model)
    return paths


def _feedback(case: UseCase, model: ModelVersion) -> dict[str, Any]:
    entity = entity_types(case, case.examples.entity)
    item = {
        "type": "object",
        "required": ["label"],
        "properties": {
            **{name: value_schema(kind) for name, kind in entity.items()},
            "event_time": {**TIME, "description": "Of the row, with the entity's columns."},
            "prediction_id": {
                "type": ["string", "null"],
                "description": "Instead of entity and event time.",
            },
            "label": LABELS[case.label.task],
            "kind": {"enum": list(KINDS)},
            "known_at": {**TIME, "description": "When the label was known; now, if left out."},
        },
        "additionalProperties": False,
    }
    asked = fields(
        {"items": {"type": "array", "items": item, "minItems": 1, "maxItems": MOST_ITEMS}}
    )
    taken = fields(
        {"taken": {"type": "integer"}, "ids": {"type": "array", "items": {"type": "string"}}}
    )
    return operation(
        "Labels and corrections; all of them are taken, or none",
        {202: answer(taken, description="They are on the disk.")},
        problems=[*OF_BODIES, 404, 507],
        body=json_body(asked, {"items": [labelled(case, model)]}),
        tags=[case.name],
    )


def _review_paths(case: UseCase, model: ModelVersion) -> Paths:
    waiting = fields(
        {
            "prediction_id": {"type": "string"},
            "answered_at": {"type": "string", "format": "date-time"},
            "columns": {"type": "object"},
        }
    )
    listed = fields(
        {"use_case": {"const": case.name}, "waiting": {"type": "array", "items": waiting}}
    )
    by = {"type": ["string", "null"], "description": "Who answers, where keys do not say it."}
    asked = {
        "oneOf": [
            fields({"label": LABELS[case.label.task], "by": by}, "by", closed=True),
            fields({"skip": {"const": True}, "by": by}, "by", closed=True),
        ]
    }
    prediction = in_path("prediction", "As the queue names it.", PREDICTION, PREDICTION_ID.pattern)
    return {
        f"/review/{case.name}": {
            "get": operation(
                "Predictions that wait for a person, the latest first",
                {200: answer(listed)},
                problems=[400, 404],
                parameters=[LIMIT],
                tags=[case.name],
            )
        },
        f"/review/{case.name}/{{prediction}}": {
            "post": operation(
                "A person's answer about a prediction, or that there is none",
                {202: answer(fields({"taken": {"const": 1}}), description="It is on the disk.")},
                problems=[*OF_BODIES, 404, 507],
                body=json_body(asked, {"label": label_of(case, model)}),
                parameters=[prediction],
                tags=[case.name],
            )
        },
    }
