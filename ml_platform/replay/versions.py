"""Model versions of a replay: trained once each, kept in memory, never registered."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd

from ml_platform.errors import TrainingFailed
from ml_platform.monitoring.performance import PerformanceReport, measure_window
from ml_platform.registry import ModelVersion, predict
from ml_platform.replay.replay_inputs import ReplayInputs
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.training import GateVerdict, judge, judged_range
from ml_platform.training.fitting import Recipe, fit
from ml_platform.training.training_set import cut, training_range


@dataclass
class Versions:
    """What policies share: the same cutoff is trained once, a window predicted once by a version.

    Where training failed, the error is kept and raised again.
    """

    known: ReplayInputs
    threads: int
    recipe: Recipe | None = None
    """How the estimator is made that is trained; by default as the use case says."""
    _versions: list[ModelVersion] = field(default_factory=list)
    _fitting: list[float] = field(default_factory=list)
    _trained: dict[tuple[datetime, Duration], int | TrainingFailed] = field(default_factory=dict)
    _predicted: dict[tuple[int, Window], tuple[pd.DataFrame, float]] = field(default_factory=dict)
    _measured: dict[tuple[int, Window, int], PerformanceReport] = field(default_factory=dict)
    _judged: dict[tuple[int, int | None], GateVerdict] = field(default_factory=dict)

    @property
    def use_case(self) -> UseCase:
        return self.known.use_case

    def load(self, version: int) -> ModelVersion:
        return self._versions[version - 1]

    def train(self, cutoff: datetime, window: Duration) -> int:
        """The version of a cutoff and a length of the training set; raises TrainingFailed."""
        key = (cutoff, window)
        if key not in self._trained:
            try:
                self._trained[key] = self._train(cutoff, window)
            except TrainingFailed as error:
                self._trained[key] = error
        found = self._trained[key]
        if isinstance(found, TrainingFailed):
            raise found
        return found

    def _train(self, cutoff: datetime, window: Duration) -> int:
        window_range = training_range(self.use_case, cutoff, window)
        rows = self.known.labelled(window_range, cutoff)
        data = cut(self.use_case, rows, window_range, self.known.snapshot)
        fitted = fit(self.use_case, data, self.threads, self.recipe)
        version = len(self._versions) + 1
        self._versions.append(
            ModelVersion(
                use_case=self.use_case.name,
                version=version,
                run_id="",
                cutoff=cutoff,
                snapshot=data.snapshot,
                estimator=fitted.estimator,
                digest="",
                metrics={},
                reference=fitted.reference,
                classes=fitted.classes,
                columns=fitted.columns,
                trained_from=data.trained_from,
                trained_until=data.trained_until,
                left_out=fitted.left_out,
            )
        )
        self._fitting.append(fitted.seconds)
        return version

    def judge(self, challenger: int, champion: int | None) -> GateVerdict:
        """What the promotion gate says of two versions."""
        key = (challenger, champion)
        if key not in self._judged:
            new, old = self.load(challenger), champion and self.load(champion)
            window_range = judged_range(new, old or None)
            rows = self.known.labelled(window_range, new.cutoff) if window_range else pd.DataFrame()
            self._judged[key] = judge(self.use_case, new, old or None, rows)
        return self._judged[key]

    def predict(self, version: int, window: Window) -> pd.DataFrame:
        """Prediction columns of a window's examples, with `event_time` and `model_version`."""
        return self._scored(version, window)[0]

    def fit_seconds(self, versions: Iterable[int | None]) -> float:
        """What fitting versions took, each once; None stands for a training that failed."""
        return sum(self._fitting[version - 1] for version in set(versions) if version)

    def score_seconds(self, served: Mapping[Window, int]) -> float:
        """What predicting windows took, each by its version."""
        return sum(self._scored(version, window)[1] for window, version in served.items())

    def _scored(self, version: int, window: Window) -> tuple[pd.DataFrame, float]:
        key = (version, window)
        if key not in self._predicted:
            rows = self.known.examples.iloc[self.known.positions(window)]
            started = time.perf_counter()
            # One call a window, as in scoring: more rows at once may be rounded differently.
            predicted = predict(self.use_case, self.load(version), rows)
            seconds = time.perf_counter() - started
            stamped = predicted.assign(event_time=rows["event_time"], model_version=version)
            self._predicted[key] = stamped, seconds
        return self._predicted[key]

    def measure(self, version: int, window: Window, moment: datetime) -> PerformanceReport:
        """How good a version's predictions of a window are, by the labels known then."""
        key = (version, window, self.known.revision(window, moment))
        if key not in self._measured:
            rows = self.known.beside(self.predict(version, window), window, moment)
            self._measured[key] = measure_window(self.use_case, rows, moment)
        return self._measured[key]
