"""What a use case declares to be watched once its model serves."""

from typing import Annotated, Literal

from pydantic import Field

from ml_platform.spec.declared import Declared, Length, Names
from ml_platform.spec.duration import Duration


class Drift(Declared):
    """When a column counts as drifted, and when a window does."""

    method: Literal["wasserstein", "psi", "jensenshannon", "ks"] = "wasserstein"
    """For numeric columns; categorical ones use psi where that is chosen, else Jensen-Shannon."""
    threshold: Annotated[float, Field(gt=0)] = 0.3
    thresholds: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Thresholds of single columns, whatever their type."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of drifted columns from which on the check of the window fails."""
    min_rows: Annotated[int, Field(ge=1)] = 200
    """With fewer values than this in the window, nulls left aside, values are not judged."""
    categorical_threshold: Annotated[float, Field(gt=0)] = 0.1
    null_threshold: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Difference between two shares of nulls, the window's and the reference's, that is drift."""
    null_thresholds: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    """The same for single columns."""


class Bounds(Declared):
    """Between what a metric has to be; one of both may be left out."""

    min: float | None = None
    max: float | None = None

    def hold(self, value: float) -> bool:
        """Whether a value keeps them."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def __str__(self) -> str:
        named = [("at least", self.min), ("at most", self.max)]
        return " and ".join(f"{word} {bound}" for word, bound in named if bound is not None)


class Performance(Declared):
    """Bounds of metrics on labelled predictions; `min` and `max` bound the model's metric."""

    min: float | None = None
    max: float | None = None
    bounds: dict[str, Bounds] = Field(default_factory=dict)
    """Bounds of other metrics, by name."""
    min_rows: Annotated[int, Field(ge=1)] = 30
    """Below this many labelled rows in a window nothing is measured."""

    def bounds_by(self, metric: str) -> dict[str, Bounds]:
        """Bounds by name of every metric that has some; metric: that of the model."""
        own = Bounds(min=self.min, max=self.max)
        return {**({metric: own} if str(own) else {}), **self.bounds}


class Segments(Declared):
    """Groups of rows that are watched by themselves: those with one value of a column."""

    columns: Names = ()
    """Request columns; each of their values is a segment."""
    min_rows: Annotated[int, Field(ge=2)] = 200
    """Smaller segments, of the window or of the reference, are not judged: they are noise."""
    performance: Bounds = Bounds()
    """Bounds of the model's metric in each segment."""


class Quarantine(Declared):
    """How much of what lands may break its contract."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of a partition's landed rows above which its quarantine is an alert."""
    min_rows: Annotated[int, Field(ge=1)] = 2
    """Fewer broken rows than this are no alert, whatever their share."""

    def is_too_much(self, broken: int, landed: int) -> bool:
        """Whether people are notified of so many of a partition's landed rows."""
        return broken >= self.min_rows and broken / landed > self.share


class Monitoring(Declared):
    """What is watched once predictions are made."""

    window: Length = Duration(28, "d")
    drift: Drift = Drift()
    performance: Performance = Performance()
    segments: Segments = Segments()
    quarantine: Quarantine = Quarantine()
    freshness: Duration | None = None
    """How long after its window's end a partition may lack; by default what the cadence allows."""
    explanations: Annotated[int, Field(ge=0, le=1000)] = 0
    """Rows of each partition whose prediction is explained and stored with the predictions."""
    reference_rows: Annotated[int, Field(ge=100)] = 10_000
    """Rows of the training set that a model version keeps to compare with."""
