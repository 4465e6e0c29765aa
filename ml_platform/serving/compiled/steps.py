"""The steps before a final estimator, as functions of arrays.

What they compute is scikit-learn's, operation by operation, so that each bit is the same; what is
left out is its validation of frames, which takes milliseconds however few the rows are. Fitted
attributes are read by their documented names where they have one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)

Columns = Mapping[str, NDArray[Any]]
"""Values by column, n each: float64 with NaN, or text with None."""
Numbers = NDArray[np.float64]
MOST_CODES = 1_000_000
"""Numbers that the texts of an encoder may become, 8 MB."""
UNKNOWN = "\0 a text that no column has"
"""Stands for every text that an encoder was not fitted on."""


class NotCompiled(Exception):
    """An estimator, or a row, that is left to scikit-learn; the message says why."""


class CompiledStep:
    """Columns in, a matrix out."""

    def __call__(self, columns: Columns) -> Numbers:
        """Shape (rows, outputs); raises NotCompiled for rows that scikit-learn may refuse."""
        raise NotImplementedError


@dataclass(frozen=True)
class Stacked(CompiledStep):
    """Columns of numbers, side by side."""

    names: Sequence[str]

    def __call__(self, columns: Columns) -> Numbers:
        values = np.array([columns[name] for name in self.names])
        if values.dtype != np.float64:
            raise NotCompiled("numbers that are not float64")
        return values.T


@dataclass(frozen=True)
class Joined(CompiledStep):
    """What several steps yield, side by side."""

    steps: Sequence[CompiledStep]

    def __call__(self, columns: Columns) -> Numbers:
        return np.concatenate([step(columns) for step in self.steps], axis=1)


@dataclass(frozen=True)
class Encoded(CompiledStep):
    """Columns of texts, each text with what an encoder makes of it."""

    codes: Mapping[str, Mapping[str | None, Numbers]]
    """By column and text; `UNKNOWN` is there where the encoder takes one it was not fitted on."""

    def __call__(self, columns: Columns) -> Numbers:
        return np.concatenate([_coded(columns[name], c) for name, c in self.codes.items()], axis=1)


def _coded(texts: NDArray[Any], codes: Mapping[str | None, Numbers]) -> Numbers:
    if not all(text is None or type(text) is str for text in texts):
        raise NotCompiled("texts that are none")
    found = [codes[text] if text in codes else codes.get(UNKNOWN) for text in texts]
    if any(code is None for code in found):
        raise NotCompiled("a text that the encoder was not fitted on")
    return np.array(found, np.float64)


@dataclass(frozen=True)
class Imputed(CompiledStep):
    """Numbers, with others for those that are missing."""

    of: CompiledStep
    fills: Numbers

    def __call__(self, columns: Columns) -> Numbers:
        values = self.of(columns)
        return np.where(np.isnan(values), self.fills, values)


@dataclass(frozen=True)
class Scaled(CompiledStep):
    """Numbers less their means, over their scales; either may be None."""

    of: CompiledStep
    means: Numbers | None
    scales: Numbers | None

    def __call__(self, columns: Columns) -> Numbers:
        values = self.of(columns)
        values = values if self.means is None else values - self.means
        return values if self.scales is None else values / self.scales


def compile_transformers(transformers: Sequence[Any], columns: Mapping[str, bool]) -> CompiledStep:
    """What transformers that follow each other make of the model's columns.

    columns: whether they are numbers, in order. Raises NotCompiled.
    """
    if transformers and isinstance(transformers[0], ColumnTransformer):
        step = _of_columns(transformers[0], columns)
        return _numeric(transformers[1:], step)
    return _of_some(transformers, list(columns), columns)


def _of_columns(transformer: ColumnTransformer, columns: Mapping[str, bool]) -> CompiledStep:
    if transformer.sparse_output_:
        raise NotCompiled("its columns become a sparse matrix")
    if transformer.transformer_weights:
        raise NotCompiled("its transformers have weights")
    names = [str(name) for name in transformer.feature_names_in_]
    steps = []
    # Only here are the columns resolved: names, positions, slices and selectors alike.
    indices = transformer._transformer_to_input_indices
    for name, fitted, _ in transformer.transformers_:
        own = [names[index] for index in indices[name]]
        if own and not (isinstance(fitted, str) and fitted == "drop"):
            steps.append(_of_some(_flat(fitted), own, columns))
    if not steps:
        raise NotCompiled("no column is left")
    return Joined(steps)


def _flat(transformer: Any) -> list[Any]:
    if isinstance(transformer, Pipeline):
        return [each for _, step in transformer.steps for each in _flat(step)]
    return [transformer]


def _of_some(
    transformers: Sequence[Any], names: Sequence[str], columns: Mapping[str, bool]
) -> CompiledStep:
    if transformers and isinstance(transformers[0], OrdinalEncoder | OneHotEncoder):
        if any(columns[name] for name in names):
            raise NotCompiled("numbers are encoded as categories")
        return _numeric(transformers[1:], Encoded(_codes(transformers[0], names)))
    if not all(columns[name] for name in names):
        raise NotCompiled(f"texts are given to {_called(transformers)}")
    return _numeric(transformers, Stacked(tuple(names)))


def _numeric(transformers: Iterable[Any], step: CompiledStep) -> CompiledStep:
    for each in transformers:
        match each:
            case "passthrough":
                pass
            case FunctionTransformer(func=None):
                pass
            case SimpleImputer(add_indicator=False) if each.missing_values != each.missing_values:
                fills = np.asarray(each.statistics_, np.float64)
                if np.isnan(fills).any():
                    raise NotCompiled("its imputer leaves out columns")
                step = Imputed(step, fills)
            case StandardScaler():
                means = each.mean_ if each.with_mean else None
                step = Scaled(step, means, each.scale_ if each.with_std else None)
            case _:
                raise NotCompiled(f"{type(each).__name__} is not compiled")
    return step


def _codes(
    encoder: OrdinalEncoder | OneHotEncoder, names: Sequence[str]
) -> dict[str, dict[str | None, Numbers]]:
    """What the encoder makes of each text, and of one it does not know, by its own word."""
    sizes = [len(categories) for categories in encoder.categories_]
    is_wide = isinstance(encoder, OneHotEncoder)
    widths = encoder._n_features_outs if is_wide else [1] * len(names)
    if sum(size * width for size, width in zip(sizes, widths, strict=True)) > MOST_CODES:
        raise NotCompiled(f"its encoder has {sum(sizes)} categories")
    base = [_text(categories[0]) for categories in encoder.categories_]
    codes: dict[str, dict[str | None, Numbers]] = {}
    last = 0
    for index, (name, width) in enumerate(zip(names, widths, strict=True)):
        own = slice(last, last := last + width)
        known = [_text(category) for category in encoder.categories_[index]]
        codes[name] = {}
        for texts in (known, [None], [UNKNOWN]):
            rows = pd.DataFrame([base] * len(texts), columns=list(names), dtype=object)
            rows[name] = np.array(texts, dtype=object)
            try:
                found = encoder.transform(rows)
            except ValueError:
                # It refuses what it does not know; rows with such a text are left to it.
                continue
            dense = found.toarray() if hasattr(found, "toarray") else np.asarray(found)
            codes[name] |= zip(texts, np.asarray(dense[:, own], np.float64), strict=True)
    return codes


def _text(category: Any) -> str | None:
    # A missing one is None or NaN, as the column was when the encoder was fitted.
    return None if pd.isna(category) else str(category)


def _called(transformers: Sequence[Any]) -> str:
    return type(transformers[0]).__name__ if transformers else "the estimator"
