"""What has been started, as it is now, and ending it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml_platform.backfill.runs import TAG, end_run
from ml_platform.errors import EndRefused, OrchestratorError, OrchestratorUnavailable, RunUnknown
from ml_platform.orchestrator import Backfill, Orchestrator, Run, RunStatus, StepStatus
from ml_platform.orchestrator.parameters import PIPELINE, VERSION, asked_in
from ml_platform.serving.control.documents import Look, Visible, document, unknown
from ml_platform.serving.control.rollbacks import Rollbacks
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window

RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
BACKFILL = re.compile(r"[a-z]{8}")
REASON = "ml_platform/reason"
"""Tag that says why somebody started it."""
PATIENCE_SECONDS = 20.0
"""How long is waited for a run that cannot be ended yet, since it is just starting."""

WORDS: Mapping[RunStatus, str] = {
    RunStatus.queued: "queued",
    RunStatus.not_started: "queued",
    RunStatus.managed: "queued",
    RunStatus.starting: "queued",
    RunStatus.started: "running",
    RunStatus.suspended: "running",
    RunStatus.canceling: "ending",
    RunStatus.success: "succeeded",
    RunStatus.failure: "failed",
    RunStatus.canceled: "ended",
}


@dataclass(frozen=True)
class Runs:
    """Looks at runs, backfills of the daemon and rollbacks, and ends them.

    Raises RunUnknown where there is none of an id, or the one who asks may not know of its use
    case; OrchestratorUnavailable and OrchestratorError where Dagster does not say.
    """

    dagster: Orchestrator
    use_cases: Mapping[str, UseCase]
    rollbacks: Rollbacks

    def look(self, run_id: str, visible: Visible) -> Look:
        """How far it is."""
        if RUN.fullmatch(run_id):
            found = self.of_run(self.dagster.run(run_id))
        elif BACKFILL.fullmatch(run_id):
            found = self.of_backfill(self.dagster.backfill(run_id))
        else:
            return self.rollbacks.look(self.rollbacks.find(run_id, visible))
        name = found["run"]["use_case"]
        if name not in self.use_cases or not visible(name):
            raise unknown(run_id)
        return found

    def look_for(self, run_id: str, use_case: str) -> Look:
        """As `look`, for who was promised a notification; a run that was deleted has failed."""
        try:
            return self.look(run_id, lambda name: True)
        except RunUnknown:
            lost = {"failures": ["Dagster does not know the run any more: it was deleted there"]}
            return document(run_id, use_case, "failed", lost, f"{self.dagster.url}/runs")

    def end(
        self,
        run_id: str,
        visible: Visible,
        require: Callable[[str], None],
        before: Callable[[str], None],
    ) -> Look:
        """End it, unless it is over; what it is then.

        require: raises where the one who asks may not end what is about this use case. before:
        called with the use case right before it is ended. Of a rollback, the runs that make
        partitions again are ended; the decision stands. Raises EndRefused in Dagster's words where
        it will not.
        """
        found = self.look(run_id, visible)
        use_case = found["run"]["use_case"]
        require(use_case)
        if found["run"]["is_over"]:
            return found
        before(use_case)
        try:
            self._end(run_id, visible)
        except OrchestratorUnavailable:
            raise
        except OrchestratorError as error:
            raise EndRefused(f"Dagster did not end '{run_id}': {error}") from error
        return self.look(run_id, visible)

    def of_run(self, run: Run) -> Look:
        """A run of Dagster."""
        names = {table.partition("/")[0] for table in run.tables}
        name = names.pop() if len(names) == 1 else ""
        status = WORDS[run.status]
        if run.status is RunStatus.failure and self.dagster.was_ended(run.id):
            status = "ended"
        failures = self.dagster.failures(run.id) if status == "failed" else ()
        more = {
            "tables": [table.partition("/")[2] for table in run.tables],
            "partitions": self._progress(name, run),
            "by": run.tags.get("user"),
            "reason": run.tags.get(REASON),
            "created_at": run.created_at.isoformat(),
            "ended_at": run.ended_at.isoformat() if run.ended_at else None,
            "failures": list(failures),
            **pipeline_of(run.tags),
        }
        return document(run.id, name, status, more, self.dagster.link(run.id))

    def of_backfill(self, backfill: Backfill) -> Look:
        """A backfill that Dagster's daemon carries out."""
        status = _status(backfill)
        failures: list[str] = []
        if status == "failed" or backfill.failed:
            causes = (cause for each in backfill.run_ids for cause in self.dagster.failures(each))
            failures = [*filter(None, [backfill.error]), *causes]
        more = {
            "partitions": {"done": backfill.materialized, "of": backfill.targeted or None},
            "by": backfill.tags.get("user"),
            "reason": backfill.tags.get(REASON),
            "failures": failures,
        }
        link = f"{self.dagster.url}/runs/b/{backfill.id}"
        return document(backfill.id, backfill.tags.get(TAG, ""), status, more, link)

    def _end(self, run_id: str, visible: Visible) -> None:
        if BACKFILL.fullmatch(run_id):
            self.dagster.cancel_backfill(run_id)
        elif RUN.fullmatch(run_id):
            end_run(self.dagster, run_id, PATIENCE_SECONDS)
        else:
            for run in self.rollbacks.runs(self.rollbacks.find(run_id, visible)):
                if not run.status.is_over:
                    end_run(self.dagster, run.id, PATIENCE_SECONDS)

    def _progress(self, name: str, run: Run) -> dict[str, Any] | None:
        if run.partitions is None or name not in self.use_cases:
            return None
        calendar = self.use_cases[name].calendar
        first, last = run.partitions
        try:
            window_range = Window(calendar.window(first).start, calendar.window(last).end)
        except ValueError:
            # The use case has other partitions by now.
            return {"first": first, "last": last, "done": None, "of": None}
        windows = sum(1 for _ in calendar.windows(window_range))
        of = windows * len(run.tables)
        finished = {t for t, step in run.steps.items() if step is StepStatus.success}
        # Partitions that came out empty, or as they were, are done without a materialisation.
        done = max(run.materialized, windows * len(finished & set(run.tables)))
        succeeded = run.status is RunStatus.success
        return {"first": first, "last": last, "done": of if succeeded else min(done, of), "of": of}


def pipeline_of(tags: Mapping[str, str]) -> dict[str, Any]:
    """What a run of a published pipeline was asked for; of any other run nothing.

    >>> pipeline_of({"ml_platform/pipeline": "train", "ml_platform/parameters": "no JSON"})
    {'pipeline': {'name': 'train', 'version': None}, 'parameters': None}
    """
    if PIPELINE not in tags:
        return {}
    pipeline = {"name": tags[PIPELINE], "version": tags.get(VERSION)}
    try:
        return {"pipeline": pipeline, "parameters": asked_in(tags)}
    except ValueError:
        # Whoever launches runs in Dagster can write anything there.
        return {"pipeline": pipeline, "parameters": None}


def _status(backfill: Backfill) -> str:
    if not backfill.is_over:
        return "ending" if backfill.status == "CANCELING" else "running"
    if backfill.succeeded:
        return "succeeded"
    return "ended" if backfill.status == "CANCELED" else "failed"
