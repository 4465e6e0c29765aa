"""What was known of features, labels and request columns before their sources were corrected."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_platform.features import (
    check_leak,
    compute_features,
    features_sql,
    intervals,
    label_history_sql,
)
from ml_platform.features.intervals import MOST_A_STEP, intervals_of
from ml_platform.sources import ingest
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.tables import code_versions
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.changes import Range, read_changes
from ml_platform.storage.tables import naive_utc
from tests.corrected_rides import CITY, COMMIT, LATE, OPEN, World, a_few_rides, at, days
from tests.examples import at_most

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path, shared_lake: Lake) -> Iterator[World]:
    yield World(tmp_path, shared_lake)
    with shared_lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.rides CASCADE")


def test_without_corrections_there_are_no_versions(world: World) -> None:
    a_few_rides(world)
    world.compute()
    with world.lake.cursor() as cursor:
        assert not [t for t in world.lake.tables(cursor, "rides") if "versions" in t]
    assert world.examples() == [("a", 5, LATE), ("b", 6, 20), ("c", 7, 1), ("d", 8, 30)]


def test_a_correction_that_lands_later_changes_no_example_from_before(world: World) -> None:
    a_few_rides(world)
    world.compute()
    before, trained = world.examples(), world.examples("3 00")
    assert trained == [("a", 5, None, True), ("b", 6, 20, False), ("c", 7, 1, True)]
    world.land("rides3", "18 12", ("a", "1 08", "Rome", 50), ("c", "2 08", "Oslo", 70))
    world.land(
        "arrivals2", "18 12", ("a", "1 08", "1 09", "Rome", 2), ("b", "1 10", "1 11", "X", 9)
    )
    world.compute()
    assert world.examples() == before
    assert world.examples("3 00") == trained
    assert world.versions("labels", "ride, label") == [
        ("a", True, "1 09", "18 12"),
        ("a", False, "18 12", OPEN),
    ]
    assert world.versions("city_features", "city, delays") == [
        ("Rome", 20, "1 09", "18 12"),
        ("Rome", 2, "18 12", OPEN),
        ("Rome", 1, "1 11", "18 12"),
        ("X", 9, "18 12", OPEN),
    ]


def test_revised_values_are_given_where_a_use_case_asks_for_them(world: World) -> None:
    a_few_rides(world)
    world.compute()
    world.land("rides3", "18 12", ("c", "2 08", "Rome", 70))
    world.land("arrivals2", "18 12", ("a", "1 08", "1 09", "Rome", 2))
    world.compute()
    world.declare("as_revised")
    assert world.examples("3 00") == [("a", 5, None, False), ("b", 6, 2, False), ("c", 70, 1, True)]


def test_where_revised_values_are_taken_no_versions_of_computed_rows_are_kept(
    world: World,
) -> None:
    a_few_rides(world)
    as_known = code_versions(world.use_case)
    world.declare("as_revised")
    world.land("arrivals2", "18 12", ("a", "1 08", "1 09", "Rome", 2))
    world.compute()
    assert len(world.versions("arrivals", "ride")) == 2
    assert world.versions("labels", "ride") == world.versions("city_features", "city") == []
    # So what was computed before is due again where the other values are asked for.
    changed = {t for t, v in code_versions(world.use_case).items() if v != as_known[t]}
    assert changed == as_known.keys() - world.use_case.sources.keys()
    world.declare("as_known")
    world.computed(days(1, 3))
    assert len(world.versions("labels", "ride")) == 2


def test_a_later_cutoff_trains_on_the_corrected_label(world: World) -> None:
    a_few_rides(world)
    world.compute()
    world.land("arrivals2", "18 12", ("a", "1 08", "1 09", "Rome", 2))
    world.compute()
    labels = {cutoff: dict(world.frame(cutoff)[["ride", "label"]].to_numpy()) for cutoff in (
        "1 09", "1 10", "18 12", "18 13"
    )}  # fmt: skip
    assert [label.get("a") for label in labels.values()] == [None, True, True, False]
    known = world.frame("18 13").set_index("ride")["label_known_at"]
    assert known["a"] == at("18 12")
    assert known["b"] == at("1 11")


def test_an_example_after_a_correction_is_given_the_corrected_value(world: World) -> None:
    a_few_rides(world)
    world.compute()
    world.land(
        "arrivals2", "2 10", ("b", "1 10", "1 11", "Rome", 3), ("c", "2 08", "2 09", "Rome", 4)
    )
    world.compute()
    # c began before the correction, d after it.
    assert world.examples() == [("a", 5, LATE), ("b", 6, 20), ("c", 7, 1), ("d", 8, 4)]
    assert world.versions("city_features", "city, delays") == [
        ("Rome", 1, "1 11", "2 10"),
        ("Rome", 3, "2 10", OPEN),
        ("Rome", 30, "2 09", "2 10"),
        ("Rome", 4, "2 10", OPEN),
    ]


def test_where_a_row_was_not_there_yet_or_not_any_more_the_one_before_it_is_given(
    world: World,
) -> None:
    a_few_rides(world)
    world.compute()
    # The arrival of b was that of another city, and c never arrived.
    world.land(
        "arrivals1", "2 10", ("a", "1 08", "1 09", "Rome", 20), ("b", "1 10", "1 11", "Oslo", 1)
    )
    world.compute()
    assert world.examples() == [("a", 5, LATE), ("b", 6, 20), ("c", 7, 1), ("d", 8, LATE)]
    world.declare(city=CITY.replace("FROM arrivals", "FROM arrivals WHERE city = 'Rome'"))
    world.land("rides4", "2 13", ("e", "2 08:30", "Rome", 9))
    world.compute()
    assert ("e", 9, 1) in world.examples()


def test_rows_that_land_late_for_the_first_time_are_known_as_declared(world: World) -> None:
    a_few_rides(world)
    world.compute()
    world.land("arrivals2", "18 12", ("d", "2 12", "2 07", "Rome", 40))
    world.compute()
    assert world.versions("city_features", "city") == []
    assert ("c", 7, 40) in world.examples()


@pytest.mark.exhaustive
def test_day_by_day_in_any_order_and_twice_the_versions_are_the_same(world: World) -> None:
    def found() -> list[list[tuple[Any, ...]]]:
        return [
            world.versions("arrivals", "ride, delay, known_at, _file"),
            world.versions("city_features", "city, event_time, delays"),
            world.versions("labels", "ride, label, known_at"),
        ]

    a_few_rides(world)
    world.compute()
    world.land("arrivals2", "2 10", ("b", "1 10", "1 11", "Rome", 3))
    later = ("a", "1 08", "1 09", "Rome", 2), ("c", "2 08", "2 09", "Rome", 4)
    world.land("arrivals3", "18 12", *later)
    world.compute()
    once = found()
    assert [len(rows) for rows in once] == [6, 6, 4]
    for day in (2, 1, 3, 2):
        world.compute(day, day)
        assert found() == once
    with world.lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA lake.rides CASCADE")
    for day in (3, 2, 1):
        for source in world.use_case.sources:
            ingest(world.lake, world.use_case, source, days(day, day), COMMIT)
    for day in (3, 2, 1):
        world.computed(days(day, day))
    assert found() == once


def test_a_correction_that_rewrites_the_past_is_known_as_declared(world: World) -> None:
    a_few_rides(world)
    world.compute()
    world.land("arrivals2", "17 12", ("a", "1 08", "1 09", "Rome", 3))
    world.compute()
    world.land("arrivals3", "18 12", ("a", "1 08", "1 09", "Rome", 2))
    world.compute(rewrite=True)
    assert world.versions("city_features", "delays") == world.versions("labels", "label") == []
    assert world.examples("3 00") == [("a", 5, None, False), ("b", 6, 2, False), ("c", 7, 1, True)]


def test_a_correction_that_changes_no_value_makes_no_version(world: World) -> None:
    a_few_rides(world)
    world.compute()
    world.land("arrivals2", "18 12", ("b", "1 10:01", "1 11", "Rome", 1))
    world.compute()
    assert world.versions("arrivals", "ride") != []
    assert world.versions("city_features", "city") == []


def test_a_window_that_was_something_else_in_between_has_changed(world: World) -> None:
    def since() -> int:
        with world.lake.cursor() as cursor:
            ranges = {"city_features": Range.of([naive_utc(at("1 00"))])}
            (change,) = read_changes(world.lake, cursor, "rides", ranges)["city_features"].values()
        return change.snapshot

    a_few_rides(world)
    world.compute()
    before = since()
    world.land("arrivals2", "2 10", ("b", "1 10", "1 11", "Rome", 3))
    world.land("arrivals3", "2 11", ("b", "1 10", "1 11", "Rome", 1))
    ingest(world.lake, world.use_case, "arrivals", days(1, 3), COMMIT)
    assert since() == before
    for changed in ({days(1, 1)}, set()):
        written = compute_features(world.lake, world.use_case, "city", days(1, 3), COMMIT)
        assert written.changed == changed
    assert since() > before
    assert [delays for _, delays, *_ in world.versions("city_features", "city, delays")] == [
        1,
        3,
        1,
    ]


def test_windows_that_do_not_see_a_correction_have_no_intervals(world: World) -> None:
    world.land("rides1", "4 00", ("e", "3 08", "Rome", 5))
    world.land("arrivals1", "4 00", ("e", "3 08", "3 09", "Rome", 20))
    world.compute(last=6)
    world.land("arrivals2", "9 00", ("e", "3 08", "3 09", "Rome", 5))
    world.compute(last=6)
    with world.lake.cursor() as cursor:
        known = KnownVersions(world.lake, cursor, world.use_case, world.lake.snapshot(cursor))
        found = intervals_of(
            known,
            ("arrivals",),
            lambda window: Window(window.start - timedelta(days=1), window.end),
            days(1, 6),
        )
        bounds = [(i.window.start.day, i.since, i.until) for i in found]
    corrected = at("9 00")
    assert bounds == [
        (3, None, corrected),
        (3, corrected, None),
        (4, None, corrected),
        (4, corrected, None),
    ]


def test_the_history_of_labels_says_from_when_and_until_when_each_was_known(world: World) -> None:
    a_few_rides(world)
    world.compute()
    with world.lake.cursor() as cursor:
        known = KnownVersions(world.lake, cursor, world.use_case, world.lake.snapshot(cursor))
        assert label_history_sql(known, "true") is None
    world.land("arrivals2", "9 00", ("b", "1 10", "1 11", "Rome", 30))
    world.compute()
    with world.lake.cursor() as cursor:
        known = KnownVersions(world.lake, cursor, world.use_case, world.lake.snapshot(cursor))
        history = label_history_sql(known, "true")
        rows = cursor.execute(
            f"""SELECT ride, label, strftime(known_at, '%-d %H'), strftime(replaced_at, '%-d %H')
            FROM {history} ORDER BY ride, known_at"""
        ).fetchall()
        elsewhere = label_history_sql(known, "window_start > TIMESTAMP '2024-03-01'")
    assert rows == [
        ("a", True, "1 09", None),
        ("b", False, "1 11", "9 00"),
        ("b", True, "9 00", None),
        ("c", True, "2 09", None),
    ]
    assert elsewhere is None


def test_a_row_without_an_entity_is_known_in_one_version_at_a_time(world: World) -> None:
    world.land("rides1", "3 00", ("a", "2 08", "", 5))
    world.land("arrivals1", "3 00", ("a", "2 08", "2 09", "", 20), ("b", "2 09", "2 12", "x", 3))
    world.compute()
    world.land("arrivals2", "18 00", ("a", "2 08", "2 09", "", 7))
    world.compute()
    with world.lake.cursor() as cursor:
        known = KnownVersions(world.lake, cursor, world.use_case, world.lake.snapshot(cursor))
        rows = [
            cursor.execute(
                f"SELECT city, delays FROM {features_sql(known, 'city', 'true', at(moment))} "
                "ORDER BY event_time"
            ).fetchall()
            for moment in ("17 00", "18 00")
        ]
    assert rows == [[(None, 20.0), ("x", 3.0)], [(None, 7.0), ("x", 3.0)]]
    assert check_leak(world.lake, world.use_case, "city", days(2, 2)).problem is None


def test_corrected_windows_pass_the_leak_check_and_leaks_in_them_do_not(world: World) -> None:
    a_few_rides(world)
    world.compute()
    world.land(
        "arrivals2", "2 10", ("b", "1 10", "1 11", "Rome", 3), ("c", "2 08", "2 09", "Rome", 4)
    )
    world.land("arrivals3", "2 11", ("e", "2 08", "2 11", "Rome", 4))
    world.compute()
    for day in (1, 2):
        assert check_leak(world.lake, world.use_case, "city", days(day, day)).problem is None
    both_ways = "BETWEEN INTERVAL 1 HOUR PRECEDING AND INTERVAL 3 HOUR FOLLOWING"
    world.declare(city=CITY.replace("INTERVAL 1 HOUR PRECEDING", both_ways))
    world.computed(days(1, 2))
    assert check_leak(world.lake, world.use_case, "city", days(2, 2)).problem is not None


CITIES = ("Rome", "Oslo")


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]]:
    """What lands at each midnight: arrivals of the day that ends, and corrections of earlier ones.

    A correction changes delay, city or the time of arrival of a ride, or removes its row.
    """
    known: dict[str, tuple[Any, ...]] = {}
    landings = []
    for day in range(1, 5):
        hours = draw(st.lists(st.integers(2, 22), min_size=1, max_size=3, unique=True))
        new = [
            (f"{day}-{hour}", f"{day} {hour - 1:02d}", f"{day} {hour:02d}", CITIES[hour % 2], hour)
            for hour in hours
        ]
        corrected = []
        earlier = (
            st.lists(st.sampled_from(sorted(known)), max_size=3, unique=True) if known else None
        )
        for ride in draw(earlier) if earlier is not None else ():
            _, began, arrived, city, delay = known[ride]
            match draw(st.sampled_from(["delay", "city", "moved", "gone"])):
                case "delay":
                    row = (ride, began, arrived, city, 23 - delay)
                case "city":
                    row = (ride, began, arrived, CITIES[city == "Rome"], delay)
                case "moved":
                    hour = draw(st.integers(int(began.split()[1]) + 1, 23))
                    row = (ride, began, f"{draw(st.integers(1, day - 1))} {hour:02d}", city, delay)
                case _:
                    row = (ride,)
            corrected.append(row)
        for row in (*new, *corrected):
            known[row[0]] = row if len(row) > 1 else known[row[0]]
        landings.append((new, corrected))
    return landings


@settings(deadline=None, max_examples=at_most(8), suppress_health_check=list(HealthCheck))
@given(history=histories(), whole=st.booleans(), most=st.sampled_from((1, MOST_A_STEP)))
def test_a_training_set_stays_as_it_was_whatever_is_corrected_later(
    tmp_path_factory: pytest.TempPathFactory,
    shared_lake: Lake,
    history: Any,
    whole: bool,
    most: int,
) -> None:
    """whole: compute all days at once, or those that changed one by one, the last one first.

    most: corrections of what a window sees that count at their moment, the others at full steps.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "MOST_A_STEP", most)
        stays_as_it_was(World(tmp_path_factory.mktemp("history"), shared_lake), history, whole)


def stays_as_it_was(world: World, history: Any, whole: bool) -> None:
    with world.lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.rides CASCADE")
    stated: dict[str, list[tuple[Any, ...]]] = {}
    then: dict[str, pd.DataFrame] = {}
    for day, (new, corrected) in enumerate(history, start=1):
        # Neither a full hour nor a midnight, which later corrections are put off to.
        landed = f"{day + 1} 00:20"
        gone = {ride for ride, *rest in corrected if not rest}
        moved = {row[0]: row for row in corrected if len(row) > 1}
        for name, rows in list(stated.items()):
            kept = [moved.get(row[0], row) for row in rows if row[0] not in gone]
            if kept != rows:
                stated[name] = kept
                world.land(name, landed, *kept)
        stated[f"arrivals{day}"] = new
        world.land(f"arrivals{day}", landed, *new)
        world.land(
            f"rides{day}", landed, *((r, began, city, hour) for r, began, _, city, hour in new)
        )
        window_ranges = [days(1, 4)] if whole else [days(d, d) for d in (4, 3, 2, 1)]
        for window_range in window_ranges:
            for source in world.use_case.sources:
                ingest(world.lake, world.use_case, source, window_range, COMMIT)
        for window_range in window_ranges:
            world.computed(window_range)
        then[landed] = world.frame(landed, day)
    for landed, frame in then.items():
        again = world.frame(landed, int(landed.split()[0]) - 1)
        pd.testing.assert_frame_equal(again, frame)
