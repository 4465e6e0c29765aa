"""The leak check: planted leaks are found and named by their row, clean views are left alone."""

import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from ml_platform.errors import EmptyPartition, LeakFound
from ml_platform.features import (
    LeakReport,
    check_leak,
    check_written,
    compute_features,
    compute_labels,
)
from ml_platform.features.leak.comparison import RowComparison
from ml_platform.sources import source_table
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, Written, replace_windows

ZONE = ZoneInfo("America/New_York")
COMMIT = Commit("test", "0")
SPEC = """\
description: Rides
partitions: {cadence: daily, start: 2024-01-01, timezone: America/New_York}
sources:
  rides:
    files: "*.csv"
    event_time: left_at
    key: [ride]
    columns: {ride: VARCHAR, left_at: TIMESTAMPTZ, place: VARCHAR, fare: DOUBLE}
features:
  pace: {entity: [ENTITY], lookback: 1d, ttl: 2h, sql: FILE}
examples: {source: rides, entity: [ride], columns: [fare]}
label: {task: binary}
model: {metric: roc_auc}
"""
LABELS = "SELECT ride, left_at AS event_time, fare > 1 AS label, known_at FROM rides"
LATER = "OVER (PARTITION BY place ORDER BY left_at)"
ALL = "OVER (PARTITION BY place)"
Ride = tuple[datetime, str, float | None] | tuple[datetime, str, float | None, datetime]


def at(hour: float, day: int = 10) -> datetime:
    """A moment of January 2024 in New York."""
    return datetime(2024, 1, day, tzinfo=ZONE) + timedelta(hours=hour)


def days(first: int, last: int) -> Window:
    return Window(at(0, first), at(24, last))


DAY = days(10, 10)


class World:
    """A lake of rides, and a feature view of them that a test writes."""

    def __init__(self, folder: Path, lake: Lake) -> None:
        self.folder, self.lake = folder, lake
        self.use_case: UseCase

    def declare(self, features: str, entity: str = "place", where: str = "", **names: str) -> Path:
        """Make the view select some features; the file that its query is in."""
        file = self.folder / names.get("file", "features/pace.sql")
        shutil.rmtree(self.folder, ignore_errors=True)
        file.parent.mkdir(parents=True)
        time = names.get("time", "left_at")
        file.write_text(f"SELECT {entity}, {time} AS event_time, {features} FROM rides {where}")
        spec = SPEC.replace("ENTITY", entity).replace(
            ", sql: FILE", f", sql: {names['file']}" if "file" in names else ""
        )
        for name, text in {"use_case.yaml": spec, "labels.sql": LABELS, "model.py": MODEL}.items():
            (self.folder / name).write_text(text)
        self.use_case = load_use_case(self.folder)
        return file

    def land(self, rides: Sequence[Ride], window_range: Window = DAY) -> None:
        """Rides are known as they leave, unless a fourth value says when."""
        rows = [
            {"ride": f"r{number}", "left_at": ride[0], "place": ride[1], "fare": ride[2],
             "known_at": ride[3] if len(ride) > 3 else ride[0]}
            for number, ride in enumerate(rides)
        ]  # fmt: skip
        table = source_table(self.use_case, "rides")
        frame = pd.DataFrame(rows, columns=list(table.columns)).astype(object)
        items = ", ".join(f'CAST("{c}" AS {t}) AS "{c}"' for c, t in table.columns.items())
        with self.lake.cursor() as cursor:
            cursor.register("given", frame)
            replace_windows(
                self.lake, cursor, table, f"SELECT {items} FROM given", time="left_at",
                calendar=self.use_case.calendar, window_range=window_range, commit=COMMIT,
            )  # fmt: skip

    def compute(self, window_range: Window = DAY) -> Written:
        return compute_features(self.lake, self.use_case, "pace", window_range, COMMIT)

    def check(self, rides: Sequence[Ride], window: Window = DAY, **options: int) -> LeakReport:
        self.land(rides, window)
        self.compute(window)
        return check_leak(self.lake, self.use_case, "pace", window, **options)


MODEL = "def build():\n    pass\n"


@pytest.fixture
def world(tmp_path: Path, shared_lake: Lake) -> Iterator[World]:
    yield World(tmp_path / "rides", shared_lake)
    with shared_lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.rides CASCADE")


FOUR: list[Ride] = [(at(8), "a", 1.0), (at(9), "a", 2.0), (at(10), "a", 4.0), (at(11), "a", 8.0)]


def test_values_of_what_was_known_then_are_clean(world: World) -> None:
    world.declare(
        f"""fare, lag(fare) {LATER} AS before, sum(fare) {LATER} AS total, count(*) {LATER} AS n,
        NULL::DOUBLE AS nothing, NULL::VARCHAR AS silence, 'inf'::DOUBLE AS most,
        '-inf'::DOUBLE AS least, place || fare AS word, fare > 2 AS is_dear,
        date_trunc('day', left_at) AS day"""
    )
    report = world.check(FOUR)
    assert report == LeakReport("pace", DAY, tuple(at(hour) for hour in (8, 9, 10, 11)), 10, None)
    report.raise_if_found()


def test_rows_that_earlier_ones_choose_are_clean(world: World) -> None:
    world.declare("fare", where=f"QUALIFY row_number() {LATER} % 2 = 0")
    report = world.check(FOUR)
    # Also at times of rows that are not stored: there a row could appear.
    assert report == LeakReport(
        "pace", DAY, tuple(at(h) for h in (8, 9, 10, 11)), 0 + 1 + 1 + 2, None
    )


@pytest.mark.parametrize(
    ("features", "said", "row", "change"),
    [
        pytest.param(
            f"lead(fare) {LATER} AS fare",
            "place=a at 2024-01-10T08:00:00-05:00: fare: stored 2.0, without the future NULL",
            "ride=r1 at 2024-01-10T09",
            "from NULL to 2.0",
            id="the row after",
        ),
        pytest.param(
            f"max(fare) {ALL} AS fare",
            "place=a at 2024-01-10T08:00:00-05:00: fare: stored 8.0, without the future 1.0",
            "ride=r1 at 2024-01-10T09",
            "from 1.0 to 2.0",
            id="all of the day",
        ),
        pytest.param(
            f"count(*) {ALL} AS n",
            "place=a at 2024-01-10T08:00:00-05:00: n: stored 4, without the future 1",
            "ride=r1 at 2024-01-10T09",
            "from 1 to 2",
            id="how many there will be",
        ),
        pytest.param(
            f"'till ' || max(left_at) {ALL} AS word",
            "place=a at 2024-01-10T08:00:00-05:00: word: "
            "stored till 2024-01-10 11:00:00-05, without the future till 2024-01-10 08:00:00-05",
            "ride=r1 at 2024-01-10T09",
            "from till 2024-01-10 08:00:00-05 to till 2024-01-10 09:00:00-05",
            id="text",
        ),
        pytest.param(
            f"max(fare) {ALL} > 4 AS is_dear",
            "place=a at 2024-01-10T08:00:00-05:00: is_dear: stored true, without the future false",
            "ride=r3 at 2024-01-10T11",
            "from false to true",
            id="a flag",
        ),
        pytest.param(
            f"CASE WHEN fare <> max(fare) {ALL} THEN fare END AS fare",
            "place=a at 2024-01-10T08:00:00-05:00: fare: stored 1.0, without the future NULL",
            "ride=r1 at 2024-01-10T09",
            "from NULL to 1.0",
            id="a value that is null without the future",
        ),
        pytest.param(
            f"CASE WHEN fare = max(fare) {ALL} THEN fare END AS fare",
            "place=a at 2024-01-10T08:00:00-05:00: fare: stored NULL, without the future 1.0",
            "ride=r1 at 2024-01-10T09",
            "from 1.0 to NULL",
            id="a value that is null with the future",
        ),
        pytest.param(
            f"fare, sum(fare) {LATER} AS ours, sum(fare) {ALL} AS total",
            "place=a at 2024-01-10T08:00:00-05:00: total: stored 15.0, without the future 1.0",
            "ride=r1 at 2024-01-10T09",
            "from 1.0 to 3.0",
            id="one feature of three",
        ),
        pytest.param(
            f"-max(fare) {ALL} AS low, max(fare) {ALL} AS high",
            "place=a at 2024-01-10T08:00:00-05:00: low: stored -8.0, without the future -1.0",
            "ride=r1 at 2024-01-10T09",
            "from -1.0 to -2.0",
            id="the first of two",
        ),
    ],
)
def test_a_value_from_the_future_is_a_leak_and_named_by_its_row(
    world: World, features: str, said: str, row: str, change: str
) -> None:
    file = world.declare(features)
    report = world.check(FOUR)
    assert (report.view, report.window, report.cuts[0]) == ("pace", DAY, at(8))
    assert report.problem == (
        f"{file}: a leak in partition 2024-01-10: hiding what was not known at "
        f"2024-01-10T08:00:00-05:00 changes {said}. "
        f"It looks ahead: the row of rides {row}:00:00-05:00, known at "
        f"{row.rsplit(maxsplit=1)[-1]}:00:00-05:00, changes it {change}. "
        "A feature may use only rows with known_at <= its event_time"
    )
    with pytest.raises(LeakFound) as found:
        report.raise_if_found()
    assert str(found.value) == report.problem


def test_a_row_whose_source_was_not_known_yet_is_gone_without_the_future(world: World) -> None:
    world.declare("fare")
    report = world.check([FOUR[0], (at(9), "b", 2.0, at(9.5)), FOUR[2]])
    assert report.problem is not None
    assert (
        "hiding what was not known at 2024-01-10T09:00:00-05:00 changes "
        "place=b at 2024-01-10T09:00:00-05:00: the row is gone. "
        "It looks ahead: the row of rides ride=r1 at 2024-01-10T09:00:00-05:00, known at "
        "2024-01-10T09:30:00-05:00, changes it from no row to a row. A feature"
    ) in report.problem


def test_a_row_that_is_only_left_out_for_the_future_appears_without_it(world: World) -> None:
    last = "QUALIFY row_number() OVER (PARTITION BY place ORDER BY left_at DESC) = 1"
    world.declare("fare", where=last)
    report = world.check([*FOUR, (at(9.5), "b", 1.0), (at(12), "b", 2.0)])
    assert report.problem is not None
    assert (
        "hiding what was not known at 2024-01-10T08:00:00-05:00 changes "
        "place=a at 2024-01-10T08:00:00-05:00: the row appears. It looks ahead: the row of rides "
        "ride=r1 at 2024-01-10T09:00:00-05:00, known at 2024-01-10T09:00:00-05:00, changes it from "
        "a row to no row. A feature"
    ) in report.problem


def test_what_is_known_later_may_be_used_later(world: World) -> None:
    late: list[Ride] = [(at(8), "a", 1.0, at(9)), (at(9), "a", 2.0, at(12))]
    world.declare("fare", time="known_at")
    assert world.check(late).problem is None
    world.declare("fare", time="left_at")
    assert world.check(late).problem is not None


def test_what_is_known_in_the_same_instant_may_be_used(world: World) -> None:
    world.declare("fare", time="left_at + INTERVAL 1 HOUR")
    assert world.check([(at(8), "a", 1.0, at(9)), (at(9), "b", 2.0, at(10))]).problem is None
    soon = at(9) + timedelta(microseconds=1)
    report = world.check([(at(8), "a", 1.0, soon), (at(9), "b", 2.0, at(10))])
    assert report.problem is not None
    assert "place=a at 2024-01-10T09:00:00-05:00: the row is gone" in report.problem


@pytest.mark.parametrize(
    ("scale", "off", "is_leak"),
    [
        (1.0, 5e-10, False),
        (1.0, 2e-9, True),
        (-1e9, -5e-10, False),
        (-1e9, 2e-9, True),
        (1e-9, 5e-10, False),
    ],
)
def test_the_last_digits_of_a_sum_are_no_leak(
    world: World, scale: float, off: float, is_leak: bool
) -> None:
    world.declare(f"{scale!r} * (1 + {off!r} * (count(*) {ALL} > 1)::INTEGER) AS fare")
    assert (world.check(FOUR).problem is not None) is is_leak


def test_digits_are_compared_with_the_larger_value_and_nothing_with_zero(world: World) -> None:
    world.declare(f"1e-12 * (count(*) {ALL} - 1) AS fare")
    assert world.check(FOUR).problem is not None


def test_the_entity_is_named_by_all_of_its_keys(world: World) -> None:
    file = world.declare(f"max(fare) {ALL} AS fare", entity="place, ride", file="features/x.sql")
    report = world.check(FOUR)
    assert report.problem is not None
    assert report.problem.startswith(f"{file}: a leak in partition 2024-01-10: ")
    assert "changes place=a, ride=r0 at 2024-01-10T08:00:00-05:00: fare" in report.problem


def test_of_several_rows_that_differ_the_last_one_is_named(world: World) -> None:
    world.declare(f"max(fare) {ALL} AS fare")
    early: list[Ride] = [(at(8), place, 1.0) for place in "abc"]
    report = world.check([*early, (at(9), "a", 2.0), (at(9), "b", 2.0)], cuts=2)
    assert report.problem is not None
    assert "changes place=b at 2024-01-10T08:00:00-05:00: fare: stored 2.0" in report.problem


def test_a_leak_into_one_later_row_alone_is_found(world: World) -> None:
    world.declare(f"CASE WHEN fare = 4 THEN max(fare) {ALL} ELSE fare END AS fare")
    report = world.check(FOUR)
    assert report.problem is not None
    assert "not known at 2024-01-10T10:00:00-05:00 changes" in report.problem
    # What had been compared until then: the rows up to each moment.
    assert report.rows_compared == 1 + 2 + 3


def test_few_moments_are_all_tried(world: World) -> None:
    world.declare("fare")
    rides: list[Ride] = [(at(8 + number), "a", 1.0) for number in range(9)]
    hours = tuple(at(hour) for hour in range(8, 17))
    assert world.check(rides) == LeakReport("pace", DAY, hours, sum(range(1, 10)), None)


@pytest.mark.parametrize("cuts", [1, 2, 5, 8])
def test_of_many_moments_so_many_are_tried_the_last_included(world: World, cuts: int) -> None:
    world.declare("fare")
    rides: list[Ride] = [(at(8 + number), "a", 1.0) for number in range(9)]
    report = world.check(rides, cuts=cuts)
    assert (len(report.cuts), report.cuts[-1]) == (cuts, at(16))
    assert report.cuts == tuple(sorted(set(report.cuts)))
    # At each the rows up to it.
    assert report.rows_compared == sum(cut.hour - 7 for cut in report.cuts)


def test_a_moment_that_rows_share_is_tried_once(world: World) -> None:
    world.declare("fare")
    rides: list[Ride] = [(at(8), place, 1.0) for place in "abcd"]
    report = world.check([*rides, (at(9), "a", 1.0)])
    assert (report.cuts, report.rows_compared) == ((at(8), at(9)), 4 + 5)


def test_rows_of_the_lookback_are_seen_and_those_of_other_windows_not_compared(
    world: World,
) -> None:
    back = f"OVER (PARTITION BY place ORDER BY left_at RANGE {DAY_BACK})"
    world.declare(f"count(*) {back} AS n")
    rides: list[Ride] = [(at(20, 9), "a", 1.0), *FOUR, (at(8, 11), "a", 1.0)]
    world.land(rides, days(9, 11))
    world.compute(days(9, 11))
    report = check_leak(world.lake, world.use_case, "pace", DAY)
    assert report == LeakReport("pace", DAY, tuple(at(h) for h in (8, 9, 10, 11)), 10, None)


DAY_BACK = "BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW"


def test_a_query_that_looks_further_back_than_its_lookback_is_reported(world: World) -> None:
    file = world.declare(f"count(*) {LATER} AS n")
    world.land([(at(8, 8), "a", 1.0), *FOUR], days(8, 10))
    world.compute(days(8, 10))
    report = check_leak(world.lake, world.use_case, "pace", DAY)
    assert report.problem == (
        f"{file}: partition 2024-01-10 computed alone differs from what is stored: "
        "place=a at 2024-01-10T11:00:00-05:00: n: stored 5, alone 4. It looks further back than "
        "its lookback of 1d: the row of rides ride=r0 at 2024-01-08T08:00:00-05:00, known at "
        "2024-01-08T08:00:00-05:00, changes it from 4 to 5. Lengthen `lookback`, which counts "
        "event time: rows that become known late count longer"
    )


def test_sources_that_changed_since_are_no_leak_but_reported(world: World) -> None:
    world.declare("fare")
    world.land(FOUR)
    world.compute()
    world.land([*FOUR[:3], (at(11), "a", 9.0)])
    report = check_leak(world.lake, world.use_case, "pace", DAY)
    assert report.problem is not None
    assert (
        "partition 2024-01-10 computed alone differs from what is stored: place=a at "
        "2024-01-10T11:00:00-05:00: fare: stored 8.0, alone 9.0. Either its sources changed since"
    ) in report.problem


def test_a_window_without_rows_has_nothing_to_check(world: World) -> None:
    world.declare("fare")
    world.land(FOUR)
    world.compute()
    with pytest.raises(EmptyPartition) as empty:
        check_leak(world.lake, world.use_case, "pace", days(11, 11))
    assert str(empty.value) == (
        "rides/pace_features has no rows in [2024-01-11T00:00:00-05:00, 2024-01-12T00:00:00-05:00)"
    )


def test_every_window_of_a_short_range_that_has_rows_is_checked(world: World) -> None:
    world.declare("fare")
    rides: list[Ride] = [(at(8 + hour, day), "a", 1.0) for day in range(8, 12) for hour in range(9)]
    world.land(rides, days(8, 13))
    (alone,) = check_written(world.lake, world.use_case, "pace", world.compute(days(9, 9)))
    assert (alone.window, len(alone.cuts), alone.rows_compared) == (
        days(9, 9),
        9,
        sum(range(1, 10)),
    )
    # The 12th and the 13th have no rows.
    found = check_written(world.lake, world.use_case, "pace", world.compute(days(8, 13)))
    assert [report.window for report in found] == [days(day, day) for day in range(8, 12)]


def test_a_leak_in_a_range_is_reported_with_its_window(world: World) -> None:
    world.declare("max(fare) OVER (PARTITION BY place, date_trunc('day', left_at)) AS fare")
    world.land([(at(8, 8), "a", 1.0), (at(8, 9), "a", 1.0), *FOUR], days(8, 10))
    clean, another, leaking = check_written(
        world.lake, world.use_case, "pace", world.compute(days(8, 10))
    )
    assert (clean.window, clean.problem) == (days(8, 8), None)
    assert (another.window, another.problem) == (days(9, 9), None)
    assert leaking.window == DAY
    assert "a leak in partition 2024-01-10: " in str(leaking.problem)


def test_what_others_write_between_a_write_and_its_check_is_no_leak(world: World) -> None:
    world.declare(f"fare, sum(fare) {LATER} AS total")
    world.land(FOUR)
    written = world.compute()
    # A correction of the source, and the partition emptied: neither is what was written.
    world.land([(at(8), "a", 100.0)])
    world.land([], DAY)
    world.compute()
    (report,) = check_written(world.lake, world.use_case, "pace", written)
    assert (report.problem, len(report.cuts)) == (None, 4)


NESTED = {
    "list of floats": (f"list(fare) {LATER}", f"list(fare) {ALL}"),
    "list of lists": (f"[list(fare) {LATER}]", f"[list(fare) {ALL}]"),
    "struct": (
        f"{{'n': count(*) {LATER}, 'f': fare}}",
        f"{{'n': count(*) {LATER}, 'f': max(fare) {ALL}}}",
    ),
    "map": (f"MAP {{place: sum(fare) {LATER}}}", f"MAP {{place: sum(fare) {ALL}}}"),
    "keys of a map": (f"MAP {{sum(fare) {LATER}: 1.5}}", f"MAP {{sum(fare) {ALL}: 1.5}}"),
    "decimal": ("fare::DECIMAL(38, 9)", f"max(fare::DECIMAL(38, 9)) {ALL}"),
    "hugeint": (f"sum(1) {LATER} * {10**30}", f"sum(1) {ALL} * {10**30}"),
    "interval": ("INTERVAL 1 HOUR * fare", f"INTERVAL 1 HOUR * max(fare) {ALL}"),
    "blob": ("encode(place)", f"encode(place || max(fare) {ALL})"),
}


@pytest.mark.parametrize(
    "kind",
    [
        kind if n % 3 == 0 else pytest.param(kind, marks=pytest.mark.slow)
        for n, kind in enumerate(NESTED)
    ],
)
def test_values_of_every_type_are_compared(world: World, kind: str) -> None:
    clean, leaking = NESTED[kind]
    world.declare(f"{clean} AS fare")
    assert world.check(FOUR).problem is None
    world.declare(f"{leaking} AS fare")
    problem = world.check(FOUR).problem
    assert problem is not None
    assert "place=a at 2024-01-10T08:00:00-05:00: fare: stored " in problem
    with world.lake.cursor() as cursor:
        cursor.execute("DROP TABLE lake.rides.pace_features")


@pytest.mark.parametrize("kind", ["list of floats", "struct", "map", "hugeint"])
def test_rows_that_are_the_same_are_known_by_their_fingerprints(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowComparison, "count", lambda *_: pytest.fail("each value is compared"))
    world.declare(f"{NESTED[kind][0]} AS fare")
    report = world.check(FOUR)
    assert report.problem is None
    assert report.rows_compared
    with world.lake.cursor() as cursor:
        cursor.execute("DROP TABLE lake.rides.pace_features")


def test_a_leak_into_the_last_of_many_features_is_named(world: World) -> None:
    many = ", ".join(f"fare * {n} AS fare_{n}" for n in range(150))
    world.declare(f"{many}, max(fare) {ALL} AS highest")
    world.land(FOUR)
    problem = next(
        report.problem
        for report in check_written(world.lake, world.use_case, "pace", world.compute())
    )
    assert problem is not None
    assert "place=a at 2024-01-10T08:00:00-05:00: highest: stored " in problem


@pytest.mark.parametrize("off", [5e-10, 2e-9])
@pytest.mark.parametrize(
    "value",
    [
        *(pytest.param(v, marks=pytest.mark.slow) for v in ("[X]", "{'x': 1, 'y': X}")),
        "MAP {'a': X}",
        pytest.param("[{'x': [X]}]", marks=pytest.mark.slow),
    ],
)
def test_the_last_digits_of_a_sum_are_no_leak_in_a_nested_value(
    world: World, value: str, off: float
) -> None:
    number = f"(1 + {off!r} * (count(*) {ALL} > 1)::INTEGER)::DOUBLE"
    world.declare(f"{value.replace('X', number)} AS fare")
    assert (world.check(FOUR).problem is not None) is (off > 1e-9)


def test_an_entity_without_a_value_is_compared_too(world: World) -> None:
    world.declare(f"max(fare) {ALL} AS fare", entity="place", where="")
    nameless: list[Ride] = [(at(8), None, 1.0), (at(9), None, 2.0)]  # type: ignore[list-item]
    problem = world.check(nameless).problem
    assert problem is not None
    assert "place=NULL at 2024-01-10T08:00:00-05:00: fare: stored 2.0" in problem


EARLY = "the row of rides ride=r0 at 2024-01-10T08:00:00-05:00, known at "


class Labels(World):
    """Rides whose label is made from rides of their own place."""

    def label(self, query: str, horizon: str = "0d") -> Path:
        self.declare("fare")
        file = self.folder / "labels.sql"
        file.write_text(query)
        spec = self.folder / "use_case.yaml"
        declared = f"label: {{task: binary, horizon: {horizon}}}"
        spec.write_text(spec.read_text().replace("label: {task: binary}", declared))
        self.use_case = load_use_case(self.folder)
        return file

    def labels(self, window: Window = DAY) -> Written:
        return compute_labels(self.lake, self.use_case, window, COMMIT)

    def check_labels(self, window: Window = DAY) -> LeakReport:
        self.labels(window)
        return check_leak(self.lake, self.use_case, None, window)


@pytest.fixture
def labels(tmp_path: Path, shared_lake: Lake) -> Iterator[Labels]:
    yield Labels(tmp_path / "rides", shared_lake)
    with shared_lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.rides CASCADE")


def test_labels_that_are_known_as_late_as_their_rows_are_clean(labels: Labels) -> None:
    labels.label(LABELS)
    labels.land([(at(8), "a", 1.0, at(30)), (at(9), "a", 2.0, at(9))])
    assert labels.check_labels() == LeakReport("labels", DAY, (at(9), at(30)), 1 + 2 + 2, None)


def test_labels_that_say_to_be_known_before_their_rows_are_found(labels: Labels) -> None:
    file = labels.label(LABELS.replace("known_at FROM", "left_at AS known_at FROM"))
    labels.land([(at(8), "a", 1.0, at(30)), (at(9), "a", 2.0, at(9))])
    assert labels.check_labels().problem == (
        f"{file}: a leak in partition 2024-01-10: hiding what was not known at "
        "2024-01-10T08:00:00-05:00 changes ride=r0 at 2024-01-10T08:00:00-05:00: the row is gone. "
        f"It looks ahead: {EARLY}2024-01-11T06:00:00-05:00, changes it from no row to a row. "
        "A label's known_at may not be earlier than that of the rows that it is made of"
    )


def test_a_label_made_of_a_later_row_than_it_says_is_found(labels: Labels) -> None:
    labels.label(
        f"SELECT ride, left_at AS event_time, max(fare) {ALL} > 1 AS label, known_at FROM rides"
    )
    labels.land([(at(8), "a", 1.0), (at(9), "a", 2.0)])
    problem = labels.check_labels().problem
    assert problem is not None
    assert "ride=r0 at 2024-01-10T08:00:00-05:00: label: stored true, without the future false" in (
        problem
    )
    assert "the row of rides ride=r1 at 2024-01-10T09:00:00-05:00" in problem


def test_a_label_that_is_revised_says_when_and_is_clean(labels: Labels) -> None:
    labels.label(
        f"SELECT ride, left_at AS event_time, max(fare) {ALL} > 1 AS label, "
        f"max(known_at) {ALL} AS known_at FROM rides"
    )
    labels.land([(at(8), "a", 1.0), (at(9), "a", 2.0)])
    assert labels.check_labels().problem is None


NEXT_DAY = """SELECT ride, left_at AS event_time, later.fare > 1 AS label, later.known_at FROM rides
JOIN (SELECT place, left_at AS then, fare, known_at FROM rides) later USING (place)
WHERE later.then = left_at + INTERVAL 24 HOURS"""


@pytest.mark.parametrize(("horizon", "is_short"), [("0d", True), ("1d", False), ("24h", False)])
def test_a_horizon_that_is_too_short_is_found_alone(
    labels: Labels, horizon: str, is_short: bool
) -> None:
    file = labels.label(NEXT_DAY, horizon)
    rides: list[Ride] = [(at(8, day), "a", 2.0) for day in (9, 10, 11)]
    # One that has a label without a horizon, so that there is something to check.
    labels.land([*rides, (at(0, 10), "b", 1.0), (at(0, 11), "b", 2.0)], days(9, 11))
    if horizon == "0d":
        labels.label(f"{NEXT_DAY} UNION ALL SELECT ride || '!', left_at, true, known_at FROM rides")
    problem = labels.check_labels().problem
    assert (problem is not None) is is_short
    if problem is not None:
        assert problem.startswith(
            f"{file}: the horizon of 0d is too short: shown source rows of a longer horizon, "
            "partition 2024-01-10 changes, ride=r"
        )
        assert "Lengthen `horizon` of the label" in problem


def test_labels_of_a_range_that_their_partitions_do_not_have_are_found(labels: Labels) -> None:
    labels.label(NEXT_DAY)
    labels.land([(at(8, day), "a", 2.0) for day in range(8, 13)], days(8, 12))
    written = labels.labels(days(8, 12))
    assert sum(written.rows.values()) == 4
    found = check_written(labels.lake, labels.use_case, None, written)
    problem = found[0].problem
    assert problem is not None
    assert "It looks further ahead than the horizon of 0d: the row of rides ride=r1 at" in problem


def test_labels_that_came_back_are_left_aside(labels: Labels) -> None:
    labels.label(LABELS)
    labels.land(FOUR)
    written = labels.labels()
    with labels.lake.cursor() as cursor:
        cursor.execute("UPDATE lake.rides.labels SET label = NOT label")
        snapshot = labels.lake.snapshot(cursor)
    (report,) = check_written(labels.lake, labels.use_case, None, Written(snapshot, written.rows))
    assert (report.problem, report.rows_compared) == (None, 1 + 2 + 3 + 4 + 4)


def test_a_lookback_that_is_too_short_is_found_in_a_single_partition(world: World) -> None:
    file = world.declare(f"count(*) {LATER} AS n")
    world.land([(at(20, 8), "a", 1.0), *FOUR], days(8, 10))
    world.compute()
    report = check_leak(world.lake, world.use_case, "pace", DAY)
    assert report.problem == (
        f"{file}: the lookback of 1d is too short: shown source rows of a longer lookback, "
        "partition 2024-01-10 changes, place=a at 2024-01-10T11:00:00-05:00: n: stored 4, then 5: "
        "the row of rides ride=r0 at 2024-01-08T20:00:00-05:00, known at "
        "2024-01-08T20:00:00-05:00, changes it from 4 to 5. Lengthen `lookback`, which counts "
        "event time: rows that become known late count longer"
    )


def test_a_query_that_looks_over_the_end_of_its_partition_looks_ahead(world: World) -> None:
    file = world.declare(f"lead(fare) {LATER} AS fare")
    world.land([(at(23), "a", 1.0), (at(1, 11), "a", 2.0)], days(10, 11))
    first, _ = check_written(world.lake, world.use_case, "pace", world.compute(days(10, 11)))
    assert first.problem == (
        f"{file}: partition 2024-01-10 computed alone differs from what is stored: "
        "place=a at 2024-01-10T23:00:00-05:00: fare: stored 2.0, alone NULL. It looks ahead, over "
        "the partition's end: the row of rides ride=r1 at 2024-01-11T01:00:00-05:00, known at "
        "2024-01-11T01:00:00-05:00, changes it from NULL to 2.0. "
        "A feature may use only rows with known_at <= its event_time"
    )


def test_a_query_that_yields_another_value_each_time_is_reported(world: World) -> None:
    world.declare("fare")
    file = world.folder / "features" / "pace.sql"
    world.land(FOUR)
    # As a function that DuckDB calls volatile would; `check` refuses those that it knows.
    view = world.use_case.features["pace"]
    query = view.query.replace("fare", "CAST(hash(uuid()) % 1000003 AS DOUBLE) AS fare")
    changed = view.model_copy(update={"query": query})
    world.use_case = world.use_case.model_copy(update={"features": {"pace": changed}})
    world.compute()
    problem = check_leak(world.lake, world.use_case, "pace", DAY).problem
    assert problem is not None
    assert problem.startswith(f"{file}: partition 2024-01-10 computed alone differs")
    assert "The query yields another value each time: " in problem
