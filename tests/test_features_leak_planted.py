"""Planted leaks are found in the views of a month, and views that are clean but tricky are not."""

from itertools import cycle

import pytest

from ml_platform.features import note_checks, read_coverage
from ml_platform.storage import Lake
from tests.planted import CLEAN, COMMIT, LEAKS, MONTH, TOO_SHORT, World, day

pytestmark = pytest.mark.slow

QUICK_LEAKS = ("the next row", "in one row of a hundred", "24 hours in a lookback of a day")
QUICK_CLEAN = ("a sliding sum as a difference of totals",)
ALONE = (3, 19, 20)
"""Days of the month: one like the others, that of the clock change, and the one after. Each kind is
looked for in one of them, in turn."""
RARE = (
    "a shifted zone",
    "in the last ten minutes",
    "in one row of a hundred",
    "on Sundays",
    "in one partition of thirty",
    "over midnight",
    "over midnight alone",
    "24 hours in a lookback of a day",
)
"""Kinds that are not in each partition, or not in what one alone reads."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, shared_lake: Lake) -> World:
    return World(tmp_path_factory.mktemp("planted") / "planted", shared_lake)


def slow_but(quick: tuple[str, ...], names: object) -> list[object]:
    assert isinstance(names, dict)
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("kind", slow_but(QUICK_LEAKS, LEAKS))
def test_a_leak_is_found_in_a_month(world: World, kind: str) -> None:
    problems = [report.problem for report in world.check(LEAKS[kind], MONTH) if report.problem]
    assert problems
    # What differs is shown with the row that makes the difference.
    assert ", changes it from " in problems[0]
    ahead = "looks ahead" in problems[0]
    assert ahead is (kind not in TOO_SHORT)


@pytest.mark.parametrize(
    ("kind", "number"), list(zip([kind for kind in LEAKS if kind not in RARE], cycle(ALONE)))
)
def test_a_leak_is_found_in_a_day(world: World, kind: str, number: int) -> None:
    (report,) = world.check(LEAKS[kind], day(number))
    assert report.problem is not None


@pytest.mark.parametrize("kind", slow_but(QUICK_CLEAN, CLEAN))
def test_a_clean_view_raises_no_alarm(world: World, kind: str) -> None:
    found = world.check(CLEAN[kind], MONTH)
    assert [report.problem for report in found if report.problem] == []
    assert sum(len(report.cuts) for report in found) >= 60
    for number in ALONE:
        (report,) = world.check(CLEAN[kind], day(number))
        assert (report.problem, report.rows_compared > 0) == (None, True)


def test_a_day_after_a_clock_change_shows_a_lookback_of_24_hours_by_itself(world: World) -> None:
    query = LEAKS["24 hours in a lookback of a day"]
    (before,), (after,) = world.check(query, day(18)), world.check(query, day(20))
    assert before.problem is None
    assert "the lookback of 1d is too short" in str(after.problem)


def test_daily_runs_try_different_moments(world: World) -> None:
    query = CLEAN["the day so far"]
    tried = [world.check(query, day(number))[0].cuts for number in range(8)]
    of_the_day = {cut.time() for cuts in tried for cut in cuts}
    assert len(of_the_day) >= 33


def test_what_was_tried_is_kept(world: World) -> None:
    query = CLEAN["the day so far"]
    first = world.check(query, day(3))
    note_checks(world.lake, world.use_case, "pace", first, COMMIT)
    (coverage,) = read_coverage(world.lake, world.use_case)
    moments = len(first[0].cuts)
    assert (coverage.table, coverage.partitions, coverage.checked) == ("pace_features", 1, 1)
    assert (coverage.moments, coverage.found) == (moments, 0)
    # A moment that is tried again is no other one.
    note_checks(world.lake, world.use_case, "pace", first, COMMIT)
    (coverage,) = read_coverage(world.lake, world.use_case)
    assert (coverage.moments, coverage.rows_compared) == (moments, 2 * first[0].rows_compared)
    leaking = world.check(LEAKS["the next row"], day(4))
    note_checks(world.lake, world.use_case, "pace", leaking, COMMIT)
    (coverage,) = read_coverage(world.lake, world.use_case)
    assert coverage.found == 1
