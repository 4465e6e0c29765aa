"""Train one model version at a cutoff: only what was known before it is used."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pandas as pd

from ml_platform.errors import ModelRefused, TrainingFailed
from ml_platform.extras import extra
from ml_platform.metrics import measure
from ml_platform.registry import Registry, SeenColumn, TrainedModel, predict
from ml_platform.registry.prediction import POSITIVE
from ml_platform.registry.versions import fitted_columns
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import ROWS, SECONDS, Commit, Lake
from ml_platform.training.estimator import SEED, build_estimator, without_columns
from ml_platform.training.importances import measure_importances
from ml_platform.training.plots import draw
from ml_platform.training.provenance import describe_code, describe_parameters, fingerprint
from ml_platform.training.sample import ALL_ROWS, Sample
from ml_platform.training.segments import segments_of
from ml_platform.training.too_good import find_too_good
from ml_platform.training.training_set import TrainingSet, collect, targets

Build = Callable[[UseCase], Any]
"""Returns an unfitted estimator."""
HOLDOUT = "holdout_"
"""Prefix of what was measured on rows that the model was not fitted on."""
MOST_CATEGORIES = 1000
"""Of a column with more texts than these, none is kept: it names things, it does not sort them."""


@dataclass(frozen=True)
class TrainingReport:
    """One training run, or the earlier one that it would have repeated."""

    version: int
    is_new: bool
    """False where the same inputs had made this version before."""
    cutoff: datetime
    snapshot: int
    trained_from: datetime
    trained_until: datetime
    rows: Mapping[str, int]
    """Labelled rows, `fitted` and `holdout`."""
    metrics: Mapping[str, float]
    """Metrics of the holdout, prefixed `holdout_`; row counts and seconds."""
    importances: Mapping[str, float]
    """How much the loss of the holdout rises when a column is shuffled."""
    plots: Mapping[str, bytes]
    """PNG images by name."""
    digest: str
    """SHA-256 of the pickled estimator."""
    run_id: str
    """MLflow run."""
    left_out: tuple[str, ...] = ()
    """Columns that it was trained without, since no fitted row has a value of them."""
    too_good: str = ""
    """Why its holdout metric is too good to be true; empty where it is not."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should look at before the version serves, a sentence each."""
        doubt = f"too good to be true: {self.too_good}; look for what is known only afterwards"
        return (*self._without, *((doubt,) if self.too_good else ()))

    @property
    def _without(self) -> tuple[str, ...]:
        if not self.left_out:
            return ()
        return (
            f"trained without {', '.join(self.left_out)}: none of the {self.rows['fitted']} fitted "
            f"rows, from {self.trained_from.isoformat()} to {self.trained_until.isoformat()}, has "
            "a value; check what fills it, then train again",
        )


@dataclass(frozen=True)
class Fit:
    """A fitted estimator, as `predict` wants it."""

    estimator: Any
    columns: Mapping[str, str]
    classes: tuple[str, ...]
    reference: pd.DataFrame
    """Sample of the fitted rows by time: model columns, `label`, prediction columns."""
    seconds: float
    """What fitting took."""
    left_out: frozenset[str] = frozenset()
    """Columns without a value, which the estimator was not given."""


def train(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    cutoff: datetime,
    commit: Commit,
    *,
    tags: Mapping[str, str],
    window: Duration | None = None,
    sample: Sample = ALL_ROWS,
) -> TrainingReport:
    """Fit an estimator on what was known before a cutoff, judge it on the holdout, register it.

    window: length of the training set, by default `model.window`. sample: which of the rows before
    the holdout are fitted on. Both stand with the version, as tags and as parameters of its run.

    The version that is judged is the one that is registered: it is not fitted again on the
    holdout. The same code and data at the same cutoff give the same version, which is not made
    again. Raises TrainingFailed or SpecError.
    """
    if cutoff.tzinfo is None:
        raise ValueError(f"cutoff {cutoff.isoformat()} needs a time zone")
    with extra():
        # Diagrams are drawn after hours of fitting: not the time to find it missing.
        import matplotlib.figure  # noqa: F401
    began = time.monotonic()
    cutoff = cutoff.astimezone(use_case.calendar.timezone)
    threads = registry.settings.threads
    with lake.cursor(use_case.timezone) as cursor:
        # Fixed before anything is read: what is written from now on does not count.
        snapshot = lake.snapshot(cursor)
        data = collect(cursor, lake, use_case, cutoff, snapshot, window, sample)
    inputs = fingerprint(use_case, cutoff.isoformat(), data.digest, threads)
    version, plots = registry.find(use_case, inputs), None
    if version is None:
        asked = {
            "training.window": str(window or use_case.model.window),
            "training.sample": str(sample),
        }
        trained = _trained(use_case, data, threads, inputs, asked)
        described = {
            **describe_code(use_case.folder),
            "run_id": commit.run_id,
            "threads": str(threads),
            "training_data.sha256": data.digest,
            **asked,
            SECONDS: f"{time.monotonic() - began:.3f}",
            ROWS: str(len(data.fitted) + len(data.holdout)),
            **tags,
        }
        version, plots = registry.register(use_case, trained, tags=described), trained.plots
    model = registry.load(use_case, version)
    return TrainingReport(
        version=version,
        is_new=plots is not None,
        cutoff=model.cutoff,
        snapshot=model.snapshot,
        trained_from=model.trained_from,
        trained_until=model.trained_until,
        rows={"fitted": len(data.fitted), "holdout": len(data.holdout)},
        metrics=model.metrics,
        importances=model.importances,
        plots=registry.plots(use_case, version) if plots is None else plots,
        digest=model.digest,
        run_id=model.run_id,
        left_out=tuple(name for name in model.columns if name in model.left_out),
        too_good=model.too_good,
    )


def fit(use_case: UseCase, data: TrainingSet, threads: int, build: Build = build_estimator) -> Fit:
    """Fit an estimator on a training set, without registering anything.

    threads: how many it may use; build: what builds it, by default as the use case says.
    Raises TrainingFailed where it cannot be fitted.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # Sums over threads are rounded in another order when their number differs.
    with threadpool_limits(limits=threads):
        started = time.perf_counter()
        bare = fit_estimator(use_case, data.fitted, build)
        seconds = time.perf_counter() - started
        sample = data.fitted.sample(
            min(len(data.fitted), use_case.monitoring.reference_rows), random_state=SEED
        ).sort_index()
        sampled = _predicted(use_case, bare, sample)
    reference = sample[[*bare.columns, "label"]].join(sampled).reset_index(drop=True)
    return replace(bare, reference=reference, seconds=seconds)


def fit_estimator(use_case: UseCase, rows: pd.DataFrame, build: Build = build_estimator) -> Fit:
    """Fit an estimator on labelled rows; it has no reference sample yet.

    A column without any value is left out: it says nothing, and most estimators cannot be fitted
    on one. Raises TrainingFailed where no column has a value.
    """
    columns = use_case.model_columns
    left_out = frozenset(name for name in columns if rows[name].isna().all())
    given = fitted_columns(columns, left_out)
    if not given:
        raise TrainingFailed(
            f"{use_case.name}: none of the columns that the model is given has a value in "
            f"{len(rows)} labelled rows ({', '.join(columns)}); check that the feature views are "
            "computed for this range, and that the files that landed fill these columns"
        )
    estimator = without_columns(build(use_case), left_out)
    target = targets(use_case.label.task, rows["label"])
    try:
        estimator.fit(rows[list(given)], target)
    except Exception as error:
        # A use case's own code can fail in any way.
        raise TrainingFailed(
            f"{use_case.name}: {type(estimator).__name__}.fit of {len(rows)} rows and "
            f"{len(given)} columns failed: {type(error).__name__}: {error}"
            + _without(use_case, left_out)
        ) from error
    classes = _classes(use_case, estimator)
    return Fit(estimator, columns, classes, rows.head(0), 0.0, left_out)


def _without(use_case: UseCase, left_out: frozenset[str]) -> str:
    if not left_out:
        return ""
    return (
        f". No row has a value of {', '.join(sorted(left_out))}, so the estimator is not given it: "
        f"where {use_case.model_file} names it, choose columns by their type instead"
    )


def _classes(use_case: UseCase, estimator: Any) -> tuple[str, ...]:
    if use_case.label.task == "regression":
        return ()
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise TrainingFailed(
            f"{use_case.name}: {type(estimator).__name__} has no classes_ after fit, so the "
            "columns of its predict_proba have no names; set it in fit, as scikit-learn asks"
        )
    names = tuple(str(name) for name in classes)
    if use_case.label.task == "binary" and POSITIVE not in names:
        raise TrainingFailed(
            f"{use_case.name}: {type(estimator).__name__} has classes_ {names} after it was fitted "
            "on 0 and 1; it should keep them"
        )
    return names


def _trained(
    use_case: UseCase, data: TrainingSet, threads: int, inputs: str, asked: Mapping[str, str]
) -> TrainedModel:
    from threadpoolctl import threadpool_limits

    task = use_case.label.task
    fitted = fit(use_case, data, threads)
    label = targets(task, data.holdout["label"])
    with threadpool_limits(limits=threads):
        prediction = _predicted(use_case, fitted, data.holdout)
        given = fitted_columns(fitted.columns, fitted.left_out)
        inputs_of_holdout = data.holdout[list(given)]
        importances = measure_importances(
            fitted.estimator, fitted.classes, inputs_of_holdout, label
        )
    measured = measure(task, data.holdout["label"], prediction)
    return TrainedModel(
        estimator=fitted.estimator,
        columns=fitted.columns,
        classes=fitted.classes,
        cutoff=data.cutoff,
        snapshot=data.snapshot,
        trained_from=data.trained_from,
        trained_until=data.trained_until,
        fingerprint=inputs,
        metrics={
            **{HOLDOUT + name: value for name, value in measured.items()},
            "rows_fitted": float(len(data.fitted)),
            "rows_holdout": float(len(data.holdout)),
            "fit_seconds": fitted.seconds,
        },
        importances=importances,
        reference=fitted.reference,
        seen={column: _seen(data.fitted[column]) for column in fitted.columns},
        plots=draw(task, label, prediction, importances, segments_of(use_case, data.holdout)),
        parameters={**describe_parameters(use_case, fitted.estimator, threads), **asked},
        left_out=fitted.left_out,
        too_good=find_too_good(task, measured, _labelled(data, given), importances),
    )


def _labelled(data: TrainingSet, columns: Collection[str]) -> pd.DataFrame:
    """All labelled rows, in the columns that the estimator is given and `label`."""
    return pd.concat([part[[*columns, "label"]] for part in (data.fitted, data.holdout)])


def _predicted(use_case: UseCase, fitted: Fit, rows: pd.DataFrame) -> pd.DataFrame:
    try:
        return predict(use_case, fitted, rows)
    except ModelRefused as error:
        raise TrainingFailed(str(error)) from error


def _seen(values: "pd.Series[Any]") -> SeenColumn:
    missing = bool(values.isna().any())
    if values.dtype != object:
        return SeenColumn(missing)
    texts = values.dropna().unique()
    # Of a column that was left out any text may come: nothing is known of it.
    return SeenColumn(missing, frozenset(texts) if 0 < len(texts) <= MOST_CATEGORIES else None)
