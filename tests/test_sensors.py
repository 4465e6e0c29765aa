"""Sensors of a small use case, evaluated on a real lake."""

from pathlib import Path

import dagster as dg
import pytest
import trips_use_case as trips

from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from resources import RANGE_END, RANGE_START, LakeResource
from sensors.landing import build_landing, contiguous


@pytest.fixture
def use_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UseCase:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
    return trips.write_folder(tmp_path / "use_cases", "binary")


def land(first: int, last: int, seed: int = 0) -> None:
    folder = Path(Settings().landing_uri) / "trips"
    folder.mkdir(parents=True, exist_ok=True)
    rows = trips.trips(first, last, seed=seed)
    for day, part in rows.groupby(rows["started_at"].dt.strftime("%Y-%m-%d")):
        part.to_csv(folder / f"{day}.csv", index=False)


def evaluate(use_case: UseCase, cursor: str | None) -> dg.SensorResult:
    (sensor,) = build_landing(use_case, Settings())
    with dg.build_sensor_context(
        cursor=cursor, sensor_name=sensor.name, resources={"lake": LakeResource()}
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def ranges(result: dg.SensorResult) -> list[tuple[str, str]]:
    return [(r.tags[RANGE_START], r.tags[RANGE_END]) for r in result.run_requests or []]


def test_nothing_has_landed_yet(use_case: UseCase) -> None:
    assert evaluate(use_case, None).run_requests == []


def test_each_unbroken_run_of_new_days_becomes_one_run(use_case: UseCase) -> None:
    land(2, 4)
    land(8, 8)
    result = evaluate(use_case, None)
    assert ranges(result) == [("2024-03-02", "2024-03-04"), ("2024-03-08", "2024-03-08")]
    tables = {key.path[-1] for key in (result.run_requests or [])[0].asset_selection or []}
    assert tables == {"trips", "pace_features", "labels"}


def test_what_was_asked_for_is_not_asked_for_again(use_case: UseCase) -> None:
    land(2, 4)
    first = evaluate(use_case, None)
    assert evaluate(use_case, first.cursor).run_requests == []


def test_a_corrected_day_is_asked_for_again_under_another_run_key(use_case: UseCase) -> None:
    land(2, 4)
    first = evaluate(use_case, None)
    land(3, 3, seed=1)
    again = evaluate(use_case, first.cursor)
    assert ranges(again) == [("2024-03-03", "2024-03-03")]
    keys = {r.run_key for r in [*(first.run_requests or []), *(again.run_requests or [])]}
    assert len(keys) == 2


def test_days_that_were_ingested_by_hand_are_not_news(use_case: UseCase) -> None:
    land(2, 4)
    lake = Lake(Settings())
    ingest(lake, use_case, "trips", trips.days(2, 4), trips.COMMIT)
    lake.close()
    assert evaluate(use_case, None).run_requests == []


def test_windows_are_grouped_where_they_touch(use_case: UseCase) -> None:
    days = [use_case.calendar.window(f"2024-03-{day:02d}") for day in (9, 10, 11, 14)]
    assert list(contiguous(days)) == [(days[0], days[2]), (days[3], days[3])]
