"""How long a feature row may be joined: one meaning for the join, the online store and traces."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo

from ml_platform.spec.duration import DAYS_A_WEEK, Duration, jump_over

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MICROSECONDS_A_SECOND = 1_000_000
DAY = timedelta(days=1)
DAYS_OF_ONE = {"d": (1, 1), "w": (DAYS_A_WEEK, DAYS_A_WEEK), "mo": (28, 31)}
"""The fewest and the most days of a calendar step."""
YEARS_SAMPLED = range(1900, 2100)


@dataclass(frozen=True)
class Expiry:
    """Until when rows of a feature view may be joined, by its `ttl` and the use case's time zone.

    Minutes and hours are exact. With days, weeks and months a row may be joined until the clocks
    of the zone have passed the wall time of its event plus the `ttl`: to the end of the second of
    two hours that they repeat, and up to the jump where they skip that time.

    What `ttl.before` a window's start is covers all rows that may be joined in the window or later.
    """

    ttl: Duration
    timezone: ZoneInfo

    def of(self, event_time: datetime) -> datetime:
        """The last moment at which a row of an event time may be joined."""
        if self.ttl.is_exact:
            return self.ttl.after(event_time, self.timezone)
        shown = self.ttl.on_the_clock(event_time.astimezone(self.timezone))
        jump = jump_over(shown)
        # Of two moments with the same wall time the later one; moments before a jump come first.
        return shown.replace(fold=1) if jump is None else jump.astimezone(UTC) - MICROSECOND

    def of_microseconds(self, event_time: int) -> int:
        """As `of`, of times in microseconds since 1970 in UTC."""
        expires = self.of(EPOCH + event_time * MICROSECOND)
        return (expires.astimezone(UTC) - EPOCH) // MICROSECOND

    def fresh_sql(self, example: str, row: str) -> str:
        """Predicate that an example's moment is not after the expiry of a row.

        example, row: SQL expressions of TIMESTAMPTZ, each evaluated several times.
        """
        age = f"epoch_us({example}) - epoch_us({row})"
        if self.ttl.is_exact:
            return f"{age} <= {self.shortest}"
        zone = f"'{self.timezone}'"
        wall = f"(timezone({zone}, {row}) + {self.ttl.sql})"
        # DuckDB takes a repeated time as the later one and moves a skipped one past the jump.
        moment = f"timezone({zone}, {wall})"
        # Clocks are only asked about rows whose age does not decide.
        return (
            f"CASE WHEN {age} <= {self.shortest} THEN true WHEN {age} > {self.longest} THEN false "
            f"ELSE {example} <= {moment} AND (timezone({zone}, {moment}) = {wall} "
            f"OR timezone({zone}, {example}) <= {wall}) END"
        )

    @cached_property
    def shortest(self) -> int:
        """Rows up to this age may be joined wherever they lie; in microseconds."""
        return self._bounds[0]

    @cached_property
    def longest(self) -> int:
        """Rows older than this may not be joined wherever they lie; in microseconds."""
        return self._bounds[1]

    @cached_property
    def _bounds(self) -> tuple[int, int]:
        if self.ttl.is_exact:
            exact = self.ttl.seconds * MICROSECONDS_A_SECOND
            return exact, exact
        least, most = (self.ttl.count * days * DAY for days in DAYS_OF_ONE[self.ttl.unit])
        spread = _spread(self.timezone)
        return (least - spread) // MICROSECOND, (most + spread) // MICROSECOND


@lru_cache
def _spread(zone: ZoneInfo) -> timedelta:
    """How far a zone's offsets from UTC ever lie apart."""
    days = (
        datetime(year, month, day, tzinfo=UTC)
        for year in YEARS_SAMPLED
        for month in range(1, 13)
        for day in (1, 15)
    )
    offsets = {day.astimezone(zone).utcoffset() or timedelta() for day in days}
    # A microsecond more: a row expires just before a jump.
    return max(offsets) - min(offsets) + MICROSECOND
