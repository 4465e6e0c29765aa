"""When corrections count, and how often a window is computed because of them."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.features.intervals import MOST_A_STEP, effective

START = datetime(2024, 3, 1, tzinfo=UTC)
MINUTES = st.lists(st.integers(0, 60 * 24 * 365), max_size=60)


def after(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


def test_few_corrections_count_from_their_own_moment_on() -> None:
    moments = [after(7 * n) for n in range(MOST_A_STEP)]
    assert effective(reversed(moments)) == moments


def test_many_corrections_count_from_full_hours_then_days_on() -> None:
    found = effective(after(n) for n in range(60 * 24 * 60))
    assert found[:MOST_A_STEP] == [after(n) for n in range(MOST_A_STEP)]
    hours, days = found[MOST_A_STEP : 2 * MOST_A_STEP], found[2 * MOST_A_STEP : 3 * MOST_A_STEP]
    assert hours == [START + timedelta(hours=n + 1) for n in range(MOST_A_STEP)]
    assert days == [START + timedelta(days=n + 1) for n in range(MOST_A_STEP)]
    # Two months of a correction each minute.
    assert len(found) <= 3 * MOST_A_STEP + 3


@given(MINUTES)
def test_each_counts_at_its_moment_or_later(minutes: list[int]) -> None:
    moments = sorted({after(each) for each in minutes})
    found = effective(moments)
    assert found == sorted(set(found))
    assert all(any(counted >= moment for counted in found) for moment in moments)
    assert all(any(moment <= counted for moment in moments) for counted in found)
    assert found[:MOST_A_STEP] == moments[:MOST_A_STEP]


@given(MINUTES, st.integers(0, 60 * 24 * 365))
def test_a_later_correction_changes_nothing_of_when_earlier_ones_count(
    minutes: list[int], latest: int
) -> None:
    moments = [after(each) for each in minutes]
    earlier = [moment for moment in moments if moment <= after(latest)]
    assert effective(moments)[: len(effective(earlier))] == effective(earlier)
