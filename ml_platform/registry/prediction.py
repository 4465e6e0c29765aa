"""The one predict path: training, batch, replay and serving all call `predict`."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import FeatureError, ModelRefused
from ml_platform.registry.versions import ModelVersion, fitted_columns
from ml_platform.spec.queries import is_numeric
from ml_platform.spec.use_case import UseCase

POSITIVE = "1"
"""Name of the class that a binary model's probability is of: label true, or 1."""


class Fitted(Protocol):
    """What is needed of a model to predict with it."""

    @property
    def estimator(self) -> Any:
        """A fitted scikit-learn compatible estimator."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Columns that it is offered, in order, with DuckDB types."""

    @property
    def left_out(self) -> Collection[str]:
        """Those of them that the estimator is not given, since it was fitted without them."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the columns of its `predict_proba`; empty for a regression."""


def predict(use_case: UseCase, model: Fitted, frame: pd.DataFrame) -> pd.DataFrame:
    """Predict every row of a frame: `use_case.prediction_columns`, with the frame's index.

    The frame holds at least the columns that the model was fitted on, numbers as float64 with
    NaN, everything else as text with None; others are ignored, so that a champion keeps serving
    after a feature was added. Binary: `probability` of the label being true. Multiclass:
    `predicted` and `probabilities`, a dictionary from class to probability. Regression:
    `predicted`.
    Raises FeatureError where the frame does not fit, ModelRefused where the model fails or yields
    something that is not a finite number.
    """
    rows = select_inputs(use_case, model, frame)
    if use_case.label.task == "regression":
        predicted = _output(use_case, model, rows, "predict", (len(rows),))
        return named_predictions(use_case, model.classes, predicted, frame.index)
    shape = (len(rows), len(model.classes))
    probabilities = _output(use_case, model, rows, "predict_proba", shape)
    return named_predictions(use_case, model.classes, probabilities, frame.index)


def predict_columns(
    use_case: UseCase, model: ModelVersion, columns: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """As `predict`, from values by column to predictions by column, without frames for few rows.

    columns: the columns that the model was fitted on, at least, n values each; numbers as float64
    with NaN, everything else as text with None.
    """
    rows = len(next(iter(columns.values())))
    if model.few_rows is not None and rows <= model.few_rows.most_rows:
        # What it cannot take, and what is not finite, the estimator and `predict` have words for.
        with suppress(Exception):
            values = model.few_rows(columns)
            if np.isfinite(values).all():
                return _by_column(use_case, model.classes, values)
    predicted = predict(use_case, model, pd.DataFrame(dict(columns)))
    return {name: predicted[name].to_numpy() for name in use_case.prediction_columns}


def named_predictions(
    use_case: UseCase, classes: tuple[str, ...], values: NDArray[np.float64], index: pd.Index
) -> pd.DataFrame:
    """`use_case.prediction_columns` from the numbers that a model yields.

    values: of a regression shape (n,), else the probabilities of the classes, shape (n, k).
    """
    return pd.DataFrame(_by_column(use_case, classes, values), index=index)


def _by_column(
    use_case: UseCase, classes: tuple[str, ...], values: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    task = use_case.label.task
    if (task == "regression") != (not classes) or (task == "binary" and POSITIVE not in classes):
        fitted = f"classes {', '.join(classes)}" if classes else "a number"
        raise ModelRefused(
            f"{use_case.name}: label.task is {task}, and the model predicts {fitted}: it was "
            "trained for another task. Change the task back, or declare another use case for it"
        )
    if task == "regression":
        return {"predicted": values}
    if task == "binary":
        return {"probability": values[:, classes.index(POSITIVE)]}
    best = [classes[i] for i in values.argmax(axis=1)] if len(values) else []
    named = [dict(zip(classes, row, strict=True)) for row in values.tolist()]
    return {"predicted": np.array(best, dtype=object), "probabilities": _objects(named)}


def select_inputs(use_case: UseCase, model: Fitted, frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that a model was fitted on, checked; FeatureError names what is wrong."""
    # All at once: taking the columns one by one costs more than predicting a day's rows.
    dtypes = dict(zip(frame.columns, frame.dtypes, strict=True))
    needed = fitted_columns(model.columns, model.left_out) if model.left_out else model.columns
    missing = [column for column in needed if column not in dtypes]
    if missing:
        raise FeatureError(
            f"{use_case.name}: the model was fitted on {_listed(missing)}, which these rows lack; "
            "compute the feature, or train a model without it"
        )
    for column, kind in needed.items():
        dtype = dtypes[column]
        expected = "float64" if is_numeric(kind) else "object"
        if dtype != expected:
            raise FeatureError(
                f"{use_case.name}: column '{column}' ({kind}) is {dtype}, the model was fitted on "
                f"{expected}; cast it with .astype('{expected}')"
            )
    wanted = list(needed)
    # A copy, since an estimator may write to what it is given. Where all columns are in order
    # already, selecting them would cost more than copying them.
    rows = frame if list(dtypes) == wanted else frame[wanted]
    return rows.copy()


def _output(
    use_case: UseCase, model: Fitted, rows: pd.DataFrame, method: str, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    if not len(rows):
        # scikit-learn refuses to predict no rows; no rows have no predictions.
        return np.empty(shape)
    try:
        values = np.asarray(getattr(model.estimator, method)(rows), dtype=np.float64)
    except Exception as error:
        # A use case's own code can fail in any way.
        raise ModelRefused(
            f"{use_case.name}: {method} of {len(rows)} rows failed: {type(error).__name__}: {error}"
        ) from error
    if values.shape != shape:
        raise ModelRefused(
            f"{use_case.name}: {method} returned shape {values.shape} where {shape} was expected"
        )
    wrong = ~np.isfinite(values.reshape(len(rows), -1)).all(axis=1)
    if wrong.any():
        first = rows.index[int(wrong.argmax())]
        raise ModelRefused(
            f"{use_case.name}: {method} is not a finite number for {int(wrong.sum())} of "
            f"{len(rows)} rows, first row {first}; impute what the estimator cannot take"
        )
    return values


def _objects(values: list[dict[str, float]]) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
