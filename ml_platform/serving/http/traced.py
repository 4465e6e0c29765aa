"""The span of each HTTP request, by OpenTelemetry's conventions for HTTP servers."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_platform.serving.http.guard import PUBLIC_PATHS
from ml_platform.serving.tracing import PARENT, Tracing, fail

NOT_TRACED = PUBLIC_PATHS | {"/metrics"}
"""What machines look at every few seconds."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"})
OTHER = "_OTHER"
"""What a method that nobody knows is called: callers must not be able to make up names."""
FAILED = 500


class Traced:
    """Middleware around everything else, where there is tracing."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app, self._tracing = app, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in NOT_TRACED:
            await self._app(scope, receive, send)
            return
        status = FAILED

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"] if scope["method"] in METHODS else OTHER
        error: str | None = None
        state = scope.setdefault("state", {})
        with self._tracing.request("HTTP" if method == OTHER else method, _parent(scope)) as span:
            try:
                await self._app(scope, receive, send_noted)
            except Exception as failure:
                error = type(failure).__name__
                raise
            finally:
                span.set_attributes(
                    {
                        "http.request.method": method,
                        "http.response.status_code": status,
                        "network.protocol.version": scope.get("http_version", "1.1"),
                        "url.path": scope["path"][:200],
                        "url.scheme": scope["scheme"],
                    }
                )
                if client := scope.get("client"):
                    span.set_attribute("client.address", client[0])
                if route := state.get("route"):
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)
                if status >= FAILED:
                    fail(span, error or state.get("error_kind") or str(status))


def _parent(scope: Scope) -> dict[str, str]:
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name.decode("latin-1") in PARENT
    }
