"""Each gRPC request: an id that comes back, a count and a time."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import structlog

from ml_platform.serving.calls import sound_id
from ml_platform.serving.live import LiveVersions
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.tracing import TRACE

REQUEST_ID = "x-request-id"
PROTOCOL = "oip-grpc"


class Observed(grpc.aio.ServerInterceptor):
    """Around every method."""

    def __init__(self, live: LiveVersions, metrics: Metrics) -> None:
        self._live, self._metrics = live, metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler, observed."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._around(handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _around(self, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Any]:
        async def answer(request: Any, context: Any) -> Any:
            started = time.perf_counter()
            request_id = _id_of(context, request)
            if (trace := TRACE.get()) is not None:
                trace.named(request_id)
            name = getattr(request, "model_name", "")
            use_case = name if name in self._live.names else ""
            await context.send_initial_metadata(((REQUEST_ID, request_id),))
            code = grpc.StatusCode.INTERNAL
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                try:
                    answered = await inner(request, context)
                    code = grpc.StatusCode.OK
                    return answered
                except grpc.aio.AbortError:
                    code = context.code()
                    raise
                finally:
                    seconds = time.perf_counter() - started
                    kind = "" if code is grpc.StatusCode.OK else code.name
                    self._metrics.answered(use_case, PROTOCOL, code.name, seconds, kind)

        return answer


def _id_of(context: Any, request: Any) -> str:
    """That of the metadata, or else the one that the protocol has in the message."""
    for name, value in context.invocation_metadata() or ():
        if name == REQUEST_ID and isinstance(value, str):
            return sound_id(value)
    return sound_id(getattr(request, "id", None))
