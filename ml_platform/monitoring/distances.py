"""Distances between two samples, by the definitions of Evidently 0.7.

They are written out here because importing Evidently costs eight seconds of CPU, and its report
of one window about as much as a year of windows costs here. `tests/test_monitoring_distances.py`
holds each of them equal to Evidently's own report.

A few values far outside of the others, such as a sentinel of -999, range bins and standard
deviations until no shift shows. So samples are clipped to their fences first, see `Fences`; where
no value lies outside of them the scores are Evidently's, elsewhere they are not. The report has
Evidently's beside them.

Samples of numbers are sorted arrays without NaN and without infinities, which count as missing, as
they do there. Two of the definitions are peculiar to Evidently: a Wasserstein distance is divided
by the reference's standard deviation, and empty bins get a small share before a PSI is taken.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SMALLEST_SCALE = 0.001
"""A reference that varies less than this is taken to vary by this much."""
MOST_CATEGORIES = 20
"""Numbers with no more distinct values than this are compared value by value, not binned."""
EMPTY_SHARE = 0.0001
TAIL = 0.025
"""Share of values, at each end, that may lie anywhere without widening the fences."""


@dataclass(frozen=True)
class Fences:
    """Between which bounds the values of a sample count as they are; beyond, as the bound.

    Each lies as far outside of the middle 95% of the values as these are wide: 5.9 standard
    deviations from the mean of a normal distribution. Where these are all the same there is no
    width to measure by, and there are no fences.
    """

    low: float
    high: float

    @classmethod
    def of(cls, ordered: Floats) -> "Fences":
        """The fences of a sorted sample.

        >>> Fences.of(np.array([*range(100), 10**9], dtype=np.float64))
        Fences(low=-94.0, high=194.0)
        """
        tail = int(len(ordered) * TAIL)
        low, high = float(ordered[tail]), float(ordered[-1 - tail])
        if low == high:
            return cls(-np.inf, np.inf)
        return cls(low - (high - low), high + (high - low))

    def around(self, other: "Fences") -> "Fences":
        """The fences that hold both."""
        return Fences(min(self.low, other.low), max(self.high, other.high))

    def clip(self, ordered: Floats) -> Floats:
        """A sorted sample within the fences; the same array where it is within them already."""
        if self.low <= ordered[0] and ordered[-1] <= self.high:
            return ordered
        return np.clip(ordered, self.low, self.high)


@dataclass(frozen=True)
class QuantileSteps:
    """Where the quantile functions of n and of m sorted values are constant together.

    reference, current: shape (n + m,), which value each function has in a step;
    width: shape (n + m,), the length of the step, 1 in total.
    """

    reference: Integers
    current: Integers
    width: Floats

    @classmethod
    def of(cls, n: int, m: int) -> "QuantileSteps":
        """Merge the steps at i / n with those at j / m, on their common grid of n * m points."""
        ranks = np.arange(n, dtype=np.int64)
        # A step of the reference goes before one of the current sample at the same point.
        places = ranks - (-ranks * m // n)
        starts = np.zeros(n + m, dtype=np.int64)
        starts[places] = 1
        reference = np.cumsum(starts) - 1
        current = np.arange(n + m, dtype=np.int64) - reference - 1
        points = np.where(starts, reference * m, current * n)
        width = np.diff(points, append=n * m) / (n * m)
        return cls(reference, np.maximum(current, 0), width)


class SharedSteps:
    """Steps by sample sizes, which columns of a window, and often the next window, have in common.

    >>> steps = SharedSteps()
    >>> steps.of(2, 3) is steps.of(2, 3)
    True
    """

    def __init__(self) -> None:
        self._before: dict[tuple[int, int], QuantileSteps] = {}
        self._now: dict[tuple[int, int], QuantileSteps] = {}

    def move_on(self) -> None:
        """Go to the next window; steps that this one did not need are forgotten."""
        self._before, self._now = self._now, {}

    def of(self, n: int, m: int) -> QuantileSteps:
        """The steps of n values of a reference and m of a window."""
        if (n, m) not in self._now:
            self._now[n, m] = self._before.get((n, m)) or QuantileSteps.of(n, m)
        return self._now[n, m]


def measure_wasserstein(
    reference: Floats, current: Floats, scale: float, steps: QuantileSteps
) -> float:
    """First Wasserstein distance, in units of `scale`; 0 means identical.

    reference, current: sorted, shapes (n,) and (m,); steps: those of n and m.
    The area between two distribution functions is the area between their quantile functions, and
    the steps of these depend on the sample sizes alone: columns and windows share them.

    >>> a, b = np.array([0.0, 1.0]), np.array([1.0, 2.0])
    >>> measure_wasserstein(a, b, 0.5, QuantileSteps.of(2, 2))
    2.0
    """
    gap = reference.take(steps.reference)
    gap -= current.take(steps.current)
    np.abs(gap, out=gap)
    gap *= steps.width
    # Not a dot product: that one sums in an order which depends on threads and alignment.
    return float(gap.sum()) / scale


def standard_deviation(reference: Floats) -> float:
    """The unit of a Wasserstein distance: the reference's standard deviation, at least 0.001."""
    return max(float(np.std(reference)), SMALLEST_SCALE)


def binned_shares(reference: Floats, current: Floats, distinct: int) -> tuple[Floats, Floats]:
    """Shares of two sorted samples in common bins, shape (bins,) each.

    distinct: number of different values of the reference. Bins are Sturges' over both samples
    together, or single values where the reference has few.
    """
    if distinct <= MOST_CATEGORIES:
        keys = np.union1d(reference, current)
        low = [np.searchsorted(sample, keys, side="left") for sample in (reference, current)]
        high = [np.searchsorted(sample, keys, side="right") for sample in (reference, current)]
        counts = [after - before for before, after in zip(low, high, strict=True)]
    else:
        edges = np.histogram_bin_edges(np.concatenate((reference, current)), bins="sturges")
        counts = [np.diff(_cumulative(sample, edges)) for sample in (reference, current)]
    return counts[0] / len(reference), counts[1] / len(current)


def counted_shares(reference: Integers, current: Integers) -> tuple[Floats, Floats]:
    """Shares of two samples in the categories that either of them has.

    reference, current: counts by category, shape (categories,) both.
    """
    present = (reference > 0) | (current > 0)
    return reference[present] / reference.sum(), current[present] / current.sum()


def measure_psi(reference: Floats, current: Floats) -> float:
    """Population stability index of two arrays of shares, in nats; 0 means identical.

    An empty bin counts as a share of 0.0001, or as a millionth of the smallest share where that
    one is no larger.

    >>> measure_psi(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    0.0
    """
    filled, other = _without_zeros(reference), _without_zeros(current)
    return float(np.sum((filled - other) * np.log(filled / other)))


def measure_jensenshannon(reference: Floats, current: Floats) -> float:
    """Jensen-Shannon distance of two arrays of shares: 0 means identical, 0.83 disjoint.

    The root of the divergence in nats.

    >>> round(measure_jensenshannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])), 3)
    0.833
    """
    reference, current = reference / reference.sum(), current / current.sum()
    middle = (reference + current) / 2
    divergence = (_relative_entropy(reference, middle) + _relative_entropy(current, middle)) / 2
    # Rounding can leave a divergence of equal samples just below 0, whose root would be NaN.
    return float(np.sqrt(max(divergence, 0.0)))


def measure_ks(reference: Floats, current: Floats) -> float:
    """p-value of the two-sample Kolmogorov-Smirnov test; small means different."""
    from scipy.stats import ks_2samp  # type: ignore[import-untyped]

    return float(ks_2samp(reference, current).pvalue)


def _cumulative(ordered: Floats, edges: Floats) -> Integers:
    below = np.searchsorted(ordered, edges, side="left")
    below[-1] = np.searchsorted(ordered, edges[-1], side="right")
    return below


def _without_zeros(shares: Floats) -> Floats:
    smallest = shares[shares > 0].min()
    stand_in = smallest / 10**6 if smallest <= EMPTY_SHARE else EMPTY_SHARE
    return np.where(shares == 0, stand_in, shares)


def _relative_entropy(shares: Floats, middle: Floats) -> float:
    some = shares > 0
    return float(np.sum(shares[some] * np.log(shares[some] / middle[some])))
