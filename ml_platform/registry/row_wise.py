"""Estimators that predict a row to the same bits whatever other rows are given along with it.

A prediction is recomputed with its window alone, so several windows may share one call only where
this is certain. It is for the classes named here, by their code: each value of their output is
made from one row, in one order of operations. Linear models are not among them, since a product
of matrices is summed in blocks that depend on its size, and neither is a softmax. A class that is
not named, a subclass too, counts as one that is not known.
"""

from typing import Any

ENCODERS = frozenset({"OrdinalEncoder", "OneHotEncoder", "SimpleImputer"})
UNLINKED = frozenset({"squared_error", "absolute_error", "quantile"})
"""Losses whose prediction is the sum of the leaves itself, with no function after it."""


def is_row_wise(estimator: Any) -> bool:
    """Whether a fitted estimator is known to predict each row by itself.

    >>> from sklearn.linear_model import LinearRegression
    >>> is_row_wise(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]))
    False
    """
    match _name(estimator):
        case "Pipeline":
            *steps, (_, last) = estimator.steps
            return all(_transforms_by_row(step) for _, step in steps) and is_row_wise(last)
        case "HistGradientBoostingClassifier":
            return len(estimator.classes_) == 2
        case "HistGradientBoostingRegressor":
            return estimator.loss in UNLINKED
    return False


def _transforms_by_row(step: Any) -> bool:
    if step is None or isinstance(step, str):
        # "passthrough" and "drop".
        return True
    match _name(step):
        case "Pipeline":
            return all(_transforms_by_row(inner) for _, inner in step.steps)
        case "ColumnTransformer":
            return all(_transforms_by_row(inner) for _, inner, _ in step.transformers_)
        case "FunctionTransformer":
            return step.func is None
        case name:
            return name in ENCODERS


def _name(candidate: Any) -> str:
    """Name of a class of scikit-learn itself; empty for any other."""
    kind = type(candidate)
    return kind.__qualname__ if kind.__module__.startswith("sklearn.") else ""
