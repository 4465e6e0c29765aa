"""Metrics that are too good to be true: which are, and which columns are named."""

import numpy as np
import pandas as pd
import pytest

from ml_platform.training.too_good import find_too_good

RNG = np.random.default_rng(0)
N = 600
NOISE = pd.Series(RNG.normal(size=N))
HALF = pd.Series(RNG.normal(size=N))
CITY = pd.Series(RNG.choice(["Albany", "Boston"], N), dtype=object)


def said(task, value, inputs, target, importances=None):
    metric = {"binary": "roc_auc", "multiclass": "macro_f1", "regression": "r2"}[task]
    measured = {} if value is None else {metric: value}
    rows = pd.DataFrame(inputs).assign(label=target)
    return find_too_good(task, measured, rows, importances or {})


LATE = (NOISE > 0.5).to_numpy().astype(np.int64)
LEAKS = {
    "binary": LATE,
    "multiclass": np.where(NOISE > 0.5, "late", np.where(NOISE < -0.5, "early", "on time")),
    "regression": NOISE.to_numpy() * 3 + 1,
}


@pytest.mark.parametrize("task", LEAKS)
def test_a_column_that_alone_determines_the_label_is_named(task):
    inputs = {"city": CITY, "half": HALF, "leak": NOISE.where(RNG.random(N) > 0.05)}
    found = said(
        task,
        0.9991,
        inputs,
        np.asarray(LEAKS[task], dtype=object if task == "multiclass" else None),
    )
    assert " is 0.9991 on the holdout, above 0.995, " in found
    assert "each of these alone nearly determines the label: leak (" in found
    assert "half" not in found
    assert "city" not in found


@pytest.mark.parametrize("value", [0.995, 0.7, None])
def test_a_metric_that_models_reach_and_one_that_is_not_defined_are_not_doubted(value):
    assert said("binary", value, {"leak": NOISE}, LATE) == ""


def test_columns_that_determine_it_only_together_are_named_by_what_the_model_relies_on():
    target = ((NOISE > 0) ^ (HALF > 0)).to_numpy().astype(np.int64)
    relies = {"noise": 0.9, "half": 0.8, "city": 0.01, "none": -0.2}
    found = said("binary", 0.999, {"noise": NOISE, "half": HALF, "city": CITY}, target, relies)
    assert found == (
        "roc_auc is 0.999 on the holdout, above 0.995, and of its columns the model relies most on "
        "noise, half"
    )


def test_one_column_is_named_where_it_is_nearly_all_that_the_model_relies_on():
    target = ((NOISE > 0) ^ (HALF > 0)).to_numpy().astype(np.int64)
    relies = {"noise": 0.1, "half": 0.8, "city": 0.01}
    assert said(
        "binary", 0.999, {"noise": NOISE, "half": HALF, "city": CITY}, target, relies
    ).endswith("relies most on half")


def test_a_column_without_a_value_in_the_holdout_says_nothing():
    inputs = {"gone": pd.Series(np.nan, index=range(N)), "leak": NOISE}
    assert "gone" not in said("binary", 1.0, inputs, LATE)
