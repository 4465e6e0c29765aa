"""What reports say over time, read once for each state of the lake."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ml_platform.monitoring.over_time import (
    ContributedColumn,
    LabelDelay,
    PredictedWindow,
    contributed_columns,
    label_delays,
    predicted_windows,
)
from ml_platform.monitoring.series import (
    DriftRow,
    DriftWindow,
    PerformanceWindow,
    drift_by_column,
    drift_windows,
    performance_windows,
)
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

MOST_WINDOWS = 400
"""Of a history: more than a year of days; earlier ones are another one."""
CELLS = 120
"""In time, of drift by column."""
EXPLAINED = 30
"""Windows whose explanations are shown."""
KEPT = 100
"""Histories in memory, those looked at last."""


@dataclass(frozen=True)
class History:
    """The newest windows of a use case, or those before a moment, in order of time."""

    performance: Sequence[PerformanceWindow]
    drift: Sequence[DriftWindow]
    columns: Sequence[DriftRow]
    """Drift by column, in at most `CELLS` cells of time."""
    predicted: Sequence[PredictedWindow]
    delays: Sequence[LabelDelay]
    contributed: Sequence[ContributedColumn]
    """How much columns moved predictions in the newest `EXPLAINED` windows."""


class Histories:
    """Histories of use cases, read again when the lake has changed. Safe for threads."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._kept: OrderedDict[tuple[str, datetime | None], tuple[int, History]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, case: UseCase, until: datetime | None = None) -> History:
        """The history of a use case; until: only windows that begin before this moment."""
        with self._lake.cursor() as cursor:
            snapshot = self._lake.snapshot(cursor)
        key = case.name, until
        with self._lock:
            seen, history = self._kept.get(key, (-1, None))
            if history is not None and seen == snapshot:
                self._kept.move_to_end(key)
                return history
        history = self._read(case, until)
        with self._lock:
            self._kept[key] = snapshot, history
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return history

    def _read(self, case: UseCase, until: datetime | None) -> History:
        lake = self._lake
        drift = drift_windows(lake, case, MOST_WINDOWS, until=until)
        return History(
            performance_windows(lake, case, MOST_WINDOWS, until=until),
            drift,
            drift_by_column(lake, case, [each.window for each in drift], CELLS),
            predicted_windows(lake, case, MOST_WINDOWS, until=until),
            label_delays(lake, case, MOST_WINDOWS, until=until),
            contributed_columns(lake, case, EXPLAINED, until=until),
        )
