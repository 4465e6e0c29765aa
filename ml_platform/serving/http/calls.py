"""What the log holds of an HTTP request, and what its answer says of the log."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from ml_platform.serving.batch_prediction import Predictions
from ml_platform.serving.calls import Call
from ml_platform.serving.http.bodies import declared_bytes, read_body
from ml_platform.serving.service import Service


@contextmanager
def calling(service: Service, protocol: str, name: str) -> Iterator[Call]:
    """A request for predictions of a use case; should it fail in this context, that is kept."""
    call = Call.begin(protocol)
    with service.records.requests.watching(name, call, lambda: service.version_of(name)):
        yield call


async def read_rows(service: Service, request: Request) -> bytes:
    """The body of a request for predictions, when it is its turn to be parsed.

    Raises Overloaded where that would be too late by now, and what `read_body` raises.
    """
    with service.parse_queue.arriving(declared_bytes(request, service.settings)):
        body = await read_body(request, service.settings)
    await service.parse_queue.turn(len(body))
    return body


def named(answer: Predictions) -> dict[str, str]:
    """A header with the id of the first prediction, which ends in `-0`.

    The prediction of row n ends in its number instead.
    """
    return {"X-Prediction-Id": answer.ids[0]}
