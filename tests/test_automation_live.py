"""What serving adds follows too: requests and feedback land, and reports come by themselves."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from starlette.testclient import TestClient

from ml_platform.serving.worker import create_app
from ml_platform.settings import Settings
from ml_platform.spec.use_case import LIVE_REPORTS, LOGGED_SOURCES
from ml_platform.storage import Lake
from ml_platform_dagster.definitions import build_definitions
from ml_platform_dagster.resources import RANGE_END, RANGE_START, LakeResource
from ml_platform_dagster.sensors.landing import build_landing
from tests import trips_use_case as trips
from tests.served import LOCAL, LOGGED, ROW, serving_settings
from tests.test_automation import CUTOFF, LAST, Loop, on

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """Four weeks and a champion; nobody has asked for a prediction yet."""
    root = tmp_path_factory.mktemp("loop")
    spec = trips.write_folder(root / "use_cases", "binary").folder / "use_case.yaml"
    spec.write_text(spec.read_text() + LOGGED)
    with pytest.MonkeyPatch.context() as patch, dg.instance_for_test() as instance:
        patch.setenv("ML_PLATFORM_DATA", str(root / "data"))
        patch.setenv("ML_PLATFORM_USE_CASES", str(root / "use_cases"))
        patch.setenv("ML_PLATFORM_LANDING_SETTLE_SECONDS", "0")
        loop = Loop(root, instance)
        for day in range(1, LAST + 1):
            loop.land(day)
        assert loop.run(["trips"], on(1), on(LAST))
        assert loop.run(["pace_features", "labels"], on(1), on(LAST))
        assert loop.run(["model", "promotions"], CUTOFF, CUTOFF)
        assert loop.run(["online_features"], on(LAST), on(LAST))
        assert loop.tick() == []
        yield loop


def client() -> TestClient:
    return TestClient(create_app(Settings(), serving_settings()), LOCAL)


def rows_of(day: int) -> list[dict[str, Any]]:
    landed = trips.trips(day, day, a_day=60).drop(columns="delay")
    landed["started_at"] = landed["started_at"].map(lambda at: at.isoformat())
    return landed.astype(object).where(landed.notna(), None).to_dict("records")


def ask(day: int) -> list[str]:
    """Have all trips of a day predicted; the names of the predictions."""
    with client() as asking:
        answer = asking.post("/predict/trips", json={"rows": rows_of(day)})
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["predictions"]]


def say(prediction: str, label: bool) -> None:
    with client() as asking:
        item = {"prediction_id": prediction, "label": label}
        assert asking.post("/feedback/trips", json={"items": [item]}).status_code == 202


def arrive(loop: Loop) -> list[set[str]]:
    """What the landing sensor asks for, done: the sources of each run."""
    (sensor,) = build_landing(loop.use_case, Settings())
    with dg.build_sensor_context(
        instance=loop.instance, sensor_name=sensor.name, resources={"lake": LakeResource()}
    ) as context:
        found = sensor(context)
    assert isinstance(found, dg.SensorResult)
    asked = []
    for request in found.run_requests or []:
        sources = [key.path[-1] for key in request.asset_selection or ()]
        assert loop.run(sources, request.tags[RANGE_START], request.tags[RANGE_END])
        asked.append(set(sources))
    return asked


def count(query: str) -> int:
    lake = Lake(Settings())
    with lake.cursor() as cursor:
        row = cursor.execute(f"SELECT count(*) FROM lake.trips.{query}").fetchone()
    lake.close()
    assert row is not None
    return int(row[0])


def test_requests_that_land_are_reported_on(loop: Loop) -> None:
    ask(26)
    assert arrive(loop) == [{"requests"}]
    (requested,) = loop.follow()
    # A request may be what feedback names, so labels look again. Reports on predictions do not:
    # these days have none.
    assert requested == {
        "labels": (on(26), on(26)),
        "live_drift_report": (on(26), on(26)),
        "live_performance_report": (on(26), on(26)),
    }
    for report in LIVE_REPORTS:
        assert loop.materialized(report) == {on(26)}
    assert loop.tick() == []


@pytest.mark.exhaustive
def test_feedback_that_lands_becomes_labels_and_their_reports(loop: Loop) -> None:
    first, *_ = ask(27)
    arrive(loop)
    loop.follow()
    reports = {table: loop.count(table) for table in ("labels", "live_performance_report")}
    known = "labels WHERE known_at > now() - INTERVAL 1 DAY"
    assert count(known) == 0
    say(first, label=True)
    assert arrive(loop) == [{"feedback"}]
    (requested,) = loop.follow()
    assert requested["labels"] == requested["live_performance_report"] == (on(27), on(27))
    assert count(known) == 1
    for table, before in reports.items():
        assert loop.count(table) == before + 1
    assert loop.tick() == []


def test_refused_requests_land_and_nothing_follows(loop: Loop) -> None:
    with client() as asking:
        asking.post("/invocations", json={"dataframe_records": [{**ROW, "city": "Bosten"}]})
    assert arrive(loop) == [{"refusals"}]
    assert count("refusals") == 1
    assert loop.tick() == []


def test_a_request_of_this_moment_is_in_the_lake_before_its_day_is_over(loop: Loop) -> None:
    with client() as asking:
        asking.post("/invocations", json={"dataframe_records": [ROW]})
    assert arrive(loop) == [{"requests"}]
    assert count("requests WHERE NOT by_key") == 1
    today = loop.use_case.calendar.key(loop.use_case.calendar.window_at(datetime.now(UTC)))
    # Reports are of whole days.
    assert all(today > last for each in loop.tick() for _, last in each.values())


@pytest.mark.exhaustive
def test_online_features_follow_the_views_that_are_looked_up(loop: Loop) -> None:
    loop.land(LAST, seed=3)
    loop.ingest(LAST)
    (requested,) = loop.follow()
    assert requested["online_features"] == requested["pace_features"]
    with client() as asking:
        row = trips.trips(LAST, LAST, a_day=60, seed=3).dropna().iloc[0]
        key = {"trip": int(row["trip"]), "started_at": row["started_at"].isoformat()}
        asked = {**key, "city": row["city"], "distance": row["distance"]}
        assert asking.post("/predict/trips", json={"rows": [asked]}).status_code == 200
    arrive(loop)
    lake = Lake(Settings())
    with lake.cursor() as cursor:
        pace = cursor.execute(
            f"SELECT pace__pace FROM lake.trips.requests WHERE trip = {key['trip']}"
        ).fetchall()
    lake.close()
    assert pace == [(row["distance"] / 60,)]
    loop.follow()


def test_a_use_case_without_a_log_has_none_of_this(tmp_path: Path) -> None:
    trips.write_folder(tmp_path, "binary")
    definitions = build_definitions(Settings(use_cases=tmp_path))
    tables = {spec.key.path[-1] for spec in definitions.resolve_all_asset_specs()}
    assert tables.isdisjoint({*LOGGED_SOURCES, *LIVE_REPORTS})
