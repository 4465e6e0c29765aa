"""Rows by segment: those with one value of a column."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.spec.use_case import UseCase


def segments_of(use_case: UseCase, rows: pd.DataFrame) -> dict[str, NDArray[np.int64]]:
    """Positions of the rows of each segment that the gate compares or that is watched, by name.

    Those with fewer rows than `gate.segment_min_rows` are left out: their figures are noise.
    """
    columns = dict.fromkeys((*use_case.gate.segments, *use_case.monitoring.segments.columns))
    return {
        f"{column}={group}": places
        for column in columns
        for group, places in groups_of(rows[column])
        if len(places) >= use_case.gate.segment_min_rows
    }


def groups_of(values: "pd.Series[Any]") -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Positions of the rows of each value, by name; numbers as people write them."""
    codes, found = pd.factorize(values)
    names = [f"{value:g}" if isinstance(value, float) else str(value) for value in found]
    groups = {name: np.flatnonzero(codes == code) for code, name in enumerate(names)}
    missing = np.flatnonzero(codes == -1)
    if len(missing):
        groups["(none)"] = missing
    yield from sorted(groups.items())
