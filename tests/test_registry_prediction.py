from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_platform.errors import FeatureError, ModelRefused
from ml_platform.registry import predict
from ml_platform.registry.prediction import named_predictions
from tests.trips_use_case import write_folder

COLUMNS = {"city": "VARCHAR", "distance": "DOUBLE"}
FRAME = pd.DataFrame(
    {
        "trip": [1, 2],
        "city": np.array(["Albany", None], dtype=object),
        "distance": [1.0, np.nan],
        "added later": ["x", "y"],
    },
    index=[7, 9],
)


@dataclass(frozen=True)
class Fitted:
    estimator: Any
    columns: Any
    classes: tuple[str, ...]
    left_out: frozenset[str] = frozenset()


class Fixed:
    """An estimator that predicts the same, and remembers which columns it was given."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def predict_proba(self, rows: pd.DataFrame) -> Any:
        self.columns = list(rows.columns)
        return self.values

    predict = predict_proba


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    root = tmp_path_factory.mktemp("cases")
    return {
        task: write_folder(root / task, task) for task in ("binary", "multiclass", "regression")
    }


def test_the_probability_is_that_of_the_positive_class(cases):
    model = Fitted(Fixed([[0.9, 0.1], [0.3, 0.7]]), COLUMNS, ("0", "1"))
    found = predict(cases["binary"], model, FRAME)
    assert found.to_dict() == {"probability": {7: 0.1, 9: 0.7}}
    assert list(found) == list(cases["binary"].prediction_columns)
    turned = Fitted(Fixed([[0.1, 0.9], [0.7, 0.3]]), COLUMNS, ("1", "0"))
    assert predict(cases["binary"], turned, FRAME).equals(found)


def test_multiclass_gives_the_likeliest_class_and_all_probabilities(cases):
    model = Fitted(Fixed([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]), COLUMNS, ("a", "b", "c"))
    found = predict(cases["multiclass"], model, FRAME)
    assert list(found) == list(cases["multiclass"].prediction_columns)
    assert found.loc[7, "predicted"] == "b"
    assert found.loc[9, "probabilities"] == {"a": 0.6, "b": 0.3, "c": 0.1}


def test_regression_gives_a_number(cases):
    found = predict(cases["regression"], Fitted(Fixed([1.5, 2.5]), COLUMNS, ()), FRAME)
    assert found.to_dict() == {"predicted": {7: 1.5, 9: 2.5}}


def test_a_model_is_given_the_columns_it_was_fitted_on_in_their_order(cases):
    estimator = Fixed([1.5, 2.5])
    predict(cases["regression"], Fitted(estimator, COLUMNS, ()), FRAME[FRAME.columns[::-1]])
    assert estimator.columns == ["city", "distance"]


@pytest.mark.parametrize("columns", [list(COLUMNS), list(FRAME)])
def test_what_an_estimator_writes_to_its_rows_is_not_seen_outside(cases, columns):
    class Writing(Fixed):
        def predict(self, rows: pd.DataFrame) -> Any:
            rows.loc[:, "distance"] = 0.0
            rows["city"] = "Boston"
            return self.values

    frame = FRAME[columns].copy()
    predict(cases["regression"], Fitted(Writing([1.5, 2.5]), COLUMNS, ()), frame)
    pd.testing.assert_frame_equal(frame, FRAME[columns])


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_no_rows_have_no_predictions(cases, task):
    classes = () if task == "regression" else ("0", "1")
    found = predict(cases[task], Fitted(Fixed([]), COLUMNS, classes), FRAME.head(0))
    assert len(found) == 0
    assert list(found) == list(cases[task].prediction_columns)


def test_a_frame_that_does_not_fit_says_why(cases):
    model = Fitted(Fixed([1.5, 2.5]), COLUMNS, ())
    with pytest.raises(FeatureError, match="fitted on 'distance', which these rows lack"):
        predict(cases["regression"], model, FRAME.drop(columns="distance"))
    with pytest.raises(FeatureError, match=r"'distance' \(DOUBLE\) is int64.*astype\('float64'\)"):
        predict(cases["regression"], model, FRAME.assign(distance=[1, 2]))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_refused(cases, wrong):
    model = Fitted(Fixed([1.5, wrong]), COLUMNS, ())
    with pytest.raises(ModelRefused, match="not a finite number for 1 of 2 rows, first row 9"):
        predict(cases["regression"], model, FRAME)


def test_a_model_that_fails_or_misshapes_is_refused(cases):
    with pytest.raises(ModelRefused, match="predict of 2 rows failed: AttributeError"):
        predict(cases["regression"], Fitted(object(), COLUMNS, ()), FRAME)
    with pytest.raises(ModelRefused, match=r"shape \(3,\) where \(2,\) was expected"):
        predict(cases["regression"], Fitted(Fixed([1.0, 2.0, 3.0]), COLUMNS, ()), FRAME)


@pytest.mark.parametrize(
    ("task", "classes", "fitted"),
    [
        ("regression", ("0", "1"), "classes 0, 1"),
        ("binary", (), "a number"),
        ("binary", ("early", "late"), "classes early, late"),
        ("multiclass", (), "a number"),
    ],
)
def test_a_model_of_another_task_is_refused(cases, task, classes, fitted):
    with pytest.raises(ModelRefused, match=f"task is {task}, and the model predicts {fitted}"):
        named_predictions(cases[task], classes, np.zeros((3, max(len(classes), 1))), FRAME.index)
