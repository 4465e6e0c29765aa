"""The pictures of an opened use case."""

from abc import ABC, abstractmethod
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import FeatureError, LabelsNotArrived, PlatformError
from ml_platform.extras import extra
from ml_platform.notebook.arguments import Moment, Range
from ml_platform.notebook.pictures import (
    draw_backtest,
    draw_drift,
    draw_performance,
    draw_predictions,
)
from ml_platform.registry import ChampionPeriod
from ml_platform.replay import Backtest
from ml_platform.spec.declared import METRICS, Task
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.values import unknown
from ml_platform.training.plots import (
    Picture,
    draw_calibration,
    draw_confusion,
    draw_precision_recall,
    draw_residuals,
    draw_roc,
)
from ml_platform.training.training_set import targets

PICTURES: dict[Task, str] = {
    "binary": "plot_roc, plot_precision_recall or plot_calibration",
    "multiclass": "plot_confusion",
    "regression": "plot_residuals",
}


class Plotting(ABC):
    """Pictures of what a use case has stored, and of frames of predictions.

    Each is a `Picture`, which notebooks show: its `figure` and `axes` are matplotlib's.
    NotInstalled where matplotlib is missing. What takes a range also takes a frame with prediction
    columns and `label`, such as `predictions` of a backtest.
    """

    use_case: UseCase

    @abstractmethod
    def performance(self, range: Range | None = None) -> pd.DataFrame: ...

    @abstractmethod
    def drift(self, range: Range | None = None) -> pd.DataFrame: ...

    @abstractmethod
    def predictions(
        self, range: Range | None = None, *, known_by: Moment | None = None
    ) -> pd.DataFrame: ...

    @abstractmethod
    def champion_periods(self) -> list[ChampionPeriod]: ...

    def plot_performance(self, range: Range | None = None, metric: str | None = None) -> Picture:
        """A metric by partition, with its bounds and promotions; by default `model.metric`."""
        _require_matplotlib()
        known = METRICS[self.use_case.label.task]
        chosen = metric or self.use_case.model.metric
        if chosen not in known:
            raise PlatformError(f"{self.use_case.name}: {unknown('metric', chosen, known)}")
        report = self.performance(range)
        rows = report[report["metric"] == chosen]
        return draw_performance(self.use_case, rows, chosen, self.champion_periods())

    def plot_drift(self, range: Range | None = None, most: int = 30) -> Picture:
        """Drift by column and partition; most: columns that are shown, the worst first."""
        _require_matplotlib()
        return draw_drift(self.use_case, self.drift(range), most)

    def plot_predictions(self, range: "Range | pd.DataFrame | None" = None) -> Picture:
        """Distribution of predictions, by label where it is known."""
        _require_matplotlib()
        return draw_predictions(self.use_case, self._predicted(range))

    def plot_roc(self, range: "Range | pd.DataFrame | None" = None) -> Picture:
        """True against false positives, of binary labels."""
        return draw_roc(*self._labelled(range, "binary"))

    def plot_precision_recall(self, range: "Range | pd.DataFrame | None" = None) -> Picture:
        """Precision against recall, of binary labels."""
        return draw_precision_recall(*self._labelled(range, "binary"))

    def plot_calibration(self, range: "Range | pd.DataFrame | None" = None) -> Picture:
        """Share of positives against probability, of binary labels."""
        return draw_calibration(*self._labelled(range, "binary"))

    def plot_confusion(self, range: "Range | pd.DataFrame | None" = None) -> Picture:
        """Predicted classes by label, of multiclass labels."""
        label, predicted = self._labelled(range, "multiclass")
        return draw_confusion(label, predicted.astype(str).astype(object))

    def plot_residuals(self, range: "Range | pd.DataFrame | None" = None) -> Picture:
        """Distribution of predicted minus actual, of regressions."""
        return draw_residuals(*self._labelled(range, "regression"))

    def plot_backtest(self, backtest: Any) -> Picture:
        """Estimator and champions by partition, and the improvement with its interval."""
        _require_matplotlib()
        if not isinstance(backtest, Backtest):
            kind = type(backtest).__name__
            raise PlatformError(f"plot_backtest takes what backtest returns, not a {kind}")
        return draw_backtest(backtest)

    def _labelled(
        self, range: "Range | pd.DataFrame | None", task: Task
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Labels and predictions of the rows that have a label, shape (n,) each."""
        _require_matplotlib()
        own = self.use_case.label.task
        if own != task:
            raise PlatformError(
                f"{self.use_case.name}: its label is {own}, this is a picture of {task} labels; "
                f"take {PICTURES[own]}"
            )
        frame = self._predicted(range)
        rows = frame[frame["label"].notna()]
        if rows.empty:
            raise LabelsNotArrived(
                f"{self.use_case.name}: none of the {len(frame)} predictions has a label yet; take "
                "a range whose labels have arrived"
            )
        column = "probability" if task == "binary" else "predicted"
        return targets(task, rows["label"]), rows[column].to_numpy()

    def _predicted(self, range: "Range | pd.DataFrame | None") -> pd.DataFrame:
        if not isinstance(range, pd.DataFrame):
            return self.predictions(range)
        wanted = [*self.use_case.prediction_columns, "label"]
        missing = [column for column in wanted if column not in range]
        if missing:
            raise FeatureError(
                f"{self.use_case.name}: a frame of predictions has {', '.join(wanted)}; this one "
                f"lacks {', '.join(missing)}"
            )
        return range


def _require_matplotlib() -> None:
    with extra():
        import matplotlib.figure  # noqa: F401
