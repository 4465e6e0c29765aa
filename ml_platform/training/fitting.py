"""Fit an estimator on a training set: by its own `fit`, or by a function that is given more."""

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from ml_platform.errors import ModelRefused, TrainingFailed
from ml_platform.registry import predict
from ml_platform.registry.prediction import POSITIVE
from ml_platform.registry.versions import fitted_columns
from ml_platform.spec.use_case import UseCase
from ml_platform.training.estimator import (
    SEED,
    Hook,
    build_estimator,
    line_of_failure,
    load_hook,
    without_columns,
)
from ml_platform.training.training_set import (
    FitData,
    Labelled,
    TrainingSet,
    cut_validation,
)


@dataclass(frozen=True)
class Recipe:
    """How an estimator is made."""

    build: Callable[[], Any]
    """Returns it, unfitted."""
    hook: Hook | None = None
    """Fits it; by default its own `fit` does."""

    @classmethod
    def of(cls, use_case: UseCase) -> "Recipe":
        """As `model.build` and `model.fit` say; SpecError where the latter cannot be called."""
        return cls(partial(build_estimator, use_case), load_hook(use_case))


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


def fit(use_case: UseCase, data: TrainingSet, threads: int, recipe: Recipe | None = None) -> Fit:
    """Fit an estimator on a training set, without registering anything.

    threads: how many it may use; recipe: by default that of the use case.
    A column without any value is left out: it says nothing, and most estimators cannot be fitted
    on one. Raises TrainingFailed where the estimator cannot be fitted, or no column has a value,
    and what the recipe raises.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    recipe = recipe or Recipe.of(use_case)
    # Outside of the limits, which hold for libraries that have been loaded.
    estimator = recipe.build()
    # Sums over threads are rounded in another order when their number differs.
    with threadpool_limits(limits=threads):
        started = time.perf_counter()
        bare = _fitted(use_case, data, threads, estimator, recipe.hook)
        seconds = time.perf_counter() - started
        sample = data.fitted.sample(
            min(len(data.fitted), use_case.monitoring.reference_rows), random_state=SEED
        ).sort_index()
        try:
            sampled = predicted(use_case, bare, sample)
        except TrainingFailed as error:
            raise TrainingFailed(f"{error}{_should(recipe.hook)}") from error
    reference = sample[[*bare.columns, "label"]].join(sampled).reset_index(drop=True)
    return replace(bare, reference=reference, seconds=seconds)


def predicted(use_case: UseCase, fitted: Fit, rows: pd.DataFrame) -> pd.DataFrame:
    """Predictions of rows; TrainingFailed where the estimator cannot make them."""
    try:
        return predict(use_case, fitted, rows)
    except ModelRefused as error:
        raise TrainingFailed(str(error)) from error


def _fitted(
    use_case: UseCase, data: TrainingSet, threads: int, estimator: Any, hook: Hook | None
) -> Fit:
    """The fitted estimator; it has no reference sample yet."""
    rows, later = cut_validation(use_case, data) if hook else (data.fitted, None)
    left_out = _without_value(use_case, rows)
    given = fitted_columns(use_case.model_columns, left_out)
    estimator = without_columns(estimator, left_out)
    training = Labelled.of(use_case, rows, given)
    if hook and later is not None:
        validation, everything = (
            Labelled.of(use_case, part, given) for part in (later, data.fitted)
        )
        shown = FitData(training, validation, everything, threads)
        called, run = _name(hook), partial(hook, estimator, shown)
    else:
        called = f"{type(estimator).__name__}.fit"
        run = partial(estimator.fit, training.rows, training.labels)
    try:
        returned = run()
    except Exception as error:
        # A use case's own code can fail in any way.
        line = line_of_failure(error, hook) if hook else None
        raise TrainingFailed(
            f"{use_case.name}: {called} of {len(rows)} rows and {len(given)} columns failed"
            f"{f' in line {line}' if line else ''}: {type(error).__name__}: {error}"
            + _advice(use_case, left_out)
        ) from error
    if hook and returned is not None:
        estimator = _require_predictor(use_case, called, returned)
    classes = _classes(use_case, estimator, hook)
    return Fit(estimator, use_case.model_columns, classes, rows.head(0), 0.0, left_out)


def _without_value(use_case: UseCase, rows: pd.DataFrame) -> frozenset[str]:
    columns = use_case.model_columns
    found = frozenset(name for name in columns if rows[name].isna().all())
    if len(found) == len(columns):
        raise TrainingFailed(
            f"{use_case.name}: none of the columns that the model is given has a value in "
            f"{len(rows)} labelled rows ({', '.join(columns)}); check that the feature views are "
            "computed for this range, and that the files that landed fill these columns"
        )
    return found


def _advice(use_case: UseCase, left_out: frozenset[str]) -> str:
    if not left_out:
        return ""
    return (
        f". No row has a value of {', '.join(sorted(left_out))}, so the estimator is not given it: "
        f"where {use_case.model_file} names it, choose columns by their type instead"
    )


def _require_predictor(use_case: UseCase, called: str, returned: Any) -> Any:
    """What a hook returned, where it can serve as a model."""
    task = use_case.label.task
    needed = ("predict" if task == "regression" else "predict_proba", "get_params")
    lacking = [method for method in needed if not hasattr(returned, method)]
    is_class = inspect.isclass(returned)
    if lacking or is_class:
        what = f"the class {returned.__name__}" if is_class else f"a {type(returned).__name__}"
        why = "" if is_class else f", which has no {lacking[0]}()"
        raise TrainingFailed(
            f"{use_case.name}: {called} returned {what}{why}; return the fitted estimator, or "
            "nothing where it is the one that was given"
        )
    return returned


def _classes(use_case: UseCase, estimator: Any, hook: Hook | None) -> tuple[str, ...]:
    if use_case.label.task == "regression":
        return ()
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise TrainingFailed(
            f"{use_case.name}: {type(estimator).__name__} has no classes_ after fit, so the "
            "columns of its predict_proba have no names; set it in fit, as scikit-learn asks"
            + _should(hook)
        )
    names = tuple(str(name) for name in classes)
    if use_case.label.task == "binary" and POSITIVE not in names:
        raise TrainingFailed(
            f"{use_case.name}: {type(estimator).__name__} has classes_ {names} after it was fitted "
            "on 0 and 1; it should keep them"
        )
    return names


def _should(hook: Hook | None) -> str:
    if hook is None:
        return ""
    return f"; {_name(hook)} should fit the estimator that it is given, or return a fitted one"


def _name(hook: Hook) -> str:
    return f"{getattr(hook, '__name__', type(hook).__name__)}()"
