"""Score a range of examples, each window with the champion of that window."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter

import duckdb
import numpy as np
import pandas as pd

from ml_platform.errors import EmptyPartition, PlatformError
from ml_platform.features import assemble, entity_types, labels_table, split_by_window
from ml_platform.registry import ModelVersion, Registry, champions_of, is_row_wise, predict
from ml_platform.scoring.endpoint import EndpointClient, open_endpoint
from ml_platform.scoring.explanations import explained_rows, explanations_table
from ml_platform.scoring.on_spark import predict_on_spark
from ml_platform.scoring.remote import predict_remotely
from ml_platform.spec.use_case import Engine, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import (
    Basis,
    Commit,
    Lake,
    Replacement,
    Table,
    Written,
    compute_windows,
    replace_together,
)
from ml_platform.storage.tables import require_types


@dataclass(frozen=True)
class ScoreReport:
    """What was scored; windows that could not be say why."""

    written: Written | None
    versions: Mapping[Window, int] = field(default_factory=dict)
    """The version that predicted each window; where several answered, the newest of them."""
    skipped: Mapping[Window, PlatformError] = field(default_factory=dict)
    in_process: tuple[Window, ...] = ()
    """Windows that an endpoint was to predict and whose champion it does not serve."""

    def raise_if_empty(self) -> None:
        """Where not one window could be scored, raise what the first one lacks.

        That is NoChampion or EmptyPartition.
        """
        if not self.versions:
            raise next(iter(self.skipped.values()))


def predictions_table(use_case: UseCase) -> Table:
    """Where predictions are kept."""
    return Table(
        schema=use_case.name,
        name="predictions",
        columns={
            **entity_types(use_case, use_case.examples.entity),
            "event_time": "TIMESTAMPTZ",
            **use_case.prediction_columns,
            "model_version": "INTEGER",
            "snapshot": "BIGINT",
            "scored_at": "TIMESTAMPTZ",
        },
        order=("event_time", *use_case.examples.entity),
        stamps=("snapshot", "scored_at"),
    )


def score(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    window_range: Window,
    commit: Commit,
    *,
    in_process: bool = False,
    engine: Engine | None = None,
) -> ScoreReport:
    """Predict every example of a range and store the predictions, in one transaction.

    The champion of a window is the one whose promotion was effective when the window began.
    Windows before the first promotion, and windows without examples, are skipped with a reason.
    Where the use case has an endpoint that scores, it is asked, unless `in_process` says otherwise;
    what it answered is not asked again should this fail.
    engine: where it is computed, instead of where the use case declares.
    """
    engine = engine or use_case.engine
    if engine == "spark" and use_case.monitoring.explanations:
        raise PlatformError(
            f"{use_case.name}: engine spark writes no explanations; take it away, or "
            "`monitoring.explanations`"
        )
    scorer = None if in_process or engine == "spark" else use_case.scorer
    if scorer is None:
        return _compute(lake, registry, use_case, window_range, commit, None, engine)
    with open_endpoint(use_case, scorer, lake.settings) as endpoint:
        by = commit.by_engine("endpoint")
        report = _compute(lake, registry, use_case, window_range, by, endpoint)
        endpoint.forget()
        return report


def _compute(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    window_range: Window,
    commit: Commit,
    endpoint: EndpointClient | None,
    engine: Engine = "in_process",
) -> ScoreReport:
    def compute(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> ScoreReport:
        return _scored(
            lake, cursor, registry, use_case, window_range, commit, basis, endpoint, engine
        )

    return compute_windows(lake, use_case, "predictions", window_range, commit, compute)


def _scored(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    registry: Registry,
    use_case: UseCase,
    window_range: Window,
    commit: Commit,
    basis: Basis,
    endpoint: EndpointClient | None,
    engine: Engine,
) -> ScoreReport:
    champions, lacking = _champions(lake, use_case, window_range, endpoint)
    if not champions:
        return ScoreReport(None, skipped=lacking)
    # What labels were is what a champion predicts, whatever the task is called now.
    require_types(cursor, labels_table(use_case))
    windows = list(champions)
    scored_range = Window(windows[0].start, windows[-1].end)
    own = {window: version for window, version in champions.items() if version is not None}
    if engine == "spark":
        table = predictions_table(use_case)
        written = predict_on_spark(
            lake, cursor, registry, use_case, table, own, scored_range, commit, basis
        )
        return _report(use_case, written, own, own, lacking)
    frame = assemble(cursor, lake, use_case, scored_range, basis.snapshot)
    by_endpoint = None
    if endpoint is None:
        scored, versions = stamped(registry, use_case, frame, own, basis.snapshot), own
    else:
        assert use_case.scorer is not None
        by_endpoint = predict_remotely(
            endpoint, use_case.scorer, registry, use_case, frame, champions
        )
        scored = _stamp(use_case, frame, by_endpoint.predictions, basis.snapshot)
        versions = dict(by_endpoint.versions)
    explained = None
    if use_case.monitoring.explanations:
        explained = explained_rows(registry, use_case, frame, versions, basis.snapshot)
    written = _write(lake, cursor, use_case, scored, explained, scored_range, commit, basis)
    in_process = by_endpoint.in_process if by_endpoint else ()
    return _report(use_case, written, champions, versions, lacking, in_process)


def _report(
    use_case: UseCase,
    written: Written,
    asked: Iterable[Window],
    versions: Mapping[Window, int],
    lacking: Mapping[Window, PlatformError],
    in_process: tuple[Window, ...] = (),
) -> ScoreReport:
    empty = {
        window: EmptyPartition(f"{use_case.name} has no examples in {window}")
        for window in asked
        if not written.rows.get(window)
    }
    scored = {window: version for window, version in versions.items() if window not in empty}
    return ScoreReport(written, scored, {**lacking, **empty}, in_process)


def _champions(
    lake: Lake, use_case: UseCase, window_range: Window, endpoint: EndpointClient | None
) -> tuple[Mapping[Window, int | None], Mapping[Window, PlatformError]]:
    """The version that has to predict each window, None where any may; windows that have none."""
    if endpoint is not None and use_case.scored_by_any_version:
        return dict.fromkeys(use_case.calendar.windows(window_range)), {}
    return champions_of(lake, use_case, window_range)


def stamped(
    registry: Registry,
    use_case: UseCase,
    frame: pd.DataFrame,
    champions: Mapping[Window, int],
    snapshot: int,
) -> pd.DataFrame:
    """Rows of the prediction table for an assembled frame, each predicted by its window's champion.

    champions: windows in order of time, with the version that predicts them.
    """
    parts = [(champions[w], rows) for w, rows in split_by_window(frame, list(champions))]
    predictions = [
        _predicted(use_case, registry.load(use_case, version), frame, [rows for _, rows in run])
        for version, run in groupby((part for part in parts if len(part[1])), key=itemgetter(0))
    ]
    if not predictions:
        return _stamp(use_case, frame, pd.DataFrame(), snapshot)
    versions = [np.full(len(rows), version, dtype=np.int32) for version, rows in parts]
    predicted = pd.concat(predictions).assign(model_version=np.concatenate(versions))
    return _stamp(use_case, frame, predicted, snapshot)


def _stamp(
    use_case: UseCase, frame: pd.DataFrame, predicted: pd.DataFrame, snapshot: int
) -> pd.DataFrame:
    """Rows of the prediction table; predicted: prediction columns and `model_version`."""
    if predicted.empty:
        return frame.head(0).reindex(columns=list(predictions_table(use_case).columns))
    named = frame.loc[predicted.index, [*use_case.examples.entity, "event_time"]]
    return pd.concat([named, predicted], axis=1).assign(
        snapshot=snapshot, scored_at=datetime.now(UTC)
    )


def _predicted(
    use_case: UseCase, model: ModelVersion, frame: pd.DataFrame, windows: list[pd.DataFrame]
) -> pd.DataFrame:
    """Predictions of adjacent windows, each with the bits that it has when it is predicted alone.

    frame: the rows of these windows and of others; windows: none is empty.
    """
    if len(windows) > 1 and is_row_wise(model.estimator):
        together = predict(use_case, model, frame.loc[windows[0].index[0] : windows[-1].index[-1]])
        # What is known of an estimator's code is believed where these two confirm it.
        smallest, largest = min(windows, key=len), max(windows, key=len)
        if all(
            predict(use_case, model, rows).equals(together.loc[rows.index])
            for rows in (smallest, largest)
        ):
            return together
    # Otherwise one call a window, also in a long range: linear algebra may round differently when
    # it is given other rows along with it.
    return pd.concat([predict(use_case, model, rows) for rows in windows])


def _write(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    scored: pd.DataFrame,
    explained: pd.DataFrame | None,
    window_range: Window,
    commit: Commit,
    basis: Basis,
) -> Written:
    cursor.register("scored", scored)
    replaced = [Replacement(predictions_table(use_case), "FROM scored", time="event_time")]
    if explained is not None:
        # In the same transaction: they never explain other predictions than are stored.
        cursor.register("explained", explained)
        table = explanations_table(use_case)
        replaced.append(Replacement(table, "FROM explained", time="event_time"))
    try:
        written, *_ = replace_together(
            lake, cursor, replaced,
            calendar=use_case.calendar, window_range=window_range, commit=commit, basis=basis,
        )  # fmt: skip
        return written
    finally:
        cursor.unregister("scored")
        if explained is not None:
            cursor.unregister("explained")
