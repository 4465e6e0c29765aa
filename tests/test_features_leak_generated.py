"""Views that hypothesis writes: clean ones raise no alarm, and those that look ahead are found."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_platform.features import LeakReport
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from tests.examples import at_most
from tests.planted import Query, World, day, over

AROUND_THE_CLOCK_CHANGE = Window(day(15).start, day(23).end)
AGGREGATES = (
    "count(*)",
    "sum(fare)",
    "avg(fare)",
    "max(fare)",
    "median(fare)",
    "sum(seats) * 1000000000000::HUGEINT",
    "list(fare ORDER BY fare)",
    "stddev_pop(fare)",
)
LATE = ("count(*)", "sum(a.delay)", "avg(a.delay)", "arg_max(a.delay, (a.known_at, a.ride))")
CONDITIONS = ("true", "place IN ('a', 'b', 'c')", "hour(left_at) BETWEEN 6 AND 21", "seats > 1")


@dataclass(frozen=True)
class Written:
    """A query that looks back, and the same one with a reach ahead of each row."""

    clean: Query
    leaking: Query


@st.composite
def views(draw: Any) -> Written:
    """Sliding aggregates of rides, or of the arrivals that are known, in some of the rows."""
    days = draw(st.integers(1, 4))
    # By the clock a day may have 23 hours.
    back = draw(st.integers(1, 24 * days - 2))
    # Far enough for a ride of the same place to lie there at nearly every moment.
    ahead = draw(st.integers(240, 900))
    condition = draw(st.sampled_from(CONDITIONS))
    item = _of_rides if draw(st.booleans()) else _of_arrivals
    aggregate = draw(st.sampled_from(AGGREGATES if item is _of_rides else LATE))

    def query(minutes: int) -> Query:
        feature = f"CASE WHEN {condition} THEN {item(aggregate, back, minutes)} END AS f"
        return Query(over(f"{feature}, fare", "AS r").sql, f"{days}d")

    return Written(query(0), query(ahead))


def _of_rides(aggregate: str, hours: int, minutes: int) -> str:
    return (
        f"(SELECT {aggregate} FROM rides o WHERE o.place = r.place AND o.left_at BETWEEN "
        f"r.left_at - INTERVAL {hours} HOURS AND r.left_at + INTERVAL {minutes} MINUTES)"
    )


def _of_arrivals(aggregate: str, hours: int, minutes: int) -> str:
    # Of those that left within the hours: what is known of them lies in the lookback as well.
    return (
        f"(SELECT {aggregate} FROM arrivals a WHERE a.place = r.place AND a.left_at >= r.left_at - "
        f"INTERVAL {hours} HOURS AND a.known_at <= r.left_at + INTERVAL {minutes} MINUTES)"
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, shared_lake: Lake) -> World:
    return World(tmp_path_factory.mktemp("written") / "planted", shared_lake, rides_a_day=40)


def problems(reports: list[LeakReport]) -> list[str]:
    return [report.problem for report in reports if report.problem]


@pytest.mark.slow
@settings(max_examples=at_most(25), suppress_health_check=list(HealthCheck))
@given(written=views(), number=st.integers(10, 25))
def test_a_view_is_said_to_leak_exactly_if_it_looks_ahead(
    world: World, written: Written, number: int
) -> None:
    assert problems(world.check(written.clean, AROUND_THE_CLOCK_CHANGE)) == []
    assert problems(world.check(written.clean, day(number))) == []
    found = problems(world.check(written.leaking, AROUND_THE_CLOCK_CHANGE))
    assert found
    assert "looks ahead" in found[0]
