"""Paths of published pipelines: which there are, and starting one."""

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ml_platform.access import Caller
from ml_platform.errors import NotServed
from ml_platform.serving.control import RunPipeline, control_request, read
from ml_platform.serving.control.parameter_schema import schema_of
from ml_platform.serving.control.pipelines import PipelineList
from ml_platform.serving.http.answers import as_json
from ml_platform.serving.http.bodies import read_body
from ml_platform.serving.http.control import (
    KEY,
    SAID,
    UNDER_WAY,
    ControlPaths,
    answered,
    key_of,
    newest_key,
)
from ml_platform.serving.http.endpoints import (
    Answer,
    Body,
    Need,
    Parameter,
    PathSubject,
    Schema,
    endpoint,
)
from ml_platform.spec.use_case import UseCase

PIPELINES = "/control/{use_case}/pipelines"
STARTED = f"{PIPELINES}/{{pipeline}}/runs"
STARTED_AT = f"{PIPELINES}/{{pipeline}}/versions/{{version}}/runs"
TAG = "pipelines"
SHORTEST_VERSION = 7
"""Characters of the beginning of a commit that name it."""
VERSION = Parameter(
    "version", {"type": "string", "minLength": 1, "maxLength": 200},
    f"A commit, or the first {SHORTEST_VERSION} characters of it or more.",
    example=lambda of: "3f0c1b526d0e4a539d8b0a4c5f0f7a113f0c1b52",
)  # fmt: skip
OF_PIPELINES = {
    **SAID,
    404: "There is no such use case, pipeline or version; `detail` lists those that there are.",
    422: "A parameter is not declared, or its value is ruled out: `field` names it. Or this "
    "Idempotency-Key came with other parameters before.",
}


def _given(of: PathSubject) -> Schema:
    pipeline = of.case.published_pipelines[of.pipeline]
    return {"parameters": schema_of(of.case, pipeline)}


def _example(of: PathSubject) -> Any:
    key = newest_key(of.case)
    is_training = of.case.published_pipelines[of.pipeline].run == "train"
    times = {"cutoff": key} if is_training else {"from": key, "to": key}
    return {"parameters": times, "reason": "the monthly run"}


START: dict[str, Any] = {
    "body": Body(RunPipeline, _example, _given, required=False),
    "answers": UNDER_WAY,
    "problems": OF_PIPELINES,
    "tag": TAG,
}


@dataclass(frozen=True)
class PipelinePaths:
    """Handlers of the paths, beside those of control."""

    around: ControlPaths

    @endpoint(
        "GET", PIPELINES,
        needs=Need("read"),
        summary="Pipelines that can be started, and their versions",
        answers={200: Answer(PipelineList, "As they are now")},
        problems=OF_PIPELINES,
        tag=TAG,
    )  # fmt: skip
    async def listed(self, request: Request) -> Response:
        """Pipelines of a use case, their parameters, and the versions that can be run."""
        pipelines = self.around.control.pipelines
        return as_json(await self.around.aside(pipelines.listed, self._case(request)))

    @endpoint(
        "POST",
        STARTED,
        needs=Need("launch"),
        summary="Start a pipeline",
        parameters=(KEY,),
        **START,
    )
    @endpoint(
        "POST", STARTED_AT,
        needs=Need("launch"),
        summary="Start a pipeline by a version of its code",
        parameters=(VERSION, KEY),
        **START,
    )  # fmt: skip
    async def start(self, request: Request) -> Response:
        """Start a run."""
        case, name = self._case(request), request.path_params["pipeline"]
        version = request.path_params.get("version")
        if version is not None and len(version) < SHORTEST_VERSION:
            raise NotServed(
                f"'{version}' names no commit; give {SHORTEST_VERSION} characters of it at least"
            )
        asked = read(await read_body(request, self.around.settings), RunPipeline)
        caller: Caller = request.scope["caller"]
        # A repeat of Azure Data Factory has another address to be called.
        same = msgspec.structs.replace(asked, callBackUri=None)
        parsed = control_request(case, caller, request.scope["path"], key_of(request), same)
        pipelines = self.around.control.pipelines
        return answered(await self.around.aside(pipelines.run, parsed, name, version, asked))

    def _case(self, request: Request) -> UseCase:
        return self.around.live.of(request.path_params["use_case"]).use_case
