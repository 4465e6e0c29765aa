"""scikit-learn's histogram-based gradient boosting, for few rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from ml_platform.serving.compiled.steps import NotCompiled, Numbers


@dataclass(frozen=True)
class Trees:
    """All trees of an ensemble at once: every one is a step deeper in each turn.

    Its nodes lie one after the other in arrays. A leaf is followed by itself, so that trees of
    different depths can take the same number of turns.
    """

    features: NDArray[np.intp]
    """What a node looks at, in a row that is there twice: see `raw`."""
    thresholds: Numbers
    children: NDArray[np.intp]
    """Of node i the right one at 2i, the left one at 2i + 1."""
    values: Numbers
    roots: NDArray[np.intp]
    """Iteration by iteration, and in each of them by class."""
    depth: int
    baseline: Numbers
    """Shape (1, outputs)."""

    def raw(self, matrix: Numbers) -> Numbers:
        """The sum of the leaves, in the order in which scikit-learn adds; shape (rows, outputs)."""
        rows, width = matrix.shape
        # In the second half missing values are smaller than all others: nodes at which they go
        # left look there. At the others they go right, since NaN is at most nothing.
        twice = np.concatenate([matrix, np.where(np.isnan(matrix), -np.inf, matrix)], axis=1)
        flat = twice.ravel()
        starts = (np.arange(rows) * (2 * width))[:, None]
        nodes = np.broadcast_to(self.roots, (rows, len(self.roots)))
        for _ in range(self.depth):
            is_left = flat[self.features[nodes] + starts] <= self.thresholds[nodes]
            nodes = self.children[2 * nodes + is_left]
        outputs = self.baseline.shape[1]
        leaves = self.values[nodes].reshape(rows, -1, outputs)
        first = np.broadcast_to(self.baseline, (rows, 1, outputs))
        # Not sum, which adds pairs of partial sums.
        return np.add.accumulate(np.concatenate([first, leaves], axis=1), axis=1)[:, -1, :]


def compile_trees(estimator: Any, width: int) -> Trees:
    """The trees of a fitted HistGradientBoosting estimator, for matrices of `width` columns.

    Raises NotCompiled where a node is more than a threshold.
    """
    if estimator._preprocessor is not None:
        raise NotCompiled("the trees have categories of their own")
    predictors = [each for iteration in estimator._predictors for each in iteration]
    tables = [each.nodes for each in predictors]
    if any(table["is_categorical"].any() for table in tables):
        raise NotCompiled("the trees have categories of their own")
    sizes = np.array([len(table) for table in tables])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp)
    nodes = np.concatenate(tables)
    offsets = np.repeat(roots, sizes)
    is_leaf = nodes["is_leaf"].astype(bool)
    itself = np.arange(len(nodes))
    children = np.empty(2 * len(nodes), np.intp)
    children[0::2] = np.where(is_leaf, itself, nodes["right"] + offsets)
    children[1::2] = np.where(is_leaf, itself, nodes["left"] + offsets)
    features = np.where(is_leaf, 0, nodes["feature_idx"] + width * nodes["missing_go_to_left"])
    return Trees(
        features.astype(np.intp),
        np.where(is_leaf, 0.0, nodes["num_threshold"]),
        children,
        nodes["value"].astype(np.float64),
        roots,
        int(nodes["depth"].max()),
        np.asarray(estimator._baseline_prediction, np.float64).reshape(1, -1),
    )


def boosted(estimator: Any, trees: Trees, matrix: Numbers) -> Any:
    """Probabilities, shape (rows, classes), or predictions of a regression, shape (rows,)."""
    raw = trees.raw(matrix)
    loss = estimator._loss
    if isinstance(estimator, HistGradientBoostingClassifier):
        return loss.predict_proba(raw)
    return loss.link.inverse(raw.ravel())
