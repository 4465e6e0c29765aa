"""How much a model relies on each column."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.training.estimator import SEED

SAMPLED_ROWS = 2_000
REPEATS = 3
SMALLEST_PROBABILITY = 1e-15


def measure_importances(
    estimator: Any, classes: tuple[str, ...], rows: pd.DataFrame, target: NDArray[Any]
) -> dict[str, float]:
    """Permutation importance by column: how much the loss rises when the column is shuffled.

    The loss is the log loss in nats for classifiers, the mean absolute error for regressions.
    rows: n rows of the model's columns, of which at most 2,000 are drawn; target: shape (n,).
    Works for any estimator. Source: Breiman 2001, as scikit-learn's `permutation_importance`.
    """
    from sklearn.inspection import permutation_importance

    drawn = np.random.default_rng(SEED).permutation(len(rows))[:SAMPLED_ROWS]
    drawn.sort()
    columns = {name: index for index, name in enumerate(classes)}

    def score(fitted: Any, sample: pd.DataFrame, label: NDArray[Any]) -> float:
        if not classes:
            return -float(np.abs(fitted.predict(sample) - label).mean())
        # A class that was never fitted on has no column; all models are given none for it.
        probabilities = fitted.predict_proba(sample)
        own = [columns.get(str(name), -1) for name in label.tolist()]
        chosen = np.where(np.array(own) < 0, 0.0, probabilities[np.arange(len(own)), own])
        return float(np.log(np.maximum(chosen, SMALLEST_PROBABILITY)).mean())

    found = permutation_importance(
        estimator, rows.iloc[drawn], target[drawn],
        scoring=score, n_repeats=REPEATS, random_state=SEED,
    )  # fmt: skip
    return {str(c): float(v) for c, v in zip(rows.columns, found.importances_mean, strict=True)}
