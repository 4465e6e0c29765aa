"""How runs and backfills of the last days ended, asked of Dagster."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

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

    Raises OrchestratorAway and OrchestratorError as every method of `orchestrator` does.
    """
    over = [RunStatus.failure, RunStatus.canceled]
    ended = orchestrator.runs(statuses=over, limit=MOST_FAILED, updated_after=since)
    failed = orchestrator.backfill_outcomes(["FAILED"], since, MOST_FAILED)
    return Outcomes(
        _with_tables(orchestrator, ended),
        _with_tables(orchestrator, _succeeded(orchestrator, ended)),
        tuple(failed),
        tuple(_succeeded_backfills(orchestrator, failed)),
    )


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
    return orchestrator.backfill_outcomes(wanted, first, MOST_SUCCEEDED)


def _with_tables(orchestrator: Orchestrator, runs: Sequence[Run]) -> tuple[Run, ...]:
    """The same, also with tables where a run of a whole job named none."""
    planned = orchestrator.planned([run.id for run in runs if not run.tables])
    return tuple(replace(run, tables=run.tables or planned.get(run.id, ())) for run in runs)
