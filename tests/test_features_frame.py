"""The point-in-time join, row by row: which feature row an example is given, and which never."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_platform.errors import TableNotFound
from ml_platform.features import assemble, feature_view_table, labels_table, split_by_window
from ml_platform.settings import Settings
from ml_platform.sources import source_table
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, Table, replace_windows

COMMIT = Commit("test", "0")
SPEC = """\
description: Rides
partitions: {cadence: daily, start: 2024-01-01}
sources:
  rides:
    files: "*.csv"
    event_time: left_at
    key: [ride]
    columns:
      {ride: VARCHAR, left_at: TIMESTAMPTZ, place: VARCHAR, seats: INTEGER, is_late: BOOLEAN,
       booked_at: TIMESTAMPTZ}
features:
  weather: {entity: [place], lookback: 1d, ttl: 2h}
  traffic: {entity: [place], lookback: 1d, ttl: 30m}
  fares: {entity: [place, ride], lookback: 1d, ttl: 2h}
examples:
  source: rides
  entity: [ride]
  columns: [seats, "seats * 2 AS twice", is_late, booked_at, place]
label: {task: binary}
model: {metric: roc_auc}
"""
FILES = {
    "use_case.yaml": SPEC,
    "features/weather.sql": (
        "SELECT place, left_at AS event_time, seats AS temp, place AS sky FROM rides"
    ),
    "features/traffic.sql": "SELECT place, left_at AS event_time, seats AS cars FROM rides",
    "features/fares.sql": "SELECT place, ride, left_at AS event_time, seats AS fare FROM rides",
    "labels.sql": "SELECT ride, left_at AS event_time, is_late AS label, known_at FROM rides",
    "model.py": "def build():\n    pass\n",
}  # fmt: skip
MISSING = "-"


def at(text: str, day: int = 10) -> datetime:
    """A moment of January 2024: `14:30`."""
    hour, minute = map(int, text.split(":"))
    return datetime(2024, 1, day, tzinfo=UTC) + timedelta(hours=hour, minutes=minute)


DAY = Window(at("0:00"), at("24:00"))


@pytest.fixture(scope="module")
def use_case(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    folder = tmp_path_factory.mktemp("use_cases") / "rides"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return load_use_case(folder)


class World:
    """A lake to which rows are given as they are to be joined."""

    def __init__(self, lake: Lake, use_case: UseCase) -> None:
        self.lake, self.use_case = lake, use_case

    def put(self, table: Table, time: str, rows: Sequence[dict[str, Any]]) -> None:
        frame = pd.DataFrame(rows, columns=list(table.columns)).astype(object)
        with self.lake.cursor() as cursor:
            cursor.register("given", frame)
            items = ", ".join(f'CAST("{c}" AS {t}) AS "{c}"' for c, t in table.columns.items())
            replace_windows(
                self.lake, cursor, table, f"SELECT {items} FROM given", time=time,
                calendar=self.use_case.calendar, window_range=Window(at("0:00", 8), at("0:00", 13)),
                commit=COMMIT,
            )  # fmt: skip

    def rides(self, *rows: tuple[str, datetime, str | None]) -> None:
        given = [
            {"ride": ride, "left_at": moment, "place": place, "seats": 3, "known_at": moment}
            for ride, moment, place in rows
        ]
        self.put(source_table(self.use_case, "rides"), "left_at", given)

    def weather(self, *rows: tuple[str, datetime, float | None]) -> None:
        given = [
            {"place": place, "event_time": moment, "temp": temp, "sky": f"sky {temp}"}
            for place, moment, temp in rows
        ]
        self.put(feature_view_table(self.use_case, "weather"), "event_time", given)

    def traffic(self, *rows: tuple[str, datetime, float]) -> None:
        given = [{"place": place, "event_time": t, "cars": cars} for place, t, cars in rows]
        self.put(feature_view_table(self.use_case, "traffic"), "event_time", given)

    def fares(self, *rows: tuple[str, str, datetime, float]) -> None:
        names = ("place", "ride", "event_time", "fare")
        given = [dict(zip(names, row, strict=True)) for row in rows]
        self.put(feature_view_table(self.use_case, "fares"), "event_time", given)

    def labels(self, *rows: tuple[str, datetime, bool | None, datetime]) -> None:
        names = ("ride", "event_time", "label", "known_at")
        given = [dict(zip(names, row, strict=True)) for row in rows]
        self.put(labels_table(self.use_case), "event_time", given)

    def frame(
        self, within: Window = DAY, snapshot: int | None = None, **options: Any
    ) -> pd.DataFrame:
        with self.lake.cursor() as cursor:
            now = self.lake.snapshot(cursor) if snapshot is None else snapshot
            return assemble(cursor, self.lake, self.use_case, within, now, **options)

    def joined(self, column: str = "weather__temp", **options: Any) -> dict[str, Any]:
        """The value that each ride was given; a dash for none."""
        frame = self.frame(**options)
        values = frame[column].astype(object).where(frame[column].notna(), MISSING)
        return dict(zip(frame["ride"], values, strict=True))


@pytest.fixture
def world(tmp_path: Path, use_case: UseCase) -> Iterator[World]:
    lake = Lake(Settings(data=tmp_path))
    world = World(lake, use_case)
    world.weather()
    world.traffic()
    world.fares()
    yield world
    lake.close()


def test_an_example_is_given_the_latest_row_before_it(world: World) -> None:
    world.rides(("r", at("12:00"), "a"))
    world.weather(("a", at("10:30"), 1), ("a", at("11:30"), 2), ("a", at("12:01"), 3))
    assert world.joined() == {"r": 2.0}


def test_what_happens_at_the_same_instant_counts_as_known_and_a_microsecond_later_not(
    world: World,
) -> None:
    world.rides(("r", at("12:00"), "a"))
    world.weather(("a", at("12:00"), 1), ("a", at("12:00") + timedelta(microseconds=1), 2))
    assert world.joined() == {"r": 1.0}


def test_a_row_after_the_example_is_never_joined(world: World) -> None:
    world.rides(("r", at("12:00"), "a"))
    world.weather(("a", at("12:01"), 1))
    assert world.joined() == {"r": MISSING}


def test_a_row_is_joined_up_to_its_time_to_live_and_no_microsecond_longer(world: World) -> None:
    world.rides(("r", at("12:00"), "a"), ("s", at("12:00"), "b"))
    world.weather(("a", at("10:00"), 1), ("b", at("10:00") - timedelta(microseconds=1), 2))
    assert world.joined() == {"r": 1.0, "s": MISSING}


def test_an_older_row_does_not_stand_in_for_a_newer_one_that_says_nothing(world: World) -> None:
    world.rides(("r", at("12:00"), "a"))
    world.weather(("a", at("11:00"), 1), ("a", at("11:30"), None))
    assert world.joined() == {"r": MISSING}


def test_rows_of_another_entity_and_examples_without_one_are_not_joined(world: World) -> None:
    world.rides(("r", at("12:00"), "a"), ("s", at("12:00"), "b"), ("t", at("12:00"), None))
    world.weather(("b", at("11:00"), 2), (None, at("11:00"), 9))  # type: ignore[arg-type]
    assert world.joined() == {"r": MISSING, "s": 2.0, "t": MISSING}


def test_examples_of_one_moment_and_entity_stay_apart(world: World) -> None:
    world.rides(("r", at("12:00"), "a"), ("s", at("12:00"), "a"), ("t", at("12:30"), "a"))
    world.weather(("a", at("11:00"), 1), ("a", at("12:15"), 2))
    assert world.joined() == {"r": 1.0, "s": 1.0, "t": 2.0}


def test_each_view_is_joined_by_its_own_rows_and_time_to_live(world: World) -> None:
    world.rides(("r", at("12:00"), "a"))
    world.weather(("a", at("11:00"), 1))
    world.traffic(("a", at("11:00"), 50), ("a", at("12:10"), 60))
    assert world.joined() == {"r": 1.0}
    assert world.joined("traffic__cars") == {"r": MISSING}
    world.traffic(("a", at("11:45"), 70))
    assert world.joined("traffic__cars") == {"r": 70.0}


def test_a_view_of_two_keys_is_joined_by_both(world: World) -> None:
    world.rides(("r", at("12:00"), "a"), ("s", at("12:00"), "a"), ("t", at("12:00"), "b"))
    world.fares(("a", "r", at("11:00"), 1), ("a", "s", at("11:00"), 2), ("a", "t", at("11:00"), 3))
    assert world.joined("fares__fare") == {"r": 1.0, "s": 2.0, "t": MISSING}


def test_rows_of_the_day_before_are_joined_after_midnight(world: World) -> None:
    world.rides(("r", at("0:30"), "a"))
    world.weather(("a", at("23:30", 9), 1))
    assert world.joined() == {"r": 1.0}


def test_the_range_holds_its_first_moment_and_not_its_last(world: World) -> None:
    world.rides(
        ("before", at("9:59"), "a"), ("first", at("10:00"), "a"),
        ("last", at("10:59"), "a"), ("end", at("11:00"), "a"),
    )  # fmt: skip
    assert list(world.joined(within=Window(at("10:00"), at("11:00")))) == ["first", "last"]


def test_rows_are_in_order_of_time_and_then_of_entity(world: World) -> None:
    world.rides(("b", at("12:00"), "a"), ("a", at("12:00"), "a"), ("c", at("11:00"), "a"))
    assert list(world.frame()["ride"]) == ["c", "a", "b"]


def test_a_snapshot_is_read_as_it_was(world: World) -> None:
    world.rides(("r", at("12:00"), "a"))
    world.weather(("a", at("11:00"), 1))
    world.labels(("r", at("12:00"), True, at("13:00")))
    with world.lake.cursor() as cursor:
        before = world.lake.snapshot(cursor)
    world.rides(("r", at("12:00"), "a"), ("s", at("12:00"), "a"))
    world.weather(("a", at("11:00"), 2))
    world.labels(("r", at("12:00"), False, at("13:00")))
    assert world.joined() == {"r": 2.0, "s": 2.0}
    assert world.joined(snapshot=before) == {"r": 1.0}
    old = world.frame(snapshot=before, labels_known_by=at("14:00"))
    assert old["label"].tolist() == [True]


def test_only_labels_that_were_known_before_the_moment_count(world: World) -> None:
    world.rides(*((ride, at("12:00"), "a") for ride in "rstuv"))
    world.labels(
        ("r", at("12:00"), True, at("13:00")),
        ("s", at("12:00"), False, at("14:00")),
        ("t", at("12:00"), True, at("14:00") - timedelta(microseconds=1)),
        ("u", at("12:00"), None, at("13:00")),
        ("v", at("12:01"), True, at("13:00")),
    )
    frame = world.frame(labels_known_by=at("14:00"))
    assert list(zip(frame["ride"], frame["label"], strict=True)) == [("r", True), ("t", True)]
    assert frame["label_known_at"].max() == at("14:00") - timedelta(microseconds=1)
    assert "label" not in world.frame()


def test_numbers_become_floats_times_seconds_and_all_else_text(world: World) -> None:
    row = {
        "ride": "r", "left_at": at("12:00"), "place": "a", "seats": 3, "is_late": True,
        "booked_at": at("11:00"), "known_at": at("12:00"),
    }  # fmt: skip
    bare = {"ride": "s", "left_at": at("12:00"), "known_at": at("12:00")}
    world.put(source_table(world.use_case, "rides"), "left_at", [row, bare])
    world.weather(("a", at("11:00"), 1))
    frame = world.frame()
    assert list(frame.columns) == ["ride", "event_time", *world.use_case.model_columns]
    full, empty = (frame.iloc[n].to_dict() for n in range(2))
    assert (full["seats"], full["twice"], full["is_late"]) == (3.0, 6.0, 1.0)
    assert full["booked_at"] == at("11:00").timestamp()
    assert (full["place"], full["weather__sky"]) == ("a", "sky 1")
    assert empty["place"] is None
    assert pd.isna(empty["seats"])
    kinds = {"seats", "twice", "is_late", "booked_at", "weather__temp", "traffic__cars"}
    assert {str(frame[name].dtype) for name in kinds} == {"float64"}


def test_a_view_that_nothing_was_written_of_is_named(
    tmp_path: Path, use_case: UseCase, request: pytest.FixtureRequest
) -> None:
    lake = Lake(Settings(data=tmp_path))
    request.addfinalizer(lake.close)
    world = World(lake, use_case)
    world.rides(("r", at("12:00"), "a"))
    with pytest.raises(TableNotFound, match=r"rides\.weather_features"):
        world.frame()


@pytest.mark.parametrize(
    ("hours", "counts"),
    [(["0:00", "23:59", "24:00"], [2, 1]), (["24:00"], [0, 1]), (["23:59"], [1, 0])],
)
def test_a_frame_is_cut_at_the_bounds_of_windows(hours: list[str], counts: list[int]) -> None:
    frame = pd.DataFrame({"event_time": pd.to_datetime([at(hour) for hour in hours], utc=True)})
    windows = [DAY, Window(DAY.end, DAY.end + timedelta(days=1))]
    assert [len(part) for _, part in split_by_window(frame, windows)] == counts
