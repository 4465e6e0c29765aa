"""Calendars and durations of all kinds: zones whose clocks change, days that a zone skips."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
from hypothesis import strategies as st

from ml_platform.spec.duration import UNITS, Duration
from ml_platform.spec.windows import Cadence, Calendar, Weekday

# Clocks that change in spring and autumn, north and south, at midnight, and never.
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney", "America/Sao_Paulo",
    "America/Havana", "Asia/Kolkata",
]  # fmt: skip
DEFINITIONS = {
    Cadence.hourly: dg.HourlyPartitionsDefinition,
    Cadence.daily: dg.DailyPartitionsDefinition,
    Cadence.weekly: dg.WeeklyPartitionsDefinition,
    Cadence.monthly: dg.MonthlyPartitionsDefinition,
}

# The date line was moved across them: the day is in none of their calendars.
SKIPPED = {
    "Pacific/Apia": date(2011, 12, 30),
    "Pacific/Kiritimati": date(1994, 12, 31),
    "Pacific/Kwajalein": date(1993, 8, 21),
}
calendars = st.builds(
    Calendar.of,
    st.sampled_from(Cadence),
    st.dates(date(2015, 1, 1), date(2026, 1, 1)),
    st.sampled_from(ZONES),
    st.sampled_from(Weekday),
)
around_skipped = st.sampled_from(sorted(SKIPPED)).flatmap(
    lambda zone: st.builds(
        Calendar.of,
        st.sampled_from(Cadence),
        st.integers(0, 40).map(lambda days: SKIPPED[zone] - timedelta(days=days)),
        st.just(zone),
        st.sampled_from(Weekday),
    )
)
durations = st.builds(Duration, st.integers(0, 40), st.sampled_from(sorted(UNITS)))


def moments_after(calendar: Calendar, days: int = 400) -> st.SearchStrategy[datetime]:
    return st.timedeltas(timedelta(), timedelta(days=days)).map(
        lambda later: calendar.start.astimezone(UTC) + later
    )
