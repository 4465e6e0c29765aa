"""Requests that came together: completed, predicted by one call of a model, written down."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ml_platform.errors import PlatformError
from ml_platform.features import InputRules
from ml_platform.features.online_store import OnlineStore
from ml_platform.registry import ModelVersion, predict_columns
from ml_platform.serving.calls import Call, PredictionIds, moment_of
from ml_platform.serving.inputs import Inputs
from ml_platform.serving.lookup import CompletedRows, FeatureLookup, RequestRows
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.records.records import Records
from ml_platform.serving.records.request_log import Mode, PredictedRows
from ml_platform.serving.tracing import RequestTrace, traced
from ml_platform.spec.use_case import UseCase

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Predictions:
    """Predictions of one request."""

    use_case: UseCase
    model: ModelVersion
    columns: Columns
    """Prediction columns, n values each."""
    rows: int
    inputs: Inputs
    """What the model was given."""
    found: CompletedRows | None = None
    """Keys and event times, where rows came by key."""
    ids: Sequence[str] = ()
    """What each row's prediction is called."""


@dataclass(frozen=True)
class ModelRequest:
    """Rows of one request, for one version."""

    use_case: UseCase
    model: ModelVersion
    content: Inputs | RequestRows
    call: Call

    @property
    def rows(self) -> int:
        return self.content.rows if isinstance(self.content, Inputs) else len(self.content.rows)


class BatchPredictor:
    """Answers requests; the threads of all versions share one."""

    def __init__(
        self,
        use_cases: Iterable[UseCase],
        store: OnlineStore,
        records: Records,
        ids: PredictionIds,
        metrics: Metrics,
    ) -> None:
        self._records, self._metrics = records, metrics
        self._ids = ids
        cases = list(use_cases)
        self._lookups = {case.name: FeatureLookup(case, store) for case in cases}
        self._rules = {case.name: InputRules(case) for case in cases}
        for case in cases:
            metrics.lookups_begin(case.name, case.model_views)

    def close(self) -> None:
        """Close what reads rows; nothing may be asked any more."""
        for lookup in self._lookups.values():
            lookup.close()
        for rules in self._rules.values():
            rules.close()

    def check_examples(self, name: str, rows: Sequence[Any]) -> RequestRows:
        """Rows by key, each with what it needs; raises RequestRefused."""
        return self._lookups[name].check(rows)

    def lookup(self, name: str) -> FeatureLookup:
        """What completes rows of a use case."""
        return self._lookups[name]

    def answer(
        self, role: str, mode: Mode | None, requests: Sequence[ModelRequest]
    ) -> list[Predictions | Exception]:
        """Answer requests that came together, those of one version in one call of its model."""
        alike: dict[tuple[str, int, bool], list[int]] = {}
        for index, each in enumerate(requests):
            by_key = isinstance(each.content, RequestRows)
            alike.setdefault((each.use_case.name, each.model.version, by_key), []).append(index)
        answers: dict[int, Predictions | Exception] = {}
        for members in alike.values():
            alike_ones = [requests[i] for i in members]
            name = alike_ones[0].use_case.name
            self._metrics.batch_rows.labels(name, role).observe(
                sum(each.rows for each in alike_ones)
            )
            with self._metrics.predict_seconds.labels(name, role).time():
                answers |= zip(members, self._in_one_call(alike_ones), strict=True)
        # What a canary says is kept when it has come in time, which is not known here.
        if mode is not None:
            self.keep(requests, answers, mode)
        return [answers[index] for index in range(len(requests))]

    def keep(
        self,
        requests: Sequence[ModelRequest],
        answers: Mapping[int, Predictions | Exception],
        mode: Mode,
    ) -> None:
        """Keep what is about to be answered."""
        kept: dict[str, list[PredictedRows]] = {}
        for index, each in enumerate(requests):
            answer = answers[index]
            if isinstance(answer, Predictions) and self._records.requests.keeps(each.use_case.name):
                kept.setdefault(each.use_case.name, []).append(_as_kept(each.call, answer, mode))
        for name, predicted in kept.items():
            with traced("log", (each.call.trace for each in predicted)):
                self._records.requests.answered(name, predicted)

    def _in_one_call(self, requests: Sequence[ModelRequest]) -> list[Predictions | Exception]:
        try:
            return list(self._predicted(requests))
        except PlatformError as error:
            if len(requests) == 1:
                return [error]
            # One request's rows must not fail those of the others.
            return [answer for each in requests for answer in self._in_one_call([each])]

    def _predicted(self, requests: Sequence[ModelRequest]) -> list[Predictions]:
        case, model = requests[0].use_case, requests[0].model
        inputs, found = self._completed(requests)
        with traced("predict", _traces(requests), inputs.rows):
            columns = predict_columns(case, model, inputs.columns)
        if found is not None:
            self._metrics.looked_up(case.name, found.outcomes)
        answers = []
        last = 0
        for each in requests:
            rows = each.rows
            part = slice(last, last + rows)
            last += rows
            own = found.cut(part) if found else None
            moments = own.moments if own else [time.time_ns() // 1000] * rows
            ids = self._ids.name(moments, case.name, each.call.principal)
            answers.append(
                Predictions(case, model, _cut(columns, part), rows, inputs.cut(part), own, ids)
            )
        return answers

    def _completed(self, requests: Sequence[ModelRequest]) -> tuple[Inputs, CompletedRows | None]:
        case, model = requests[0].use_case, requests[0].model
        examples = [row for each in requests if isinstance(each.content, RequestRows)
                    for row in each.content.rows]  # fmt: skip
        if examples:
            lookup = self._lookups[case.name]
            with traced("look up", _traces(requests), len(examples)):
                found = lookup.complete(RequestRows(examples), model, case.serving.known_categories)
            return found.inputs, found
        inputs = Inputs.together([e.content for e in requests if isinstance(e.content, Inputs)])
        self._rules[case.name].check(inputs.columns)
        return inputs, None


def _as_kept(call: Call, answer: Predictions, mode: Mode) -> PredictedRows:
    moments = answer.found.moments if answer.found else [moment_of(each) for each in answer.ids]
    keys = answer.found.keys if answer.found else None
    version, inputs = answer.model.version, answer.inputs.columns
    return PredictedRows(call, version, answer.ids, moments, inputs, answer.columns, keys, mode)


def _traces(requests: Sequence[ModelRequest]) -> Iterator[RequestTrace | None]:
    return (each.call.trace for each in requests)


def _cut(columns: Columns, part: slice) -> Columns:
    return {name: values[part] for name, values in columns.items()}
