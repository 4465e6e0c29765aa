"""Each HTTP request: an id that comes back, a trace, a count, a time, and a line of the log."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from ml_platform.serving.calls import sound_id
from ml_platform.serving.draining import DRAINING
from ml_platform.serving.http.traced import NOT_TRACED, describe
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.tracing import RequestTrace, Tracing, request
from ml_platform.serving.versions.live import LiveVersions
from ml_platform.settings import ServingSettings

REQUEST_ID = b"x-request-id"
PROTOCOLS = (
    ("/v2/", "oip-http"), ("/invocations", "mlflow"), ("/mlflow/", "mlflow"),
    ("/endpoints/", "mlflow"),
    ("/predict/", "plain"), ("/feedback/", "feedback"), ("/review/", "review"),
    ("/control/", "control"),
)  # fmt: skip
FAILED = 500


class ObservabilityMiddleware:
    """Middleware around everything else."""

    def __init__(
        self,
        app: ASGIApp,
        live: LiveVersions,
        metrics: Metrics,
        log: FilteringBoundLogger,
        tracing: Tracing | None,
        settings: ServingSettings,
    ) -> None:
        self._app, self._live = app, live
        self._metrics, self._log, self._tracing = metrics, log, tracing
        self._all = settings.log_requests == "all"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _id_of(scope)
        status, failure = FAILED, ""
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                headers.append((REQUEST_ID, request_id))
                if DRAINING.is_set():
                    # So that the next request goes to another process.
                    headers.append((b"connection", b"close"))
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id.decode()
        tracing = None if scope["path"] in NOT_TRACED else self._tracing
        with request(tracing, _headers(scope), request_id.decode()) as trace:
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                failure = type(error).__name__
                self._log.exception("request_failed", path=scope["path"][:200])
                raise
            finally:
                self._note(scope, status, time.perf_counter() - started)
                if trace is not None:
                    _end(trace, scope, status, failure)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        use_case, protocol = self._use_case(scope), protocol_of(scope["path"])
        kind = scope["state"].get("error_kind", "")
        if status >= 400:
            kind = kind or (f"http {status}" if status != FAILED else "unexpected")
        self._metrics.answered(use_case, protocol, str(status), seconds, kind)
        if self._all or status >= FAILED:
            log = self._log.error if status >= FAILED else self._log.info
            log(
                "request", method=scope["method"], path=scope["path"][:200], status=status,
                use_case=use_case, seconds=round(seconds, 6), error=kind or None,
            )  # fmt: skip

    def _use_case(self, scope: Scope) -> str:
        """A name that is served, or nothing: callers must not be able to make up new labels."""
        names = self._live.names
        given: Mapping[str, Any] = scope.get("path_params", {})
        name = given.get("model", given.get("use_case"))
        if name is None and scope["path"] == "/invocations" and len(names) == 1:
            return names[0]
        return str(name) if name in names else ""


def _end(trace: RequestTrace, scope: Scope, status: int, failure: str) -> None:
    failure = failure or scope["state"].get("error_kind") or str(status)
    trace.ended(*describe(scope, status), failure if status >= FAILED else None)


def _headers(scope: Scope) -> Iterator[tuple[str, str]]:
    return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])


def _id_of(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == REQUEST_ID:
            return sound_id(value.decode("latin-1")).encode()
    return sound_id(None).encode()


def protocol_of(path: str) -> str:
    """What metrics and logs call the protocol of a path."""
    return next((name for start, name in PROTOCOLS if path.startswith(start)), "other")
