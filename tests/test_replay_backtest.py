"""An estimator on history as if it had served, beside the champions of that time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier

from ml_platform.errors import (
    EmptyPartition,
    LabelsNotArrived,
    NoChampion,
    PlatformError,
    TrainingFailed,
)
from ml_platform.replay import Backtest, backtest
from ml_platform.training.training_set import FitData
from tests import trips_use_case as trips
from tests.served import Deployment, declare, deploy, deployed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Trips of 30 days; version 1, trained at the 20th, is champion from then on."""
    with deployed(tmp_path_factory.mktemp("backtest")) as made:
        yield made


def held(
    made: Deployment, model: Any = None, first: int = 20, last: int = 30, **more: Any
) -> Backtest:
    window_range = trips.days(first, last)
    return backtest(made.lake, made.registry, made.use_case, window_range, model, threads=1, **more)


class Memory(ClassifierMixin, BaseEstimator):
    """Knows the label of every trip that it was fitted on, by its distance, and of no other."""

    def fit(self, X: pd.DataFrame, y: Any) -> Self:
        self.classes_ = np.array([0, 1])
        self.known_ = dict(zip(X["distance"], y, strict=True))
        return self

    def predict_proba(self, X: pd.DataFrame) -> Any:
        late = np.array([self.known_.get(distance, 0.5) for distance in X["distance"]])
        return np.column_stack([1 - late, late])


FIT = """

def fit(estimator, data):
    estimator.fit(data.training.rows, data.training.labels)
    assert len(data.validation.rows) > 0
    estimator.stopped_ = "by the validation"
"""


class Picky(DummyClassifier):
    """Cannot be fitted on many rows."""

    def fit(self, X: pd.DataFrame, y: Any) -> Self:
        if len(X) > 570:
            raise ValueError("too much for me")
        return super().fit(X, y)


def test_the_use_cases_own_estimator_is_the_champion_to_the_bit(deployment: Deployment) -> None:
    found = held(deployment, retrain="never")
    same = found.predictions
    assert (same["probability"] == same["champion_probability"]).all()
    assert (found.improvement, found.bounds, found.is_better) == (0.0, (0.0, 0.0), None)
    assert found.model == found.champion
    assert len(found.by_partition) == 11
    assert found.resampled == "partitions"


def test_an_estimator_has_never_seen_what_it_predicts(deployment: Deployment) -> None:
    found = held(deployment, Memory(), retrain="every:1d")
    assert found.model["roc_auc"] == 0.5
    assert len(found.trainings) == 11
    trained = found.trainings
    assert (trained["trained_until"] <= trained["cutoff"] - pd.Timedelta(days=4)).all()
    at_noon = found.by_partition["window_at"] + pd.Timedelta(hours=12)
    assert (found.by_partition["cutoff"] < at_noon).all()


def test_a_worse_estimator_is_worse_beyond_noise(deployment: Deployment) -> None:
    found = held(deployment, lambda: DummyClassifier(strategy="prior"), retrain="never")
    assert found.is_better is False
    low, high = found.bounds
    assert low <= found.improvement <= high < 0
    assert found.answer.startswith("Worse beyond noise: roc_auc 0.5000 against 0.9")
    assert "paired bootstrap of 1000 over partitions" in repr(found)
    assert found.metrics.loc["roc_auc", "model"] == 0.5


def test_both_predict_the_same_rows_with_the_labels_known_now(deployment: Deployment) -> None:
    found = held(deployment, DummyClassifier(), retrain="never")
    assert found.rows == found.predictions["label"].notna().sum() == 11 * 40
    assert list(found.predictions) == [
        "trip", "event_time", "label", "probability", "champion_probability", "champion_version",
    ]  # fmt: skip
    assert found.predictions["trip"].is_unique


def fewer(estimator: Any, data: FitData) -> None:
    """Fits on the latest rows that it is given."""
    estimator.fit(data.validation.rows, data.validation.labels)


def test_a_function_that_fits_it_is_given_the_rows_before_the_holdout_of_each_cutoff(
    deployment: Deployment,
) -> None:
    found = held(deployment, Memory(), fit=fewer, retrain="every:1d")
    assert found.model["roc_auc"] == 0.5
    assert (found.trainings["problem"] == "").all()
    with pytest.raises(TrainingFailed, match="fit is a str; it should be a function"):
        held(deployment, Memory(), fit="model:fit")


def test_the_use_cases_own_fit_makes_the_champion_to_the_bit_and_fits_no_estimator_of_others(
    tmp_path: Path,
) -> None:
    made = deploy(tmp_path)
    file, spec = made.use_case.folder / "model.py", made.use_case.folder / "use_case.yaml"
    file.write_text(file.read_text() + FIT)
    spec.write_text(spec.read_text().replace("model: {", 'model: {fit: "model:fit", '))
    made = declare(made, "")
    made.promote(20)
    try:
        champion = made.registry.load(made.use_case, 1).estimator
        assert champion.stopped_ == "by the validation"
        found = held(made, retrain="never")
        assert (found.improvement, found.bounds) == (0.0, (0.0, 0.0))
        others = held(made, DummyClassifier(strategy="prior"), retrain="never")
        assert others.is_better is False
    finally:
        made.lake.close()


def test_few_partitions_are_resampled_by_their_rows(deployment: Deployment) -> None:
    found = held(deployment, DummyClassifier(), last=22, retrain="never")
    assert found.resampled == "rows"
    low, high = found.bounds
    assert low < found.improvement < high < 0


def test_partitions_without_a_champion_are_left_out_and_said(deployment: Deployment) -> None:
    found = held(deployment, DummyClassifier(), first=18, retrain="never")
    assert [str(error) for error in found.skipped.values() if isinstance(error, NoChampion)]
    assert "2 partitions left out" in found.answer
    assert found.by_partition.index[0] == "2024-03-20"


def test_the_model_before_serves_on_where_a_training_fails(deployment: Deployment) -> None:
    found = held(deployment, Picky(), retrain="every:5d")
    assert found.trainings["problem"].str.contains("too much for me").tolist() == [
        False, True, True,
    ]  # fmt: skip
    assert found.by_partition["cutoff"].nunique() == 1
    assert "2 of 3 trainings failed" in found.answer


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (3, "the model is a int, which has no fit"),
        (DummyClassifier, r"the model is the class DummyClassifier; take `DummyClassifier\(\)`"),
        (lambda: None, r"<lambda>\(\) returned nothing; return, for example, `HistGradient"),
        (lambda: 1 / 0, r"<lambda>\(\) raised ZeroDivisionError: division by zero"),
        (Picky(), r"Picky\.fit of 5\d\d rows and 3 columns failed: ValueError: too much for me"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(
    deployment: Deployment, model: Any, problem: str
) -> None:
    with pytest.raises(TrainingFailed, match=problem):
        held(deployment, model, first=27, retrain="never")


@pytest.mark.parametrize(
    ("retrain", "problem"),
    [
        ("drift", "retrain drift: a backtest trains by the clock"),
        ("evry:3d", r"retrain evry:3d: no policy 'evry:3d'\. Did you mean"),
        ("schedule", "retrain schedule: trips has no model.schedule"),
    ],
)
def test_a_time_to_retrain_that_there_is_not_is_refused(
    deployment: Deployment, retrain: str, problem: str
) -> None:
    with pytest.raises(PlatformError, match=problem):
        held(deployment, retrain=retrain)


def test_a_range_that_cannot_be_measured_is_refused(deployment: Deployment) -> None:
    with pytest.raises(NoChampion, match="no promotion is effective"):
        held(deployment, first=10, last=12)
    with pytest.raises(EmptyPartition, match="no examples"):
        held(deployment, first=31, last=31)
    with deployment.lake.cursor() as cursor:
        known = cursor.execute("FROM lake.trips.labels").to_arrow_table()
        cursor.execute("DELETE FROM lake.trips.labels WHERE event_time >= '2024-03-26'")
        try:
            with pytest.raises(LabelsNotArrived, match="roc_auc is not defined on the 0 labelled"):
                held(deployment, first=27, last=28, retrain="never")
        finally:
            cursor.execute("DELETE FROM lake.trips.labels")
            cursor.register("known", known)
            cursor.execute("INSERT INTO lake.trips.labels FROM known")
