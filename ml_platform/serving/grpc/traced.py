"""The span of each gRPC request, by OpenTelemetry's conventions for RPC servers."""

from typing import Any

import grpc

from ml_platform.serving.grpc.around import Around, Behaviour, answer_noting
from ml_platform.serving.grpc.codes import FAILURES, Context, address_of
from ml_platform.serving.tracing import PARENT, Tracing, fail

NOT_TRACED = ("/ServerLive", "/ServerReady")
"""What machines look at every few seconds."""


class Traced(Around):
    """Around every method, where there is tracing."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def around(self, method: str, inner: Behaviour) -> Behaviour:
        """The behaviour, traced."""
        if method.endswith(NOT_TRACED):
            return inner
        name = method.strip("/")

        async def answer(request: Any, context: Context) -> Any:
            metadata = context.invocation_metadata() or ()
            parent = {key: str(value) for key, value in metadata if key in PARENT}
            with self._tracing.request(name, parent) as span:

                def note(code: grpc.StatusCode) -> None:
                    span.set_attributes(
                        {
                            "rpc.system.name": "grpc",
                            "rpc.method": name,
                            "rpc.response.status_code": code.name,
                            "client.address": address_of(context),
                        }
                    )
                    if code in FAILURES:
                        fail(span, code.name)

                return await answer_noting(inner, request, context, note)

        return answer
