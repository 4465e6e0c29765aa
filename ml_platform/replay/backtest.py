"""A backtest: an estimator on history as if it had served, beside the champions of that time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from html import escape
from itertools import takewhile
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import EmptyPartition, LabelsNotArrived, PlatformError, TrainingFailed
from ml_platform.registry import ModelVersion, Registry, champions_of
from ml_platform.replay.comparison import CONFIDENCE, TAILS
from ml_platform.replay.outcome import ReplayOutcome
from ml_platform.replay.replay_inputs import ReplayInputs, looking_back
from ml_platform.replay.replay_request import EVERY, NEVER, SCHEDULE, Policy
from ml_platform.replay.versions import Versions
from ml_platform.resampling import gain, resampled_gain
from ml_platform.spec.declared import Metric
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake
from ml_platform.training.estimator import Hook, prepare_estimator
from ml_platform.training.fitting import Recipe

FEWEST_WINDOWS = 10
"""With fewer, resamples of windows say little of the noise: rows are drawn instead."""
MODEL, CHAMPION = "model", "champion"


@dataclass(frozen=True, repr=False, eq=False)
class Backtest:
    """An estimator and the champions on the same rows, by all labels known now."""

    use_case: str
    metric: Metric
    """What both are compared by: that of the promotion gate."""
    range: Window
    retrain: str
    """When the estimator was trained again."""
    rows: int
    """Labelled predictions of both."""
    model: Mapping[str, float]
    """Every metric of the estimator's predictions taken together."""
    champion: Mapping[str, float]
    """The same of the champions' predictions of the same rows."""
    improvement: float
    """How much better the estimator is by `metric`, in its unit; negative where it is worse."""
    bounds: tuple[float, float]
    """Where the improvement lies with 95% confidence, by the paired bootstrap."""
    resampled: Literal["partitions", "rows"]
    """What the bootstrap drew."""
    improvements: NDArray[np.float64]
    """Improvement of each resample, shape (resamples,)."""
    trainings: pd.DataFrame
    """A row for each cutoff: `cutoff`, `trained_from`, `trained_until`, `seconds`, `problem`."""
    by_partition: pd.DataFrame
    """By partition key: `window_at`, `labelled`, `model`, `champion` (values of `metric`),
    `improvement`, `cutoff` of the estimator, `champion_version`."""
    predictions: pd.DataFrame
    """Entity, `event_time`, `label`, prediction columns, and those of the champion, which begin
    with `champion_`; `champion_version`."""
    skipped: Mapping[Window, PlatformError]
    """Windows that were left out, and why."""

    @property
    def is_better(self) -> bool | None:
        """Whether the estimator is better beyond noise; None where the interval holds 0."""
        low, high = self.bounds
        return None if low <= 0 <= high else low > 0

    @property
    def answer(self) -> str:
        """In a sentence which is better, and how sure that is."""
        low, high = self.bounds
        words = {True: "Better beyond noise", False: "Worse beyond noise", None: "Within noise"}
        said = (
            f"{words[self.is_better]}: {self.metric} {self.model[self.metric]:.4f} against "
            f"{self.champion[self.metric]:.4f} of the champions on {self.rows} predictions in "
            f"{len(self.by_partition)} partitions, improvement {self.improvement:+.4f} "
            f"({CONFIDENCE:.0%}: {low:+.4f} to {high:+.4f}, paired bootstrap of "
            f"{len(self.improvements)} over {self.resampled})"
        )
        failed = int((self.trainings["problem"] != "").sum())
        if failed:
            said += f"; {failed} of {len(self.trainings)} trainings failed, see trainings"
        if self.skipped:
            said += f"; {len(self.skipped)} partitions left out, see skipped"
        return said

    @property
    def metrics(self) -> pd.DataFrame:
        """Every metric of both on the same rows, by `metric`: `model`, `champion`."""
        found = {MODEL: self.model, CHAMPION: self.champion}
        return pd.DataFrame(found, dtype=np.float64).rename_axis("metric")

    def __repr__(self) -> str:
        return f"{self.use_case}: {self.answer}\n{self.metrics}"

    def _repr_html_(self) -> str:
        table = self.metrics.to_html(float_format="{:.4f}".format)
        return f"<p>{escape(f'{self.use_case}: {self.answer}')}</p>{table}"


def backtest(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    window_range: Window,
    model: Any = None,
    *,
    fit: Hook | None = None,
    retrain: str | None = None,
    threads: int,
) -> Backtest:
    """Train an estimator through a range of history, and hold it against the champions of then.

    It is trained at the start of the range and whenever `retrain` says, each time on what was known
    before that cutoff, over `model.window` and before `model.holdout`, as a challenger would be; it
    predicts each window from the cutoff on. Each window is also predicted by the version that was
    champion when it began. Both are given the same rows, with values as they were known then.

    model: an estimator, or a function that returns one; by default what the use case builds.
    fit: a function that fits it, as `model.fit` of a use case does; by default that one where the
    use case builds the estimator, else the estimator's own `fit`.
    retrain: `schedule`, `every:30d` or `never`; by default `model.schedule`, or every 30 days.
    threads: of model fitting. Nothing is written to the lake or the registry.
    Raises EmptyPartition without examples, NoChampion where no champion served in the range,
    TrainingFailed where the estimator cannot be trained at the first cutoff, LabelsNotArrived
    where the metric is not defined on the labels of the range.
    """
    policy = _policy(use_case, retrain)
    recipe = _recipe(use_case, model, fit)
    recipe.build()
    known = ReplayInputs.read(lake, use_case, looking_back(use_case, window_range))
    ours = Versions(known, threads, recipe)
    theirs = _Registered(known, threads, registry=registry)
    champions, skipped = _predicted_windows(lake, known, window_range)
    served, trainings = _train(ours, policy, champions, window_range)
    return _compare(use_case, policy, window_range, (ours, theirs), (served, champions),
                    trainings, skipped)  # fmt: skip


@dataclass
class _Registered(Versions):
    """Versions of the registry instead of versions that are trained."""

    registry: Registry | None = None

    def load(self, version: int) -> ModelVersion:
        assert self.registry is not None
        return self.registry.load(self.use_case, version)


def _recipe(use_case: UseCase, model: Any, fit: Hook | None) -> Recipe:
    if fit is not None and not callable(fit):
        raise TrainingFailed(f"fit is a {type(fit).__name__}; it should be a function")
    if model is None:
        declared = Recipe.of(use_case)
        return replace(declared, hook=fit or declared.hook)
    # The use case's own function fits what its own `build` returns.
    return Recipe(partial(prepare_estimator, use_case, model), fit)


def _policy(use_case: UseCase, retrain: str | None) -> Policy:
    chosen = retrain or (SCHEDULE if use_case.model.schedule else f"{EVERY}30d")
    policy = Policy.parse(chosen, use_case, "retrain")
    if policy.causes:
        raise PlatformError(
            f"retrain {chosen}: a backtest trains by the clock; write {NEVER}, {SCHEDULE} or "
            f"{EVERY}30d. `ml-platform replay` compares policies"
        )
    return policy


def _predicted_windows(
    lake: Lake, known: ReplayInputs, window_range: Window
) -> tuple[dict[Window, int], dict[Window, PlatformError]]:
    """Windows that have a champion and examples, with the champion; why others are left out."""
    use_case = known.use_case
    champions, lacking = champions_of(lake, use_case, window_range)
    empty: dict[Window, PlatformError] = {}
    for window in champions:
        rows = known.positions(window)
        if rows.start == rows.stop:
            empty[window] = EmptyPartition(f"{use_case.name} has no examples in {window}")
    if empty.keys() == champions.keys():
        raise next(iter((*empty.values(), *lacking.values())))
    left = {window: version for window, version in champions.items() if window not in empty}
    return left, {**lacking, **empty}


def _train(
    versions: Versions, policy: Policy, windows: Mapping[Window, int], window_range: Window
) -> tuple[dict[Window, int], pd.DataFrame]:
    """Which version predicts each window, and a row for each training."""
    use_case, (first, *_) = versions.use_case, windows
    later = [each.start for each, *_ in policy.cutoffs(use_case, window_range)]
    left = [first.start, *(cutoff for cutoff in later if utc(cutoff) > utc(first.start))]
    served: dict[Window, int] = {}
    trainings, version = [], None
    for window in windows:
        due = list(takewhile(lambda cutoff, end=window.start: utc(cutoff) <= utc(end), left))  # type: ignore[misc]
        left = left[len(due) :]
        # Of several that nothing was predicted between, the last one alone is of use.
        for cutoff in due[-1:]:
            version, row = _trained(versions, cutoff, version)
            trainings.append(row)
        assert version is not None
        served[window] = version
    return served, pd.DataFrame(trainings)


def _trained(
    versions: Versions, cutoff: datetime, before: int | None
) -> tuple[int, dict[str, object]]:
    """The version of a cutoff, or the one before where it cannot be trained; the training's row."""
    use_case = versions.use_case
    try:
        version = versions.train(cutoff, use_case.model.window)
    except TrainingFailed as error:
        if before is None:
            raise
        nothing = {"trained_from": pd.NaT, "trained_until": pd.NaT, "seconds": np.nan}
        return before, {"cutoff": cutoff, **nothing, "problem": str(error)}
    made = versions.load(version)
    return version, {
        "cutoff": cutoff,
        "trained_from": made.trained_from,
        "trained_until": made.trained_until,
        "seconds": versions.fit_seconds([version]),
        "problem": "",
    }


def _compare(
    use_case: UseCase,
    policy: Policy,
    window_range: Window,
    versions: tuple[Versions, Versions],
    served: tuple[Mapping[Window, int], Mapping[Window, int]],
    trainings: pd.DataFrame,
    skipped: Mapping[Window, PlatformError],
) -> Backtest:
    metric = use_case.model.metric
    ours, theirs = (ReplayOutcome.of(v, s) for v, s in zip(versions, served, strict=True))
    measured = [each.measure(use_case) if each.rows else {} for each in (ours, theirs)]
    if metric not in measured[0]:
        raise LabelsNotArrived(
            f"{use_case.name}: {metric} is not defined on the {ours.rows} labelled rows of "
            f"{window_range}; backtest a range whose labels have arrived"
        )
    improvement = gain(metric, *(np.array(each[metric]) for each in measured))
    resampled: Literal["partitions", "rows"] = "partitions"
    if ours.windows >= FEWEST_WINDOWS:
        drawn = gain(metric, ours.resampled(use_case), theirs.resampled(use_case))
        drawn = drawn[np.isfinite(drawn)]
    else:
        resampled, task = "rows", use_case.label.task
        drawn = resampled_gain(metric, task, ours.frame["label"], ours.frame, theirs.frame)
    low, high = np.quantile(drawn, TAILS).tolist()
    return Backtest(
        use_case=use_case.name, metric=metric, range=window_range, retrain=policy.name,
        rows=ours.rows, model=measured[0], champion=measured[1], improvement=float(improvement),
        bounds=(low, high), resampled=resampled, improvements=drawn, trainings=trainings,
        by_partition=pd.DataFrame(_by_partition(versions, served)).set_index("partition"),
        predictions=_predictions(versions, served), skipped=skipped,
    )  # fmt: skip


def _by_partition(
    versions: Sequence[Versions], served: Sequence[Mapping[Window, int]]
) -> Iterator[dict[str, object]]:
    (ours, theirs), use_case = versions, versions[0].use_case
    now, metric = ours.known.last_label, use_case.model.metric
    for window, version in served[0].items():
        champion = served[1][window]
        measured = ours.measure(version, window, now), theirs.measure(champion, window, now)
        found = [np.array(each.metrics.get(metric, np.nan)) for each in measured]
        yield {
            "partition": use_case.calendar.key(window),
            "window_at": window.start,
            "labelled": measured[0].labelled,
            MODEL: float(found[0]),
            CHAMPION: float(found[1]),
            "improvement": float(gain(metric, *found)),
            "cutoff": ours.load(version).cutoff,
            "champion_version": champion,
        }


def _predictions(
    versions: Sequence[Versions], served: Sequence[Mapping[Window, int]]
) -> pd.DataFrame:
    (ours, theirs), use_case = versions, versions[0].use_case
    known, columns = ours.known, [*use_case.prediction_columns]
    parts = []
    for window, version in served[0].items():
        keys = known.examples.iloc[known.positions(window)][[*use_case.examples.entity]]
        predicted = ours.predict(version, window)
        labelled = known.beside(predicted, window, known.last_label).set_index(predicted.index)
        champion = theirs.predict(served[1][window], window)[columns].add_prefix(f"{CHAMPION}_")
        part = pd.concat([keys, labelled[["event_time", "label", *columns]], champion], axis=1)
        parts.append(part.assign(champion_version=served[1][window]))
    return pd.concat(parts, ignore_index=True)
