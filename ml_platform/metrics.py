"""How good predictions are, by task: one set of numbers for training, gate and monitoring.

A number that does not exist is left out, never replaced: ROC AUC, average precision and R² need
labels that differ, so a window in which all labels are the same lacks them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import EmptySample, LabelsNotArrived, ModelRefused

Floats = NDArray[np.float64]

CALIBRATION_BINS = 10
SINGLE_PRECISION = (1e-8, 1e-5)
"""How far from 1 probabilities of a library with such numbers may add up to."""


def measure(
    task: Literal["binary", "multiclass", "regression"],
    label: "pd.Series[Any] | NDArray[Any]",
    prediction: pd.DataFrame,
) -> dict[str, float]:
    """Every metric of a task that is defined on these rows.

    label: shape (n,), booleans or 0 and 1, class names, or numbers; prediction: n rows with the
    prediction columns of the task, in the same order.
    Raises EmptySample where n is 0, LabelsNotArrived where a label is missing, ModelRefused where
    a prediction is not a finite number.

    >>> late = pd.Series([True, False, False, True])
    >>> sure = pd.DataFrame({"probability": [0.9, 0.2, 0.6, 0.7]})
    >>> for name, value in measure("binary", late, sure).items():
    ...     print(name, round(value, 3))
    roc_auc 1.0
    average_precision 1.0
    log_loss 0.4
    brier 0.125
    calibration_error 0.3

    Where all labels are the same there is nothing to rank:

    >>> list(measure("binary", late[:1], sure[:1]))
    ['log_loss', 'brier', 'calibration_error']
    >>> measure("binary", late[:0], sure[:0])
    Traceback (most recent call last):
    ml_platform.errors.EmptySample: no rows to measure
    """
    if len(label) != len(prediction):
        raise ValueError(f"{len(label)} labels for {len(prediction)} predictions")
    if len(label) == 0:
        raise EmptySample("no rows to measure")
    missing = int(pd.isna(label).sum())
    if missing:
        raise LabelsNotArrived(
            f"{missing} of {len(label)} rows have no label; measure those whose label has arrived"
        )
    values = np.asarray(label)
    match task:
        case "binary":
            return _measure_binary(values.astype(np.int64), _finite(prediction["probability"]))
        case "multiclass":
            rows = prediction["probabilities"].tolist()
            predicted = prediction["predicted"].astype(str).to_numpy()
            return _measure_classes(values.astype(str), predicted, rows)
        case "regression":
            return _measure_numbers(values.astype(np.float64), _finite(prediction["predicted"]))


def measure_calibration(label: Floats, probability: Floats) -> float:
    """Expected calibration error, in units of probability; 0 means calibrated.

    The rows are cut into 10 bins of equal size by probability (fewer where probabilities repeat);
    the error is the mean distance between the share of positives and the mean probability of a
    bin, weighted by its rows. label, probability: shape (n,).
    Source: Naeini et al. 2015, with quantile bins as in scikit-learn's `calibration_curve`.

    >>> measure_calibration(np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    0.0
    """
    edges = np.quantile(probability, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1])
    bins = np.searchsorted(np.unique(edges), probability)
    off = np.bincount(bins, weights=probability) - np.bincount(bins, weights=label)
    return float(np.abs(off).sum() / len(label))


def _measure_binary(label: NDArray[np.int64], probability: Floats) -> dict[str, float]:
    from sklearn import metrics

    found: dict[str, Callable[[], Any]] = {
        "roc_auc": lambda: metrics.roc_auc_score(label, probability),
        "average_precision": lambda: metrics.average_precision_score(label, probability),
        "log_loss": lambda: metrics.log_loss(label, probability, labels=[0, 1]),
        "brier": lambda: metrics.brier_score_loss(label, probability, pos_label=1),
        "calibration_error": lambda: measure_calibration(label.astype(np.float64), probability),
    }
    undefined = {"roc_auc", "average_precision"} if len(np.unique(label)) == 1 else set()
    return {name: float(score()) for name, score in found.items() if name not in undefined}


def _measure_classes(
    label: NDArray[Any], predicted: NDArray[Any], rows: Iterable[Mapping[str, float] | Any]
) -> dict[str, float]:
    from sklearn import metrics

    # DuckDB gives a map back as a list of pairs, or as a dictionary.
    probabilities = [dict(row) for row in rows]
    classes = sorted(set(label.tolist()).union(*probabilities))
    matrix = _finite([[row.get(name, 0.0) for name in classes] for row in probabilities])
    sums = matrix.sum(axis=1, keepdims=True)
    least, most = SINGLE_PRECISION
    if least < np.abs(sums - 1.0).max() < most:
        # scikit-learn would warn that these are no probabilities.
        matrix = matrix / sums
    loss = metrics.log_loss(label, matrix, labels=classes) if len(classes) > 1 else 0.0
    return {
        "log_loss": float(loss),
        "accuracy": float(metrics.accuracy_score(label, predicted)),
        "macro_f1": float(metrics.f1_score(label, predicted, average="macro")),
    }


def _measure_numbers(label: Floats, predicted: Floats) -> dict[str, float]:
    # As scikit-learn defines them, whose functions take a millisecond to look at their arguments,
    # many times what a window of few rows takes to be measured.
    off = predicted - label
    values = {"mae": float(np.abs(off).mean()), "rmse": float(np.sqrt(np.square(off).mean()))}
    spread = float(np.square(label - label.mean()).sum())
    if spread > 0:
        values["r2"] = 1.0 - float(np.square(off).sum()) / spread
    return {**values, "bias": float(off.mean())}


def _finite(values: Any) -> Floats:
    numbers = np.asarray(values, dtype=np.float64)
    wrong = int((~np.isfinite(numbers)).sum())
    if wrong:
        raise ModelRefused(f"{wrong} of {numbers.size} predictions are not finite numbers")
    return numbers
