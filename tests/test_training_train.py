import os
import shutil
import subprocess
import sys
from datetime import UTC, timedelta

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info

from ml_platform.errors import TrainingFailed
from ml_platform.features import assemble
from ml_platform.metrics import measure
from ml_platform.registry import Registry, history, predict
from ml_platform.serving.inputs import check_columns
from ml_platform.spec.declared import METRICS
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.training import decide, train
from ml_platform.training.training_set import collect
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder

pytestmark = pytest.mark.slow

CUTOFF = at(25)
PLOTS = {
    "binary": {"roc", "precision_recall", "calibration", "importances"},
    "multiclass": {"confusion", "importances"},
    "regression": {"predicted_vs_actual", "residuals", "importances"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def lake(root):
    lake = Lake(settings(root))
    yield lake
    lake.close()


@pytest.fixture(scope="module")
def registry(root):
    return Registry(settings(root))


@pytest.fixture(scope="module")
def cases(root, lake):
    cases = {task: write_folder(root, task, name=task) for task in PLOTS}
    for use_case in cases.values():
        land(lake, use_case, trips(1, 28), days(1, 28))
    return cases


@pytest.fixture(scope="module")
def reports(lake, registry, cases):
    return {
        task: train(lake, registry, use_case, CUTOFF, COMMIT, tags={"reason": "test"})
        for task, use_case in cases.items()
    }


@pytest.mark.parametrize("task", PLOTS)
def test_every_task_is_trained_judged_and_drawn(cases, reports, registry, task):
    report = reports[task]
    assert report.version == 1
    assert report.is_new
    assert {f"holdout_{name}" for name in METRICS[task]} <= report.metrics.keys()
    assert set(report.plots) == PLOTS[task]
    assert all(image.startswith(b"\x89PNG") for image in report.plots.values())
    assert list(report.importances) == list(cases[task].model_columns)
    assert registry.tags(cases[task], 1)["reason"] == "test"


def test_what_was_learned_is_better_than_chance(reports):
    assert reports["binary"].metrics["holdout_roc_auc"] > 0.85
    assert reports["multiclass"].metrics["holdout_accuracy"] > 0.6
    assert reports["regression"].metrics["holdout_r2"] > 0.5
    assert reports["regression"].importances["city"] > 0.5


def test_the_model_is_judged_by_the_predict_path_on_rows_it_was_not_fitted_on(
    lake, registry, cases, reports
):
    use_case, report = cases["binary"], reports["binary"]
    assert (report.trained_from, report.trained_until) == (at(5), at(20))
    with lake.cursor(use_case.timezone) as cursor:
        rows = assemble(
            cursor, lake, use_case, Window(at(20), CUTOFF), report.snapshot, labels_known_by=CUTOFF
        )
    assert report.rows["holdout"] == len(rows)
    model = registry.load(use_case, report.version)
    found = measure("binary", rows["label"], predict(use_case, model, rows))
    assert {f"holdout_{name}": value for name, value in found.items()}.items() <= (
        report.metrics.items()
    )


def test_a_row_is_fitted_on_only_if_its_label_was_known_when_the_holdout_began(lake, cases):
    use_case = cases["binary"]
    with lake.cursor(use_case.timezone) as cursor:
        data = collect(cursor, lake, use_case, CUTOFF, lake.snapshot(cursor))
    # Labels are known six hours after the trip began.
    assert data.fitted["event_time"].max() < at(20) - timedelta(hours=6)
    assert data.holdout["event_time"].max() < CUTOFF - timedelta(hours=6)
    assert data.holdout["event_time"].min() == at(20)


def test_the_window_begins_no_earlier_than_the_first_partition(lake, cases):
    with lake.cursor() as cursor:
        data = collect(cursor, lake, cases["binary"], at(15), lake.snapshot(cursor))
    assert data.trained_from == at(1)


@pytest.mark.parametrize("task", PLOTS)
def test_the_reference_is_a_sample_of_the_fitted_rows_by_time(lake, registry, cases, reports, task):
    use_case = cases[task]
    model = registry.load(use_case, reports[task].version)
    reference = model.reference
    columns = [*use_case.model_columns, "label", *use_case.prediction_columns]
    assert list(reference.columns) == columns
    assert len(reference) == 200
    again = predict(use_case, model, reference)
    pd.testing.assert_frame_equal(again, reference[list(again)])


def test_training_again_from_the_same_inputs_returns_the_version(lake, registry, cases, reports):
    again = train(
        lake, registry, cases["binary"], CUTOFF.astimezone(UTC), COMMIT, tags={"reason": "again"}
    )
    first = reports["binary"]
    assert not again.is_new
    for name in ("version", "digest", "metrics", "plots", "snapshot", "rows", "importances"):
        assert getattr(again, name) == getattr(first, name)


def test_other_data_or_another_cutoff_gives_another_version(tmp_path, root, registry):
    lake = Lake(settings(tmp_path))
    use_case = write_folder(tmp_path, "binary", name="changing")
    rows = trips(1, 28, a_day=12)
    land(lake, use_case, rows, days(1, 28))
    versions = [train(lake, registry, use_case, CUTOFF, COMMIT, tags={}).version]
    # A correction of a row after the cutoff changes nothing, one before it does.
    late = rows["started_at"] >= CUTOFF
    land(lake, use_case, rows.assign(delay=rows["delay"].where(~late, 99.0)), days(1, 28))
    versions += [train(lake, registry, use_case, CUTOFF, COMMIT, tags={}).version]
    early = rows["trip"] == rows["trip"][150]
    land(lake, use_case, rows.assign(delay=rows["delay"].where(~early, 99.0)), days(1, 28))
    versions += [train(lake, registry, use_case, CUTOFF, COMMIT, tags={}).version]
    versions += [train(lake, registry, use_case, at(26), COMMIT, tags={}).version]
    lake.close()
    assert versions == [1, 1, 2, 3]


AGAIN = """
import sys
from datetime import datetime
from pathlib import Path
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.storage import Commit, Lake
from ml_platform.training import decide, train
data, mlflow, folder, cutoff = sys.argv[1:]
settings = Settings(data=Path(data), mlflow_tracking_uri=mlflow)
report = train(
    Lake(settings), Registry(settings), load_use_case(Path(folder)),
    datetime.fromisoformat(cutoff), Commit("other", "0"), tags={},
)
print(report.is_new, report.digest, report.metrics["holdout_log_loss"])
"""


def test_another_process_with_another_hash_seed_makes_the_same_model_to_the_bit(
    root, lake, registry, cases, reports, tmp_path
):
    # From a copy of the folder, and a copy of the registry that does not know the version yet.
    use_case = write_folder(tmp_path, "binary", name="binary")
    assert use_case.code_version == cases["binary"].code_version
    copy = shutil.copy(settings(root).data / "mlflow" / "mlflow.db", tmp_path)
    expected = train(lake, registry, cases["binary"], at(26), COMMIT, tags={})
    arguments = [str(settings(root).data), f"sqlite:///{copy}", str(use_case.folder)]
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, *arguments, at(26).isoformat()],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    log_loss = expected.metrics["holdout_log_loss"]
    assert expected.is_new
    assert done.stdout.split() == ["True", expected.digest, str(log_loss)]


def test_too_little_to_train_on_is_said_with_figures(lake, registry, cases, root):
    def failure(use_case, cutoff=CUTOFF):
        with pytest.raises(TrainingFailed) as caught:
            train(lake, registry, use_case, cutoff, COMMIT, tags={})
        return str(caught.value)

    use_case = cases["binary"]
    empty = failure(write_folder(root, "binary", name="nothing"))
    assert "nothing cannot be trained yet: nothing has been written to nothing." in empty
    assert "nothing is left to fit on" in failure(use_case, at(4))
    greedy = use_case.model.model_copy(update={"min_rows": 1_000})
    few = failure(use_case.model_copy(update={"model": greedy}))
    assert "593 labelled rows to fit on" in few
    assert "min_rows is 1000" in few
    same = write_folder(root, "binary", name="same")
    rows = trips(1, 28, a_day=12)
    late = rows.assign(delay=np.where(rows["started_at"] >= at(20), 99.0, rows["delay"]))
    land(lake, same, late, days(1, 28))
    one = failure(same)
    assert "rows to judge on" in one
    assert "all with label 1" in one


def test_an_estimator_that_fails_is_said(lake, registry, root, cases):
    text = """\
from sklearn.linear_model import LogisticRegression


def build():
    return LogisticRegression()
"""
    use_case = write_folder(root / "failing", "binary", text, name="binary")
    with pytest.raises(TrainingFailed, match="fit of 593 rows and 3 columns failed: ValueError"):
        train(lake, registry, use_case, CUTOFF, COMMIT, tags={})


def test_fitting_uses_the_threads_of_the_settings_and_gives_them_back(lake, registry, root, cases):
    text = """\
from sklearn.dummy import DummyClassifier
from threadpoolctl import threadpool_info


class Counting(DummyClassifier):
    def fit(self, X, y):
        self.threads_ = sorted({pool["num_threads"] for pool in threadpool_info()})
        return super().fit(X, y)


def build():
    return Counting(strategy="prior")
"""
    use_case = write_folder(root / "counting", "binary", text, name="binary")
    before = threadpool_info()
    report = train(lake, registry, use_case, CUTOFF, COMMIT, tags={})
    model = registry.load(use_case, report.version)
    assert model.estimator.threads_ == [registry.settings.threads]
    assert threadpool_info() == before


DEAD = {
    "a number": {"distance": np.nan},
    "a text that the estimator names": {"city": None},
}


@pytest.mark.parametrize("dead", DEAD)
def test_a_column_without_a_value_is_left_out_by_name(lake, registry, root, dead):
    use_case = write_folder(root, "binary", name=f"dead_{len(dead)}")
    (column,) = DEAD[dead]
    rows = trips(1, 28)
    land(lake, use_case, rows.assign(**DEAD[dead]), days(1, 28))
    report = train(lake, registry, use_case, CUTOFF, COMMIT, tags={})
    assert column in report.left_out
    assert f"trained without {', '.join(report.left_out)}: none of the 593" in report.warnings[0]
    model = registry.load(use_case, report.version)
    assert list(model.columns) == list(use_case.model_columns)
    assert column not in model.fitted_columns
    assert registry.tags(use_case, 1)["left_out"] == ", ".join(sorted(report.left_out))
    entry = registry._client.get_model_version(use_case.name, "1")
    assert f"Trained without {', '.join(sorted(report.left_out))}" in entry.description
    # A value that comes back changes no prediction.
    alive = pd.DataFrame({"city": ["Boston"], "distance": [30.0], "pace__pace": [0.5]})
    gone = alive.assign(**DEAD[dead])
    if column == "distance":
        gone["distance"] = gone["distance"].astype("float64")
    pd.testing.assert_frame_equal(
        predict(use_case, model, alive), predict(use_case, model, gone.astype(alive.dtypes))
    )
    assert column not in report.importances
    sent = {name: alive[name].tolist() for name in alive}
    assert check_columns(model, sent).rows == 1
    decided = decide(lake, registry, use_case, report.version, COMMIT, decided_by="test")
    assert decided.promotion.left_out == report.left_out
    assert history(lake, use_case)[-1].left_out == report.left_out


def test_nothing_is_trained_where_no_column_has_a_value(lake, registry, root):
    use_case = write_folder(root, "binary", name="all_dead")
    land(lake, use_case, trips(1, 28).assign(distance=np.nan, city=None), days(1, 28))
    with pytest.raises(TrainingFailed, match="none of the columns that the model is given") as said:
        train(lake, registry, use_case, CUTOFF, COMMIT, tags={})
    assert "(city, distance, pace__pace)" in str(said.value)


def test_an_estimator_that_cannot_do_without_a_column_is_reported(lake, registry, root):
    text = """\
from sklearn.dummy import DummyClassifier


class Named(DummyClassifier):
    def fit(self, X, y):
        return super().fit(X[["city"]], y)


def build():
    return Named()
"""
    use_case = write_folder(root, "binary", text, name="named")
    land(lake, use_case, trips(1, 28).assign(city=None), days(1, 28))
    with pytest.raises(TrainingFailed, match="No row has a value of city") as said:
        train(lake, registry, use_case, CUTOFF, COMMIT, tags={})
    assert "where model.py names it, choose columns by their type instead" in str(said.value)


def test_a_metric_that_is_too_good_to_be_true_is_said_wherever_the_version_is_shown(
    lake, registry, root
):
    use_case = write_folder(root, "binary", name="reported")
    spec = use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace("[city, distance]", "[city, distance, delay]"))
    use_case = load_use_case(use_case.folder)
    land(lake, use_case, trips(1, 28), days(1, 28))
    report = train(lake, registry, use_case, CUTOFF, COMMIT, tags={})
    assert report.metrics["holdout_roc_auc"] > 0.995
    assert "roc_auc is 1 on the holdout" in report.too_good
    assert report.too_good.endswith("nearly determines the label: delay (1.00 of 1)")
    assert report.warnings == (
        f"too good to be true: {report.too_good}; look for what is known only afterwards",
    )
    assert registry.tags(use_case, 1)["too_good"] == report.too_good
    entry = registry._client.get_model_version(use_case.name, "1")
    assert f"Too good to be true: {report.too_good}." in entry.description
    # Nor is it forgotten where the version had been made before.
    again = train(lake, registry, use_case, CUTOFF, COMMIT, tags={})
    assert (again.is_new, again.too_good) == (False, report.too_good)
    decided = decide(lake, registry, use_case, report.version, COMMIT, decided_by="test")
    assert decided.promotion.too_good == history(lake, use_case)[-1].too_good == report.too_good


def test_a_metric_that_models_reach_is_not_doubted(lake, registry, root):
    use_case = write_folder(root, "regression", name="noisy")
    land(lake, use_case, trips(1, 28), days(1, 28))
    report = train(lake, registry, use_case, CUTOFF, COMMIT, tags={})
    assert (report.too_good, report.warnings) == ("", ())
    assert "too_good" not in registry.tags(use_case, 1)
