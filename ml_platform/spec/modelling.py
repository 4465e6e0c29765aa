"""What a use case declares of its models: how they are made, promoted and replaced."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from ml_platform.spec.declared import Declared, Length, Metric, Names
from ml_platform.spec.duration import Duration
from ml_platform.spec.values import n_of_m

Function = Annotated[str, Field(pattern=r"^\w+:\w+$")]
"""`file:function`, a file of the use case's folder without its ending."""


class Model(Declared):
    """How a model version is made and judged."""

    build: Function = "model:build"
    """The function returns an unfitted scikit-learn compatible estimator."""
    fit: Function | None = None
    """The function, of the same file, fits the estimator; by default its own `fit` does."""
    features: Names | None = None
    """Feature views that the model is given; by default all of them."""
    window: Length = Duration(60, "d")
    """Length of the training set, back from the cutoff."""
    holdout: Length = Duration(7, "d")
    """Last part before the cutoff: not trained on, it judges champion and challenger."""
    validation: Length | None = None
    """Last part before the holdout, which `fit` is given apart; by default as long as `holdout`."""
    schedule: str | None = None
    """Cron expression of the cutoffs that are trained on regularly."""
    metric: Metric
    """What the promotion gate compares."""
    min_rows: Annotated[int, Field(ge=2)] = 50
    """Fewest labelled rows that may be fitted or judged on."""

    @property
    def validated_by(self) -> Duration:
        """Length of what `fit` validates on; it ends where the holdout begins."""
        return self.validation or self.holdout


class Gate(Declared):
    """What a challenger has to show before it replaces the champion."""

    min_improvement: float = 0.0
    """How much better `model.metric` has to be, in its unit; negative lets an equal one pass."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """How sure, one-sided, it has to be that the improvement is more than that."""
    guards: dict[Metric, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Other metrics, and how much worse each may be at most, in its unit."""
    segments: Names = ()
    """Model columns; each group of rows with one value of a column is compared by itself."""
    segment_tolerance: Annotated[float, Field(ge=0)] | None = None
    """How much worse `model.metric` may be in a segment, in its unit; needed with `segments`."""
    segment_min_rows: Annotated[int, Field(ge=2)] = 500
    """Smaller segments are not compared: their figures are noise."""


class Retrain(Declared):
    """When a challenger is trained without anybody asking."""

    on: tuple[Literal["drift", "performance", "schedule"], ...] = ("schedule",)
    sustained: Annotated[str, AfterValidator(n_of_m)] = "3 of 5"
    """In how many of the latest windows drift or poor performance has to show."""
    cooldown: Duration = Duration(14, "d")
    """How long after a cutoff none follows because of drift or poor performance."""
    columns: Names | None = None
    """Columns, predictions among them, whose drift counts; by default all that are watched."""
    metrics: Names | None = None
    """Metrics whose bounds count; by default all that have some."""
    window: Length | None = None
    """Length of the training set of such a challenger; by default `model.window`."""
    approval: Literal["none", "required"] = "none"
    """Whether a challenger that passes the gate waits for a person."""

    @field_validator("on", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @property
    def n_of_m(self) -> tuple[int, int]:
        n, m = self.sustained.split(" of ")
        return int(n), int(m)
