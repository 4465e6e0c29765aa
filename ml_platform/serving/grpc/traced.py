"""The span of each gRPC request, by OpenTelemetry's conventions for RPC servers."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from ml_platform.serving.grpc.codes import FAILURES, address_of
from ml_platform.serving.tracing import PARENT, Tracing, fail

NOT_TRACED = ("/ServerLive", "/ServerReady")
"""What machines look at every few seconds."""


class Traced(grpc.aio.ServerInterceptor):
    """Around every method, where there is tracing."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler, traced."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or handler.unary_unary is None or method.endswith(NOT_TRACED):
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._around(method.strip("/"), handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _around(
        self, method: str, inner: Callable[[Any, Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Any]:
        async def answer(request: Any, context: Any) -> Any:
            metadata = context.invocation_metadata() or ()
            parent = {name: value for name, value in metadata if name in PARENT}
            code = grpc.StatusCode.INTERNAL
            with self._tracing.request(method, parent) as span:
                try:
                    answered = await inner(request, context)
                    code = grpc.StatusCode.OK
                    return answered
                except grpc.aio.AbortError:
                    code = context.code()
                    raise
                finally:
                    span.set_attributes(
                        {
                            "rpc.system.name": "grpc",
                            "rpc.method": method,
                            "rpc.response.status_code": code.name,
                            "client.address": address_of(context),
                        }
                    )
                    if code in FAILURES:
                        fail(span, code.name)

        return answer
