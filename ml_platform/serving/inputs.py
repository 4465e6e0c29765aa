"""What callers send, checked against what the model was fitted on.

Every refusal names the column at fault, whatever protocol brought it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import RequestRefused
from ml_platform.registry import ModelVersion, SeenColumn
from ml_platform.spec.queries import is_numeric
from ml_platform.spec.values import suggest

Values = Sequence[Any] | NDArray[Any]

SHOWN = 60
"""Longest text of a caller that is repeated in an answer."""
PLAIN = frozenset({int, float})
"""Types of numbers as JSON has them; others need a closer look."""
LARGEST_EXACT = 2**53
"""Beyond this, whole numbers have no float64 of their own."""


@dataclass(frozen=True)
class Inputs:
    """Rows for one model version, column by column: float64 with NaN, or text with None."""

    columns: Mapping[str, NDArray[Any]]
    rows: int

    def frame(self) -> pd.DataFrame:
        """The rows as `predict` wants them."""
        return pd.DataFrame(dict(self.columns))

    def cut(self, part: slice) -> "Inputs":
        """Some of the rows."""
        columns = {name: values[part] for name, values in self.columns.items()}
        return Inputs(columns, len(range(self.rows)[part]))

    @classmethod
    def together(cls, several: Sequence["Inputs"]) -> "Inputs":
        """The rows of several, in order; all have the same columns."""
        if len(several) == 1:
            return several[0]
        names = several[0].columns
        columns = {name: np.concatenate([each.columns[name] for each in several]) for name in names}
        return cls(columns, sum(each.rows for each in several))


def check_columns(
    model: ModelVersion,
    columns: Mapping[str, Values],
    *,
    known_categories: bool = True,
    only: Collection[str] | None = None,
) -> Inputs:
    """Turn values by column into what a model is given.

    columns: n values each; None, and NaN among numbers, stand for missing ones. Columns that the
    model does not know are refused, since they are mostly misspelt.
    known_categories: refuse texts that did not occur among the rows the model was fitted on.
    only: the columns of the model that are asked for; by default all of them.
    Raises RequestRefused.
    """
    rows = _count_rows(columns)
    for name in columns:
        if name not in model.columns:
            problem = f"the model has no such column{suggest(name[:SHOWN], model.columns)}"
            raise RequestRefused(problem, name[:SHOWN])
    wanted = [name for name in model.columns if only is None or name in only]
    for name in wanted:
        if name not in columns:
            raise RequestRefused("is missing; send null where its value is not known", name)
    plain = _plain_numbers(model, {name: columns[name] for name in wanted})
    checked: dict[str, NDArray[Any]] = {}
    for name in wanted:
        if name in plain:
            checked[name] = plain[name]
        elif is_numeric(model.columns[name]):
            checked[name] = _numbers(name, columns[name], model.seen[name])
        else:
            checked[name] = _texts(name, columns[name], model.seen[name], known_categories)
    return Inputs(checked, rows)


def _plain_numbers(
    model: ModelVersion, columns: Mapping[str, Values]
) -> dict[str, NDArray[np.float64]]:
    """Columns of numbers that nothing is wrong with and nothing is missing from, all at once.

    Most requests have a row of many columns: numpy's functions take longer for each of them than
    for the whole.
    """
    plain = {
        name: values
        for name, values in columns.items()
        if isinstance(values, list)
        and is_numeric(model.columns[name])
        and PLAIN.issuperset(map(type, values))
    }
    try:
        matrix = np.array(list(plain.values()), np.float64)
    except OverflowError:
        return {}
    # Beyond it a whole number may have been rounded, and so may one that is now equal to it.
    if not (np.abs(matrix) < LARGEST_EXACT).all():
        return {}
    return dict(zip(plain, matrix, strict=True))


def _count_rows(columns: Mapping[str, Values]) -> int:
    if not columns:
        raise RequestRefused("there are no columns; send the values that the model is given")
    first, *_ = columns
    rows = len(columns[first])
    for name, values in columns.items():
        if len(values) != rows:
            problem = f"has {len(values)} values where '{first[:SHOWN]}' has {rows}"
            raise RequestRefused(problem, name[:SHOWN])
    if not rows:
        raise RequestRefused("there are no rows; send at least one")
    return rows


def _numbers(name: str, values: Values, seen: SeenColumn) -> NDArray[np.float64]:
    if not (isinstance(values, np.ndarray) and values.dtype.kind in "fiub"):
        # One by one: most requests have a row, for which numpy's functions would take longer.
        return np.array([_number(name, row, v, seen) for row, v in enumerate(values)], np.float64)
    numbers = _floats(name, values)
    infinite = np.isinf(numbers)
    if infinite.any():
        raise RequestRefused(_infinite(int(infinite.argmax())), name)
    if not seen.missing and (lacking := np.isnan(numbers)).any():
        raise RequestRefused(_never_missing(int(lacking.argmax())), name)
    return numbers


def _floats(name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    if values.dtype.kind in "iu":
        inexact = (values > LARGEST_EXACT) | (values < -LARGEST_EXACT)
        if inexact.any():
            raise RequestRefused(_too_large(int(inexact.argmax())), name)
    # A NaN that signals is one like the others.
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


def _number(name: str, row: int, value: Any, seen: SeenColumn) -> float:
    if value is not None and not isinstance(value, bool | int | float | np.number | np.bool_):
        raise RequestRefused(f"row {row} is {shown(value)} where a number is expected", name)
    if isinstance(value, int) and abs(value) > LARGEST_EXACT:
        raise RequestRefused(_too_large(row), name)
    number = math.nan if value is None else float(value)
    if math.isinf(number):
        raise RequestRefused(_infinite(row), name)
    if not seen.missing and math.isnan(number):
        raise RequestRefused(_never_missing(row), name)
    return number


def _texts(name: str, values: Values, seen: SeenColumn, known_categories: bool) -> NDArray[Any]:
    texts = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            if not seen.missing:
                raise RequestRefused(_never_missing(row), name)
            continue
        if not isinstance(value, str):
            raise RequestRefused(f"row {row} is {shown(value)} where text is expected", name)
        if known_categories and seen.categories is not None and value not in seen.categories:
            hint = suggest(value[:SHOWN], sorted(seen.categories))
            problem = f"row {row} is {shown(value)}, a category the model has not seen{hint}"
            raise RequestRefused(problem, name)
        texts[row] = value
    return texts


def _too_large(row: int) -> str:
    return f"row {row} is a whole number too large to be exact"


def _infinite(row: int) -> str:
    return f"row {row} is infinite; send a finite number or null"


def _never_missing(row: int) -> str:
    return f"row {row} has no value, and the model was fitted on rows that always had one"


def shown(value: Any) -> str:
    """A value of a caller, as messages repeat it.

    >>> shown("x"), shown(True), shown(1.5), shown([1])
    ("the text 'x'", 'true', 'the number 1.5', 'a list')
    """
    match value:
        case str():
            return f"the text '{value[:SHOWN]}'"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"[:SHOWN]
        case dict():
            return "an object"
        case list():
            return "a list"
        case _:
            return f"a {type(value).__name__}"
