"""Feedback and the review queue, as openapi.json describes them."""

from datetime import UTC, timedelta
from http import HTTPStatus
from typing import Any

from ml_platform.features import entity_types
from ml_platform.registry import ModelVersion
from ml_platform.serving.calls import PREDICTION_ID
from ml_platform.serving.http.paths.operations import (
    OF_BODIES,
    PROBLEMS,
    Paths,
    Schema,
    Served,
    answer,
    example_of,
    fields,
    in_path,
    json_body,
    operation,
    times_read,
    value_schema,
)
from ml_platform.serving.http.paths.samples import PREDICTION, label_of, labelled
from ml_platform.serving.records.feedback import MOST_ITEMS
from ml_platform.serving.records.items import KINDS
from ml_platform.serving.records.review import MOST_LISTED
from ml_platform.spec.use_case import UseCase

TIME = {"type": ["string", "null"], "format": "date-time"}
LABELS: dict[str, Schema] = {
    # 0 and 1 will do as well.
    "binary": {"type": ["boolean", "integer"]},
    "multiclass": {"type": "string", "minLength": 1},
    "regression": {"type": "number"},
}
PLAIN = {status: PROBLEMS[status] for status in (*OF_BODIES, 404, 507)}
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
                "description": "Instead of entity and event time. Who got the prediction needs "
                "no permission but `predict`.",
            },
            "label": LABELS[case.label.task],
            "kind": {"enum": list(KINDS)},
            "known_at": {
                **TIME,
                "description": "When the label was known, not before the event time; now, if left "
                "out.",
            },
        },
        "additionalProperties": False,
    }
    asked = fields(
        {"items": {"type": "array", "items": item, "minItems": 1, "maxItems": MOST_ITEMS}}
    )
    taken = fields(
        {
            "taken": {"type": "integer"},
            "ids": {"type": "array", "items": {"type": "string"}},
            "times_read": times_read("item"),
        },
        "times_read",
    )
    return operation(
        "Labels and corrections; all of them are taken, or none",
        {202: answer(taken, description="They are on the disk.")},
        problems={
            **PLAIN,
            403: "Who may predict and not `label` speaks of predictions alone that were answered "
            "to them, by their ids: the detail names the other items. Nothing was taken.",
            422: "A time or a class cannot be: `field` names it. Nothing was taken.",
        },
        examples={422: _impossible(case)},
        body=json_body(asked, {"items": [labelled(case, model)]}),
        tags=[case.name],
    )


def _impossible(case: UseCase) -> dict[str, Any]:
    start = case.calendar.start.astimezone(UTC)
    early = (start - timedelta(days=1)).isoformat()
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return {
        "known too early": example_of(
            status,
            f"item 0: `known_at`: is before the event time, {start.isoformat()}; a label is known "
            "once it has happened",
            field="known_at",
        ),
        "outside of the history": example_of(
            status,
            f"item 0: `event_time`: its event time, {early}, is outside of the history, which is "
            f"{case.partitions.reach}: there will never be such an example",
            field="event_time",
        ),
    }


def _no_more(case: UseCase) -> dict[str, Any]:
    begun = f"prediction '{PREDICTION}' waits no more: "
    at = "2024-03-01T12:05:00+00:00"
    within = case.serving.review.within if case.serving.review else ""
    return {
        name: example_of(HTTPStatus.CONFLICT, f"{begun}{detail}")
        for name, detail in {
            "answered": f"ada answered 'true' at {at}; to change that, send a correction",
            "skipped": f"ada skipped it at {at}; to change that, send a correction",
            "too old": f"it was made at {at}, longer ago than {within}; say its label as feedback",
        }.items()
    }


def _never_waited(case: UseCase) -> dict[str, Any]:
    of = f"prediction '{PREDICTION}' of {case.name}"
    return {
        name: example_of(HTTPStatus.NOT_FOUND, detail)
        for name, detail in {
            "unknown": f"no {of} waits for a person: there is none of that id, or it has not been "
            "ingested yet",
            "not in the queue": f"{of} never waited for a person, as it was certain enough or "
            "answered nobody; say its label as feedback",
        }.items()
    }


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
    kind = {"enum": list(KINDS), "description": "`correction` changes what was answered before."}
    more = {"kind": kind, "by": by}
    asked = {
        "oneOf": [
            fields({"label": LABELS[case.label.task], **more}, *more, closed=True),
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
                {
                    202: answer(fields({"taken": {"const": 1}}), description="It is on the disk."),
                    200: answer(fields({"taken": {"const": 0}}), description="You said so before."),
                },
                problems={
                    **PLAIN,
                    404: "Nothing is reviewed here, or the prediction never waited for a person.",
                    409: "It waits no more: somebody answered or skipped it, or it is too old.",
                    422: "What it predicts has not happened yet, or the label is no known class.",
                },
                examples={404: _never_waited(case), 409: _no_more(case)},
                body=json_body(asked, {"label": label_of(case, model)}),
                parameters=[prediction],
                tags=[case.name],
            )
        },
    }
