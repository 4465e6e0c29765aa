"""Alerts: what is the matter with a use case reaches people, once."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

# A name that Dagster keeps to itself; tests/test_sensors_alerts.py fails when it moves.
from dagster._core.storage.tags import WILL_RETRY_TAG

from ml_platform.alerts import Channels, FailedRun, find_conditions, tell
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit
from resources import LakeResource
from resources.ranges import partitions_in
from sensors.status import sensor_status

FIRST_LOOK_BACK = timedelta(days=1)
OVERLAP = timedelta(seconds=5)
MOST_RUNS = 50
PLATFORM_ERRORS = "ml_platform.errors."


def build_alerts(use_case: UseCase, settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that tells people what they should know about a use case."""

    @dg.sensor(
        name=f"{use_case.name}_alerts",
        minimum_interval_seconds=45,
        default_status=sensor_status(settings),
        description=(
            "Tells of drift, poor performance, failed runs, quarantine, late tables and decisions "
            "about models on the channels that the setting `alerts` names."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
        now = datetime.now(UTC)
        since = datetime.fromtimestamp(float(context.cursor), UTC) if context.cursor else None
        records = _failed(context.instance, since or now - FIRST_LOOK_BACK)
        runs = [run for r in records if (run := _described(context.instance, r, use_case))]
        told = tell(
            lake.lake,
            use_case,
            Channels.of(lake.lake.settings),
            lambda: find_conditions(lake.lake, use_case, now, runs),
            now,
            Commit(f"sensor {context.sensor_name}", use_case.code_version, "alerts"),
        )
        for problem in told.problems:
            context.log.warning(problem)
        # Runs that end within one tick may be stored out of order, so a little is looked at twice;
        # a run that has been told is not told again.
        newest = max((_ended(r) for r in records), default=None)
        cursor = str((newest - OVERLAP).timestamp()) if newest else context.cursor
        return dg.SensorResult(skip_reason=dg.SkipReason(str(told)), cursor=cursor)

    return [sensor]


def _failed(instance: dg.DagsterInstance, since: datetime) -> Sequence[dg.RunRecord]:
    return instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since),
        limit=MOST_RUNS,
        order_by="update_timestamp",
        ascending=True,
    )


def _ended(record: dg.RunRecord) -> datetime:
    return record.update_timestamp.replace(tzinfo=UTC)


def _described(
    instance: dg.DagsterInstance, record: dg.RunRecord, use_case: UseCase
) -> FailedRun | None:
    """What failed, or None where that is no matter of this use case or is tried again by itself."""
    run, tags = record.dagster_run, record.dagster_run.tags
    keys = run.asset_selection or _planned(instance, run.run_id)
    tables = sorted(key.path[-1] for key in keys if key.path[0] == use_case.name)
    # By its whole name: a use case may be called like the beginning of another one's jobs.
    is_job_of_it = not keys and run.job_name == f"{use_case.name}_rollback"
    if not (tables or is_job_of_it) or tags.get(WILL_RETRY_TAG) == "true":
        return None
    partitions = " to ".join(dict.fromkeys(partitions_in(tags) or ()))
    what = ", ".join(tables) or run.job_name
    return FailedRun(
        run_id=run.run_id,
        what=f"{what} ({partitions})" if partitions else what,
        error=_error(instance, run.run_id),
        failed_at=_ended(record),
        tried=int(tags.get("dagster/retry_number", "0")) + 1,
    )


def _planned(instance: dg.DagsterInstance, run_id: str) -> set[dg.AssetKey]:
    planned = instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, limit=MOST_RUNS
    )
    events = [record.event_log_entry.dagster_event for record in planned.records]
    return {event.asset_key for event in events if event and event.asset_key}


def _error(instance: dg.DagsterInstance, run_id: str) -> str:
    for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
        for found in instance.get_records_for_run(run_id, of_type=kind, limit=1).records:
            event = found.event_log_entry.dagster_event
            data = event.event_specific_data if event else None
            error = getattr(data, "error", None)
            while error is not None and error.cause is not None:
                error = error.cause
            if error is not None:
                # The platform's own errors are sentences; of others the class says something too.
                return (
                    str(error.message).strip().removeprefix(f"{PLATFORM_ERRORS}{error.cls_name}: ")
                )
            if event and event.message:
                return str(event.message)
    return ""
