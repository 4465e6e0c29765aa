"""Whether sensors and schedules are on from the start: a setting of the deployment."""

import dagster as dg

from ml_platform.settings import Settings


def sensor_status(settings: Settings) -> dg.DefaultSensorStatus:
    """RUNNING where the deployment lives without a person, else STOPPED."""
    on = settings.automation
    return dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED


def schedule_status(settings: Settings) -> dg.DefaultScheduleStatus:
    """RUNNING where the deployment lives without a person, else STOPPED."""
    on = settings.automation
    return dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED
