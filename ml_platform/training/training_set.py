"""The labelled examples before a cutoff: which are fitted on, which judge."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import TableNotFound, TrainingFailed
from ml_platform.features import assemble
from ml_platform.spec.declared import Task
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake
from ml_platform.training.sample import ALL_ROWS, Sample


@dataclass(frozen=True)
class TrainingSet:
    """Labelled rows of `[trained_from, cutoff)`; each part is ordered by event time."""

    snapshot: int
    trained_from: datetime
    trained_until: datetime
    """End of what is fitted on, start of the holdout."""
    cutoff: datetime
    fitted: pd.DataFrame
    holdout: pd.DataFrame

    @cached_property
    def digest(self) -> str:
        """Digest of both parts: columns, types and every value."""
        return digest_of(self.fitted, self.holdout)


@dataclass(frozen=True)
class Labelled:
    """Labelled examples as `model.fit` is given them, ordered by event time; shares no memory."""

    rows: pd.DataFrame
    """What the estimator is given: numbers as float64 with NaN, all else as text with None."""
    labels: NDArray[Any]
    """0 and 1, class names, or float64; shape (n,)."""
    times: "pd.Series[pd.Timestamp]"
    """Event times, in the zone of the use case."""
    keys: pd.DataFrame
    """Entity columns."""

    @classmethod
    def of(cls, use_case: UseCase, rows: pd.DataFrame, columns: Iterable[str]) -> "Labelled":
        """Rows of a training set, with the columns that the estimator is given."""
        copied = rows.reset_index(drop=True)
        return cls(
            copied[list(columns)],
            targets(use_case.label.task, copied["label"]),
            copied["event_time"],
            copied[[*use_case.examples.entity]],
        )


@dataclass(frozen=True)
class FitData:
    """What `model.fit` is given: rows of the training set before its holdout, and no others."""

    training: Labelled
    """Rows before the validation whose label was known when that begins."""
    validation: Labelled
    """The last rows: they say when to stop, or which of several is best."""
    everything: Labelled
    """All rows: these two parts, and those between them whose label was known later."""
    threads: int
    """How many to use; libraries on OpenMP or BLAS are held to it already."""


def collect(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    cutoff: datetime,
    snapshot: int,
    window: Duration | None = None,
    sample: Sample = ALL_ROWS,
) -> TrainingSet:
    """What was known before a cutoff, cut in two by the use case's holdout.

    window: how far it reaches back; by default `model.window`. sample: what is fitted on of the
    rows before the holdout. Raises TrainingFailed where there is too little.
    """
    window_range = training_range(use_case, cutoff, window)
    frame = labelled(cursor, lake, use_case, window_range, cutoff, snapshot)
    return cut(use_case, frame, window_range, snapshot, sample)


def training_range(use_case: UseCase, cutoff: datetime, window: Duration | None = None) -> Window:
    """From where to where a training set reaches; TrainingFailed where the holdout is all of it."""
    calendar = use_case.calendar
    begin = max(
        (window or use_case.model.window).before(cutoff, calendar.timezone),
        calendar.start,
        key=lambda moment: moment.astimezone(UTC),
    )
    until = use_case.model.holdout.before(cutoff, calendar.timezone)
    if until.astimezone(UTC) <= begin.astimezone(UTC):
        raise TrainingFailed(
            f"{use_case.name} at cutoff {cutoff.isoformat()}: nothing is left to fit on between "
            f"the first window ({calendar.start.isoformat()}) and the holdout of "
            f"{use_case.model.holdout} before the cutoff; {_remedy(use_case, cutoff)}"
        )
    return Window(begin, cutoff)


def cut(
    use_case: UseCase,
    frame: pd.DataFrame,
    window_range: Window,
    snapshot: int,
    sample: Sample = ALL_ROWS,
) -> TrainingSet:
    """Cut the labelled examples of a range in what is fitted on and what judges.

    frame: as `labelled` gives it, labels known by the range's end. Fitted are the examples before
    the holdout whose label was known when it began: a label that became known later says something
    of the holdout itself. sample: which of them are fitted; the holdout stays whole, so that
    figures of versions can be compared. Raises TrainingFailed where there is too little of either.
    """
    begin, cutoff = window_range.start, window_range.end
    until = use_case.model.holdout.before(cutoff, use_case.calendar.timezone)
    in_fit = (frame["event_time"] < until) & (frame["label_known_at"] < until)
    names = (*use_case.examples.entity, "event_time")
    fitted = sample.take(frame[in_fit].reset_index(drop=True), names)
    holdout = frame[frame["event_time"] >= until].reset_index(drop=True)
    purpose = f"to fit on ({sample})" if sample else "to fit on"
    _require(use_case, cutoff, purpose, Window(begin, until), fitted)
    _require(use_case, cutoff, "to judge on", Window(until, cutoff), holdout)
    return TrainingSet(snapshot, begin, until, cutoff, fitted, holdout)


def cut_validation(use_case: UseCase, data: TrainingSet) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut what is fitted on in two for `model.fit`: what it fits on, and what it validates on.

    As the holdout is cut off: of the rows before the validation only those are fitted on whose
    label was known when it begins. Raises TrainingFailed where there is too little of either.
    """
    length, rows = use_case.model.validated_by, data.fitted
    begin, until = data.trained_from, data.trained_until
    start = length.before(until, use_case.calendar.timezone)
    in_fit = (rows["event_time"] < start) & (rows["label_known_at"] < start)
    training, validation = rows[in_fit], rows[rows["event_time"] >= start]
    named, cutoff = f"model.validation ({length})", data.cutoff
    if utc(start) <= utc(begin):
        raise TrainingFailed(
            f"{use_case.name} at cutoff {cutoff.isoformat()}: nothing is left to fit on between "
            f"{begin.isoformat()} and {named}; {_remedy(use_case, cutoff)}, or shorten it"
        )
    lengths = "model.window or model.validation"
    before, within = Window(begin, start), Window(start, until)
    _require(use_case, cutoff, f"to fit on before {named}", before, training, lengths)
    _require(use_case, cutoff, f"for {named}", within, validation, lengths)
    return training, validation


def labelled(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    known_by: datetime,
    snapshot: int,
) -> pd.DataFrame:
    """The examples of a range whose label was known by then; TrainingFailed without tables."""
    try:
        return assemble(cursor, lake, use_case, window_range, snapshot, labels_known_by=known_by)
    except TableNotFound as error:
        raise TrainingFailed(f"{use_case.name} cannot be trained yet: {error}") from error


def targets(task: Task, label: "pd.Series[Any]") -> NDArray[Any]:
    """Labels as estimators are given them: 0 and 1, class names, or float64; shape (n,).

    >>> targets("binary", pd.Series([True, False])).tolist()
    [1, 0]
    """
    match task:
        case "binary":
            flags = label.astype(np.int64).to_numpy()
            if not np.isin(flags, (0, 1)).all():
                shown = sorted(set(flags.tolist()))[:5]
                raise TrainingFailed(f"a binary label is true or false, or 0 or 1; found {shown}")
            return flags
        case "multiclass":
            return label.astype(str).to_numpy(dtype=object)
        case "regression":
            values = label.astype(np.float64).to_numpy()
            if not np.isfinite(values).all():
                raise TrainingFailed(
                    "a label of a regression is a finite number; filter the others"
                )
            return values


def digest_of(*frames: pd.DataFrame) -> str:
    """SHA-256 of columns, types and values, in hexadecimal digits."""
    total = hashlib.sha256()
    for frame in frames:
        total.update(repr([(name, str(kind)) for name, kind in frame.dtypes.items()]).encode())
        total.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return total.hexdigest()


def _remedy(use_case: UseCase, cutoff: datetime) -> str:
    closes = use_case.partitions.closes_at
    if closes is None or cutoff.astimezone(UTC) < closes.astimezone(UTC):
        return "take a later cutoff"
    return f"shorten model.holdout, as the history ends at {closes.isoformat()}"


def _require(
    use_case: UseCase,
    cutoff: datetime,
    purpose: str,
    window_range: Window,
    rows: pd.DataFrame,
    lengths: str = "model.window or model.holdout",
) -> None:
    here = (
        f"{use_case.name} at cutoff {cutoff.isoformat()}: "
        f"{len(rows)} labelled rows {purpose} in {window_range}"
    )
    if len(rows) < use_case.model.min_rows:
        raise TrainingFailed(
            f"{here}, model.min_rows is {use_case.model.min_rows}; {_remedy(use_case, cutoff)}, or "
            "check that labels have been computed"
        )
    if use_case.label.task == "regression":
        targets("regression", rows["label"])
        return
    classes = np.unique(targets(use_case.label.task, rows["label"]))
    if len(classes) < 2:
        raise TrainingFailed(
            f"{here}, all with label {classes[0]}; a classifier needs two classes, so take a "
            f"longer {lengths}, or check that labels.sql yields others"
        )
