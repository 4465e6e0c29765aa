"""What the log holds of an HTTP request, and what its answer says of the log."""

from collections.abc import Iterator
from contextlib import contextmanager

from ml_platform.serving.batch_prediction import Answer
from ml_platform.serving.calls import Call
from ml_platform.serving.service import Service


@contextmanager
def calling(service: Service, protocol: str, name: str) -> Iterator[Call]:
    """A request for predictions of a use case; should it fail in this context, that is kept."""
    call = Call.begin(protocol)
    with service.records.requests.watching(name, call, lambda: service.version_of(name)):
        yield call


def named(answer: Answer) -> dict[str, str]:
    """A header with the id of the first prediction, which ends in `-0`.

    The prediction of row n ends in its number instead.
    """
    return {"X-Prediction-Id": answer.ids[0]}
