"""What every protocol calls: rows of a use case in, predictions of the version that serves out."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ml_platform.errors import PlatformError, RequestTooLarge
from ml_platform.features.online_store import OnlineStore
from ml_platform.registry import ModelVersion, predict
from ml_platform.serving.batches import Batches
from ml_platform.serving.calls import Call, PredictionIds, moment_of
from ml_platform.serving.inputs import Inputs, Values, check_columns
from ml_platform.serving.live import LiveVersions
from ml_platform.serving.lookup import Examples, Found, Lookup
from ml_platform.serving.records import Records
from ml_platform.serving.request_log import Predicted
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
    inputs: Inputs
    """What the model was given."""
    found: Found | None = None
    """Keys and event times, where rows came by key."""
    ids: Sequence[str] = ()
    """What each row's prediction is called."""


@dataclass(frozen=True)
class _Asked:
    use_case: UseCase
    model: ModelVersion
    content: Inputs | Examples
    call: Call


class Service:
    """Predicts for all use cases of a deployment; lives in one event loop."""

    def __init__(
        self, live: LiveVersions, store: OnlineStore, settings: ServingSettings, records: Records
    ) -> None:
        self.live, self.settings, self.records = live, settings, records
        self._ids = PredictionIds()
        self._lookups = {name: Lookup(live.of(name).use_case, store) for name in live.names}
        # One thread: models share a core better one after the other than all at once.
        self._thread = ThreadPoolExecutor(1, "predict", initializer=_use_one_core)
        self._batches: Batches[_Asked, Answer] = Batches(
            self._answer,
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
        for lookup in self._lookups.values():
            lookup.close()
        self.records.close()

    async def predict(
        self,
        name: str,
        columns: Mapping[str, Values],
        version: str | None = None,
        call: Call | None = None,
    ) -> Answer:
        """Predict rows given as the columns of the model.

        version: only this one may answer. call: what the log tells of the request.
        Raises RequestError, ModelRefused.
        """
        live, model = self.live.of(name), self.live.model(name, version)
        self._limit(max((len(values) for values in columns.values()), default=0))
        inputs = check_columns(model, columns, known_categories=_is_strict(live.use_case))
        asked = _Asked(live.use_case, model, inputs, call or Call.begin("python"))
        return await self._batches.submit(asked, inputs.rows)

    async def predict_examples(
        self,
        name: str,
        rows: Sequence[Any],
        version: str | None = None,
        call: Call | None = None,
    ) -> Answer:
        """Predict rows given by key: request columns are computed, features are looked up.

        rows: the columns of the examples' source that `needed_columns` names; the event time may
        be left out and is now then. Raises as `predict` does, and OnlineStoreError.
        """
        live, model = self.live.of(name), self.live.model(name, version)
        self._limit(len(rows))
        examples = self._lookups[name].check(rows)
        asked = _Asked(live.use_case, model, examples, call or Call.begin("python"))
        return await self._batches.submit(asked, len(rows))

    def version_of(self, name: str) -> int | None:
        """The version that serves a use case, if there is one."""
        if name not in self.live.names:
            return None
        champion = self.live.of(name).champion
        return champion.version if champion else None

    async def follow_promotions(self, every_seconds: float) -> None:
        """Swap versions as they are promoted, until cancelled."""
        while True:
            await asyncio.to_thread(self.live.refresh)
            await asyncio.sleep(every_seconds)

    def _limit(self, rows: int) -> None:
        if rows > self.settings.most_rows:
            raise RequestTooLarge(
                f"{rows} rows in one request; at most {self.settings.most_rows} are taken, so "
                "send them in parts, or score them as a batch"
            )

    def _answer(self, asked: Sequence[_Asked]) -> list[Answer | Exception]:
        """Answer requests that came together, those of one version in one call of its model."""
        alike: dict[tuple[str, int, bool], list[int]] = {}
        for index, each in enumerate(asked):
            by_key = isinstance(each.content, Examples)
            alike.setdefault((each.use_case.name, each.model.version, by_key), []).append(index)
        answers: dict[int, Answer | Exception] = {}
        for members in alike.values():
            answers |= zip(members, self._together([asked[i] for i in members]), strict=True)
        self._log(asked, answers)
        return [answers[index] for index in range(len(asked))]

    def _log(self, asked: Sequence[_Asked], answers: Mapping[int, Answer | Exception]) -> None:
        """Keep what is about to be answered."""
        kept: dict[str, list[Predicted]] = {}
        for index, each in enumerate(asked):
            answer = answers[index]
            if isinstance(answer, Answer):
                kept.setdefault(each.use_case.name, []).append(_as_kept(each.call, answer))
        for name, predicted in kept.items():
            self.records.requests.answered(name, predicted)

    def _together(self, asked: Sequence[_Asked]) -> list[Answer | Exception]:
        try:
            return list(self._predicted(asked))
        except PlatformError as error:
            if len(asked) == 1:
                return [error]
            # One request's rows must not fail those of the others.
            return [answer for each in asked for answer in self._together([each])]

    def _predicted(self, asked: Sequence[_Asked]) -> list[Answer]:
        case, model = asked[0].use_case, asked[0].model
        sizes = [_rows(each.content) for each in asked]
        inputs, found = self._completed(asked)
        predicted = predict(case, model, inputs.frame())
        columns = {name: predicted[name].to_numpy() for name in case.prediction_columns}
        answers = []
        last = 0
        for rows in sizes:
            part = slice(last, last + rows)
            last += rows
            own = found.cut(part) if found else None
            ids = self._ids.name(own.moments if own else [time.time_ns() // 1000] * rows)
            answers.append(
                Answer(case, model, _cut(columns, part), rows, inputs.cut(part), own, ids)
            )
        return answers

    def _completed(self, asked: Sequence[_Asked]) -> tuple[Inputs, Found | None]:
        case, model = asked[0].use_case, asked[0].model
        examples = [row for each in asked if isinstance(each.content, Examples)
                    for row in each.content.rows]  # fmt: skip
        if examples:
            lookup = self._lookups[case.name]
            found = lookup.complete(Examples(examples), model, _is_strict(case))
            return found.inputs, found
        return Inputs.together([e.content for e in asked if isinstance(e.content, Inputs)]), None


def _use_one_core() -> None:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1)


def _as_kept(call: Call, answer: Answer) -> Predicted:
    moments = answer.found.moments if answer.found else [moment_of(each) for each in answer.ids]
    keys = answer.found.keys if answer.found else None
    version, inputs = answer.model.version, answer.inputs.columns
    return Predicted(call, version, answer.ids, moments, inputs, answer.columns, keys)


def _is_strict(use_case: UseCase) -> bool:
    return use_case.serving.unknown_categories == "refuse"


def _rows(content: Inputs | Examples) -> int:
    return content.rows if isinstance(content, Inputs) else len(content.rows)


def _cut(columns: Columns, part: slice) -> Columns:
    return {name: values[part] for name, values in columns.items()}
