"""Once a day, at night: the job that keeps the lake usable."""

import dagster as dg

from ml_platform.settings import Settings
from ml_platform_dagster.sensors.status import schedule_status

JOB = "lake_upkeep"
AT_NIGHT = "30 3 * * *"


def build_lake_upkeep_schedule(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedule of a deployment's `lake_upkeep`, in UTC."""
    return [
        dg.ScheduleDefinition(
            name=JOB,
            job_name=JOB,
            cron_schedule=AT_NIGHT,
            default_status=schedule_status(settings),
            description="Expiry of snapshots, compaction and clean-up of files, once a day.",
        )
    ]
