"""How runs and backfills of the last days ended, asked of Dagster."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ml_platform.orchestrator import queries
from ml_platform.orchestrator.answers import known
from ml_platform.orchestrator.client import Orchestrator
from ml_platform.orchestrator.records import Backfill, Run, RunStatus
from ml_platform.orchestrator.unanswered import unanswered, unanswered_backfills

MOST_FAILED = 100
MOST_SUCCEEDED = 500
"""Of the newest that succeeded; what only an earlier one has made up for counts as standing."""


@dataclass(frozen=True)
class Outcomes:
    """Runs and backfills that ended since some moment, as far as failures need them."""

    ended: tuple[Run, ...] = ()
    """Failed or canceled."""
    succeeded: tuple[Run, ...] = ()
    failed_backfills: tuple[Backfill, ...] = ()
    succeeded_backfills: tuple[Backfill, ...] = ()

    def unanswered(self, use_case: str) -> list[Run]:
        """Failed runs of a use case that no later one has made up for."""
        return unanswered(use_case, self.ended, self.succeeded)

    def unanswered_backfills(self, use_case: str) -> list[Backfill]:
        """Failed backfills of a use case that no later one has made up for."""
        return unanswered_backfills(use_case, self.failed_backfills, self.succeeded_backfills)

    def tried(self, run: Run) -> int:
        """How often what a failed run is an attempt of has failed; 1 where it is none."""
        alike = [r for r in self.ended if run.attempt_of and r.attempt_of == run.attempt_of]
        return max(1, sum(r.failed_for_good for r in alike))


def outcomes_since(orchestrator: Orchestrator, since: datetime) -> Outcomes:
    """What ended after a moment; of what succeeded only what came after the first failure.

    Raises OrchestratorUnavailable and OrchestratorError as every method of `orchestrator` does.
    """
    over = [RunStatus.failure, RunStatus.canceled]
    ended = orchestrator.runs(statuses=over, limit=MOST_FAILED, updated_after=since)
    failed = backfill_outcomes(orchestrator, ["FAILED"], since, MOST_FAILED)
    return Outcomes(
        _with_tables(orchestrator, ended),
        _with_tables(orchestrator, _succeeded(orchestrator, ended)),
        tuple(failed),
        tuple(_succeeded_backfills(orchestrator, failed)),
    )


def planned_tables(
    orchestrator: Orchestrator, run_ids: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Tables that runs were going to materialise, also those of a whole job, by run."""
    if not run_ids:
        return {}
    asked = {"filter": {"runIds": list(run_ids)}}
    said = known(orchestrator.post(queries.PLANNED, asked)["runsOrError"], "Runs")
    return {
        each["runId"]: tuple("/".join(asset["key"]["path"]) for asset in each["assets"])
        for each in said["results"]
    }


def backfill_outcomes(
    orchestrator: Orchestrator, statuses: Sequence[str], created_after: datetime, limit: int
) -> list[Backfill]:
    """Backfills in one of the statuses, newest first, without how far each of them came."""
    filters = {"statuses": list(statuses), "createdAfter": created_after.timestamp()}
    answer = orchestrator.post(queries.BACKFILL_OUTCOMES, {"filters": filters, "limit": limit})
    said = known(answer["partitionBackfillsOrError"], "PartitionBackfills")
    return [Backfill.read(each) for each in said["results"]]


def _succeeded(orchestrator: Orchestrator, ended: Sequence[Run]) -> list[Run]:
    if not ended:
        return []
    first = min(run.created_at for run in ended)
    return orchestrator.runs(
        statuses=[RunStatus.success], limit=MOST_SUCCEEDED, created_after=first
    )


def _succeeded_backfills(
    orchestrator: Orchestrator, failed: Sequence[Backfill]
) -> Iterable[Backfill]:
    if not failed:
        return []
    first = min(backfill.created_at for backfill in failed)
    wanted = ["COMPLETED", "COMPLETED_SUCCESS"]
    return backfill_outcomes(orchestrator, wanted, first, MOST_SUCCEEDED)


def _with_tables(orchestrator: Orchestrator, runs: Sequence[Run]) -> tuple[Run, ...]:
    """The same, also with tables where a run of a whole job named none."""
    planned = planned_tables(orchestrator, [run.id for run in runs if not run.tables])
    return tuple(replace(run, tables=run.tables or planned.get(run.id, ())) for run in runs)
