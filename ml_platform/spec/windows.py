"""Windows of event time: the partitions of a use case.

A window is half open, `[start, end)`, and its bounds are instants; its key is the name Dagster
gives the same partition.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from ml_platform.spec.duration import DAYS_A_WEEK, add_months

# Long enough to hold a leap year.
YEARS_OBSERVED = 5


class Weekday(StrEnum):
    """On which day weeks begin; in Dagster's order."""

    sunday = "sunday"
    monday = "monday"
    tuesday = "tuesday"
    wednesday = "wednesday"
    thursday = "thursday"
    friday = "friday"
    saturday = "saturday"

    @property
    def offset(self) -> int:
        """Days after Sunday, Dagster's `day_offset`."""
        return list(Weekday).index(self)


class Cadence(StrEnum):
    """How long a window is."""

    hourly = "hourly"
    daily = "daily"
    weekly = "weekly"
    monthly = "monthly"


@dataclass(frozen=True)
class Window:
    """A half-open range of event time; both bounds are aware datetimes."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a window's bounds need a time zone")
        if self.end.astimezone(UTC) <= self.start.astimezone(UTC):
            raise ValueError(f"a window ends after it starts: [{self.start}, {self.end})")

    def __contains__(self, instant: datetime) -> bool:
        return utc(self.start) <= utc(instant) < utc(self.end)

    def __str__(self) -> str:
        return f"[{self.start.isoformat()}, {self.end.isoformat()})"


@dataclass(frozen=True)
class Calendar:
    """All windows of one use case, from its first one on."""

    cadence: Cadence
    start: datetime
    """Start of the first window, aware, in the use case's time zone."""
    week_starts: Weekday = Weekday.sunday
    """Matters for weekly windows alone."""

    @classmethod
    def of(
        cls,
        cadence: Cadence,
        start: date | datetime,
        timezone: str,
        week_starts: Weekday = Weekday.sunday,
    ) -> "Calendar":
        """Windows from the first one that begins at `start` or later."""
        zone = ZoneInfo(timezone)
        if not isinstance(start, datetime):
            start = datetime(start.year, start.month, start.day, tzinfo=zone)
        aware = start.astimezone(zone) if start.tzinfo else start.replace(tzinfo=zone)
        floor = _floor(_as_clocks_show(aware, zone), cadence, week_starts)
        first = floor if utc(floor) == utc(aware) else _next(floor, cadence)
        return cls(cadence, first, week_starts)

    @property
    def timezone(self) -> ZoneInfo:
        zone = self.start.tzinfo
        assert isinstance(zone, ZoneInfo)
        return zone

    def window_at(self, instant: datetime) -> Window:
        """The window that holds an instant."""
        start = self._floor(instant)
        return Window(start, _next(start, self.cadence))

    def window_stored(self, start: datetime) -> Window:
        """The window of a start as tables hold it: in UTC, without an offset."""
        return self.window_at(start.replace(tzinfo=UTC))

    def windows(self, window_range: Window) -> Iterator[Window]:
        """The windows that overlap a range, in order, none before the first."""
        begin = max(window_range.start, self.start, key=utc)
        start = self._floor(begin)
        while utc(start) < utc(window_range.end):
            end = _next(start, self.cadence)
            yield Window(start, end)
            start = end

    def ranges(self, windows: Iterable[Window]) -> Iterator[Window]:
        """Unbroken ranges that windows make up, in order of time."""
        window_range: Window | None = None
        for window in sorted(windows, key=lambda window: utc(window.start)):
            if window_range and utc(window_range.end) == utc(window.start):
                window_range = Window(window_range.start, window.end)
            else:
                if window_range:
                    yield window_range
                window_range = window
        if window_range:
            yield window_range

    def keys(self, window_range: Window) -> tuple[str, str]:
        """Names of the first and the last partition of a range, which holds at least one."""
        windows = list(self.windows(window_range))
        return self.key(windows[0]), self.key(windows[-1])

    def key(self, window: Window) -> str:
        """Name of the partition, as Dagster writes it."""
        start = window.start.astimezone(self.timezone)
        if self.cadence is not Cadence.hourly:
            return start.strftime("%Y-%m-%d")
        name = start.strftime("%Y-%m-%d-%H:%M")
        # The hour that the clocks repeat: Dagster marks the second one by its offset.
        first = start.replace(fold=0)
        return name + start.strftime("%z") if utc(first) != utc(start) else name

    def window(self, key: str) -> Window:
        """The window of a partition's name; ValueError where there is none of that name."""
        plain = len("2013-01-01-00:00")
        try:
            if self.cadence is not Cadence.hourly:
                start = datetime.strptime(key, "%Y-%m-%d").replace(tzinfo=self.timezone)
            elif len(key) > plain:
                start = datetime.strptime(key, "%Y-%m-%d-%H:%M%z").astimezone(self.timezone)
            else:
                start = datetime.strptime(key, "%Y-%m-%d-%H:%M").replace(tzinfo=self.timezone)
        except ValueError:
            example = self.key(Window(self.start, _next(self.start, self.cadence)))
            raise ValueError(f"{self._no_partition(key)}; they look like '{example}'") from None
        window = self.window_at(start)
        if utc(start) < utc(self.start):
            first = self.key(self.window_at(self.start))
            raise ValueError(f"'{key}' is before the first {self.cadence} partition, '{first}'")
        if (right := self.key(window)) != key:
            if utc(start) == utc(window.start):
                raise ValueError(f"{self._no_partition(key)}; write '{right}'")
            raise ValueError(f"no {self.cadence} partition starts at '{key}'; it is in '{right}'")
        return window

    def _no_partition(self, key: str) -> str:
        article = "an" if self.cadence is Cadence.hourly else "a"
        return f"'{key}' is not {article} {self.cadence} partition"

    def window_listed(self, key: str) -> Window:
        """As `window`; also by the name of a day that the zone skips, which Dagster lists.

        It is a second name of the day after.
        """
        try:
            return self.window(key)
        except ValueError:
            if self.cadence is not Cadence.daily or not (window := self._after_skipped(key)):
                raise
            return window

    def _after_skipped(self, key: str) -> Window | None:
        try:
            day = datetime.strptime(key, "%Y-%m-%d").replace(tzinfo=self.timezone)
        except ValueError:
            return None
        window = self.window_at(day)
        is_skipped = utc(day) == utc(window.start) and key != self.key(window)
        return window if is_skipped and utc(window.start) >= utc(self.start) else None

    def _floor(self, instant: datetime) -> datetime:
        """Start of the window that holds an instant."""
        return _floor(_as_clocks_show(instant, self.timezone), self.cadence, self.week_starts)

    def changes_by_whole_hours(self) -> bool:
        """Whether its clocks keep to full hours, without which hourly windows have no names."""
        moments = (self.start + timedelta(days=day) for day in range(YEARS_OBSERVED * 366))
        offsets = {moment.utcoffset() or timedelta() for moment in moments}
        return len({offset % timedelta(hours=1) for offset in offsets}) == 1


def utc(moment: datetime) -> datetime:
    """An aware moment as one that compares with others.

    Two of one zone compare by the wall clock, which is wrong in an hour that the clocks repeat.
    """
    return moment.astimezone(UTC)


def _as_clocks_show(instant: datetime, zone: ZoneInfo) -> datetime:
    """The instant by the clocks of a zone, also where it was written as a time that they skip."""
    return utc(instant).astimezone(zone)


def _on_a_day_that_is(midnight: datetime) -> datetime:
    """The midnight, or the next one where the zone skips the whole day.

    Samoa had no 30 December 2011: it went from the 29th to the 31st, across the date line.
    """
    shown = utc(midnight).astimezone(midnight.tzinfo)
    return midnight if shown.date() == midnight.date() else shown


def _floor(moment: datetime, cadence: Cadence, week_starts: Weekday) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    match cadence:
        case Cadence.hourly:
            return moment.replace(minute=0, second=0, microsecond=0)
        case Cadence.daily:
            return day
        case Cadence.weekly:
            return day - timedelta(days=(day.isoweekday() - week_starts.offset) % DAYS_A_WEEK)
        case Cadence.monthly:
            return day.replace(day=1)


def _next(start: datetime, cadence: Cadence) -> datetime:
    match cadence:
        case Cadence.hourly:
            return (utc(start) + timedelta(hours=1)).astimezone(start.tzinfo)
        case Cadence.daily:
            return _on_a_day_that_is(start + timedelta(days=1))
        case Cadence.weekly:
            return start + timedelta(days=DAYS_A_WEEK)
        case Cadence.monthly:
            return add_months(start, 1)
