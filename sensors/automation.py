"""What follows from a change is requested as one run."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster_shared.record import copy

from ml_platform.settings import Settings
from ml_platform.spec.joint_runs import JointRun, joint_runs
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform_dagster.resources import range_tags
from ml_platform_dagster.resources.ranges import ranges_tag
from ml_platform_dagster.sensors.launching import IN_PROCESS
from ml_platform_dagster.sensors.status import sensor_status

SECONDS_BETWEEN_TICKS = 10


class RangeAutomationSensor(dg.AutomationConditionSensorDefinition):
    """Joins what the conditions of a tick request into runs over ranges.

    Dagster itself would start a run for each partition, or leave all of them to its backfill
    daemon, which looks every 30 seconds and takes several rounds for tables that depend on each
    other.
    """

    def __init__(self, use_case: UseCase, settings: Settings) -> None:
        self._use_case = use_case
        super().__init__(
            name=f"{use_case.name}_automation",
            target=dg.AssetSelection.groups(use_case.name),
            default_status=sensor_status(settings),
            minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
            description="Computes what depends on partitions that have changed, in as few runs.",
            emit_backfills=False,
            # Conditions of our own can only be evaluated where the code is.
            use_user_code_server=True,
        )

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> Any:
        """What the conditions request, joined."""
        found = super().evaluate_tick(context)
        return copy(found, run_requests=joined(self._use_case, found.run_requests or []))


def build_automation(use_case: UseCase, settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that lets the tables of a use case follow their sources."""
    return [RangeAutomationSensor(use_case, settings)]


def joined(use_case: UseCase, requests: Sequence[dg.RunRequest]) -> list[dg.RunRequest]:
    """Requests for one partition each as requests for ranges."""
    wanted: dict[str, set[Window]] = {}
    for request in requests:
        for key in request.asset_selection or ():
            window = use_case.calendar.window_listed(str(request.partition_key))
            wanted.setdefault(key.path[-1], set()).add(window)
    return [_request(use_case, run) for run in joint_runs(use_case.calendar, wanted)]


def _request(use_case: UseCase, run: JointRun) -> dg.RunRequest:
    calendar = use_case.calendar
    window_ranges = {
        table: calendar.keys(window_range) for table, window_range in run.ranges.items()
    }
    return dg.RunRequest(
        asset_selection=[dg.AssetKey([use_case.name, table]) for table in window_ranges],
        run_config=IN_PROCESS,
        tags={**range_tags(calendar.keys(run.covering_range)), **ranges_tag(window_ranges)},
    )
