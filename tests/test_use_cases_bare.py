"""Use cases that lack what most have: feature views, request columns, sensors, a second class."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_platform.errors import SpecErrors, TrainingFailed
from ml_platform.features import OnlineFeatures, assemble, open_online_store, publish_views
from ml_platform.registry import Registry, predict
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.training import train
from ml_platform_dagster.definitions import build_definitions
from tests.served import Deployment
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder

pytestmark = pytest.mark.slow

WITHOUT = {
    "feature views": ("features:\n  pace: {entity: [trip], lookback: 1d, ttl: 1d}\n", ""),
    "request columns": (", columns: [city, distance]", ""),
}
MODEL = """\
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline


def build():
    numbers = (SimpleImputer(), make_column_selector(dtype_include="number"))
    return make_pipeline(make_column_transformer(numbers), LogisticRegression())
"""


def edited(use_case: UseCase, old: str, new: str) -> UseCase:
    file = use_case.folder / "use_case.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return load_use_case(use_case.folder)


@pytest.fixture(params=WITHOUT)
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """Trips that lack something, whose version 1 serves."""
    chosen = settings(tmp_path)
    whole = write_folder(tmp_path, "binary", MODEL, name="bare")
    lake = Lake(chosen)
    land(lake, whole, trips(1, 30), days(1, 30))
    use_case = edited(whole, *WITHOUT[request.param])
    made = Deployment(tmp_path, chosen, lake, Registry(chosen), use_case)
    made.promote(20)
    yield made
    lake.close()


def rows(use_case: UseCase) -> list[dict[str, Any]]:
    landed = trips(1, 30)
    chosen = landed[landed["started_at"].dt.day == 30].astype({"started_at": object})
    chosen["started_at"] = [moment.isoformat() for moment in chosen["started_at"]]
    columns = ["trip", "started_at", *use_case.examples.request]
    return chosen[columns].astype(object).where(chosen[columns].notna(), None).to_dict("records")


@pytest.mark.parametrize("store", ["sqlite", pytest.param("redis", marks=pytest.mark.slow)])
def test_rows_by_key_are_answered_as_the_batch_path_does(
    bare: Deployment, store: str, request: pytest.FixtureRequest
) -> None:
    url = None if store == "sqlite" else request.getfixturevalue("redis_url")
    chosen = bare.settings.model_copy(update={"online_store": url})
    online = open_online_store(chosen)
    published = publish_views(bare.lake, online, bare.use_case, days(28, 30))
    assert list(published) == list(bare.use_case.model_views)
    online.close()
    sent = rows(bare.use_case)
    made = Deployment(bare.root, chosen, bare.lake, bare.registry, bare.use_case)
    with made.client() as client:
        answer = client.post("/predict/bare", json={"rows": sent})
    assert answer.status_code == 200, answer.text
    with bare.lake.cursor(bare.use_case.timezone) as cursor:
        frame = assemble(
            cursor, bare.lake, bare.use_case, days(30, 30), bare.lake.snapshot(cursor)
        ).sort_values("trip")
    model = bare.registry.load(bare.use_case, 1)
    offline = predict(bare.use_case, model, frame)["probability"].tolist()
    found = [row["probability"] for row in answer.json()["predictions"]]
    assert found == pytest.approx(offline, rel=1e-12)


def test_nothing_is_looked_up_where_there_are_no_views(tmp_path: Path) -> None:
    whole = write_folder(tmp_path, "binary", name="bare")
    use_case = edited(whole, *WITHOUT["feature views"])
    store = open_online_store(Settings(data=tmp_path, online_store="redis://127.0.0.1:1"))
    features = OnlineFeatures(store, use_case)
    assert features.look_up({}, [0, 1]).columns == {}
    frame = pd.DataFrame({"event_time": pd.to_datetime(["2024-03-01"], utc=True)})
    assert features.frame(frame).shape == (1, 0)
    features.close()


def test_a_use_case_that_nothing_retrains_has_definitions(tmp_path: Path) -> None:
    use_cases = tmp_path / "use_cases"
    edited(write_folder(use_cases, "binary", name="bare"), *WITHOUT["feature views"])
    spec = use_cases / "bare" / "use_case.yaml"
    spec.write_text(spec.read_text() + "retrain: {on: []}\n")
    definitions = build_definitions(Settings(data=tmp_path, use_cases=use_cases))
    keys = {spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()}
    assert "bare/model" in keys
    assert not any(key.startswith("bare/online") for key in keys)
    assert all("retraining" not in sensor.name for sensor in definitions.sensors or ())


@pytest.fixture
def untrained(tmp_path: Path) -> Iterator[tuple[Lake, Registry, UseCase]]:
    chosen = settings(tmp_path)
    lake = Lake(chosen)
    yield lake, Registry(chosen), write_folder(tmp_path, "binary", name="bare")
    lake.close()


def test_labels_that_have_not_arrived_are_said(
    untrained: tuple[Lake, Registry, UseCase],
) -> None:
    lake, registry, use_case = untrained
    land(lake, use_case, trips(1, 28).assign(delay=float("nan")), days(1, 28))
    with pytest.raises(TrainingFailed, match=r"0 labelled rows to fit on .* have been computed"):
        train(lake, registry, use_case, at(25), COMMIT, tags={})


def test_one_class_is_said(untrained: tuple[Lake, Registry, UseCase]) -> None:
    lake, registry, use_case = untrained
    land(lake, use_case, trips(1, 28).assign(delay=99.0), days(1, 28))
    with pytest.raises(TrainingFailed, match="all with label 1; a classifier needs two classes"):
        train(lake, registry, use_case, at(25), COMMIT, tags={})


def test_few_partitions_are_too_few_and_no_later_cutoff_is_asked_of_a_history_that_is_over(
    untrained: tuple[Lake, Registry, UseCase],
) -> None:
    lake, registry, whole = untrained
    use_case = edited(whole, "start: 2024-03-01", "start: 2024-03-01, end: 2024-03-07")
    land(lake, use_case, trips(1, 6), days(1, 6))
    with pytest.raises(TrainingFailed, match="labelled rows to fit on") as said:
        train(lake, registry, use_case, at(7), COMMIT, tags={})
    assert "shorten model.holdout, as the history ends at 2024-03-07" in str(said.value)


def test_a_history_that_is_all_holdout_is_a_mistake(tmp_path: Path) -> None:
    whole = write_folder(tmp_path, "binary", name="bare")
    with pytest.raises(SpecErrors, match="is all of the history, from 2024-03-01"):
        edited(whole, "start: 2024-03-01", "start: 2024-03-01, end: 2024-03-02")
