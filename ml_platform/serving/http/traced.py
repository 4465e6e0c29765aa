"""What the span of an HTTP request says, by OpenTelemetry's conventions for HTTP servers."""

from starlette.types import Scope

from ml_platform.serving.http.declared import PUBLIC_PATHS

NOT_TRACED = PUBLIC_PATHS | {"/metrics"}
"""What machines look at every few seconds."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"})
OTHER = "_OTHER"
"""What a method that nobody knows is called: callers must not be able to make up names."""


def describe(scope: Scope, status: int) -> tuple[str, dict[str, str | int]]:
    """Name and attributes of a span."""
    method = scope["method"] if scope["method"] in METHODS else OTHER
    attributes = {
        "http.request.method": method,
        "http.response.status_code": status,
        "network.protocol.version": scope.get("http_version", "1.1"),
        "url.path": scope["path"][:200],
        "url.scheme": scope["scheme"],
    }
    if client := scope.get("client"):
        attributes["client.address"] = client[0]
    if route := scope["state"].get("route"):
        return f"{method} {route}", {**attributes, "http.route": route}
    return "HTTP" if method == OTHER else method, attributes
