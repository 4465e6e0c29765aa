"""Health by gRPC's own protocol, `grpc.health.v1`, as probes and balancers ask for it.

Of grpcio-health-checking the messages and the service are used, not its servicer for asyncio: there
whoever watches gets nothing more once another one who watched the same service has gone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
from grpc_health.v1 import health_pb2

from ml_platform.serving.grpc.codes import Context

Status = health_pb2.HealthCheckResponse.ServingStatus
LOOK_SECONDS = 0.25
"""How soon those who watch are updated."""


class HealthService:
    """Whether requests are answered; the server as a whole is the service without a name."""

    def __init__(self, services: tuple[str, ...], is_ready: Callable[[], bool]) -> None:
        self._services, self._is_ready = {"", *services}, is_ready

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """The status now; NOT_FOUND of a service that there is not."""
        status = self._status(request.service)
        if status == Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now, and each that follows."""
        sent = None
        while True:
            status = self._status(request.service)
            if status != sent:
                yield health_pb2.HealthCheckResponse(status=status)
                sent = status
            await asyncio.sleep(LOOK_SECONDS)

    def _status(self, service: str) -> "health_pb2.HealthCheckResponse.ServingStatus":
        if service not in self._services:
            return Status.SERVICE_UNKNOWN
        return Status.SERVING if self._is_ready() else Status.NOT_SERVING
