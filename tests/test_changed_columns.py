"""What happens where a use case gains, loses or changes a column: each works, or says the path."""

from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ml_platform.settings import Settings
from ml_platform.storage import Lake
from tests.command_line import Run, command_line
from tests.release_lake import DAYS, rows_of
from tests.test_release_lakes import RELEASES, brought

pytestmark = [pytest.mark.slow, pytest.mark.every_case]

LAST = "2024-03-25"
ANOTHER_NAME = "declare the use case under another name"


class World:
    """A deployment with a champion, whose use case changes."""

    def __init__(self, settings: Settings, run: Run) -> None:
        self.settings, self.run = settings, run
        self.case = settings.use_cases / "trips"
        self.landing = settings.root / "landing" / "trips"

    def change(self, file: str, before: str, after: str) -> None:
        text = (self.case / file).read_text()
        assert before in text
        (self.case / file).write_text(text.replace(before, after))

    def land(self, *columns: str) -> None:
        """A file of one more day, which ends with more columns, each with 1 in it."""
        head, *lines = rows_of(DAYS, Random(1)).splitlines()
        more = "".join(f",{column}" for column in columns)
        ones = ",1" * len(columns)
        text = "\n".join([head + more, *(line + ones for line in lines)])
        (self.landing / f"day{DAYS}.csv").write_text(f"{text}\n")

    def done(self, *arguments: str) -> str:
        code, said = self.run(*arguments)
        assert code == 0, said
        return said

    def refused(self, *arguments: str) -> str:
        code, said = self.run(*arguments)
        assert code == 1, said
        assert "Traceback" not in said
        return said

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(Lake(self.settings)) as lake, lake.cursor() as cursor:
            return cursor.execute(sql.replace("FROM ", "FROM lake.trips.")).fetchall()


@pytest.fixture
def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ML_PLATFORM_DAGSTER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ML_PLATFORM_LANDING_SETTLE_SECONDS", "0")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)

    run = command_line(monkeypatch, capsys)
    world = World(brought(RELEASES[-1], tmp_path), run)
    # Of an older release it asks for it.
    run("upgrade", "--without-backup")
    return world


def backfilled(world: World) -> str:
    return world.done("backfill", "trips", "--here", "--from", LAST, "--to", LAST)


def test_a_source_gains_a_column(world: World, tmp_path: Path) -> None:
    world.change("use_case.yaml", "delay: DOUBLE}", "delay: DOUBLE, wind: DOUBLE}")
    world.change("features/pace.sql", "SELECT city,", "SELECT city, wind,")
    world.done("check", "trips")
    world.land("wind")
    said = world.refused("ingest", "trips")
    assert "day00.csv: no column 'wind'" in said
    assert "can be moved out of the landing folder" in said
    (tmp_path / "before").mkdir()
    for file in world.landing.glob("*.csv"):
        if file.name != f"day{DAYS}.csv":
            file.rename(tmp_path / "before" / file.name)
    world.done("ingest", "trips")
    assert world.query("SELECT count(*), count(wind) FROM trips") == [(425, 17)]
    backfilled(world)
    assert world.query("SELECT count(*), count(wind) FROM pace_features") == [(425, 17)]
    # The champion continues without it.
    assert "17 rows" in world.done("score", "trips", "--partition", LAST)


def test_a_source_loses_a_column(world: World) -> None:
    world.change("use_case.yaml", ", delay: DOUBLE", "")
    world.change("labels.sql", "delay > 15", "distance > 10")
    world.land()
    assert "not declared, so ignored: delay" in world.done("ingest", "trips")
    # What was ingested stays, also in rows that are ingested again.
    assert world.query("SELECT count(*) > count(delay) FROM trips") == [(True,)]
    assert world.query(f"SELECT count(delay) FROM trips WHERE trip >= {DAYS * 100}") == [(0,)]
    world.done("check", "trips")
    backfilled(world)


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ("distance: DOUBLE", "distance: INTEGER", "declare the source under another name"),
        ("trip: BIGINT", "trip: VARCHAR", ANOTHER_NAME),
    ],
)
def test_a_column_of_a_source_changes_its_type(
    world: World, before: str, after: str, path: str
) -> None:
    world.change("use_case.yaml", before, after)
    assert path in world.refused("check", "trips")
    world.land()
    rows = world.query("SELECT count(*) FROM trips")
    said = world.refused("ingest", "trips")
    assert path in said
    assert f"is stored as {before.split()[1]}, now it would be {after.split()[1]}" in said
    assert world.query("SELECT count(*) FROM trips") == rows


def test_a_source_of_another_name_reads_the_files_again_with_other_types(world: World) -> None:
    world.change(
        "use_case.yaml",
        "features:\n",
        '  rides:\n    files: "*.csv"\n    event_time: started_at\n    key: [trip]\n    columns:\n'
        "      {trip: BIGINT, started_at: TIMESTAMPTZ, city: VARCHAR, distance: VARCHAR}\n"
        "features:\n",
    )
    world.change("features/pace.sql", "FROM trips", "FROM rides")
    world.change("features/pace.sql", "avg(distance)", "avg(CAST(distance AS DOUBLE))")
    world.done("check", "trips")
    world.done("ingest", "trips")
    assert world.query("SELECT count(*), any_value(typeof(distance)) FROM rides") == [
        (408, "VARCHAR")
    ]
    world.done("backfill", "trips", "--here", "--from", "2024-03-22", "--to", "2024-03-22")


def test_a_feature_view_gains_a_column(world: World) -> None:
    world.change("features/pace.sql", "SELECT city,", "SELECT city, 1.5 AS extra,")
    world.done("check", "trips")
    world.land()
    world.done("ingest", "trips")
    backfilled(world)
    # Windows of before are stale, and null until they are computed.
    assert world.query("SELECT count(extra) FROM pace_features") == [(17,)]
    assert "warning: trained without pace__extra" in world.done(
        "train", "trips", "--cutoff", "2024-03-23"
    )
    world.done("backfill", "trips", "pace_features", "--only", "--here")
    assert world.query("SELECT count(*) - count(extra) FROM pace_features") == [(0,)]


def test_a_feature_view_loses_a_column(world: World) -> None:
    world.change("features/pace.sql", "AS mean_distance", "AS mean_km")
    world.done("check", "trips")
    world.land()
    world.done("ingest", "trips")
    said = world.refused("backfill", "trips", "--here", "--from", LAST, "--to", LAST)
    assert "fitted on 'pace__mean_distance', which these rows lack" in said
    assert "train a model without it" in said
    world.done("backfill", "trips", "pace_features", "--only", "--here")
    world.done("train", "trips", "--cutoff", "2024-03-25")
    assert "champion 1 cannot score today's features" in world.done("promote", "trips")
    backfilled(world)
    assert world.query(
        f"SELECT DISTINCT model_version FROM predictions WHERE trip >= {DAYS * 100}"
    ) == [(2,)]
    # Predictions of before stay, with the version that made them.
    assert (1,) in world.query("SELECT DISTINCT model_version FROM predictions")


def test_a_feature_changes_its_type(world: World) -> None:
    world.change("features/pace.sql", "avg(distance)", "min(city)")
    path = "cast it back in the query, or give it another name"
    assert path in world.refused("check", "trips")
    assert path in world.refused("features", "trips", "--partition", "2024-03-22")


@pytest.mark.parametrize(
    ("task", "metric", "label"),
    [("regression", "mae", "delay"), ("multiclass", "log_loss", "city")],
)
def test_the_label_changes_its_type(world: World, task: str, metric: str, label: str) -> None:
    world.change("use_case.yaml", "task: binary", f"task: {task}")
    world.change("use_case.yaml", "metric: roc_auc", f"metric: {metric}")
    world.change("labels.sql", "delay > 15", label)
    if task == "regression":
        world.change("model.py", "LogisticRegression", "LinearRegression")
    before = world.query("SELECT count(*), sum(hash(p)) FROM predictions p")
    for words in (
        ("check", "trips"),
        ("labels", "trips", "--partition", "2024-03-22"),
        # A label of another task would be fitted as a number, and judged as one.
        ("train", "trips", "--cutoff", "2024-03-23"),
        ("score", "trips", "--partition", "2024-03-22"),
    ):
        said = world.refused(*words)
        assert "column 'label' is stored as BOOLEAN" in said
        assert ANOTHER_NAME in said
    assert world.query("SELECT count(*), sum(hash(p)) FROM predictions p") == before


def test_a_request_column_is_added_and_another_one_removed(world: World) -> None:
    world.change("use_case.yaml", "columns: [city, distance]", "columns: [city, distance, delay]")
    world.done("check", "trips")
    world.land()
    world.done("ingest", "trips")
    backfilled(world)
    world.change("use_case.yaml", "columns: [city, distance, delay]", "columns: [city, delay]")
    assert "fitted on 'distance', which these rows lack" in world.refused(
        "score", "trips", "--partition", LAST
    )


def test_explanations_are_declared_and_left_out_again(world: World) -> None:
    world.change("use_case.yaml", "rows: 100}", "rows: 100, explanations: 5}")
    world.done("score", "trips", "--range", "2024-03-22...2024-03-22")
    (before,) = world.query("SELECT count(*) FROM explanations")
    assert before > (0,)
    world.change("use_case.yaml", ", explanations: 5", "")
    world.done("check", "trips")
    world.done("score", "trips", "--range", "2024-03-21...2024-03-21")
    assert world.query("SELECT count(*) FROM explanations") == [before]


def test_a_use_case_of_another_name_begins_anew(world: World) -> None:
    world.case.rename(world.case.with_name("journeys"))
    world.done("check", "journeys")
    world.landing.rename(world.landing.with_name("journeys"))
    assert "408 ingested" in world.done("ingest", "journeys")
    # What was stored under the old name stays, and is nobody's.
    assert world.query("SELECT count(*) FROM trips") == [(408,)]
    assert "no use case" in world.refused("status", "trips")


@pytest.mark.parametrize(
    ("before", "after"),
    [("cadence: daily", "cadence: weekly"), ("America/New_York", "UTC")],
)
def test_the_calendar_changes(world: World, before: str, after: str) -> None:
    world.change("use_case.yaml", before, after)
    assert "ml-platform recalendar trips" in world.refused("check", "trips")
    world.done("recalendar", "trips")
    world.done("check", "trips")
    assert world.query("SELECT count(*) FROM trips") == [(408,)]
