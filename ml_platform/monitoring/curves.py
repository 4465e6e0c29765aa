"""How good the predictions of one window are, as curves and counts that a page draws."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.monitoring.labelled import labelled_predictions
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

BINS = 10
"""Of a calibration curve, each of about as many rows."""
RESIDUAL_BINS = 30
MOST_POINTS = 200
"""Of a curve: a page needs no more."""
CLASSES = 12
"""Of a confusion matrix; rarer ones are summed under `OTHERS`."""
OTHERS = "other classes"

Floats = NDArray[np.float64]
Curve = tuple[tuple[float, float], ...]
"""Points (x, y)."""


@dataclass(frozen=True)
class Curves:
    """What the labelled predictions of one window look like; empty where it is undefined."""

    rows: int
    """Predictions."""
    labelled: int
    roc: Curve = ()
    """False positive rate, true positive rate."""
    precision_recall: Curve = ()
    """Recall, precision."""
    calibration: Curve = ()
    """Mean probability, share of positives."""
    residuals: Mapping[str, int] = field(default_factory=dict)
    """Rows by `predicted - actual`."""
    deciles: Curve = ()
    """Mean prediction, mean actual value; of a regression."""
    confusion: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Rows by (label, predicted class)."""
    predicted: Mapping[str, int] = field(default_factory=dict)
    """All predictions of the window, by range of the value or by class."""


def curves_of(lake: Lake, use_case: UseCase, window: Window, now: datetime) -> Curves:
    """Read the predictions of a window with the labels known by a moment, and draw from them.

    Raises TableNotFound where nothing has been predicted.
    """
    with lake.cursor(use_case.timezone) as cursor:
        snapshot = lake.snapshot(cursor)
        rows = labelled_predictions(cursor, lake, use_case, window, snapshot, now)
    known = rows[rows["label"].notna()]
    task = use_case.label.task
    if task == "multiclass":
        counts = rows["predicted"].astype(str).value_counts()
        predicted = {str(name): int(count) for name, count in counts.head(CLASSES).items()}
        confusion = _confusion(known["label"].astype(str), known["predicted"].astype(str))
        return Curves(len(rows), len(known), predicted=predicted, confusion=confusion)
    column = "probability" if task == "binary" else "predicted"
    predicted = _histogram(rows[column].to_numpy(dtype=np.float64), 20)
    values = known[column].to_numpy(dtype=np.float64)
    label = known["label"].to_numpy(dtype=np.float64)
    if not len(known):
        return Curves(len(rows), 0, predicted=predicted)
    if task == "regression":
        residuals = _histogram(values - label, RESIDUAL_BINS)
        deciles = _means(values, label)
        return Curves(
            len(rows), len(known), residuals=residuals, deciles=deciles, predicted=predicted
        )
    roc, ranking = _rankings(label, values)
    calibration = _means(values, label)
    return Curves(len(rows), len(known), roc, ranking, calibration, predicted=predicted)


def _rankings(label: Floats, probability: Floats) -> tuple[Curve, Curve]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    # Where all labels are the same there is nothing to rank.
    if len(np.unique(label)) < 2:
        return (), ()
    wrong, right, _ = roc_curve(label, probability)
    precision, recall, _ = precision_recall_curve(label, probability)
    return _thinned(wrong, right), _thinned(recall, precision)


def _thinned(x: Floats, y: Floats) -> Curve:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int))
    return tuple((float(a), float(b)) for a, b in zip(x[chosen], y[chosen], strict=True))


def _means(predicted: Floats, actual: Floats) -> Curve:
    """Means of both over parts of about equally many rows, in order of the prediction."""
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, min(BINS, len(order))) if len(part)]
    return tuple((float(predicted[p].mean()), float(actual[p].mean())) for p in parts)


def _histogram(values: Floats, bins: int) -> dict[str, int]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return {}
    low, high = np.percentile(finite, [0.5, 99.5])
    edges = np.linspace(low, high, bins + 1) if high > low else np.array([low, low + 1.0])
    counts, _ = np.histogram(np.clip(finite, edges[0], edges[-1]), edges)
    return {
        f"{a:.4g} to {b:.4g}": int(count)
        for a, b, count in zip(edges[:-1], edges[1:], counts, strict=True)
    }


def _confusion(label: "pd.Series[Any]", predicted: "pd.Series[Any]") -> dict[tuple[str, str], int]:
    common = set(label.value_counts().head(CLASSES).index)
    counts = pd.crosstab(
        label.where(label.isin(common), OTHERS), predicted.where(predicted.isin(common), OTHERS)
    )
    return {
        (str(row), str(column)): int(count)
        for row, columns in counts.iterrows()
        for column, count in columns.items()
    }
