"""The paths that start, decide and end, as openapi.json describes them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from ml_platform.backfill.upkeep import newest_complete
from ml_platform.serving.control.documents import STATUSES
from ml_platform.serving.http.control import DEEDS, LONGEST_KEY
from ml_platform.serving.http.paths.operations import (
    Paths,
    Served,
    answer,
    in_path,
    json_body,
    operation,
)
from ml_platform.spec.use_case import UseCase

SUMMARIES = {
    "train": "Train a challenger for the gate to decide about",
    "score": "Predict a partition, a range, or the rows of a file or table",
    "backfill": "Compute what is missing, failed or stale",
    "approve": "Let a version that waits serve",
    "reject": "Refuse a version that waits",
    "rollback": "Let an earlier version serve again, and make again what later ones wrote",
}
PROBLEMS = {
    400: "A parameter is not as it should be: `field` names it.",
    401: "Nobody knows who asks: send a key or a token.",
    403: "Who asks may not do this: `permission` says what is missing.",
    404: "There is no such use case, version or run.",
    409: "It cannot be done as things are; what Dagster refuses is in its own words.",
    413: "Too many bytes.",
    415: "The body is in a form that is not read: send JSON, as it is or packed with gzip.",
    422: "This Idempotency-Key came with other parameters before.",
    429: "This caller asks too often; Retry-After says when to ask again.",
    502: "Dagster failed.",
    503: "Dagster or MLflow is away, or busy; Retry-After says when to ask again.",
    507: "The answer could not be stored.",
}
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Repeats of one caller with the same key get the first answer; nothing is "
    "done twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[ -~]+$"},
}
RUN_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["id", "use_case", "status", "is_over"],
    "properties": {
        "id": {"type": "string"},
        "use_case": {"type": "string"},
        "status": {"type": "string", "enum": list(STATUSES)},
        "is_over": {"type": "boolean"},
        "tables": {"type": "array", "items": {"type": "string"}},
        "partitions": {
            "type": ["object", "null"],
            "properties": {
                "first": {"type": "string"},
                "last": {"type": "string"},
                "done": {"type": ["integer", "null"]},
                "of": {"type": ["integer", "null"], "description": "Null where it is not known."},
            },
        },
        "rows": {
            "type": "object",
            "description": "Of a batch by reference.",
            "properties": {"done": {"type": "integer"}, "of": {"type": "integer"}},
        },
        "answers": {"type": "string"},
        "version": {"type": "integer"},
        "by": {"type": ["string", "null"]},
        "reason": {"type": ["string", "null"]},
        "created_at": {"type": ["string", "null"]},
        "ended_at": {"type": ["string", "null"]},
        "failures": {"type": "array", "items": {"type": "string"}},
        "pipeline": {
            "type": "object",
            "description": "Of a published pipeline.",
            "properties": {
                "name": {"type": "string"},
                "version": {"type": ["string", "null"], "description": "Commit of its code."},
            },
        },
        "parameters": {"type": ["object", "null"], "description": "Defaults included."},
        "callbacks": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["to", "status"],
                "properties": {
                    "to": {"type": "string"},
                    "status": {"type": "string", "enum": ["waiting", "delivered", "given up"]},
                    "attempts": {"type": "integer"},
                    "said": {"type": ["string", "null"], "description": "Of the last attempt."},
                    "told_at": {"type": ["string", "null"]},
                    "next_at": {"type": ["string", "null"]},
                },
            },
        },
    },
}
LINKS = {
    "type": "object",
    "required": ["self"],
    "properties": {
        "self": {"type": "string"},
        "dagster": {"type": "string", "description": "Where a person sees it."},
    },
}
LOOK: Mapping[str, Any] = {
    "type": "object",
    "required": ["run", "links"],
    "properties": {"run": RUN_SCHEMA, "links": LINKS},
}
DONE: Mapping[str, Any] = {
    "type": "object",
    "description": "What was decided, or would be done; `run` is null where nothing is to do.",
    "properties": {"run": {"type": "null"}, "decided": {"type": "object"}},
}
RUN_ID = in_path("run", "As `run.id` says, and `Location`.", "3f0c1b52-6d0e-4a53-9d8b-0a4c5f0f7a11")
TAG = "control"


def control_paths(served: Served) -> Paths:
    """`/control/runs/{run}`, and `/control/{use_case}/…` with examples that its calendar has."""
    paths: Paths = {
        "/control/runs/{run}": {
            "get": operation(
                "How far a run is",
                {200: answer(LOOK, description="As it is now")},
                problems=PROBLEMS,
                parameters=[RUN_ID],
                tags=[TAG],
            ),
            "delete": operation(
                "End a run",
                {
                    200: answer(LOOK, description="It is over"),
                    202: answer(LOOK, description="It is being ended"),
                },
                problems=PROBLEMS,
                parameters=[RUN_ID],
                tags=[TAG],
            ),
        }
    }
    for live in served.lives:
        for name, kind in DEEDS.items():
            paths[f"/control/{live.use_case.name}/{name}"] = {
                "post": _deed(live.use_case, name, kind)
            }
    return paths


def _deed(use_case: UseCase, name: str, kind: type[msgspec.Struct]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([kind])
    answers = {200: answer(DONE, description="Decided, or nothing to do")}
    if name not in {"approve", "reject"}:
        answers[202] = answer(LOOK, description="It is under way", headers=["Location"])
    body = json_body(components[kind.__name__], _example(use_case, name))
    return operation(
        f"{SUMMARIES[name]}: {use_case.name}",
        answers,
        problems=PROBLEMS,
        body={**body, "required": name in {"approve", "reject", "rollback"}},
        parameters=[KEY],
        tags=[use_case.name, TAG],
    )


def _example(use_case: UseCase, name: str) -> dict[str, Any]:
    calendar = use_case.calendar
    first = calendar.window_at(calendar.start)
    last = newest_complete(use_case, datetime.now(UTC)) or first
    match name:
        case "train":
            return {"cutoff": calendar.key(last), "reason": "the monthly training"}
        case "score":
            return {"partition": calendar.key(last)}
        case "backfill":
            stretch = {"from": calendar.key(first), "to": calendar.key(last)}
            return {"tables": ["predictions"], **stretch, "dry_run": True}
        case "rollback":
            return {"reason": "it predicts too many delays", "serving": 3, "dry_run": True}
        case _:
            return {"version": 3, "reason": "looked at the segments"}
