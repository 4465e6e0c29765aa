"""Explanations that are stored with predictions: of which rows, what adds up, what is shown."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from starlette.testclient import TestClient

import ml_platform
from ml_platform.errors import PlatformError, SpecErrors
from ml_platform.monitoring.over_time import contributed_columns
from ml_platform.scoring import score
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.tables import code_version
from ml_platform.web import Pages, build_app
from tests.served import Deployment, deploy
from tests.trips_use_case import COMMIT, days

pytestmark = pytest.mark.slow
ROWS = 5


def explaining(made: Deployment, rows: int = ROWS, more: str = "") -> Deployment:
    """The deployment with so many explanations a partition."""
    spec = made.use_case.folder / "use_case.yaml"
    declared = f"monitoring: {{explanations: {rows}, reference_rows: 200}}\n{more}"
    spec.write_text(spec.read_text().replace("monitoring: {reference_rows: 200}\n", declared))
    use_case = load_use_case(made.use_case.folder)
    return Deployment(made.root, made.settings, made.lake, made.registry, use_case)


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    made = explaining(deploy(tmp_path_factory.mktemp("explained"), request.param))
    made.promote(20)
    score(made.lake, made.registry, made.use_case, days(20, 23), COMMIT)
    yield made
    made.lake.close()


def stored(made: Deployment, table: str = "explanations") -> pd.DataFrame:
    with made.lake.cursor() as cursor:
        sql = f"SELECT * FROM lake.trips.{table} ORDER BY event_time, trip"
        return cursor.execute(sql).df()


def test_they_add_up_to_the_predictions_that_are_stored(world: Deployment) -> None:
    found = stored(world)
    assert (found.groupby("window_start").size() == ROWS).all()
    assert found["window_start"].nunique() == 4
    together = found.merge(stored(world, "predictions"), on=["trip", "event_time"])
    assert len(together) == len(found)
    assert (together["model_version_x"] == together["model_version_y"]).all()
    for _, row in together.iterrows():
        assert row["base"] + sum(row["contributions"].values()) == pytest.approx(row["prediction"])
        assert set(row["contributions"]) == {"city", "distance", "pace__pace"}
        assert row["prediction"] == predicted(row)


def predicted(row: Any) -> float:
    if row["output"].startswith("probability of "):
        return dict(row["probabilities"])[row["output"].removeprefix("probability of ")]
    return row[row["output"]]


def test_a_range_equals_its_partitions_and_twice_is_once(world: Deployment) -> None:
    before = stored(world).drop(columns=["snapshot", "_snapshot"])
    with world.lake.cursor() as cursor:
        snapshot = world.lake.snapshot(cursor)
    for day in range(20, 24):
        score(world.lake, world.registry, world.use_case, days(day, day), COMMIT)
    pd.testing.assert_frame_equal(stored(world).drop(columns=["snapshot", "_snapshot"]), before)
    with world.lake.cursor() as cursor:
        assert world.lake.snapshot(cursor) == snapshot


def test_columns_are_ordered_by_how_far_they_move_predictions(world: Deployment) -> None:
    found = stored(world)
    wide = pd.DataFrame(found["contributions"].tolist()).abs()
    means = wide.mean()
    columns = contributed_columns(world.lake, world.use_case, 30)
    assert [each.column for each in columns] == list(means.sort_values(ascending=False).index)
    for each in columns:
        assert each.mean == pytest.approx(means[each.column])
        by_window = wide[each.column].groupby(found["window_start"]).mean()
        assert list(each.windows.values()) == pytest.approx(list(by_window))
    (newest,) = contributed_columns(world.lake, world.use_case, 1)[0].windows
    assert newest == days(23, 23)


def test_the_page_shows_what_predictions_rest_on(world: Deployment) -> None:
    pages = Pages(world.settings)
    page = TestClient(build_app(pages), base_url="http://127.0.0.1").get("/trips/").text
    pages.site.close()
    assert "What they rest on" in page
    assert f"{ROWS} of each partition, of the newest 4 partitions" in page


def test_a_notebook_returns_them(world: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(world.settings.use_cases))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(world.settings.data))
    opened = ml_platform.open("trips")
    found = opened.explanations("2024-03-21...2024-03-22")
    assert set(found["partition"]) == {"2024-03-21", "2024-03-22"}
    first = found.iloc[0]
    assert first["base"] + sum(first["contributions"].values()) == pytest.approx(
        first["prediction"]
    )


def test_without_a_declaration_nothing_is_explained(tmp_path: Path) -> None:
    made = deploy(tmp_path)
    made.promote(20)
    score(made.lake, made.registry, made.use_case, days(20, 20), COMMIT)
    with made.lake.cursor() as cursor:
        assert "explanations" not in made.lake.tables(cursor, "trips")
    assert contributed_columns(made.lake, made.use_case, 30) == []
    # Declared, they come with the predictions that are made anew.
    later = explaining(made)
    before, after = (code_version(case, "predictions") for case in (made.use_case, later.use_case))
    assert before != after
    assert code_version(made.use_case, "drift_report") == code_version(
        later.use_case, "drift_report"
    )
    made.lake.close()


def test_engine_spark_is_refused(tmp_path: Path) -> None:
    made = deploy(tmp_path)
    with pytest.raises(SpecErrors, match="engine spark writes none"):
        explaining(made, more="engine: spark\n")
    spec = made.use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace("engine: spark\n", ""))
    declared = load_use_case(made.use_case.folder)
    with pytest.raises(PlatformError, match="engine spark writes no explanations"):
        score(made.lake, made.registry, declared, days(20, 20), COMMIT, engine="spark")
    made.lake.close()
