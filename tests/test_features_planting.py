"""Leaks that are planted in the views of a use case, and what the check makes of them."""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from ml_platform.errors import TableNotFound
from ml_platform.features.planting import Plant, plant
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from tests import trips_use_case as trips

PACE = "SELECT city, started_at AS event_time, avg(delay) AS pace FROM trips GROUP BY ALL"


def use_case_in(root: Path, query: str) -> UseCase:
    folder = trips.write_folder(root, "binary").folder
    spec = folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace("pace: {entity: [trip]", "pace: {entity: [city]"))
    (folder / "features" / "pace.sql").write_text(query)
    return load_use_case(folder)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("planted")
    lake = Lake(Settings(data=folder / "data"))
    use_case = trips.write_folder(folder, "binary")
    trips.land(lake, use_case, trips.trips(1, 8), trips.days(1, 8))
    yield lake
    lake.close()


def planted(lake: Lake, root: Path, query: str) -> dict[str, Plant]:
    aside = Lake(Settings(data=root / "aside"))
    try:
        use_case = use_case_in(root, query)
        of_the_view = takewhile(lambda each: each.view == "pace", plant(lake, aside, use_case))
        return {each.kind: each for each in of_the_view}
    finally:
        aside.close()


@pytest.mark.slow
def test_a_leak_of_each_kind_is_planted_and_found_or_not(lake: Lake, tmp_path: Path) -> None:
    with lake.cursor() as cursor:
        snapshot, tables = lake.snapshot(cursor), lake.tables(cursor, "trips")

    found = planted(lake, tmp_path, PACE)

    by_outcome: dict[str, list[str]] = {}
    for kind, each in found.items():
        by_outcome.setdefault(each.outcome, []).append(kind)
    assert by_outcome == {
        "clean": ["nothing"],
        "found": [
            "the next row",
            "the next row, on one weekday",
            "the next row, in one of a hundred",
            "the next row, in one partition",
            "the next row, in the first hour",
            "the next row, over midnight",
            "the next row, in a list",
            "the next row, in a struct",
            "the last value of a frame",
            "the last row of the day",
            "the mean of the day",
            "off the mean of everything",
            "a second too early",
            "only the last row of the day",
            "rows of the next hour",
            "the nearest later row",
            "everything so far",
        ],
        # The last trip of a day begins at 21:27, and each is known as it begins.
        "changes nothing": [
            "the next row, in the last ten minutes",
            "rows that happened and are not known yet",
            "an hour further back than the lookback",
            "late rows, further back than the lookback",
        ],
    }
    assert found["the next row, in the last ten minutes"].rows == 0
    rows = [found[f"the next row{where}"].rows for where in ("", ", in one partition")]
    assert rows[0] > rows[1] > 0
    # On each of eight days the last row of three cities stays, and that of trips without a city.
    stay = found["a second too early"].rows - found["only the last row of the day"].rows
    assert 8 * 3 <= stay <= 8 * 4
    with lake.cursor() as cursor:
        assert (lake.snapshot(cursor), lake.tables(cursor, "trips")) == (snapshot, tables)


@pytest.mark.slow
def test_a_view_that_leaks_as_it_is_is_not_called_clean(lake: Lake, tmp_path: Path) -> None:
    leaking = (
        "SELECT city, started_at AS event_time, lead(delay) OVER (PARTITION BY city "
        "ORDER BY started_at, trip) AS next FROM trips "
        "QUALIFY row_number() OVER (PARTITION BY city, started_at ORDER BY trip) = 1"
    )
    itself = planted(lake, tmp_path, leaking)["nothing"]
    assert itself.outcome == "false alarm"
    assert itself.problem


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_view_without_numbers_is_planted_in_as_well(lake: Lake, tmp_path: Path) -> None:
    texts = PACE.replace("avg(delay)", "max(trip::VARCHAR)")
    found = planted(lake, tmp_path, texts)
    assert "the mean of the day" not in found
    assert found["the next row"].outcome == "found"


def test_a_view_without_rows_is_not_called_clean(lake: Lake, tmp_path: Path) -> None:
    found = planted(lake, tmp_path, PACE.replace("GROUP", "WHERE delay > 1e9 GROUP"))
    assert {kind: each.outcome for kind, each in found.items()} == {"nothing": "no rows"}


@pytest.mark.exhaustive
@pytest.mark.slow
def test_what_was_known_ahead_is_no_leak_that_was_missed(tmp_path: Path) -> None:
    lake, use_case = Lake(Settings(data=tmp_path / "data")), trips.write_folder(tmp_path, "binary")
    trips.land(lake, use_case, trips.trips(1, 8), trips.days(1, 8))
    with lake.cursor() as cursor:
        # As of a timetable: each trip is known two days before it begins.
        cursor.execute("UPDATE lake.trips.trips SET known_at = known_at - INTERVAL 2 DAY")
    found = planted(lake, tmp_path, PACE)
    lake.close()
    for kind in ("the last row of the day", "the mean of the day"):
        assert (found[kind].outcome, found[kind].rows > 0) == ("known by then", True)
    # A partition by itself is shown no row after its end.
    assert found["the next row"].outcome == "found"


def test_the_outcome_of_a_plant_says_what_the_check_said() -> None:
    outcomes = {
        Plant("v", kind, rows, problem).outcome: (kind, rows, problem)
        for kind in ("nothing", "the next row")
        for rows in (0, 5)
        for problem in (None, "a leak")
    }
    assert set(outcomes) == {"clean", "false alarm", "changes nothing", "found", "missed"}
    assert outcomes["missed"] == ("the next row", 5, None)
    assert outcomes["found"] == ("the next row", 5, "a leak")


def test_nothing_is_planted_where_nothing_has_been_ingested(tmp_path: Path) -> None:
    empty, aside = Lake(Settings(data=tmp_path / "a")), Lake(Settings(data=tmp_path / "b"))
    with pytest.raises(TableNotFound, match=r"nothing has been written to trips\.trips"):
        list(plant(empty, aside, use_case_in(tmp_path, PACE)))
    empty.close()
    aside.close()
