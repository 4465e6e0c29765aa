"""What is checked for leaks: a feature view, or the labels."""

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


@dataclass(frozen=True)
class CheckedQuery:
    """A query of a use case whose rows may depend only on what was known.

    A row of a feature view at t depends on what was known at t; a label on what was known at its
    own `known_at`.
    """

    use_case: UseCase
    name: str
    """Of the view, or `labels`."""
    is_of_labels: bool
    """A view may be called `labels`, too."""
    table: Table
    """Where its rows are kept."""
    file: Path
    """Of its query."""
    query: str
    """Text of the file."""
    reads: tuple[str, ...]
    """Sources that it reads."""
    reach: Duration
    """The lookback of a view, the horizon of labels."""

    @property
    def known_by(self) -> str:
        """Column that says from when on a row may depend on nothing more."""
        return "known_at" if self.is_of_labels else "event_time"

    @property
    def entity(self) -> tuple[str, ...]:
        """Columns that name what a row is about."""
        return tuple(name for name in self.table.order if name != "event_time")

    @property
    def values(self) -> dict[str, str]:
        """Columns that are compared, and their types."""
        keys = set(self.table.order)
        return {name: kind for name, kind in self.table.columns.items() if name not in keys}

    def sees(self, sight: Sight) -> Window:
        """The range of event time of the source rows that a sight shows."""
        zone = self.use_case.calendar.timezone
        if self.is_of_labels:
            return Window(sight.range.start, sight.end(self.reach, zone))
        return Window(sight.start(self.reach, zone), sight.range.end)

    def sql(
        self,
        lake: Lake,
        cursor: duckdb.DuckDBPyConnection,
        sight: Sight,
        relations: Mapping[str, str],
    ) -> str:
        """The SELECT that yields the rows of a sight from copies of its sources."""
        if self.is_of_labels:
            return own_labels_sql(lake, cursor, self.use_case, sight, relations)
        return view_sql(lake, cursor, self.use_case, self.name, sight, relations)


def subject_of(use_case: UseCase, view: str | None) -> CheckedQuery:
    """A feature view by its name, or the labels where there is none."""
    if view is None:
        label = use_case.label
        return CheckedQuery(
            use_case, LABELS, True, labels_table(use_case), use_case.folder / label.sql,
            label.query, label.reads, label.horizon,
        )  # fmt: skip
    declared = use_case.features[view]
    return CheckedQuery(
        use_case, view, False, feature_view_table(use_case, view), use_case.view_file(view),
        declared.query, declared.reads, declared.lookback,
    )  # fmt: skip
