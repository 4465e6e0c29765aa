"""Explanations of single predictions: what adds up, what is exact, what cannot be explained."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_platform.errors import EmptyPartition, FeatureError, ModelRefused
from ml_platform.registry import ModelVersion, predict
from ml_platform.scoring import explain, explain_prediction, score
from ml_platform.storage import Lake
from tests.kept_models import KeptModels, promote
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder

REGRESSION = pytest.mark.parametrize("world", ["regression"], indirect=True)
NUMBERS = ("distance", "pace__pace")


class Linear:
    """Independent columns: contributions are exact."""

    def predict(self, rows: pd.DataFrame) -> Any:
        numbers = rows[list(NUMBERS)].fillna(0.0).to_numpy(dtype=np.float64)
        return numbers @ np.array([2.0, -3.0]) + (rows["city"] == "north").to_numpy() * 7.0


class Product(Linear):
    """Columns that act on each other."""

    def predict(self, rows: pd.DataFrame) -> Any:
        numbers = rows[list(NUMBERS)].fillna(0.0).to_numpy(dtype=np.float64)
        return numbers.prod(axis=1)


class Crowd(Linear):
    """Predicts a row differently when others come along."""

    def predict(self, rows: pd.DataFrame) -> Any:
        return super().predict(rows) + len(rows)


class Probabilities:
    """Native categories, which explainers of trees stumble over."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def predict_proba(self, rows: pd.DataFrame) -> Any:
        far = rows["distance"].fillna(10.0).to_numpy(dtype=np.float64) / 40
        text = rows["city"].map(lambda city: len(str(city)) / 5).to_numpy(dtype=np.float64)
        scores = np.column_stack([far * k - text for k in range(self.classes)])
        raised = np.exp(scores)
        return raised / raised.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module", params=["regression", "binary", "multiclass"])
def world(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("explained")
    use_case = write_folder(root, request.param)
    lake = Lake(settings(root))
    land(lake, use_case, trips(1, 12), days(1, 12))
    yield SimpleNamespace(lake=lake, use_case=use_case, task=request.param, rows=rows(lake))
    lake.close()


def rows(lake: Lake) -> pd.DataFrame:
    with lake.cursor("UTC") as cursor:
        frame: pd.DataFrame = cursor.execute(
            "SELECT distance::DOUBLE AS distance, city, distance::DOUBLE / 60 AS pace__pace "
            "FROM lake.trips.trips ORDER BY started_at, trip"
        ).fetch_df()
    return frame.assign(city=frame["city"].astype(object).where(frame["city"].notna(), None))


def version_of(world: Any, estimator: Any, classes: tuple[str, ...] = ()) -> ModelVersion:
    columns = {name: world.use_case.model_columns[name] for name in ("distance", "city")}
    columns["pace__pace"] = world.use_case.model_columns["pace__pace"]
    return ModelVersion(
        use_case="trips", version=1, run_id="", cutoff=at(9), snapshot=1, estimator=estimator,
        digest="", metrics={}, reference=world.rows.head(200), classes=classes, columns=columns,
        trained_from=at(1), trained_until=at(9),
    )  # fmt: skip


def estimators(task: str) -> list[tuple[Any, tuple[str, ...]]]:
    if task == "regression":
        return [(Linear(), ()), (Product(), ())]
    classes = ("0", "1") if task == "binary" else ("a", "b", "c")
    return [(Probabilities(len(classes)), classes)]


def test_contributions_add_up_to_the_prediction(world):
    asked = world.rows.tail(5)
    for estimator, classes in estimators(world.task):
        version = version_of(world, estimator, classes)
        predicted = predict(world.use_case, version, asked)
        for (_, row), found in zip(
            predicted.iterrows(), explain(world.use_case, version, asked), strict=True
        ):
            total = found.base + sum(found.contributions.values())
            assert total == pytest.approx(found.prediction, rel=1e-9)
            if world.task == "multiclass":
                assert found.output == f"probability of {row['predicted']}"
                assert found.prediction == row["probabilities"][row["predicted"]]
            else:
                assert found.prediction == row[found.output]
            assert set(found.contributions) == set(version.columns)


def test_the_same_seed_yields_the_same_numbers(world):
    estimator, classes = estimators(world.task)[-1]
    version, asked = version_of(world, estimator, classes), world.rows.tail(1)
    assert explain(world.use_case, version, asked) == explain(world.use_case, version, asked)


@REGRESSION
def test_of_columns_that_act_independently_contributions_are_exact(world):
    version, asked = version_of(world, Linear()), world.rows.iloc[[300]]
    (found,) = explain(world.use_case, version, asked, samples=200)
    background = version.reference.iloc[np.linspace(0, 199, 100).round().astype(int)]
    for name, weight in zip(NUMBERS, (2.0, -3.0), strict=True):
        expected = weight * (asked[name].fillna(0.0).item() - background[name].fillna(0.0).mean())
        assert found.contributions[name] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    north = float(asked["city"].item() == "north") - (background["city"] == "north").mean()
    assert found.contributions["city"] == pytest.approx(7 * north, abs=1e-9)


@REGRESSION
def test_two_columns_that_multiply_share_what_they_do_together(world):
    version, asked = version_of(world, Product()), world.rows.iloc[[301]].fillna(1.0)
    (found,) = explain(world.use_case, version, asked, samples=4)
    background = version.reference.iloc[[0, 199]][list(NUMBERS)].fillna(0.0).to_numpy()
    x = asked[list(NUMBERS)].to_numpy()[0]
    # The mean over both orders, which an order and its reverse are.
    first = [(x[0] - b[0]) * (x[1] + b[1]) / 2 for b in background]
    assert found.contributions["distance"] == pytest.approx(np.mean(first))
    assert found.contributions["city"] == 0.0


@REGRESSION
def test_what_depends_on_other_rows_is_refused(world):
    with pytest.raises(ModelRefused, match="predicts a row differently when other rows come"):
        explain(world.use_case, version_of(world, Crowd()), world.rows.tail(1))


def test_rows_that_lack_a_column_are_refused(world):
    estimator, classes = estimators(world.task)[0]
    with pytest.raises(FeatureError, match="pace__pace"):
        explain(
            world.use_case, version_of(world, estimator, classes), world.rows[["distance", "city"]]
        )


@pytest.mark.parametrize("samples", [0, 1, 7])
def test_samples_come_in_pairs(world, samples):
    estimator, classes = estimators(world.task)[0]
    version = version_of(world, estimator, classes)
    with pytest.raises(ValueError, match="even number"):
        explain(world.use_case, version, world.rows.tail(1), samples=samples)


def test_a_stored_prediction_is_explained_by_the_rows_that_it_was_made_of(tmp_path):
    use_case = write_folder(tmp_path, "binary")
    lake, registry = Lake(settings(tmp_path)), KeptModels()
    land(lake, use_case, trips(1, 12), days(1, 12))
    promote(lake, use_case, registry.train(lake, use_case, days(1, 9)), at(10))
    score(lake, registry, use_case, days(10, 12), COMMIT)
    with lake.cursor() as cursor:
        stored = cursor.execute(
            "SELECT trip, probability FROM lake.trips.predictions ORDER BY event_time LIMIT 5"
        ).fetchall()
    for trip, probability in stored:
        found = explain_prediction(lake, registry, use_case, {"trip": str(trip)})
        assert found.prediction == probability
        # The model looks at the distance alone.
        assert set(found.contributions) == set(use_case.model_columns)
        others = [v for name, v in found.contributions.items() if name != "distance"]
        assert others == [0.0] * len(others)
    with pytest.raises(EmptyPartition, match="has no prediction"):
        explain_prediction(lake, registry, use_case, {"trip": "-1"})
    lake.close()
