"""Alerts: what is the matter with a use case reaches people, once."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from ml_platform.alerts import Channels, Ledger, find_conditions, notify
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake
from ml_platform_dagster.resources import LakeResource
from ml_platform_dagster.sensors.failures import (
    ended_at,
    failed_since,
    standing_backfills,
    standing_runs,
)
from ml_platform_dagster.sensors.status import sensor_status

FIRST_LOOK_BACK = timedelta(days=1)
OVERLAP = timedelta(seconds=5)
BACKFILLS_LOOK_BACK = timedelta(days=7)


def build_alerts(use_case: UseCase, settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that notifies people of what they should know about a use case."""

    @dg.sensor(
        name=f"{use_case.name}_alerts",
        minimum_interval_seconds=45,
        default_status=sensor_status(settings),
        description=(
            "Reports drift, poor performance, failed runs, quarantine, late tables and decisions "
            "about models on the channels that the setting `alerts` names."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
        now = datetime.now(UTC)
        since = datetime.fromtimestamp(float(context.cursor), UTC) if context.cursor else None
        instance = context.instance
        records = failed_since(instance, since or now - FIRST_LOOK_BACK)
        runs = [
            *standing_runs(instance, use_case, records, _noted(lake.lake, use_case)),
            *standing_backfills(instance, use_case, now - BACKFILLS_LOOK_BACK),
        ]
        notified = notify(
            lake.lake,
            use_case,
            Channels.of(lake.lake.settings),
            lambda: find_conditions(lake.lake, use_case, now, runs),
            now,
            Commit(f"sensor {context.sensor_name}", use_case.code_version, "alerts"),
        )
        for problem in notified.problems:
            context.log.warning(problem)
        # Runs that end within one tick may be stored out of order, so a little is looked at twice;
        # a run that has been reported is not reported again.
        newest = max((ended_at(r) for r in records), default=None)
        cursor = str((newest - OVERLAP).timestamp()) if newest else context.cursor
        return dg.SensorResult(skip_reason=dg.SkipReason(str(notified)), cursor=cursor)

    return [sensor]


def _noted(lake: Lake, use_case: UseCase) -> list[str]:
    """Ids of failed runs that people know of, and that are not over."""
    with lake.cursor() as cursor:
        state = Ledger(lake, use_case).read(cursor)
    return [
        entry.key.partition("/")[2] for entry in state.open.values() if entry.kind == "failed_run"
    ]
