"""How many windows of a calendar a duration reaches over: what a partition mapping has to cover."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from ml_platform.spec.duration import DAYS_A_WEEK, MONTHS_A_YEAR, Duration
from ml_platform.spec.windows import YEARS_OBSERVED, Cadence, Calendar, Window, utc

SECONDS_A_DAY = 86_400
DAYS_A_YEAR = 366


def steps_before(calendar: Calendar, duration: Duration) -> int:
    """How many windows back the rows of `duration` before any window's start can lie."""
    return _farthest(_from_new_year(calendar), duration, towards_past=True)


def steps_after(calendar: Calendar, duration: Duration) -> int:
    """How many windows further the rows of `duration` after any window's end can lie."""
    return _farthest(_from_new_year(calendar), duration, towards_past=False)


def _from_new_year(calendar: Calendar) -> Calendar:
    """The calendar from the first window of its first year on, which reaches at least as far.

    Use cases that begin on different days of a year share what was found out.
    """
    zone = calendar.timezone
    new_year = datetime(calendar.start.year, 1, 1, tzinfo=zone)
    return Calendar.of(calendar.cadence, new_year, str(zone), calendar.week_starts)


@lru_cache(maxsize=1024)
def _farthest(calendar: Calendar, duration: Duration, towards_past: bool) -> int:
    # Windows differ in length (months, leap years, clock changes), so it is the farthest reach of
    # the windows of some years.
    if not duration.count:
        return 0
    zone = calendar.timezone
    reach = 0
    for window in _differing(calendar, duration, towards_past):
        if towards_past:
            edge = duration.before(window.start, zone)
            far, near = calendar.window_at(edge).start, window.start
        else:
            edge = duration.after(window.end, zone)
            far, near = window.end, edge
        reach = max(reach, _count(calendar, far, near))
    return reach


def _differing(calendar: Calendar, duration: Duration, towards_past: bool) -> Iterator[Window]:
    """Windows of some years, among them one for each reach that a duration has.

    Months differ in length, days where clocks change: all windows that lie equally far from the
    changes of the clocks, and whose other end does, reach equally far.
    """
    # The years observed, and the one in which the history begins.
    begin, end = calendar.start, calendar.start + timedelta(days=(YEARS_OBSERVED + 1) * DAYS_A_YEAR)
    if duration.unit == "mo" or calendar.cadence is Cadence.monthly:
        yield from _windows(calendar, begin, end)
        return
    yield calendar.window_at(begin)
    # Of longer windows the one that holds a moment is among those near it.
    near = timedelta(days=1.5)
    reach = timedelta(seconds=duration.seconds)
    shift = duration.after if towards_past else duration.before
    for noon, size in _clock_changes(calendar.timezone, begin - reach, end + reach):
        for moment in (noon, shift(noon, calendar.timezone)):
            first = max(begin, moment - near - size, key=utc)
            last = min(end, moment + near + size, key=utc)
            yield from _windows(calendar, first, last)


def _windows(calendar: Calendar, begin: datetime, end: datetime) -> Iterator[Window]:
    """The windows between two moments; of hourly ones the first of each day, which sees as much."""
    if utc(begin) >= utc(end):
        return
    if calendar.cadence is not Cadence.hourly:
        yield from calendar.windows(Window(begin, end))
        return
    days = Calendar.of(Cadence.daily, begin, str(calendar.timezone))
    yield from (calendar.window_at(day.start) for day in days.windows(Window(begin, end)))


def _clock_changes(
    zone: ZoneInfo, begin: datetime, end: datetime
) -> Iterator[tuple[datetime, timedelta]]:
    for year in range(begin.year - 1, end.year + 1):
        yield from _clock_changes_of(zone, year)


@lru_cache(maxsize=1024)
def _clock_changes_of(zone: ZoneInfo, year: int) -> tuple[tuple[datetime, timedelta], ...]:
    """Noons of a year since whose last noon the clocks have changed, and by how much."""
    first = datetime(year, 1, 1, 12, tzinfo=zone)
    noons = (first + timedelta(days=number) for number in range(DAYS_A_YEAR + 1))
    offsets = ((noon, noon.utcoffset() or timedelta()) for noon in noons)
    return tuple((noon, abs(b - a)) for (_, a), (noon, b) in pairwise(offsets) if a != b)


def _count(calendar: Calendar, far: datetime, near: datetime) -> int:
    """How many windows `[far, near)` touches, where `far` or `near` bounds a window."""
    match calendar.cadence:
        case Cadence.hourly:
            return -int((utc(far) - utc(near)).total_seconds() // 3600)
        case Cadence.daily | Cadence.weekly:
            # Wall-clock days: a day is one window however many hours it has. A day that the zone
            # skips counts, as it does among Dagster's partitions.
            days = 1 if calendar.cadence is Cadence.daily else DAYS_A_WEEK
            gap = near.replace(tzinfo=None) - far.replace(tzinfo=None)
            return -(-int(gap.total_seconds()) // (days * SECONDS_A_DAY))
        case Cadence.monthly:
            ceil = 0 if near == calendar.window_at(near).start else 1
            months = (near.year - far.year) * MONTHS_A_YEAR + near.month - far.month
            return months + ceil
