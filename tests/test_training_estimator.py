import hashlib
import sys
import traceback

import cloudpickle
import pytest
from sklearn.base import BaseEstimator

from ml_platform.errors import SpecError
from ml_platform.training import build_estimator
from ml_platform.training.estimator import load_module
from tests.trips_use_case import write_folder

IMPORTS = """\
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.ensemble import RandomForestClassifier


def build():
"""


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("    LogisticRegression()\n", "returned nothing; end it with"),
        ("    return LogisticRegression\n", "returned the class LogisticRegression"),
        ("    return 3\n", "returned a int, which has no fit()"),
        ("    return LinearRegression()\n", "has no predict_proba(); a binary label needs it"),
        (
            "    return LogisticRegression().fit([[0], [1]], [0, 1])\n",
            "LogisticRegression that is fitted already",
        ),
    ],
)
def test_what_is_no_unfitted_estimator_is_refused_with_the_line_of_the_function(
    tmp_path, body, problem
):
    use_case = write_folder(tmp_path, "binary", IMPORTS + body)
    with pytest.raises(SpecError) as caught:
        build_estimator(use_case)
    assert str(caught.value).startswith(f"{use_case.folder / 'model.py'}:7: build() ")
    assert problem in str(caught.value)


def test_a_function_that_raises_is_refused_with_the_line_that_raised(tmp_path):
    use_case = write_folder(tmp_path, "binary", IMPORTS + "    x = 1\n    return x / 0\n")
    with pytest.raises(
        SpecError, match=r"model\.py:9: build\(\) raised ZeroDivisionError"
    ) as caught:
        build_estimator(use_case)
    shown = "".join(traceback.format_exception(caught.value))
    assert "return x / 0" in shown


def test_a_file_that_cannot_be_run_is_refused_with_its_line(tmp_path):
    text = "import no_such_package\n\n\ndef build():\n    return None\n"
    use_case = write_folder(tmp_path, "binary", text)
    with pytest.raises(SpecError, match=r"model\.py:1: ModuleNotFoundError"):
        build_estimator(use_case)


def test_an_estimator_that_cannot_be_cloned_is_refused(tmp_path):
    text = """\
from sklearn.linear_model import LogisticRegression


class Renamed(LogisticRegression):
    def __init__(self, c=1.0):
        super().__init__(C=c)


def build():
    return Renamed()
"""
    use_case = write_folder(tmp_path, "binary", text)
    with pytest.raises(SpecError, match=r"model\.py:9: .*scikit-learn cannot clone"):
        build_estimator(use_case)


def test_what_can_be_seeded_is_seeded_and_what_was_chosen_is_kept(tmp_path):
    body = "    return RandomForestClassifier({})\n"
    free = build_estimator(write_folder(tmp_path / "a", "binary", IMPORTS + body.format("")))
    chosen = write_folder(tmp_path / "b", "binary", IMPORTS + body.format("random_state=5"))
    assert free.random_state == 0
    assert build_estimator(chosen).random_state == 5


def test_the_same_text_is_run_once_and_other_text_is_another_module(tmp_path):
    first, copy, other = (tmp_path / name for name in ("first.py", "copy/first.py", "other.py"))
    copy.parent.mkdir()
    for file in (first, copy):
        file.write_text("x = object()\n")
    other.write_text("x = 1\n")
    assert load_module("case", first).x is load_module("case", copy).x
    assert load_module("case", other).x == 1
    assert not list(tmp_path.rglob("__pycache__"))


def test_classes_of_the_file_are_pickled_by_value_and_always_to_the_same_bytes(tmp_path):
    text = """\
from sklearn.base import BaseEstimator, ClassifierMixin


class Even(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = [0, 1]
        return self

    def predict_proba(self, X):
        return X


def build():
    return Even()
"""
    use_case = write_folder(tmp_path, "binary", text)
    pickled = cloudpickle.dumps(build_estimator(use_case))
    name = load_module(use_case.name, use_case.folder / "model.py").__name__
    # cloudpickle's own identity of a class is random, and with it every pickle.
    identity = hashlib.sha256(f"{name}.Even".encode()).hexdigest()[:32]
    assert identity.encode() in pickled
    # As in another process: the module is not there, and neither is what cloudpickle tracks of it.
    del sys.modules[name]
    assert isinstance(cloudpickle.loads(pickled), BaseEstimator)
    assert str(tmp_path).encode() not in pickled
