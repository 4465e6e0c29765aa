"""A use case as its folder declares it."""

import hashlib
import json
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from ml_platform.spec.duration import Duration
from ml_platform.spec.queries import quote
from ml_platform.spec.values import (
    end_of_time,
    longer_than_nothing,
    n_of_m,
    named_once,
    owner,
    start_of_time,
    time_zone,
)
from ml_platform.spec.windows import Cadence, Calendar

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=48)]
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Text, ...], AfterValidator(named_once)]
Entity = Annotated[Names, Field(min_length=1)]
Length = Annotated[Duration, AfterValidator(longer_than_nothing)]
Task = Literal["binary", "multiclass", "regression"]
Metric = Literal[
    "roc_auc", "average_precision", "log_loss", "brier", "calibration_error",
    "mae", "rmse", "r2", "bias", "accuracy", "macro_f1",
]  # fmt: skip
METRICS: dict[Task, tuple[Metric, ...]] = {
    "binary": ("roc_auc", "average_precision", "log_loss", "brier", "calibration_error"),
    "multiclass": ("log_loss", "accuracy", "macro_f1"),
    "regression": ("mae", "rmse", "r2", "bias"),
}
LARGER_IS_BETTER = frozenset({"roc_auc", "average_precision", "r2", "accuracy", "macro_f1"})

RESERVED_TABLES = frozenset(
    {
        "landings", "quarantine", "labels", "model", "promotions",
        "predictions", "drift_report", "performance_report",
    }
)  # fmt: skip


# No key in YAML can be called this, so these fields are the loader's alone.
FILLED_IN = "<filled in by the loader>"


class Declared(BaseModel):
    """Base of what YAML declares: unknown keys are mistakes, values never change."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False
    )


class Partitions(Declared):
    """The windows of event time that every table of the use case is cut into."""

    cadence: Cadence
    start: Annotated[date | datetime, BeforeValidator(start_of_time)]
    """First moment of event time; rows before it are quarantined."""
    end: Annotated[date | datetime | None, BeforeValidator(end_of_time)] = None
    """Moment before which the last window ends, for histories that are over; by default open."""
    timezone: Annotated[str, AfterValidator(time_zone)] = "UTC"

    @cached_property
    def calendar(self) -> Calendar:
        return Calendar.of(self.cadence, self.start, self.timezone)

    @property
    def closes_at(self) -> datetime | None:
        """Start of the first window that is not part of the history any more."""
        if self.end is None:
            return None
        return Calendar.of(self.cadence, self.end, self.timezone).start


class Source(Declared):
    """A table of raw records that land as files; the contract that each row has to keep."""

    files: Text
    """Glob below the landing folder of the use case, an absolute one, or a URL."""
    event_time: str
    """Column that says when it happened; without an offset, a time of the use case's zone."""
    known_at: Text | None = None
    """SQL over the row: from when on the row could be known. By default its event time."""
    key: Entity
    """Columns that name a row; a later row of the same key corrects the earlier one."""
    columns: Annotated[dict[Text, str], Field(min_length=1)]
    """Column names and DuckDB types. All of them must be in every file."""
    required: Names = ()
    """Columns besides key and event time that must not be null."""
    rules: tuple[str, ...] = ()
    """SQL predicates over the row. A row for which one is false is quarantined."""
    null_values: tuple[str, ...] = ("", "NA")
    """Texts in CSV files that mean null."""
    late: Literal["merge", "replace"] = "merge"
    """What a later file for a window does: correct single rows by key, or replace the window."""
    format: Literal["csv", "parquet", "jsonl"] | None = None
    description: str = ""

    @property
    def file_format(self) -> str:
        """How files are read; by the glob's ending where it is not given."""
        if self.format:
            return self.format
        name = self.files.lower().removesuffix(".gz")
        if name.endswith((".parquet", ".pq")):
            return "parquet"
        return "jsonl" if name.endswith((".jsonl", ".ndjson", ".json")) else "csv"

    @property
    def known_at_sql(self) -> str:
        return self.known_at or quote(self.event_time)


class FeatureView(Declared):
    """A SQL query that yields features per entity and event time."""

    entity: Entity
    lookback: Duration
    """How far before a window's start the query looks at source rows."""
    ttl: Duration
    """How old a feature row may be when it is joined to an example."""
    sql: str | None = None
    """File of the query; by default features/<name>.sql."""
    description: str = ""
    query: str = Field(default="", exclude=True, validation_alias=FILLED_IN)
    """Text of the query. Filled in by the loader, as is what follows."""
    features: dict[str, str] = Field(default={}, exclude=True, validation_alias=FILLED_IN)
    """Feature names and DuckDB types that the query yields."""
    reads: tuple[str, ...] = Field(default=(), exclude=True, validation_alias=FILLED_IN)
    """Sources that the query reads."""


class Examples(Declared):
    """The rows to predict: those of one source, with the columns known at request time."""

    source: str
    entity: Entity
    columns: tuple[Text, ...] = ()
    """SQL select items over the source row: `carrier`, `hour(scheduled_at) AS hour`."""
    request: dict[str, str] = Field(default={}, exclude=True, validation_alias=FILLED_IN)
    """Names and types of those columns. Filled in by the loader."""


class Label(Declared):
    """What is predicted."""

    sql: str = "labels.sql"
    task: Task
    horizon: Duration = Duration(0, "d")
    """How long after a window's end its last label is known; so far the query looks ahead."""
    query: str = Field(default="", exclude=True, validation_alias=FILLED_IN)
    reads: tuple[str, ...] = Field(default=(), exclude=True, validation_alias=FILLED_IN)


class Model(Declared):
    """How a model version is made and judged."""

    build: Annotated[str, Field(pattern=r"^\w+:\w+$")] = "model:build"
    """`file:function`; the function returns an unfitted scikit-learn compatible estimator."""
    features: Names | None = None
    """Feature views that the model is given; by default all of them."""
    window: Length = Duration(60, "d")
    """Length of the training set, back from the cutoff."""
    holdout: Length = Duration(7, "d")
    """Last stretch before the cutoff: not trained on, it judges champion and challenger."""
    schedule: str | None = None
    """Cron expression of the cutoffs that are trained on regularly."""
    metric: Metric
    """What the promotion gate compares."""
    min_improvement: float = 0.0
    """How much better than the champion a challenger has to be."""
    min_rows: Annotated[int, Field(ge=2)] = 50
    """Fewest labelled rows that may be fitted or judged on."""


class Drift(Declared):
    """When a column counts as drifted, and when a window does."""

    method: Literal["wasserstein", "psi", "jensenshannon", "ks"] = "wasserstein"
    """For numeric columns; categorical ones use psi where that is chosen, else Jensen-Shannon."""
    threshold: Annotated[float, Field(gt=0)] = 0.3
    share: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of drifted columns from which on the check of the window fails."""
    min_rows: Annotated[int, Field(ge=1)] = 200
    """Below this many rows in the window no column is judged."""
    categorical_threshold: Annotated[float, Field(gt=0)] = 0.1


class Performance(Declared):
    """Bounds of the model's metric on labelled predictions."""

    min: float | None = None
    max: float | None = None
    min_rows: Annotated[int, Field(ge=1)] = 30
    """Below this many labelled rows in a window nothing is measured."""


class Monitoring(Declared):
    """What is watched once predictions are made."""

    window: Length = Duration(28, "d")
    drift: Drift = Drift()
    performance: Performance = Performance()
    reference_rows: Annotated[int, Field(ge=100)] = 10_000
    """Rows of the training set that a model version keeps to compare with."""


class Retrain(Declared):
    """When a challenger is trained without anybody asking."""

    on: tuple[Literal["drift", "performance", "schedule"], ...] = ("schedule",)
    sustained: Annotated[str, AfterValidator(n_of_m)] = "3 of 5"
    """In how many of the latest windows drift or poor performance has to show."""
    cooldown: Duration = Duration(14, "d")
    approval: Literal["none"] = "none"

    @field_validator("on", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @property
    def n_of_m(self) -> tuple[int, int]:
        n, m = self.sustained.split(" of ")
        return int(n), int(m)


class UseCase(Declared):
    """One prediction problem."""

    name: Name
    folder: Path = Field(exclude=True, validation_alias=FILLED_IN)
    description: Text
    owners: tuple[Annotated[str, AfterValidator(owner)], ...] = ()
    """Who answers for it: e-mail addresses, or teams as `team:operations`."""
    partitions: Partitions
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    features: dict[Name, FeatureView] = Field(default_factory=dict)
    examples: Examples
    label: Label
    model: Model
    monitoring: Monitoring = Monitoring()
    retrain: Retrain = Retrain()

    @property
    def calendar(self) -> Calendar:
        return self.partitions.calendar

    @property
    def timezone(self) -> str:
        return self.partitions.timezone

    @property
    def prediction_columns(self) -> dict[str, str]:
        """Columns of a prediction besides its stamps, with DuckDB types."""
        match self.label.task:
            case "binary":
                return {"probability": "DOUBLE"}
            case "multiclass":
                return {"predicted": "VARCHAR", "probabilities": "MAP(VARCHAR, DOUBLE)"}
            case "regression":
                return {"predicted": "DOUBLE"}

    @property
    def model_views(self) -> dict[str, FeatureView]:
        """The feature views that the model is given, in the order in which they are declared."""
        chosen = self.model.features
        return {n: v for n, v in self.features.items() if chosen is None or n in chosen}

    @property
    def model_columns(self) -> dict[str, str]:
        """What an estimator is given, with DuckDB types: request columns, then features."""
        features = {
            f"{view}__{feature}": kind
            for view, declared in self.model_views.items()
            for feature, kind in declared.features.items()
        }
        return {**self.examples.request, **features}

    @cached_property
    def code_version(self) -> str:
        """Digest of everything the folder declares: spec, queries and model source."""
        return digest(self.document, self._queries, (self.folder / self.model_file).read_text())

    @property
    def model_file(self) -> str:
        return self.model.build.split(":")[0] + ".py"

    @property
    def document(self) -> dict[str, Any]:
        """The spec with its defaults, as plain data."""
        return self.model_dump(mode="json")

    @property
    def _queries(self) -> dict[str, str]:
        queries = {name: view.query for name, view in self.features.items()}
        return {**queries, "labels": self.label.query}


def digest(*parts: Any) -> str:
    """Twelve hexadecimal digits that change when any of the parts does."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def feature_table(view: str) -> str:
    """Name of a feature view's table; a source may have the same name as the view."""
    return f"{view}_features"
