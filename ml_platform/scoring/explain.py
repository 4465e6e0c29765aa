"""What each column contributed to a prediction: Shapley values, sampled through the predict path.

The estimator is asked, and nothing of its inside: so every estimator can be explained, with native
categories and inside pipelines, where explainers that read trees are silently wrong.

Each sample takes a background row, of the rows that the version was fitted on, and replaces its
values by those of the explained row, one column after the other in a random order; what the
prediction moves by at a step is that column's. Each order is also walked backwards, which takes
noise away. The contributions of a sample add up to the difference between the two predictions by
construction, so those of the explanation add up to the prediction, to rounding; that is checked.
Where columns act independently, as in a linear model, the order does not matter, and the values
are exact for the background.

Source of the method: Strumbelj and Kononenko, "Explaining prediction models and individual
predictions with feature contributions" (2014).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import EmptyPartition, ModelRefused, PlatformError
from ml_platform.features import assemble
from ml_platform.registry import ModelVersion, Registry, predict
from ml_platform.scoring.trace import find_prediction
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

SAMPLES = 256
"""Pairs of a background row and an order of the columns; half of the orders are the others
backwards."""
TOLERANCE = 1e-9
"""By how much contributions may miss a prediction, relative to the predictions that they are
differences of."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Explanation:
    """What the columns contributed to one prediction."""

    output: str
    """What is explained: `probability`, `predicted`, or `probability of <class>`."""
    prediction: float
    base: float
    """Mean prediction of the background: `base` and all contributions add up to `prediction`."""
    contributions: Mapping[str, float]
    """By column, in the unit of the prediction; the farthest from 0 first."""
    errors: Mapping[str, float]
    """Standard error of each contribution, from sampling."""
    values: Mapping[str, object]
    """What the explained row has in each column."""
    samples: int


def explain(
    use_case: UseCase,
    model: ModelVersion,
    frame: pd.DataFrame,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> list[Explanation]:
    """Explain each row of a frame, in its order; the same seed yields the same numbers.

    frame: as `predict` takes it. samples: an even number; noise falls with its square root, and
    each sample of a row costs as many predictions as the model has columns. The class of a
    multiclass model that is explained is the one that is predicted.
    Raises FeatureError where the frame does not fit, ModelRefused where contributions do not add
    up, since the estimator predicts a row differently when others come along.
    """
    if samples < 2 or samples % 2:
        raise ValueError(f"samples should be an even number from 2 on, not {samples}")
    columns = list(model.fitted_columns)
    predicted = predict(use_case, model, frame)
    background = _background(model, columns, samples)
    orders = _orders(len(columns), samples, seed)
    found = []
    for position in range(len(frame)):
        row = frame[columns].iloc[[position]]
        output, value, chosen = _explained(use_case, predicted.iloc[position])
        steps = _steps(row, background, orders)
        outputs = _values(use_case, predict(use_case, model, steps), chosen)
        found.append(_explanation(use_case, row, output, value, outputs, orders, columns))
    return found


def explain_prediction(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    entity: Mapping[str, str],
    *,
    at: datetime | Window | None = None,
    samples: int = SAMPLES,
) -> Explanation:
    """Explain a stored prediction, by the version and the rows that it was made of.

    entity, at: as `trace` takes them. Raises EmptyPartition where there is no such prediction, and
    what `explain` raises.
    """
    with lake.cursor(use_case.timezone) as cursor:
        found = find_prediction(cursor, lake, use_case, entity, at)
        row = _assembled(cursor, lake, use_case, found)
    model = registry.load(use_case, int(found["model_version"]))
    (explanation,) = explain(use_case, model, row, samples=samples)
    return explanation


def _assembled(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    prediction: Mapping[str, Any],
) -> pd.DataFrame:
    window = use_case.calendar.window_at(prediction["event_time"])
    frame = assemble(cursor, lake, use_case, window, int(prediction["snapshot"]))
    wanted = frame["event_time"] == prediction["event_time"]
    for name in use_case.examples.entity:
        wanted &= frame[name] == prediction[name]
    if not wanted.any():
        raise EmptyPartition(
            f"{use_case.name}: the snapshot of this prediction no longer has its example"
        )
    found: pd.DataFrame = frame[wanted].head(1)
    return found


def _background(model: ModelVersion, columns: Sequence[str], samples: int) -> pd.DataFrame:
    """Rows of the reference, spread evenly over it; both halves of the orders share them."""
    reference = model.reference
    if missing := [name for name in columns if name not in reference]:
        raise PlatformError(
            f"version {model.version} of {model.use_case} keeps no sample of {', '.join(missing)} "
            "to compare with; train a version"
        )
    half = samples // 2
    chosen = np.linspace(0, len(reference) - 1, half).round().astype(np.int64)
    return reference[list(columns)].iloc[chosen].reset_index(drop=True)


def _orders(columns: int, samples: int, seed: int) -> NDArray[np.int64]:
    """Orders of the columns, shape (samples, columns); the second half are the first backwards."""
    drawn = np.random.default_rng(seed)
    forwards = np.array([drawn.permutation(columns) for _ in range(samples // 2)])
    return np.concatenate([forwards, forwards[:, ::-1]])


def _explained(use_case: UseCase, predicted: "pd.Series[Any]") -> tuple[str, float, str | None]:
    """What is explained, its value, and the class that it is of."""
    if use_case.label.task == "multiclass":
        chosen = str(predicted["predicted"])
        probabilities = predicted["probabilities"]
        assert isinstance(probabilities, dict)
        return f"probability of {chosen}", float(probabilities[chosen]), chosen
    (name,) = use_case.prediction_columns
    return name, float(str(predicted[name])), None


def _values(use_case: UseCase, predicted: pd.DataFrame, chosen: str | None) -> Floats:
    if chosen is not None:
        return np.array([row[chosen] for row in predicted["probabilities"]], dtype=np.float64)
    (name,) = use_case.prediction_columns
    return predicted[name].to_numpy(dtype=np.float64)


def _steps(row: pd.DataFrame, background: pd.DataFrame, orders: NDArray[np.int64]) -> pd.DataFrame:
    """Rows on the way from each background row to the explained one.

    Those of a sample stand together: the background row, then after each column of its order.
    """
    samples, width = orders.shape
    each = np.tile(np.arange(len(background)), 2)
    # When a column is replaced, by sample.
    turn = np.empty_like(orders)
    np.put_along_axis(turn, orders, np.arange(width)[None, :].repeat(samples, axis=0), axis=1)
    taken = np.arange(width + 1)[None, :, None] > turn[:, None, :]
    flat = taken.reshape(samples * (width + 1), width)
    rows = each.repeat(width + 1)
    return pd.DataFrame(
        {
            # By arrays: pandas would make a missing text of `where` a NaN.
            name: np.where(flat[:, i], row[name].to_numpy(), background[name].to_numpy()[rows])
            for i, name in enumerate(background)
        }
    )


def _explanation(
    use_case: UseCase,
    row: pd.DataFrame,
    output: str,
    value: float,
    outputs: Floats,
    orders: NDArray[np.int64],
    columns: Sequence[str],
) -> Explanation:
    samples, width = orders.shape
    walked = outputs.reshape(samples, width + 1)
    moved = np.empty((samples, width))
    np.put_along_axis(moved, orders, np.diff(walked, axis=1), axis=1)
    # An order and the same backwards are one draw: they are not independent.
    drawn = (moved[: samples // 2] + moved[samples // 2 :]) / 2
    contributions, base = drawn.mean(axis=0), float(walked[:, 0].mean())
    missed = abs(base + contributions.sum() - value)
    if missed > TOLERANCE * max(np.abs(walked).max(), 1.0):
        raise ModelRefused(
            f"{use_case.name}: contributions miss the prediction by {missed:.3g}; the estimator "
            "predicts a row differently when other rows come along, so nothing can be said of "
            "single columns"
        )
    spread = drawn.std(axis=0, ddof=1) if len(drawn) > 1 else np.zeros(width)
    errors = spread / np.sqrt(len(drawn))
    ranked = sorted(range(width), key=lambda i: (-abs(contributions[i]), columns[i]))
    return Explanation(
        output,
        value,
        base,
        {columns[i]: float(contributions[i]) for i in ranked},
        {columns[i]: float(errors[i]) for i in ranked},
        {columns[i]: row[columns[i]].iloc[0] for i in ranked},
        samples,
    )
