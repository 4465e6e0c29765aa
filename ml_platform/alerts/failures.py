"""Runs that failed, as whoever runs them hands them in: the lake knows nothing of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ml_platform.alerts.condition import Condition, Findings, clock, run_url
from ml_platform.orchestrator import MODEL, Backfill, Run, sentence, tables_of
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase

LONGEST_ERROR = 500
RETRY_NUMBER = "dagster/retry_number"
"""Tag of a run that Dagster itself tried again: how often it was tried before."""


@dataclass(frozen=True)
class FailedRun:
    """A run, or a backfill, of a use case that failed, and that no later one has made up for."""

    run_id: str
    what: str
    """Tables and partitions, or the name of the job."""
    error: str
    """Why, in the words of the first step that failed."""
    failed_at: datetime
    tried: int = 1
    """How often, with the runs that it is a retry of."""
    is_backfill: bool = False
    trains: bool = False
    """Whether a model was to come of it."""
    attempt_of: str = ""
    """What it is an attempt of, where a sensor asks for it again: one condition for them all."""

    @classmethod
    def of_run(cls, use_case: UseCase, run: Run, error: str, tried: int) -> "FailedRun":
        """A failed run; error: what its first failed step raised, or else why it ended."""
        tables = tables_of(use_case.name, run.tables)
        what = ", ".join(tables) or run.job
        partitions = " to ".join(dict.fromkeys(run.partitions or ()))
        retried = int(run.tags.get(RETRY_NUMBER, "0")) + 1
        return cls(
            run_id=run.id,
            what=f"{what} ({partitions})" if partitions else what,
            error=sentence(error),
            failed_at=run.ended_at or run.created_at,
            tried=tried if run.attempt_of else retried,
            attempt_of=run.attempt_of,
            trains=MODEL in tables,
        )

    @classmethod
    def of_backfill(cls, use_case: UseCase, backfill: Backfill) -> "FailedRun":
        """A backfill that failed itself."""
        tables = tables_of(use_case.name, backfill.tables)
        return cls(
            run_id=backfill.id,
            what=", ".join(tables),
            error=sentence(backfill.error or ""),
            failed_at=backfill.ended_at or backfill.created_at,
            is_backfill=True,
            trains=MODEL in tables,
        )


def find_failures(settings: Settings, use_case: UseCase, runs: Sequence[FailedRun]) -> Findings:
    """Each failed run, for as long as no later one has succeeded in its place."""
    return Findings(tuple(_failed(settings, use_case, run) for run in runs))


def _failed(settings: Settings, use_case: UseCase, run: FailedRun) -> Condition:
    error = run.error.strip()
    short = error if len(error) <= LONGEST_ERROR else f"{error[:LONGEST_ERROR]} …"
    tries = f"tried {run.tried} times" if run.tried > 1 else "nothing"
    kind = "backfill" if run.is_backfill else "run"
    follows = " It is asked for again by itself." if run.attempt_of else ""
    page = settings.dagster_url.rstrip("/")
    return Condition(
        use_case=use_case.name,
        kind="failed_run",
        subject=run.attempt_of or run.run_id,
        title=f"A {kind} of {use_case.name} failed: {run.what}",
        what=short or f"The {kind} ended without an error message.",
        since=run.failed_at,
        since_text=clock(run.failed_at, use_case.calendar.timezone),
        done=f"{tries}; look at the {kind}, and run it again from there. It is over once a later "
        f"one of the same partitions has succeeded.{follows}",
        link=(f"{page}/runs/b/{run.run_id}" if run.is_backfill else run_url(settings, run.run_id)),
    )
