"""Drift and performance of one policy's champions, judged window by window as they are asked for.

Judging looks ahead: a champion's predictions and their drift are computed over many windows in one
go, as if it served on. A decision that falls in between discards what lies behind it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd

from ml_platform.monitoring.columns import Readings, monitored_columns
from ml_platform.monitoring.drift import WindowDrift, judge_readings
from ml_platform.monitoring.readings import readings_of
from ml_platform.monitoring.scores import trail
from ml_platform.monitoring.verdicts import Cause, drift_passed, performance_passed
from ml_platform.replay.versions import Versions
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc

AHEAD = 28
"""How many windows drift is judged ahead of."""


@dataclass
class Watched:
    """The reports of one policy; windows: those replayed, in order."""

    use_case: UseCase
    versions: Versions
    windows: Sequence[Window]
    served: dict[Window, int] = field(default_factory=dict)
    """Which version predicted each window so far."""
    _drift: dict[int, WindowDrift | None] = field(default_factory=dict)
    _ahead: Iterator[tuple[Window, WindowDrift | None]] = field(default=iter(()))
    _next: int = -1
    _until: int = -1

    def recent(self, cause: Cause, index: int, since: datetime | None) -> list[tuple[Window, bool]]:
        """The latest judged windows up to one, as many as `retrain.sustained` looks at.

        index: of the newest window; its end is the moment that it is asked. Windows that begin
        before `since` do not count.
        """
        wanted = self.use_case.retrain.n_of_m[1]
        earliest = 0
        while since and utc(self.windows[earliest].start) < utc(since):
            earliest += 1
            if earliest > index:
                return []
        first = max(earliest, index - wanted + 1)
        while True:
            found = [
                (self.windows[i], passed)
                for i in range(first, index + 1)
                if (passed := self._passed(cause, i, self.windows[index].end)) is not None
            ]
            if len(found) >= wanted or first == earliest:
                return found[-wanted:]
            first = max(earliest, first - (wanted - len(found)))

    def forget_ahead(self) -> None:
        """A new champion serves: what was judged ahead is not what will be."""
        self._ahead, self._next = iter(()), -1

    def _passed(self, cause: Cause, index: int, moment: datetime) -> bool | None:
        window = self.windows[index]
        version = self.served.get(window)
        if version is None:
            return None
        if cause == "performance":
            said = self.versions.measure(version, window, moment)
            return performance_passed(said.kept, self.use_case.retrain.metrics)
        drift = self._drift_of(index)
        if drift is None:
            return None
        judged = {c.column: c.drifted for c in drift.columns if c.drifted is not None}
        return drift_passed(self.use_case, judged, self.use_case.retrain.columns)

    def _drift_of(self, index: int) -> WindowDrift | None:
        if index not in self._drift:
            if index != self._next:
                self._look_ahead(index)
            _, self._drift[index] = next(self._ahead)
            self._next = index + 1
            if self._next == self._until:
                self.forget_ahead()
        return self._drift[index]

    def _look_ahead(self, index: int) -> None:
        version = self.served[self.windows[index]]
        ahead = self.windows[index : index + AHEAD]
        model = self.versions.load(version)
        since = trail(self.use_case, ahead[0], version).since
        self._until = index + len(ahead)
        self._ahead = judge_readings(
            self.use_case,
            self._readings(since, ahead, version),
            dict.fromkeys(ahead, version),
            {version: model},
        )

    def _readings(
        self, since: datetime, ahead: Sequence[Window], version: int
    ) -> Mapping[str, Readings]:
        until = ahead[-1].end
        served = {w: v for w, v in self.served.items() if utc(w.end) > utc(since)}
        chosen = {**served, **{w: version for w in ahead if w not in served}}
        parts = [self.versions.predict(v, w) for w, v in chosen.items()]
        columns = [c for c in monitored_columns(self.use_case) if c.kind == "prediction"]
        given = {n: r.part(since, until) for n, r in self.versions.known.readings.items()}
        return {**given, **readings_of(columns, pd.concat(parts))}
