"""Lengths of time that suit a cadence."""

from dataclasses import dataclass

from ml_platform.spec.windows import Cadence


@dataclass(frozen=True)
class Pace:
    """The unit of a cadence, and how many of it are a lot."""

    unit: str
    interval: str
    hours: int
    recent: int
    """Windows that the label's history looks back."""
    longest: int
    """Windows of training at most."""
    watched: int
    """Windows that a drift report trails."""
    cooldown: int
    schedule: str


PACES = {
    Cadence.hourly: Pace("h", "1 hour", 1, 24, 24 * 28, 24, 12, "0 3 * * *"),
    Cadence.daily: Pace("d", "1 day", 24, 28, 365, 28, 14, "0 5 1 * *"),
    Cadence.weekly: Pace("w", "7 days", 168, 8, 156, 8, 4, "0 5 1 * *"),
    Cadence.monthly: Pace("mo", "1 month", 744, 6, 60, 6, 3, "0 5 1 1,4,7,10 *"),
}
UNITS = {
    Cadence.hourly: "hour", Cadence.daily: "day", Cadence.weekly: "week",
    Cadence.monthly: "month",
}  # fmt: skip
"""What DuckDB calls the windows."""


def recent_windows(cadence: Cadence, windows: int) -> int:
    """How many windows the label's history looks back, of so many that there are."""
    return max(1, min(PACES[cadence].recent, windows // 4))
