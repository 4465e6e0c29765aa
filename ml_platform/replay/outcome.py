"""What a policy predicted over a range beside what came true, measured and resampled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.metrics import measure
from ml_platform.replay.versions import Versions
from ml_platform.resampling import Floats, resamples, statistic
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window

BINS = 1_024
"""Into how many probabilities are put to be resampled: that moves a ROC AUC by less than 1e-5."""
WEIGHTS_AT_ONCE = 5_000_000


@dataclass(frozen=True)
class ReplayOutcome:
    """The labelled predictions of a range, each window by the version that served it."""

    windows: int
    window: NDArray[np.int64]
    """Place of each row's window; shape (n,)."""
    frame: pd.DataFrame
    """Prediction columns and `label`; n rows."""

    @classmethod
    def of(cls, versions: Versions, served: Mapping[Window, int]) -> "ReplayOutcome":
        """By all labels known now."""
        known = versions.known
        parts = []
        for place, (window, version) in enumerate(served.items()):
            rows = known.beside(versions.predict(version, window), window, known.last_label)
            parts.append(rows[rows["label"].notna()].assign(window=place))
        frame = pd.concat(parts, ignore_index=True)
        return cls(len(served), frame["window"].to_numpy(dtype=np.int64), frame)

    @property
    def rows(self) -> int:
        return len(self.frame)

    def measure(self, use_case: UseCase) -> dict[str, float]:
        """Every metric of all rows taken together."""
        return measure(use_case.label.task, self.frame["label"], self.frame)

    def resampled(self, use_case: UseCase) -> Floats:
        """The model's metric of resamples of the windows, shape (resamples,).

        Windows are drawn with replacement, rows with their window: those of a day have more in
        common than those of different days. The draws are the same for every outcome.
        """
        of_windows = (
            self._of_cells(use_case) if use_case.label.task == "binary" else self._of_rows(use_case)
        )
        return np.concatenate([of_windows(drawn) for drawn in resamples(self.windows)])

    def _of_cells(self, use_case: UseCase) -> Callable[[Floats], Floats]:
        # Rows of one label whose probabilities are next to each other count as one: a resample is
        # then a product of matrices, however many rows there are.
        probability = self.frame["probability"].to_numpy(dtype=np.float64)
        edges = np.unique(np.quantile(probability, np.linspace(0, 1, BINS + 1)[1:-1]))
        bins = np.searchsorted(edges, probability)
        sizes = np.maximum(np.bincount(bins, minlength=len(edges) + 1), 1)
        means = np.bincount(bins, weights=probability, minlength=len(edges) + 1) / sizes
        cells = 2 * len(means)
        cell = 2 * bins + self.frame["label"].to_numpy().astype(np.int64)
        counts = np.bincount(self.window * cells + cell, minlength=self.windows * cells)
        table = counts.reshape(self.windows, cells).astype(np.float64)
        label = pd.Series(np.tile([0, 1], len(means)))
        prediction = pd.DataFrame({"probability": np.repeat(means, 2)})
        found = statistic(use_case.model.metric, "binary", label, prediction)
        return lambda drawn: found(drawn @ table)

    def _of_rows(self, use_case: UseCase) -> Callable[[Floats], Floats]:
        found = statistic(
            use_case.model.metric, use_case.label.task, self.frame["label"], self.frame
        )
        some = max(1, WEIGHTS_AT_ONCE // self.rows)

        def of_windows(drawn: Floats) -> Floats:
            parts = [drawn[at : at + some] for at in range(0, len(drawn), some)]
            return np.concatenate([found(part[:, self.window]) for part in parts])

        return of_windows
