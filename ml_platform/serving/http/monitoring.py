"""What those who run the service look at: health, metrics, the same facts as JSON."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ml_platform.serving.draining import DRAINING
from ml_platform.serving.facts import FactReader
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.service import Service


@dataclass(frozen=True)
class Monitoring:
    """Handlers of the paths of monitoring."""

    service: Service
    metrics: Metrics
    facts: FactReader

    def routes(self) -> list[Route]:
        """Paths and their handlers."""
        return [
            Route("/metrics", self.page),
            Route("/health/live", self.live),
            Route("/health/ready", self.ready),
            Route("/status", self.status),
            Route("/status/{model}", self.status_of),
        ]

    async def page(self, request: Request) -> Response:
        """Everything for Prometheus."""
        await self.facts.refresh()
        page = await asyncio.to_thread(self.metrics.page, [self.facts])
        return Response(page, headers={"content-type": CONTENT_TYPE_LATEST})

    async def live(self, request: Request) -> Response:
        """Whether the process answers."""
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether every use case that has a champion is served, and will be for a while."""
        waiting = self.service.live.waiting
        ready = not waiting and not DRAINING.is_set()
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        # Anybody may ask this: how many, and not which ones, which `/status` says.
        return _json({"ready": ready, "not_served": len(waiting)}, status)

    async def status(self, request: Request) -> Response:
        """All use cases that the caller may read of."""
        await self.facts.refresh()
        readable = request.scope["caller"].those_where("read", self.service.live.names)
        return _json(self.facts.documents(readable))

    async def status_of(self, request: Request) -> Response:
        """One use case."""
        name = request.path_params["model"]
        self.service.live.of(name)
        await self.facts.refresh()
        return _json(self.facts.document(name))


def _json(document: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
