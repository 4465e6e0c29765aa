"""Once a day, at night: the jobs of a whole deployment."""

from collections.abc import Mapping

import dagster as dg

from ml_platform.settings import Settings
from ml_platform_dagster.sensors.status import schedule_status

NIGHTLY: Mapping[str, tuple[str, str]] = {
    "backup": ("30 2 * * *", "A backup of all that the deployment keeps, once a day."),
    "lake_upkeep": (
        "30 3 * * *", "Expiry of snapshots, compaction and clean-up of files, once a day."
    ),
}  # fmt: skip
"""When each job runs, in UTC, and what is said of it."""


def build_nightly_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Schedules of the jobs of a deployment; none of `backup` where no place is set."""
    return [
        dg.ScheduleDefinition(
            name=job,
            job_name=job,
            cron_schedule=cron,
            default_status=schedule_status(settings),
            description=description,
        )
        for job, (cron, description) in NIGHTLY.items()
        if job != "backup" or settings.backups is not None
    ]
