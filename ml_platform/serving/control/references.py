"""Batches by reference: rows of a file or table predicted, and the answers written to another.

For callers with more rows than a request takes. Files lie below one folder that caller and service
share, and so does what is known of each batch, so that every worker can say how far it is. One
batch at a time is predicted by a worker, in a thread that gives way to single requests.
"""

import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.errors import Overloaded, PlatformError
from ml_platform.failures import one_line
from ml_platform.features import InputRules
from ml_platform.registry import ModelVersion, Registry, champion_at, history
from ml_platform.serving.control.answered_rows import answered_rows
from ml_platform.serving.control.documents import OVER, ControlRun, Look, Visible, path_of, unknown
from ml_platform.serving.control.once import ControlOutcome, ControlRequest
from ml_platform.serving.control.recording import Recorder
from ml_platform.serving.control.reference_states import BatchState, States
from ml_platform.serving.control.row_places import STATES, RowPlace, RowPlaces
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

CHUNK_ROWS = 2048
MOST_WAITING = 16
"""Batches that wait in one worker; more are rejected."""
REPORT_SECONDS = 1.0
"""How often a batch says how far it is."""
LOG = logging.getLogger(__name__)


class References:
    """Batches below a shared folder; without one, none are taken."""

    def __init__(
        self, lake: Lake, registry: Registry, recorder: Recorder, places: RowPlaces
    ) -> None:
        self._lake, self._registry, self._recorder = lake, registry, recorder
        self._places = places
        self._states = States(places.folder and places.folder / STATES)
        self._thread = ThreadPoolExecutor(1, "rows", initializer=_make_way)
        self._closing = threading.Event()
        self._under_way: set[str] = set()

    def close(self) -> None:
        """End what is under way; callers see that it failed, and send it again."""
        self._closing.set()
        self._thread.shutdown(cancel_futures=True)

    def begin(
        self, request: ControlRequest, rows: str, answers: str, reason: str | None
    ) -> ControlOutcome:
        """Have rows predicted by the champion of now.

        rows, answers: Parquet files below the shared folder, or tables as database:table. The
        answers are the columns of the rows, prediction columns and `model_version`. Raises
        ParameterRefused, NoChampion, and Overloaded where many batches wait.
        """
        name = f"rows-{(request.key or uuid.uuid4().hex)[:16]}"
        if (known := self._states.read(name)) is not None and known.status != "failed":
            return ControlOutcome(_described(known), name)
        source = self._places.place("rows", rows)
        target = self._places.place("answers", answers)
        target.require_absent()
        of = source.count()
        if len(self._under_way) >= MOST_WAITING:
            raise Overloaded(f"{MOST_WAITING} batches wait already; ask again later", 60)
        case, now = request.use_case, datetime.now(UTC)
        version = champion_at(history(self._lake, case), now)
        model = self._registry.load(case, version)
        state = BatchState(
            name, case.name, "queued", rows, answers, request.by, reason, version,
            f"{socket.gethostname()}:{os.getpid()}", now.isoformat(), time.time(), of=of,
        )  # fmt: skip
        self._recorder.record(request, "score rows", answers, rows=rows, run=name, reason=reason)
        self._states.write(state)
        self._under_way.add(name)
        self._thread.submit(self._carry_out, case, model, state, source, target)
        return ControlOutcome(_described(state), name)

    def look(self, name: str, visible: Visible) -> Look:
        """How far a batch is; RunUnknown where there is none, or the caller may not know of it."""
        state = self._states.read(name)
        if state is None or not visible(state.use_case):
            raise unknown(name)
        return _described(state)

    def end(
        self,
        name: str,
        visible: Visible,
        require: Callable[[str], None],
        before: Callable[[str], None],
    ) -> Look:
        """Have it ended, unless it is over; what it is then. See `Runs.end`."""
        found = self.look(name, visible)
        require(found["run"]["use_case"])
        if not found["run"]["is_over"]:
            before(found["run"]["use_case"])
            self._states.ask_to_end(name)
        return self.look(name, visible)

    def _carry_out(
        self,
        case: UseCase,
        model: ModelVersion,
        state: BatchState,
        source: RowPlace,
        target: RowPlace,
    ) -> None:
        try:
            state.status = "running"
            with target.writing(state.id) as part:
                self._predict(case, model, state, source, part)
                if state.status == "running":
                    target.publish(part)
                    state.status = "succeeded"
        except (PlatformError, OSError, pa.ArrowException) as error:
            state.status, state.failures = "failed", [one_line(error)]
        except Exception:
            # Whoever polls has to hear of a mistake in code as well.
            LOG.exception("batch %s", state.id)
            state.status, state.failures = "failed", ["the service failed; see its log"]
        finally:
            self._under_way.discard(state.id)
            state.ended_at = datetime.now(UTC).isoformat()
            self._states.write(state)

    def _predict(
        self, case: UseCase, model: ModelVersion, state: BatchState, source: RowPlace, part: Path
    ) -> None:
        rules = InputRules(case)
        writer: pq.ParquetWriter | None = None
        try:
            for batch in source.chunks(CHUNK_ROWS):
                if self._closing.is_set():
                    state.status, state.failures = "failed", ["the service stopped; send it again"]
                    return
                if self._states.is_to_end(state.id):
                    state.status = "ended"
                    return
                answered = answered_rows(case, model, rules, batch, state.done)
                writer = writer or pq.ParquetWriter(part, answered.schema)
                writer.write_table(answered)
                state.done += len(batch)
                if time.time() - state.said_at >= REPORT_SECONDS:
                    self._states.write(state)
        finally:
            rules.close()
            if writer is not None:
                writer.close()


def _described(state: BatchState) -> Look:
    run: ControlRun = {
        "id": state.id, "use_case": state.use_case, "status": state.status,
        "is_over": state.status in OVER, "rows": {"done": state.done, "of": state.of},
        "answers": state.answers, "version": state.version, "by": state.by,
        "reason": state.reason, "created_at": state.created_at, "ended_at": state.ended_at,
        "failures": state.failures,
    }  # fmt: skip
    return {"run": run, "links": {"self": path_of(state.id)}}


def _make_way() -> None:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1)
    # A thread's own priority; elsewhere than on Linux it would be that of the whole process.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
