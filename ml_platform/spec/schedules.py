"""What a use case declares to be done regularly, besides training."""

from typing import Annotated

from pydantic import Field

from ml_platform.spec.declared import Declared, Length
from ml_platform.spec.duration import Duration
from ml_platform.spec.windows import Cadence

AFTER_THE_END = {
    Cadence.hourly: "15 * * * *",
    Cadence.daily: "15 0 * * *",
    Cadence.weekly: "15 0 * * 0",
    Cadence.monthly: "15 0 1 * *",
}
"""A quarter of an hour after a window has ended."""


class Schedules(Declared):
    """When what is looked at; cron expressions in the use case's time zone."""

    scoring: str | None = None
    """When the newest complete window is scored; by default soon after it has ended."""
    catch_up: str = "*/30 * * * *"
    """When missing, failed and stale partitions are looked for."""
    horizon: Length = Duration(30, "d")
    """How far back they are looked for."""
    budget: Annotated[int, Field(ge=1)] = 500
    """Most partitions, of all tables together, that one look asks for."""

    def scoring_of(self, cadence: Cadence) -> str:
        """The cron expression of scoring."""
        return self.scoring or AFTER_THE_END[cadence]
