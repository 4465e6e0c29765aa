"""What every protocol calls: rows of a use case in, predictions of the version that serves out."""

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
from numpy.typing import NDArray
from structlog.typing import FilteringBoundLogger

from ml_platform.errors import PlatformError, RequestTooLarge
from ml_platform.features import InputRules
from ml_platform.features.online_store import OnlineStore
from ml_platform.registry import ModelVersion, predict
from ml_platform.serving.batches import Batches
from ml_platform.serving.calls import Call, PredictionIds, moment_of
from ml_platform.serving.inputs import Inputs, Values, check_columns
from ml_platform.serving.lookup import Examples, Found, Lookup
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.records.records import Records
from ml_platform.serving.records.request_log import Mode, Predicted
from ml_platform.serving.tracing import Trace, traced
from ml_platform.serving.versions.live import Live, LiveVersions
from ml_platform.serving.versions.trials import Trials
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
        self,
        live: LiveVersions,
        store: OnlineStore,
        settings: ServingSettings,
        records: Records,
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        self.live, self.settings = live, settings
        self.records, self._metrics = records, metrics
        self._ids = PredictionIds()
        cases = [live.of(name).use_case for name in live.names]
        self._lookups = {case.name: Lookup(case, store) for case in cases}
        self._rules = {case.name: InputRules(case) for case in cases}
        for case in cases:
            metrics.lookups_begin(case.name, case.model_views)
        # One thread: models share a core better one after the other than all at once.
        self._thread = ThreadPoolExecutor(1, "predict", initializer=_use_one_core)
        self._batches = self._queue("champion", "live", self._thread)
        # Those on trial have threads of their own: one that hangs must not hold the champion up.
        self._trial_threads = {
            "canary": ThreadPoolExecutor(1, "canary"),
            "shadow": ThreadPoolExecutor(1, "shadow", initializer=_make_way),
        }
        self._candidates = {
            "canary": self._queue("candidate", None, self._trial_threads["canary"]),
            "shadow": self._queue("candidate", "shadow", self._trial_threads["shadow"]),
        }
        self.trials: Trials[Answer] = Trials(
            settings, metrics, log, lambda: self._batches.rows_waiting > 0
        )

    @property
    def rows_waiting(self) -> int:
        return self._batches.rows_waiting

    def close(self) -> None:
        """Let the thread end; what waits is answered first."""
        self.trials.close()
        self._thread.shutdown()
        for thread in self._trial_threads.values():
            thread.shutdown(wait=False, cancel_futures=True)
        for lookup in self._lookups.values():
            lookup.close()
        for rules in self._rules.values():
            rules.close()
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
        Raises RequestError (RuleBroken too), ModelRefused.
        """
        live, model = self.live.of(name), self.live.model(name, version)
        self._limit(max((len(values) for values in columns.values()), default=0))
        call = call or Call.begin("python")
        with traced("check inputs", (call.trace,)):
            inputs = check_columns(model, columns, known_categories=_is_strict(live.use_case))
        return await self._ask(live, _Asked(live.use_case, model, inputs, call), version, columns)

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
        call = call or Call.begin("python")
        with traced("check inputs", (call.trace,)):
            examples = self._lookups[name].check(rows)
        return await self._ask(live, _Asked(live.use_case, model, examples, call), version)

    def version_of(self, name: str) -> int | None:
        """The version that serves a use case, if there is one."""
        if name not in self.live.names:
            return None
        champion = self.live.of(name).champion
        return champion.version if champion else None

    def _limit(self, rows: int) -> None:
        if rows > self.settings.most_rows:
            raise RequestTooLarge(
                f"{rows} rows in one request; at most {self.settings.most_rows} are taken, so "
                "send them in parts, or score them as a batch"
            )

    async def _ask(
        self,
        live: Live,
        asked: _Asked,
        version: str | None,
        columns: Mapping[str, Values] | None = None,
    ) -> Answer:
        """Have the champion answer, or, where a version is tried, whichever of the two it is for.

        columns: what was sent, where rows came as columns of the model.
        """
        answer = await self._choose(live, asked, version, columns)
        if asked.call.trace is not None:
            asked.call.trace.answered(answer.use_case.name, answer.model.version)
        return answer

    async def _choose(
        self,
        live: Live,
        asked: _Asked,
        version: str | None,
        columns: Mapping[str, Values] | None,
    ) -> Answer:
        rows = _rows(asked.content)
        # Who asks for a version by its number is asking for no other.
        if (
            version is not None
            or asked.model is not live.champion
            or not self.trials.is_tried(live)
        ):
            return await self._batches.submit(asked, rows)
        candidate, rollout = live.candidate, live.rollout
        assert candidate is not None
        assert rollout is not None
        queue = self._candidates[rollout.mode]

        async def ask_candidate() -> Answer:
            content = asked.content
            if columns is not None:
                strict = _is_strict(asked.use_case)
                content = check_columns(candidate, columns, known_categories=strict)
            # A shadow is no part of what the caller waited for.
            call = asked.call if rollout.mode == "canary" else replace(asked.call, trace=None)
            alike = _Asked(asked.use_case, candidate, content, call)
            answer = await queue.submit(alike, rows)
            if rollout.mode == "canary":
                self._log([alike], {0: answer}, "live")
            return answer

        return await self.trials.answer(
            live,
            lambda: _entity(asked),
            lambda: self._batches.submit(asked, rows),
            ask_candidate,
        )

    def _queue(
        self, role: str, mode: Mode | None, executor: ThreadPoolExecutor
    ) -> Batches[_Asked, Answer]:
        return Batches(
            partial(self._answer, role, mode),
            executor,
            most_rows=self.settings.batch_rows,
            most_waiting=self.settings.waiting_rows,
            longest_wait_seconds=self.settings.longest_wait_seconds,
        )

    def _answer(
        self, role: str, mode: Mode | None, asked: Sequence[_Asked]
    ) -> list[Answer | Exception]:
        """Answer requests that came together, those of one version in one call of its model."""
        alike: dict[tuple[str, int, bool], list[int]] = {}
        for index, each in enumerate(asked):
            by_key = isinstance(each.content, Examples)
            alike.setdefault((each.use_case.name, each.model.version, by_key), []).append(index)
        answers: dict[int, Answer | Exception] = {}
        self._metrics.rows_waiting.set(self._batches.rows_waiting)
        for members in alike.values():
            alike_ones = [asked[i] for i in members]
            name = alike_ones[0].use_case.name
            self._metrics.batch_rows.labels(name, role).observe(
                sum(_rows(each.content) for each in alike_ones)
            )
            with self._metrics.predict_seconds.labels(name, role).time():
                answers |= zip(members, self._together(alike_ones), strict=True)
        # What a canary says is kept when it has come in time, which is not known here.
        if mode is not None:
            self._log(asked, answers, mode)
        return [answers[index] for index in range(len(asked))]

    def _log(
        self, asked: Sequence[_Asked], answers: Mapping[int, Answer | Exception], mode: Mode
    ) -> None:
        """Keep what is about to be answered."""
        kept: dict[str, list[Predicted]] = {}
        for index, each in enumerate(asked):
            answer = answers[index]
            if isinstance(answer, Answer) and self.records.requests.keeps(each.use_case.name):
                kept.setdefault(each.use_case.name, []).append(_as_kept(each.call, answer, mode))
        for name, predicted in kept.items():
            with traced("log", (each.call.trace for each in predicted)):
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
        with traced("predict", _traces(asked), inputs.rows):
            predicted = predict(case, model, inputs.frame())
        if found is not None:
            self._metrics.looked_up(case.name, found.outcomes)
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
            with traced("look up", _traces(asked), len(examples)):
                found = lookup.complete(Examples(examples), model, _is_strict(case))
            return found.inputs, found
        inputs = Inputs.together([e.content for e in asked if isinstance(e.content, Inputs)])
        self._rules[case.name].check(inputs.columns)
        return inputs, None


def _use_one_core() -> None:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1)


def _make_way() -> None:
    # A thread's own priority; elsewhere than on Linux it would be that of the whole process.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _entity(asked: _Asked) -> bytes:
    """What says which side of a canary a request is on: the entities, or else the rows' values."""
    if isinstance(asked.content, Inputs):
        columns = asked.content.columns
        return msgspec.json.encode([columns[name].tolist() for name in sorted(columns)])
    names = asked.use_case.examples.entity
    # As texts: one caller writes the number 7 and the other "7".
    return msgspec.json.encode(
        [[str(row.get(name)) for name in names] for row in asked.content.rows]
    )


def _as_kept(call: Call, answer: Answer, mode: Mode) -> Predicted:
    moments = answer.found.moments if answer.found else [moment_of(each) for each in answer.ids]
    keys = answer.found.keys if answer.found else None
    version, inputs = answer.model.version, answer.inputs.columns
    return Predicted(call, version, answer.ids, moments, inputs, answer.columns, keys, mode)


def _traces(asked: Sequence[_Asked]) -> Iterator[Trace | None]:
    return (each.call.trace for each in asked)


def _is_strict(use_case: UseCase) -> bool:
    return use_case.serving.unknown_categories == "refuse"


def _rows(content: Inputs | Examples) -> int:
    return content.rows if isinstance(content, Inputs) else len(content.rows)


def _cut(columns: Columns, part: slice) -> Columns:
    return {name: values[part] for name, values in columns.items()}
