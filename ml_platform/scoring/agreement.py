"""Whether predictions from elsewhere are those of the registered version."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import EndpointDiffers
from ml_platform.registry import ModelVersion, is_row_wise, predict
from ml_platform.spec.use_case import UseCase


def require_agreement(
    use_case: UseCase,
    model: ModelVersion,
    window: pd.DataFrame,
    answered: pd.DataFrame,
    tolerance: float,
    who: str,
    key: str,
) -> None:
    """Raise EndpointDiffers where a prediction is not what a version predicts in process.

    window: all rows of a window. answered: predictions of some of them, by the same index.
    tolerance: largest relative difference; 0 compares to the bit. who, key: what the error says of
    the one who answered, and of the window.
    """
    # What depends on the rows along with it is recomputed with its window, as `reproduce` does.
    rows = window.loc[answered.index] if is_row_wise(model.estimator) else window
    expected = predict(use_case, model, rows).loc[answered.index]
    differs = _differing(use_case, answered, expected, tolerance)
    if not differs.any():
        return
    first = int(differs.argmax())
    column = next(iter(use_case.prediction_columns))
    raise EndpointDiffers(
        f"{who} and predicts {int(differs.sum())} of {len(answered)} rows of {key} otherwise than "
        f"that version of the registry, such as {column} {answered[column].iloc[first]} instead "
        f"of {expected[column].iloc[first]}; serve the registered version, or allow a difference "
        "by `scorer.tolerance`"
    )


def _differing(
    use_case: UseCase, one: pd.DataFrame, other: pd.DataFrame, tolerance: float
) -> NDArray[np.bool_]:
    """Which rows differ by more than a relative tolerance; at 0, by any bit."""
    found = np.zeros(len(one), dtype=bool)
    for column, kind in use_case.prediction_columns.items():
        left, right = one[column], other[column]
        if kind == "DOUBLE":
            found |= _apart(left.to_numpy(), right.to_numpy(), tolerance)
        elif kind == "VARCHAR":
            # With a tolerance, two classes that are as likely may change places.
            found |= (left != right).to_numpy() if not tolerance else False
        else:
            names = list(right.iloc[0]) if len(right) else []
            for name in names:
                theirs = np.array([row[name] for row in left], dtype=np.float64)
                ours = np.array([row[name] for row in right], dtype=np.float64)
                found |= _apart(theirs, ours, tolerance)
    return found


def _apart(
    one: NDArray[np.float64], other: NDArray[np.float64], tolerance: float
) -> NDArray[np.bool_]:
    apart: NDArray[np.bool_] = np.abs(one - other) > tolerance * np.abs(other)
    return apart
