"""What is checked for leaks: a feature view, or the labels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from ml_platform.features.views import (
    Sight,
    feature_view_table,
    labels_table,
    own_labels_sql,
    view_sql,
)
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Table

LABELS = "labels"


# A view may be called `labels`, too: what tells them apart is the class.
@dataclass(frozen=True)
class Subject(ABC):
    """A query of a use case whose rows may depend only on what was known."""

    use_case: UseCase
    name: str
    """Of the view, or `labels`."""

    @property
    @abstractmethod
    def table(self) -> Table:
        """Where its rows are kept."""

    @property
    @abstractmethod
    def file(self) -> Path:
        """Of its query."""

    @property
    @abstractmethod
    def query(self) -> str:
        """Text of the file."""

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Sources that it reads."""

    @property
    @abstractmethod
    def reach(self) -> Duration:
        """The lookback of a view, the horizon of labels."""

    @property
    def is_of_labels(self) -> bool:
        return False

    @property
    @abstractmethod
    def known_by(self) -> str:
        """Column that says from when on a row may depend on nothing more."""

    @abstractmethod
    def sees(self, sight: Sight) -> Window:
        """The range of event time of the source rows that a sight shows."""

    @abstractmethod
    def sql(
        self,
        lake: Lake,
        cursor: duckdb.DuckDBPyConnection,
        sight: Sight,
        relations: Mapping[str, str],
    ) -> str:
        """The SELECT that yields the rows of a sight from copies of its sources."""

    @property
    def entity(self) -> tuple[str, ...]:
        return tuple(name for name in self.table.order if name != "event_time")

    @property
    def values(self) -> dict[str, str]:
        """Columns that are compared, and their types."""
        keys = set(self.table.order)
        return {name: kind for name, kind in self.table.columns.items() if name not in keys}


@dataclass(frozen=True)
class ViewSubject(Subject):
    """A feature view: a row at t depends on what was known at t."""

    @property
    def table(self) -> Table:
        return feature_view_table(self.use_case, self.name)

    @property
    def file(self) -> Path:
        return self.use_case.folder / (
            self.use_case.features[self.name].sql or f"features/{self.name}.sql"
        )

    @property
    def query(self) -> str:
        return self.use_case.features[self.name].query

    @property
    def reads(self) -> tuple[str, ...]:
        return self.use_case.features[self.name].reads

    @property
    def reach(self) -> Duration:
        return self.use_case.features[self.name].lookback

    @property
    def known_by(self) -> str:
        return "event_time"

    def sees(self, sight: Sight) -> Window:
        start = sight.start(self.reach, self.use_case.calendar.timezone)
        return Window(start, sight.stretch.end)

    def sql(
        self,
        lake: Lake,
        cursor: duckdb.DuckDBPyConnection,
        sight: Sight,
        relations: Mapping[str, str],
    ) -> str:
        return view_sql(lake, cursor, self.use_case, self.name, sight, relations)


@dataclass(frozen=True)
class LabelsSubject(Subject):
    """The labels that `labels.sql` yields: each depends on what was known at its own `known_at`."""

    @property
    def is_of_labels(self) -> bool:
        return True

    @property
    def table(self) -> Table:
        return labels_table(self.use_case)

    @property
    def file(self) -> Path:
        return self.use_case.folder / self.use_case.label.sql

    @property
    def query(self) -> str:
        return self.use_case.label.query

    @property
    def reads(self) -> tuple[str, ...]:
        return self.use_case.label.reads

    @property
    def reach(self) -> Duration:
        return self.use_case.label.horizon

    @property
    def known_by(self) -> str:
        return "known_at"

    def sees(self, sight: Sight) -> Window:
        end = sight.end(self.reach, self.use_case.calendar.timezone)
        return Window(sight.stretch.start, end)

    def sql(
        self,
        lake: Lake,
        cursor: duckdb.DuckDBPyConnection,
        sight: Sight,
        relations: Mapping[str, str],
    ) -> str:
        return own_labels_sql(lake, cursor, self.use_case, sight, relations)


def subject_of(use_case: UseCase, view: str | None) -> Subject:
    """A feature view by its name, or the labels where there is none."""
    return LabelsSubject(use_case, LABELS) if view is None else ViewSubject(use_case, view)
