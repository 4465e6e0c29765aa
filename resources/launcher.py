"""How Dagster starts runs, and how it finds that the process of one has died."""

import psutil  # type: ignore[import-untyped]
from dagster import DagsterEventType, DagsterRun, DefaultRunLauncher

from ml_platform_dagster.resources.private import (
    GRPC_INFO,
    CheckRunHealthResult,
    EngineEventData,
    WorkerStatus,
)

FIRST_EVENTS = 20


class WatchedRunLauncher(DefaultRunLauncher):
    """Runs are processes of the code server, as by default, and run monitoring looks after them.

    A run whose process dies is marked as failed by its code server. Where that has died too, as
    when the machine is switched off, the run would stay STARTED for good: with it the use case
    could not be retrained, and its partitions would not be caught up with. So run monitoring is
    knows whether the process is still there.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """NOT_FOUND where a run that has started on this machine has no process any more."""
        if not _is_here(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its processes are elsewhere")
        if (pid := self._pid(run.run_id)) is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "it has not said which process it is")
        if _runs_since(pid, self._started_at(run.run_id)):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        said = f"its process {pid} has ended without a word, and so has its code server"
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, said)

    def _pid(self, run_id: str) -> int | None:
        # The first to name one is the process of the run itself.
        found = self._instance.get_records_for_run(
            run_id, of_type=DagsterEventType.ENGINE_EVENT, limit=FIRST_EVENTS, ascending=True
        )
        for record in found.records:
            event = record.event_log_entry.dagster_event
            data = event.event_specific_data if event else None
            if isinstance(data, EngineEventData) and "pid" in data.metadata:
                return int(str(data.metadata["pid"].value))
        return None

    def _started_at(self, run_id: str) -> float:
        record = self._instance.get_run_record_by_id(run_id)
        return record.start_time or 0.0 if record else 0.0


def _is_here(run: DagsterRun) -> bool:
    # Code servers that Dagster starts beside itself listen on a Unix socket; what listens on a port
    # may be another container's, whose processes cannot be seen from here.
    return '"socket"' in run.tags.get(GRPC_INFO, "")


def _runs_since(pid: int, moment: float) -> bool:
    """Whether a process is there, and is not a later one that was given the same number."""
    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= moment)
    except psutil.NoSuchProcess:
        return False
