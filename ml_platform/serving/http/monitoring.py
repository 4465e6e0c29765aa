"""What those who run the service look at: health, metrics, the same facts as JSON."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, TypedDict

from msgspec import Meta, Struct
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from ml_platform.serving.draining import DRAINING
from ml_platform.serving.facts import FactReader, Status
from ml_platform.serving.http.answers import as_json
from ml_platform.serving.http.endpoints import PUBLIC, TEXT, Answer, Need, endpoint
from ml_platform.serving.http.problems import said_of
from ml_platform.serving.http.tensors import Liveness
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.service import Service


class AllReady(Struct, frozen=True):
    """Whether every use case that has a champion is served."""

    ready: bool
    not_served: Annotated[int, Meta(description="Use cases that should be served and are not.")]


class Statuses(TypedDict):
    """All use cases that the caller may read of."""

    use_cases: dict[str, Status]


TAG = "operations"


@dataclass(frozen=True)
class MonitoringPaths:
    """Handlers of the paths of monitoring."""

    service: Service
    metrics: Metrics
    facts: FactReader

    @endpoint(
        "GET", "/metrics",
        needs=Need("read", "all"),
        summary="Everything for Prometheus",
        answers={200: Answer(str, media=(TEXT,))},
        tag=TAG,
    )  # fmt: skip
    async def page(self, request: Request) -> Response:
        """Everything for Prometheus."""
        await self.facts.refresh()
        page = await asyncio.to_thread(self.metrics.page, [self.facts])
        return Response(page, headers={"content-type": CONTENT_TYPE_LATEST})

    @endpoint(
        "GET", "/health/live",
        needs=PUBLIC,
        is_health=True,
        summary="Whether the process answers",
        answers={200: Answer(Liveness)},
        tag=TAG,
    )  # fmt: skip
    async def live(self, request: Request) -> Response:
        """Whether the process answers."""
        return as_json(Liveness(True))

    @endpoint(
        "GET", "/health/ready",
        needs=PUBLIC,
        is_health=True,
        summary="Whether every use case that has a champion is served",
        answers={
            200: Answer(AllReady),
            503: Answer(AllReady, "Some use cases that have a champion are not served."),
        },
        tag=TAG,
    )  # fmt: skip
    async def ready(self, request: Request) -> Response:
        """Whether every use case that has a champion is served, and will be for a while."""
        waiting = self.service.live.waiting
        ready = not waiting and not DRAINING.is_set()
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        # Anybody may ask this: how many, and not which ones, which `/status` says.
        return as_json(AllReady(ready, len(waiting)), status)

    @endpoint(
        "GET", "/status",
        needs=Need("read", "some"),
        summary="What is known of all use cases",
        answers={200: Answer(Statuses)},
        tag=TAG,
    )  # fmt: skip
    async def status(self, request: Request) -> Response:
        """All use cases that the caller may read of."""
        await self.facts.refresh()
        readable = request.scope["caller"].those_where("read", self.service.live.names)
        statuses: Statuses = {"use_cases": {name: self.facts.status(name) for name in readable}}
        return as_json(statuses)

    @endpoint(
        "GET", "/status/{use_case}",
        needs=Need("read"),
        summary="What is known of a use case",
        tag=TAG,
        answers={200: Answer(Status)},
        problems=said_of(404),
    )  # fmt: skip
    async def status_of(self, request: Request) -> Response:
        """One use case."""
        name = request.path_params["use_case"]
        self.service.live.of(name)
        await self.facts.refresh()
        return as_json(self.facts.status(name))
