"""Metrics of many resamples at once: the paired bootstrap of the gate, errors of reports.

A resample is a vector of weights, how often each row was drawn, so that every metric is a few
products of matrices and a thousand resamples of a week's rows take about a second. With weights
of one each metric is that of `ml_platform.metrics`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.metrics import CALIBRATION_BINS
from ml_platform.spec.declared import LARGER_IS_BETTER, Metric, Task

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From weights, shape (resamples, n), to the metric of each; NaN where it is not defined."""

SEED = 0
RESAMPLES = 1_000
FEWEST_RESAMPLES = 200
MOST_DRAWS = 100_000_000
"""Rows drawn in all; more rows than that allows get fewer resamples, for their noise is small."""
DRAWS_AT_ONCE = 1_000_000
ERROR_RESAMPLES = 100
"""For a standard error: known to 7% of itself."""
ERROR_ROWS = 4_000
SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)


def resamples(rows: int, count: int | None = None) -> Iterator[Floats]:
    """Weights of resamples of n rows with replacement, in blocks of shape (some, n); seeded.

    count: how many; by default what the number of rows allows.
    """
    random = np.random.default_rng(SEED)
    left = count or max(FEWEST_RESAMPLES, min(RESAMPLES, MOST_DRAWS // rows))
    while left > 0:
        some = min(left, max(1, DRAWS_AT_ONCE // rows))
        drawn = random.integers(0, rows, (some, rows)) + np.arange(some)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=some * rows)
        yield counts.reshape(some, rows).astype(np.float64)
        left -= some


def everything(rows: int) -> Floats:
    """The weights of no resample: each row once; shape (1, n)."""
    return np.ones((1, rows))


def statistic(
    metric: Metric, task: Task, label: "pd.Series[Any]", prediction: pd.DataFrame
) -> Statistic:
    """One metric of n rows as a function of their weights.

    label, prediction: as `ml_platform.metrics.measure` takes them, and checked by it before.
    The bins of `calibration_error` are those of all rows in every resample.
    """
    if task == "regression":
        return _of_numbers(metric, _numbers(label), _numbers(prediction["predicted"]))
    if task == "binary":
        flags = _numbers(label.astype(np.int64))
        return _of_flags(metric, flags, _numbers(prediction["probability"]))
    return _of_classes(metric, label.astype(str).to_numpy(dtype=object), prediction)


def gain(metric: Metric, ours: Floats, theirs: Floats) -> Floats:
    """How much better the first is, in the metric's unit; a bias is better the nearer to 0."""
    if metric == "bias":
        return np.abs(theirs) - np.abs(ours)
    return ours - theirs if metric in LARGER_IS_BETTER else theirs - ours


def resampled_gain(
    metric: Metric,
    task: Task,
    label: "pd.Series[Any]",
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
) -> Floats:
    """How much better the first is in each resample of the rows, shape (resamples,), all finite.

    label, ours, theirs: n rows each, as `statistic` takes them.
    """
    of_ours, of_theirs = (statistic(metric, task, label, each) for each in (ours, theirs))
    drawn = [
        gain(metric, of_ours(weights), of_theirs(weights)) for weights in resamples(len(label))
    ]
    found = np.concatenate(drawn)
    # A draw without both classes has no ROC AUC; among fifty rows that is next to none.
    return found[np.isfinite(found)]


def standard_error(
    metric: Metric, task: Task, label: "pd.Series[Any]", prediction: pd.DataFrame
) -> float | None:
    """How far a metric would lie from another sample's, in its unit: the bootstrap's.

    label, prediction: n rows, as `statistic` takes them. Of many rows some are drawn, and their
    error is scaled by the root of the share, so that it costs the same whatever n is. None where
    the metric has no value in half of the resamples: among few rows of one class.
    """
    rows = len(label)
    if rows > ERROR_ROWS:
        drawn = np.random.default_rng(SEED).choice(rows, ERROR_ROWS, replace=False)
        label, prediction = label.iloc[drawn], prediction.iloc[drawn]
    of_weights = statistic(metric, task, label, prediction)
    weights = resamples(len(label), ERROR_RESAMPLES)
    found = np.concatenate([of_weights(each) for each in weights])
    found = found[np.isfinite(found)]
    if len(found) < ERROR_RESAMPLES / 2:
        return None
    return float(found.std(ddof=1) * np.sqrt(len(label) / rows))


def _of_numbers(metric: Metric, label: Floats, predicted: Floats) -> Statistic:
    off = predicted - label
    if metric == "mae":
        return _mean(np.abs(off))
    if metric == "bias":
        return _mean(off)
    squared = _mean(off**2)
    if metric == "rmse":
        return lambda weights: np.sqrt(squared(weights))
    # Centred, so that the difference of squares below loses no digits.
    centred = label - label.mean()
    mean, square = _mean(centred), _mean(centred**2)

    def r2(weights: Floats) -> Floats:
        spread = square(weights) - mean(weights) ** 2
        return 1 - _ratio(squared(weights), spread)

    return r2


def _of_flags(metric: Metric, label: Floats, probability: Floats) -> Statistic:
    if metric == "roc_auc":
        return _roc_auc(label, probability)
    if metric == "average_precision":
        return _average_precision(label, probability)
    if metric == "brier":
        return _mean((probability - label) ** 2)
    if metric == "log_loss":
        return _log_loss(np.where(label == 1, probability, 1 - probability))
    edges = np.quantile(probability, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1])
    bins = np.searchsorted(np.unique(edges), probability)
    off = np.zeros((len(label), CALIBRATION_BINS))
    off[np.arange(len(label)), bins] = probability - label
    return lambda weights: np.abs(weights @ off).sum(axis=1) / weights.sum(axis=1)


def _of_classes(metric: Metric, label: NDArray[Any], prediction: pd.DataFrame) -> Statistic:
    predicted = prediction["predicted"].astype(str).to_numpy(dtype=object)
    if metric == "accuracy":
        return _mean((label == predicted).astype(np.float64))
    if metric == "log_loss":
        rows = [dict(row) for row in prediction["probabilities"]]
        own = [row.get(name, 0.0) for row, name in zip(rows, label, strict=True)]
        return _log_loss(np.array(own, dtype=np.float64))
    names = sorted({*label.tolist(), *predicted.tolist()})
    is_label = (label[:, None] == np.array(names, dtype=object)).astype(np.float64)
    is_predicted = (predicted[:, None] == np.array(names, dtype=object)).astype(np.float64)

    def macro_f1(weights: Floats) -> Floats:
        hits = weights @ (is_label * is_predicted)
        f1 = _ratio(2 * hits, weights @ is_label + weights @ is_predicted)
        # A class that a resample lacks has no F1 in it.
        return np.nanmean(f1, axis=1)  # type: ignore[no-any-return]

    return macro_f1


def _roc_auc(label: Floats, score: Floats) -> Statistic:
    order, starts = _groups(score)
    flags = label[order]

    def roc_auc(weights: Floats) -> Floats:
        drawn = weights[:, order]
        positive = np.add.reduceat(drawn * flags, starts, axis=1)
        negative = np.add.reduceat(drawn * (1 - flags), starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative
        won = (positive * (below + negative / 2)).sum(axis=1)
        return _ratio(won, positive.sum(axis=1) * negative.sum(axis=1))

    return roc_auc


def _average_precision(label: Floats, score: Floats) -> Statistic:
    order, starts = _groups(-score)
    flags = label[order]

    def average_precision(weights: Floats) -> Floats:
        drawn = weights[:, order]
        positive = np.add.reduceat(drawn * flags, starts, axis=1)
        above = np.cumsum(np.add.reduceat(drawn, starts, axis=1), axis=1)
        precision = np.cumsum(positive, axis=1) / np.maximum(above, 1)
        return _ratio((positive * precision).sum(axis=1), positive.sum(axis=1))

    return average_precision


def _groups(score: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows in ascending order, and where each run of equal scores starts."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return order, starts


def _log_loss(chosen: Floats) -> Statistic:
    return _mean(-np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)))


def _mean(values: Floats) -> Statistic:
    return lambda weights: (weights @ values) / weights.sum(axis=1)


def _ratio(above: Floats, below: Floats) -> Floats:
    found: Floats = np.full(above.shape, np.nan)
    np.divide(above, below, out=found, where=below > 0)
    return found


def _numbers(values: "pd.Series[Any]") -> Floats:
    return np.asarray(values, dtype=np.float64)
