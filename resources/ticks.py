"""What ticks of sensors and schedules do otherwise than runs."""

from ml_platform.settings import Settings


def tick_settings() -> Settings:
    """Settings with which a tick does not wait for servers.

    One that waited would be ended by Dagster; the next one looks again.
    """
    return Settings(server_wait_seconds=0)
