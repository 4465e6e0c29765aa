"""What every protocol calls: rows of a use case in, predictions of the version that serves out."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import PlatformError, RequestTooLarge
from ml_platform.registry import ModelVersion, predict
from ml_platform.serving.batches import Batches
from ml_platform.serving.inputs import Inputs, Values, check_columns
from ml_platform.serving.live import LiveVersions
from ml_platform.settings import ServingSettings
from ml_platform.spec.use_case import UseCase

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Answer:
    """Predictions of one request."""

    use_case: UseCase
    model: ModelVersion
    columns: Columns
    """Prediction columns, n values each."""
    rows: int


@dataclass(frozen=True)
class _Asked:
    use_case: UseCase
    model: ModelVersion
    inputs: Inputs


class Service:
    """Predicts for all use cases of a deployment; lives in one event loop."""

    def __init__(self, live: LiveVersions, settings: ServingSettings) -> None:
        self.live, self.settings = live, settings
        # One thread: models share a core better one after the other than all at once.
        self._thread = ThreadPoolExecutor(1, "predict", initializer=_use_one_core)
        self._batches: Batches[_Asked, Columns] = Batches(
            _predict_together,
            self._thread,
            most_rows=settings.batch_rows,
            most_waiting=settings.waiting_rows,
        )

    @property
    def rows_waiting(self) -> int:
        return self._batches.rows_waiting

    def close(self) -> None:
        """Let the thread end; what waits is answered first."""
        self._thread.shutdown()

    async def predict(
        self, name: str, columns: Mapping[str, Values], version: str | None = None
    ) -> Answer:
        """Predict rows given as the columns of the model.

        version: only this one may answer. Raises RequestError, ModelRefused.
        """
        live, model = self.live.of(name), self.live.model(name, version)
        longest = max((len(values) for values in columns.values()), default=0)
        if longest > self.settings.most_rows:
            raise RequestTooLarge(
                f"{longest} rows in one request; at most {self.settings.most_rows} are taken, so "
                "send them in parts, or score them as a batch"
            )
        checks = live.use_case.serving.unknown_categories == "refuse"
        inputs = check_columns(model, columns, known_categories=checks)
        asked = _Asked(live.use_case, model, inputs)
        predicted = await self._batches.submit(asked, inputs.rows)
        return Answer(live.use_case, model, predicted, inputs.rows)

    async def follow_promotions(self, every_seconds: float) -> None:
        """Swap versions as they are promoted, until cancelled."""
        while True:
            await asyncio.to_thread(self.live.refresh)
            await asyncio.sleep(every_seconds)


def _use_one_core() -> None:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1)


def _predict_together(asked: Sequence[_Asked]) -> list[Columns | Exception]:
    results: dict[int, Columns | Exception] = {}
    by_version: dict[tuple[str, int], list[int]] = {}
    for index, each in enumerate(asked):
        by_version.setdefault((each.use_case.name, each.model.version), []).append(index)
    for members in by_version.values():
        results |= zip(members, _predict_alike([asked[i] for i in members]), strict=True)
    return [results[index] for index in range(len(asked))]


def _predict_alike(asked: Sequence[_Asked]) -> list[Columns | Exception]:
    case, model = asked[0].use_case, asked[0].model
    inputs = [each.inputs for each in asked]
    frame = (
        inputs[0].frame()
        if len(asked) == 1
        else pd.DataFrame(
            {c: np.concatenate([each.columns[c] for each in inputs]) for c in model.columns}
        )
    )
    try:
        predicted = predict(case, model, frame)
    except PlatformError as error:
        if len(asked) == 1:
            return [error]
        # One request's rows must not fail those of the others.
        return [result for each in asked for result in _predict_alike([each])]
    columns = {name: predicted[name].to_numpy() for name in case.prediction_columns}
    parts: list[Columns | Exception] = []
    first = 0
    for each in inputs:
        last = first + each.rows
        parts.append({name: values[first:last] for name, values in columns.items()})
        first = last
    return parts
