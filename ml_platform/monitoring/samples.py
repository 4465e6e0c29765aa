"""Both sides of a comparison: a reference sample, and a window that moves over readings."""

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ml_platform.monitoring.columns import MonitoredColumn, Readings
from ml_platform.monitoring.distances import Fences, Floats, Integers, standard_deviation


class Reference:
    """One column of a model version's reference sample."""

    def __init__(self, column: MonitoredColumn, values: "pd.Series[Any] | None") -> None:
        self.rows = 0 if values is None else len(values)
        self._column = column
        self._present = pd.Series() if values is None else column.values(values).dropna()

    @property
    def count(self) -> int:
        """How many values are not missing."""
        return len(self._present)

    @cached_property
    def ordered(self) -> Floats:
        return np.sort(self._present.to_numpy(dtype=np.float64))

    @cached_property
    def scale(self) -> float:
        """The unit of Evidently's Wasserstein distance."""
        return standard_deviation(self.ordered)

    @property
    def null_share(self) -> float | None:
        """Share of missing values; None where there are no rows."""
        return (self.rows - self.count) / self.rows if self.rows else None

    @cached_property
    def fences(self) -> Fences:
        return Fences.of(self.ordered)

    @cached_property
    def clipped_scale(self) -> float:
        """The unit of a Wasserstein distance: what lies beyond the fences does not inflate it."""
        return standard_deviation(self.fences.clip(self.ordered))

    @cached_property
    def distinct(self) -> int:
        return len(np.unique(self.ordered))

    @cached_property
    def counts(self) -> "pd.Series[int]":
        return self._present.value_counts(sort=False)


class Moving:
    """A window that moves over readings; holds the rows of `[first, last)`."""

    def __init__(self, readings: Readings) -> None:
        self._readings, self._times = readings, readings.times
        self._first = self._last = 0

    def _rows(self, since: int, until: int) -> tuple[int, int]:
        first, last = np.searchsorted(self._times, [since, until])
        return int(first), int(last)


class MovingOrder(Moving):
    """The numbers of a window, sorted."""

    def __init__(self, readings: Readings) -> None:
        super().__init__(readings)
        self._values = readings.values.to_numpy(dtype=np.float64)
        self.ordered: Floats = np.empty(0)
        self._is_held = np.zeros(len(self._values), dtype=np.bool_)

    @property
    def count(self) -> int:
        return len(self.ordered)

    def move(self, since: int, until: int) -> int:
        """Go to the window of a time span; returns its number of rows."""
        first, last = self._rows(since, until)
        held = self._readings.held(first, last, until)
        if not isinstance(held, slice):
            return self._exchange(first, last, held)
        if self._first <= first < self._last <= last:
            leaving, arriving = (
                self._present(slice(self._first, first)),
                self._present(slice(self._last, last)),
            )
            self.ordered = _inserted(_deleted(self.ordered, leaving), arriving)
        else:
            self.ordered = self._present(slice(first, last))
        self._first, self._last = first, last
        return last - first

    def _exchange(self, first: int, last: int, held: Integers) -> int:
        """Hold some of the rows `[first, last)`: few others than before if the window moved on."""
        low, high = min(first, self._first), max(last, self._last)
        was, now = self._is_held[low:high], np.zeros(high - low, dtype=np.bool_)
        now[held - low] = True
        leaving, arriving = (low + np.flatnonzero(rows) for rows in (was & ~now, now & ~was))
        if len(leaving) + len(arriving) < len(self.ordered) // 2:
            self.ordered = _inserted(
                _deleted(self.ordered, self._present(leaving)), self._present(arriving)
            )
        else:
            self.ordered = self._present(held)
        self._is_held[low:high] = now
        self._first, self._last = first, last
        return int(now.sum())

    def _present(self, rows: slice | Integers) -> Floats:
        values = self._values[rows]
        return np.sort(values[~np.isnan(values)])


class MovingCounts(Moving):
    """How often each category occurs in a window."""

    def __init__(self, readings: Readings) -> None:
        super().__init__(readings)
        self._codes, categories = pd.factorize(readings.values, use_na_sentinel=True)
        self._categories = pd.Index(categories, dtype=object)
        self._counts: Integers = np.zeros(len(categories), dtype=np.int64)
        self._references: dict[Reference, tuple[Integers, Integers]] = {}

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    def move(self, since: int, until: int) -> int:
        """Go to the window of a time span; returns its number of rows."""
        codes = self._codes[self._readings.held(*self._rows(since, until), until)]
        counts = np.bincount(codes[codes >= 0], minlength=len(self._categories))
        self._counts = counts.astype(np.int64)
        return len(codes)

    def beside(self, reference: Reference) -> tuple[Integers, Integers]:
        """Counts of the reference and of the window, by the categories of both."""
        if reference not in self._references:
            # Sorted, so that sums over categories are the same bits whatever range is computed.
            both = self._categories.union(reference.counts.index).sort_values()
            counts = reference.counts.reindex(both, fill_value=0)
            places = both.get_indexer(self._categories)
            self._references[reference] = np.asarray(counts, dtype=np.int64), places
        before, places = self._references[reference]
        now = np.zeros_like(before)
        now[places] = self._counts
        return before, now


def _deleted(ordered: Floats, leaving: Floats) -> Floats:
    # The k-th of several equal values to leave is the k-th of them in the window.
    nth = np.arange(len(leaving)) - np.searchsorted(leaving, leaving)
    return np.delete(ordered, np.searchsorted(ordered, leaving) + nth)


def _inserted(ordered: Floats, arriving: Floats) -> Floats:
    return np.insert(ordered, np.searchsorted(ordered, arriving), arriving)
