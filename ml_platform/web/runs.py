"""The page of what Dagster works on: runs and backfills under way, and runs that failed."""

from datetime import UTC, datetime, timedelta
from typing import Any

from ml_platform.errors import OrchestratorError
from ml_platform.orchestrator import Orchestrator, Run
from ml_platform.orchestrator.records import UNDER_WAY, Backfill, RunStatus
from ml_platform.settings import Settings

LONGEST_SECONDS = 10.0
FAILED_SINCE = timedelta(days=7)
MOST = 100
"""Runs of a list."""


def runs_page(settings: Settings) -> dict[str, Any]:
    """Values of the page; where Dagster does not answer, `problem` says so."""
    with Orchestrator(settings.dagster_url, LONGEST_SECONDS) as dagster:
        try:
            return {"problem": "", **read_runs(dagster, datetime.now(UTC))}
        except OrchestratorError as error:
            return {"problem": str(error), "running": [], "backfills": [], "failed": []}


def read_runs(dagster: Orchestrator, now: datetime) -> dict[str, Any]:
    """Runs and backfills that are not over, with their progress, and failures of the last days.

    Raises OrchestratorError where Dagster does not answer.
    """
    # A list of runs knows no progress; few are under way at once.
    running = [dagster.run(each.id) for each in dagster.runs(statuses=UNDER_WAY, limit=MOST)]
    failed = dagster.runs(
        statuses=[RunStatus.failure], created_after=now - FAILED_SINCE, limit=MOST
    )
    return {
        "running": [_run(dagster, each) for each in running],
        "backfills": [_backfill(dagster, each) for each in dagster.backfills({})],
        "failed": [_run(dagster, each) for each in failed],
    }


def _run(dagster: Orchestrator, run: Run) -> dict[str, Any]:
    first_and_last = run.partitions
    return {
        "id": run.id[:8],
        "href": dagster.link(run.id),
        "status": run.status.value.lower().replace("_", " "),
        "what": ", ".join(run.tables) or run.job,
        "partitions": " to ".join(dict.fromkeys(first_and_last)) if first_and_last else "",
        "materialized": run.materialized,
        "began": f"{run.created_at.astimezone(UTC):%Y-%m-%d %H:%M}",
        "is_retried": run.status is RunStatus.failure and not run.failed_for_good,
    }


def _backfill(dagster: Orchestrator, backfill: Backfill) -> dict[str, Any]:
    return {
        "id": backfill.id,
        "href": f"{dagster.url.rstrip('/')}/runs/b/{backfill.id}",
        "what": ", ".join(backfill.tables),
        "targeted": backfill.targeted,
        "materialized": backfill.materialized,
        "failed": backfill.failed,
        "share": 100 * backfill.materialized / backfill.targeted if backfill.targeted else 0.0,
        "began": f"{backfill.created_at.astimezone(UTC):%Y-%m-%d %H:%M}",
    }
