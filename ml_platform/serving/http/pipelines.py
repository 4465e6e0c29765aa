"""Paths of published pipelines: which there are, and starting one."""

from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ml_platform.access import Caller
from ml_platform.errors import NotServed
from ml_platform.serving.control import RunPipeline, order_of, read
from ml_platform.serving.http.bodies import read_body
from ml_platform.serving.http.control import ControlPaths, answered, as_json, key_of
from ml_platform.spec.use_case import UseCase

LISTED = "/control/{use_case}/pipelines"
STARTED = "/control/{use_case}/pipelines/{pipeline}/runs"
STARTED_AT = "/control/{use_case}/pipelines/{pipeline}/versions/{version}/runs"
SHORTEST_VERSION = 7
"""Characters of the beginning of a commit that name it."""


@dataclass(frozen=True)
class PipelinePaths:
    """Handlers of the paths, beside those of control."""

    around: ControlPaths

    def routes(self) -> list[Route]:
        """Paths and their handlers."""
        return [
            Route(LISTED, self.listed),
            Route(STARTED, self.start, methods=["POST"]),
            Route(STARTED_AT, self.start, methods=["POST"]),
        ]

    async def listed(self, request: Request) -> Response:
        """Pipelines of a use case, their parameters, and the versions that can be run."""
        pipelines = self.around.control.pipelines
        return as_json(await self.around.aside(pipelines.listed, self._case(request)))

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
        order = order_of(case, caller, request.scope["path"], key_of(request), same)
        pipelines = self.around.control.pipelines
        return answered(await self.around.aside(pipelines.run, order, name, version, asked))

    def _case(self, request: Request) -> UseCase:
        return self.around.live.of(request.path_params["use_case"]).use_case
