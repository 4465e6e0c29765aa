import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from ml_platform.errors import EmptySample, LabelsNotArrived, ModelRefused
from ml_platform.metrics import measure, measure_calibration
from ml_platform.spec.declared import METRICS


def probability(*values: float) -> pd.DataFrame:
    return pd.DataFrame({"probability": list(values)})


def classes(*rows: dict[str, float]) -> pd.DataFrame:
    best = [max(row, key=lambda name: row[name]) for row in rows]
    return pd.DataFrame({"predicted": best, "probabilities": list(rows)})


def test_every_metric_of_every_task_is_measured():
    found = {
        "binary": measure("binary", pd.Series([True, False]), probability(0.7, 0.4)),
        "multiclass": measure(
            "multiclass",
            pd.Series(["a", "b"]),
            classes({"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}),
        ),
        "regression": measure(
            "regression", pd.Series([1.0, 2.0]), pd.DataFrame({"predicted": [1.5, 2.0]})
        ),
    }
    assert {task: tuple(values) for task, values in found.items()} == METRICS
    assert found["multiclass"]["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)
    assert found["regression"] == pytest.approx(
        {"mae": 0.25, "rmse": math.sqrt(0.125), "r2": 0.5, "bias": 0.25}
    )


@pytest.mark.parametrize("label", [[True, False, True], [1, 0, 1], [1.0, 0.0, 1.0]])
def test_binary_labels_are_booleans_or_numbers(label):
    prediction = probability(0.9, 0.2, 0.6)
    assert measure("binary", pd.Series(label), prediction) == measure(
        "binary", np.array([1, 0, 1]), prediction
    )


@pytest.mark.parametrize("label", [True, False])
def test_what_one_class_leaves_undefined_is_left_out(label):
    found = measure("binary", pd.Series([label, label]), probability(0.9, 0.2))
    assert list(found) == ["log_loss", "brier", "calibration_error"]


def test_r2_of_labels_that_are_all_the_same_is_left_out():
    found = measure("regression", pd.Series([2.0, 2.0]), pd.DataFrame({"predicted": [1.0, 2.0]}))
    assert list(found) == ["mae", "rmse", "bias"]


def test_a_class_that_the_model_does_not_know_costs_log_loss():
    known = classes({"a": 0.9, "b": 0.1})
    assert measure("multiclass", pd.Series(["c"]), known)["log_loss"] > 30


def test_probabilities_of_single_precision_are_probabilities():
    third = float(np.float32(1 / 3))
    found = measure("multiclass", pd.Series(["a"]), classes(dict.fromkeys("abc", third)))
    assert found["log_loss"] == pytest.approx(math.log(3), rel=1e-12)


def test_what_does_not_add_up_to_one_is_said():
    with pytest.warns(UserWarning, match="do not sum to one"):
        measure("multiclass", pd.Series(["a", "b"]), classes({"a": 0.5, "b": 0.4}, {"a": 1.0}))


def test_pairs_of_a_duckdb_map_are_probabilities_too():
    as_pairs = pd.DataFrame({"predicted": ["a"], "probabilities": [[("a", 0.8), ("b", 0.2)]]})
    label = pd.Series(["a"])
    as_dictionary = classes({"a": 0.8, "b": 0.2})
    assert measure("multiclass", label, as_pairs) == measure("multiclass", label, as_dictionary)


def test_nothing_to_measure_is_no_number():
    with pytest.raises(EmptySample):
        measure("binary", pd.Series([], dtype=bool), probability())
    with pytest.raises(LabelsNotArrived, match="1 of 2 rows have no label"):
        measure("binary", pd.Series([True, None]), probability(0.1, 0.2))
    with pytest.raises(ModelRefused, match="1 of 2 predictions are not finite"):
        measure("binary", pd.Series([True, False]), probability(0.1, math.nan))
    with pytest.raises(ValueError, match="2 labels for 1 predictions"):
        measure("binary", pd.Series([True, False]), probability(0.1))


def test_calibration_error_is_the_mean_distance_of_ten_quantile_bins():
    rng = np.random.default_rng(0)
    sure = rng.uniform(size=20_000)
    drawn = (rng.uniform(size=20_000) < sure).astype(float)
    assert measure_calibration(drawn, sure) < 0.01
    # 0.1 too sure of every row, so 0.1 off in every bin.
    assert measure_calibration(drawn, sure + 0.1) == pytest.approx(0.1, abs=0.01)
    assert measure_calibration(np.array([1.0, 1.0]), np.array([0.0, 0.0])) == 1.0


EIGHTHS = st.integers(-8000, 8000).map(lambda count: count / 8)


@given(st.lists(st.tuples(EIGHTHS, EIGHTHS), min_size=2, max_size=60))
def test_metrics_of_numbers_are_those_of_scikit_learn(pairs):
    label, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    found = measure("regression", label, pd.DataFrame({"predicted": predicted}))
    expected = {
        "mae": metrics.mean_absolute_error(label, predicted),
        "rmse": metrics.root_mean_squared_error(label, predicted),
    }
    if label.min() != label.max():
        expected["r2"] = metrics.r2_score(label, predicted)
    assert found.pop("bias") == pytest.approx(np.mean(predicted - label))
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)
