"""What training hands to the registry, and what the registry hands back."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class SeenColumn:
    """What the fitted rows had in one column; serving refuses what a model has never met."""

    missing: bool
    """Whether a value was ever missing."""
    categories: frozenset[str] | None = None
    """Texts that occurred; None for numbers, and where there were too many to keep."""


class FewRows(Protocol):
    """Predicts few rows as an estimator does, to the bit, and faster."""

    @property
    def most_rows(self) -> int:
        """For more rows the estimator is asked; 0 where it is always."""

    @property
    def problem(self) -> str:
        """Why it is always asked."""

    def __call__(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """What `predict_proba`, or `predict` of a regression, yields for values by column.

        Any error means that the rows are left to the estimator.
        """


@dataclass(frozen=True)
class TrainedModel:
    """A fitted estimator with everything that is recorded about it.

    It was fitted on event times `[trained_from, trained_until)` and judged on
    `[trained_until, cutoff)`, at one snapshot of the lake.
    """

    estimator: Any
    columns: Mapping[str, str]
    """Columns that it is offered, in order, with DuckDB types."""
    classes: tuple[str, ...]
    """Names of the columns of `predict_proba`; empty for a regression."""
    cutoff: datetime
    snapshot: int
    trained_from: datetime
    trained_until: datetime
    fingerprint: str
    """Digest of everything that decides the model: code, data, cutoff, threads, libraries."""
    metrics: Mapping[str, float]
    reference: pd.DataFrame
    """Sample of the fitted rows by time: model columns, `label`, prediction columns."""
    seen: Mapping[str, SeenColumn] = field(default_factory=dict)
    """By column."""
    importances: Mapping[str, float] = field(default_factory=dict)
    """How much the loss of the holdout rises when a column is shuffled."""
    plots: Mapping[str, bytes] = field(default_factory=dict)
    """PNG images by name."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    """Columns without a value in the fitted rows: the estimator is not given them."""
    too_good: str = ""
    """Why its holdout metric is too good to be true, in a sentence; empty where it is not."""

    @property
    def card(self) -> str:
        """What MLflow shows as the description of the version."""
        said = (
            f"Fitted on event times from {self.trained_from.isoformat()} to "
            f"{self.trained_until.isoformat()}, judged on those up to {self.cutoff.isoformat()}."
        )
        if self.left_out:
            left_out = ", ".join(sorted(self.left_out))
            said += f" Trained without {left_out}: no fitted row has a value."
        if self.too_good:
            said += f" Too good to be true: {self.too_good}."
        return said


@dataclass(frozen=True)
class TrainedVersion:
    """What a registered version was trained on, as far as its tags say."""

    version: int
    cutoff: datetime
    snapshot: int
    trained_from: datetime | None
    """None where it was registered before that was noted."""
    cause: str = ""
    """Why it was trained; empty where a schedule or a person asked for it."""
    reason: str = ""
    """The same in a sentence."""

    @classmethod
    def of(cls, version: int, tags: Mapping[str, str]) -> "TrainedVersion":
        """By what the registry recorded."""
        since = tags.get("trained_from")
        return cls(
            version,
            datetime.fromisoformat(tags["cutoff"]),
            int(tags["snapshot"]),
            datetime.fromisoformat(since) if since else None,
            tags.get("cause", ""),
            tags.get("reason", ""),
        )


@dataclass(frozen=True)
class ModelVersion:
    """One registered version, loaded: its artifacts are those that were registered."""

    use_case: str
    version: int
    run_id: str
    cutoff: datetime
    snapshot: int
    estimator: Any
    digest: str
    """SHA-256 of the pickled estimator."""
    metrics: Mapping[str, float]
    reference: pd.DataFrame
    """Sample of the fitted rows by time: model columns, `label`, prediction columns."""
    classes: tuple[str, ...]
    columns: Mapping[str, str]
    trained_from: datetime
    trained_until: datetime
    seen: Mapping[str, SeenColumn] = field(default_factory=dict)
    """By column."""
    importances: Mapping[str, float] = field(default_factory=dict)
    """How much the loss of the holdout rises when a column is shuffled."""
    left_out: frozenset[str] = frozenset()
    """Columns without a value in the fitted rows: the estimator is not given them."""
    too_good: str = ""
    """Why its holdout metric is too good to be true, in a sentence; empty where it is not."""
    few_rows: FewRows | None = field(default=None, compare=False)
    """What predicts few rows in place of the estimator, where there is something."""

    @property
    def fitted_columns(self) -> dict[str, str]:
        """Columns that the estimator is given, in order, with DuckDB types."""
        return fitted_columns(self.columns, self.left_out)


def fitted_columns(columns: Mapping[str, str], left_out: Collection[str]) -> dict[str, str]:
    """The columns that are not left out, in order.

    >>> fitted_columns({"city": "VARCHAR", "gauge": "DOUBLE"}, {"gauge"})
    {'city': 'VARCHAR'}
    """
    return {name: kind for name, kind in columns.items() if name not in left_out}
