"""What the log tells of an HTTP request, and what its answer tells of the log."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from ml_platform.serving.calls import Call
from ml_platform.serving.service import Answer, Service


@contextmanager
def calling(service: Service, request: Request, protocol: str, name: str) -> Iterator[Call]:
    """A request for predictions of a use case; should it fail in this context, that is kept."""
    call = Call.begin(protocol, request.headers.get("x-request-id"), caller_of(request))
    with service.records.requests.watching(name, call, lambda: service.version_of(name)):
        yield call


def known_caller(request: Request) -> str | None:
    """Whom the service has found the caller to be, if it asks who calls."""
    known: str | None = getattr(request.state, "caller", None)
    return known


def caller_of(request: Request) -> str | None:
    """Who asks: whom the service knows them to be, or else the address that they ask from."""
    return known_caller(request) or (request.client.host if request.client else None)


def named(call: Call, answer: Answer) -> dict[str, str]:
    """Headers: the id of the request, and that of its first prediction, which ends in `-0`.

    The prediction of row n ends in its number instead.
    """
    return {"X-Request-Id": call.request_id, "X-Prediction-Id": answer.ids[0]}
