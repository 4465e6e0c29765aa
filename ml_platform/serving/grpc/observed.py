"""Each gRPC request: an id that comes back, a trace, a count and a time."""

import time
from typing import Any

import grpc
import grpc.aio

from ml_platform.serving.calls import sound_id
from ml_platform.serving.grpc.around import Around, Behaviour
from ml_platform.serving.grpc.codes import FAILURES, Context, address_of
from ml_platform.serving.grpc.guard import PUBLIC_METHODS
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.tracing import RequestTrace, Tracing
from ml_platform.serving.tracing import request as request_of
from ml_platform.serving.versions.live import LiveVersions

REQUEST_ID = "x-request-id"
PROTOCOL = "oip-grpc"


class ObservabilityInterceptor(Around):
    """Around every method."""

    def __init__(self, live: LiveVersions, metrics: Metrics, tracing: Tracing | None) -> None:
        self._live, self._metrics, self._tracing = live, metrics, tracing

    def around(self, method: str, inner: Behaviour) -> Behaviour:
        """The behaviour, observed."""
        # What machines look at every few seconds is in no trace.
        tracing = None if method in PUBLIC_METHODS else self._tracing

        async def answer(request: Any, context: Context) -> Any:
            started, code = time.perf_counter(), grpc.StatusCode.INTERNAL
            request_id = _id_of(context, request)
            with request_of(tracing, context.invocation_metadata() or (), request_id) as trace:
                try:
                    await context.send_initial_metadata(((REQUEST_ID, request_id),))
                    answered = await inner(request, context)
                    code = grpc.StatusCode.OK
                    return answered
                except grpc.aio.AbortError:
                    code = context.code()
                    raise
                finally:
                    self._note(request, code, time.perf_counter() - started)
                    if trace is not None:
                        _end(trace, method, code, context)

        return answer

    def _note(self, request: Any, code: grpc.StatusCode, seconds: float) -> None:
        name = getattr(request, "model_name", "")
        use_case = name if name in self._live.names else ""
        kind = "" if code is grpc.StatusCode.OK else code.name
        self._metrics.answered(use_case, PROTOCOL, code.name, seconds, kind)


def _end(trace: RequestTrace, method: str, code: grpc.StatusCode, context: Context) -> None:
    """By OpenTelemetry's conventions for servers of remote procedures."""
    name = method.strip("/")
    attributes = {
        "rpc.system.name": "grpc",
        "rpc.method": name,
        "rpc.response.status_code": code.name,
        "client.address": address_of(context),
    }
    trace.ended(name, attributes, code.name if code in FAILURES else None)


def _id_of(context: Context, request: Any) -> str:
    """That of the metadata, or else the one that the protocol has in the message."""
    for name, value in context.invocation_metadata() or ():
        if name == REQUEST_ID and isinstance(value, str):
            return sound_id(value)
    return sound_id(getattr(request, "id", None))
