"""Each gRPC request: an id that comes back, a count and a time."""

import time
from typing import Any

import grpc
import structlog

from ml_platform.serving.calls import sound_id
from ml_platform.serving.grpc.around import Around, Behaviour, answer_noting
from ml_platform.serving.grpc.codes import Context
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.tracing import TRACE
from ml_platform.serving.versions.live import LiveVersions

REQUEST_ID = "x-request-id"
PROTOCOL = "oip-grpc"


class Observed(Around):
    """Around every method."""

    def __init__(self, live: LiveVersions, metrics: Metrics) -> None:
        self._live, self._metrics = live, metrics

    def around(self, method: str, inner: Behaviour) -> Behaviour:
        """The behaviour, observed."""

        async def answer(request: Any, context: Context) -> Any:
            started = time.perf_counter()
            request_id = _id_of(context, request)
            if (trace := TRACE.get()) is not None:
                trace.named(request_id)
            name = getattr(request, "model_name", "")
            use_case = name if name in self._live.names else ""
            await context.send_initial_metadata(((REQUEST_ID, request_id),))

            def note(code: grpc.StatusCode) -> None:
                seconds = time.perf_counter() - started
                kind = "" if code is grpc.StatusCode.OK else code.name
                self._metrics.answered(use_case, PROTOCOL, code.name, seconds, kind)

            with structlog.contextvars.bound_contextvars(request_id=request_id):
                return await answer_noting(inner, request, context, note)

        return answer


def _id_of(context: Context, request: Any) -> str:
    """That of the metadata, or else the one that the protocol has in the message."""
    for name, value in context.invocation_metadata() or ():
        if name == REQUEST_ID and isinstance(value, str):
            return sound_id(value)
    return sound_id(getattr(request, "id", None))
