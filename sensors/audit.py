"""What people launch in Dagster's UI, or with `dg launch`, for the audit."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg

from ml_platform.access import Action, Audit, Channel
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit
from ml_platform_dagster.resources import LakeResource
from ml_platform_dagster.resources.private import (
    AUTO_MATERIALIZE,
    AUTOMATION_CONDITION,
    BACKFILL,
    PARTITION,
    RETRY_NUMBER,
    SCHEDULE_NAME,
    SENSOR_NAME,
    USER,
)
from ml_platform_dagster.resources.ranges import partitions_in
from ml_platform_dagster.sensors.status import sensor_status

LAUNCHED_BY = "ml_platform/by"
"""Tag of runs that the platform's own command line or API launched, and recorded itself."""
FROM_UI = "dagster/from_ui"
"""Tag of what was launched in Dagster's UI, which sets it itself: no name in Python has it."""
LAUNCHED_AT = "launched_at"
"""Detail that says when: a row is written when the sensor has noticed."""
BY_ITSELF = frozenset(
    {
        AUTO_MATERIALIZE, AUTOMATION_CONDITION, RETRY_NUMBER, SCHEDULE_NAME,
        SENSOR_NAME, LAUNCHED_BY,
    }
)  # fmt: skip
EVERYTHING = "__ASSET_JOB"
"""Dagster's job of all assets: of every use case where a run of it names none."""
SOMEBODY = "somebody in Dagster"
"""Dagster knows no people; its tag `user` is there where whoever launched a run has set it."""
FIRST_LOOK_BACK = timedelta(days=1)
OVERLAP = timedelta(seconds=5)
MOST_RUNS = 50


def build_audit(use_case: UseCase, settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that records what people launch, once a run and once a backfill."""

    @dg.sensor(
        name=f"{use_case.name}_audit",
        minimum_interval_seconds=30,
        default_status=sensor_status(settings),
        description="Records runs and backfills that people launched in the audit.",
    )
    def sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
        now = datetime.now(UTC)
        cursor = context.cursor
        since = datetime.fromtimestamp(float(cursor), UTC) if cursor else now - FIRST_LOOK_BACK
        records = context.instance.get_run_records(
            dg.RunsFilter(created_after=since),
            limit=MOST_RUNS,
            order_by="create_timestamp",
            ascending=True,
        )
        audit = Audit(lake.lake)
        recorded = {
            row.action.details.get("run")
            for row in audit.rows(what="launch", use_case=use_case.name)
        }
        commit = Commit(f"sensor {context.sensor_name}", use_case.code_version, "platform/audit")
        actions = 0
        for record in records:
            launched_at = record.create_timestamp.replace(tzinfo=UTC)
            action = _action(record.dagster_run, launched_at, use_case)
            if action is not None and action.details["run"] not in recorded:
                audit.record(action, commit)
                recorded.add(action.details["run"])
                actions += 1
        if records:
            # Runs may be stored in another order than they were created in, so a little is looked
            # at twice; never less far than before, or a tick full of runs would go nowhere.
            newest = records[-1].create_timestamp.replace(tzinfo=UTC)
            full = len(records) == MOST_RUNS
            cursor = str(max(newest if full else newest - OVERLAP, since).timestamp())
        return dg.SensorResult(skip_reason=dg.SkipReason(f"recorded: {actions}"), cursor=cursor)

    return [sensor]


def _action(run: dg.DagsterRun, launched_at: datetime, use_case: UseCase) -> Action | None:
    """What somebody launched, or None where nobody did or it is no matter of this use case."""
    tables = sorted(k.path[-1] for k in run.asset_selection or () if k.path[0] == use_case.name)
    # By its whole name: a use case may be called like the beginning of another one's jobs.
    jobs = {f"{use_case.name}_rollback", EVERYTHING}
    is_job_of_it = not run.asset_selection and run.job_name in jobs
    if not (tables or is_job_of_it) or BY_ITSELF & run.tags.keys():
        return None
    what = ", ".join(tables) or ("all tables" if run.job_name == EVERYTHING else run.job_name)
    who = run.tags.get(USER, SOMEBODY)
    way: Channel = "ui" if FROM_UI in run.tags else "dagster"
    at = {LAUNCHED_AT: launched_at.isoformat(timespec="seconds")}
    if (backfill := run.tags.get(BACKFILL)) is not None:
        return Action(who, way, "launch backfill", use_case.name, what, {"run": backfill, **at})
    details = {"run": run.run_id, **_partitions(run.tags), **at}
    return Action(who, way, "launch run", use_case.name, what, details)


def _partitions(tags: Mapping[str, str]) -> dict[str, str]:
    if (partitions := partitions_in(tags)) is None:
        return {}
    if PARTITION in tags:
        return {"partition": tags[PARTITION]}
    return {"partitions": "...".join(partitions)}
