"""Which of two models is better on the same rows, beyond noise and nowhere worse than allowed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import FeatureError
from ml_platform.metrics import measure
from ml_platform.registry import NOT_JUDGED, ModelVersion, predict
from ml_platform.resampling import everything, gain, resampled_gain, statistic
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.training.segments import groups_of


@dataclass(frozen=True)
class Segment:
    """Both models on the rows that have one value of a column."""

    column: str
    group: str
    rows: int
    challenger: float
    champion: float
    improvement: float
    """In the unit of the metric; negative where the challenger is worse."""
    passed: bool

    @property
    def name(self) -> str:
        return f"{self.column}={self.group}"


@dataclass(frozen=True)
class GateVerdict:
    """What the gate says about a challenger, and all that it rests on."""

    decision: Literal["promoted", "refused"]
    reason: str
    figures: Mapping[str, float]
    """Rows, every metric of both, the improvement with its bounds, segments."""
    segments: tuple[Segment, ...] = ()
    improvements: NDArray[np.float64] = field(
        default_factory=lambda: np.empty(0), compare=False, repr=False
    )
    """Improvement of each resample, shape (resamples,); empty where nothing was compared."""

    @property
    def is_unjudged(self) -> bool:
        """Whether there was nothing to judge by: that is neither better nor worse."""
        return self.decision == "refused" and self.reason.startswith(NOT_JUDGED)


def judged_range(challenger: ModelVersion, champion: ModelVersion | None) -> Window | None:
    """Event times that neither was fitted on, before the challenger's cutoff; None where empty."""
    starts = [challenger.trained_until, *([champion.trained_until] if champion else [])]
    start = max(starts, key=lambda moment: moment.astimezone(UTC))
    if start.astimezone(UTC) >= challenger.cutoff.astimezone(UTC):
        return None
    return Window(start, challenger.cutoff)


def judge(
    use_case: UseCase,
    challenger: ModelVersion,
    champion: ModelVersion | None,
    rows: pd.DataFrame,
    *,
    unloadable: str | None = None,
) -> GateVerdict:
    """Whether a challenger is better than the champion on the same labelled rows.

    rows: `event_time`, the model's columns and `label`, known before the challenger's cutoff;
    those outside of `judged_range` are left out. A challenger is promoted where

    - the lower bound of the improvement of `model.metric` is above `gate.min_improvement`. The
      bound is the one-sided one at `gate.confidence` of the paired bootstrap: rows are drawn with
      replacement, both models are measured on the same draw. Draws take rows for independent;
    - no metric in `gate.guards` is worse by more than is allowed;
    - in no segment `model.metric` is worse by more than `gate.segment_tolerance`.

    The first model, and one whose champion cannot score today's features, has nobody to beat; so
    has one whose champion cannot be loaded: `champion` is None then, and `unloadable` says why.
    Where rows are too few or the metric is not defined on them the challenger is refused: what
    cannot be measured is no reason to change what serves.
    Raises ModelRefused or FeatureError where the challenger itself cannot predict.
    """
    rows = _unseen(challenger, champion, rows)
    figures = {"rows": float(len(rows))}
    if champion is not None:
        figures["champion_version"] = float(champion.version)
    if len(rows) < use_case.model.min_rows:
        reason = NOT_JUDGED + _too_few(use_case, challenger, champion, rows)
        return GateVerdict("refused", reason, figures)
    metric = use_case.model.metric
    ours = predict(use_case, challenger, rows)
    measured = measure(use_case.label.task, rows["label"], ours)
    figures |= {f"challenger_{name}": value for name, value in measured.items()}
    if metric not in measured:
        reason = f"{metric} is not defined on {len(rows)} rows whose labels are all the same"
        reason = f"{NOT_JUDGED}{reason}; take a longer model.holdout"
        return GateVerdict("refused", reason, figures)
    if champion is None:
        why = unloadable or "first model"
        return GateVerdict("promoted", f"{why}, {metric} {measured[metric]:.4f}", figures)
    try:
        theirs = predict(use_case, champion, rows)
    except FeatureError as error:
        reason = f"champion {champion.version} cannot score today's features: {error}"
        return GateVerdict("promoted", reason, figures)
    return _compared(use_case, champion.version, rows, (ours, theirs), figures)


def _unseen(
    challenger: ModelVersion, champion: ModelVersion | None, rows: pd.DataFrame
) -> pd.DataFrame:
    window_range = judged_range(challenger, champion)
    if window_range is None or not len(rows):
        return rows.iloc[:0]
    times = rows["event_time"]
    inside = (times >= window_range.start) & (times < window_range.end)
    return rows[inside].reset_index(drop=True)


def _too_few(
    use_case: UseCase, challenger: ModelVersion, champion: ModelVersion | None, rows: pd.DataFrame
) -> str:
    window_range = judged_range(challenger, champion)
    if window_range is None:
        assert champion is not None
        return (
            f"nothing to compare on: champion {champion.version} was fitted on all that was known "
            f"before the cutoff, up to {champion.trained_until.isoformat()}"
        )
    return (
        f"{len(rows)} labelled rows that neither was fitted on in {window_range}, "
        f"model.min_rows is {use_case.model.min_rows}"
    )


def _compared(
    use_case: UseCase,
    champion: int,
    rows: pd.DataFrame,
    predictions: tuple[pd.DataFrame, pd.DataFrame],
    figures: Mapping[str, float],
) -> GateVerdict:
    gate, metric = use_case.gate, use_case.model.metric
    measured = measure(use_case.label.task, rows["label"], predictions[1])
    found = {**figures, **{f"champion_{name}": value for name, value in measured.items()}}
    improvement = _improvement(found, metric)
    improvements = resampled_gain(metric, use_case.label.task, rows["label"], *predictions)
    lower, upper = np.quantile(improvements, [1 - gate.confidence, gate.confidence]).tolist()
    segments = tuple(_segments(use_case, rows, predictions))
    found |= {
        "improvement": improvement,
        "improvement_lower": lower,
        "improvement_upper": upper,
        "confidence": gate.confidence,
        "min_improvement": gate.min_improvement,
        **{f"segment {s.name}": s.improvement for s in segments},
        **{f"rows {s.name}": float(s.rows) for s in segments},
    }
    against = (
        f"{metric} {found[f'challenger_{metric}']:.4f} against {found[f'champion_{metric}']:.4f} "
        f"of champion {champion} on {len(rows)} rows: improvement {improvement:+.4f}, "
        f"above {lower:+.4f} at {gate.confidence:.0%} (paired bootstrap of {len(improvements)}), "
        f"needed {gate.min_improvement:+.4f}"
    )
    wrong = [
        *([] if lower > gate.min_improvement else ["not better beyond noise"]),
        *_broken_guards(use_case, found),
        *_broken_segments(use_case, segments),
    ]
    reason = "; ".join([*wrong, against])
    return GateVerdict("refused" if wrong else "promoted", reason, found, segments, improvements)


def _improvement(figures: Mapping[str, float], metric: Any) -> float:
    ours, theirs = (np.array(figures[f"{role}_{metric}"]) for role in ("challenger", "champion"))
    return float(gain(metric, ours, theirs))


def _segments(
    use_case: UseCase, rows: pd.DataFrame, predictions: tuple[pd.DataFrame, pd.DataFrame]
) -> Iterator[Segment]:
    gate, metric, task = use_case.gate, use_case.model.metric, use_case.label.task
    tolerance = gate.segment_tolerance or 0.0
    for column in gate.segments:
        for group, places in groups_of(rows[column]):
            if len(places) < gate.segment_min_rows:
                continue
            label, weights = rows["label"].iloc[places], everything(len(places))
            ours, theirs = (
                statistic(metric, task, label, each.iloc[places])(weights) for each in predictions
            )
            better = float(gain(metric, ours, theirs)[0])
            if not np.isfinite(better):
                continue
            yield Segment(
                column=column,
                group=group,
                rows=len(places),
                challenger=float(ours[0]),
                champion=float(theirs[0]),
                improvement=better,
                passed=better >= -tolerance,
            )


def _broken_guards(use_case: UseCase, figures: Mapping[str, float]) -> Iterator[str]:
    for metric, allowed in use_case.gate.guards.items():
        if f"challenger_{metric}" not in figures or f"champion_{metric}" not in figures:
            yield f"{metric}, which gate.guards asks for, is not defined on these rows"
        elif (better := _improvement(figures, metric)) < -allowed:
            ours, theirs = figures[f"challenger_{metric}"], figures[f"champion_{metric}"]
            yield (
                f"{metric} {ours:.4f} against {theirs:.4f} is worse by {-better:.4f}, "
                f"allowed {allowed:.4f}"
            )


def _broken_segments(use_case: UseCase, segments: Sequence[Segment]) -> Iterator[str]:
    for segment in segments:
        if not segment.passed:
            yield (
                f"{segment.name} {segment.challenger:.4f} against {segment.champion:.4f} on "
                f"{segment.rows} rows is worse by {-segment.improvement:.4f}, "
                f"allowed {use_case.gate.segment_tolerance or 0.0:.4f}"
            )
