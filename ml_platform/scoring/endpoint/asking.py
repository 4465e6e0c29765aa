"""Asks an endpoint for the rows of a batch, several requests at a time."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np

from ml_platform.errors import EndpointRefused, EndpointUnavailable, PlatformError
from ml_platform.masking import masked
from ml_platform.scoring.endpoint.answers import Answered, Asker, RowChunk
from ml_platform.scoring.endpoint.breaker import Breaker
from ml_platform.scoring.endpoint.http import Sender
from ml_platform.scoring.endpoint.kept import KeptAnswers, key_of
from ml_platform.scoring.endpoint.mlflow import MlflowAsker
from ml_platform.scoring.endpoint.oip import OipAsker
from ml_platform.scoring.endpoint.tls import context_of, files_of
from ml_platform.settings import EndpointSettings, Settings
from ml_platform.spec.scoring import Scorer
from ml_platform.spec.use_case import UseCase


class EndpointClient:
    """The endpoint of a use case, for one batch."""

    def __init__(self, use_case: UseCase, scorer: Scorer, settings: Settings, asker: Asker) -> None:
        self._use_case, self._scorer, self._settings = use_case, scorer, settings
        self._asker = asker
        self._kept = KeptAnswers(settings.root / "endpoint_answers" / f"{use_case.name}.sqlite")
        self._breaker = Breaker(settings.server_wait_seconds)
        self._unserved: set[int] = set()
        self._keys: list[str] = []
        self._cause: PlatformError | None = None
        self._lock, self._ended = threading.Lock(), threading.Event()

    def close(self) -> None:
        """Close connections and files."""
        self._asker.close()
        self._kept.close()

    @property
    def where(self) -> str:
        """Its address, without a password."""
        return masked(self._asker.where, self._settings)

    def ask(self, chunks: Sequence[RowChunk]) -> list[Answered | None]:
        """What the endpoint answers for each chunk, in order.

        None where another version answers than the one that has to; its other chunks are not
        asked for then. Raises EndpointUnavailable or EndpointRefused; what was answered is kept.
        """
        with ThreadPoolExecutor(self._scorer.concurrency, "endpoint") as threads:
            asked = [threads.submit(self._ask, chunk) for chunk in chunks]
            try:
                return [each.result() for each in asked]
            except BaseException as error:
                for each in asked:
                    each.cancel()
                self._stop()
                # The first chunk that failed may only have been cancelled.
                raise self._cause or error from None

    def forget(self) -> None:
        """Forget the answers to what was asked here: they are written."""
        self._kept.forget(self._keys)

    def _ask(self, chunk: RowChunk) -> Answered | None:
        if chunk.champion in self._unserved:
            return None
        try:
            answered = self._answer(chunk)
        except EndpointUnavailable as error:
            raise self._failed(
                EndpointUnavailable(self._described(chunk, error), is_final=True)
            ) from error
        except EndpointRefused as error:
            raise self._failed(type(error)(self._described(chunk, error))) from error
        if chunk.champion is not None and answered.version != chunk.champion:
            self._unserved.add(chunk.champion)
            return None
        return answered

    def _answer(self, chunk: RowChunk) -> Answered:
        body = self._asker.pack(chunk.rows)
        key = key_of(self._asker.where, body)
        found = self._kept.find(key)
        # Versions change: what was answered by one that may not answer any more is asked again.
        if found is None or (chunk.champion is not None and found.version != chunk.champion):
            began = time.monotonic()
            found = self._breaker(lambda: self._checked(chunk, self._asker.ask(body)))
            self._kept.keep(key, found)
            self._pause(time.monotonic() - began)
        with self._lock:
            self._keys.append(key)
        return found

    def _failed(self, error: PlatformError) -> PlatformError:
        with self._lock:
            self._cause = self._cause or error
        self._stop()
        return error

    def _stop(self) -> None:
        self._breaker.stop()
        self._ended.set()

    def _pause(self, took_seconds: float) -> None:
        """Leave the server to others for as long as the declared share asks for."""
        share = self._scorer.share
        if share < 1:
            self._ended.wait(took_seconds * (1 - share) / share)

    def _checked(self, chunk: RowChunk, answered: Answered) -> Answered:
        if len(answered.values.shape) < 1 or len(answered.values) != len(chunk.rows):
            raise EndpointRefused(
                f"the answer has shape {list(answered.values.shape)} for {len(chunk.rows)} rows"
            )
        if not np.isfinite(answered.values).all():
            raise EndpointRefused("the answer holds something that is not a finite number")
        version = answered.version or self._scorer.version
        if version is None:
            called = f", but '{answered.called}'" if answered.called else ""
            raise EndpointRefused(
                f"the answer names no version by a whole number{called}; declare `scorer.version`"
            )
        return Answered(answered.values, version)

    def _described(self, chunk: RowChunk, error: Exception) -> str:
        calendar = self._use_case.calendar
        last = chunk.first + len(chunk.rows) - 1
        text = (
            f"{self._use_case.name}: {self._asker.where}, asked for rows {chunk.first} to {last} "
            f"of {calendar.key(chunk.window)}: {error}"
        )
        return masked(text, self._settings)


@contextmanager
def open_endpoint(
    use_case: UseCase, scorer: Scorer, settings: Settings
) -> Iterator[EndpointClient]:
    """The endpoint that a use case declares, at the address that the settings know it by."""
    known = settings.endpoints.get(use_case.name, EndpointSettings())
    url = scorer.url if known.url is None else known.url.rstrip("/")
    endpoint = EndpointClient(use_case, scorer, settings, _asker(use_case, scorer, url, known))
    try:
        yield endpoint
    finally:
        endpoint.close()


def _asker(use_case: UseCase, scorer: Scorer, url: str, known: EndpointSettings) -> Asker:
    headers = {name: value.get_secret_value() for name, value in known.headers.items()}
    model = scorer.model or use_case.name
    output = scorer.output or list(use_case.prediction_columns)[-1]
    if urlsplit(url).scheme.startswith("grpc"):
        from ml_platform.scoring.endpoint.grpc import GrpcAsker

        return GrpcAsker(url, model, output, headers, scorer.timeout_seconds, files_of(known))
    sender = Sender(headers, scorer.timeout_seconds, scorer.concurrency, context_of(known))
    if scorer.protocol == "mlflow":
        return MlflowAsker(url, sender)
    return OipAsker(url, model, output, sender)
