"""Runs and backfills of a use case that failed, and that no later one has made up for."""

from collections.abc import Iterable
from datetime import UTC, datetime

import dagster as dg

from ml_platform.alerts import FailedRun
from ml_platform.orchestrator import (
    ATTEMPT_OF,
    Backfill,
    Run,
    RunStatus,
    unanswered,
    unanswered_backfills,
)
from ml_platform.spec.use_case import UseCase
from ml_platform_dagster.resources.private import (
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)
from ml_platform_dagster.sensors.attempts import SEPARATOR, lost_attempts

MOST_RUNS = 50
MOST_LATER = 200
OVER = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


def failed_since(instance: dg.DagsterInstance, since: datetime) -> list[dg.RunRecord]:
    """Runs that failed, or never started, after a moment, in order of their ends."""
    return list(
        instance.get_run_records(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since),
            limit=MOST_RUNS,
            order_by="update_timestamp",
            ascending=True,
        )
    )


def standing_runs(
    instance: dg.DagsterInstance,
    use_case: UseCase,
    records: Iterable[dg.RunRecord],
    noted: Iterable[str],
) -> list[FailedRun]:
    """Those that are a matter of a use case and still unanswered.

    noted: ids of runs that were before, or what runs were attempts of; of attempts the last one
    that is over stands for all.
    """
    subjects = list(noted)
    ids = [subject for subject in subjects if SEPARATOR not in subject]
    before = list(instance.get_run_records(dg.RunsFilter(run_ids=ids))) if ids else []
    for subject in set(subjects) - set(ids):
        attempts = dg.RunsFilter(tags={ATTEMPT_OF: subject}, statuses=OVER)
        before += instance.get_run_records(attempts, limit=1)
    ended = [described(instance, record) for record in (*before, *records)]
    return [
        FailedRun.of_run(
            use_case,
            run,
            _error(instance, run.id),
            len(lost_attempts(instance, run.attempt_of)) if run.attempt_of else 1,
        )
        for run in unanswered(use_case.name, ended, succeeded_after(instance, ended))
    ]


def succeeded_after(instance: dg.DagsterInstance, failed: Iterable[Run]) -> list[Run]:
    """The newest runs that succeeded and were created after the first of those that failed."""
    if (first := min((run.created_at for run in failed), default=None)) is None:
        return []
    asked = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], created_after=first)
    return [described(instance, r) for r in instance.get_run_records(asked, limit=MOST_LATER)]


def standing_backfills(
    instance: dg.DagsterInstance, use_case: UseCase, since: datetime
) -> list[FailedRun]:
    """Backfills that failed themselves; what only some runs of one failed of is in these runs."""
    failed = _backfills(instance, [BulkActionStatus.FAILED], since)
    first = min((backfill.created_at for backfill in failed), default=None)
    over = [BulkActionStatus.COMPLETED, BulkActionStatus.COMPLETED_SUCCESS]
    succeeded = _backfills(instance, over, first) if first else []
    standing = unanswered_backfills(use_case.name, failed, succeeded)
    return [FailedRun.of_backfill(use_case, backfill) for backfill in standing]


def ended_at(record: dg.RunRecord) -> datetime:
    """When a run ended."""
    return record.update_timestamp.replace(tzinfo=UTC)


def described(instance: dg.DagsterInstance, record: dg.RunRecord) -> Run:
    """A run of Dagster's instance as the platform describes runs."""
    run = record.dagster_run
    status = RunStatus(run.status.value)
    return Run(
        id=run.run_id,
        status=status,
        tags=run.tags,
        tables=tuple("/".join(key.path) for key in _keys(instance, run)),
        created_at=record.create_timestamp.replace(tzinfo=UTC),
        ended_at=ended_at(record) if status.is_over else None,
        job=run.job_name,
    )


def _backfills(
    instance: dg.DagsterInstance, statuses: list[BulkActionStatus], since: datetime
) -> list[Backfill]:
    asked = BulkActionsFilter(statuses=statuses, created_after=since)
    return [_described(b) for b in instance.get_backfills(filters=asked, limit=MOST_RUNS)]


def _described(backfill: PartitionBackfill) -> Backfill:
    ended = backfill.backfill_end_timestamp
    return Backfill(
        id=backfill.backfill_id,
        status=backfill.status.value,
        tags=backfill.tags or {},
        tables=tuple("/".join(key.path) for key in backfill.asset_selection or ()),
        created_at=datetime.fromtimestamp(backfill.backfill_timestamp, UTC),
        ended_at=datetime.fromtimestamp(ended, UTC) if ended else None,
        error=_cause(backfill.error) if backfill.error else None,
    )


def _keys(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterable[dg.AssetKey]:
    if run.asset_selection:
        return run.asset_selection
    planned = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, limit=MOST_RUNS
    )
    events = [record.event_log_entry.dagster_event for record in planned.records]
    return {event.asset_key for event in events if event and event.asset_key}


def _error(instance: dg.DagsterInstance, run_id: str) -> str:
    for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
        for found in instance.get_records_for_run(run_id, of_type=kind, limit=1).records:
            event = found.event_log_entry.dagster_event
            data = event.event_specific_data if event else None
            if (error := getattr(data, "error", None)) is not None:
                return _cause(error)
            if event and event.message:
                return str(event.message)
    return ""


def _cause(error: object) -> str:
    while (cause := getattr(error, "cause", None)) is not None:
        error = cause
    return str(getattr(error, "message", error))
