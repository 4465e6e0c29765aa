"""A window that moves over readings holds what it would hold if it were looked up again."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.monitoring.columns import Readings, microseconds
from ml_platform.monitoring.distances import QuantileSteps, SharedSteps
from ml_platform.monitoring.samples import MovingOrder

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
HOURS = 60


def readings(late: bool, replaced: bool) -> Readings:
    """Three values an hour, some missing, some equal, some known late or replaced soon."""
    rng = np.random.default_rng(0)
    times = np.repeat([at(hour) for hour in range(HOURS)], 3)
    values = pd.Series(rng.integers(0, 9, len(times)).astype(float))
    values[rng.random(len(times)) < 0.2] = np.nan
    delays = rng.integers(0, 12, len(times)) * 3_600_000_000
    known = times + delays if late else None
    until = times + delays + rng.integers(1, 20, len(times)) * 3_600_000_000
    return Readings(times, values, known, until if replaced else None)


def at(hour: int) -> int:
    return microseconds(BEGIN + timedelta(hours=hour))


@pytest.mark.parametrize(("late", "replaced"), [(False, False), (True, False), (True, True)])
@given(moves=st.lists(st.tuples(st.integers(0, HOURS), st.integers(0, HOURS)), max_size=12))
@settings(deadline=None)
def test_a_moving_window_holds_what_a_fresh_one_holds(
    late: bool, replaced: bool, moves: list[tuple[int, int]]
) -> None:
    given_readings = readings(late, replaced)
    moving = MovingOrder(given_readings)
    steps = [*moves, *((hour, hour + 8) for hour in range(20, 40))]
    for since, until in ((min(pair), max(pair)) for pair in steps):
        rows = moving.move(at(since), at(until))
        fresh = MovingOrder(given_readings)
        assert rows == fresh.move(at(since), at(until))
        held = given_readings.between(
            BEGIN + timedelta(hours=since), BEGIN + timedelta(hours=until)
        ).dropna()
        assert moving.ordered.tolist() == sorted(held)


def test_steps_of_the_same_sizes_are_worked_out_once_and_forgotten_when_unused() -> None:
    steps = SharedSteps()
    first = steps.of(2, 3)
    steps.move_on()
    assert steps.of(2, 3) is first
    steps.move_on()
    steps.move_on()
    again = steps.of(2, 3)
    assert again is not first
    assert again.width.tolist() == QuantileSteps.of(2, 3).width.tolist()
