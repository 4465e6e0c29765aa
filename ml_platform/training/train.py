"""Train one model version at a cutoff: only what was known before it is used."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from ml_platform.extras import extra
from ml_platform.metrics import measure
from ml_platform.registry import Registry, SeenColumn, TrainedModel
from ml_platform.registry.versions import fitted_columns
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import ROWS, SECONDS, Commit, Lake
from ml_platform.training.fitting import fit, predicted
from ml_platform.training.importances import measure_importances
from ml_platform.training.plots import draw
from ml_platform.training.provenance import describe_code, describe_parameters, fingerprint
from ml_platform.training.sample import ALL_ROWS, Sample
from ml_platform.training.segments import segments_of
from ml_platform.training.too_good import find_too_good
from ml_platform.training.training_set import TrainingSet, collect, targets

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


def _trained(
    use_case: UseCase, data: TrainingSet, threads: int, inputs: str, asked: Mapping[str, str]
) -> TrainedModel:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    task = use_case.label.task
    fitted = fit(use_case, data, threads)
    label = targets(task, data.holdout["label"])
    with threadpool_limits(limits=threads):
        prediction = predicted(use_case, fitted, data.holdout)
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
        seen={
            # Of a column that was left out anything may come: nothing is known of it.
            column: SeenColumn(True) if column in fitted.left_out else _seen(data.fitted[column])
            for column in fitted.columns
        },
        plots=draw(task, label, prediction, importances, segments_of(use_case, data.holdout)),
        parameters={**describe_parameters(use_case, fitted.estimator, threads), **asked},
        left_out=fitted.left_out,
        too_good=find_too_good(task, measured, _labelled(data, given), importances),
    )


def _labelled(data: TrainingSet, columns: Collection[str]) -> pd.DataFrame:
    """All labelled rows, in the columns that the estimator is given and `label`."""
    return pd.concat([part[[*columns, "label"]] for part in (data.fitted, data.holdout)])


def _seen(values: "pd.Series[Any]") -> SeenColumn:
    missing = bool(values.isna().any())
    if values.dtype != object:
        return SeenColumn(missing)
    texts = values.dropna().unique()
    return SeenColumn(missing, frozenset(texts) if len(texts) <= MOST_CATEGORIES else None)
