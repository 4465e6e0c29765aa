"""Ranges and moments as people write them in a notebook."""

from datetime import date, datetime, timedelta

import pandas as pd

from ml_platform.errors import PlatformError
from ml_platform.spec.ranges import BETWEEN, named_partition, named_range, named_time
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc

Moment = str | date | datetime
"""A partition key, a time in ISO 8601, a day; without a zone it is in that of the use case."""
Range = str | date | Window | tuple[Moment, Moment]
"""`first...last`, one partition, or a pair of the first and the last; both are included."""


def read_moment(use_case: UseCase, given: object, name: str) -> datetime:
    """A moment as `Moment` says; PlatformError where it is none.

    name: of the argument, for messages.
    """
    zone = use_case.calendar.timezone
    if isinstance(given, str):
        found = named_time(use_case, given)
        return found.start if isinstance(found, Window) else found
    if not isinstance(given, date) or pd.isna(given):
        key = use_case.calendar.key(use_case.calendar.window_at(use_case.calendar.start))
        raise PlatformError(
            f"{use_case.name}: {name} is a time or a partition such as '{key}', "
            f"not a {type(given).__name__}"
        )
    if not isinstance(given, datetime):
        return datetime(given.year, given.month, given.day, tzinfo=zone)
    moment = given.to_pydatetime() if isinstance(given, pd.Timestamp) else given
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def read_range(use_case: UseCase, given: object) -> Window:
    """A range as `Range` says; PlatformError where it is none."""
    if isinstance(given, Window):
        return given
    if isinstance(given, str):
        if BETWEEN in given:
            return named_range(use_case, given, given)
        return named_partition(use_case, given)
    if isinstance(given, date):
        given = (given, given)
    if not isinstance(given, tuple | list) or len(given) != 2:
        key = use_case.calendar.key(use_case.calendar.window_at(use_case.calendar.start))
        raise PlatformError(
            f"{use_case.name}: a range is '{key}{BETWEEN}{key}', one partition, or a pair of the "
            f"first and the last; not {given!r}"
        )
    first, last = (read_moment(use_case, each, "a bound of a range") for each in given)
    start, end = use_case.calendar.window_at(first).start, _last(use_case, given[1], last).end
    if utc(end) <= utc(start):
        raise PlatformError(f"{given[0]}{BETWEEN}{given[1]}: the first partition is after the last")
    return Window(start, end)


def _last(use_case: UseCase, given: object, moment: datetime) -> Window:
    """The window that a range ends with; of a day all of it, also where partitions are hours."""
    if isinstance(given, date) and not isinstance(given, datetime):
        moment += timedelta(days=1, microseconds=-1)
    return use_case.calendar.window_at(moment)
