"""Retraining by schedule, and when drift or poor performance is sustained."""

from collections.abc import Sequence
from typing import Literal

import dagster as dg

from ml_platform.monitoring import window_verdicts
from ml_platform.replay import retraining_due
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase, digest
from resources import LakeResource, RegistryResource
from sensors.status import schedule_status, sensor_status

CAUSES: tuple[Literal["drift", "performance"], ...] = ("drift", "performance")


def build_retraining(use_case: UseCase, settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors that train challengers of a use case because of what was seen."""
    return [_build_sensor(use_case, c, settings) for c in CAUSES if c in use_case.retrain.on]


def build_retraining_schedule(use_case: UseCase, settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedule that trains challengers regularly, where the use case asks for one."""
    scheduled = "schedule" in use_case.retrain.on and use_case.model.schedule
    return [_build_schedule(use_case, settings)] if scheduled else []


def _selection(use_case: UseCase) -> dg.AssetSelection:
    return dg.AssetSelection.assets([use_case.name, "model"], [use_case.name, "promotions"])


def _build_sensor(
    use_case: UseCase, cause: Literal["drift", "performance"], settings: Settings
) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{use_case.name}_{cause}_retraining",
        target=_selection(use_case),
        minimum_interval_seconds=60,
        default_status=sensor_status(settings),
        description=(
            f"Trains a challenger when {cause} fails in {use_case.retrain.sustained} partitions, "
            f"at most once in {use_case.retrain.cooldown}."
        ),
    )
    def sensor(lake: LakeResource, registry: RegistryResource) -> dg.RunRequest | dg.SkipReason:
        verdicts = window_verdicts(lake.lake, use_case, cause)
        trained = registry.registry.last_cutoff(use_case)
        trigger = retraining_due(use_case, cause, verdicts, trained)
        if trigger is None:
            return dg.SkipReason(f"{cause} does not call for a challenger")
        key = use_case.calendar.key(trigger.cutoff)
        # The cause is in the run key: asked again about the same failures Dagster starts no second
        # run, and other failures that lead to the same cutoff are not taken for these.
        return dg.RunRequest(
            run_key=f"{key}-{digest(trigger.reason)}",
            partition_key=key,
            tags={"ml_platform/cause": cause, "ml_platform/reason": trigger.reason},
        )

    return sensor


def _build_schedule(use_case: UseCase, settings: Settings) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{use_case.name}_retraining",
        cron_schedule=str(use_case.model.schedule),
        execution_timezone=use_case.timezone,
        default_status=schedule_status(settings),
        target=_selection(use_case),
        description="Trains a challenger at the start of the partition in which it fires.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Sequence[dg.RunRequest] | dg.SkipReason:
        window = use_case.calendar.window_at(context.scheduled_execution_time)
        end = use_case.partitions.closes_at
        if end is not None and window.start >= end:
            return dg.SkipReason(f"the last partition of {use_case.name} ends at {end.isoformat()}")
        return [dg.RunRequest(partition_key=use_case.calendar.key(window))]

    return schedule
