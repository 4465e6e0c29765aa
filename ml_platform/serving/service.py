"""What every protocol calls: rows of a use case in, predictions of the version that serves out."""

import asyncio
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from structlog.typing import FilteringBoundLogger

from ml_platform.errors import RequestTooLarge
from ml_platform.features.online_store import OnlineStore
from ml_platform.serving.batch_prediction import BatchPredictor, ModelRequest, Predictions
from ml_platform.serving.batches import Batches
from ml_platform.serving.calls import Call, PredictionIds
from ml_platform.serving.inputs import Inputs, Values, check_columns
from ml_platform.serving.lookup import FeatureLookup
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.parse_queue import ParseQueue
from ml_platform.serving.records.records import Records
from ml_platform.serving.records.request_log import Mode
from ml_platform.serving.tracing import traced
from ml_platform.serving.versions.live import LiveUseCase, LiveVersions
from ml_platform.serving.versions.trials import Trials
from ml_platform.serving.zones import RowTimes
from ml_platform.settings import ServingSettings


class Service:
    """Predicts for all use cases of a deployment; lives in one event loop."""

    def __init__(
        self,
        live: LiveVersions,
        store: OnlineStore,
        settings: ServingSettings,
        records: Records,
        ids: PredictionIds,
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        self.live, self.settings = live, settings
        self.records, self._metrics = records, metrics
        cases = [live.of(name).use_case for name in live.names]
        self._predictor = BatchPredictor(cases, store, records, ids, metrics)
        # One thread: models share a core better one after the other than all at once.
        self._thread = ThreadPoolExecutor(1, "predict", initializer=_use_one_core)
        self._batches = self._queue("champion", "live", self._thread)
        self.parse_queue = ParseQueue(
            lambda: self._batches.queue_seconds,
            longest_wait_seconds=settings.longest_wait_seconds,
        )
        # Those on trial have threads of their own: one that hangs must not hold the champion up.
        self._trial_threads = {
            "canary": ThreadPoolExecutor(1, "canary"),
            "shadow": ThreadPoolExecutor(1, "shadow", initializer=_make_way),
        }
        self._candidates = {
            "canary": self._queue("candidate", None, self._trial_threads["canary"]),
            "shadow": self._queue("candidate", "shadow", self._trial_threads["shadow"]),
        }
        self.trials: Trials[Predictions] = Trials(
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
        self._predictor.close()
        self.records.close()

    async def predict(
        self,
        name: str,
        columns: Mapping[str, Values],
        version: str | None = None,
        call: Call | None = None,
    ) -> Predictions:
        """Predict rows given as the columns of the model.

        version: only this one may answer. call: what the log holds of the request.
        Raises RequestError (RuleBroken too), ModelRefused.
        """
        live, model = self.live.of(name), self.live.model(name, version)
        self._limit(max((len(values) for values in columns.values()), default=0))
        call = call or Call.begin("python")
        with traced("check inputs", (call.trace,)):
            inputs = check_columns(
                model, columns, known_categories=live.use_case.serving.known_categories
            )
        return await self._ask(
            live, ModelRequest(live.use_case, model, inputs, call), version, columns
        )

    async def predict_examples(
        self,
        name: str,
        rows: Sequence[Any],
        version: str | None = None,
        call: Call | None = None,
    ) -> Predictions:
        """Predict rows given by key: request columns are computed, features are looked up.

        rows: the columns of the examples' source that `needed_columns` names; the event time may
        be left out and is now then. Raises as `predict` does, and OnlineStoreError.
        """
        live, model = self.live.of(name), self.live.model(name, version)
        self._limit(len(rows))
        call = call or Call.begin("python")
        with traced("check inputs", (call.trace,)):
            examples = self._predictor.check_examples(name, rows)
        return await self._ask(live, ModelRequest(live.use_case, model, examples, call), version)

    async def times_read(self, name: str, rows: Sequence[Any]) -> RowTimes | None:
        """How times without a zone were read, of rows that `predict_examples` has answered.

        None where every time had one.
        """
        lookup = self.lookup(name)
        unzoned = lookup.unzoned(rows)
        return await asyncio.to_thread(lookup.read_times, unzoned) if unzoned else None

    def lookup(self, name: str) -> FeatureLookup:
        """What completes rows by key of a use case."""
        return self._predictor.lookup(name)

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
        live: LiveUseCase,
        request: ModelRequest,
        version: str | None,
        columns: Mapping[str, Values] | None = None,
    ) -> Predictions:
        """Have the champion answer, or, where a version is tried, whichever of the two it is for.

        columns: what was sent, where rows came as columns of the model.
        """
        answer = await self._choose(live, request, version, columns)
        if request.call.trace is not None:
            request.call.trace.answered(answer.use_case.name, answer.model.version)
        return answer

    async def _choose(
        self,
        live: LiveUseCase,
        request: ModelRequest,
        version: str | None,
        columns: Mapping[str, Values] | None,
    ) -> Predictions:
        rows = request.rows
        # Who asks for a version by its number is asking for no other.
        if (
            version is not None
            or request.model is not live.champion
            or not self.trials.is_tried(live)
        ):
            return await self._batches.submit(request, rows)
        candidate, rollout = live.candidate, live.rollout
        assert candidate is not None
        assert rollout is not None
        queue = self._candidates[rollout.mode]

        async def ask_candidate() -> Predictions:
            content = request.content
            if columns is not None:
                known = request.use_case.serving.known_categories
                content = check_columns(candidate, columns, known_categories=known)
            # A shadow is no part of what the caller waited for.
            call = request.call if rollout.mode == "canary" else replace(request.call, trace=None)
            alike = ModelRequest(request.use_case, candidate, content, call)
            answer = await queue.submit(alike, rows)
            if rollout.mode == "canary":
                self._predictor.keep([alike], {0: answer}, "live")
            return answer

        return await self.trials.answer(
            live,
            lambda: _entity(request),
            lambda: self._batches.submit(request, rows),
            ask_candidate,
        )

    def _queue(
        self, role: str, mode: Mode | None, executor: ThreadPoolExecutor
    ) -> Batches[ModelRequest, Predictions]:
        return Batches(
            partial(self._answer, role, mode),
            executor,
            most_rows=self.settings.batch_rows,
            most_waiting=self.settings.waiting_rows,
            longest_wait_seconds=self.settings.longest_wait_seconds,
        )

    def _answer(
        self, role: str, mode: Mode | None, requests: Sequence[ModelRequest]
    ) -> list[Predictions | Exception]:
        self._metrics.rows_waiting.set(self.rows_waiting)
        return self._predictor.answer(role, mode, requests)


def _use_one_core() -> None:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1)


def _make_way() -> None:
    # A thread's own priority; elsewhere than on Linux it would be that of the whole process.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _entity(request: ModelRequest) -> bytes:
    """What says which side of a canary a request is on: the entities, or else the rows' values."""
    if isinstance(request.content, Inputs):
        columns = request.content.columns
        return msgspec.json.encode([columns[name].tolist() for name in sorted(columns)])
    names = request.use_case.examples.entity
    # As texts: one caller writes the number 7 and the other "7".
    return msgspec.json.encode(
        [[str(row.get(name)) for name in names] for row in request.content.rows]
    )
