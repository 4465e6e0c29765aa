"""Runs and backfills of a use case that failed, and that no later one has made up for."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

import dagster as dg

# Names that Dagster keeps to itself; tests/test_sensors_alerts.py fails when they move.
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.tags import WILL_RETRY_TAG

from ml_platform.alerts import FailedRun
from ml_platform.spec.use_case import UseCase
from resources.ranges import partitions_in
from sensors.attempts import ATTEMPT_OF, SEPARATOR, lost_attempts

MOST_RUNS = 50
MOST_LATER = 200
PLATFORM_ERRORS = "ml_platform.errors."
MODEL = "model"


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
    stands for all.
    """
    subjects = list(noted)
    ids = [subject for subject in subjects if SEPARATOR not in subject]
    before = list(instance.get_run_records(dg.RunsFilter(run_ids=ids))) if ids else []
    for subject in set(subjects) - set(ids):
        before += instance.get_run_records(dg.RunsFilter(tags={ATTEMPT_OF: subject}), limit=1)
    found: dict[str, dg.RunRecord] = {}
    for record in sorted((*before, *records), key=lambda each: each.create_timestamp):
        run = record.dagster_run
        found[run.tags.get(ATTEMPT_OF, run.run_id)] = record
    return [
        run
        for record in found.values()
        if (run := _described(instance, record, use_case))
        and not _is_answered(instance, record, use_case)
    ]


def standing_backfills(
    instance: dg.DagsterInstance, use_case: UseCase, since: datetime
) -> Iterator[FailedRun]:
    """Backfills that failed themselves; what only some runs of one failed of is in these runs."""
    failed = instance.get_backfills(
        filters=BulkActionsFilter(statuses=[BulkActionStatus.FAILED], created_after=since),
        limit=MOST_RUNS,
    )
    for backfill in failed:
        tables = _tables(backfill.asset_selection or (), use_case)
        begun = datetime.fromtimestamp(backfill.backfill_timestamp, UTC)
        if tables and not _has_follower(instance, backfill, begun):
            ended = backfill.backfill_end_timestamp
            yield FailedRun(
                run_id=backfill.backfill_id,
                what=", ".join(tables),
                error=_sentence(backfill.error) if backfill.error else "",
                failed_at=datetime.fromtimestamp(ended, UTC) if ended else begun,
                is_backfill=True,
                trains=MODEL in tables,
            )


def ended_at(record: dg.RunRecord) -> datetime:
    """When a run ended."""
    return record.update_timestamp.replace(tzinfo=UTC)


def _described(
    instance: dg.DagsterInstance, record: dg.RunRecord, use_case: UseCase
) -> FailedRun | None:
    """What failed, or None where that is no matter of this use case or is tried again by itself."""
    run, tags = record.dagster_run, record.dagster_run.tags
    if run.status is not dg.DagsterRunStatus.FAILURE or tags.get(WILL_RETRY_TAG) == "true":
        return None
    tables = _tables(_keys(instance, run), use_case)
    # By its whole name: a use case may be called like the beginning of another one's jobs.
    is_job_of_it = not tables and run.job_name == f"{use_case.name}_rollback"
    if not (tables or is_job_of_it):
        return None
    partitions = " to ".join(dict.fromkeys(partitions_in(tags) or ()))
    what = ", ".join(tables) or run.job_name
    return FailedRun(
        run_id=run.run_id,
        what=f"{what} ({partitions})" if partitions else what,
        error=_error(instance, run.run_id),
        failed_at=ended_at(record),
        tried=_tried(instance, tags),
        attempt_of=tags.get(ATTEMPT_OF, ""),
        trains=MODEL in tables,
    )


def _tried(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> int:
    if ATTEMPT_OF in tags:
        return len(lost_attempts(instance, tags[ATTEMPT_OF]))
    return int(tags.get("dagster/retry_number", "0")) + 1


def _is_answered(instance: dg.DagsterInstance, record: dg.RunRecord, use_case: UseCase) -> bool:
    """Whether a later run of the same tables and partitions has succeeded; of a model any later."""
    run = record.dagster_run
    tables = set(_tables(_keys(instance, run), use_case))
    later = instance.get_run_records(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.SUCCESS],
            created_after=record.create_timestamp.replace(tzinfo=UTC),
        ),
        limit=MOST_LATER,
    )
    for other in (each.dagster_run for each in later):
        made = set(_tables(_keys(instance, other), use_case))
        if not tables and other.job_name == run.job_name:
            return True
        if tables and (MODEL in tables & made or (tables <= made and _covers(other, run))):
            return True
    return False


def _covers(other: dg.DagsterRun, run: dg.DagsterRun) -> bool:
    wanted, had = partitions_in(run.tags), partitions_in(other.tags)
    if wanted is None or had is None:
        return wanted == had
    # Keys of one calendar are in order of time.
    return had[0] <= wanted[0] and wanted[1] <= had[1]


def _has_follower(
    instance: dg.DagsterInstance, backfill: PartitionBackfill, begun: datetime
) -> bool:
    wanted = set(backfill.asset_selection or ())
    later = instance.get_backfills(
        filters=BulkActionsFilter(
            statuses=[BulkActionStatus.COMPLETED_SUCCESS], created_after=begun
        ),
        limit=MOST_RUNS,
    )
    return any(wanted <= set(other.asset_selection or ()) for other in later)


def _tables(keys: Iterable[dg.AssetKey], use_case: UseCase) -> list[str]:
    return sorted(key.path[-1] for key in keys if key.path[0] == use_case.name)


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
                return _sentence(error)
            if event and event.message:
                return str(event.message)
    return ""


def _sentence(error: object) -> str:
    while (cause := getattr(error, "cause", None)) is not None:
        error = cause
    # The platform's own errors are sentences; of others the class says something too.
    said, name = str(getattr(error, "message", error)), getattr(error, "cls_name", "")
    return said.strip().removeprefix(f"{PLATFORM_ERRORS}{name}: ")
