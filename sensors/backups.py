"""Once a day, at night: the job that backs everything up."""

import dagster as dg

from ml_platform.settings import Settings
from ml_platform_dagster.sensors.status import schedule_status

JOB = "backup"
AT_NIGHT = "30 2 * * *"


def build_backup_schedule(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedule of a deployment's `backup`, in UTC; none where no place is set."""
    if settings.backups is None:
        return []
    return [
        dg.ScheduleDefinition(
            name=JOB,
            job_name=JOB,
            cron_schedule=AT_NIGHT,
            default_status=schedule_status(settings),
            description="A backup of all that the deployment keeps, once a day.",
        )
    ]
