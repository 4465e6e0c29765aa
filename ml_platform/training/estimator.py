"""The estimator that a use case's Python file builds, checked before it is fitted."""

import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from ml_platform.errors import Location, SpecError, TrainingFailed
from ml_platform.spec.modules import line_within, module_name, run_module
from ml_platform.spec.use_case import UseCase
from ml_platform.training.training_set import FitData

SEED = 0
Hook = Callable[[Any, FitData], Any]
"""Fits an estimator on data: returns nothing where it did so in place, else what is fitted."""


def build_estimator(use_case: UseCase) -> Any:
    """Call `model.build`; returns an unfitted estimator, repeatable where it can be seeded.

    The module stands alone: its functions and classes travel inside the pickled model, so that
    loading one needs none of the use case's files. Every `random_state` left at None is set.
    Raises SpecError, with the line of the function, where it yields anything else.
    """
    build, name, where = _declared(use_case, use_case.model.build)
    try:
        estimator = build()
    except Exception as error:
        # A use case's own code can fail in any way.
        line = line_of_failure(error, build) or where.line
        problem = f"{name}() raised {type(error).__name__}: {error}"
        raise SpecError(Location(where.file, line), "", problem) from error
    task = use_case.label.task
    if unfit := _problem_of(estimator, task, "returned", "end it with, for example, `return {}`"):
        raise SpecError(where, "", f"{name}() {unfit}")
    return seeded(estimator)


def load_hook(use_case: UseCase) -> Hook | None:
    """The function that `model.fit` names; None where the estimator's own `fit` fits it.

    Raises SpecError, with its line, where it does not take the estimator and the data.
    """
    if use_case.model.fit is None:
        return None
    hook, name, where = _declared(use_case, use_case.model.fit)
    try:
        inspect.signature(hook).bind(None, None)
    except TypeError as error:
        problem = f"{name}() should take the estimator and the data, `def {name}(estimator, data):`"
        raise SpecError(where, "", f"{problem}; {error}") from error
    return hook


def prepare_estimator(use_case: UseCase, model: Any) -> Any:
    """An unfitted copy of an estimator, or what a function builds, repeatable as far as possible.

    model: a scikit-learn compatible estimator, fitted or not, or a function that returns one.
    Raises TrainingFailed where it is neither.
    """
    from sklearn.base import clone

    task = use_case.label.task
    if callable(model) and not inspect.isclass(model) and not hasattr(model, "fit"):
        called = f"{getattr(model, '__name__', type(model).__name__)}()"
        try:
            model = model()
        except Exception as error:
            # Somebody's own code can fail in any way.
            raise TrainingFailed(f"{called} raised {type(error).__name__}: {error}") from error
        unfit = _problem_of(model, task, "returned", "return, for example, `{}`")
    else:
        called = "the model"
        with suppress(Exception):
            # What cannot be cloned has a problem that is named.
            model = clone(model)
        unfit = _problem_of(model, task, "is", "take, for example, `{}`")
    if unfit:
        raise TrainingFailed(f"{use_case.name}: {called} {unfit}")
    return seeded(model)


def load_module(use_case: str, file: Path) -> types.ModuleType:
    """Run a Python file as a module of its own; the same text is run only once.

    Its name, and all that is pickled of it, depend on its text alone: not on where the folder is,
    so that the same model is made of the same bytes on another machine.
    """
    import cloudpickle

    name = module_name(use_case, file)
    if name in sys.modules:
        return sys.modules[name]
    module = run_module(use_case, file)
    cloudpickle.register_pickle_by_value(module)
    for declared in vars(module).values():
        if inspect.isclass(declared) and declared.__module__ == name:
            _name_for_pickling(declared)
    return module


def seeded(estimator: Any) -> Any:
    """The estimator with every `random_state` that was left at None set to the same seed."""
    unset = {
        name: SEED
        for name, value in estimator.get_params(deep=True).items()
        if name.rpartition("__")[2] == "random_state" and value is None
    }
    return estimator.set_params(**unset) if unset else estimator


def without_columns(estimator: Any, left_out: Collection[str]) -> Any:
    """The unfitted estimator without columns that its column transformers name.

    What a use case's own classes name stays: only they know what to do without it.
    """
    from sklearn.compose import ColumnTransformer

    if not left_out:
        return estimator
    parts = [estimator, *estimator.get_params(deep=True).values()]
    for part in parts:
        if isinstance(part, ColumnTransformer):
            part.transformers = [
                (name, step, _kept(columns, left_out)) for name, step, columns in part.transformers
            ]
    return estimator


def line_of_failure(error: Exception, function: Callable[..., Any]) -> int | None:
    """The last line of a function's file that an error came through."""
    code = _code_of(function)
    return line_within(error, code.co_filename) if code else None


def _declared(use_case: UseCase, named: str) -> tuple[Callable[..., Any], str, Location]:
    """A function of the use case's Python file, its name, and where it begins."""
    file, name = use_case.folder / use_case.model_file, named.partition(":")[2]
    function = getattr(load_module(use_case.name, file), name, None)
    if not callable(function):
        raise SpecError(Location(file, 1), "", f"there is no function '{name}'")
    code = _code_of(function)
    return function, name, Location(file, code.co_firstlineno if code else None)


def _kept(columns: Any, left_out: Collection[str]) -> Any:
    if isinstance(columns, str):
        return [] if columns in left_out else columns
    if isinstance(columns, list | tuple):
        return [column for column in columns if column not in left_out]
    return columns


def _problem_of(estimator: Any, task: str, verb: str, remedy: str) -> str | None:
    """What is wrong with an estimator, None where nothing is.

    verb: how it came, such as `returned`; remedy: what to do instead, around `{}`.
    """
    from sklearn.base import clone

    kind = "Regressor" if task == "regression" else "Classifier"
    instead = f"; {remedy.format(f'HistGradientBoosting{kind}()')}"
    if estimator is None:
        return f"{verb} nothing{instead}"
    if inspect.isclass(estimator):
        name = estimator.__name__
        return f"{verb} the class {name}; {'return' if verb == 'returned' else 'take'} `{name}()`"
    called = type(estimator).__name__
    needed = "predict" if task == "regression" else "predict_proba"
    for method in ("fit", "get_params", "set_params", needed):
        if not hasattr(estimator, method):
            why = f"; a {task} label needs it" if method == needed else ""
            return f"{verb} a {called}, which has no {method}(){why}{instead}"
    if _is_fitted(estimator):
        return f"{verb} a {called} that is fitted already; return it unfitted"
    try:
        clone(estimator)
    except Exception as error:
        # A use case's own code can fail in any way.
        return f"{verb} a {called} that scikit-learn cannot clone: {error}"
    return None


def _is_fitted(estimator: Any) -> bool:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError):
        return False
    # Estimators without anything to fit always count as fitted.
    return bool([name for name in vars(estimator) if name.endswith("_") and name[0] != "_"])


def _name_for_pickling(declared: type) -> None:
    # cloudpickle gives a class that it pickles by value a random identity, and with it every
    # pickle of the model other bytes. There is no public way to choose it.
    from cloudpickle.cloudpickle import _lookup_class_or_track

    name = f"{declared.__module__}.{declared.__qualname__}"
    _lookup_class_or_track(hashlib.sha256(name.encode()).hexdigest()[:32], declared)


def _code_of(function: Any) -> types.CodeType | None:
    return getattr(inspect.unwrap(function), "__code__", None)
