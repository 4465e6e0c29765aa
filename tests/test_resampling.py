"""Metrics of resamples: the same numbers as one by one, and bounds that theory knows too."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ml_platform.metrics import measure
from ml_platform.resampling import everything, resamples, standard_error, statistic
from ml_platform.spec.declared import METRICS

ROWS = 300


def sample(task: str, seed: int = 0) -> tuple[pd.Series, pd.DataFrame]:
    """Labels and predictions of a task; scores repeat, as those of trees do."""
    random = np.random.default_rng(seed)
    if task == "regression":
        label = random.normal(100, 5, ROWS)
        return pd.Series(label), pd.DataFrame({"predicted": label + random.normal(1, 2, ROWS)})
    if task == "binary":
        score = np.round(random.uniform(0, 1, ROWS), 2)
        late = pd.Series(random.uniform(0, 1, ROWS) < score)
        return late, pd.DataFrame({"probability": np.clip(score, 0.01, 0.99)})
    names = ["early", "late", "on time"]
    shares = random.dirichlet([1, 1, 1], ROWS)
    label = pd.Series([random.choice(names, p=row) for row in shares])
    predicted = [names[i] for i in shares.argmax(axis=1)]
    rows = [dict(zip(names, row, strict=True)) for row in shares]
    return label, pd.DataFrame({"predicted": predicted, "probabilities": rows})


EVERY_METRIC = [(task, metric) for task, metrics in METRICS.items() for metric in metrics]


@pytest.mark.parametrize(("task", "metric"), EVERY_METRIC)
def test_the_metric_of_all_rows_is_that_of_metrics_py(task, metric):
    label, prediction = sample(task)
    measured = measure(task, label, prediction)[metric]
    weighted = statistic(metric, task, label, prediction)(everything(ROWS))
    assert weighted == pytest.approx([measured], rel=1e-9)


@pytest.mark.parametrize(
    ("task", "metric"), [each for each in EVERY_METRIC if each[1] != "calibration_error"]
)
def test_the_metric_of_a_resample_is_that_of_the_rows_that_were_drawn(task, metric):
    label, prediction = sample(task)
    weights = next(resamples(ROWS))[:3]
    weighted = statistic(metric, task, label, prediction)(weights)
    for row, value in zip(weights.astype(int), weighted, strict=True):
        drawn = np.repeat(np.arange(ROWS), row)
        again = label.iloc[drawn].reset_index(drop=True), prediction.iloc[drawn]
        assert value == pytest.approx(measure(task, *again)[metric], rel=1e-9)


def test_a_resample_without_both_classes_has_no_ranking():
    late = pd.Series([True, False])
    sure = pd.DataFrame({"probability": [0.9, 0.1]})
    for metric in ("roc_auc", "average_precision"):
        found = statistic(metric, "binary", late, sure)(np.array([[0.0, 2.0], [1.0, 1.0]]))
        assert np.isnan(found[0])
        assert found[1] == 1


def test_resamples_draw_as_many_rows_as_there_are_and_the_same_each_time():
    first, again = (np.concatenate(list(resamples(ROWS))) for _ in range(2))
    assert first.shape == (1_000, ROWS)
    assert (first.sum(axis=1) == ROWS).all()
    assert (first == again).all()


def test_more_rows_get_fewer_resamples_and_never_too_few():
    assert sum(len(block) for block in resamples(200_000)) == 500
    assert len(next(resamples(2_000_000))) == 1


def test_the_spread_of_a_difference_of_auc_is_that_of_delong():
    label, one = sample("binary")
    noise = np.random.default_rng(1).normal(0, 0.2, ROWS)
    other = pd.DataFrame({"probability": np.clip(one["probability"] + noise, 0, 1)})
    ours, theirs = (statistic("roc_auc", "binary", label, each) for each in (one, other))
    drawn = np.concatenate([ours(block) - theirs(block) for block in resamples(ROWS)])
    assert drawn.std() == pytest.approx(delong(label.to_numpy(), one, other), rel=0.1)


def delong(late: np.ndarray, one: pd.DataFrame, other: pd.DataFrame) -> float:
    """Standard error of the difference of two ROC AUCs on the same rows, DeLong et al. 1988."""
    positive, negative = [], []
    for scores in (one, other):
        score = scores["probability"].to_numpy()
        ranks = stats.rankdata(score)
        above = ranks[late] - stats.rankdata(score[late])
        positive.append(above / (~late).sum())
        below = ranks[~late] - stats.rankdata(score[~late])
        negative.append(1 - below / late.sum())
    step = np.array([1.0, -1.0])
    variance = np.cov(positive) / late.sum() + np.cov(negative) / (~late).sum()
    return float(np.sqrt(step @ variance @ step))


def test_a_standard_error_is_the_spread_over_other_samples():
    found = [
        (measure("binary", *sample("binary", seed))["roc_auc"],
         standard_error("roc_auc", "binary", *sample("binary", seed)))
        for seed in range(40)
    ]  # fmt: skip
    spread = float(np.std([value for value, _ in found], ddof=1))
    assert np.mean([error for _, error in found]) == pytest.approx(spread, rel=0.3)


@pytest.mark.parametrize("rows", [500, 50_000])
def test_a_standard_error_of_a_mean_is_that_of_the_formula_however_many_rows(rows):
    random = np.random.default_rng(1)
    label, predicted = pd.Series(random.normal(size=rows)), random.normal(size=rows)
    error = standard_error("bias", "regression", label, pd.DataFrame({"predicted": predicted}))
    assert error == pytest.approx((predicted - label).std() / np.sqrt(rows), rel=0.3)


def test_a_ranking_of_one_class_has_no_standard_error():
    none_late = pd.Series([False] * 4)
    sure = pd.DataFrame({"probability": [0.9, 0.1, 0.2, 0.3]})
    assert standard_error("roc_auc", "binary", none_late, sure) is None
