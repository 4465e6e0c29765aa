"""Ranges of the year of flights."""

from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window


def recorded_range(use_case: UseCase) -> Window:
    """All partitions of a use case whose history is over."""
    end = use_case.partitions.closes_at
    assert end is not None
    return Window(use_case.calendar.start, end)


def flown_range(use_case: UseCase) -> Window:
    """The year: in the last partition flights of it arrive, and none leaves any more."""
    recorded = recorded_range(use_case)
    *_, last = use_case.calendar.windows(recorded)
    return Window(recorded.start, last.start)
