"""What a schedule or the rollback sensor asked for, and what was lost, is asked for again."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from ml_platform.orchestrator import ATTEMPT_OF, MODEL, Run, tables_of, unanswered
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase, published_table
from ml_platform_dagster.resources.private import PARTITION, RANGE_END, RANGE_START
from ml_platform_dagster.sensors.attempts import (
    LOST,
    RETRIED_BY,
    SEPARATOR,
    next_attempt,
    retrier_of,
)
from ml_platform_dagster.sensors.failures import described, succeeded_after
from ml_platform_dagster.sensors.running import UNFINISHED, training_under_way

LOOK_BACK = timedelta(days=30)
"""A lost attempt is followed within hours; what is older than that is a matter for a person."""
ANSWERED = "ml_platform/answered"
"""Tag of a lost run that later ones have made up for, so that it is not looked at again."""
TABLES = ("model", "promotions", "predictions", "drift_report", "performance_report")
PARTITION_TAGS = frozenset({PARTITION, RANGE_START, RANGE_END})
OWN_TAGS = "ml_platform/"


def build_retries(use_case: UseCase, settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that asks again for lost runs which nobody else would ask for again."""
    tables = (*TABLES, *map(published_table, use_case.publish))

    @dg.sensor(
        name=retrier_of(use_case),
        # Not `target`: that is a job, whose assets have to share their partitions, and a cutoff is
        # a partition as soon as it begins.
        asset_selection=dg.AssetSelection.assets(*([use_case.name, table] for table in tables)),
        minimum_interval_seconds=30,
        # On in every deployment, as the rollback sensor is: it only follows what was asked for.
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Asks again for runs of the retraining schedule and of the rollback sensor that "
            "failed, or never started, after longer and longer waits, until one succeeds or a "
            "later run has made up for them. What a person has ended is left."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now, instance = datetime.now(UTC), context.instance
        requests, waiting = [], []
        for run in lost_runs(instance, use_case, now):
            if why := _held_up(instance, use_case, run):
                waiting.append(why)
                continue
            asked_by, _, what = run.attempt_of.partition(SEPARATOR)
            attempt = next_attempt(instance, what, asked_by, now)
            if attempt.waits_for:
                waiting.append(attempt.waits_for)
            else:
                requests.append(_request(run, f"{asked_by}{SEPARATOR}{attempt.run_key}"))
        skip = dg.SkipReason("; ".join(waiting) or "no run is lost")
        return dg.SensorResult(run_requests=requests, skip_reason=None if requests else skip)

    return [sensor]


def lost_runs(instance: dg.DagsterInstance, use_case: UseCase, now: datetime) -> list[Run]:
    """Runs to be asked for again, in order of creation: the last attempt of each thing.

    Of trainings the newest alone: a challenger at an older cutoff has seen less.
    """
    asked = dg.RunsFilter(
        tags={RETRIED_BY: retrier_of(use_case)}, statuses=LOST, updated_after=now - LOOK_BACK
    )
    records = [r for r in instance.get_run_records(asked) if ANSWERED not in r.dagster_run.tags]
    ended = [described(instance, record) for record in records]
    found = unanswered(use_case.name, ended, succeeded_after(instance, ended))
    subjects = {run.attempt_of for run in found}
    for run in ended:
        if run.attempt_of not in subjects and run.failed_for_good:
            instance.add_run_tags(run.id, {ANSWERED: "true"})
    trainings = [run for run in found if _trains(use_case, run)]
    return [run for run in found if run not in trainings[:-1]]


def _held_up(instance: dg.DagsterInstance, use_case: UseCase, run: Run) -> str:
    """Why nothing is asked for, whatever the waits: it is under way."""
    attempts = dg.RunsFilter(tags={ATTEMPT_OF: run.attempt_of}, statuses=UNFINISHED)
    under_way: Sequence[dg.DagsterRun] = instance.get_runs(attempts, limit=1)
    if not under_way and _trains(use_case, run):
        under_way = [other] if (other := training_under_way(instance, use_case)) else []
    return "; ".join(f"run {each.run_id} is under way ({each.status.value})" for each in under_way)


def _request(run: Run, run_key: str) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=run_key,
        asset_selection=[dg.AssetKey(table.split("/")) for table in run.tables],
        tags=_asked_tags(run.tags),
    )


def _asked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    # Those that it was asked for with: Dagster's others are about the lost run.
    return {k: v for k, v in tags.items() if k in PARTITION_TAGS or k.startswith(OWN_TAGS)}


def _trains(use_case: UseCase, run: Run) -> bool:
    return MODEL in tables_of(use_case.name, run.tables)
