"""The service described in OpenAPI 3.1: every use case with its own columns and an example."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_platform.serving.http.paths import (
    PROBLEM,
    Group,
    Paths,
    Served,
    control_paths,
    feedback_paths,
    inference_paths,
    invocation_paths,
    monitoring_paths,
    pipeline_paths,
    plain_paths,
)
from ml_platform.serving.http.paths.operations import PROBLEMS, problem_answer
from ml_platform.serving.versions.live import LiveVersions

GROUPS: tuple[Group, ...] = (
    plain_paths,
    inference_paths,
    invocation_paths,
    feedback_paths,
    monitoring_paths,
    control_paths,
    pipeline_paths,
)
"""Whoever adds paths adds a function that describes them."""
SCHEMES: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or a token of a login."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
OF_CALLERS = (401, 403, 503)
"""What becomes of those who do not say who they are, or may not do what they ask."""


def describe(
    live: LiveVersions, names: Iterable[str], *, authentication: bool = False
) -> dict[str, Any]:
    """The document, of the versions of some use cases that serve now.

    authentication: whether callers have to say who they are.
    """
    served = Served([live.of(name) for name in names], is_only_one=len(live.names) == 1)
    paths: Paths = {}
    for group in GROUPS:
        paths |= group(served)
    for path, methods in paths.items():
        for method, described in methods.items():
            described["operationId"] = _operation_id(method, path)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Predictions",
            "version": "1",
            "description": "Predictions by key, by the Open Inference Protocol v2 and by MLflow's "
            "scoring protocol; feedback, reviews and monitoring.",
        },
        "paths": paths,
        "components": {"schemas": {"Problem": PROBLEM}},
    }
    if authentication:
        document["components"]["securitySchemes"] = dict(SCHEMES)
        document["security"] = [{name: []} for name in SCHEMES]
        _ask_callers(paths)
    return document


def _operation_id(method: str, path: str) -> str:
    """What clients that are generated call an operation.

    >>> _operation_id("post", "/v2/models/flight_delays/versions/{version}/infer")
    'post_v2_models_flight_delays_versions_version_infer'
    """
    return "_".join([method, *(re.findall(r"\w+", path) or ["root"])])


def _ask_callers(paths: Paths) -> None:
    for operation in (each for methods in paths.values() for each in methods.values()):
        if "security" not in operation:
            for status in OF_CALLERS:
                answered = problem_answer(status, PROBLEMS[status])
                operation["responses"].setdefault(str(status), answered)
