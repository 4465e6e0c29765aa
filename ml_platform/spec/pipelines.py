"""What a use case declares of pipelines that other software starts at a URL."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ml_platform.spec.declared import Declared, Length, Name, Names, Text

Kind = Literal["train", "score", "backfill"]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]

ALLOWED: dict[Kind, frozenset[str]] = {
    "train": frozenset({"window", "sample", "sample_rows"}),
    "score": frozenset({"partitions", "locations"}),
    "backfill": frozenset({"partitions", "locations"}),
}
"""Parameters that say something of each kind of run, besides its cutoff or its range."""


class WindowBounds(Declared):
    """The length of the training set that a caller may ask for."""

    least: Length | None = None
    most: Length | None = None
    default: Length | None = None
    """By default `model.window`."""
    description: str = ""
    """What it means to callers, in openapi.json; the platform's own words by default."""

    @model_validator(mode="after")
    def _fits_together(self) -> "WindowBounds":
        least = self.least.seconds if self.least else 0
        most = self.most.seconds if self.most else float("inf")
        _require_order(least, most, self.default.seconds if self.default else None)
        return self


class ShareBounds(Declared):
    """The share of the labelled rows that a caller may have a model fitted on."""

    least: Share | None = None
    most: Share = 1.0
    default: Share | None = None
    description: str = ""
    """What it means to callers, in openapi.json; the platform's own words by default."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ShareBounds":
        _require_order(self.least or 0, self.most, self.default)
        return self


class CountBounds(Declared):
    """A number that a caller may choose, between two others."""

    least: Count = 1
    most: Count | None = None
    default: Count | None = None
    description: str = ""
    """What it means to callers, in openapi.json; the platform's own words by default."""

    @model_validator(mode="after")
    def _fits_together(self) -> "CountBounds":
        _require_order(self.least, self.most or float("inf"), self.default)
        return self


class Parameters(Declared):
    """What a caller may choose of a pipeline. What is not declared here cannot be given.

    A cutoff, or a range, can be given always.
    """

    window: WindowBounds | None = None
    """Length of the training set."""
    sample: ShareBounds | None = None
    """Share of the rows before the holdout that are fitted on."""
    sample_rows: CountBounds | None = None
    """Number of rows before the holdout that are fitted on, at most."""
    partitions: CountBounds | None = None
    """How many partitions a range may have."""
    locations: dict[Name, Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    """By source, folders or URLs in which, or below which, its files may be looked for."""

    @property
    def given(self) -> tuple[str, ...]:
        """Names of those that are declared."""
        return tuple(name for name in Parameters.model_fields if getattr(self, name))


class Pipeline(Declared):
    """What other software starts under a name, with the parameters that it may give."""

    run: Kind
    """A training, the predictions of a range, or all that is computed of a range."""
    description: str = ""
    ingest: bool = False
    """Whether what has landed for the range is ingested first."""
    parameters: Parameters = Parameters()
    callbacks: Names = ()
    """Receivers, named in the setting `callbacks`, that are notified when a run has ended."""


BUILT_IN: dict[str, Pipeline] = {
    "train": Pipeline(run="train", description="Train a challenger for the gate to decide about."),
    "score": Pipeline(run="score", description="Predict a range."),
    "backfill": Pipeline(run="backfill", description="Compute what is due of a range."),
}
"""Pipelines that every use case has, unless it declares others under these names."""


def _require_order(least: float, most: float, default: float | None) -> None:
    if least > most:
        raise ValueError("`least` is more than `most`")
    if default is not None and not least <= default <= most:
        raise ValueError("`default` is not between `least` and `most`")
