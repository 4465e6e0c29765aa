"""Once a day: data files that killed writers left are swept."""

from datetime import UTC, datetime

import dagster as dg

from ml_platform.settings import Settings
from ml_platform.storage.orphans import LEFT_AFTER, sweep_orphans
from ml_platform_dagster.resources import LakeResource
from ml_platform_dagster.sensors.status import sensor_status

DAY_SECONDS = 24 * 60 * 60


def build_sweeping(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that sweeps the lake of a deployment, whatever its use cases."""

    @dg.sensor(
        name="sweep_lake",
        minimum_interval_seconds=DAY_SECONDS,
        default_status=sensor_status(settings),
        description=(
            "Deletes data files that no snapshot names and that are older than a day: what writers "
            "leave who are killed before they commit."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SkipReason:
        found = sweep_orphans(lake.lake, datetime.now(UTC) - LEFT_AFTER)
        return dg.SkipReason(f"files of killed writers deleted: {len(found.files)}")

    return [sensor]
