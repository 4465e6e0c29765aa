"""Which versions of its rows a source knows, and from when to when each was the truth."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake

pytestmark = [pytest.mark.slow, pytest.mark.every_case]

SPEC = """\
description: Rides
partitions: {cadence: daily, start: 2024-03-01}
sources:
  rides:
    files: "*.csv"
    event_time: began
    key: [ride]
    columns: {ride: VARCHAR, began: TIMESTAMPTZ, fare: DOUBLE}
    EXTRA
  asked:
    files: "asked/*.csv"
    event_time: at
    key: [ride]
    columns: {ride: VARCHAR, at: TIMESTAMPTZ}
examples: {source: asked, entity: [ride], columns: ["1 AS one"]}
label: {task: regression}
model: {metric: mae}
"""
OPEN = None


class Rides:
    """A use case of one source; files land at given days of March 2024, at noon."""

    def __init__(self, folder: Path, lake: Lake) -> None:
        self.folder, self.lake = folder, lake
        self.landing = Path(lake.settings.landing_uri) / "rides"
        self.landing.mkdir(parents=True, exist_ok=True)
        for file in self.landing.glob("*.csv"):
            file.unlink()
        self.declare()

    def declare(self, extra: str = "", columns: str = "") -> None:
        self.folder.mkdir(exist_ok=True)
        spec = SPEC.replace("EXTRA", extra).replace("fare: DOUBLE", f"fare: DOUBLE{columns}")
        (self.folder / "use_case.yaml").write_text(spec)
        (self.folder / "labels.sql").write_text(
            "SELECT ride, began AS event_time, fare AS label, known_at FROM rides"
        )
        (self.folder / "model.py").write_text("def build():\n    pass\n")
        self.use_case: UseCase = load_use_case(self.folder)

    def land(self, name: str, day: int, *rows: tuple[str, str, Any], header: str = "") -> None:
        """Write a file; rows: ride, when it began as day and hour of March, fare."""
        lines = [f"ride,began,fare{header}", *(f"{r},{_at(b).isoformat()},{f}" for r, b, f in rows)]
        (self.landing / name).write_text("\n".join(lines) + "\n")
        os.utime(self.landing / name, (_at(f"{day} 12").timestamp(),) * 2)

    def ingest(self, first: int = 1, last: int = 4, rewrite: bool = False) -> None:
        days = Window(_at(f"{first} 00"), _at(f"{last + 1} 00"))
        ingest(self.lake, self.use_case, "rides", days, Commit("run", "code"), rewrite=rewrite)

    def rows(self) -> list[tuple[str, float]]:
        return self.query("SELECT ride, fare FROM rides ORDER BY ALL")

    def versions(self) -> list[tuple[str, float, str, str | None]]:
        """Ride, fare, and day and hour from and until which that was the truth."""
        with self.lake.cursor() as cursor:
            if "rides_versions" not in self.lake.tables(cursor, "rides"):
                return []
        day = "strftime({}, '%-d %H')"
        return self.query(
            f"SELECT ride, fare, {day.format('_known_from')}, {day.format('_known_until')} "
            "FROM rides_versions ORDER BY ride, _known_from"
        )

    def query(self, sql: str) -> list[Any]:
        with self.lake.cursor() as cursor:
            cursor.execute("USE lake.rides")
            return cursor.execute(sql).fetchall()


def _at(day_and_hour: str) -> datetime:
    day, hour = day_and_hour.split()
    return datetime(2024, 3, int(day), int(hour), tzinfo=UTC)


@pytest.fixture
def rides(tmp_path: Path, shared_lake: Lake) -> Iterator[Rides]:
    yield Rides(tmp_path / "rides", shared_lake)
    with shared_lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.rides CASCADE")


def test_rows_that_nobody_corrected_have_no_versions_however_late_they_land(rides: Rides) -> None:
    rides.land("a.csv", 20, ("r1", "1 08", 5), ("r2", "2 08", 6))
    rides.ingest()
    rides.land("b.csv", 25, ("r3", "1 09", 7))
    rides.ingest()
    assert rides.rows() == [("r1", 5), ("r2", 6), ("r3", 7)]
    assert rides.versions() == []
    assert rides.query("SELECT DISTINCT known_at = began FROM rides") == [(True,)]


def test_a_correction_is_the_truth_once_it_has_arrived(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "1 09", 6))
    rides.ingest()
    rides.land("b.csv", 18, ("r1", "1 08", 9))
    rides.ingest()
    assert rides.rows() == [("r1", 9), ("r2", 6)]
    assert rides.versions() == [("r1", 5, "1 08", "18 12"), ("r1", 9, "18 12", OPEN)]


def test_it_is_the_same_when_both_land_before_the_first_ingestion(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "1 09", 6))
    rides.land("b.csv", 18, ("r1", "1 08", 9))
    rides.ingest()
    assert rides.versions() == [("r1", 5, "1 08", "18 12"), ("r1", 9, "18 12", OPEN)]


def test_ingesting_again_later_or_day_by_day_changes_no_version(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "2 09", 6))
    rides.ingest()
    rides.land("a.csv", 18, ("r1", "1 08", 9), ("r2", "2 09", 7))
    for day in (2, 1, 1, 3):
        rides.ingest(day, day)
    once = rides.query("SELECT snapshot_id, * FROM rides_versions ORDER BY ALL")
    rides.ingest()
    assert rides.versions() == [
        ("r1", 5, "1 08", "18 12"),
        ("r1", 9, "18 12", OPEN),
        ("r2", 6, "2 09", "18 12"),
        ("r2", 7, "18 12", OPEN),
    ]
    assert rides.query("SELECT snapshot_id, * FROM rides_versions ORDER BY ALL") == once


def test_a_file_that_is_written_anew_ends_the_versions_of_the_rows_it_lacks(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "1 09", 6))
    rides.ingest()
    rides.land("a.csv", 18, ("r1", "1 08", 5))
    rides.ingest()
    assert rides.rows() == [("r1", 5)]
    assert rides.versions() == [("r2", 6, "1 09", "18 12")]
    rides.land("b.csv", 20, ("r2", "1 09", 6))
    rides.ingest()
    assert rides.versions() == [("r2", 6, "1 09", "18 12"), ("r2", 6, "20 12", OPEN)]


def test_what_a_removed_row_had_corrected_holds_again(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5))
    rides.land("b.csv", 2, ("r1", "1 08", 6), ("r2", "1 08", 1))
    rides.ingest()
    rides.land("b.csv", 3, ("r2", "1 08", 1))
    rides.ingest()
    assert rides.rows() == [("r1", 5), ("r2", 1)]
    assert rides.versions() == [
        ("r1", 5, "1 08", "2 12"),
        ("r1", 6, "2 12", "3 12"),
        ("r1", 5, "3 12", OPEN),
    ]


def test_rows_that_land_again_unchanged_are_no_correction(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "1 09", 6))
    rides.ingest()
    rides.land("b.csv", 18, ("r1", "1 08", 5), ("r2", "1 09", 8))
    rides.ingest()
    assert rides.query("SELECT ride, _file FROM rides ORDER BY ride") == [
        ("r1", "b.csv"),
        ("r2", "b.csv"),
    ]
    assert [ride for ride, *_ in rides.versions()] == ["r2", "r2"]


def test_several_corrections_of_a_row_follow_each_other(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5))
    rides.ingest()
    rides.land("b.csv", 10, ("r1", "1 08", 6))
    rides.land("c.csv", 11, ("r1", "1 08", 7))
    rides.ingest()
    rides.land("a.csv", 12, ("r1", "1 08", 5))
    rides.ingest()
    assert [row[1:] for row in rides.versions()] == [
        (5, "1 08", "10 12"),
        (6, "10 12", "11 12"),
        (7, "11 12", OPEN),
    ]
    rides.land("d.csv", 13, ("r1", "1 08", 5))
    rides.ingest()
    assert [row[1:] for row in rides.versions()][2:] == [(7, "11 12", "13 12"), (5, "13 12", OPEN)]


def test_a_file_that_lands_out_of_order_and_loses_changes_nothing(rides: Rides) -> None:
    rides.land("b.csv", 10, ("r1", "1 08", 6))
    rides.ingest()
    rides.land("a.csv", 5, ("r1", "1 08", 5))
    rides.ingest()
    assert rides.rows() == [("r1", 6)]
    assert rides.versions() == []


def test_a_version_outlives_the_file_it_came_from(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5))
    rides.ingest()
    (rides.landing / "a.csv").unlink()
    rides.land("b.csv", 18, ("r1", "1 08", 9))
    rides.ingest()
    (rides.landing / "b.csv").unlink()
    rides.land("c.csv", 19, ("r2", "1 10", 1))
    rides.ingest()
    assert rides.versions() == [("r1", 5, "1 08", "18 12"), ("r1", 9, "18 12", OPEN)]


def test_a_file_that_replaces_a_window_ends_what_it_lacks(rides: Rides) -> None:
    rides.declare("late: replace")
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "1 09", 6))
    rides.land("b.csv", 18, ("r1", "1 08", 9))
    rides.ingest()
    expected = [
        ("r1", 5, "1 08", "18 12"),
        ("r1", 9, "18 12", OPEN),
        ("r2", 6, "1 09", "18 12"),
    ]
    assert rides.versions() == expected
    rides.land("c.csv", 20, ("r1", "1 08", 9))
    rides.ingest()
    assert rides.versions() == expected


def test_a_correction_before_the_row_was_known_leaves_one_truth(rides: Rides) -> None:
    rides.declare('known_at: "began + INTERVAL 10 DAY"')
    rides.land("a.csv", 1, ("r1", "1 08", 5))
    rides.ingest()
    rides.land("b.csv", 2, ("r1", "1 08", 9))
    rides.ingest()
    assert rides.rows() == [("r1", 9)]
    assert rides.versions() == []


def test_a_row_that_moves_to_another_day_is_known_there_once_it_has_moved(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "1 09", 6), ("r3", "2 10", 1))
    rides.ingest()
    rides.land("a.csv", 18, ("r1", "2 08", 5), ("r2", "1 09", 6), ("r3", "2 10", 1))
    expected = [("r1", 5, "1 08", "18 12"), ("r1", 5, "18 12", OPEN)]
    for days in ((2, 2), (1, 1)):
        rides.ingest(*days)
    assert rides.versions() == expected
    rides.query("DROP TABLE rides_versions; DROP TABLE rides; DROP TABLE ingestions")
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "1 09", 6), ("r3", "2 10", 1))
    rides.ingest()
    rides.land("a.csv", 18, ("r1", "2 08", 5), ("r2", "1 09", 6), ("r3", "2 10", 1))
    rides.ingest()
    assert rides.versions() == expected


def test_a_column_may_say_when_a_row_was_corrected(rides: Rides) -> None:
    rides.declare("corrected_at: stamped", columns=", stamped: TIMESTAMPTZ")
    rides.land("a.csv", 1, ("r1", "1 08", "5,"), ("r2", "1 09", "6,"), header=",stamped")
    rides.ingest()
    stamp = _at("15 07").isoformat()
    rides.land("b.csv", 18, ("r1", "1 08", f"9,{stamp}"), ("r2", "1 09", "7,"), header=",stamped")
    rides.ingest()
    assert rides.versions() == [
        ("r1", 5, "1 08", "15 07"),
        ("r1", 9, "15 07", OPEN),
        ("r2", 6, "1 09", "18 12"),
        ("r2", 7, "18 12", OPEN),
    ]


def test_a_file_with_a_column_that_was_declared_later_corrects_rows_without_it(
    rides: Rides,
) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "1 09", 6))
    rides.ingest()
    (rides.landing / "a.csv").unlink()
    rides.declare(columns=", tip: DOUBLE")
    rides.land("b.csv", 18, ("r1", "1 08", "9,2"), header=",tip")
    rides.ingest()
    assert rides.query("SELECT ride, fare, tip FROM rides ORDER BY ALL") == [
        ("r1", 9, 2),
        ("r2", 6, None),
    ]
    assert rides.versions() == [("r1", 5, "1 08", "18 12"), ("r1", 9, "18 12", OPEN)]


def test_a_source_may_say_that_corrections_rewrite_the_past(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "1 09", 6))
    rides.ingest()
    rides.land("b.csv", 10, ("r1", "1 08", 7), ("r2", "1 09", 7))
    rides.ingest()
    rides.declare("corrections: rewrite")
    rides.land("c.csv", 18, ("r1", "1 08", 9))
    rides.ingest()
    assert rides.rows() == [("r1", 9), ("r2", 7)]
    assert rides.versions() == [("r2", 6, "1 09", "10 12"), ("r2", 7, "10 12", OPEN)]
    assert rides.query("SELECT file, corrections FROM ingestions ORDER BY snapshot") == [
        ("a.csv", "arrive"),
        ("b.csv", "arrive"),
        ("c.csv", "rewrite"),
    ]


def test_one_landing_may_rewrite_the_past(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "1 09", 6))
    rides.ingest()
    rides.land("a.csv", 18, ("r1", "1 08", 9))
    rides.ingest(rewrite=True)
    assert (rides.rows(), rides.versions()) == ([("r1", 9)], [])
    rides.ingest()
    assert rides.versions() == []
    assert rides.query("SELECT corrections FROM ingestions ORDER BY snapshot") == [
        ("arrive",),
        ("rewrite",),
    ]


def test_another_declaration_is_no_correction(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5), ("r2", "1 09", 6))
    rides.land("b.csv", 10, ("r1", "1 08", 7))
    rides.ingest()
    rides.declare('known_at: "began + INTERVAL 1 HOUR"')
    rides.ingest()
    assert rides.query("SELECT DISTINCT known_at - began = INTERVAL 1 HOUR FROM rides") == [(True,)]
    assert rides.versions() == [("r1", 5, "1 08", "10 12"), ("r1", 7, "10 12", OPEN)]
    assert rides.query("SELECT corrections FROM ingestions ORDER BY snapshot, file") == [
        ("arrive",),
        ("arrive",),
        (None,),
        (None,),
    ]


def test_a_key_that_comes_again_each_day_has_not_moved(rides: Rides) -> None:
    rides.land("a.csv", 1, ("r1", "1 08", 5))
    rides.ingest()
    rides.land("a.csv", 18, ("r1", "1 08", 5), ("r1", "2 08", 6))
    rides.ingest(2, 2)
    rides.ingest()
    rides.land("a.csv", 19, ("r1", "1 08", 7), ("r1", "2 08", 6), ("r1", "3 08", 8))
    for day in (3, 2, 1):
        rides.ingest(day, day)
    assert rides.versions() == [("r1", 5, "1 08", "19 12"), ("r1", 7, "19 12", OPEN)]
