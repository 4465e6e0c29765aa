"""What the queries of feature views and labels are shown, where their rows go, how they fail."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_platform.errors import DuplicateRows, QueryFailed, TableNotFound
from ml_platform.features import (
    compute_features,
    compute_labels,
    entity_types,
    feature_view_table,
    inside_sql,
    instant,
    labels_table,
    windows_sql,
)
from ml_platform.features.views import since_sql
from ml_platform.sources import source_table
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, Table, Written, replace_windows
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder

MICROSECOND = timedelta(microseconds=1)
TRIP = {"city": "Boston", "distance": 6.0, "delay": 20.0}


@pytest.fixture(scope="module")
def shared_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    lake = Lake(settings(tmp_path_factory.mktemp("views")))
    yield lake
    lake.close()


class World:
    """A use case of trips whose queries a test writes, and its tables."""

    def __init__(self, root: Path, lake: Lake) -> None:
        self.root, self.lake = root, lake
        self.use_case = write_folder(root, "binary")

    def write(self, name: str, text: str) -> Path:
        """Write a file of the use case, and load it again."""
        file = self.use_case.folder / name
        file.write_text(text)
        self.use_case = load_use_case(self.use_case.folder)
        return file

    def declare(self, old: str, new: str) -> None:
        """Change what is declared."""
        spec = (self.use_case.folder / "use_case.yaml").read_text()
        assert old in spec
        self.write("use_case.yaml", spec.replace(old, new))

    def put(self, source: str, rows: list[dict[str, Any]]) -> None:
        table = source_table(self.use_case, source)
        frame = pd.DataFrame(rows, columns=list(table.columns)).astype(object)
        items = ", ".join(f'CAST("{c}" AS {t}) AS "{c}"' for c, t in table.columns.items())
        time = self.use_case.sources[source].event_time
        with self.lake.cursor(self.use_case.timezone) as cursor:
            cursor.register("given", frame)
            replace_windows(
                self.lake, cursor, table, f"SELECT {items} FROM given", time=time,
                calendar=self.use_case.calendar, window_range=days(8, 16), commit=COMMIT,
            )  # fmt: skip

    def trips(self, *moments: datetime) -> None:
        """Trips that start at some moments, by the number of the moment."""
        self.put(
            "trips",
            [
                {"trip": number, "started_at": moment, "known_at": moment, **TRIP}
                for number, moment in enumerate(moments)
            ],
        )

    def pace(self, window_range: Window) -> Written:
        return compute_features(self.lake, self.use_case, "pace", window_range, COMMIT)

    def labels(self, window_range: Window) -> dict[int, Any]:
        compute_labels(self.lake, self.use_case, window_range, COMMIT)
        return dict(self.stored("labels", "trip, label"))

    def stored(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        with self.lake.cursor(self.use_case.timezone) as cursor:
            rows = f"SELECT {columns} FROM lake.trips.{table} ORDER BY event_time, trip"
            return cursor.execute(rows).fetchall()


@pytest.fixture
def world(tmp_path: Path, shared_lake: Lake) -> Iterator[World]:
    yield World(tmp_path, shared_lake)
    with shared_lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.trips CASCADE")


def test_a_feature_table_has_its_entity_event_time_and_features(tmp_path: Path) -> None:
    use_case = write_folder(tmp_path, "binary")
    assert feature_view_table(use_case, "pace") == Table(
        "trips", "pace_features",
        {"trip": "BIGINT", "event_time": "TIMESTAMPTZ", "pace": "DOUBLE"},
        order=("event_time", "trip"), tolerance=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "kind"), [("binary", "BOOLEAN"), ("multiclass", "VARCHAR"), ("regression", "DOUBLE")]
)
def test_labels_have_the_type_of_their_task(tmp_path: Path, task: str, kind: str) -> None:
    assert labels_table(write_folder(tmp_path, task)) == Table(
        "trips", "labels",
        {"trip": "BIGINT", "event_time": "TIMESTAMPTZ", "label": kind, "known_at": "TIMESTAMPTZ"},
        order=("event_time", "trip"),
    )  # fmt: skip


def test_an_entity_is_typed_as_its_source_or_the_request_declares_it(world: World) -> None:
    world.declare("columns: [city, distance]}", 'columns: ["city || 1 AS town", "1 AS one"]}')
    types = entity_types(world.use_case, ("city", "town", "one"))
    assert types == {"city": "VARCHAR", "town": "VARCHAR", "one": "INTEGER"}


def test_a_query_is_shown_its_lookback_in_steps_of_the_calendar_and_no_row_after_the_end(
    world: World,
) -> None:
    # Clocks go forward on the 10th: the day before the 11th has 23 hours.
    world.write(
        "features/pace.sql",
        "SELECT trip, started_at AS event_time, count(*) OVER ()::DOUBLE AS pace FROM trips",
    )
    inside = [at(10), at(11), at(12) - MICROSECOND]
    world.trips(at(10) - MICROSECOND, *inside, at(12))
    written = world.pace(days(11, 11))
    assert world.stored("pace_features", "trip, pace") == [(2, 3.0), (3, 3.0)]
    assert written.rows == {days(11, 11): 2}


def test_a_query_sees_the_declared_columns_of_a_source_and_when_each_row_was_known(
    world: World,
) -> None:
    world.write(
        "features/pace.sql",
        "SELECT trip, started_at AS event_time, epoch(known_at - started_at) AS pace FROM trips",
    )
    late = {"trip": 1, "started_at": at(11, 5), "known_at": at(11, 7), **TRIP}
    world.put("trips", [late])
    world.pace(days(11, 11))
    assert world.stored("pace_features", "pace") == [(7200.0,)]


def test_a_querys_own_names_win_over_sources(world: World) -> None:
    world.write(
        "features/pace.sql",
        "WITH trips AS (SELECT 7 AS trip, TIMESTAMPTZ '2024-03-11 12:00:00+00' AS event_time) "
        "SELECT trip::BIGINT AS trip, event_time, 1.5::DOUBLE AS pace FROM trips",
    )
    world.trips(at(11))
    world.pace(days(11, 11))
    assert world.stored("pace_features", "trip, pace") == [(7, 1.5)]


def test_a_range_is_written_window_by_window_and_says_from_where_it_read(world: World) -> None:
    world.trips(at(10, 5), at(11, 5), at(11, 6), at(13, 5))
    commit = Commit("run-9", "c0de", "pace")
    begun: list[int] = []
    reported = Commit("run-9", "c0de", "pace", begins=begun.append)
    with world.lake.cursor() as cursor:
        before = world.lake.snapshot(cursor)
    written = compute_features(world.lake, world.use_case, "pace", days(10, 13), reported)
    assert list(written.rows.values()) == [1, 2, 0, 1]
    assert (begun, commit.author) == ([before], "run run-9, code c0de")
    with world.lake.cursor() as cursor:
        row = cursor.execute(
            "SELECT author, commit_message, commit_extra_info->>'$.begun_at' "
            "FROM lake.snapshots() ORDER BY snapshot_id DESC LIMIT 1"
        ).fetchone()
    assert row == ("run run-9, code c0de", "pace", str(before))


def test_labels_see_what_comes_within_the_horizon_after_the_end(world: World) -> None:
    # Clocks go forward on the 10th: a day after the 10th is the end of the 10th, 23 hours on.
    world.write(
        "labels.sql",
        "SELECT trip, started_at AS event_time, count(*) OVER () = 3 AS label, "
        "started_at AS known_at FROM trips",
    )
    world.trips(at(9) - MICROSECOND, at(9), at(10) - MICROSECOND, at(11) - MICROSECOND, at(11))
    assert world.labels(days(9, 9)) == {1: True, 2: True}


def test_labels_say_from_which_snapshot_on_they_read(world: World) -> None:
    world.trips(at(11, 5))
    with world.lake.cursor() as cursor:
        before = world.lake.snapshot(cursor)
    written = compute_labels(world.lake, world.use_case, days(10, 11), Commit("run-4", "c0de"))
    assert list(written.rows.values()) == [0, 1]
    with world.lake.cursor() as cursor:
        row = cursor.execute(
            "SELECT author, commit_extra_info->>'$.begun_at' "
            "FROM lake.snapshots() ORDER BY snapshot_id DESC LIMIT 1"
        ).fetchone()
    assert row == ("run run-4, code c0de", str(before))
    assert world.stored("labels", "trip, label, known_at") == [(0, True, at(11, 11))]


def feedback(trip: int, moment: datetime, label: bool) -> Mapping[str, Any]:
    return {
        "feedback_id": f"{trip}", "trip": trip, "event_time": moment, "label": label,
        "kind": "label", "origin": "caller", "known_at": moment + timedelta(hours=9),
        "received_at": moment + timedelta(hours=9),
    }  # fmt: skip


def test_what_came_back_is_a_label_of_its_example_in_the_range_alone(world: World) -> None:
    world.declare("horizon: 1d}", "horizon: 1d, feedback: {}}")
    world.trips(at(11), at(11, 8), at(12) - MICROSECOND, at(12))
    assert world.labels(days(11, 12)) == {0: True, 1: True, 2: True, 3: True}
    said = [
        feedback(1, at(11, 8), label=False),
        feedback(2, at(12) - MICROSECOND, label=False),
        feedback(3, at(12), label=False),
        # Of an example that has not landed.
        feedback(9, at(11, 9), label=False),
    ]
    world.put("feedback", [dict(each) for each in said])
    assert world.labels(days(11, 11)) == {0: True, 1: False, 2: False, 3: True}
    assert world.labels(days(12, 12)) == {0: True, 1: False, 2: False, 3: False}


def test_what_came_back_outside_of_the_range_makes_no_row(world: World) -> None:
    world.declare("horizon: 1d}", "horizon: 1d, feedback: {}}")
    world.write("labels.sql", LABELS_WITHOUT_ROWS)
    world.trips(at(10, 23), at(11), at(12))
    moments = {0: at(10, 23), 1: at(11), 2: at(12)}
    world.put(
        "feedback", [dict(feedback(trip, when, label=True)) for trip, when in moments.items()]
    )
    assert world.labels(days(11, 11)) == {1: True}


LABELS_WITHOUT_ROWS = (
    "SELECT trip, started_at AS event_time, delay > 15 AS label, started_at AS known_at "
    "FROM trips WHERE false"
)


def test_while_a_source_is_empty_nothing_is_computed(world: World) -> None:
    with pytest.raises(TableNotFound, match=r"nothing has been written to trips\.trips"):
        world.pace(days(11, 11))
    with pytest.raises(TableNotFound, match=r"nothing has been written to trips\.trips"):
        world.labels(days(11, 11))


def test_two_rows_of_an_entity_at_one_time_are_refused(world: World) -> None:
    world.write(
        "features/pace.sql",
        "SELECT 1::BIGINT AS trip, date_trunc('day', started_at) AS event_time, "
        "distance AS pace FROM trips",
    )
    world.trips(at(11, 5), at(11, 6))
    with pytest.raises(DuplicateRows, match=r"trips\.pace_features: 2 rows with event_time"):
        world.pace(days(11, 11))


def test_sql_that_fails_as_it_runs_is_reported_with_its_file_and_line(world: World) -> None:
    land(world.lake, world.use_case, trips(11, 12), days(11, 12))
    view = world.write(
        "features/pace.sql",
        "-- How fast\n\nSELECT trip, started_at AS event_time,\n"
        "    CAST('slow' || trip AS DOUBLE) AS pace\nFROM trips\n",
    )
    labels = world.use_case.folder / "labels.sql"
    world.write("labels.sql", labels.read_text().replace("delay > 15", "CAST(city AS INTEGER) = 1"))
    said = rf"^{re.escape(str(view))}:4: Could not convert string 'slow\d+' to DOUBLE"
    with pytest.raises(QueryFailed, match=said) as failure:
        world.pace(days(11, 12))
    assert "\n" not in str(failure.value)
    assert str(failure.value).endswith(f" (trips/pace_features over {days(11, 12)})")
    said = rf"^{re.escape(str(labels))}:1: Could not convert"
    with pytest.raises(QueryFailed, match=said) as failure:
        world.labels(days(11, 12))
    assert str(failure.value).endswith(f" (trips/labels over {days(11, 12)})")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("(9223372036854775807 + trip)::DOUBLE", "Overflow in addition"),
        ("strptime(city, '%Y')::VARCHAR", "Could not parse string"),
        ("CAST(city AS DOUBLE)", "Could not convert string 'Boston' to DOUBLE"),
    ],
)
def test_sql_of_a_named_file_fails_with_that_files_name(
    world: World, value: str, said: str
) -> None:
    world.write("other.sql", f"SELECT trip, started_at AS event_time, {value} AS pace FROM trips")
    world.declare("ttl: 1d}", "ttl: 1d, sql: other.sql}")
    world.put("trips", [{"trip": 1, "started_at": at(11), "known_at": at(11), **TRIP}])
    with pytest.raises(QueryFailed, match=rf"^{re.escape(str(world.use_case.folder))}/other\.sql:"):
        world.pace(days(11, 11))
    with pytest.raises(QueryFailed, match=said):
        world.pace(days(11, 11))


def test_a_column_that_a_stored_source_lacks_is_named(world: World) -> None:
    world.trips(at(11))
    with world.lake.cursor() as cursor:
        cursor.execute("ALTER TABLE lake.trips.trips RENAME COLUMN distance TO length")
    with pytest.raises(QueryFailed, match=r"pace\.sql.*distance"):
        world.pace(days(11, 11))


def test_predicates_name_moments_whatever_the_session_and_windows_by_their_start(
    world: World,
) -> None:
    case = world.use_case
    assert instant(at(11)) == "TIMESTAMPTZ '2024-03-11T00:00:00-04:00'"
    noon = Window(at(11, 12), at(12, 12))
    assert inside_sql(noon, 'a"b') == (
        '"a""b" >= TIMESTAMPTZ \'2024-03-11T12:00:00-04:00\' '
        'AND "a""b" < TIMESTAMPTZ \'2024-03-12T12:00:00-04:00\''
    )
    assert inside_sql(noon).startswith('"event_time" >= ')
    # The windows that hold a range begin at midnight in New York, four hours later in UTC.
    assert windows_sql(case, noon) == (
        "window_start >= TIMESTAMP '2024-03-11 04:00:00' "
        "AND window_start < TIMESTAMP '2024-03-12 16:00:00'"
    )
    assert since_sql(case, at(11, 12)) == "window_start >= TIMESTAMP '2024-03-11 04:00:00'"
    assert instant(datetime(2024, 1, 1, tzinfo=UTC)) == "TIMESTAMPTZ '2024-01-01T00:00:00+00:00'"
