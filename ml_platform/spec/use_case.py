"""A use case as its folder declares it."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ml_platform.spec.declared import FILLED_IN, Declared, Name, Text
from ml_platform.spec.expiry import Expiry
from ml_platform.spec.inputs import Examples, FeatureView, Label, Partitions, Source
from ml_platform.spec.modelling import Gate, Model, Retrain
from ml_platform.spec.pipelines import BUILT_IN, Pipeline
from ml_platform.spec.publication import Publication
from ml_platform.spec.retention import Retention
from ml_platform.spec.schedules import Schedules
from ml_platform.spec.scoring import Scorer
from ml_platform.spec.serving import Serving
from ml_platform.spec.values import owner
from ml_platform.spec.watching import Monitoring
from ml_platform.spec.windows import Calendar

Engine = Literal["in_process", "spark"]
SPEC_FILE = "use_case.yaml"
PLATFORM = "platform"
"""Schema of the tables that belong to no use case: keys, the audit."""
ONLINE_FEATURES = "online_features"
KNOWN_FROM, KNOWN_UNTIL = "_known_from", "_known_until"
"""Columns of versions: from when to when one was the truth; without an end, it still is."""
REQUESTS, REFUSALS, FEEDBACK = "requests", "refusals", "feedback"
LOGGED_SOURCES = (REQUESTS, REFUSALS, FEEDBACK)
"""Sources that the service writes."""
LIVE_REPORTS = ("live_drift_report", "live_performance_report")
SEGMENT_REPORTS = ("segment_report", "live_segment_report")
"""Written with the drift reports, of which they are parts."""
EXPLANATIONS = "explanations"
"""Written with the predictions, of some of which it says what each column contributed."""
RESERVED_TABLES = frozenset(
    {
        "landings", "ingestions", "quarantine", "labels", "model", "promotions",
        "predictions", "drift_report", "performance_report", "computations", "emptied_windows",
        "leak_checks", "alerts", "alert_deliveries", ONLINE_FEATURES, EXPLANATIONS,
        *LOGGED_SOURCES, *LIVE_REPORTS, *SEGMENT_REPORTS,
    }
)  # fmt: skip


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
    values: Literal["as_known", "as_revised"] = "as_known"
    """Whether examples are given what was known at their time, or what is known of it by now."""
    label: Label
    model: Model
    gate: Gate = Gate()
    monitoring: Monitoring = Monitoring()
    retrain: Retrain = Retrain()
    schedules: Schedules = Schedules()
    serving: Serving = Serving()
    scorer: Scorer | None = None
    """The endpoint that predicts batches; by default they are predicted in process."""
    engine: Engine = "in_process"
    """Where features and predictions of a range are computed."""
    publish: dict[Name, Publication] = Field(default_factory=dict)
    """Tables of others that predictions are published to, by a name of their own."""
    retention: dict[Name, Retention] = Field(default_factory=dict)
    """How long rows of tables are kept, and the snapshots that they name; by default for good."""
    pipelines: dict[Name, Pipeline] = Field(default_factory=dict)
    """What other software may start, with parameters, by the name that it has in the URL."""

    @property
    def calendar(self) -> Calendar:
        return self.partitions.calendar

    @property
    def timezone(self) -> str:
        return self.partitions.timezone

    @property
    def published_pipelines(self) -> dict[str, Pipeline]:
        """All that other software may start, by name: what every use case has, and its own."""
        return {**BUILT_IN, **self.pipelines}

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
    def takes_feedback(self) -> bool:
        """Whether labels come back to the service."""
        return self.label.feedback is not None or self.serving.log is not None

    @property
    def scored_by_any_version(self) -> bool:
        """Whether predictions are by whichever version answers, not by the champion."""
        return self.scorer is not None and self.scorer.versions == "answered"

    @property
    def model_views(self) -> dict[str, FeatureView]:
        """The feature views that the model is given, in the order in which they are declared."""
        chosen = self.model.features
        return {n: v for n, v in self.features.items() if chosen is None or n in chosen}

    @property
    def is_as_known(self) -> bool:
        """Whether examples are given what was known then, not what is known of it by now."""
        return self.values == "as_known"

    def expiry(self, view: str) -> Expiry:
        """Until when rows of a feature view may be joined."""
        return Expiry(self.features[view].ttl, self.calendar.timezone)

    @property
    def model_columns(self) -> dict[str, str]:
        """What an estimator is given, with DuckDB types: request columns, then features."""
        features = {
            f"{view}__{feature}": kind
            for view, declared in self.model_views.items()
            for feature, kind in declared.features.items()
        }
        return {**self.examples.request, **features}

    @property
    def watched_columns(self) -> tuple[str, ...]:
        """What is watched for drift: request columns, features, the prediction, the label.

        The probabilities of a multiclass prediction are no column of their own: the predicted
        class is compared.
        """
        predicted = [n for n, kind in self.prediction_columns.items() if not kind.startswith("MAP")]
        return (*self.model_columns, *predicted, "label")

    @cached_property
    def code_version(self) -> str:
        """Digest of what the folder declares of data and model: spec, queries and model source."""
        # Where batches are predicted, by which engine, what others may start, and how long results
        # are kept, changes neither.
        apart = {"scorer", "engine", "pipelines", "retention"}
        declared = {key: value for key, value in self.document.items() if key not in apart}
        return digest(declared, self._queries, (self.folder / self.model_file).read_text())

    @property
    def model_file(self) -> str:
        return self.model.build.split(":")[0] + ".py"

    def view_file(self, view: str) -> Path:
        """Where the query of a feature view is written."""
        return self.folder / (self.features[view].sql or f"features/{view}.sql")

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


def published_table(publication: str) -> str:
    """Name of the table that notes which partitions of predictions were published."""
    return f"published_{publication}"


def version_table(table: str) -> str:
    """Name of the table that holds what rows of another one were before they were corrected."""
    return f"{table}_versions"
