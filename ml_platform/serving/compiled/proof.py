"""What was compiled serves where it is proved to yield what scikit-learn does, to the bit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ml_platform.registry import ModelVersion
from ml_platform.serving.compiled.compiling import compile_estimator
from ml_platform.serving.compiled.steps import UNKNOWN, Columns, NotCompiled, Numbers
from ml_platform.spec.queries import is_numeric

PROVED_ROWS = 512
"""Rows of the reference sample that are compared."""
PROVED_ALONE = 16
"""Rows that are compared one by one as well; a call of scikit-learn takes milliseconds."""


@dataclass(frozen=True)
class Compiled:
    """Predicts as the estimator does, without its fixed cost."""

    most_rows: int
    """For more rows the estimator is asked; 0 where nothing was compiled."""
    _function: Callable[[Columns], Numbers]
    problem: str = ""
    """Why nothing was compiled."""

    def __call__(self, columns: Columns) -> Numbers:
        """What the estimator yields for some rows, by column.

        Any error means that the rows are left to the estimator, which has its own words for what
        it does not take.
        """
        return self._function(columns)


def compiled(model: ModelVersion) -> Compiled:
    """The estimator of a version as a function of few rows, if it can be proved to be the same.

    It is compared on rows of the reference sample, and on some of them with a value missing, and a
    text that never occurred, in each column in turn. Where an estimator is not supported, or a bit
    differs, `problem` says so.
    """
    try:
        return _proved(model)
    except NotCompiled as error:
        problem = str(error)
    except Exception as error:
        # An estimator of another release, or of a use case's own, can fail in any way.
        problem = f"{type(error).__name__}: {error}"
    return Compiled(0, _nothing, problem)


def _nothing(columns: Columns) -> Numbers:
    raise NotCompiled(f"nothing was compiled for these {len(columns)} columns")


def _proved(model: ModelVersion) -> Compiled:
    estimator, method = model.estimator, "predict_proba" if model.classes else "predict"
    numeric = {name: is_numeric(kind) for name, kind in model.fitted_columns.items()}
    parts = compile_estimator(estimator, numeric, method)
    most = parts.most_rows
    reference = model.reference[list(numeric)].head(PROVED_ROWS)
    ask = getattr(estimator, method)
    for rows in (reference, _altered(reference, numeric)):
        if most == 1:
            # Many rows at once are not for it, but its matrix of them is.
            _compare(estimator[:-1].transform, parts.transform, rows)
        else:
            for first in range(0, len(rows), most):
                _compare(ask, parts, rows.iloc[first : first + most])
        for row in range(min(PROVED_ALONE, len(rows))):
            _compare(ask, parts, rows.iloc[row : row + 1])
    return Compiled(most, parts)


def _altered(reference: pd.DataFrame, numeric: dict[str, bool]) -> pd.DataFrame:
    """For each column a row without its value, and for a text one with a text of its own."""
    rows = []
    for index, (name, is_number) in enumerate(numeric.items()):
        row = reference.iloc[index % len(reference)].to_dict()
        rows += [{**row, name: value} for value in ([np.nan] if is_number else [None, UNKNOWN])]
    kinds = {name: "float64" if is_number else "object" for name, is_number in numeric.items()}
    return pd.DataFrame(rows, columns=list(numeric)).astype(kinds)


def _compare(
    ask: Callable[[Any], Any], function: Callable[[Columns], Numbers], rows: pd.DataFrame
) -> None:
    columns = {str(name): rows[name].to_numpy() for name in rows}
    try:
        found = np.asarray(function(columns), np.float64)
    except Exception:
        # Such rows are left to the estimator.
        return
    try:
        expected = np.asarray(ask(rows.copy()), np.float64)
    except Exception as error:
        raise NotCompiled(f"it would answer rows that the estimator refuses: {error}") from error
    # By their bits, since NaN is not equal to itself and -0.0 is equal to 0.0.
    same = found.shape == expected.shape and found.tobytes() == expected.tobytes()
    if not same:
        raise NotCompiled(f"some of {len(rows)} rows get other numbers")
