"""Retraining by schedule, and when drift or poor performance is sustained."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from ml_platform.replay import observe, retraining_due
from ml_platform.replay.policy import CAUSES
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform_dagster.resources import LakeResource, RegistryResource
from ml_platform_dagster.resources.reasons import tags_of_schedule, tags_of_trigger
from ml_platform_dagster.sensors.attempts import next_attempt, retrier_of, tags_of_retried
from ml_platform_dagster.sensors.running import training_under_way
from ml_platform_dagster.sensors.status import schedule_status, sensor_status


def build_retraining(use_case: UseCase, settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that trains challengers of a use case because of what was seen."""
    causes = [cause for cause in CAUSES if cause in use_case.retrain.on]
    return [_build_sensor(use_case, causes, settings)] if causes else []


def build_retraining_schedule(use_case: UseCase, settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedule that trains challengers regularly, where the use case asks for one."""
    scheduled = "schedule" in use_case.retrain.on and use_case.model.schedule
    return [_build_schedule(use_case, settings)] if scheduled else []


def _keys(use_case: UseCase) -> list[dg.AssetKey]:
    return [dg.AssetKey([use_case.name, table]) for table in ("model", "promotions")]


def _build_sensor(
    use_case: UseCase, causes: Sequence[str], settings: Settings
) -> dg.SensorDefinition:
    # One sensor for both causes: Dagster keeps run keys by sensor, so that two of them, asked
    # before the run of the first exists, would start two trainings for one set of failures.
    @dg.sensor(
        name=f"{use_case.name}_retraining_sensor",
        target=dg.AssetSelection.assets(*_keys(use_case)),
        minimum_interval_seconds=60,
        default_status=sensor_status(settings),
        description=(
            f"Trains a challenger when {' or '.join(causes)} fails in "
            f"{use_case.retrain.sustained} partitions, {use_case.retrain.cooldown} after the last "
            "cutoff at the earliest, and never while a training is queued or running. A run that "
            "fails, or never starts, is asked for again, after longer and longer waits."
        ),
    )
    def sensor(
        context: dg.SensorEvaluationContext, lake: LakeResource, registry: RegistryResource
    ) -> dg.RunRequest | dg.SkipReason:
        # Looked at before the registry: a run that ends in between has left its version there.
        if run := training_under_way(context.instance, use_case):
            return dg.SkipReason(f"run {run.run_id} trains {use_case.name} ({run.status.value})")
        trigger = retraining_due(use_case, observe(lake.lake, registry.registry, use_case))
        if trigger is None:
            return dg.SkipReason(f"neither {' nor '.join(causes)} calls for a challenger")
        name = f"{use_case.name}_retraining_sensor"
        attempt = next_attempt(context.instance, trigger.key, name, datetime.now(UTC))
        if attempt.waits_for:
            return dg.SkipReason(f"a challenger of {use_case.name} is due: {attempt.waits_for}")
        return dg.RunRequest(
            run_key=attempt.run_key,
            asset_selection=_keys(use_case),
            partition_key=use_case.calendar.key(trigger.cutoff),
            tags={**tags_of_trigger(use_case, trigger), **attempt.tags},
        )

    return sensor


def _build_schedule(use_case: UseCase, settings: Settings) -> dg.ScheduleDefinition:
    name = f"{use_case.name}_retraining"

    @dg.schedule(
        name=name,
        cron_schedule=str(use_case.model.schedule),
        execution_timezone=use_case.timezone,
        default_status=schedule_status(settings),
        target=dg.AssetSelection.assets(*_keys(use_case)),
        description=(
            "Trains a challenger at the start of the partition in which it fires. A run that "
            f"fails, or never starts, is asked for again by `{retrier_of(use_case)}`."
        ),
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Sequence[dg.RunRequest] | dg.SkipReason:
        window = use_case.calendar.window_at(context.scheduled_execution_time)
        end = use_case.partitions.closes_at
        if end is not None and window.start >= end:
            return dg.SkipReason(f"the last partition of {use_case.name} ends at {end.isoformat()}")
        fired = context.scheduled_execution_time.astimezone(UTC).isoformat()
        tags = {**tags_of_schedule(use_case), **tags_of_retried(use_case, fired, name)}
        key = use_case.calendar.key(window)
        return [dg.RunRequest(partition_key=key, asset_selection=_keys(use_case), tags=tags)]

    return schedule
