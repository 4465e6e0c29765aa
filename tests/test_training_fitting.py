"""A function of the use case's own that fits: what it is given, and what becomes of it."""

from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from ml_platform.errors import SpecError, TrainingFailed
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.training.fitting import Recipe, fit
from ml_platform.training.provenance import fingerprint
from ml_platform.training.training_set import TrainingSet, collect, cut_validation
from tests.trips_use_case import at, days, land, settings, trips, write_folder

CUTOFF = at(25)
BEGIN, HOLDOUT, VALIDATION = at(5), at(20), at(17)
"""Of a window of 20 days, a holdout of 5 and a validation of 3."""

MODEL = """\
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline


def build():
    numbers = make_column_selector(dtype_include="number")
    columns = make_column_transformer((SimpleImputer(keep_empty_features=True), numbers))
    return make_pipeline(columns, LogisticRegression())


def fit(estimator, data):
"""
FIT = "    estimator.fit(data.training.rows, data.training.labels)\n"


def with_hook(root: Path, body: str, declared: str = "validation: 3d", task="binary") -> UseCase:
    """Trips whose model is fitted by a function with this body."""
    text = MODEL + body
    if task == "regression":
        text = text.replace("LogisticRegression", "LinearRegression")
    folder = write_folder(root, task).folder
    (folder / "model.py").write_text(text)
    spec = folder / "use_case.yaml"
    spec.write_text(
        spec.read_text().replace(
            '"model:build", ', f'"model:build", fit: "model:fit", {declared}, '
        )
    )
    return load_use_case(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("fitting")


@pytest.fixture(scope="module")
def lake(root):
    lake = Lake(settings(root))
    yield lake
    lake.close()


@pytest.fixture(scope="module")
def data(root, lake) -> TrainingSet:
    use_case = write_folder(root, "binary")
    land(lake, use_case, trips(1, 28), days(1, 28))
    with lake.cursor(use_case.timezone) as cursor:
        return collect(cursor, lake, use_case, CUTOFF, lake.snapshot(cursor))


def labelled(*rows: tuple[datetime, datetime]) -> TrainingSet:
    """Examples of these event times, with when their labels were known."""
    times, known = zip(*rows, strict=True)
    frame = pd.DataFrame({"event_time": times, "label_known_at": known})
    frame["label"] = [index % 2 == 0 for index in range(len(frame))]
    return TrainingSet(1, BEGIN, HOLDOUT, CUTOFF, frame, frame.head(0))


def test_the_validation_is_the_last_part_before_the_holdout(tmp_path):
    second, use_case = timedelta(seconds=1), with_hook(tmp_path, FIT, "validation: 3d, min_rows: 2")
    rows = [
        (BEGIN, BEGIN + second),
        (VALIDATION - 2 * second, VALIDATION - second),
        # Its label says something of the validation itself.
        (VALIDATION - second, VALIDATION),
        (VALIDATION, VALIDATION + second),
        (HOLDOUT - 2 * second, HOLDOUT - second),
    ]
    training, validation = cut_validation(use_case, labelled(*rows))
    assert training.index.tolist() == [0, 1]
    assert validation.index.tolist() == [3, 4]


def test_without_a_length_it_is_as_long_as_the_holdout(tmp_path):
    use_case = with_hook(tmp_path, FIT, "min_rows: 2")
    rows = [(at(day), at(day, 1)) for day in (12, 13, 14, 15, 16)]
    training, validation = cut_validation(use_case, labelled(*rows))
    assert training.index.tolist() == [0, 1, 2]
    assert validation.index.tolist() == [3, 4]


def test_the_hook_sees_nothing_of_the_holdout_nor_of_what_was_known_later(tmp_path, data):
    use_case = with_hook(tmp_path, FIT + "    estimator.given_ = data\n")
    found = fit(use_case, data, threads=1).estimator.given_
    # Labels are known six hours after the trip began.
    late = timedelta(hours=6)
    parts = (found.training, found.validation, found.everything)
    assert [part.times.min() for part in parts] == [BEGIN, VALIDATION, BEGIN]
    assert all(part.times.max() < HOLDOUT - late for part in parts)
    assert found.training.times.max() < VALIDATION - late
    assert found.threads == 1
    # Between the parts are trips whose label became known during the validation.
    between = [part.keys["trip"] for part in parts]
    assert len(between[0]) + len(between[1]) < len(between[2]) == len(data.fitted)
    holdout = set(data.holdout["trip"])
    assert all(holdout.isdisjoint(keys) for keys in between)


def test_the_hook_is_given_rows_labels_times_and_keys_of_the_same_examples(tmp_path, data):
    use_case = with_hook(tmp_path, FIT + "    estimator.given_ = data\n")
    found = fit(use_case, data, threads=1).estimator.given_.everything
    assert list(found.rows) == list(use_case.model_columns)
    assert list(found.keys) == ["trip"]
    pd.testing.assert_frame_equal(found.rows, data.fitted[list(found.rows)])
    assert found.labels.tolist() == data.fitted["label"].astype(int).tolist()
    assert found.times.tolist() == data.fitted["event_time"].tolist()
    assert str(found.times.dt.tz) == "America/New_York"


def test_what_the_hook_does_to_its_data_stays_with_it(tmp_path, data):
    body = FIT + (
        "    for part in (data.training, data.validation, data.everything):\n"
        "        part.rows.loc[:, 'distance'] = 0.0\n"
        "        part.keys.loc[:, 'trip'] = 0\n"
        "        part.labels[:] = 0\n"
        "        part.times[:] = part.times[0]\n"
        "    estimator.kept_ = data.training.rows['distance'].sum()\n"
    )
    before = data.digest
    fitted = fit(with_hook(tmp_path, body), data, threads=1)
    assert fitted.estimator.kept_ == 0
    again = TrainingSet(1, BEGIN, HOLDOUT, CUTOFF, data.fitted, data.holdout)
    assert again.digest == before
    assert fitted.reference["distance"].max() > 0


def test_what_it_returns_is_the_model_and_nothing_means_the_one_it_was_given(tmp_path, data):
    given = fit(with_hook(tmp_path / "a", FIT), data, threads=1)
    other = "    " + "other = build()\n" + FIT.replace("estimator", "other")
    returned = fit(
        with_hook(tmp_path / "b", other + "    other.other_ = True\n    return other\n"),
        data, threads=1,
    )  # fmt: skip
    assert returned.estimator.other_
    pd.testing.assert_frame_equal(given.reference, returned.reference)


@pytest.mark.parametrize(
    ("task", "body", "problem"),
    [
        ("binary", FIT + "    return 3\n", r"fit\(\) returned a int, which has no predict_proba"),
        ("binary", FIT + "    return LogisticRegression\n", r"returned the class LogisticRegr"),
        ("binary", "    return None\n", r"Pipeline has no classes_ after fit, .*; fit\(\) should"),
        ("regression", "    pass\n", r"NotFittedError: .*; fit\(\) should fit the estimator that"),
        ("regression", "    return {}\n", r"returned a dict, which has no predict\(\); return the"),
        ("binary", "    data.valid\n",
         r"fit\(\) of 473 rows and 3 columns failed in line 14: AttributeError: 'FitData' object"),
        ("binary", "    estimator.fit(data)\n", r"failed in line 14: [TV]\w+Error"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_said(tmp_path, data, task, body, problem):
    with pytest.raises(TrainingFailed, match=problem):
        fit(with_hook(tmp_path, body, task=task), data, threads=1)


@pytest.mark.parametrize("arguments", ["estimator", "estimator, rows, labels", ""])
def test_a_function_that_cannot_be_called_so_is_refused_with_its_line(tmp_path, arguments):
    use_case = with_hook(tmp_path, FIT)
    file = use_case.folder / "model.py"
    file.write_text(file.read_text().replace("(estimator, data)", f"({arguments})"))
    with pytest.raises(SpecError, match=r"model\.py:13: fit\(\) should take the estimator and the"):
        Recipe.of(use_case)


def test_too_little_to_fit_on_or_to_validate_on_is_said(tmp_path, data):
    def failure(declared: str) -> str:
        use_case = with_hook(tmp_path, FIT, declared)
        with pytest.raises(TrainingFailed) as caught:
            fit(use_case, data, threads=1)
        return str(caught.value)

    many = failure("validation: 3d, min_rows: 300")
    assert "113 labelled rows for model.validation (3d) in [2024-03-17T00:00:00-04:00, " in many
    assert "min_rows is 300" in many
    few = failure("validation: 12d, min_rows: 200")
    assert "113 labelled rows to fit on before model.validation (12d)" in few
    short = TrainingSet(1, at(18), HOLDOUT, CUTOFF, data.fitted, data.holdout)
    with pytest.raises(TrainingFailed, match=r"nothing is left to fit on between .* or shorten it"):
        fit(with_hook(tmp_path, FIT), short, threads=1)


def test_one_class_to_validate_on_is_said(tmp_path, data):
    same = data.fitted.assign(
        label=data.fitted["label"].where(data.fitted["event_time"] < VALIDATION, True)
    )
    one = TrainingSet(1, BEGIN, HOLDOUT, CUTOFF, same, data.holdout)
    with pytest.raises(
        TrainingFailed, match=r"for model.validation \(3d\).* all with label 1; a cl"
    ):
        fit(with_hook(tmp_path, FIT), one, threads=1)


def test_a_column_without_a_value_to_fit_on_is_left_out_of_every_part(tmp_path, data):
    new = data.fitted["distance"].where(data.fitted["event_time"] >= VALIDATION)
    dead = TrainingSet(1, BEGIN, HOLDOUT, CUTOFF, data.fitted.assign(distance=new), data.holdout)
    fitted = fit(with_hook(tmp_path, FIT + "    estimator.given_ = data\n"), dead, threads=1)
    assert fitted.left_out == {"distance"}
    given = fitted.estimator.given_
    for part in (given.training, given.validation, given.everything):
        assert list(part.rows) == ["city", "pace__pace"]


def test_another_hook_or_another_validation_makes_another_version(tmp_path):
    cases = [
        with_hook(tmp_path / "a", FIT),
        with_hook(tmp_path / "b", FIT.replace("training", "everything")),
        with_hook(tmp_path / "c", FIT, "validation: 4d"),
    ]
    made = [fingerprint(each, CUTOFF.isoformat(), "data", 1) for each in (*cases, cases[0])]
    assert len(set(made)) == 3
    assert made[0] == made[3]
