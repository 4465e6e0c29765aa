"""How much a model relies on each column."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.training.estimator import SEED

SAMPLED_ROWS = 500
REPEATS = 2
SMALLEST_PROBABILITY = 1e-15


def measure_importances(
    estimator: Any, classes: tuple[str, ...], rows: pd.DataFrame, target: NDArray[Any]
) -> dict[str, float]:
    """Permutation importance by column: how much the loss rises when the column is shuffled.

    The loss is the log loss in nats for classifiers, the mean absolute error for regressions.
    rows: n rows of the model's columns, of which at most 500 are drawn; target: shape (n,).
    Works for any estimator. Source: Breiman 2001.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    random = np.random.default_rng(SEED)
    drawn = np.sort(random.permutation(len(rows))[:SAMPLED_ROWS])
    sample, label = rows.iloc[drawn], target[drawn]
    orders = [random.permutation(len(sample)) for _ in range(REPEATS)]
    # One call a column for all repeats, on one thread: for so few rows, more do not pay.
    repeated, labels = pd.concat([sample] * REPEATS, ignore_index=True), np.tile(label, REPEATS)
    importances: dict[str, float] = {}
    with threadpool_limits(limits=1):
        base = _loss(estimator, classes, sample, label)
        for column in rows.columns:
            values = sample[column].to_numpy()
            shuffled = repeated.assign(**{column: np.concatenate([values[o] for o in orders])})
            importances[str(column)] = _loss(estimator, classes, shuffled, labels) - base
    return importances


def _loss(
    estimator: Any, classes: tuple[str, ...], rows: pd.DataFrame, target: NDArray[Any]
) -> float:
    if not classes:
        return float(np.abs(estimator.predict(rows) - target).mean())
    columns = {name: index for index, name in enumerate(classes)}
    own = np.array([columns.get(str(name), -1) for name in target.tolist()])
    # A class that was not among those fitted on has no column: the model gave it no chance.
    chosen = estimator.predict_proba(rows)[np.arange(len(own)), own]
    chosen = np.where(own < 0, 0.0, chosen)
    return -float(np.log(np.maximum(chosen, SMALLEST_PROBABILITY)).mean())
