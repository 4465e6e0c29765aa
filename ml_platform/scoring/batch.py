"""Score a stretch of examples, each window with the champion of that window."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb
import pandas as pd

from ml_platform.errors import EmptyPartition, NoChampion
from ml_platform.features import assemble, entity_types, split_by_window
from ml_platform.registry import ModelVersion, Promotion, Registry, champion_at, history, predict
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, Table, Written, replace_windows


@dataclass(frozen=True)
class ScoreReport:
    """What was scored; windows that could not be say why."""

    written: Written | None
    versions: Mapping[Window, int] = field(default_factory=dict)
    skipped: Mapping[Window, str] = field(default_factory=dict)

    def raise_if_empty(self) -> None:
        """Raise NoChampion or EmptyPartition where not one window could be scored."""
        if self.versions:
            return
        reasons = list(dict.fromkeys(self.skipped.values()))
        kind = NoChampion if any("champion" in reason for reason in reasons) else EmptyPartition
        raise kind("; ".join(reasons))


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
    lake: Lake, registry: Registry, use_case: UseCase, stretch: Window, commit: Commit
) -> ScoreReport:
    """Predict every example of a stretch and store the predictions, in one transaction.

    The champion of a window is the one whose promotion was effective when the window began.
    Windows before the first promotion, and windows without examples, are skipped with a reason.
    """
    promotions = history(lake, use_case)
    windows = list(use_case.calendar.windows(stretch))
    champions, skipped = _champions(use_case, promotions, windows)
    if not champions:
        return ScoreReport(None, skipped=skipped)
    scored_stretch = Window(min(champions, key=_start).start, max(champions, key=_start).end)
    with lake.cursor(use_case.timezone) as cursor:
        snapshot = lake.snapshot(cursor)
        frame = assemble(cursor, lake, use_case, scored_stretch, snapshot)
        parts = [
            _stamped(use_case, registry.load(use_case, champions[window]), rows, snapshot)
            for window, rows in split_by_window(frame, list(champions))
            if len(rows)
        ]
        written = _write(lake, cursor, use_case, parts, frame, scored_stretch, commit)
    empty = {window for window in champions if not written.rows.get(window)}
    skipped |= {window: f"{use_case.name} has no examples in {window}" for window in empty}
    versions = {window: version for window, version in champions.items() if window not in empty}
    return ScoreReport(written, versions, skipped)


def _champions(
    use_case: UseCase, promotions: list[Promotion], windows: list[Window]
) -> tuple[dict[Window, int], dict[Window, str]]:
    champions: dict[Window, int] = {}
    skipped: dict[Window, str] = {}
    for window in windows:
        try:
            champions[window] = champion_at(promotions, window.start)
        except NoChampion:
            skipped[window] = f"{use_case.name} has no champion yet at {window.start.isoformat()}"
    return champions, skipped


def _stamped(
    use_case: UseCase, model: ModelVersion, rows: pd.DataFrame, snapshot: int
) -> pd.DataFrame:
    # One call a window, also in a long range: a prediction is recomputed with its window, and
    # linear algebra may round differently when it is given other rows along with it.
    predictions = predict(use_case, model, rows)
    named = rows[[*use_case.examples.entity, "event_time"]]
    return pd.concat([named, predictions], axis=1).assign(
        model_version=model.version, snapshot=snapshot, scored_at=datetime.now(UTC)
    )


def _write(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    parts: list[pd.DataFrame],
    frame: pd.DataFrame,
    stretch: Window,
    commit: Commit,
) -> Written:
    table = predictions_table(use_case)
    scored = pd.concat(parts) if parts else frame.head(0).reindex(columns=list(table.columns))
    cursor.register("scored", scored)
    try:
        return replace_windows(
            lake, cursor, table, "FROM scored",
            time="event_time", calendar=use_case.calendar, stretch=stretch, commit=commit,
        )  # fmt: skip
    finally:
        cursor.unregister("scored")


def _start(window: Window) -> datetime:
    return window.start.astimezone(UTC)
