"""A fitted estimator as one function of few rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline

from ml_platform.serving.compiled.steps import (
    Columns,
    CompiledStep,
    NotCompiled,
    Numbers,
    compile_transformers,
)
from ml_platform.serving.compiled.trees import boosted, compile_trees

MOST_ROWS = 64
"""Beyond these scikit-learn's own code, which is compiled and has a fixed cost, is as fast."""


@dataclass(frozen=True)
class Parts:
    """An estimator in two functions, one after the other."""

    transform: CompiledStep
    """From columns to what the final estimator is given; each row for itself."""
    predict: Callable[[Numbers], Numbers]
    most_rows: int

    def __call__(self, columns: Columns) -> Numbers:
        return self.predict(self.transform(columns))


def compile_estimator(estimator: Any, columns: Mapping[str, bool], method: str) -> Parts:
    """What yields the same as a method of the estimator.

    columns: those that the estimator is given, in order, and whether they are numbers. method:
    `predict_proba`, or `predict` of a regression.
    Raises NotCompiled where there is nothing.
    """
    is_pipeline = isinstance(estimator, Pipeline)
    *transformers, final = [step for _, step in estimator.steps] if is_pipeline else [estimator]
    transform = compile_transformers(transformers, columns)
    # Not its subclasses, which may do anything.
    if type(final) in {HistGradientBoostingClassifier, HistGradientBoostingRegressor}:
        trees = compile_trees(final, final.n_features_in_)
        return Parts(transform, partial(boosted, final, trees), MOST_ROWS)
    if hasattr(final, "feature_names_in_"):
        raise NotCompiled(f"{type(final).__name__} is not compiled")
    # One row: where there are more, the order in which a matrix lies decides how products round.
    return Parts(transform, getattr(final, method), 1)
