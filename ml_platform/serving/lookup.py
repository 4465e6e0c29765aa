"""Rows by key: what the caller did not send is computed and looked up, as the batch path does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ml_platform.errors import ExampleRefused, RequestRefused
from ml_platform.features import OnlineFeatures, Outcome, RequestReader, needed_columns
from ml_platform.features.online_store import OnlineStore
from ml_platform.registry import ModelVersion
from ml_platform.serving.inputs import SHOWN, Inputs, check_columns
from ml_platform.serving.zones import RowTime, RowTimes, Unzoned, lacks_zone
from ml_platform.spec.lineage import renamed_columns
from ml_platform.spec.queries import is_zoned
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.values import suggest

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RequestRows:
    """Rows to predict as they came, checked for their columns only."""

    rows: Sequence[Row]


@dataclass(frozen=True)
class CompletedRows:
    """What was made of examples."""

    inputs: Inputs
    keys: Mapping[str, Sequence[str | None]]
    """Texts of the entity's columns, and of those that features were looked up by."""
    moments: Sequence[int]
    """Event times, in microseconds since 1970 in UTC."""
    outcomes: Mapping[str, Sequence[Outcome]]
    """What the look-ups of each feature view found."""

    @property
    def not_found(self) -> list[dict[str, Outcome]]:
        """Of each row, the views that hold nothing for it, and why."""
        lacking: list[dict[str, Outcome]] = [{} for _ in self.moments]
        for view, outcomes in self.outcomes.items():
            for row, outcome in enumerate(outcomes):
                if outcome != "found":
                    lacking[row][view] = outcome
        return lacking

    def cut(self, part: slice) -> "CompletedRows":
        """Some of the rows."""
        keys = {name: values[part] for name, values in self.keys.items()}
        outcomes = {view: each[part] for view, each in self.outcomes.items()}
        return CompletedRows(self.inputs.cut(part), keys, self.moments[part], outcomes)


class FeatureLookup:
    """Completes examples of one use case; threads may share one."""

    def __init__(self, use_case: UseCase, store: OnlineStore) -> None:
        self._use_case = use_case
        self._reader = RequestReader(use_case)
        self._features = OnlineFeatures(store, use_case)
        self._columns = needed_columns(use_case)
        self._renamed = renamed_columns(use_case.examples.columns)
        source = use_case.sources[use_case.examples.source]
        self._event_time, self._source_columns = source.event_time, source.columns.keys()
        self._timed = [
            name for name, kind in self._columns.items()
            if name == self._event_time or is_zoned(kind)
        ]  # fmt: skip

    def close(self) -> None:
        self._features.close()
        self._reader.close()

    def check(self, rows: Sequence[Any]) -> RequestRows:
        """Rows that have every column that is needed; without an event time it is now.

        Raises RequestRefused.
        """
        if not rows:
            raise RequestRefused("there are no rows; send at least one")
        now = datetime.now(UTC).isoformat()
        checked = []
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                raise RequestRefused(f"row {number} should be an object with values by column")
            for column in row:
                if column not in self._columns:
                    raise RequestRefused(self._unwanted(column), column[:SHOWN])
            lacking = self._columns.keys() - row.keys() - {self._event_time}
            if lacking:
                column = next(c for c in self._columns if c in lacking)
                raise RequestRefused(
                    f"is missing in row {number}; send null where its value is not known", column
                )
            timed = row.get(self._event_time) is not None
            checked.append(row if timed else {**row, self._event_time: now})
        return RequestRows(checked)

    def unzoned(self, rows: Sequence[Row]) -> list[Unzoned]:
        """Times without a zone; rows: as `check` has taken them."""
        return [
            Unzoned(number, column, row[column])
            for number, row in enumerate(rows)
            for column in self._timed
            if lacks_zone(row.get(column))
        ]

    def read_times(self, unzoned: Sequence[Unzoned]) -> RowTimes:
        """How such times were read, once `complete` has taken the rows."""
        times = self._reader.read_times([each.text for each in unzoned])
        return RowTimes(
            self._use_case.timezone,
            [
                RowTime(each.row, each.column, time)
                for each, time in zip(unzoned, times, strict=True)
            ],
        )

    def _unwanted(self, column: str) -> str:
        """Why a column is refused."""
        if column in self._source_columns:
            return (
                f"is a column of '{self._use_case.examples.source}' that no request has to send, "
                "as nothing is computed from it; leave it out"
            )
        if column in self._use_case.examples.request:
            needed = ", ".join(f"'{name}'" for name in self._columns)
            return f"is computed from what a request sends; leave it out, and send {needed}"
        if column in self._use_case.model_columns:
            view = column.partition("__")[0]
            return f"is looked up by key in the feature view '{view}'; leave it out"
        return f"there is no such column{suggest(column[:SHOWN], self._columns)}"

    def complete(
        self, examples: RequestRows, model: ModelVersion, known_categories: bool
    ) -> CompletedRows:
        """Compute the request columns and look the features up.

        Raises RequestRefused, RuleBroken, OnlineStoreError.
        """
        try:
            requested = self._reader.read(examples.rows)
        except ExampleRefused as error:
            raise RequestRefused(error.problem, error.column) from None
        features = self._features.look_up(requested.keys, requested.moments)
        columns = {**requested.inputs, **features.columns}
        # What was looked up is what training saw: only what the caller sent can be odd.
        sent = {name: columns[name] for name in requested.inputs if name in model.columns}
        try:
            # A model that is given features alone is sent keys alone.
            inputs = (
                check_columns(model, sent, known_categories=known_categories, only=sent.keys())
                if sent
                else Inputs({}, len(examples.rows))
            )
        except RequestRefused as error:
            # The caller sent a column of the source, and knows no other name of it.
            if error.column not in self._renamed:
                raise
            raise RequestRefused(error.problem, self._renamed[error.column]) from None
        arrays = {name: inputs.columns.get(name, columns[name]) for name in model.columns}
        return CompletedRows(
            Inputs(arrays, inputs.rows), requested.keys, requested.moments, features.outcomes
        )
