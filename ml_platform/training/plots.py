"""Pictures of how good a model is, as PNG bytes for MLflow and the Dagster UI."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.spec.declared import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (5.0, 4.0)
DOTS_PER_INCH = 80
SHOWN_COLUMNS = 20
SHOWN_POINTS = 5_000
BINS = 10


def draw(
    task: Task,
    label: NDArray[Any],
    prediction: pd.DataFrame,
    importances: Mapping[str, float],
    segments: Mapping[str, NDArray[np.int64]],
) -> dict[str, bytes]:
    """The pictures of a task, by name.

    label: shape (n,), as estimators are given it; prediction: the prediction columns of the same
    n rows; importances: by column, in units of the loss; segments: positions of their rows.
    """
    match task:
        case "binary":
            plots = _draw_binary(label, prediction["probability"].to_numpy())
        case "multiclass":
            plots = {"confusion": draw_confusion(label, prediction["predicted"].to_numpy()).png()}
        case "regression":
            plots = _draw_numbers(label, prediction["predicted"].to_numpy())
    if segments and task != "multiclass":
        name = "probability" if task == "binary" else "predicted"
        off = _off_by_segment(label, prediction[name].to_numpy(), segments)
        plots["reliability_by_segment"] = draw_reliability(task, off).png()
    return {**plots, "importances": _draw_importances(importances)}


def _draw_binary(label: NDArray[Any], probability: NDArray[Any]) -> dict[str, bytes]:
    return {
        "roc": draw_roc(label, probability).png(),
        "precision_recall": draw_precision_recall(label, probability).png(),
        "calibration": draw_calibration(label, probability).png(),
    }


def draw_roc(label: NDArray[Any], probability: NDArray[Any]) -> "Picture":
    """True positives against false positives. label: 0 and 1, both arrays of shape (n,)."""
    from sklearn.metrics import roc_curve

    picture = Picture("ROC curve", "false positive rate", "true positive rate")
    wrong, right, _ = roc_curve(label, probability)
    picture.axes.plot(wrong, right)
    picture.axes.plot([0, 1], [0, 1], "--", color="grey")
    return picture


def draw_precision_recall(label: NDArray[Any], probability: NDArray[Any]) -> "Picture":
    """Precision against recall. label: 0 and 1, both arrays of shape (n,)."""
    from sklearn.metrics import precision_recall_curve

    picture = Picture("Precision and recall", "recall", "precision")
    precision, recall, _ = precision_recall_curve(label, probability)
    picture.axes.plot(recall, precision)
    picture.axes.axhline(float(np.mean(label)), linestyle="--", color="grey")
    return picture


def draw_calibration(label: NDArray[Any], probability: NDArray[Any]) -> "Picture":
    """Share of positives against probability. label: 0 and 1, both arrays of shape (n,)."""
    from sklearn.calibration import calibration_curve

    picture = Picture("Calibration", "mean probability", "share of positives")
    share, mean = calibration_curve(label, probability, n_bins=BINS, strategy="quantile")
    picture.axes.plot(mean, share, "o-")
    picture.axes.plot([0, 1], [0, 1], "--", color="grey")
    return picture


def draw_reliability(task: Task, off: Mapping[str, tuple[float, float]]) -> "Picture":
    """How far segments are predicted too high or too low on average.

    off: by segment, the mean of predicted minus actual and its standard error.
    """
    unit = "mean probability - share of positives" if task == "binary" else "mean of the residuals"
    shown = sorted(off.items(), key=lambda each: abs(each[1][0]))[-SHOWN_COLUMNS:]
    picture = Picture("Reliability by segment", f"{unit}, 95%", "", left=0.3)
    means, errors = [mean for _, (mean, _) in shown], [1.96 * error for _, (_, error) in shown]
    picture.axes.errorbar(means, range(len(shown)), xerr=errors, fmt="o", capsize=2)
    picture.axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    picture.axes.axvline(0, linestyle="--", color="grey")
    picture.axes.tick_params(axis="y", labelsize=7)
    return picture


def _off_by_segment(
    label: NDArray[Any], predicted: NDArray[Any], segments: Mapping[str, NDArray[np.int64]]
) -> dict[str, tuple[float, float]]:
    found = {}
    for name, places in segments.items():
        off = predicted[places] - label[places]
        found[name] = float(off.mean()), float(off.std(ddof=1) / np.sqrt(len(off)))
    return found


def draw_confusion(label: NDArray[Any], predicted: NDArray[Any]) -> "Picture":
    """Counts of predicted classes by label; both arrays of names, shape (n,)."""
    from sklearn.metrics import confusion_matrix

    classes = sorted({*label.tolist(), *predicted.tolist()})
    counts = confusion_matrix(label, predicted, labels=classes)
    picture = Picture("Confusion, rows by label", "predicted", "label")
    picture.axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues")
    if len(classes) <= SHOWN_COLUMNS:
        picture.axes.set_xticks(range(len(classes)), classes, rotation=90)
        picture.axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= BINS:
        for (row, column), count in np.ndenumerate(counts):
            picture.axes.text(column, row, str(count), ha="center", va="center")
    return picture


def _draw_numbers(label: NDArray[Any], predicted: NDArray[Any]) -> dict[str, bytes]:
    step = max(1, -(-len(label) // SHOWN_POINTS))
    fit = Picture("Predicted and actual", "predicted", "actual")
    fit.axes.plot(predicted[::step], label[::step], ".", markersize=2)
    ends = [float(predicted.min()), float(predicted.max())]
    fit.axes.plot(ends, ends, "--", color="grey")
    residuals = draw_residuals(label, predicted)
    return {"predicted_vs_actual": fit.png(), "residuals": residuals.png()}


def draw_residuals(label: NDArray[Any], predicted: NDArray[Any]) -> "Picture":
    """Distribution of predicted minus actual; both arrays of shape (n,)."""
    picture = Picture("Residuals", "predicted - actual", "rows")
    picture.axes.hist(predicted - label, bins=40)
    return picture


def _draw_importances(importances: Mapping[str, float]) -> bytes:
    top = sorted(importances.items(), key=lambda item: item[1])[-SHOWN_COLUMNS:]
    picture = Picture("Permutation importance", "rise of the loss when shuffled", "", left=0.42)
    picture.axes.barh([name for name, _ in top], [value for _, value in top])
    picture.axes.tick_params(axis="y", labelsize=7)
    return picture.png()


class Picture:
    """One matplotlib figure, which notebooks show; not pyplot, which keeps state between threads.

    `axes` are its first axes, `figure` is the whole of it.
    """

    def __init__(
        self,
        title: str,
        x: str,
        y: str,
        left: float = 0.14,
        size_inches: tuple[float, float] = SIZE_INCHES,
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=size_inches, dpi=DOTS_PER_INCH)
        FigureCanvasAgg(self.figure)
        # Margins by hand: matplotlib's layouts draw everything twice to find them.
        self.axes: Axes = self.figure.add_axes((left, 0.14, 0.96 - left, 0.76))
        self.axes.set(title=title, xlabel=x, ylabel=y)

    def png(self) -> bytes:
        """The figure as a PNG."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png")
        return buffer.getvalue()

    def save(self, file: str | Path) -> None:
        """Write the figure to a file, in the format that its name ends with."""
        self.figure.savefig(file)

    _repr_png_ = png
