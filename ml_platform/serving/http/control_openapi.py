"""The paths that start, decide and end, described in OpenAPI."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from ml_platform.backfill.upkeep import newest_complete
from ml_platform.serving.control.documents import STATUSES
from ml_platform.serving.http.control import DEEDS, LONGEST_KEY
from ml_platform.spec.use_case import UseCase

JSON = "application/json"
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}

SUMMARIES = {
    "train": "Train a challenger for the gate to decide about",
    "score": "Predict a partition or a range",
    "backfill": "Compute what is missing, failed or stale",
    "approve": "Let a version that waits serve",
    "reject": "Refuse a version that waits",
    "rollback": "Let an earlier version serve again, and make again what later ones wrote",
}
PROBLEMS = {
    "400": "A parameter is not as it should be: `field` names it.",
    "401": "Nobody knows who asks: send a key or a token.",
    "403": "Who asks may not do this: `permission` says what is missing.",
    "404": "There is no such use case, version or run.",
    "409": "It cannot be done as things are; what Dagster refuses is in its own words.",
    "413": "Too many bytes.",
    "415": "The body is in a form that is not read: send JSON, as it is or packed with gzip.",
    "422": "This Idempotency-Key came with other parameters before.",
    "429": "This caller asks too often; Retry-After says when to ask again.",
    "502": "Dagster failed.",
    "503": "Dagster or MLflow is away, or busy; Retry-After says when to ask again.",
    "507": "The answer could not be stored.",
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
        "by": {"type": ["string", "null"]},
        "reason": {"type": ["string", "null"]},
        "created_at": {"type": ["string", "null"]},
        "ended_at": {"type": ["string", "null"]},
        "failures": {"type": "array", "items": {"type": "string"}},
    },
}
LINKS = {
    "type": "object",
    "required": ["self", "dagster"],
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
RUN_ID = {
    "name": "run",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "As `run.id` says, and `Location`.",
}


def _problems() -> dict[str, Any]:
    return {code: {"description": said, "content": PROBLEM} for code, said in PROBLEMS.items()}


def _answers(said: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": said, "content": {JSON: {"schema": schema}}}


RUN_PATHS: Mapping[str, Any] = {
    "/control/runs/{run}": {
        "parameters": [RUN_ID],
        "get": {
            "summary": "How far a run is",
            "tags": ["control"],
            "responses": {"200": _answers("As it is now", LOOK), **_problems()},
        },
        "delete": {
            "summary": "End a run",
            "tags": ["control"],
            "responses": {
                "200": _answers("It is over", LOOK),
                "202": _answers("It is being ended", LOOK),
                **_problems(),
            },
        },
    }
}


def control_paths(use_case: UseCase) -> dict[str, Any]:
    """Paths of one use case, with parameters that its calendar has."""
    return {
        f"/control/{use_case.name}/{name}": {"post": _deed(use_case, name, kind)}
        for name, kind in DEEDS.items()
    }


def _deed(use_case: UseCase, name: str, kind: type[msgspec.Struct]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([kind])
    location = {"description": "Where to look at it.", "schema": {"type": "string"}}
    answers: dict[str, Any] = {"200": _answers("Decided, or nothing to do", DONE)}
    if name not in {"approve", "reject"}:
        answers["202"] = {
            **_answers("It is under way", LOOK),
            "headers": {"Location": location},
        }
    body = {"schema": components[kind.__name__], "example": _example(use_case, name)}
    return {
        "summary": f"{SUMMARIES[name]}: {use_case.name}",
        "tags": [use_case.name, "control"],
        "parameters": [KEY],
        "requestBody": {"required": name in {"approve", "reject", "rollback"},
                        "content": {JSON: body}},
        "responses": {**answers, **_problems()},
    }  # fmt: skip


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
            return {"reason": "it predicts too many delays", "dry_run": True}
        case _:
            return {"version": 3, "reason": "looked at the segments"}
