"""Published pipelines as openapi.json describes them, each with the parameters that it declares."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ml_platform.backfill.upkeep import newest_complete
from ml_platform.serving.control.asked import REASON_SCHEMA
from ml_platform.serving.control.parameter_schema import schema_of
from ml_platform.serving.http.paths.control import DONE, KEY, LOOK, PROBLEMS, TAG
from ml_platform.serving.http.paths.operations import (
    Paths,
    Served,
    answer,
    in_path,
    json_body,
    operation,
)
from ml_platform.serving.http.pipelines import LISTED, SHORTEST_VERSION, STARTED, STARTED_AT
from ml_platform.spec.pipelines import Pipeline
from ml_platform.spec.use_case import UseCase

OF_PIPELINES = {
    **PROBLEMS,
    404: "There is no such use case, pipeline or version; `detail` lists those that there are.",
    422: "A parameter is not declared, or its value is ruled out: `field` names it. Or this "
    "Idempotency-Key came with other parameters before.",
}
LIST: Mapping[str, Any] = {
    "type": "object",
    "required": ["pipelines", "versions"],
    "properties": {
        "pipelines": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "run", "parameters"],
                "properties": {
                    "name": {"type": "string"},
                    "run": {"type": "string", "enum": ["train", "score", "backfill"]},
                    "description": {"type": "string"},
                    "parameters": {"type": "object", "description": "JSON Schema."},
                    "callbacks": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
        "versions": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["version", "is_current", "code_location", "pipelines"],
                "properties": {
                    "version": {"type": ["string", "null"], "description": "A commit of git."},
                    "is_current": {"type": "boolean"},
                    "code_location": {"type": "string"},
                    "pipelines": {
                        "type": "object",
                        "description": "By name, the parameters as JSON Schema.",
                        "additionalProperties": {"type": "object"},
                    },
                },
            },
        },
    },
}
EXAMPLE_VERSION = "3f0c1b526d0e4a539d8b0a4c5f0f7a113f0c1b52"


def pipeline_paths(served: Served) -> Paths:
    """`/control/{use_case}/pipelines` and what is below, for each pipeline by its name."""
    paths: Paths = {}
    for live in served.lives:
        case = live.use_case
        paths[_path(LISTED, case)] = {
            "get": operation(
                f"Pipelines that can be started, and their versions: {case.name}",
                {200: answer(LIST, description="As they are now")},
                problems=OF_PIPELINES,
                tags=[case.name, TAG],
            )
        }
        for name, pipeline in case.published_pipelines.items():
            paths[_path(STARTED, case, name)] = {"post": _start(case, name, pipeline)}
            paths[_path(STARTED_AT, case, name)] = {
                "post": _start(case, name, pipeline, at_version=True)
            }
    return paths


def _start(
    case: UseCase, name: str, pipeline: Pipeline, *, at_version: bool = False
) -> dict[str, Any]:
    said = pipeline.description or f"A run of the pipeline {name}"
    version = in_path(
        "version", f"A commit, or the first {SHORTEST_VERSION} characters of it or more.",
        EXAMPLE_VERSION,
    )  # fmt: skip
    return operation(
        f"{said.rstrip('.')}: {case.name}" + (", by a version of its code" if at_version else ""),
        {
            200: answer(DONE, description="Nothing to do"),
            202: answer(LOOK, description="It is under way", headers=["Location"]),
        },
        problems=OF_PIPELINES,
        body={**json_body(_body(case, pipeline), _example(case, pipeline)), "required": False},
        parameters=[*([version] if at_version else []), KEY],
        tags=[case.name, TAG],
    )


def _body(case: UseCase, pipeline: Pipeline) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "parameters": schema_of(case, pipeline),
            "reason": {**REASON_SCHEMA, "type": ["string", "null"]},
            "callbacks": {
                "type": "array",
                "maxItems": 10,
                "items": {"type": "string", "minLength": 1, "maxLength": 100},
                "description": "Registered receivers that are told when the run has ended, by "
                "name; besides those that the pipeline names itself.",
            },
            "callBackUri": {
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": 4000,
                "description": "Address that is told when the run has ended, if the service "
                "permits addresses of its kind; Azure Data Factory's Webhook activity adds it.",
            },
        },
    }


def _example(case: UseCase, pipeline: Pipeline) -> dict[str, Any]:
    calendar = case.calendar
    key = calendar.key(
        newest_complete(case, datetime.now(UTC)) or calendar.window_at(calendar.start)
    )
    times = {"cutoff": key} if pipeline.run == "train" else {"from": key, "to": key}
    return {"parameters": times, "reason": "the monthly run"}


def _path(template: str, case: UseCase, pipeline: str = "") -> str:
    return template.replace("{use_case}", case.name).replace("{pipeline}", pipeline)
