"""Batches by reference: rows of a file predicted, and the answers written to another.

For callers with more rows than a request takes. Files lie below one folder that caller and service
share, and so does what is known of each batch, so that every worker can tell how far it is. One
batch at a time is predicted by a worker, in a thread that gives way to single requests.
"""

import logging
import os
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.errors import Overloaded, ParameterRefused, PlatformError
from ml_platform.failures import one_line
from ml_platform.features import InputRules
from ml_platform.registry import ModelVersion, Registry, champion_at, history
from ml_platform.serving.control.documents import OVER, Visible, path_of, unknown
from ml_platform.serving.control.once import Order, Outcome
from ml_platform.serving.control.recording import Recorder
from ml_platform.serving.control.row_files import answered_rows, chunks_of, count_rows
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

REFERENCE = re.compile(r"rows-[0-9a-f]{16}")
"""What a batch by reference is called."""
STATES = ".batches"
"""Folder, below the shared one, of what is known of each batch."""
CHUNK_ROWS = 2048
MOST_WAITING = 16
"""Batches that wait in one worker; more are turned away."""
TOLD_SECONDS = 1.0
"""How often a batch says how far it is."""
SILENT_SECONDS = 60.0
"""A batch that has said nothing for so long has lost its worker."""
LOG = logging.getLogger(__name__)
FOLDER = "ML_PLATFORM_SERVING_BATCHES"


class State(msgspec.Struct):
    """What is known of a batch."""

    id: str
    use_case: str
    status: str
    rows: str
    answers: str
    by: str
    reason: str | None
    version: int
    worker: str
    """Host and process that predicts it."""
    created_at: str
    said_at: float
    """When it last said how far it is, in seconds since 1970."""
    done: int = 0
    of: int = 0
    ended_at: str | None = None
    failures: list[str] = []


class References:
    """Batches below a shared folder; without one, none are taken."""

    def __init__(
        self, lake: Lake, registry: Registry, recorder: Recorder, folder: Path | None
    ) -> None:
        self._lake, self._registry, self._recorder = lake, registry, recorder
        self._folder = None if folder is None else folder.resolve()
        self._thread = ThreadPoolExecutor(1, "rows", initializer=_make_way)
        self._closing = threading.Event()
        self._under_way: set[str] = set()

    def close(self) -> None:
        """End what is under way; callers see that it failed, and send it again."""
        self._closing.set()
        self._thread.shutdown(cancel_futures=True)

    def begin(self, order: Order, rows: str, answers: str, reason: str | None) -> Outcome:
        """Have the rows of a file predicted by the champion of now.

        rows, answers: Parquet files below the shared folder. The answers are the columns of the
        rows, prediction columns and `model_version`. Raises ParameterRefused, NoChampion, and
        Overloaded where many batches wait.
        """
        name = f"rows-{(order.key or uuid.uuid4().hex)[:16]}"
        if (known := self._read(name)) is not None and self._standing(known).status != "failed":
            return Outcome(self._told(known), name)
        source, target = self._file("rows", rows), self._file("answers", answers)
        of = count_rows(source, target)
        if len(self._under_way) >= MOST_WAITING:
            raise Overloaded(f"{MOST_WAITING} batches wait already; ask again later", 60)
        case, now = order.use_case, datetime.now(UTC)
        version = champion_at(history(self._lake, case), now)
        model = self._registry.load(case, version)
        state = State(
            name, case.name, "queued", rows, answers, order.by, reason, version,
            f"{socket.gethostname()}:{os.getpid()}", now.isoformat(), time.time(), of=of,
        )  # fmt: skip
        self._recorder.record(order, "score rows", answers, rows=rows, run=name, reason=reason)
        self._write(state)
        self._under_way.add(name)
        self._thread.submit(self._carry_out, case, model, state, source, target)
        return Outcome(self._told(state), name)

    def look(self, name: str, visible: Visible) -> dict[str, Any]:
        """How far a batch is; RunUnknown where there is none, or the caller may not know of it."""
        state = self._read(name)
        if state is None or not visible(state.use_case):
            raise unknown(name)
        return self._told(self._standing(state))

    def end(
        self,
        name: str,
        visible: Visible,
        require: Callable[[str], None],
        before: Callable[[str], None],
    ) -> dict[str, Any]:
        """Have it ended, unless it is over; what it is then. See `Runs.end`."""
        found = self.look(name, visible)
        require(found["run"]["use_case"])
        if not found["run"]["is_over"]:
            before(found["run"]["use_case"])
            self._state_file(name).with_suffix(".end").touch()
        return self.look(name, visible)

    def _carry_out(
        self, case: UseCase, model: ModelVersion, state: State, source: Path, target: Path
    ) -> None:
        part = target.with_name(f".{target.name}.{state.id}.part")
        try:
            state.status = "running"
            self._predict(case, model, state, source, part)
            if state.status == "running":
                part.replace(target)
                state.status = "succeeded"
        except (PlatformError, OSError, pa.ArrowException) as error:
            state.status, state.failures = "failed", [one_line(error)]
        except Exception:
            # Whoever polls has to hear of a mistake in code as well.
            LOG.exception("batch %s", state.id)
            state.status, state.failures = "failed", ["the service failed; see its log"]
        finally:
            self._under_way.discard(state.id)
            with suppress(OSError):
                part.unlink(missing_ok=True)
            state.ended_at = datetime.now(UTC).isoformat()
            self._write(state)

    def _predict(
        self, case: UseCase, model: ModelVersion, state: State, source: Path, part: Path
    ) -> None:
        rules = InputRules(case)
        writer: pq.ParquetWriter | None = None
        end = self._state_file(state.id).with_suffix(".end")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            for batch in chunks_of(source, CHUNK_ROWS):
                if self._closing.is_set():
                    state.status, state.failures = "failed", ["the service stopped; send it again"]
                    return
                if end.exists():
                    state.status = "ended"
                    return
                answered = answered_rows(case, model, rules, batch, state.done)
                writer = writer or pq.ParquetWriter(part, answered.schema)
                writer.write_table(answered)
                state.done += len(batch)
                if time.time() - state.said_at >= TOLD_SECONDS:
                    self._write(state)
        finally:
            rules.close()
            if writer is not None:
                writer.close()

    def _file(self, parameter: str, name: str) -> Path:
        if self._folder is None:
            raise ParameterRefused(
                parameter, f"no folder for batches is set: {FOLDER}, which the operator decides"
            )
        try:
            path = (self._folder / name).resolve()
            path.exists()
        except (OSError, RuntimeError) as error:
            raise ParameterRefused(parameter, f"'{name[:60]}' is no file: {error}") from None
        if not path.is_relative_to(self._folder) or path == self._folder or STATES in path.parts:
            raise ParameterRefused(parameter, f"'{name}' is not below the folder for batches")
        if path.suffix != ".parquet":
            raise ParameterRefused(parameter, f"'{name}' should end in .parquet")
        return path

    def _state_file(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / STATES / f"{name}.json"

    def _read(self, name: str) -> State | None:
        if self._folder is None or not REFERENCE.fullmatch(name):
            return None
        with suppress(FileNotFoundError):
            return msgspec.json.decode(self._state_file(name).read_bytes(), type=State)
        return None

    def _write(self, state: State) -> None:
        state.said_at = time.time()
        file = self._state_file(state.id)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Whoever reads it meanwhile sees the whole old one or the whole new one.
        fresh = file.with_suffix(f".{os.getpid()}.fresh")
        fresh.write_bytes(msgspec.json.encode(state))
        fresh.replace(file)

    def _standing(self, state: State) -> State:
        """As it is now: one whose worker says nothing any more has failed."""
        silent = state.status == "running" and time.time() - state.said_at > SILENT_SECONDS
        host, _, process = state.worker.rpartition(":")
        gone = host == socket.gethostname() and not psutil.pid_exists(int(process))
        if state.status in OVER or not (silent or gone):
            return state
        lost = "the worker that predicted it is gone; send it again"
        return msgspec.structs.replace(state, status="failed", failures=[lost])

    def _told(self, state: State) -> dict[str, Any]:
        run = {
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
