"""Pictures of a verdict of the promotion gate, as PNG bytes for the Dagster UI."""

from collections.abc import Mapping

from ml_platform.pictures import draw_interval, in_markdown
from ml_platform.spec.declared import METRICS
from ml_platform.spec.use_case import UseCase
from ml_platform.training.plots import SHOWN_COLUMNS, Picture
from ml_platform.training.verdict import GateVerdict

BINS = 40
BETTER, WORSE = "tab:blue", "tab:red"


def draw_verdict(use_case: UseCase, verdict: GateVerdict) -> dict[str, bytes]:
    """The improvement with its bounds, the metrics of both models, the segments; by name."""
    if not len(verdict.improvements):
        return {}
    pictures = {
        "improvement": _draw_improvement(use_case, verdict),
        "metrics": _draw_metrics(use_case, verdict),
    }
    if verdict.segments:
        pictures["segments"] = _draw_segments(use_case, verdict)
    return pictures


def describe_improvement(use_case: UseCase, figures: Mapping[str, float]) -> str:
    """The improvement with its bounds in Markdown of few characters, from a promotion's figures.

    Empty where there was no champion to compare with.
    """
    if "improvement_lower" not in figures:
        return ""
    lower, value, upper, needed = (
        figures[name]
        for name in ("improvement_lower", "improvement", "improvement_upper", "min_improvement")
    )
    picture = in_markdown(draw_interval(lower, value, upper, needed), "improvement")
    return (
        f"{picture}\n\n{use_case.model.metric} improves by {value:+.4f}, bounds {lower:+.4f} and "
        f"{upper:+.4f} at {figures['confidence']:.0%} each; the red line is what is needed, "
        f"{needed:+g}"
    )


def _draw_improvement(use_case: UseCase, verdict: GateVerdict) -> bytes:
    figures, gate = verdict.figures, use_case.gate
    picture = Picture(
        f"Improvement of {use_case.model.metric} in {len(verdict.improvements)} resamples",
        "improvement, right is better", "resamples",
    )  # fmt: skip
    picture.axes.locator_params(axis="x", nbins=5)
    picture.axes.hist(verdict.improvements, bins=BINS, color="lightsteelblue")
    picture.axes.axvspan(
        figures["improvement_lower"], figures["improvement_upper"], alpha=0.15,
        label=f"bounds at {gate.confidence:.0%}, one-sided each",
    )  # fmt: skip
    picture.axes.axvline(figures["improvement"], label=f"measured {figures['improvement']:+.4f}")
    picture.axes.axvline(
        gate.min_improvement, color=WORSE, linestyle="--", label=f"needed {gate.min_improvement:+g}"
    )
    picture.axes.legend(fontsize=7)
    return picture.png()


def _draw_metrics(use_case: UseCase, verdict: GateVerdict) -> bytes:
    figures = verdict.figures
    names = [
        name
        for name in METRICS[use_case.label.task]
        if f"challenger_{name}" in figures and f"champion_{name}" in figures
    ][::-1]
    picture = Picture("Metrics of both", "each scaled to the larger of the two", "", left=0.3)
    for row, name in enumerate(names):
        ours, theirs = figures[f"challenger_{name}"], figures[f"champion_{name}"]
        largest = max(abs(ours), abs(theirs)) or 1.0
        for shift, value, color in ((0.2, ours, BETTER), (-0.2, theirs, "silver")):
            bar = picture.axes.barh(row + shift, value / largest, 0.38, color=color)
            picture.axes.bar_label(bar, [f"{value:.4f}"], label_type="center", fontsize=7)
    picture.axes.set_yticks(range(len(names)), names, fontsize=8)
    picture.axes.set_title(f"Challenger (blue) and champion {figures['champion_version']:.0f}")
    return picture.png()


def _draw_segments(use_case: UseCase, verdict: GateVerdict) -> bytes:
    worst = sorted(verdict.segments, key=lambda s: -s.improvement)[-SHOWN_COLUMNS:]
    picture = Picture(
        f"{use_case.model.metric} by segment", "improvement, right is better", "", left=0.34
    )
    picture.axes.locator_params(axis="x", nbins=5)
    picture.axes.barh(
        [f"{segment.name} ({segment.rows})" for segment in worst],
        [segment.improvement for segment in worst],
        color=[BETTER if segment.passed else WORSE for segment in worst],
    )
    picture.axes.axvline(-(use_case.gate.segment_tolerance or 0.0), color=WORSE, linestyle="--")
    picture.axes.axvline(0, color="grey", linewidth=0.8)
    picture.axes.tick_params(axis="y", labelsize=7)
    return picture.png()
