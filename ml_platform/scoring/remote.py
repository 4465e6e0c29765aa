"""Rows of the prediction table by an endpoint, each with the version that answered."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd

from ml_platform.errors import EndpointDiffers, EndpointRefused, ModelNotFound
from ml_platform.features import split_by_window
from ml_platform.registry import (
    ModelVersion,
    Registry,
    named_predictions,
    predict,
    select_inputs,
)
from ml_platform.scoring.agreement import require_agreement
from ml_platform.scoring.endpoint import Answered, EndpointClient, RowChunk
from ml_platform.spec.scoring import Scorer
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window

TWO_CLASSES = ("0", "1")
"""What the classes of a binary model are called where nobody says it: label false, label true."""


@dataclass(frozen=True)
class RemotePredictions:
    """Predictions of a batch."""

    predictions: pd.DataFrame
    """`use_case.prediction_columns` and `model_version`, with the index of the rows."""
    versions: Mapping[Window, int]
    """The newest version that predicted rows of each window."""
    in_process: tuple[Window, ...]
    """Windows whose champion the endpoint does not serve: predicted here, by that champion."""


def predict_remotely(
    endpoint: EndpointClient,
    scorer: Scorer,
    registry: Registry,
    use_case: UseCase,
    frame: pd.DataFrame,
    champions: Mapping[Window, int | None],
) -> RemotePredictions:
    """Predict an assembled frame by an endpoint; windows without rows are left out.

    champions: windows in order of time, with the version that has to predict each; None where any
    may. Raises EndpointUnavailable, EndpointRefused, or EndpointDiffers where an answer is not what
    the registered version predicts.
    """
    parts = [(w, rows) for w, rows in split_by_window(frame, list(champions)) if len(rows)]
    chunks = [
        chunk
        for window, rows in parts
        for chunk in _chunks(scorer, registry, use_case, window, rows, champions[window])
    ]
    answers = endpoint.ask(chunks)
    batch = _Batch(endpoint, scorer, registry, use_case)
    try:
        return batch.predicted(parts, champions, list(zip(chunks, answers, strict=True)))
    except EndpointRefused:
        # What is no prediction now must not be taken for one by the next run.
        endpoint.forget()
        raise


def _chunks(
    scorer: Scorer,
    registry: Registry,
    use_case: UseCase,
    window: Window,
    rows: pd.DataFrame,
    champion: int | None,
) -> Iterator[RowChunk]:
    if champion is None:
        inputs = rows[list(use_case.model_columns)]
    else:
        model = registry.load(use_case, champion)
        select_inputs(use_case, model, rows.head(0))
        # Columns that it was trained without may be gone since; a server wants them all the same.
        inputs = rows.reindex(columns=list(model.columns))
    for first in range(0, len(rows), scorer.batch_rows):
        yield RowChunk(window, first, inputs.iloc[first : first + scorer.batch_rows], champion)


@dataclass(frozen=True)
class _Batch:
    """What the answers of one batch are checked against."""

    endpoint: EndpointClient
    scorer: Scorer
    registry: Registry
    use_case: UseCase

    def predicted(
        self,
        parts: Sequence[tuple[Window, pd.DataFrame]],
        champions: Mapping[Window, int | None],
        asked: Sequence[tuple[RowChunk, Answered | None]],
    ) -> RemotePredictions:
        """Predictions of all windows from what was answered for their chunks."""
        by_window = {w: list(of) for w, of in groupby(asked, key=lambda pair: pair[0].window)}
        done: dict[Window, pd.DataFrame] = {}
        in_process = []
        for window, rows in parts:
            champion = champions[window]
            answers = [(chunk, said) for chunk, said in by_window[window] if said is not None]
            if champion is not None and len(answers) < len(by_window[window]):
                model = self.registry.load(self.use_case, champion)
                again = predict(self.use_case, model, rows)
                done[window] = again.assign(model_version=np.int32(champion))
                in_process.append(window)
            else:
                done[window] = self._window(window, rows, answers)
        versions = {window: int(each["model_version"].max()) for window, each in done.items()}
        together = pd.concat(list(done.values())) if done else pd.DataFrame()
        return RemotePredictions(together, versions, tuple(in_process))

    def _window(
        self, window: Window, rows: pd.DataFrame, answers: Sequence[tuple[RowChunk, Answered]]
    ) -> pd.DataFrame:
        by_version: dict[int, list[pd.DataFrame]] = {}
        parts = []
        for chunk, answer in answers:
            assert answer.version is not None
            part = self._named(chunk, answer)
            by_version.setdefault(answer.version, []).append(part)
            parts.append(part.assign(model_version=np.int32(answer.version)))
        if self.scorer.check != "none":
            for version, answered in by_version.items():
                self._check(window, rows, version, answered)
        return pd.concat(parts)

    def _named(self, chunk: RowChunk, answer: Answered) -> pd.DataFrame:
        values, index = answer.values, chunk.rows.index
        where = f"{self.use_case.name}: {self.endpoint.where}"
        classes = self._classes(answer)
        if self.use_case.label.task == "binary" and values.ndim == 1:
            # The probability of the label being true alone.
            values, classes = np.column_stack([1 - values, values]), TWO_CLASSES
        shape = (len(index),) if self.use_case.label.task == "regression" else (
            len(index), len(classes))  # fmt: skip
        if values.shape != shape and values.size != np.prod(shape):
            raise EndpointRefused(
                f"{where} answered numbers of shape {list(values.shape)} where {list(shape)} was "
                "expected"
            )
        return named_predictions(self.use_case, classes, values.reshape(shape), index)

    def _classes(self, answer: Answered) -> tuple[str, ...]:
        if self.scorer.check == "none":
            return self.scorer.classes or TWO_CLASSES
        assert answer.version is not None
        return self._model(answer.version).classes

    def _model(self, version: int) -> ModelVersion:
        try:
            return self.registry.load(self.use_case, version)
        except ModelNotFound as error:
            raise EndpointDiffers(
                f"{self.use_case.name}: {self.endpoint.where} answers as version {version}, and "
                f"{error}. Where its model is none of the registry, declare `scorer: {{check: "
                "none}`"
            ) from None

    def _check(
        self, window: Window, rows: pd.DataFrame, version: int, answered: Sequence[pd.DataFrame]
    ) -> None:
        """Compare answers of a version with what it predicts in process; EndpointDiffers."""
        model = self._model(version)
        key = self.use_case.calendar.key(window)
        where = f"{self.use_case.name}: {self.endpoint.where}"
        if self.scorer.versions == "answered" and model.cutoff > window.start:
            raise EndpointDiffers(
                f"{where} answers as version {version}, which was trained up to "
                f"{model.cutoff.isoformat()} and may have seen the rows of {key}; score {key} in "
                "process, or at a server of an older version"
            )
        sample = answered if self.scorer.check == "all" else [random.choice(answered)]
        require_agreement(
            self.use_case, model, rows, pd.concat(list(sample)), self.scorer.tolerance,
            f"{where} answers as version {version}", key,
        )  # fmt: skip
