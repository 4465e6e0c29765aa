"""Traces of requests by OpenTelemetry, where a setting says where they go.

Without it nothing of OpenTelemetry is imported, and what a request passes through looks once
whether it has a trace. With it spans are put into a queue that a thread of its own empties: where
the collector is unavailable or slow the queue fills up, and then drops the oldest.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ml_platform.errors import ServingMisconfigured
from ml_platform.settings import ServingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

MOST_SPANS = 4096
"""Spans that wait to be sent; about a thousand requests."""
SENT_TOGETHER = 512
SEND_EVERY_SECONDS = 2.0
SEND_SECONDS = 5.0
"""How long a batch may take to be sent, tries included."""
END_SECONDS = 3.0
"""How long what is left may take to be sent when the service ends."""
PATH = "/v1/traces"
PARENT = ("traceparent", "tracestate")
"""Headers of a caller's trace, W3C Trace Context."""

Attributes = Mapping[str, str | int]
Headers = Iterable[tuple[str, str | bytes]]
"""Names in lower case, and values; of HTTP as of gRPC's metadata."""


@dataclass(frozen=True)
class RequestTrace:
    """A request whose spans are recorded; threads may add to it."""

    _tracer: "Tracer"
    _span: "Span"

    def answered(self, use_case: str, version: int) -> None:
        """Say which model answered."""
        self._span.set_attributes(
            {"ml_platform.use_case": use_case, "ml_platform.model_version": version}
        )

    def ended(self, name: str, attributes: Attributes, failure: str | None) -> None:
        """Say what the request was, by the conventions of its protocol.

        failure: what the service failed at, if it did; a mistake of the caller is none.
        """
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if failure is not None:
            _fail(self._span, failure)

    def add(
        self,
        name: str,
        begun: int,
        ended: int,
        attributes: Attributes,
        error: BaseException | None,
    ) -> None:
        """Add a part of the request; times in nanoseconds since 1970."""
        from opentelemetry.trace import set_span_in_context

        part = self._tracer.start_span(
            name, set_span_in_context(self._span), attributes=attributes, start_time=begun
        )
        if error is not None:
            _fail(part, type(error).__name__)
        part.end(ended)


TRACE: ContextVar[RequestTrace | None] = ContextVar("trace", default=None)
"""The trace of the request that is answered, if it is recorded."""


@contextmanager
def traced(
    name: str, traces: Iterable[RequestTrace | None], rows: int | None = None
) -> Iterator[None]:
    """A span in the trace of each request that this part of the work is done for, if any has one.

    Requests that are answered together each get a span with the times of the whole, and `rows`,
    how many rows that was.
    """
    recorded = [trace for trace in traces if trace is not None]
    attributes = {} if rows is None else {"ml_platform.batch_rows": rows}
    begun, failure = time.time_ns(), None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        ended = time.time_ns()
        for trace in recorded:
            trace.add(name, begun, ended, attributes, failure)


class Tracing:
    """Begins traces, and brings them to the collector; one a process."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("ml_platform.serving")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, headers: Headers, request_id: str) -> Iterator[RequestTrace | None]:
        """As the function `request`."""
        from opentelemetry.trace import SpanKind, format_trace_id

        parent = {name: str(value) for name, value in headers if name in PARENT}
        context = self._propagator.extract(parent)
        span = self._tracer.start_span("request", context, SpanKind.SERVER)
        span.set_attribute("ml_platform.request_id", request_id)
        trace = RequestTrace(self._tracer, span) if span.is_recording() else None
        trace_id = format_trace_id(span.get_span_context().trace_id)
        token = TRACE.set(trace)
        try:
            with structlog.contextvars.bound_contextvars(request_id=request_id, trace_id=trace_id):
                yield trace
        finally:
            TRACE.reset(token)
            span.end()

    def close(self) -> None:
        """Send what is left, as far as that is possible soon."""
        # Not waited for longer: a collector that hangs must not keep the service from ending.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(END_SECONDS)


def request(
    tracing: Tracing | None, headers: Headers, request_id: str
) -> AbstractContextManager[RequestTrace | None]:
    """Around a request of any protocol: enters its trace, where it is recorded.

    headers: the caller's, who may have begun the trace. Lines of the log have the request's id,
    and that of the trace whether it is recorded or not.
    """
    if tracing is None:
        return structlog.contextvars.bound_contextvars(request_id=request_id)
    return tracing.request(headers, request_id)


def _fail(span: "Span", kind: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)


def open_tracing(settings: ServingSettings) -> Tracing | None:
    """Tracing as the settings say, or none; ServingMisconfigured where packages are missing."""
    if settings.otlp_endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise ServingMisconfigured(
            f"ML_PLATFORM_SERVING_OTLP_ENDPOINT is set and {error.name} is not installed: install "
            "the extra `otel`, or leave the setting out"
        ) from None
    # Callers could fill the log with what is wrong with their headers.
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)
    name = os.environ.get("OTEL_SERVICE_NAME", "ml-platform")
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio)),
        resource=Resource.create({"service.name": name}),
        shutdown_on_exit=False,
    )
    base = settings.otlp_endpoint.rstrip("/").removesuffix(PATH)
    provider.add_span_processor(
        BatchSpanProcessor(
            OTLPSpanExporter(endpoint=f"{base}{PATH}", timeout=SEND_SECONDS),
            max_queue_size=MOST_SPANS,
            schedule_delay_millis=SEND_EVERY_SECONDS * 1000,
            max_export_batch_size=SENT_TOGETHER,
        )
    )
    return Tracing(provider)
