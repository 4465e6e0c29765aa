"""Lengths of time as people write them."""

from bisect import bisect_left
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pydantic_core import CoreSchema, core_schema

UNITS = {"m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month"}
DAYS_A_WEEK = 7
MONTHS_A_YEAR = 12
LONGEST_SECONDS = 100 * 366 * 86_400


@dataclass(frozen=True)
class Duration:
    """A length of time as people write it: `90m`, `3h`, `7d`, `2w`, `1mo`.

    Minutes and hours are exact. Days, weeks and months are steps of the calendar in the use case's
    time zone, so that `1d` before midnight is midnight also where clocks change.
    """

    count: int
    unit: str

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Read `7d` and the like; ValueError says which units there are."""
        if isinstance(text, Duration):
            return text
        raw = str(text).strip()
        digits = raw[: len(raw) - len(raw.lstrip("0123456789"))]
        unit = raw[len(digits) :].strip()
        if not digits or unit not in UNITS:
            raise ValueError(f"'{raw}' is not a valid duration; write 90m, 3h, 7d, 2w or 1mo")
        duration = cls(int(digits), unit)
        if duration.seconds > LONGEST_SECONDS:
            raise ValueError(f"'{raw}' is longer than a century")
        return duration

    @property
    def is_exact(self) -> bool:
        return self.unit in {"m", "h"}

    @property
    def sql(self) -> str:
        """A DuckDB interval."""
        return f"INTERVAL {self.count} {UNITS[self.unit]}"

    @property
    def seconds(self) -> int:
        """Length in seconds; days count 24 hours, months 30 days."""
        sizes = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800, "mo": 2_592_000}
        return self.count * sizes[self.unit]

    def before(self, instant: datetime, timezone: ZoneInfo) -> datetime:
        """The instant this long before another one; of two with that wall time the first."""
        return self._shifted(instant, timezone, -1)

    def after(self, instant: datetime, timezone: ZoneInfo) -> datetime:
        """The instant this long after another one."""
        return self._shifted(instant, timezone, +1)

    def _shifted(self, instant: datetime, timezone: ZoneInfo, sign: int) -> datetime:
        if self.is_exact:
            moved = instant.astimezone(UTC) + sign * timedelta(seconds=self.seconds)
            return moved.astimezone(timezone)
        moved = self.on_the_clock(instant.astimezone(timezone), sign)
        if sign < 0 and self.count:
            moved = moved.replace(fold=0)
        if not self.count or (jump := jump_over(moved)) is None:
            return moved
        if self.unit != "mo" and _skips_the_day(moved):
            # The day before a day that the zone skips is the one before both.
            return moved + sign * timedelta(days=1)
        return min(moved, jump, key=lambda moment: moment.astimezone(UTC))

    def on_the_clock(self, wall: datetime, sign: int = 1) -> datetime:
        """What a clock shows this long after it shows `wall`, or before it where `sign` is -1.

        Only for days, weeks and months; the zone may skip that time, or have it twice.
        """
        if self.unit == "mo":
            return add_months(wall, sign * self.count)
        days = self.count * (DAYS_A_WEEK if self.unit == "w" else 1)
        # Arithmetic on an aware datetime moves its wall clock, which is what a calendar step is.
        return wall + sign * timedelta(days=days)

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.to_string_ser_schema()
        )


def add_months(moment: datetime, months: int) -> datetime:
    """The same day some months later; the last of the month where that day does not exist."""
    index = moment.year * MONTHS_A_YEAR + moment.month - 1 + months
    year, month = divmod(index, MONTHS_A_YEAR)
    last = monthrange(year, month + 1)[1]
    return moment.replace(year=year, month=month + 1, day=min(moment.day, last))


def jump_over(wall: datetime) -> datetime | None:
    """The moment at which the clocks of its zone jump over a time; None where they show it."""
    zone = wall.tzinfo
    # By the clocks as they are after the jump, and as they were before it.
    early, late = (wall.replace(fold=fold).astimezone(UTC) for fold in (1, 0))
    if late <= early:
        return None
    before = early.astimezone(zone).utcoffset()
    seconds = range(int((late - early).total_seconds()) + 1)
    since = bisect_left(
        seconds,
        True,
        key=lambda passed: (
            (early + timedelta(seconds=passed)).astimezone(zone).utcoffset() != before
        ),
    )
    jump = (early + timedelta(seconds=since)).replace(microsecond=0)
    return jump.astimezone(zone)


def _skips_the_day(wall: datetime) -> bool:
    early, late = (wall.replace(fold=fold).astimezone(UTC) for fold in (1, 0))
    return late - early >= timedelta(days=1)
