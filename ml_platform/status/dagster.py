"""What only Dagster knows: which sensors and schedules fail, and which runs did."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ml_platform.alerts import FailedRun
from ml_platform.errors import OrchestratorError
from ml_platform.orchestrator import Orchestrator, Outcomes, outcomes_since
from ml_platform.orchestrator.ticks import Failing, failing_ticks
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase

LONGEST_SECONDS = 10.0
LOOK_BACK = timedelta(days=7)
"""Runs that failed before are shown where the alerts sensor has noted them."""


@dataclass(frozen=True)
class Dagster:
    """Dagster as it answers now."""

    url: str
    failing: tuple[Failing, ...] = ()
    failed: Mapping[str, tuple[FailedRun, ...]] = field(default_factory=dict)
    """By use case, runs and backfills of the last days that no later one has made up for."""
    problem: str | None = None
    """Why it could not be asked; then nothing is known of what fails."""

    def of(self, use_case: str, use_cases: list[str]) -> tuple[Failing, ...]:
        """What fails of one use case: sensors and schedules bear its name in front."""
        return tuple(each for each in self.failing if owner_of(each, use_cases) == use_case)


def ask_dagster(settings: Settings, use_cases: Sequence[UseCase] = ()) -> Dagster:
    """Ask Dagster what fails, and what has failed of some use cases.

    Where it is unavailable, the answer says so.
    """
    with Orchestrator(settings.dagster_url, LONGEST_SECONDS) as orchestrator:
        try:
            failing = failing_ticks(orchestrator.post)
            failed = _failed(orchestrator, use_cases) if use_cases else {}
            return Dagster(orchestrator.url, failing, failed)
        except OrchestratorError as error:
            return Dagster(orchestrator.url, problem=str(error))


def _failed(
    orchestrator: Orchestrator, use_cases: Sequence[UseCase]
) -> dict[str, tuple[FailedRun, ...]]:
    outcomes = outcomes_since(orchestrator, datetime.now(UTC) - LOOK_BACK)
    return {case.name: tuple(_failed_of(orchestrator, outcomes, case)) for case in use_cases}


def _failed_of(
    orchestrator: Orchestrator, outcomes: Outcomes, case: UseCase
) -> Iterator[FailedRun]:
    for run in outcomes.unanswered(case.name):
        errors = orchestrator.failures(run.id)
        yield FailedRun.of_run(case, run, errors[0] if errors else "", outcomes.tried(run))
    for backfill in outcomes.unanswered_backfills(case.name):
        yield FailedRun.of_backfill(case, backfill)


def owner_of(failing: Failing, use_cases: list[str]) -> str | None:
    """The use case that a sensor or a schedule belongs to; None where it is the deployment's."""
    owners = [name for name in use_cases if failing.name.startswith(f"{name}_")]
    # `trips_too_alerts` begins with `trips_`, too.
    return max(owners, key=len) if owners and failing.kind != "code location" else None
